"""`Pace`: whether an event loop looks into the file by itself, or has a thread do it.

A look takes some microseconds where the page is in memory, and to wake a thread for it ten times as much.
Where it is not, or the disk is slow, no event loop may wait for it. So a loop looks by itself for as long as
looks are quick. After a slow one a thread looks, and the loop again when that was quick, a while later: a
disk that stays slow holds up a loop once.
"""

from __future__ import annotations

from typing import Final

__all__ = ["AWAY_SECONDS", "SLOW_SECONDS", "Pace"]

SLOW_SECONDS: Final = 0.001
"""What a look may take, a hundred times what it does from memory. A slow one holds up all calls of a loop."""
AWAY_SECONDS: Final = 0.1
"""How long a thread looks after a slow look. A disk that is slow now and then holds up a loop ten times a
second at most; a look that was slow because another process had the processor costs little."""


class Pace:
    """How quick the looks are.

    Attributes:
        is_quick: Whether an event loop may look by itself. Nobody knows before a first look.
    """

    def __init__(self) -> None:
        self.is_quick = False
        self._away_until = 0.0

    def took(self, seconds: float, now: float) -> None:
        """A look, whosever it was, took so long, and ended now, on a clock that never goes back."""
        if seconds > SLOW_SECONDS:
            self.failed(now)
        elif now >= self._away_until:
            self.is_quick = True

    def failed(self, now: float) -> None:
        """A loop could not look by itself."""
        self.is_quick = False
        self._away_until = now + AWAY_SECONDS
