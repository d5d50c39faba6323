"""How far a batch is: a bar on a terminal, or a function of the caller's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, TextIO

__all__ = ["Progress"]

_SECONDS: Final = 0.1
"""Between two drawings; a person sees no more."""
_WIDTH: Final = 30


class Progress(Protocol):
    """What is told of each row."""

    shows: bool = True
    """Whether `show` does anything."""

    def show(self, done: int, failed: int) -> None:
        """So many rows are done, and so many of them failed."""

    def close(self) -> None:
        """The batch has ended."""

    @staticmethod
    def of(wanted: bool | Callable[[int, int | None], Any] | None, total: int | None) -> Progress:
        """What was asked for: a function, a bar, nothing, or by default a bar where stderr is a terminal."""
        if callable(wanted):
            return _Told(wanted, total)
        if wanted is None:
            wanted = sys.stderr is not None and sys.stderr.isatty()
        return _Bar(sys.stderr, total) if wanted and sys.stderr is not None else _Nothing()


class _Nothing(Progress):
    shows = False

    def show(self, done: int, failed: int) -> None:
        pass

    def close(self) -> None:
        pass


class _Told(Progress):
    def __init__(self, tell: Callable[[int, int | None], Any], total: int | None) -> None:
        self._tell = tell
        self._total = total

    def show(self, done: int, failed: int) -> None:
        self._tell(done, self._total)

    def close(self) -> None:
        pass


class _Bar(Progress):
    """One line that is written over; what is shown last is how it ended."""

    def __init__(self, out: TextIO, total: int | None) -> None:
        self._out = out
        self._total = total
        self._begun = time.monotonic()
        self._next = self._begun
        self._now = (0, 0)

    def show(self, done: int, failed: int) -> None:
        self._now = done, failed
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _SECONDS
            self._draw(now)

    def close(self) -> None:
        self._draw(time.monotonic())
        self._write("\n")

    def _draw(self, now: float) -> None:
        done, failed = self._now
        rate = done / max(now - self._begun, 1e-9)
        rows = f"{done} rows" if self._total is None else f"{done}/{self._total} rows"
        line = f"{rows}, {rate:.1f}/s" + (f", {failed} failed" if failed else "")
        if self._total:
            full = min(_WIDTH, _WIDTH * done // self._total)
            line = f"[{'#' * full}{'.' * (_WIDTH - full)}] {line}"
        self._write(f"\r{line:<78}")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):  # a terminal that has gone ends no batch
            pass
