"""What an LM asks of a transport, whichever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from dspex._lm_failures import Failure

if TYPE_CHECKING:
    from dspex.lm._http.tls import TLS

__all__ = [
    "Answer",
    "Endpoint",
    "Post",
    "Stage",
    "StreamedAnswer",
    "Transport",
    "TransportError",
    "TransportTimeoutError",
]

Stage = Literal["connect", "first-byte", "first-text", "chunk", "total"]
"""What a call was waiting for when its time ran out."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go.

    Attributes:
        secure: Whether it is https.
        host: The server's name or address, without brackets.
        port: Its port.
        path: The path, beginning with `/`.
        proxy: The address of the proxy on the way, `http://[user:password@]host:port`.
        tls: What secures the connection; None for the defaults.
    """

    secure: bool
    host: str
    port: int
    path: str
    proxy: str | None = field(default=None, repr=False)  # it may hold a password
    tls: TLS | None = None

    @property
    def authority(self) -> str:
        """Host and port as a `Host` field has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.path}"


@dataclass(slots=True)
class Post:
    """One request. Times are those of the event loop's clock; `inf` where there is no limit.

    Attributes:
        endpoint: Where to.
        headers: Fields besides those of the transport's own (`Host`, `Content-Length`, ...).
        body: What is sent.
        connect: Seconds to get a new connection.
        first_byte: When the head of the answer has to be there.
        total: When all has to be over: a whole answer, and the head of a streamed one.
        most: Bytes that a whole answer may have, unpacked.
    """

    endpoint: Endpoint
    headers: tuple[tuple[str, str], ...] = field(repr=False)  # the key is in one of them
    body: bytes = field(repr=False)
    connect: float = math.inf
    first_byte: float = math.inf
    total: float = math.inf
    most: int = 16 * 1024 * 1024


class Answer(Protocol):
    """An answer with its body."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its fields, by lower-case name."""

    @property
    def body(self) -> bytes:
        """The body, unpacked."""


class StreamedAnswer(Protocol):
    """An answer whose body is still coming. It has to be closed."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its fields, by lower-case name."""

    async def chunk(self, until: float, stage: Stage) -> bytes:
        """What has come of the body, unpacked; empty at its end.

        Args:
            until: When it has to be there, by the loop's clock.
            stage: What the failure says of the wait.

        Raises:
            TransportTimeoutError: If nothing came until then.
            TransportError: If the connection broke, or what came is no HTTP.
        """

    def finish(self) -> None:
        """All that matters has come: what is left is its end, for which nobody waits."""

    def close(self) -> None:
        """Let go of it. Unless the answer was read to its end, its connection is closed."""


@runtime_checkable
class Transport(Protocol):
    """Carries requests. One may serve several LMs, event loops and threads.

    A transport makes one attempt, follows no redirect, keeps no cookie, and raises nothing but what is named
    here. It may be cancelled at each await, and leaves nothing behind then.
    """

    async def fetch(self, post: Post) -> Answer:
        """The whole answer to a request.

        Raises:
            TransportTimeoutError: If a limit of the request passed.
            TransportError: If there is no answer.
        """

    async def open(self, post: Post) -> StreamedAnswer:
        """The answer to a request as soon as its head is there. Raises as `fetch` does."""

    async def warm(self, endpoint: Endpoint, seconds: float) -> None:
        """Have a connection ready: name resolved, connected, TLS agreed on.

        Raises:
            TransportTimeoutError: If that takes longer.
            TransportError: If it fails.
        """

    async def aclose(self) -> None:
        """Close the connections of every event loop. A later request opens new ones."""


class TransportError(OSError):
    """There is no answer, or none that can be used.

    Attributes:
        failure: Which way it failed.
        detail: What exactly was wrong, where there is more to say.
    """

    def __init__(self, failure: Failure, detail: str = "") -> None:
        super().__init__(f"{failure.did}{detail and f': {detail}'}")
        self.failure = failure
        self.detail = detail

    def __reduce__(self) -> tuple[type[TransportError], tuple[Failure, str]]:
        return type(self), (self.failure, self.detail)


class TransportTimeoutError(TransportError):
    """A limit has passed.

    Attributes:
        stage: What was waited for.
    """

    def __init__(self, failure: Failure, stage: Stage) -> None:
        super().__init__(failure)
        self.stage: Stage = stage

    def __reduce__(self) -> tuple[type[TransportTimeoutError], tuple[Failure, Stage]]:
        return type(self), (self.failure, self.stage)
