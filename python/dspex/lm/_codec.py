"""`Codec`: how a provider writes requests and answers; which one a model means.

A codec is a module of this package. It is chosen once, when an LM is made, by the prefix of its model and
its `model_type`:

    openai, and servers like it    chat         `_body`        chat completions
    openai                         responses    `_responses`   Responses
    anthropic                      chat         `_anthropic`   messages

Everything between the bytes and the LM is the same for all: the transport, time limits, rate limits, retries
and errors. A codec knows neither, it opens no connection and reads no environment. What a server cannot be
asked for (token probabilities, a seed) is left out where DSPy leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dspex._timeouts import shown
from dspex.errors import ConfigError
from dspex.lm import _body

if TYPE_CHECKING:
    from dspex.lm._answer import Failed, Reject
    from dspex.lm._forms import Engine
    from dspex.lm._protocol import LMChoice
    from dspex.lm._server import Server
    from dspex.lm._stream_reader import StreamReader

__all__ = ["Codec", "ModelType", "checked_model_type", "codec_of"]

ModelType = Literal["chat", "responses"]
"""What a server is asked by, in the words of `dspy.LM`; each provider has its own protocol for `"chat"`."""


class Codec(Protocol):
    """How a provider writes requests and answers."""

    @property
    def PATH(self) -> str:  # noqa: N802 - a constant of the module
        """Where requests go, below the server's address."""
        ...

    @property
    def HAS_N(self) -> bool:  # noqa: N802 - a constant of the module
        """Whether one request can ask for several generations."""
        ...

    @property
    def HAS_STOP(self) -> bool:  # noqa: N802 - a constant of the module
        """Whether the server ends a generation where `stop` says; see `_stops.py` for others."""
        ...

    def fields(self, key: str | None, /) -> tuple[tuple[str, str], ...]:
        """The fields of a request's head, the key among them."""
        ...

    def encode(
        self,
        name: str,
        prefix: str,
        messages: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
        *,
        stream: bool = False,
        engine: Engine = "auto",
    ) -> tuple[bytes, int]:
        """The body of a request, and how many generations are wanted.

        Raises:
            ConfigError: If something in it cannot be sent.
        """
        ...

    def decode(
        self, raw: bytes, wanted: int, reject: Reject, failed: Failed
    ) -> tuple[tuple[LMChoice, ...], str, Mapping[str, Any], Mapping[str, Any]]:
        """The generations, the model's name and the usage in the body of an answer, and the whole of it."""
        ...

    def error_body(self, raw: bytes, /) -> bytes:
        """The body of an answer that tells of an error, as OpenAI writes it."""
        ...

    def ChunkReader(self, limit: int, wanted: int, server: Server) -> StreamReader[Any]:  # noqa: N802 - a class
        """A reader for the body of a stream."""
        ...


def codec_of(prefix: str, model_type: ModelType = "chat") -> Codec:
    """The codec for a provider; that of chat completions where there is no other."""
    if model_type == "responses":
        from dspex.lm import _responses  # as below

        return _responses
    if prefix == "anthropic":
        from dspex.lm import _anthropic  # few programs ask it

        return _anthropic
    return _body


def checked_model_type(given: Any) -> ModelType:
    """The type as given.

    Raises:
        ConfigError: If it is none (`lm-setting`).
    """
    if given == "chat" or given == "responses":
        known: ModelType = given
        return known
    raise ConfigError(
        f"model_type must be 'chat' or 'responses', not {shown(given)}",
        code="lm-setting",
        hint="leave it out for chat completions; 'responses' is OpenAI's newer protocol",
    )
