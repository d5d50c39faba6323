"""What a call to a language model takes and gives, whoever serves it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from dspex.events import LMDelta

__all__ = ["LMChoice", "LMRequest", "LMResponse", "LMToolCall", "LanguageModel"]


TextPiece = tuple[str, int, str | None]
"""Of a stream: text that was added, to which generation, and why that ended, if it did. An `LMDelta` that has
nothing else takes ten times as long to make."""


@dataclass(slots=True)
class LMRequest:
    """One call. Nobody changes it; a frozen class would take twice the time to make.

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
        annotations: Notes to the text as the server gave them, such as the pages that it cites.
        raw: The server's entry in `choices`, with whatever else it says, of OpenAI's Responses the whole
            answer; empty where it was put together from a stream. It does not count in comparisons.
    """

    text: str
    finish_reason: str | None = None
    tool_calls: tuple[LMToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    logprobs: Mapping[str, Any] | None = None
    annotations: tuple[Mapping[str, Any], ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class LMResponse:
    """The answer to one call.

    Attributes:
        choices: The generations in the server's order; there is always at least one.
        model: The model that answered, as the server names it.
        usage: Tokens as the server counted them, cached ones and those of reasoning among its details; empty
            where it did not count.
        seconds: Wall time from sending the request to having read the answer.
        waited: Seconds that the call waited before: for its turn by a rate limit, or for a deployment.
        cached: Whether it is the answer to an earlier call, or to the same one at once: nobody was asked for
            it, and its `usage` is empty, as in DSPy.
        raw: The server's whole answer, with whatever else it says (`id`, `system_fingerprint`, ...); empty
            where there was a stream. It does not count when responses are compared.
    """

    choices: tuple[LMChoice, ...]
    model: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0
    cached: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

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
    """What dspex asks of a language model.

    It may have two methods more. `complete_now(request)` is for what it can answer without waiting: an
    `LMResponse`, or None where it has to be asked by `complete`. It is called on whatever thread a call is
    made, so a blocking call that it answers needs no event loop. `stream_pieces(request)` is `stream` with
    all that came together in one list, in which a delta that has nothing but text may be a tuple of that
    text, the generation and its `finish_reason`.
    """

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
