"""`ReActV2`: an agent that calls tools until it submits its answer.

A call is a loop of turns; what each turn did is an event in the history, which the next prompt shows::

    inputs --> ask --> calls of tools --> run each, in order --> event --+
                ^                                                       |
                +----------------- no submit yet <----------------------+
                                                                        | submit was called rightly
    ends too early: max_iters, no calls, an unreadable reply,           v
    a prompt too long  --> ask once more, submit alone counts --> prediction, or ReplyError

A tool's failure is its result, with the traceback, so that the model can do better; so are an unknown tool
and arguments that do not fit. What fails on the way to the model ends the call, and so does a deadline. The
state of a call is its history, made anew for each unless the caller gives one, which then grows.

The loop is a generator that asks for what it cannot do itself, `_Ask` and `_Use`, and is sent the result; so
`__call__` and `acall` share all of it.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, get_args

from dspex import _callbacks
from dspex.adapters import AdapterLike, Parsing
from dspex.errors import ConfigError, DspexError, InputError, LMRequestError, ReplyError
from dspex.modules._module import Module
from dspex.modules._predict import Predict
from dspex.prediction import Prediction
from dspex.router import Dispatcher
from dspex.signature import Signature, SignatureLike, Validation

if TYPE_CHECKING:
    from dspex.lm import LanguageModel

__all__ = ["ReActV2"]

logger = logging.getLogger(__name__)

SUBMIT: Final = "submit"
FRAMES: Final = 5
"""The most frames of a failed tool's traceback that the model is shown."""
_RESERVED_INPUTS: Final = frozenset({"history", "tools"})
_RESERVED_OUTPUTS: Final = frozenset({"history", "termination_reason"})


class _Ask(NamedTuple):
    """Ask the predictor, with these inputs; `forced` where it may do nothing but submit."""

    inputs: dict[str, Any]
    forced: bool = False


class _Use(NamedTuple):
    """Run a tool with these arguments."""

    tool: Any
    args: dict[str, Any]


_Steps = Generator[_Ask | _Use, Any, Any]


