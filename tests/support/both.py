"""One scripted model for both libraries, and what was asked of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self

import dspy
from tests.support.models import completion

import dspex
from dspex.errors import ReplyError
from dspex.testing import ChatRequest, ModelServer, ScriptedLM

__all__ = ["BothAsk", "Call", "Replies", "Script", "ToolLM", "in_dspex", "in_dspy", "wanted"]

Call = tuple[Any, Any, Any]
"""The messages of a call, its temperature and its rollout."""

Script = Callable[[Any], str]
"""The reply to messages."""


def wanted(messages: Any) -> tuple[str, ...]:
    """The fields that the last message of a chat prompt asks for."""
    _, _, asked = messages[-1]["content"].rpartition("Respond with the corresponding output fields")
    return tuple(name for name in re.findall(r"\[\[ ## (\w+) ## \]\]", asked) if name != "completed")


class Replies:
    """Deals out the replies that there are for the fields that are asked for, over and over."""

    def __init__(self, table: Mapping[tuple[str, ...], Sequence[str]]) -> None:
        self._table = table
        self._given: Counter[tuple[str, ...]] = Counter()

    def __call__(self, messages: Any) -> str:
        names = wanted(messages)
        texts = self._table[names]
        self._given[names] += 1
        return texts[(self._given[names] - 1) % len(texts)]

    def answer(self, request: ChatRequest) -> str:
        """The same for a request."""
        return self(request.messages)


class _Model(dspy.BaseLM):
    """DSPy's side. The old interface for models of one's own is the one that both DSPy 3.3 and 3.4 have."""

    def __init__(self, script: Script, calls: list[Call], **settings: Any) -> None:
        super().__init__(model="m", cache=False, **settings)
        self.script = script
        self.calls = calls

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        given = {**self.kwargs, **settings}
        self.calls.append((messages, given.get("temperature"), given.get("rollout_id")))
        return completion(self.script(messages))


@contextmanager
def in_dspy(script: Script, calls: list[Call], **settings: Any) -> Iterator[None]:
    """DSPy with the model; it never asks a second time by itself, as dspex never does."""
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    with dspy.context(
        lm=_Model(script, calls, temperature=None, max_tokens=None, **settings), adapter=adapter
    ):
        yield


@contextmanager
def in_dspex(script: Script, calls: list[Call], **settings: Any) -> Iterator[dspex.Runtime]:
    """The same of dspex, reading replies as DSPy does."""

    def answer(request: ChatRequest) -> str:
        given = request.settings
        calls.append((request.messages, given.get("temperature"), given.get("rollout_id")))
        return script(request.messages)

    lm: Any = ScriptedLM(answer)
    lm.settings = settings
    with dspex.Runtime(lm, parsing="dspy") as runtime:
        yield runtime


class ToolLM(dspy.LM):
    """DSPy's own client, for a model that no list of models knows."""

    supports_function_calling = property(lambda self: True)
    supported_params = property(lambda self: frozenset())  # no response_format, which is another matter


class BothAsk:
    """A server, and a client of either library that asks it.

    Args:
        answer: What the server answers.
        model_type: What it is asked by.
    """

    def __init__(
        self, answer: Callable[[Any], Any], model_type: Literal["chat", "responses"] = "chat"
    ) -> None:
        self.server = ModelServer(answer)
        self.model_type = model_type

    def __enter__(self) -> Self:
        self.server.start()
        settings: dict[str, Any] = {"api_base": self.server.api_base, "api_key": "k"}
        settings["model_type"] = self.model_type
        self.theirs = ToolLM("openai/local", cache=False, num_retries=0, **settings)
        self.runtime = dspex.Runtime(dspex.LM("openai/local", **settings), pools=0).open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.runtime.close()
        self.server.stop()

    def bodies(self, call: Callable[[], Any]) -> tuple[dict[str, Any] | None, list[bytes]]:
        """The fields that a call comes to, None where it is refused, and the bodies that it sent."""
        self.server.requests.clear()
        fields: dict[str, Any] | None
        try:
            fields = dict(call().items())
        except (ReplyError, dspy.AdapterParseError, ValueError):
            fields = None
        return fields, [request.raw for request in self.server.requests]
