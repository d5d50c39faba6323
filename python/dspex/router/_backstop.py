"""The limit behind all limits: it cancels calls that overstay their time, and all when their runtime closes.

A target keeps the time itself, so this one hardly ever has anything to do, and costs as little as that. A
timer for each call costs as much as the rest of its way through the router; here one timer looks after all
calls, at intervals, while there are any.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from contextvars import Context
from typing import Final, Literal

__all__ = ["END_SECONDS", "INTERVAL_SECONDS", "Backstop", "Watch"]

INTERVAL_SECONDS: Final = 0.25
"""Between two looks at the calls: how much later than its deadline a call may be ended."""

END_SECONDS: Final = 10.0


class Watch:
    """One call, or one after the other: its task, when it is to be ended, and why that was done.

    Between two calls it rests: then the task may wait for whatever it likes, for as long as it likes.
    """

    __slots__ = ("_backstop", "_cancelling", "_taken_back", "deadline", "fired", "task")

    def __init__(self, backstop: Backstop, task: asyncio.Task[object], deadline: float) -> None:
        self._backstop = backstop
        self.task = task
        self.deadline = deadline
        self.fired: Literal["late", "closed"] | None = None
        self._cancelling = task.cancelling()
        self._taken_back = False

    def prolong(self, seconds: float) -> None:
        """Look after the call that begins now, which may take so many seconds."""
        self.deadline = self.task.get_loop().time() + seconds

    def rest(self) -> None:
        """The call has ended, and another may follow."""
        self.deadline = math.inf

    def cancel(self, why: Literal["late", "closed"]) -> None:
        """End the call, once."""
        if self.fired is None:
            self.fired = why
            self.task.cancel()

    def end(self) -> None:
        """The call has ended."""
        self._backstop.end(self)

    def ended_it(self) -> Literal["late", "closed"] | None:
        """Why this watch has ended the call; None where it has not, or somebody else has too.

        To be asked when the call has ended: the first time, it takes the cancellation back.
        """
        if self.fired is None or self._taken_back:
            return None
        self._taken_back = True
        return None if self.task.uncancel() > self._cancelling else self.fired


class Backstop:
    """Watches the calls of one event loop."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._ending: set[Watch] = set()
        self._ended: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> Watch:
        """Watch this task, until `Watch.end`."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - calls run in tasks
        loop = task.get_loop()
        watch = Watch(self, task, loop.time() + seconds)
        self._watches.add(watch)
        if self._timer is None:
            self._timer = self._later(loop)
        return watch

    def end(self, watch: Watch) -> None:
        """The call has ended."""
        self._watches.discard(watch)
        if watch.fired is not None:  # in the moment in which it ended by itself
            watch.ended_it()
        if self._ending:
            self._ending.discard(watch)
            if not self._ending and self._ended is not None and not self._ended.done():
                self._ended.set_result(None)

    async def end_all(self) -> None:
        """End all calls and wait until they have ended; that of this very task goes on.

        One that does not end when it is cancelled is waited for no longer than `END_SECONDS`.
        """
        here = asyncio.current_task()
        self._ending = {watch for watch in self._watches if watch.task is not here}
        if not self._ending:
            return
        self._ended = asyncio.get_running_loop().create_future()
        for watch in self._ending:
            watch.cancel("closed")
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._ended

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for watch in self._watches:
            if now >= watch.deadline:
                watch.cancel("late")
        self._timer = self._later(loop) if self._watches else None

    def _later(self, loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle:
        # In a context of its own: that of the call which happens to be first may hold anything.
        return loop.call_later(INTERVAL_SECONDS, self._look, loop, context=Context())
