"""The limit behind all limits: it cancels calls that overstay their time and do not end by themselves.

A target keeps the time itself, so this one hardly ever has anything to do, and costs as little as that. A
timer for each call costs as much as the rest of its way through the router; here one timer looks after all
calls, at intervals, while there are any.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Final

__all__ = ["INTERVAL_SECONDS", "Backstop", "Watch"]

INTERVAL_SECONDS: Final = 0.25
"""Between two looks at the calls: how much later than its deadline a call may be ended."""


class Watch:
    """One call: its task, when it is to be ended, and whether that was done."""

    __slots__ = ("_cancelling", "deadline", "fired", "task")

    def __init__(self, task: asyncio.Task[object], deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.fired = False
        self._cancelling = task.cancelling()

    def ended_it(self) -> bool:
        """Whether the cancellation that the task has received is this watch's own and nobody else's.

        To be asked once, when the call has ended: it takes the cancellation back.
        """
        return self.fired and self.task.uncancel() <= self._cancelling


class Backstop:
    """Watches the calls of one event loop."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float) -> Watch:
        """Watch this task; `end` ends that."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - calls run in tasks
        loop = task.get_loop()
        watch = Watch(task, loop.time() + seconds)
        self._watches.add(watch)
        if self._timer is None:
            self._timer = self._later(loop)
        return watch

    def end(self, watch: Watch) -> None:
        """The call has ended."""
        self._watches.discard(watch)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for watch in self._watches:
            if now >= watch.deadline and not watch.fired:
                watch.fired = True
                watch.task.cancel()
        self._timer = self._later(loop) if self._watches else None

    def _later(self, loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle:
        # In a context of its own: that of the call which happens to be first may hold anything.
        return loop.call_later(INTERVAL_SECONDS, self._look, loop, context=Context())
