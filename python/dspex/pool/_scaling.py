"""How a pool grows while calls wait, and shrinks again while workers have nothing to do."""

from __future__ import annotations

import asyncio
from typing import Final

from dspex.pool._lifecycle import Lifecycle, State
from dspex.pool._queue import FairQueue
from dspex.pool._spec import PoolSpec
from dspex.pool._supervisor import Supervisor

__all__ = ["Autoscaler"]

_AGAIN: Final = 0.01
"""Seconds, at least, between two looks for idle workers."""


class Autoscaler:
    """Keeps the number of a pool's workers between what its settings name.

    Args:
        spec: The pool's settings.
        life: The pool's; nothing is scaled that is not READY.
        queue: The calls that wait.
        supervisor: The workers.
    """

    def __init__(self, spec: PoolSpec, life: Lifecycle, queue: FairQueue, supervisor: Supervisor) -> None:
        self._spec = spec
        self._life = life
        self._queue = queue
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._growing: asyncio.TimerHandle | None = None
        self._shrinking: asyncio.TimerHandle | None = None

    def use(self, spec: PoolSpec) -> None:
        """Scale by these settings from now on."""
        self._spec = spec

    @property
    def most(self) -> int:
        """How many workers there may be."""
        return max(self._spec.workers, self._spec.max_workers or 0)

    def calls_wait(self) -> None:
        """See to it that calls which wait too long get another worker."""
        if self._growing is None and self._queue and self._supervisor.size < self.most:
            oldest = self._queue.oldest()
            assert oldest is not None  # noqa: S101 - the queue is not empty
            # One step at a time: whether it was enough is seen when its worker has begun to take calls.
            wait_until = max(oldest, self._loop.time()) + self._spec.scaling.up_after
            self._growing = self._loop.call_at(wait_until, self._grow)

    def nothing_waits(self) -> None:
        """See to it that workers which have nothing to do go."""
        if self._spec.max_workers is not None and self._supervisor.size > self._spec.workers:
            self._watch_idle(self._spec.scaling.down_after)

    def stop(self) -> None:
        """Scale no more."""
        for timer in (self._growing, self._shrinking):
            if timer is not None:
                timer.cancel()

    def _grow(self) -> None:
        self._growing = None
        if not self._queue or self._life.state is not State.READY:
            return
        if not self._supervisor.starting:
            self._supervisor.resize(self._supervisor.size + 1)
            self._watch_idle(self._spec.scaling.down_after)
        self.calls_wait()

    def _watch_idle(self, seconds: float) -> None:
        if self._shrinking is None:
            self._shrinking = self._loop.call_later(seconds, self._shrink)

    def _shrink(self) -> None:
        self._shrinking = None
        if self._life.state is State.READY:
            left = self._supervisor.drop_idle(self._spec.workers, self._spec.scaling.down_after)
            if left is not None:
                self._watch_idle(max(left, _AGAIN))
