"""How much of a server's reply DSPy's own client reads in a worker, and what it makes of a redirect.

That client, which DSPy has since 3.4, reads all that a server sends, and takes the body of a redirect for an
answer. It makes its connections by two classes, which `bound_replies` replaces by classes of the same kind:
what DSPy sends, and how it reads what is within bounds, stays DSPy's.

Ruled out: an engine of ours for DSPy's LM, as its bodies would be ours, and a worker is there to do as DSPy
does; the LM's `_engine_store`, as a copy of an LM has a new one; a limit of memory for the process, as that
ends the calls of others too.

What DSPy asks through LiteLLM, which up to 3.3 is all, has no bound but the pool's limit of memory: LiteLLM
has a client for each provider, and no one place for a bound.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from importlib import import_module
from typing import Any, Final, NamedTuple

from dspex.worker.operations.lm import MOST

__all__ = ["bound_replies"]

# By name: it has type hints inside a package without any, whose rest a type checker would take for empty.
transports: Final[Any] = import_module("dspy._vendor.lm15.transports")

_STREAM: Final = 16
"""How many times `MOST` a stream may have as a whole. A token takes some 200 bytes there, and DSPy keeps
its text alone."""


class ReplyTooLarge(transports.TransportError):  # type: ignore[misc]  # DSPy has no type hints
    """The server sends more than the call may read."""


class Redirected(transports.TransportError):  # type: ignore[misc]
    """The server names another address, to which no key is sent.

    Attributes:
        response: What the server said, as the exceptions of HTTP clients have it.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the server sent a redirect ({status})")
        self.response = _Response(status, body.decode("utf-8", "replace"), {})


class _Response(NamedTuple):
    status_code: int
    text: str
    headers: dict[str, str]


class _Counter:
    """Counts what has come of one answer, which is a stream unless it is read whole."""

    def __init__(self) -> None:
        self.whole = False
        self._most = MOST.get()
        self._came = 0
        self._line = 0

    def count(self, chunk: bytes) -> bytes:
        """The chunk itself.

        Raises:
            ReplyTooLarge: If with it the answer, or a line of a stream, is more than there may be.
        """
        self._came += len(chunk)
        if self.whole:
            too_much = self._came > self._most
        else:
            end = chunk.rfind(b"\n")
            self._line = len(chunk) - end - 1 + (self._line if end < 0 else 0)
            too_much = self._line > self._most or self._came > self._most * _STREAM
        if too_much:
            raise ReplyTooLarge("the reply is longer than a worker reads")
        return chunk


class _Answer(transports.TransportResponse):  # type: ignore[misc]
    """An answer that is counted."""

    def __init__(self, given: Any) -> None:
        self._counter = _Counter()
        super().__init__(**_parts(given), chunks=_counted(given._chunks, self._counter))

    def read(self) -> bytes:
        """The whole body."""
        self._counter.whole = True
        body: bytes = super().read()
        return body


class _AsyncAnswer(transports.AsyncTransportResponse):  # type: ignore[misc]
    """An answer that is counted."""

    def __init__(self, given: Any) -> None:
        self._counter = _Counter()
        super().__init__(**_parts(given), chunks=_counted_async(given._chunks, self._counter))

    async def read(self) -> bytes:
        """The whole body."""
        self._counter.whole = True
        body: bytes = await super().read()
        return body


def _parts(given: Any) -> dict[str, Any]:
    names = ("status", "reason", "headers", "http_version")
    return {**{name: getattr(given, name) for name in names}, "release": given._release}


def _counted(chunks: Generator[bytes], counter: _Counter) -> Iterator[bytes]:
    with contextlib.closing(chunks):  # it holds a place among the connections
        for chunk in chunks:
            yield counter.count(chunk)


async def _counted_async(chunks: AsyncGenerator[bytes], counter: _Counter) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            yield counter.count(chunk)


class Transport(transports.StdlibTransport):  # type: ignore[misc]
    """DSPy's own, with a bound."""

    def stream(self, request: Any) -> _Answer:
        """The answer to a request, as it comes."""
        answer = _Answer(super().stream(request))
        if _is_redirect(answer):
            with answer:
                raise Redirected(answer.status, answer.read())
        return answer

    def _read_head(self, *args: Any, **options: Any) -> Any:
        return _packed_once(super()._read_head(*args, **options))


class AsyncTransport(transports.StdlibAsyncTransport):  # type: ignore[misc]
    """DSPy's own, with a bound."""

    async def _do_stream(self, request: Any) -> _AsyncAnswer:
        answer = _AsyncAnswer(await super()._do_stream(request))
        if _is_redirect(answer):
            async with answer:
                raise Redirected(answer.status, await answer.read())
        return answer

    async def _read_head(self, *args: Any, **options: Any) -> Any:
        return _packed_once(await super()._read_head(*args, **options))


def _is_redirect(answer: Any) -> bool:
    return bool(300 <= answer.status < 400)


def _packed_once(head: Any) -> Any:
    """The head of an answer, if its body is packed once at most.

    DSPy unpacks in one go what it has read from the socket, 64 kB. That makes up to 64 MB; packed twice, GBs.
    """
    packings = [value for name, value in head.headers if name.lower() == "content-encoding"]
    if "," in ",".join(packings):
        raise transports.ProtocolError("the body is packed more than once")
    return head


def bound_replies() -> None:
    """Have the connections that DSPy opens in this process from now on read no more than a call may."""
    transports.StdlibTransport = Transport
    transports.StdlibAsyncTransport = AsyncTransport
