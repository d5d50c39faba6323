"""`NativeTarget`: runs operations in this process, with the Rust core."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from dspex import dialects
from dspex.errors import DspexError, LMResponseError, ReplyError, RouteError
from dspex.lm import LMRequest
from dspex.prediction import Prediction, Repair
from dspex.router import AnyOperation, ModuleOperation, Operation
from dspex.runtime._native_stream import Told, stream_reply
from dspex.runtime._replies import adapter_of, refusal_of
from dspex.runtime._tool_calls import messages_of, offer_of, read_choice

if TYPE_CHECKING:
    from dspex.adapters import Adapter
    from dspex.lm import LanguageModel

__all__ = ["NativeTarget"]

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
    """

    name = "native"
    side: Literal["native", "python"] = "native"

    def __init__(self, lm: LanguageModel, adapter: Adapter, dialect: str | None) -> None:
        self._lm = lm
        self._lm_refusal = refusal_of(lm)
        self._adapter = adapter
        self._dialect = dialect

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

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        """Run the operation here; see `dspex.router.Target.run`."""
        if not isinstance(operation, Operation):
            raise _needs_dspy(operation)
        begun = time.perf_counter()
        lm, adapter = operation.lm or self._lm, adapter_of(operation, self._adapter)
        shown, config = offer_of(operation, adapter, lm)
        plan = adapter.compile(shown, self._dialect)
        messages = messages_of(lm, plan, shown, operation, adapter)
        rendered = time.perf_counter()
        settings = sampling(config, getattr(lm, "settings", {}))
        request = LMRequest(messages, settings, timeout - (rendered - begun))
        told: Told | None = None
        try:
            if operation.sink is None or not operation.sink.fields:
                response = await lm.complete(request)
            else:
                response, told = await stream_reply(lm, request, plan, operation.sink)
        except LMResponseError as error:
            if error.code in _WITHOUT_TEXT:
                # To the caller it is the same as an empty text; a worker could not tell them apart.
                raise ReplyError.empty(error.message.partition("completion: ")[2]) from error
            raise
        answered = time.perf_counter()
        rows: list[Mapping[str, Any]] = []
        repairs: list[Repair] = []
        for place, choice in enumerate(response.choices):
            # The first reply of a stream has been read while it came.
            reader = plan if told is None or place else told.reply
            fields, done = read_choice(plan, choice, operation.signature, shown, adapter.parsing, reader)
            rows.append(fields)
            repairs += done
        parsed = time.perf_counter()
        timings = {
            "render": rendered - begun,
            "lm": answered - rendered,
            "parse": parsed - answered,
            "total": parsed - begun,
        }
        if told is not None and told.first_text is not None:
            timings["first_text"] = told.first_text - begun
        return Prediction.from_completions(
            rows, operation.signature, usage=response.usage, repairs=repairs, timings=timings
        )


def _needs_dspy(operation: AnyOperation) -> RouteError:
    what = operation.module.module if isinstance(operation, ModuleOperation) else "the program"
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
