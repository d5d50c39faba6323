"""`NativeTarget`: runs operations in this process, with the Rust core."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from dspex import _callbacks, dialects
from dspex._core import StageTimes
from dspex.errors import DspexError, LMResponseError, ReplyError, RouteError
from dspex.lm import LM, LMRequest, Prompt
from dspex.prediction import Prediction, Repair, take_stages
from dspex.router import AnyOperation, Operation
from dspex.runtime._replies import read_reply, refusal_of
from dspex.runtime._tool_calls import messages_of, offer_of, read_choice

if TYPE_CHECKING:
    from dspex._core import Stages
    from dspex.adapters import Adapter, Parsing
    from dspex.lm import LanguageModel, LMResponse
    from dspex.router import ReplySink
    from dspex.runtime._callback_hooks import CallbackHooks
    from dspex.runtime._native_stream import StreamedReply
    from dspex.signature import Signature

__all__ = ["NativeCall", "NativeTarget"]

LOW_TEMPERATURE = 0.15
SAMPLING_TEMPERATURE = 0.7

_WITHOUT_TEXT: Final = frozenset({"lm-no-choices", "lm-no-content", "lm-refusal"})
"""Codes of answers in which there is nothing to read."""


class NativeTarget:
    """Renders the prompt and reads the reply in Rust, and asks the LM from this process.

    Args:
        lm: The language model.
        adapter: Lays out prompts and reads replies, where a call brings none of its own.
        dialect: The version of DSPy whose prompts are written, or None where the installed one is not known.
        callbacks: Who hears of all calls.
    """

    name = "native"
    side: Literal["native", "python"] = "native"

    def __init__(
        self, lm: LanguageModel, adapter: Adapter, dialect: str | None, callbacks: Sequence[Any] = ()
    ) -> None:
        self._lm = lm
        self._lm_refusal = refusal_of(lm)
        self._adapter = adapter
        self._dialect = dialect
        self._callbacks = callbacks
        self._layout = _NO_LAYOUT
        self.stages = StageTimes()

    @property
    def lacks(self) -> Sequence[str]:
        """What an operation may need that this process has not; see `dspex.router.Target`."""
        unknown = ("unknown-dspy",) if self._dialect is None else ()
        return ("module-needs-dspy", "adapter-needs-dspy", "lm-needs-dspy", *unknown)

    def unable(self, operation: AnyOperation) -> DspexError | None:
        """Why the operation cannot run here: only DSPy has its module, model, adapter or prompts."""
        if not isinstance(operation, Operation):
            return _needs_dspy(operation)
        refusal = self._lm_refusal if operation.lm is None else refusal_of(operation.lm)
        if refusal is not None:
            return refusal
        adapter = operation.adapter or self._adapter
        if self._dialect is None and adapter.dialect is None:
            return adapter.refusal() or dialects.unknown_dspy()
        return adapter.refusal()

    def steps(self, operation: AnyOperation, timeout: float) -> NativeCall:
        """Lay the operation out; see `dspex.router.SteppedTarget`."""
        if not isinstance(operation, Operation):
            raise _needs_dspy(operation)
        stages = self.stages.begin()
        lm = operation.lm or self._lm
        adapter = operation.adapter or self._adapter
        layout = self._layout
        if (
            layout.signature is not operation.signature
            or layout.adapter is not adapter
            or layout.lm is not lm
            or layout.parsing != operation.parsing
            or operation.config
            or _callbacks.given
        ):
            layout = self._laid_out(operation, adapter, lm)
        hooks = layout.hooks
        if hooks is not None:
            messages, lm = hooks.messages(layout.plan, layout.shown, operation), hooks.model()
        elif layout.as_json:
            body = layout.plan.body(operation.inputs, operation.demos)
            messages = Prompt(body) if isinstance(body, bytes) else body
        elif layout.plain:
            messages = layout.plan.render(operation.inputs, operation.demos)
        else:
            messages = messages_of(lm, layout.plan, layout.shown, operation, layout.reading)
        settings = layout.settings
        if not layout.settled:
            settings = sampling(settings, getattr(lm, "settings", None) or {})
        rendered = stages.mark("render")
        request = LMRequest(messages, settings, timeout - rendered)
        return NativeCall(operation, lm, layout, request, stages, rendered)

    def _laid_out(self, operation: Operation, adapter: Adapter, lm: Any) -> Layout:
        """What calls of this kind share; the last one that is good for others is kept."""
        reading = adapter if operation.parsing is None else adapter.with_parsing(operation.parsing)
        shown, config = offer_of(operation, reading, lm)
        plan = reading.compile(shown, self._dialect)
        hooks = self._hooks(lm, reading) if _callbacks.given else None
        plain = not reading.use_native_function_calling
        settled = isinstance(lm, LM)  # whose settings never change
        layout = Layout(
            signature=operation.signature,
            adapter=adapter,
            lm=lm,
            parsing=operation.parsing,
            reading=reading,
            shown=shown,
            plan=plan,
            settings=sampling(config, lm.settings) if settled else config,
            settled=settled,
            hooks=hooks,
            plain=plain,
            as_json=plain and hooks is None and getattr(lm, "takes_json", False) is True,
        )
        if plain and hooks is None and not operation.config:
            self._layout = layout
        return layout

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        """Run the operation here; see `dspex.router.Target.run`."""
        call = self.steps(operation, timeout)
        asked = time.perf_counter()
        try:
            answer = await call.ask()
        except DspexError as raised:
            error = call.error(raised)
            if error is raised:
                raise
            raise error from raised
        return call.finish(answer, time.perf_counter() - asked)

    def _hooks(self, lm: LanguageModel, adapter: Adapter) -> CallbackHooks | None:
        from dspex.runtime._callback_hooks import CallbackHooks  # most processes have no callbacks

        return CallbackHooks.of(self._callbacks, lm, adapter)


class Layout(NamedTuple):
    """What calls of one signature, adapter, model and way of reading share.

    Attributes:
        signature: The signature.
        adapter: The adapter, before the call's way of reading.
        lm: The language model.
        parsing: The call's way of reading, or None for the adapter's.
        reading: The adapter with that way.
        shown: The fields that are laid out as text.
        plan: The plan of these.
        settings: Settings of the request.
        settled: Whether the settings of the model have been looked at already: it never changes its own.
        hooks: The callbacks of the call, if it has any.
        plain: Whether no field has to do with tools.
        as_json: Whether the model takes the messages as JSON, of which nobody makes objects.
    """

    signature: Signature | None
    adapter: Adapter | None
    lm: Any
    parsing: Parsing | None
    reading: Any
    shown: Any
    plan: Any
    settings: Mapping[str, Any]
    settled: bool
    hooks: CallbackHooks | None
    plain: bool
    as_json: bool


_NO_LAYOUT: Final = Layout(None, None, None, None, None, None, None, {}, False, None, False, False)


class NativeCall:
    """One operation on its way through this process, laid out; see `dspex.router.Steps`.

    Args:
        operation: The operation.
        lm: The language model.
        layout: What it shares with others.
        request: What the model is asked.
        stages: Its stages, the first of which has ended.
        rendered: Seconds that this one took.
    """

    __slots__ = ("_layout", "_lm", "_operation", "_rendered", "_request", "_stages", "_stream")

    def __init__(
        self,
        operation: Operation,
        lm: Any,
        layout: Layout,
        request: LMRequest,
        stages: Stages,
        rendered: float,
    ) -> None:
        self._operation = operation
        self._lm = lm
        self._layout = layout
        self._request = request
        self._stages = stages
        self._rendered = rendered
        self._stream: StreamedReply | None = None

    def ask(self) -> Awaitable[LMResponse]:
        """Ask the language model."""
        sink = self._operation.sink
        if sink is None or not sink.fields:
            answer: Awaitable[LMResponse] = self._lm.complete(self._request)
            return answer
        return self._streamed(sink)

    async def _streamed(self, sink: ReplySink) -> LMResponse:
        from dspex.runtime._native_stream import stream_reply  # it needs the events of streams

        response, self._stream = await stream_reply(self._lm, self._request, self._layout.plan, sink)
        return response

    def ask_now(self) -> LMResponse | None:
        """Ask a model that answers at once; None where it does not, or the answer is streamed."""
        at_once = getattr(self._lm, "complete_now", None)
        if at_once is None or self._operation.sink is not None:
            return None
        response: LMResponse | None = at_once(self._request)
        return response

    def error(self, error: DspexError) -> DspexError:
        """To the caller an answer with nothing to read is the same as an empty text."""
        self._stages.mark("lm")
        if isinstance(error, LMResponseError) and error.code in _WITHOUT_TEXT:
            # A worker could not tell them apart.
            return ReplyError.empty(error.message.partition("completion: ")[2])
        return error

    def spent(self) -> dict[str, float]:
        """Seconds of the stages that have ended, for those who listen to a call that fails."""
        return self._stages.seconds()

    def finish(self, answer: LMResponse, seconds: float) -> Prediction:
        """Read the answer."""
        stages = self._stages
        # Between its steps a call may wait for others of its batch, or for a thread: that is no part of it.
        stages.put("lm", seconds)
        layout, operation, stream = self._layout, self._operation, self._stream
        signature, plan, hooks = operation.signature, layout.plan, layout.hooks
        rows: list[dict[str, Any]] = []
        repairs: list[Repair] = []
        for place, choice in enumerate(answer.choices):
            # The first reply of a stream has been read while it came.
            reader = plan if stream is None or place else stream.reply
            if hooks is not None:
                reader = hooks.reader(reader, layout.shown)
            try:
                if layout.plain and choice.text and not (choice.tool_calls or choice.reasoning):
                    fields, done = read_reply(reader, choice.text)
                else:
                    parsing = layout.reading.parsing
                    fields, done = read_choice(plan, choice, signature, layout.shown, parsing, reader)
            except ReplyError:
                self._forget()
                raise
            rows.append(fields)
            if done:
                repairs += done
        prediction = Prediction.of_rows(rows, signature, dict(answer.usage), None, repairs)
        take_stages(prediction, self._rendered, seconds, stages.mark("parse"))
        if stream is not None and stream.first_text is not None:
            prediction.timings["first_text"] = self._rendered + stream.first_text
        if answer.waited:
            prediction.timings["limit"] = answer.waited
        if answer.cached:
            prediction.timings["cache"] = seconds
        return prediction

    def _forget(self) -> None:
        """An answer that cannot be read is not given to the next call, which may be this one's retry."""
        forget = getattr(self._layout.lm, "forget", None)
        if forget is not None:
            forget(self._request)


