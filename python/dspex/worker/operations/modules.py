"""The operations `module`, any DSPy module or program of the user's, and `predict`, its simplest case.

What is asked and answered is in `dspex.protocol.requests`. A module is made once per content and shared by
the calls in flight, as DSPy's own modules allow; a program that keeps something of a call on `self` needs a
pool with `max_inflight=1`.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import dspy

from dspex._threads import in_thread
from dspex.errors import InputError
from dspex.protocol.records import refusal
from dspex.protocol.requests import ModuleAnswer, ModuleRequest, PredictRequest
from dspex.protocol.values import from_wire, to_wire
from dspex.worker.host import RUNNING, SETTING
from dspex.worker.input_streams import input_streams_of
from dspex.worker.operations import adapters
from dspex.worker.operations.functions import refuse_arguments
from dspex.worker.operations.lm import LMWatch, Models
from dspex.worker.operations.module_cache import ModuleCache
from dspex.worker.operations.predict import CALL, Call, Predict
from dspex.worker.operations.results import plain

__all__ = ["Modules", "Run"]


class Run(NamedTuple):
    """A module about to be called: with what, and in which `dspy.context`."""

    module: Any
    positional: Sequence[Any]
    inputs: dict[str, Any]
    settings: dict[str, Any]
    watch: LMWatch
    started: float
    custom_outputs: Sequence[str]
    raw_outputs: Sequence[str]

    async def call(self) -> Any:
        """Call the module, on the loop or in a thread, and wait for what it gives.

        Raises:
            InputError: If it takes no such inputs (`arguments`).
        """
        try:
            if is_async(self.module):
                return await self.module.acall(*self.positional, **self.inputs)
            return await in_thread(functools.partial(self.module, *self.positional, **self.inputs))
        except TypeError as error:
            refuse_arguments(_called(self.module), self.positional, self.inputs, "$.inputs", error)
            raise

    def messages(self) -> list[Any]:
        """The messages that the adapter has made last, if the call's is one that tells."""
        return list(getattr(self.settings["adapter"], "messages", None) or ())

    def prompt_alone(self) -> ModuleAnswer:
        """What is sent back where nothing is wanted but the messages."""
        timings = {"lm": 0.0, "worker": time.perf_counter() - self.started}
        return {"completions": [], "usage": {}, "timings": timings, "messages": self.messages()}

    def answer(self, result: Any, usage: Any) -> ModuleAnswer:
        """What is sent back for what the module gave, and for what DSPy's tracker counted."""
        adapter = self.settings["adapter"]
        replies = adapter.replies if isinstance(adapter, adapters.CallAdapter) else []
        is_prediction = isinstance(result, dspy.Prediction)
        rows = _rows(result, len(replies) or 1) if is_prediction else []
        for row in rows:
            row |= {name: to_wire(row[name]) for name in self.custom_outputs if name in row}
            for name in self.raw_outputs:
                row.pop(name, None)
        if not isinstance(self.module, Predict):
            rows = [plain(row) for row in rows]
        timings = {"lm": self.watch.seconds, "worker": time.perf_counter() - self.started}
        answer: ModuleAnswer = {
            "completions": rows,
            "usage": _sum(usage.get_total_tokens()),
            "timings": timings,
            "stages": self.watch.stages.rows,
        }
        if not is_prediction:
            answer["value"] = plain(result)
        if isinstance(adapter, adapters.CallAdapter) and adapter.repairs:
            answer["repairs"] = [(*repair,) for repair in adapter.repairs]
        if self.raw_outputs:
            answer["replies"] = replies
        return answer


class Modules:
    """Serves calls of DSPy modules.

    Args:
        models: The worker's LMs.
    """

    def __init__(self, models: Models) -> None:
        self._models = models
        self._made = ModuleCache()

    async def answer(self, request: PredictRequest | ModuleRequest) -> ModuleAnswer:
        """Serve one call.

        Raises:
            SignatureError: If the signature cannot be read.
            InputError: If inputs are missing, or are none that the module takes.
            ConfigError: If the class is unknown, refuses what it is made with, or there is no LM.
        """
        with self.ready(request) as run, dspy.context(**run.settings), dspy.track_usage() as usage:
            try:
                result = await run.call()
            except adapters.PromptAloneError:
                return run.prompt_alone()
        answer = run.answer(result, usage)
        if request.prompt is not None:
            answer["messages"] = run.messages()
        return answer

    @contextlib.contextmanager
    def ready(self, request: PredictRequest | ModuleRequest) -> Iterator[Run]:
        """What a request asks for, made ready, with its LM kept open; raises what `answer` does."""
        started = time.perf_counter()
        module, required, signature = self._made.get(request)
        if not request.validated:
            _refuse_missing(request, required)
        watch = LMWatch()
        self._models.remember_secrets(request.config)
        inputs, call = _arguments(module, signature, request)
        of_lm = request.lm
        if not isinstance(module, dspy.Predict):  # its predictors have settings of their own, over the LM's
            of_lm = {**request.lm, **request.config}
        inputs.update(input_streams_of(request.input_streams))
        with contextlib.ExitStack() as stack:
            adapter = adapters.make(request, lambda: self._lm(stack, request.extraction_lm or request.lm))
            settings = {
                "lm": self._lm(stack, of_lm) if self._needs_lm(module, of_lm) else None,
                "adapter": adapter,
                "callbacks": [*dspy.settings.callbacks, watch],
                # Modules made of others look at what those did; for one predictor nobody does.
                "trace": None if isinstance(module, dspy.Predict) else [],
                SETTING: RUNNING.get(None),
                CALL: call,
            }
            outputs = () if request.custom is None else request.custom.outputs
            positional = request.positional if isinstance(request, ModuleRequest) else ()
            yield Run(module, positional, inputs, settings, watch, started, outputs, request.raw_outputs)

    def _needs_lm(self, module: Any, settings: Mapping[str, Any]) -> bool:
        """Whether a call has an LM: a retriever does without one in a pool that has none."""
        return isinstance(module, dspy.Module) or self._models.named(settings)

    def _lm(self, stack: contextlib.ExitStack, override: Mapping[str, Any] | None) -> dspy.LM:
        """An LM, until the stack is unwound."""
        lm = self._models.get(override)
        stack.callback(self._models.give_back, lm)
        return lm


