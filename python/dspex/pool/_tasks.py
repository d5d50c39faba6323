"""The tasks of a pool, and what several of them may wait for.

A pool's tasks are not in a `TaskGroup`, because supervision has to survive what ends one: an exception in one
child cancels all its siblings, and whoever cancels every task of the loop (a service that stops its own
work, a test, a debugger) cancels the task that waits in the group, and with it all of them. Here nothing
cancels a sibling. Each task is started with a function that hears how it ended, and that decides whether the
work goes on in another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

__all__ = ["Outcome", "Tasks", "is_cancelled"]

T = TypeVar("T")

Ended = Callable[[BaseException | None], None]
"""Hears what a task ended with: None for the end of its work, a `CancelledError` if it was cancelled."""


class Tasks:
    """Owns every task of one pool: it holds them, says how they ended, and waits for the last."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], Ended | None] = {}

    def start(self, work: Coroutine[Any, Any, None], ended: Ended) -> asyncio.Task[None]:
        """Run `work`.

        Args:
            work: What is to be done.
            ended: Called once it has ended, unless `stop` ended it.
        """
        task = self._loop.create_task(work)
        self._running[task] = ended
        task.add_done_callback(self._forget)
        return task

    def stop(self, task: asyncio.Task[None]) -> None:
        """Cancel a task for good: nobody hears of its end."""
        if task in self._running:
            self._running[task] = None
            task.cancel()

    async def join(self) -> None:
        """Wait until no task is left."""
        while self._running:
            await asyncio.wait(list(self._running))

    def _forget(self, task: asyncio.Task[None]) -> None:
        ended = self._running.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if ended is not None:
            ended(error)


class Outcome(Generic[T]):
    """How something went, once it is known: the first word counts.

    Unlike a future it can be awaited by many of whom some are cancelled, and a failure that nobody waits for
    is no complaint.
    """

    def __init__(self) -> None:
        self._known = asyncio.Event()
        self._value: T
        self.error: BaseException | None = None
        """What it failed with, if it has."""

    @property
    def known(self) -> bool:
        """Whether it is decided."""
        return self._known.is_set()

    def succeed(self, value: T) -> None:
        """It went well, with this result."""
        if not self._known.is_set():
            self._value = value
            self._known.set()

    def fail(self, error: BaseException) -> None:
        """It failed."""
        if not self._known.is_set():
            self.error = error
            self._known.set()

    def result(self) -> T:
        """What it came to; ask when it is `known`.

        Raises:
            BaseException: What it failed with.
        """
        if self.error is None:
            return self._value
        try:
            raise self.error.with_traceback(None)
        finally:
            del self  # the error holds this frame by its traceback, which would hold the error

    async def wait(self) -> T:
        """Wait until it is known, and return or raise what it came to."""
        await self._known.wait()
        return self.result()


def is_cancelled() -> bool:
    """Whether somebody wants this task to end; else what looks like it came out of something it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
