"""`Retry`: how often a call that failed is made again, and how long it waits before."""

from __future__ import annotations

from dataclasses import dataclass

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError

__all__ = ["Retry"]

_MOST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a call is made again; see `docs/routing.md` for which calls are.

    Before each attempt it waits by chance up to a time that doubles, exponential back-off with full jitter
    (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/), and at least as long
    as the server asked for. It waits only where the call's time allows it.

    A budget bounds what an outage is multiplied by: over ten seconds no more calls are made again than
    `share` of those that were made, and `per_second` besides.

    Attributes:
        attempts: How often a call is made, at most, the first time included. To let another target try
            counts as the same time.
        first_wait: Seconds that the first wait takes at most.
        longest_wait: What that doubles up to.
        share: The share of calls that may be made again: 0.1 is every tenth.
        per_second: Calls a second that may be, however few there are.

    Raises:
        ConfigError: If a value is none (`bad-retry`).
    """

    attempts: int = 3
    first_wait: float = 0.5
    longest_wait: float = 8.0
    share: float = 0.1
    per_second: float = 1.0

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or not 1 <= self.attempts <= _MOST:
            raise _bad("attempts", self.attempts, f"a count from 1 to {_MOST}")
        for name in ("first_wait", "longest_wait"):
            check_seconds(getattr(self, name))
        for name in ("share", "per_second"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1_000:
                raise _bad(name, value, "a number from 0 to 1,000")

    def wait(self, failures: int, retry_after: float | None, chance: float) -> float:
        """Seconds to wait before the next attempt.

        Args:
            failures: Attempts that have failed.
            retry_after: What the server asked for.
            chance: A number from 0 to 1.
        """
        at_most = min(self.longest_wait, self.first_wait * 2.0 ** (failures - 1))
        return max(chance * at_most, retry_after or 0.0)


def _bad(name: str, value: object, what: str) -> ConfigError:
    return ConfigError(
        f"{name} of a retry must be {what}, not {shown(value)}",
        code="bad-retry",
        hint="see dspex.router.Retry",
    )
