"""`Pool`: the connections of one event loop to one server.

A request takes the connection that became idle last, or a new one while there may be more, or waits in line.
Who waits is served in the order in which they came, and nobody who comes later goes before them. Where the
process has no file descriptors left, a request waits for one of the pool's connections, if it has any.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import Final

from dspex import _lm_failures as failures
from dspex.lm._http.connect import Connector
from dspex.lm._http.connection import TIMEOUTS, Connection
from dspex.lm._http.transport import Endpoint, Post, TransportError, TransportTimeoutError

__all__ = ["IDLE_SECONDS", "Pool"]

IDLE_SECONDS: Final = 30.0
"""For which an idle connection is kept. Servers and routers on the way drop them a little later."""


class Pool:
    """Connections to one server.

    Args:
        loop: Their event loop.
        endpoint: The server.
        limit: How many there may be.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint, limit: int) -> None:
        self._loop = loop
        self._limit = limit
        self._connector = Connector(loop, endpoint)
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._opening = 0
        self._line: deque[asyncio.Future[Connection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def acquire(self, post: Post) -> Connection:
        """A connection for a request; give it back by `release`.

        Raises:
            TransportTimeoutError: If there is none in time.
            TransportError: If none can be made.
        """
        if (connection := self._take_idle()) is not None:
            return connection
        return await self._acquire_slowly(post.connect, post.total)

    def release(self, connection: Connection) -> None:
        """Take a connection back; it serves another, if its answer was read to its end."""
        self._used.discard(connection)
        if self._closed or not connection.is_reusable():
            connection.close()
            self._pass_on(None)
        elif not self._pass_on(connection):
            self._idle.append(connection)
            if self._timer is None:
                self._timer = self._loop.call_later(IDLE_SECONDS, self._drop_old)

    async def warm(self, seconds: float) -> None:
        """Have an idle connection. Raises as `acquire` does."""
        connection = self._take_idle()
        if connection is None:
            connection = await self._acquire_slowly(seconds, self._loop.time() + seconds)
        self.release(connection)

    def close(self) -> None:
        """Close all connections, those that are in use too."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in (*self._idle, *self._used):
            connection.close()
        self._idle.clear()
        for waiting in self._line:
            if not waiting.done():
                self._opening += 1
                waiting.set_result(None)
        self._line.clear()

    @property
    def connections(self) -> list[Connection]:
        """All of them."""
        return [*self._idle, *self._used]

    # --- inner workings ---

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open():
                self._used.add(connection)
                return connection
            connection.close()
        return None

    def _has_room(self) -> bool:
        return len(self._used) + self._opening < self._limit

    async def _acquire_slowly(self, seconds: float, until: float) -> Connection:
        if self._line or not self._has_room():
            connection = await self._wait_in_line(until)
            if connection is not None:
                return connection
        else:
            self._opening += 1
        while True:
            made = await self._open(seconds, until) or await self._wait_in_line(until, front=True)
            if made is not None:
                return made

    async def _open(self, seconds: float, until: float) -> Connection | None:
        """A new connection, in the room that is kept for it.

        None where the process has no file descriptor left, and one of the pool's connections will be free.
        """
        left = max(until - self._loop.time(), 0.0)
        try:
            made = await self._connector.connect(min(seconds, left))
        except BaseException as error:
            self._opening -= 1
            if isinstance(error, TransportError) and error.failure is failures.DESCRIPTORS and self._used:
                return None  # and nobody else in line would get one
            self._pass_on(None)
            if isinstance(error, TransportTimeoutError) and left < seconds:
                raise TransportTimeoutError(TIMEOUTS["total"], "total") from None
            raise
        self._opening -= 1
        self._used.add(made)
        return made

    async def _wait_in_line(self, until: float, *, front: bool = False) -> Connection | None:
        """A connection that another request has done with; None where room for a new one is kept."""
        turn: asyncio.Future[Connection | None] = self._loop.create_future()
        if front:
            self._line.appendleft(turn)
        else:
            self._line.append(turn)
        try:
            async with asyncio.timeout_at(None if until == math.inf else until):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                given = turn.result()
                if given is None:
                    self._opening -= 1
                    self._pass_on(None)
                else:
                    self.release(given)
            else:
                turn.cancel()
            if isinstance(error, TimeoutError):
                raise TransportTimeoutError(TIMEOUTS["total"], "total") from None
            raise

    def _pass_on(self, connection: Connection | None) -> bool:
        """Give a connection, or the room for one, to who waits longest; whether somebody did."""
        while self._line and (connection is not None or self._has_room()):
            turn = self._line.popleft()
            if turn.done():
                continue
            if connection is not None:
                self._used.add(connection)
            else:
                self._opening += 1
            turn.set_result(connection)
            return True
        return False

    def _drop_old(self) -> None:
        """Close what has been idle for long."""
        self._timer = None
        oldest = time.monotonic() - IDLE_SECONDS
        old = [connection for connection in self._idle if connection.idle_since <= oldest]
        for connection in old:
            connection.close()
        self._idle = self._idle[len(old) :]  # in the order in which they became idle
        if self._idle:
            wait = self._idle[0].idle_since - oldest
            self._timer = self._loop.call_later(max(wait, 1.0), self._drop_old)
