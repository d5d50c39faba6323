"""What shadows have found: counters and the last differences in memory, and a file of bounded size.

The file is written line by line, each line with one call of the system, so that a process that is killed
leaves whole lines. At half of its bytes it becomes `<file>.1`. A file that cannot be written is told once in
the log of `dspex.router`; the calls go on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dspex.errors import ConfigError
from dspex.runtime._shadow_difference import ShadowDifference

__all__ = ["DifferenceFile", "ShadowReport", "ShadowStore", "read_differences"]

_log = logging.getLogger("dspex.router")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """What has come of the calls of a runtime that were run on the other side too.

    Attributes:
        same: Calls on which the two sides agree.
        different: Calls on which they do not.
        failed: Calls that the other side could not answer, for a reason that passes: by the error's code.
        skipped: Calls that fell into the share and were left alone: `busy`, as many ran as may; `no-other`,
            the other side cannot run them; `failing`, its breaker is open.
        in_flight: How many run now.
        unwritten: Differences that could not be written to the file.
        differences: The last ones, the latest at the end.
    """

    same: int
    different: int
    failed: Mapping[str, int]
    skipped: Mapping[str, int]
    in_flight: int
    unwritten: int
    differences: tuple[ShadowDifference, ...]


class ShadowStore:
    """Keeps what shadows find; threads may read it while it is written.

    Args:
        keep: How many differences.
        file: Where each is added too.
    """

    def __init__(self, keep: int, file: DifferenceFile | None) -> None:
        self._lock = threading.Lock()
        self._last: deque[ShadowDifference] = deque(maxlen=keep)
        self._file = file
        self._same = self._different = self._unwritten = 0
        self._failed: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()

    def same(self) -> None:
        """The two sides agree on a call."""
        with self._lock:
            self._same += 1

    def failed(self, code: str) -> None:
        """The other side has not answered."""
        with self._lock:
            self._failed[code] += 1

    def skipped(self, why: str) -> None:
        """A call is left alone."""
        with self._lock:
            self._skipped[why] += 1

    def different(self, difference: ShadowDifference) -> None:
        """The two sides differ on a call. Writes to the file."""
        with self._lock:
            self._different += 1
            self._last.append(difference)
        if self._file is not None and not self._file.add(difference):
            with self._lock:
                self._unwritten += 1

    def report(self, in_flight: int) -> ShadowReport:
        """What there is."""
        with self._lock:
            return ShadowReport(
                same=self._same,
                different=self._different,
                failed=dict(self._failed),
                skipped=dict(self._skipped),
                in_flight=in_flight,
                unwritten=self._unwritten,
                differences=tuple(self._last),
            )


class DifferenceFile:
    """A file of differences, and the one before it.

    Args:
        path: The file.
        most: Bytes that both may have together.
    """

    def __init__(self, path: str | os.PathLike[str], most: int) -> None:
        self._path = Path(path)
        self._most = most // 2
        self._lock = threading.Lock()
        self._told = False

    def add(self, difference: ShadowDifference) -> bool:
        """Write a line; False where that cannot be done."""
        line = difference.to_line().encode(errors="backslashreplace")
        try:
            with self._lock:
                self._write(line)
        except OSError as error:
            if not self._told:
                self._told = True
                _log.warning("differences cannot be written to %s: %s", self._path, error)
            return False
        return True

    def _write(self, line: bytes) -> None:
        if len(line) > self._most:
            raise OSError("a difference is longer than the file may be")
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size and size + len(line) > self._most:
            os.replace(self._path, f"{self._path}.1")
        # Texts of replies are in it, and of users if that was asked for.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def read_differences(path: str | os.PathLike[str]) -> tuple[list[ShadowDifference], int]:
    """The differences in a file, and how many of its lines are none.

    Raises:
        ConfigError: If it cannot be read (`no-shadow-file`).
    """
    found: list[ShadowDifference] = []
    unread = 0
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    found.append(ShadowDifference.from_line(line))
                except ValueError:
                    unread += 1
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path!s} cannot be read: {error}",
            code="no-shadow-file",
            hint="give the file that dspex.router.Shadow(file=...) names",
            file=str(path),
        ) from error
    return found, unread