def is_async(module: Any) -> bool:
    """Whether a module is awaited: its class has an `aforward` that is no older than its `forward`.

    `dspy.CodeAct` has a `forward` of its own, and the `aforward` of the class it derives from. That of
    `dspy.RLM` runs code on the loop, which would stop: the loop is also what the code's tools wait for.
    """
    for cls in type(module).__mro__:
        if "aforward" in vars(cls):
            return cls is not getattr(dspy, "RLM", None)
        if "forward" in vars(cls):
            return False
    return False


def _called(module: Any) -> Any:
    """What takes a module's inputs."""
    for name in ("aforward", "forward"):
        if hasattr(module, name):
            return getattr(module, name)
    return module.__call__


def _arguments(
    module: Any, signature: Any, request: PredictRequest | ModuleRequest
) -> tuple[dict[str, Any], Call | None]:
    """What to call a module with, and what `Predict` finds in DSPy's settings beside it."""
    inputs = dict(request.inputs)
    if not isinstance(module, dspy.Predict):
        if request.custom is not None and signature is not None:
            inputs = _made_again(inputs, request.custom.inputs, signature, "$.inputs")
        return inputs, None
    demos = None if request.demos is None else list(request.demos)
    if request.custom is not None:
        inputs = _made_again(inputs, request.custom.inputs, module.signature, "$.inputs")
        for i, names in enumerate(request.custom.demos):
            if demos is None or i >= len(demos):
                raise refusal(f"$.custom.demos[{i}]", "speaks of no example")
            demos[i] = _made_again(demos[i], names, module.signature, f"$.demos[{i}]")
    if isinstance(module, Predict):
        call = Call(inputs, request.config, demos, request.validated)
        return call.arguments(), call
    inputs = {"config": request.config, **inputs}  # a class of the user's
    if demos is not None:  # else those of its saved state, if it has one
        inputs.setdefault("demos", demos)
    return inputs, None


def _refuse_missing(request: PredictRequest | ModuleRequest, required: Sequence[str]) -> None:
    """See to it that a call gives what the module's signature asks for, before a model is asked.

    Raises:
        InputError: If an input is missing.
    """
    given = {*request.inputs, *request.input_streams}
    missing = [name for name in required if name not in given]
    if missing:
        raise InputError(
            f"the inputs do not fit the signature: {', '.join(f'`{name}` is missing' for name in missing)}",
            hint=f"give $.inputs a value for each of: {', '.join(required)}",
            problems=[(name, "missing") for name in missing],
        )


def _made_again(values: Mapping[str, Any], names: Sequence[str], signature: Any, at: str) -> dict[str, Any]:
    """Values with those of these names as their fields' types."""
    made = dict(values)
    for name in names:
        if name not in values or name not in signature.fields:
            raise refusal(at, f"has no value {name!r} for a field of that name")
        try:
            made[name] = from_wire(values[name], signature.fields[name].annotation)
        except Exception as error:  # a validator of the user's may raise anything
            raise InputError(
                f"{at}.{name} is not of its field's type: {error}",
                code="input-type",
            ) from error
    return made


def _rows(result: Any, completions: int) -> list[dict[str, Any]]:
    """The fields of each completion; of one without outputs DSPy keeps nothing, so that they are counted."""
    if result.completions is None:
        return [dict(result)]
    columns: dict[str, list[Any]] = dict(result.completions.items())
    count = max(map(len, columns.values()), default=completions)
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def _sum(by_model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens over all models of a call. Entries other than counts come from the first model that has them."""
    total: dict[str, Any] = {}
    for tokens in by_model.values():
        for name, count in tokens.items():
            if isinstance(count, int | float) and isinstance(total.get(name), int | float):
                total[name] += count
            elif count is not None:
                total.setdefault(name, count)
    return total
