"""How far a batch is: a bar on a terminal, rich's where that is installed, or a function of the caller's."""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
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
        out = sys.stderr
        is_terminal = out is not None and (wanted is not False) and _is_terminal(out)
        if wanted is None:
            wanted = is_terminal
        if not wanted or out is None:
            return _Nothing()
        if is_terminal and find_spec("rich") is not None:
            return _RichBar(out, total)
        return _PlainBar(out, total)


def _is_terminal(out: TextIO) -> bool:
    try:
        return out.isatty()
    except ValueError:  # it is closed
        return False


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
    """What is drawn again from time to time; what is shown last is how it ended."""

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

    @abstractmethod
    def _draw(self, now: float) -> None:
        """Draw what is known by now."""

    def _said(self, now: float) -> str:
        done, failed = self._now
        rate = done / max(now - self._begun, 1e-9)
        rows = f"{done} rows" if self._total is None else f"{done}/{self._total} rows"
        return f"{rows}, {rate:.1f}/s" + (f", {failed} failed" if failed else "")


class _RichBar(_Bar):
    """Rich's. It has no thread, and leaves the program's streams as they are."""

    def __init__(self, out: TextIO, total: int | None) -> None:
        from rich import progress
        from rich.console import Console

        super().__init__(out, total)
        self._bar = progress.Progress(
            *([] if total is None else [progress.BarColumn(_WIDTH)]),
            progress.TextColumn("{task.description}", markup=False),
            console=Console(file=out, force_terminal=True, force_jupyter=False),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=total)

    def close(self) -> None:
        super().close()
        with suppress(OSError, ValueError):
            self._bar.stop()

    def _draw(self, now: float) -> None:
        with suppress(OSError, ValueError):  # a terminal that has gone ends no batch
            self._bar.start()
            self._bar.update(self._task, completed=self._now[0], description=self._said(now), refresh=True)


class _PlainBar(_Bar):
    """One line that is written over."""

    def close(self) -> None:
        super().close()
        self._write("\n")

    def _draw(self, now: float) -> None:
        line, done = self._said(now), self._now[0]
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
