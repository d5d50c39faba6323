"""`Siblings`: tasks that end together, with the first error as itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["Siblings"]


class Siblings:
    """What an `asyncio.TaskGroup` does, for work that is started here and waited for in one place.

    It raises what the first failing task raised, and not a group of that; and as nobody works in the task
    that waits, a task costs no callback and a failure no cancellation of the parent.

    Example:
        ```python
        siblings = Siblings()
        siblings.start(one())
        siblings.start(other())
        await siblings.ended()
        ```
    """

    __slots__ = ("_error", "_loop", "_running", "_tasks", "_waiter", "_works")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._works: list[Coroutine[Any, Any, Any]] = []
        self._running = 0
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run this beside the others; also from one of them."""
        if self._error is not None:
            work.close()  # the others are being stopped
            return
        self._running += 1
        self._works.append(work)
        self._tasks.append(self._loop.create_task(self._guarded(work)))

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is raised in `ended`
            if self._error is None:
                self._error = error
                self._wake()
        self._running -= 1
        if not self._running:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def ended(self) -> None:
        """Wait until all have ended. The first that fails, and a cancellation, cancel the others.

        Raises:
            Exception: What the first failing task raised.
        """
        try:
            if self._running and self._error is None:
                self._waiter = self._loop.create_future()
                await self._waiter
        except asyncio.CancelledError:
            await self._stop()
            raise
        if self._error is not None:
            was_cancelled = await self._stop()
            error, self._error = self._error, None
            try:
                if was_cancelled:
                    raise asyncio.CancelledError
                raise error
            finally:
                del error  # it holds this frame

    async def _stop(self) -> bool:
        """Cancel what runs and wait until it has ended; whether the caller was cancelled meanwhile."""
        was_cancelled = False
        while pending := [task for task in self._tasks if not task.done()]:
            for task in pending:
                task.cancel()
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError:
                was_cancelled = True
        for work in self._works:
            work.close()  # a task that is cancelled before its first step never enters it
        return was_cancelled
