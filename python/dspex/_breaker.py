"""`Breaker`: when a target that fails is left alone, and how it is tried again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from dspex import _listeners
from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError

__all__ = ["GROUP_BREAKER", "Breaker", "log_change"]

_log = logging.getLogger("dspex.router")


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The settings of a circuit breaker; see `docs/routing.md` for its states.

    Attributes:
        failure_rate: The share of calls in the window, from which on it opens: 0.5 is half of them.
        slow_rate: The same for calls that took `slow_after` seconds or more, however they ended; None for
            never.
        slow_after: From how many seconds on a call is slow.
        minimum: Calls there must have been in the window before rates mean anything.
        window: The window: so many seconds.
        window_calls: The window is the last so many calls instead.
        open_for: Seconds that it stays open before it lets calls pass as probes.
        open_at_most: What that grows to, doubled with each round of probes that failed.
        probes: How many calls probe the target.

    Raises:
        ConfigError: If a value is none (`bad-breaker`).
    """

    failure_rate: float = 0.5
    slow_rate: float | None = None
    slow_after: float = 60.0
    minimum: int = 20
    window: float = 30.0
    window_calls: int | None = None
    open_for: float = 5.0
    open_at_most: float = 60.0
    probes: int = 3

    def __post_init__(self) -> None:
        for name in ("failure_rate", "slow_rate"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value <= 1):
                raise _bad(name, value, "a share above 0, at most 1")
        for name in ("slow_after", "window", "open_for", "open_at_most"):
            check_seconds(getattr(self, name))
        for name in ("minimum", "probes", "window_calls"):
            value = getattr(self, name)
            if value is None and name == "window_calls":
                continue
            if type(value) is not int or not 1 <= value <= _MOST:
                raise _bad(name, value, f"a count from 1 to {_MOST:,}")

    def as_values(self, *, at_once: bool = False) -> _Values:
        """What the core takes.

        Args:
            at_once: Whether a failure that comes with a time to wait opens it, whatever the rates say.
        """
        return _Values(
            **{name: getattr(self, name) for name in self.__slots__ if name != "slow_rate"},
            slow_rate=2.0 if self.slow_rate is None else self.slow_rate,
            at_once=at_once,
        )


_MOST = 100_000
"""A window of calls takes twelve bytes for each."""


class _Values:
    """The settings by the core's names, with a rate that is never reached in the place of None."""

    def __init__(self, **values: float | int | None) -> None:
        self.__dict__.update(values)


def log_change(name: str, before: str, after: str) -> None:
    """Write down that the state of a target's breaker has changed."""
    level = logging.INFO if after == "closed" else logging.WARNING
    _log.log(level, "the breaker of %s is %s; it was %s", name, after, before)
    if _listeners.given:
        from dspex.telemetry._event import make  # most processes have nobody who listens
        from dspex.telemetry._handlers import tell, wanted

        if wanted("dspex.breaker.change"):
            tell(make("dspex.breaker.change", {"target": name, "before": before, "after": after}))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bad(name: str, value: object, what: str) -> ConfigError:
    return ConfigError(
        f"{name} of a breaker must be {what}, not {shown(value)}",
        code="bad-breaker",
        hint="see dspex.router.Breaker",
    )


GROUP_BREAKER: Final = Breaker(minimum=5, window_calls=20, open_for=1.0, probes=1)
"""That of each deployment of a group. One that asks for time gets it at once; one that fails otherwise is
left alone when half of its last 20 calls have failed, of at least five. It is tried again after a second,
then two, then four, and so on to a minute. The window is of calls: under load one of time would hold so many
answers from before that a server that fails all calls would be asked for as long again."""
