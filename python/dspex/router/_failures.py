"""What has failed of late: the errors of attempts by class, code and target, with the last ones of each.

It is bounded: `MOST` kinds, and `EXAMPLES` of each, with messages of at most `LONGEST` characters. What is
one kind too many counts under the code `_overflow`. A message is kept without what looks like a key, and
without the secrets of the runtime's model. That costs more than all the rest, so of a kind that comes again
and again one example is kept every `EVERY_SECONDS`: a storm of errors is counted and not read.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dspex._core import Counters
from dspex.errors import Category, DspexError
from dspex.protocol.secrets import redacted

__all__ = ["ErrorCount", "ErrorExample", "Failures", "Report"]

MOST: Final = 100
EXAMPLES: Final = 3
LONGEST: Final = 300
EVERY_SECONDS: Final = 0.1
OVERFLOW: Final = "_overflow"

_KEYS: Final = re.compile(
    r"(?i)\b(?:sk|pk|rk|key|ghp|gho|xox[abp]|AKIA|AIza|hf)[-_]?[A-Za-z0-9_\-]{12,}|\bbearer\s+\S+"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
"""What looks like a key, a bearer's token, or a password in an address."""


@dataclass(frozen=True, slots=True)
class ErrorExample:
    """One error.

    Attributes:
        time: When, in seconds since 1970.
        message: Its message, cut and without secrets. It may quote the words of a server or of a program.
    """

    time: float
    message: str


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """One kind of error.

    Attributes:
        target: What raised it; empty where no target was chosen.
        error: The name of the class.
        code: Its code.
        category: Who must act.
        count: How many there were.
        last: The last ones, the latest at the end.
    """

    target: str
    error: str
    code: str
    category: Category
    count: int
    last: tuple[ErrorExample, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The errors of a runtime's attempts since it was made, whether or not another target helped out.

    Attributes:
        total: How many there were.
        errors: The kinds, the most frequent first.
    """

    total: int
    errors: tuple[ErrorCount, ...]

    def __str__(self) -> str:
        """A table for people."""
        if not self.errors:
            return "no errors"
        rows = [
            f"{kind.count:>8}  {kind.target or '-':20}  {kind.error}[{kind.code}]  {kind.last[-1].message}"
            for kind in self.errors
        ]
        return "\n".join([f"{self.total:>8}  errors in all", *rows])


class _Kind:
    """What is kept of one kind."""

    __slots__ = ("category", "count", "last")

    def __init__(self, category: Category) -> None:
        self.category: Category = category
        self.count = 0
        self.last: deque[ErrorExample] = deque(maxlen=EXAMPLES)


class Failures:
    """Collects what has failed.

    Args:
        secrets: Gives the texts that no message may show.
        counters: Where codes are counted for metrics.
        clock: The seconds since 1970.
    """

    def __init__(
        self,
        counters: Counters,
        secrets: Callable[[], Iterable[str]] = tuple,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._counters = counters
        self.secrets = secrets
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, str, str], _Kind] = {}

    def add(self, target: str, error: BaseException) -> None:
        """An attempt has failed. Of the error itself nothing is kept."""
        now = self._clock()
        code = error.code if isinstance(error, DspexError) else "unexpected"
        category: Category = error.category if isinstance(error, DspexError) else "internal"
        key = target, type(error).__name__, code
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None:
                if len(self._kinds) >= MOST:
                    key = "", "DspexError", OVERFLOW
                kind = self._kinds.setdefault(key, _Kind(category))
            kind.count += 1
            if not kind.last or now - kind.last[-1].time >= EVERY_SECONDS:
                message = error.message if isinstance(error, DspexError) else str(error)
                kind.last.append(ErrorExample(now, self._shown(message)))
        self._counters.add("dspex_errors", [target, code])

    def report(self) -> Report:
        """What there is by now."""
        with self._lock:
            found = [
                ErrorCount(*key, kind.category, kind.count, tuple(kind.last))
                for key, kind in self._kinds.items()
            ]
        found.sort(key=lambda failure: -failure.count)
        return Report(sum(failure.count for failure in found), tuple(found))

    def _shown(self, message: str) -> str:
        # Cut first, with room for a key at the end: a message may have megabytes.
        text: str = redacted(message[: 2 * LONGEST], self.secrets())
        return _KEYS.sub("***", text)[:LONGEST]
