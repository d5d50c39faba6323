"""`StreamReader`: what the readers of all providers' streams have in common; see `Codec`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dspex._core import EventReader
from dspex.errors import DspexError

if TYPE_CHECKING:
    from dspex.events import LMDelta
    from dspex.lm._protocol import TextPiece
    from dspex.lm._server import Server

__all__ = ["StreamReader"]

E = TypeVar("E")


class StreamReader(ABC, Generic[E]):
    """Reads the body of a stream.

    Args:
        limit: The most bytes that one event may have.
        server: Raises what is wrong with the answer.

    Attributes:
        has_text: Whether text has come.
        usage: The server's token counts, once they have come.
        done: Whether the server has said that the stream is over.
        failure: What is wrong with the stream; what came before it counts all the same.
    """

    def __init__(self, limit: int, server: Server) -> None:
        self.has_text = False
        self.usage: Mapping[str, Any] = {}
        self.done = False
        self.failure: Exception | None = None
        self._cut_events = EventReader(limit)
        self._limit = limit
        self._server = server

    def feed(self, chunk: bytes) -> list[LMDelta | TextPiece]:
        """What a part of the body says; look at `failure` and `done` behind it."""
        found, overlong = self._events(self._cut_events, chunk)
        said: list[LMDelta | TextPiece] = []
        try:
            for event in found:
                self._read(event, said)
                if self.done:
                    return said
            if overlong:
                self._server.reject(
                    f"an event is longer than {self._limit} bytes", code="lm-response-too-large"
                )
        except DspexError as error:
            self.failure = error
        return said

    @abstractmethod
    def end(self) -> None:
        """The body has ended without the server's saying so.

        Raises:
            LMConnectionError: If the answer has not: it was cut off.
        """

    @abstractmethod
    def _events(self, reader: EventReader, chunk: bytes) -> tuple[Sequence[E], bool]:
        """The events that a part of the body completes, and whether one was too long."""

    @abstractmethod
    def _read(self, event: E, said: list[LMDelta | TextPiece]) -> None:
        """Add to `said` what an event says; it sets `done` at the last."""
