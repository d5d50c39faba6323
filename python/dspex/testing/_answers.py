"""How a test double finds its answer: one notion for `ScriptedLM` and `ModelServer`."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspex.errors import ConfigError, LMRequestError
from dspex.testing._reader import message_text, read_prompt_and_answer

__all__ = ["Answer", "Answerer", "ChatRequest", "Said", "text_of"]

_NOT_SETTINGS = frozenset({"messages", "model", "n", "stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What an answering function is given.

    Attributes:
        body: The request as it was sent.
        choice: Which of the `n` generations is wanted now, from 0.
    """

    body: Mapping[str, Any]
    choice: int = 0

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The chat messages."""
        messages: Sequence[Mapping[str, Any]] = self.body["messages"]
        return messages

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.body.get("model", ""))

    @property
    def settings(self) -> dict[str, Any]:
        """Everything else that was asked for, such as `temperature`."""
        return {key: value for key, value in self.body.items() if key not in _NOT_SETTINGS}

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        return next((message_text(m) for m in reversed(self.messages) if m.get("role") == "user"), "")


Said = str | Mapping[str, Any]
"""What a model says: a text, or the message as the API has it, such as `{"tool_calls": [...]}`."""

Answer = Callable[[ChatRequest], Said | Awaitable[Said]] | Mapping[str, str] | Sequence[Said] | str | None
"""Where an answer comes from.

- a function, plain or async: it gets the `ChatRequest` and returns the text, or the message (`Said`) with
  calls of tools or reasoning in it; what it raises fails the call
- a mapping: the first key that occurs in the last user message gives the text
- a sequence: one text or message per generation asked for, in order; an error when they run out
- a string: always that
- None: the prompt is read and answered from itself, by `read_prompt_and_answer`
"""


class Answerer:
    """An `Answer`, ready to be asked; safe to ask from several threads.

    Attributes:
        at_once: Whether it is no function, which may take its time.
    """

    def __init__(self, answer: Answer) -> None:
        self.at_once = not callable(answer)
        self._ask = _asker(answer)

    async def __call__(self, request: ChatRequest) -> Said:
        """What is said in this generation.

        Raises:
            LMRequestError: If the table or the list has no answer.
            ConfigError: If the function returned neither a text nor a message.
        """
        said = self._ask(request)
        return _checked(await said if inspect.isawaitable(said) else said)

    def now(self, request: ChatRequest) -> Said:
        """The same of one that is `at_once`."""
        return _checked(self._ask(request))


def _checked(said: Any) -> Said:
    if not isinstance(said, str | Mapping):
        raise ConfigError(f"the answering function returned {type(said).__name__}, not a str")
    return said


def text_of(said: Said) -> str:
    """The text in what a model says; empty where there is none."""
    content = said if isinstance(said, str) else said.get("content")
    return content if isinstance(content, str) else ""


def _asker(answer: Answer) -> Callable[[ChatRequest], Any]:
    if answer is None:
        return lambda request: read_prompt_and_answer(request.messages)
    if isinstance(answer, str):
        return lambda _: answer
    if callable(answer):
        return answer
    if isinstance(answer, Mapping):
        return lambda request: _look_up(answer, request.prompt)
    if isinstance(answer, Sequence):
        return _Deal(answer)
    raise ConfigError(f"an answer is a function, a mapping, a sequence or a str, not {answer!r}")


def _look_up(table: Mapping[str, str], prompt: str) -> str:
    for key, text in table.items():
        if key in prompt:
            return text
    raise LMRequestError("no key of the answer table occurs in the last user message", code="no-answer")


class _Deal:
    """Deals out the texts of a sequence, each once."""

    def __init__(self, texts: Sequence[Said]) -> None:
        self._texts: Iterator[Said] = iter(list(texts))
        self._count = len(texts)
        self._lock = threading.Lock()

    def __call__(self, _: ChatRequest) -> Said:
        with self._lock:
            text = next(self._texts, None)
        if text is None:
            raise LMRequestError(f"all {self._count} answers of the list are used up", code="no-answer")
        return text