def _needs_dspy(operation: AnyOperation) -> RouteError:
    from dspex.router import ModuleOperation, OptimizeOperation  # as it is an error, it can wait for them

    what = "the program"
    if isinstance(operation, ModuleOperation):
        what = operation.module.module
    elif isinstance(operation, OptimizeOperation):
        what = operation.request.optimizer.module
    return RouteError(
        f"{what} is run by real DSPy, in a worker",
        code="module-needs-dspy",
        hint="give the runtime a pool and an LM that workers can ask, dspex.Runtime(dspex.LM(...), pools=1), "
        'and leave out route="native"',
    )


def sampling(config: Mapping[str, Any], lm_settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one LM call, by the rule of `dspy.Predict`.

    Several generations at a temperature of nearly nothing would all be the same, so DSPy raises an unset
    temperature, or one of 0.15 and below, to 0.7 when more than one is asked for.

    Args:
        config: The call's settings.
        lm_settings: The LM's own, which the call's override.
    """
    settings = dict(config)
    temperature = config.get("temperature") or lm_settings.get("temperature")
    generations = config.get("n") or lm_settings.get("n") or lm_settings.get("num_generations") or 1
    if generations > 1 and (temperature is None or temperature <= LOW_TEMPERATURE):
        settings["temperature"] = SAMPLING_TEMPERATURE
    return settings
