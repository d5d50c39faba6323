"""`Limits`: how many calls may be under way at a target, and how long others wait for a place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError, did_you_mean

__all__ = ["GivenLimits", "Limits", "limits_by_target"]

_MOST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A bulkhead: one target that is slow takes no more of a service than this; see `docs/routing.md`.

    Attributes:
        in_flight: How many calls may be under way at the target.
        wait: Seconds that a call waits for a place, within its own time. 0 refuses it at once.
        queue: How many may wait; one more is refused at once.

    Raises:
        ConfigError: If a value is none (`bad-limits`).
    """

    in_flight: int
    wait: float = 0.0
    queue: int = 1_000

    def __post_init__(self) -> None:
        for name in ("in_flight", "queue"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MOST:
                raise _bad(name, value, f"a count from 1 to {_MOST:,}")
        check_seconds(self.wait, "wait", zero=True)


GivenLimits = Limits | Mapping[str, Limits] | None
"""Limits of every target, or of some by their names."""


def limits_by_target(given: GivenLimits, names: Iterable[str]) -> dict[str, Limits]:
    """The limits of each target that has some.

    Args:
        given: What a runtime was given.
        names: The names of its targets.

    Raises:
        ConfigError: If they are none, or of a target that there is not (`bad-limits`).
    """
    names = list(names)
    if given is None:
        return {}
    if isinstance(given, Limits):
        return dict.fromkeys(names, given)
    if not isinstance(given, Mapping):
        raise _bad("limits", given, "a dspex.router.Limits, or some by the names of targets")
    for name, limits in given.items():
        if name not in names:
            near = did_you_mean(name, names) if isinstance(name, str) else ""
            raise ConfigError(
                f"there are limits of {shown(name)}, and no such target",
                code="bad-limits",
                hint=f"{near}the targets are: {', '.join(names)}",
            )
        if not isinstance(limits, Limits):
            raise _bad(f"limits[{name!r}]", limits, "a dspex.router.Limits")
    return dict(given)


def _bad(name: str, value: object, what: str) -> ConfigError:
    return ConfigError(
        f"{name} must be {what}, not {shown(value)}",
        code="bad-limits",
        hint="see dspex.router.Limits",
    )
