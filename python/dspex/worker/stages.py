"""What the work of a call has done so far, for the service: each stage that has ended.

It goes back in the frame of the call's reply, also where that is an error, so that nothing is lost when the
worker is replaced.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

__all__ = ["MOST", "STAGES", "StageRows"]

MOST: Final = 64
"""Rows that go back: a program that asks its model without end must not make replies without end."""


class StageRows:
    """The stages, as they go over the wire.

    Attributes:
        rows: For each its name, when it ended in seconds since the work began, its seconds, and 1. The last
            of `MOST` stands for all beyond: when the last of them ended, their seconds in sum, their number.
    """

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows: list[list[str | float | int]] = []
        STAGES.set(self)

    def add(self, name: str, ended: float, seconds: float) -> None:
        """One has ended. Whoever calls it sees to it that nobody else does at the same time."""
        if len(self.rows) < MOST:
            self.rows.append([name, ended, seconds, 1])
            return
        last = self.rows[-1]
        last[1], last[2], last[3] = ended, float(last[2]) + seconds, int(last[3]) + 1


STAGES: Final[ContextVar[StageRows | None]] = ContextVar("dspex_stages", default=None)
"""Those of the running call; None if it has none."""