class ReActV2(Module):
    """An agent that calls tools until it submits its answer, like `dspy.ReActV2` of DSPy 3.4.

    The tools' types are DSPy's, so DSPy has to be installed; it is imported when the agent is made. Its
    predictor is `react`. With an adapter that makes native tool calls the model calls tools natively, else as
    text.

    Args:
        signature: What goes in and what is to come out; no input may be called `history` or `tools`, no
            output `history` or `termination_reason`.
        tools: Functions with type hints, callable objects, or `dspy.Tool`s; plain or async.
        max_iters: The most turns before the model has to submit; a call may have its own.
        lm: As for `Predict`.
        runtime: As for `Predict`.
        validate: What to do about inputs that do not fit the signature; as for `Predict`.
        adapter: As for `Predict`.
        parsing: As for `Predict`.

    Raises:
        SignatureError: If the signature cannot be read.
        ConfigError: If DSPy is missing or too old (`react-needs-dspy`), a field or a tool has a name that is
            taken (`react-name`), or a setting is wrong.
        InputError: If a tool is none (`bad-tools`).

    Example:
        ```python
        def search(query: str) -> str: ...

        agent = dspex.ReActV2("question -> answer", [search])
        prediction = agent(question="Who wrote it?")
        prediction.answer, prediction.history, prediction.termination_reason
        ```
    """

    def __init__(
        self,
        signature: SignatureLike,
        tools: Sequence[Callable[..., Any]],
        max_iters: int = 20,
        *,
        lm: str | LanguageModel | None = None,
        runtime: Dispatcher | None = None,
        validate: Validation = "strict",
        adapter: AdapterLike | None = None,
        parsing: Parsing | None = None,
    ) -> None:
        self.signature = Signature.of(signature)
        self.max_iters = _count(max_iters)
        self.validate = validate
        for reserved, fields in (
            (_RESERVED_INPUTS, self.signature.input_fields),
            (_RESERVED_OUTPUTS, self.signature.output_fields),
        ):
            for name in sorted(reserved & fields.keys()):
                raise ConfigError(
                    f"ReActV2 has a field {name!r} of its own",
                    code="react-name",
                    hint="rename the signature's",
                )
        self._types = _Types.of_dspy()
        self.tools = self._named(tools)
        self.react = Predict(
            self._asked_for(), lm=lm, runtime=runtime, validate="off", adapter=adapter, parsing=parsing
        )

    def _named(self, tools: Sequence[Any]) -> dict[str, Any]:
        named = {}
        for tool in tools:
            if not callable(tool) or inspect.isclass(tool):
                raise InputError(
                    f"a tool is a function or a dspy.Tool, not {tool!r}"[:200],
                    code="bad-tools",
                    hint="write tools=[function, dspy.Tool(function), ...]",
                )
            made = tool if isinstance(tool, self._types.tool) else self._types.tool(tool)
            named[made.name] = made
        if SUBMIT in named:
            raise ConfigError(
                f"the tool {SUBMIT!r} is ReActV2's own", code="react-name", hint="give yours another name"
            )
        named[SUBMIT] = self._submit_tool()
        return named

    def _submit_tool(self) -> Any:
        kinds = {name: field.annotation for name, field in self.signature.output_fields.items()}

        def submit(**kwargs: Any) -> dict[str, Any]:
            missing = [name for name in kinds if name not in kwargs]
            if missing:
                raise ValueError(f"Missing required final output field(s): {', '.join(missing)}")
            return {name: kwargs[name] for name in kinds}

        return self._types.tool(
            submit,
            name=SUBMIT,
            desc="Submit the final outputs for the task.",
            args={name: _schema(kind) for name, kind in kinds.items()},
            arg_types=kinds,
        )

    def _asked_for(self) -> Signature:
        """The signature of one turn."""
        from dspex.signature import InputField, OutputField

        inputs, types = self.signature.input_fields, self._types
        fields: dict[str, Any] = {
            name: (_optional(field.annotation), InputField(desc=field.desc)) for name, field in inputs.items()
        }
        fields["history"] = (types.history, InputField())
        fields["tools"] = (list[types.tool], InputField())  # type: ignore[name-defined]
        fields["next_thought"] = (types.reasoning, OutputField())
        fields["tool_calls"] = (types.calls, OutputField())
        wanted = ", ".join(f"`{name}`" for name in self.signature.output_fields)
        given = ", ".join(f"`{name}`" for name in inputs)
        instructions = [
            self.signature.instructions,
            f"You are an Agent. Use the supplied tools to produce {wanted} from {given}.",
            "Call tools when more information is needed.",
            f"When the final answer is ready, call `submit` with {wanted}.",
            f"The available tools are: {', '.join(f'`{name}`' for name in self.tools)}.",
        ]
        return Signature.of(fields).with_instructions("\n".join(instructions).strip())

    def forward(self, **inputs: Any) -> Prediction:
        """Run the agent; see the class.

        Args:
            **inputs: The signature's inputs; besides, `max_iters` and a `history` that the call goes on with.

        Raises:
            InputError: If the inputs do not fit the signature.
            ReplyError: If the model submits nothing that can be used (`no-submit`), or its last reply cannot
                be read.
            DspexError: Whatever a call of the model raised.
        """
        steps = self._steps(inputs)
        made: Prediction = _run(steps, self._do)
        return made

    async def aforward(self, **inputs: Any) -> Prediction:
        """The same, awaited. Async tools are awaited, plain ones run where this runs."""
        steps = self._steps(inputs)
        sent, failed = None, None
        try:
            while True:
                try:
                    step = steps.send(sent) if failed is None else steps.throw(failed)
                except StopIteration as done:
                    made: Prediction = done.value
                    return made
                sent, failed = None, None
                try:
                    sent = await self._do_awaited(step)
                except Exception as error:  # noqa: BLE001 - the loop decides what becomes of it
                    failed = error
        finally:
            del failed  # it holds this frame by its traceback

    def _do(self, step: _Ask | _Use) -> Any:
        if isinstance(step, _Ask):
            return self.react(**self._asked_with(step))
        tool, args = step
        if not (_callbacks.given and (heard_by := self._tools_heard_by())):
            return tool(**args)
        with _callbacks.hear(heard_by, "tool", tool, {"kwargs": dict(args)}) as told:
            told.outputs = tool(**args)
        return told.outputs

    async def _do_awaited(self, step: _Ask | _Use) -> Any:
        if isinstance(step, _Ask):
            return await self.react.acall(**self._asked_with(step))
        tool, args = step
        if not (_callbacks.given and (heard_by := self._tools_heard_by())):
            return await tool.acall(**args)
        with _callbacks.hear(heard_by, "tool", tool, {"kwargs": dict(args)}) as told:
            told.outputs = await tool.acall(**args)
        return told.outputs

    def _tools_heard_by(self) -> list[Any]:
        """The runtime's callbacks, but for those that DSPy's settings have too: its tools tell these."""
        from dspy import settings

        told_by_dspy = [id(callback) for callback in settings.get("callbacks") or ()]
        everywhere = getattr(self._runs_on(), "callbacks", ())
        return [callback for callback in everywhere if id(callback) not in told_by_dspy]

    def _runs_on(self) -> Dispatcher | None:
        return self.react._runs_on()

    def _asked_with(self, ask: _Ask) -> dict[str, Any]:
        if not ask.forced:
            return ask.inputs
        config: dict[str, Any] = {"reasoning_effort": None}
        adapter = self.react.adapter or getattr(self.react._dispatcher(), "adapter", None)
        if getattr(adapter, "use_native_function_calling", False):
            config["tool_choice"] = {"type": "function", "function": {"name": SUBMIT}}
        return {**ask.inputs, "config": config}

    def _steps(self, given: dict[str, Any]) -> _Steps:
        max_iters = _count(given.pop("max_iters", self.max_iters))
        history = self._history(given.pop("history", None))
        self.signature.validate_inputs({**self.signature.input_defaults(), **given}, self.validate)
        pending = {name: given[name] for name in self.signature.input_fields if name in given}
        why = "max_iters"
        for turn in range(max_iters):
            try:
                said = yield _Ask(self._inputs(history, pending))
                calls = self._named_calls(said, turn)
            except (ReplyError, ValueError) as error:
                if isinstance(error, DspexError) and not isinstance(error, ReplyError):
                    raise
                logger.warning("ReActV2 stops early, since a reply cannot be read: %s", error)
                why = "parse_error"
                break
            except LMRequestError as error:
                if error.code != "lm-context-length":
                    raise
                logger.warning("ReActV2 stops early, since its prompt has become too long")
                why = "context_window_exceeded"
                break
            if not calls.tool_calls:
                why = "empty_tool_calls"
                break
            outputs, _ = yield from self._work(history, pending, said, calls)
            pending = {}
            if outputs is not None:
                return Prediction({**outputs, "history": history, "termination_reason": SUBMIT})
        said = yield _Ask(self._inputs(history, pending), forced=True)
        calls = self._named_calls(said, max_iters)
        calls = self._types.calls(tool_calls=[call for call in calls.tool_calls if call.name == SUBMIT])
        if not calls.tool_calls:
            raise _no_submit(f"no call of submit after {why}")
        outputs, results = yield from self._work(history, pending, said, calls)
        if outputs is None:
            errors = "\n".join(str(result.value) for result in results if result.is_error)
            raise _no_submit(f"submit failed after {why}:\n{errors}")
        return Prediction({**outputs, "history": history, "termination_reason": "forced_submit"})

    def _inputs(self, history: Any, pending: dict[str, Any]) -> dict[str, Any]:
        return {"history": history, "tools": list(self.tools.values()), **pending}

    def _history(self, given: Any) -> Any:
        if isinstance(given, self._types.history):
            return given
        return self._types.history.model_validate({"messages": []} if given is None else given)

    def _named_calls(self, said: Prediction, turn: int) -> Any:
        """The calls of a turn, each with an id."""
        calls = said.get("tool_calls")
        calls = self._types.calls.model_validate({"tool_calls": []} if calls is None else calls)
        named = [
            call.model_copy(update={"id": f"call_{turn}_{at}"}) if call.id is None else call
            for at, call in enumerate(calls.tool_calls)
        ]
        return self._types.calls(tool_calls=named)

    def _work(self, history: Any, pending: Mapping[str, Any], said: Prediction, calls: Any) -> _Steps:
        """Run the calls and write the turn's event; gives the submitted outputs, if any, and all results."""
        values: list[Any] = []
        failed: list[bool] = []
        outputs: dict[str, Any] | None = None
        for call in calls.tool_calls:
            tool = self.tools.get(call.name)
            if tool is None:
                values.append(f"Unknown tool: {call.name}")
                failed.append(True)
                continue
            try:
                value = yield _Use(tool, call.args or {})
            except Exception as error:  # noqa: BLE001 - a tool may raise anything, and the model is to know
                values.append(f"Execution error in {call.name}: {_told(error)}")
                failed.append(True)
                continue
            values.append(value)
            failed.append(False)
            if call.name == SUBMIT:
                outputs = value
        results = self._types.results.from_tool_calls_and_values(calls, values, failed)
        event = dict(pending)
        if said.get("next_thought") is not None:
            event["next_thought"] = said["next_thought"]
        event["tool_calls"] = calls.model_copy(update={"tool_call_results": results})
        history.messages.append(event | (outputs or {}))
        return outputs, results.tool_call_results

    def __repr__(self) -> str:
        tools = ", ".join(name for name in self.tools if name != SUBMIT)
        return f"{type(self).__name__}({self.signature.text!r}, tools=[{tools}])"


