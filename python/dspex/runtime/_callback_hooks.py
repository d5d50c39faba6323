"""What callbacks hear of a call that runs natively: its adapter and its language model.

`NativeTarget` puts these around the three steps of a call where somebody listens, and else does without::

    messages_of  --> CallbackHooks.messages   on_adapter_format   the messages, as the model will get them
    lm           --> CallbackHooks.model      on_lm               asked as a whole or as a stream
    reader       --> CallbackHooks.reader     on_adapter_parse    the text of each generation

What a callback is shown are copies: the request has been laid out, and nobody changes it by the way.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from dspex._callbacks import Callbacks, hear
from dspex.lm import LMChoice, LMRequest, LMResponse, assemble
from dspex.runtime._replies import read_reply
from dspex.runtime._tool_calls import messages_of

if TYPE_CHECKING:
    from dspex._core import Plan, ReplyStream
    from dspex.adapters import Adapter
    from dspex.events import LMDelta
    from dspex.lm import LanguageModel
    from dspex.prediction import Repair
    from dspex.router import Operation
    from dspex.signature import Signature

__all__ = ["CallbackHooks", "HeardModel", "HeardReader"]


class CallbackHooks:
    """Who listens to one call.

    Args:
        everywhere: The callbacks of the runtime.
        lm: The language model of the call, which may have its own.
        adapter: Its adapter, which may too.
    """

    def __init__(self, everywhere: Sequence[Any], lm: LanguageModel, adapter: Adapter) -> None:
        self._adapter = adapter
        self._lm = lm
        self._of_adapter = (*everywhere, *adapter.callbacks)
        own = getattr(lm, "callbacks", ())
        self._of_lm = (*everywhere, *(own if isinstance(own, Callbacks) else ()))

    @classmethod
    def of(cls, everywhere: Sequence[Any], lm: LanguageModel, adapter: Adapter) -> CallbackHooks | None:
        """Those of a call; None where nobody listens."""
        hooks = cls(everywhere, lm, adapter)
        return hooks if hooks._of_adapter or hooks._of_lm else None

    def messages(self, plan: Plan, shown: Signature, operation: Operation) -> Sequence[Mapping[str, Any]]:
        """The messages of a call; see `messages_of`."""
        lm, adapter = self._lm, self._adapter
        if not self._of_adapter:
            return messages_of(lm, plan, shown, operation, adapter)
        inputs = {
            "signature": shown,
            "demos": list(operation.demos),
            "inputs": dict(operation.inputs),
        }
        with hear(self._of_adapter, "adapter_format", adapter, inputs) as told:
            messages = messages_of(lm, plan, shown, operation, adapter)
            told.outputs = copy.deepcopy(list(messages))
        return messages

    def model(self) -> Any:
        """The language model, with its callbacks around it."""
        return HeardModel(self._lm, self._of_lm) if self._of_lm else self._lm

    def reader(self, reader: Plan | ReplyStream, shown: Signature) -> Any:
        """What reads the reply, with the adapter's callbacks around it."""
        if not self._of_adapter:
            return reader
        return HeardReader(reader, shown, self._adapter, self._of_adapter)


class HeardModel:
    """A language model whose calls are heard of; see `dspex.lm.LanguageModel`."""

    def __init__(self, lm: LanguageModel, callbacks: Sequence[Any]) -> None:
        self._lm = lm
        self._callbacks = callbacks
        self.settings = getattr(lm, "settings", {})

    async def complete(self, request: LMRequest) -> LMResponse:
        """Ask, and tell what was answered."""
        with hear(self._callbacks, "lm", self._lm, _asked(request)) as told:
            response = await self._lm.complete(request)
            told.outputs = _outputs(response.choices)
        return response

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        """Ask for a stream, and tell at its end what came."""
        kept: list[LMDelta] = []
        with hear(self._callbacks, "lm", self._lm, _asked(request)) as told:
            async with aclosing(self._lm.stream(request)) as deltas:
                async for delta in deltas:
                    kept.append(delta)
                    yield delta
            told.outputs = _outputs(assemble(kept))


class HeardReader:
    """What reads replies, whose work is heard of."""

    def __init__(
        self, reader: Plan | ReplyStream, shown: Signature, adapter: Adapter, callbacks: Sequence[Any]
    ) -> None:
        self._reader = reader
        self._shown = shown
        self._adapter = adapter
        self._callbacks = callbacks

    def read(self, reply: str) -> tuple[dict[str, Any], list[Repair]]:
        """The fields of a reply and what was repaired in it; see `read_reply`."""
        inputs = {"signature": self._shown, "completion": reply}
        with hear(self._callbacks, "adapter_parse", self._adapter, inputs) as told:
            fields, repairs = read_reply(self._reader, reply)
            told.outputs = dict(fields)
        return fields, repairs


def _asked(request: LMRequest) -> dict[str, Any]:
    """What a model is asked, by the names that DSPy's has. A request's settings hold no key."""
    messages = copy.deepcopy(list(request.messages))
    return {"prompt": None, "messages": messages, "kwargs": copy.deepcopy(dict(request.settings))}


def _outputs(choices: Sequence[LMChoice]) -> list[Any]:
    """The generations as DSPy has them: texts, or where one is more than that, dicts."""
    outputs = [_output(choice) for choice in choices]
    return [output["text"] for output in outputs] if all(len(each) == 1 for each in outputs) else outputs


def _output(choice: LMChoice) -> dict[str, Any]:
    output: dict[str, Any] = {"text": choice.text or None}
    if choice.reasoning:
        output["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        output["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.tool_calls
        ]
    if choice.logprobs is not None:
        output["logprobs"] = copy.deepcopy(dict(choice.logprobs))
    return output
