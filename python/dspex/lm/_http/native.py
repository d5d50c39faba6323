"""`NativeTransport`: HTTP/1.1 over connections of our own, on the caller's event loop."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Self

from dspex._core import __version__
from dspex.errors import ConfigError
from dspex.lm._http.connect import proxy_authorization
from dspex.lm._http.connection import Connection
from dspex.lm._http.pool import Pool
from dspex.lm._http.transport import Endpoint, Post, Stage
from dspex.lm._http.unpack import ACCEPTED, Unpacker, is_packed

__all__ = ["MAX_CONNECTIONS", "NativeTransport"]

MAX_CONNECTIONS: Final = 1000
"""To one server from one event loop: what a process with the usual 1,024 file descriptors can have."""

CLOSE_WAIT: Final = 5.0
"""Seconds that `aclose` gives another thread's loop to close its connections."""

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RESERVED: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect", "upgrade"}
)

_transports: weakref.WeakSet[NativeTransport] = weakref.WeakSet()


class _Whole:
    """An answer with its body."""

    __slots__ = ("_connection_headers", "body", "status")

    def __init__(self, status: int, headers: dict[str, str] | None, body: bytes) -> None:
        self.status = status
        self._connection_headers = headers
        self.body = body

    @property
    def headers(self) -> Mapping[str, str]:
        return self._connection_headers or {}


