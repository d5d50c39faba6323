"""`AiohttpTransport`: the same over aiohttp, for what the transport of our own does not do."""

from __future__ import annotations

import asyncio
import io
import math
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from dspex import _lm_failures as failures
from dspex._timeouts import without_frames
from dspex.lm._http.connection import TIMEOUTS
from dspex.lm._http.tls import context_of
from dspex.lm._http.transport import Endpoint, Post, Stage, TransportError, TransportTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp

__all__ = ["AiohttpTransport"]

CLOSE_WAIT = 5.0
_PIECE = 64 * 1024
_LARGE = 1024 * 1024
"""Bytes of a body from which aiohttp wants to read it in pieces."""


class _Whole:
    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class _Streamed:
    __slots__ = ("_answer", "headers", "status")

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = _fields(answer)

    async def chunk(self, until: float, stage: Stage) -> bytes:
        async with _limit(until, stage):
            return await self._answer.content.readany()

    def finish(self) -> None:
        self._answer.release()

    def close(self) -> None:
        self._answer.release()
        if not self._answer.content.is_eof():
            self._answer.close()


class AiohttpTransport:
    """Carries requests through aiohttp.

    Args:
        connector: Makes the connector of each event loop, which aiohttp's extensions bring, for SOCKS proxies
            for example; by default a `TCPConnector` without a limit.

    Example:
        ```python
        lm = dspex.LM("openai/gpt-4o-mini", transport=AiohttpTransport())
        ```
    """

    def __init__(self, connector: Callable[[], aiohttp.BaseConnector] | None = None) -> None:
        self._connector = connector
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "AiohttpTransport()"

    async def fetch(self, post: Post) -> _Whole:
        """The whole answer to a request; see `Transport.fetch`."""
        async with _limit(post.total, "total"), await self._post(post) as answer:
            parts, size = [], 0
            async for part in answer.content.iter_chunked(_PIECE):
                size += len(part)
                if size > post.most:
                    answer.close()
                    raise TransportError(failures.TOO_LARGE)
                parts.append(part)
            return _Whole(answer.status, _fields(answer), b"".join(parts))

    async def open(self, post: Post) -> _Streamed:
        """The answer to a request as soon as its head is there; see `Transport.open`."""
        async with _limit(post.total, "total"):
            return _Streamed(await self._post(post))

    async def warm(self, endpoint: Endpoint, seconds: float) -> None:
        """Import aiohttp; it has no way to connect beforehand."""
        await self._session()

    async def aclose(self) -> None:
        """Close the connections of every event loop. A later request opens new ones."""
        with self._lock:
            sessions, self._sessions = self._sessions, {}
        here = asyncio.get_running_loop()
        for loop, session in sessions.items():
            if loop is here:
                await session.close()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
                await asyncio.wait([asyncio.wrap_future(closing)], timeout=CLOSE_WAIT)

    async def aclose_here(self) -> None:
        """Close the connections of this event loop, which is about to end."""
        with self._lock:
            session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is not None and not session.closed:
            return session
        await asyncio.to_thread(_import)
        import aiohttp

        with self._lock:
            session = self._sessions.get(loop)  # another call may have opened one meanwhile
            if session is not None and not session.closed:
                return session
            for other in [other for other in self._sessions if other.is_closed()]:
                del self._sessions[other]
            make = self._connector or (lambda: aiohttp.TCPConnector(limit=0, keepalive_timeout=30))
            session = aiohttp.ClientSession(connector=make(), cookie_jar=aiohttp.DummyCookieJar())
            self._sessions[loop] = session
            return session

    async def _post(self, post: Post) -> aiohttp.ClientResponse:
        session = await self._session()
        import aiohttp

        endpoint = post.endpoint
        options: dict[str, Any] = {}
        if endpoint.secure:
            options["ssl"] = await asyncio.to_thread(context_of, endpoint.tls)
        connect = None if post.connect == math.inf else post.connect
        async with _limit(
            min(post.first_byte, post.total), "first-byte" if post.first_byte < post.total else "total"
        ):
            return await session.post(
                endpoint.url,
                data=post.body if len(post.body) < _LARGE else io.BytesIO(post.body),
                headers=post.headers,
                timeout=aiohttp.ClientTimeout(total=None, connect=connect),
                allow_redirects=False,
                proxy=endpoint.proxy,
                **options,
            )


def _import() -> None:
    import aiohttp  # noqa: F401


def _fields(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


@asynccontextmanager
async def _limit(until: float, stage: Stage) -> AsyncIterator[None]:
    """Bound what is awaited inside, and turn every failure of it into one of ours."""
    limit = asyncio.timeout_at(None if until == math.inf else until)
    try:
        async with limit:
            yield
    except TransportError:
        raise
    except Exception as error:
        import aiohttp

        without_frames(error)
        if isinstance(error, TimeoutError) and limit.expired():
            raise TransportTimeoutError(TIMEOUTS[stage], stage) from None
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            raise TransportTimeoutError(TIMEOUTS["connect"], "connect") from None
        if not isinstance(error, (aiohttp.ClientError, OSError)):
            raise
        chain = [error] if error.__cause__ is None else [error, error.__cause__]
        raise TransportError(failures.find_break(chain) or failures.BROKEN) from None
    finally:
        del limit  # it holds the task, and by that the exception
