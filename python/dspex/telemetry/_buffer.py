"""Events on their way to an async handler.

::

    put, from any thread --> deque of at most `size` --> one task, which awaits the handler with each
              | full
              v
           dropped, and counted

`put` never waits. The task lives on the loop on which the handler was attached, or on that of a thread of all
such handlers; it ends when the buffer is closed or its loop ends. An event that a handler takes longer for
than `HANDLER_SECONDS` counts as one that it raised at.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Final

from dspex._forks import OwnerProcess
from dspex._portal import Portal
from dspex.telemetry._event import Event

__all__ = ["Buffer"]

HANDLER_SECONDS: Final = 30.0

_portal: Portal | None = None
_portal_lock = threading.Lock()


class Buffer:
    """The events of one handler that wait.

    Args:
        handler: Who is awaited with each.
        size: How many may wait.
        failed: Called with what the handler raised; nothing more is given to it then.
        ended: Called when the loop ends under it.

    Attributes:
        dropped: How many found no room, or were still there at the end.
    """

    def __init__(
        self,
        handler: Callable[[Event], Awaitable[object]],
        size: int,
        failed: Callable[[BaseException], None],
        ended: Callable[[], None],
    ) -> None:
        self.dropped = 0
        self._handler = handler
        self._size = size
        self._failed = failed
        self._ended = ended
        self._waiting: deque[Event] = deque()
        self._taken = 0  # events that have left it
        self._done = 0  # events that the handler is done with
        self._lock = threading.Lock()
        self._awake = asyncio.Event()
        self._is_awake = False
        self._step = asyncio.Event()
        self._closed = False
        self._owner = OwnerProcess()
        self._task: asyncio.Task[None] | None = None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = _own_loop()
        # In a context of its own: that of whoever attaches it may hold anything.
        self._loop.call_soon_threadsafe(self._start, context=Context())

    def put(self, event: Event) -> None:
        """Let an event wait, if there is room."""
        if self._owner.is_elsewhere:  # a fork has neither the task nor, for sure, a lock that anybody lets go
            self.dropped += 1
            return
        with self._lock:
            if self._closed or len(self._waiting) >= self._size:
                self.dropped += 1
                return
            self._waiting.append(event)
            if self._is_awake:
                return
            self._is_awake = True
        if not self._on_loop(self._awake.set):
            self._ended()

    def close(self) -> None:
        """Give nothing more; what waits is dropped."""
        if self._owner.is_elsewhere:
            return
        with self._lock:
            self._closed = True
            self.dropped += len(self._waiting)
            self._waiting.clear()
        self._on_loop(self._stop)

    async def drain(self, seconds: float) -> None:
        """Wait until the handler is done with all that wait now.

        Raises:
            TimeoutError: If it is not by then.
        """
        with self._lock:
            until = self._taken + len(self._waiting)
        async with asyncio.timeout(seconds):
            if asyncio.get_running_loop() is self._loop:
                await self._until(until)
            elif not self._loop.is_closed():
                there = asyncio.run_coroutine_threadsafe(self._until(until), self._loop)
                await asyncio.wrap_future(there)

    async def _until(self, done: int) -> None:
        while self._done < done and not self._closed:
            self._step.clear()
            await self._step.wait()

    def _on_loop(self, do: Callable[[], object]) -> bool:
        """Do it there; False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(do, context=Context())
        except RuntimeError:
            return False
        return True

    def _start(self) -> None:
        if not self._closed:
            self._task = self._loop.create_task(self._work(), name="dspex-telemetry")

    def _stop(self) -> None:
        task, self._task = self._task, None
        self._step.set()
        if task is not None and self._done == self._taken:
            task.cancel()  # a handler that is at work finishes its event

    async def _work(self) -> None:
        try:
            while not self._closed:
                await self._awake.wait()
                self._awake.clear()
                while (event := self._next()) is not None:
                    await self._one(event)
        except asyncio.CancelledError:
            if not self._closed:  # the loop ends
                self._ended()
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is no failure of the call
            self._failed(error)

    async def _one(self, event: Event) -> None:
        try:
            async with asyncio.timeout(HANDLER_SECONDS):
                await self._handler(event)
        finally:
            self._done += 1
            self._step.set()

    def _next(self) -> Event | None:
        with self._lock:
            if self._waiting:
                self._taken += 1
                return self._waiting.popleft()
            self._is_awake = False
            return None


def _own_loop() -> asyncio.AbstractEventLoop:
    """The loop of a thread for handlers that were attached where none runs."""
    global _portal
    with _portal_lock:
        if _portal is None or _portal.loop.is_closed() or _owner.is_elsewhere:
            _portal = Portal("dspex-telemetry")
        return _portal.loop


_owner = OwnerProcess()
