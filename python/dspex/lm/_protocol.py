"""What a call to a language model takes and gives, whoever serves it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from dspex.events import LMDelta

__all__ = ["LMChoice", "LMRequest", "LMResponse", "LMToolCall", "LanguageModel"]


@dataclass(frozen=True, slots=True)
class LMRequest:
    """One call.

    Attributes:
        messages: Chat messages as the API takes them: mappings with `role` and `content`. A runtime gives a
            list, and a language model that `takes_json` a `Prompt`, which has them as bytes too.
        settings: Settings of this call alone (`temperature`, `n`, `max_tokens`, ...); they win over the
            LM's own. A value of None takes the LM's setting away.
        timeout: Seconds the caller has left, or None for as long as the LM's own limits allow.
    """

    messages: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class LMToolCall:
    """A tool that the model asks to be called.

    Attributes:
        id: The server's name for this call, which the tool's result has to carry; None if it gave none.
        name: The tool.
        arguments: Its arguments as the server wrote them: the text of a JSON object, if the model kept to it.
    """

    id: str | None
    name: str
    arguments: str = "{}"

    @property
    def args(self) -> Any:
        """The arguments as DSPy reads them: broken JSON is made whole, and a text without any is `""`."""
        from dspex._engine.replies import loads  # pydantic's, which a model that calls no tools never needs

        return loads(self.arguments)[0] if self.arguments else {}


@dataclass(frozen=True, slots=True)
class LMChoice:
    """One generation.

    Attributes:
        text: Its text; empty where it is calls of tools and nothing else.
        finish_reason: Why it ended (`"stop"`, `"length"`, `"tool_calls"`, ...); None if unknown.
        tool_calls: The tools it asks to be called, in the server's order.
        reasoning: What a reasoning model thought before, where the server shows it.
        refusal: What the model said instead of, or beside, what it was asked for.
        logprobs: The probabilities of its tokens as the server gave them, where they were asked for.
    """

    text: str
    finish_reason: str | None = None
    tool_calls: tuple[LMToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LMResponse:
    """The answer to one call.

    Attributes:
        choices: The generations in the server's order; there is always at least one.
        model: The model that answered, as the server names it.
        usage: Tokens as the server counted them, empty where it did not.
        seconds: Wall time from sending the request to having read the answer.
    """

    choices: tuple[LMChoice, ...]
    model: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each generation."""
        return tuple(choice.text for choice in self.choices)

    @property
    def finish_reasons(self) -> tuple[str | None, ...]:
        """Why each generation ended."""
        return tuple(choice.finish_reason for choice in self.choices)


@runtime_checkable
class LanguageModel(Protocol):
    """What dspex asks of a language model."""

    async def complete(self, request: LMRequest) -> LMResponse:
        """Answer the request as a whole.

        Raises:
            LMError: If the model gave no usable answer; the class says why.
            DeadlineExceeded: If the caller's own `request.timeout` ran out.
        """
        ...

    def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        """Answer piece by piece; close the generator to give up early."""
        ...

    async def aclose(self) -> None:
        """Release what is held for calls. The model stays usable and takes it up again when called."""
        ...
