"""What follows a death, and when a worker is due for recycling.

Pure functions, without clock and process, so that a test is a row of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dspex.pool._spec import Recycling, Restart

__all__ = ["GiveUp", "Respawn", "after_death", "due_for_recycling"]


@dataclass(frozen=True, slots=True)
class Respawn:
    """Start another worker, `after` seconds from now."""

    after: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Start none until `until`, when the oldest death counted is forgotten."""

    deaths: int
    until: float


def after_death(
    deaths: Sequence[float], failures_in_a_row: int, now: float, policy: Restart
) -> Respawn | GiveUp:
    """Decide what follows a death.

    Args:
        deaths: When workers died, this death included, in seconds on the clock of `now`.
        failures_in_a_row: How many of the last workers, in a row, died before they had answered
            anything. Only these slow the restarts down: a worker that was killed at work is replaced at once.
        now: The time.
        policy: The settings.
    """
    recent = sorted(died for died in deaths if now - died < policy.window)
    if len(recent) > policy.max:
        # Enough of the oldest must be forgotten for the count to be within the budget again.
        return GiveUp(len(recent), recent[len(recent) - policy.max - 1] + policy.window)
    if failures_in_a_row == 0:
        return Respawn(0.0)
    # The exponent is bounded because a float has no room for 2**1100, not because the delay would matter.
    return Respawn(min(policy.max_delay, policy.first_delay * 2.0 ** min(failures_in_a_row - 1, 64)))


def due_for_recycling(age: float, served: int, memory: int, limits: Recycling) -> str | None:
    """The reason to replace a worker, None if there is none.

    Args:
        age: Seconds since its start.
        served: Calls it has answered.
        memory: Its resident bytes.
        limits: The settings.
    """
    if limits.age is not None and age >= limits.age:
        return f"it is {age:.0f} s old"
    if limits.requests is not None and served >= limits.requests:
        return f"it has served {served} calls"
    if limits.memory is not None and memory >= limits.memory:
        return f"it has {memory} bytes of memory"
    return None
