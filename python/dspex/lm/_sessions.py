"""`Sessions`: the HTTP connections of an LM."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Sessions", "client_errors"]

CLOSE_WAIT = 5.0
"""Seconds that `aclose` gives another thread's loop to close its connections."""

_imported: Final = threading.Event()
"""Whether the HTTP client has been imported. That takes longer than many a request, so that it waits for the
first one, and happens on a thread: the loop's other tasks need not wait."""


def _import() -> None:
    import aiohttp  # noqa: F401

    _imported.set()


def client_errors() -> tuple[type[Exception], ...]:
    """What the HTTP client raises."""
    client = sys.modules.get("aiohttp")
    # An OSError, a TimeoutError among them, comes before there is a client, too.
    return (OSError,) if client is None else (getattr(client, "ClientError", OSError), OSError)


class Sessions:
    """One HTTP session for each event loop, since a connection belongs to the loop that opened it."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._lock = threading.Lock()

    async def get(self) -> aiohttp.ClientSession:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        session = self._by_loop.get(loop)
        if session is not None and not session.closed:
            return session
        if not _imported.is_set():
            await asyncio.to_thread(_import)
        import aiohttp

        with self._lock:
            session = self._by_loop.get(loop)  # another call may have opened one meanwhile
            if session is not None and not session.closed:
                return session
            # A closed loop took its connections with it; forget it, or loops would pile up here.
            for other in [other for other in self._by_loop if other.is_closed()]:
                del self._by_loop[other]
            session = aiohttp.ClientSession(
                # How many calls run at once is decided by who makes them, not by a hidden queue here.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._by_loop[loop] = session
        return session

    async def aclose(self) -> None:
        """Close all of them, those of other running loops too. The next `get` opens a new one."""
        with self._lock:
            sessions, self._by_loop = self._by_loop, {}
        here = asyncio.get_running_loop()
        for loop, session in sessions.items():
            if loop is here:
                await session.close()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
                await asyncio.wait_for(asyncio.wrap_future(closing), CLOSE_WAIT)