def _run(steps: _Steps, do: Callable[[_Ask | _Use], Any]) -> Any:
    sent, failed = None, None
    try:
        while True:
            try:
                step = steps.send(sent) if failed is None else steps.throw(failed)
            except StopIteration as done:
                return done.value
            sent, failed = None, None
            try:
                sent = do(step)
            except Exception as error:  # noqa: BLE001 - the loop decides what becomes of it
                failed = error
    finally:
        del failed  # it holds this frame by its traceback


class _Types(NamedTuple):
    """DSPy's classes of which the agent's fields are made."""

    tool: Any
    calls: Any
    results: Any
    history: Any
    reasoning: Any

    @classmethod
    def of_dspy(cls) -> Self:
        try:
            from dspy import History, Reasoning, Tool, ToolCalls
            from dspy.adapters.types.tool import ToolCallResults
        except ImportError as error:
            raise ConfigError(
                "ReActV2 needs the types of DSPy's tools",
                code="react-needs-dspy",
                hint="install DSPy 3.3 or newer",
            ) from error
        return cls(Tool, ToolCalls, ToolCallResults, History, Reasoning)


def _count(max_iters: Any) -> int:
    if isinstance(max_iters, bool) or not isinstance(max_iters, int) or max_iters < 0:
        raise ConfigError(
            f"max_iters must be a count, not {max_iters!r}"[:200],
            code="react-setting",
            hint="write max_iters=20",
        )
    return max_iters


def _schema(kind: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(kind).json_schema()
    except Exception:  # noqa: BLE001 - whatever has no schema is written as a text
        return {"type": "string"}


def _optional(kind: Any) -> Any:
    if type(None) in get_args(kind):
        return kind
    try:
        return kind | None
    except TypeError:
        return kind


def _told(error: BaseException) -> str:
    """A tool's failure as the model is shown it."""
    lines = traceback.format_exception(type(error), error, error.__traceback__, limit=FRAMES)
    return "\n" + "".join(lines).strip()


def _no_submit(what: str) -> ReplyError:
    return ReplyError(
        f"the agent has no final outputs: {what}",
        code="no-submit",
        hint="allow more turns by max_iters=, or ask a model that calls tools well",
        reply="",
        fields=[],
    )