class _Streamed:
    """An answer whose body is still coming."""

    __slots__ = ("_connection", "_pool", "_unpacker", "headers", "status")

    def __init__(self, pool: Pool, connection: Connection, most: int) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers()
        encoding = connection.encoding
        self._unpacker = Unpacker(encoding, most, each=True) if encoding and is_packed(encoding) else None

    async def chunk(self, until: float, stage: Stage) -> bytes:
        connection = self._connection
        if connection is None:
            return b""
        while data := await connection.piece(until, stage):
            if self._unpacker is None:
                return data
            if data := self._unpacker.feed(data):  # a piece may hold nothing but the packing
                return data
        if self._unpacker is not None:
            self._unpacker.end()
        self.close()
        return b""

    def finish(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drain(self._pool.release)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


class NativeTransport:
    """Carries requests over HTTP/1.1; the transport that an LM has when it is given none.

    Connections are kept open and used again, one set for each event loop and server. It goes through HTTP
    proxies (by CONNECT to an https server), and reads packed answers within the bounds of the request.

    Args:
        max_connections: How many connections there may be to one server from one event loop; requests beyond
            wait in line.

    Raises:
        ConfigError: If that is no number above 0.
    """

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS) -> None:
        if isinstance(max_connections, bool) or not isinstance(max_connections, int) or max_connections < 1:
            raise ConfigError(
                f"max_connections must be a whole number above 0, not {max_connections!r}", code="lm-setting"
            )
        self._limit = max_connections
        self._pools: dict[tuple[asyncio.AbstractEventLoop, Endpoint], Pool] = {}
        self._lock = threading.Lock()
        self._written: tuple[Endpoint, tuple[tuple[str, str], ...], bytes] | None = None
        _transports.add(self)
        # Who lets go of an LM without closing it leaves no connection to a loop that goes on.
        weakref.finalize(self, _close_later, self._pools).atexit = False

    def __repr__(self) -> str:
        return f"NativeTransport(max_connections={self._limit})"

    async def fetch(self, post: Post) -> _Whole:
        """The whole answer to a request; see `Transport.fetch`."""
        request = self._request(post)
        pool = self._pool(asyncio.get_running_loop(), post.endpoint)
        connection = await pool.acquire(post)
        try:
            connection.begin(request, post.most, post.first_byte, post.total)
            await connection.whole()
            status, encoding = connection.status, connection.encoding
            headers = None if status == 200 else connection.headers()
            body = connection.take_body()
        except BaseException:
            connection.close()
            raise
        finally:
            pool.release(connection)
        if encoding and is_packed(encoding):
            unpacker = Unpacker(encoding, post.most)
            body = unpacker.feed(body)
            unpacker.end()
        return _Whole(status, headers, body)

    async def open(self, post: Post) -> _Streamed:
        """The answer to a request as soon as its head is there; see `Transport.open`."""
        request = self._request(post)
        pool = self._pool(asyncio.get_running_loop(), post.endpoint)
        connection = await pool.acquire(post)
        try:
            connection.begin(request, None, post.first_byte, post.total)
            await connection.head()
            return _Streamed(pool, connection, post.most)
        except BaseException:
            connection.close()
            pool.release(connection)
            raise

    async def warm(self, endpoint: Endpoint, seconds: float) -> None:
        """Have a connection ready; see `Transport.warm`."""
        await self._pool(asyncio.get_running_loop(), endpoint).warm(seconds)

    async def aclose(self) -> None:
        """Close the connections of every event loop. A later request opens new ones."""
        with self._lock:
            pools = dict(self._pools)
            self._pools.clear()
        here = asyncio.get_running_loop()
        elsewhere = []
        for (loop, _), pool in pools.items():
            if loop is here:
                pool.close()
            elif loop.is_running():
                elsewhere.append(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_close(pool), loop)))
        if elsewhere:
            await asyncio.wait(elsewhere, timeout=CLOSE_WAIT)
        await asyncio.sleep(0)  # the loop lets go of a socket in its next turn

    async def aclose_here(self) -> None:
        """Close the connections of this event loop, which is about to end."""
        here = asyncio.get_running_loop()
        with self._lock:
            pools = [self._pools.pop(key) for key in [*self._pools] if key[0] is here]
        for pool in pools:
            pool.close()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # --- inner workings ---

    def _pool(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> Pool:
        pool = self._pools.get((loop, endpoint))
        return pool if pool is not None else self._new_pool(loop, endpoint)

    def _new_pool(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> Pool:
        with self._lock:
            # A closed loop took its connections with it; forget it, or loops would pile up here.
            for key in [key for key in self._pools if key[0].is_closed()]:
                _abandon(self._pools.pop(key))
            pool = self._pools.get((loop, endpoint))  # another call may have made one meanwhile
            if pool is None:
                pool = self._pools[loop, endpoint] = Pool(loop, endpoint, self._limit)
            return pool

    def _request(self, post: Post) -> bytes:
        last = self._written
        if last is not None and last[0] is post.endpoint and last[1] == post.headers:
            start = last[2]
        else:
            start = _start(post.endpoint, post.headers)
            self._written = post.endpoint, post.headers, start
        return b"%b%d\r\n\r\n%b" % (start, len(post.body), post.body)

    def _after_fork(self) -> None:
        """The connections are the parent's: the child closes its copies, and tells nobody."""
        self._lock = threading.Lock()
        for pool in self._pools.values():
            _abandon(pool)
        self._pools.clear()


def _start(endpoint: Endpoint, headers: tuple[tuple[str, str], ...]) -> bytes:
    """What stands in a request before the length of its body.

    Raises:
        ConfigError: If a field would end before its time, or is the transport's own (`lm-header`).
    """
    through = endpoint.proxy is not None and not endpoint.secure
    target = endpoint.url if through else endpoint.path
    lines = [f"POST {target} HTTP/1.1", f"Host: {endpoint.authority}"]
    given = {name.lower() for name, _ in headers}
    if "user-agent" not in given:
        lines.append(f"User-Agent: dspex/{__version__}")
    lines.append(f"Accept-Encoding: {ACCEPTED}")
    for name, value in headers:
        if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
            raise ConfigError(
                f"{name[:60]!r} is no header field that a request can be given",
                code="lm-header",
                hint="a name has letters, digits and hyphens; Host, Content-Length and such are set here",
            )
        if any(char in value for char in "\r\n\0") or not value.isprintable():
            raise ConfigError(
                f"the header field {name[:60]!r} has a line break, or another character that no field has",
                code="lm-header",
                hint="its value is one line of printable text",
            )
        lines.append(f"{name}: {value}")
    proxy = proxy_authorization(endpoint.proxy) if through and endpoint.proxy else b""
    return "\r\n".join(lines).encode() + b"\r\n" + proxy + b"Content-Length: "


async def _close(pool: Pool) -> None:
    pool.close()


def _close_later(pools: Mapping[tuple[asyncio.AbstractEventLoop, Endpoint], Pool]) -> None:
    for (loop, _), pool in pools.items():
        with suppress(RuntimeError):  # a loop that is closed took its connections with it
            loop.call_soon_threadsafe(pool.close)


def _abandon(pool: Pool) -> None:
    """Close the sockets of a pool whose event loop is not there: nothing is said on them, nothing waits."""
    for connection in pool.connections:
        handle = (
            connection.sock.detach()
        )  # its transport has the same object, and must not close another's number
        if handle >= 0:
            os.close(handle)


def _after_fork_in_child() -> None:
    for transport in list(_transports):
        transport._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
