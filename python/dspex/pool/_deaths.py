"""The deaths of a pool's workers: how many there were, what follows the last, what came first."""

from __future__ import annotations

from collections import deque

from dspex.errors import WorkerDiedError, WorkerStartError
from dspex.pool._policy import GiveUp, Respawn, after_death
from dspex.pool._spec import Restart

__all__ = ["Deaths"]


class Deaths:
    """Remembers deaths as long as the policy counts them.

    Args:
        pool: The pool's name, for the error of a pool that gives up.
        policy: How many deaths are made good, and how fast.
    """

    def __init__(self, pool: str, policy: Restart) -> None:
        self.total = 0
        """Workers lost since the start."""
        self._pool = pool
        self._policy = policy
        self._recent: deque[float] = deque(maxlen=policy.max + 1)
        self._failures_in_a_row = 0
        self._first_cause: WorkerStartError | WorkerDiedError | None = None

    def count(
        self, cause: WorkerStartError | WorkerDiedError, now: float, *, served: int
    ) -> Respawn | GiveUp:
        """Count a death, and say what follows it.

        Args:
            cause: How the worker died, or why it never came to serve.
            now: The time, on one clock for all.
            served: Calls that it had answered.
        """
        self.total += 1
        self._recent.append(now)
        self._failures_in_a_row = 0 if served else self._failures_in_a_row + 1
        if self._failures_in_a_row <= 1:
            self._first_cause = cause
        return after_death(self._recent, self._failures_in_a_row, now, self._policy)

    def refusal(self) -> WorkerStartError:
        """The error of a call for which there is no worker, after deaths beyond the policy."""
        cause = self._first_cause
        assert cause is not None  # noqa: S101 - a pool gives up only after deaths
        return WorkerStartError.from_other(
            cause,
            message=f"pool {self._pool!r} has no worker: {len(self._recent)} died within "
            f"{self._policy.window:g} s, beyond restart.max={self._policy.max}; "
            f"the first because: {cause.message}",
            code="restart-budget",
            hint="cure the first cause; the pool tries again by itself when the window has passed",
        )
