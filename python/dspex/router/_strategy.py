"""Strategies: in which order the targets of a call are considered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, cast, get_args

from dspex._timeouts import shown
from dspex.errors import ConfigError, did_you_mean
from dspex.router._operation import AnyOperation

__all__ = ["BreakerState", "Candidate", "OrderOfTargets", "Strategy", "checked_order", "checked_strategy"]

Strategy = Literal["prefer-native", "prefer-python", "fastest", "weighted"]
"""In which order targets are considered; see `docs/routing.md`."""

BreakerState = Literal["closed", "open", "half-open", "forced-open", "forced-closed"]
"""What the breaker of a target does with calls; see `docs/routing.md`."""

NAMES: Final[tuple[Strategy, ...]] = get_args(Strategy)


class Candidate(NamedTuple):
    """A target that could serve a call.

    Attributes:
        name: Its name.
        side: `"native"` or `"python"`.
        in_flight: Calls that are under way there.
        state: The state of its breaker.
        median: Seconds that half of the calls did not exceed which it answered; None where there were none.
    """

    name: str
    side: str
    in_flight: int
    state: BreakerState
    median: float | None


class OrderOfTargets(Protocol):
    """A strategy of the user's: `Runtime(strategy=...)` takes an object with this method.

    It is asked for each call that both sides could serve, on whatever thread the call is made, so it is quick
    and keeps no state without a lock.
    """

    def order(self, operation: AnyOperation, candidates: Sequence[Candidate]) -> Iterable[str]:
        """The names of the targets, in the order in which they are to be considered.

        Those that are left out are not considered. What it raises is the call's error.
        """
        ...


def checked_order(given: Any) -> Strategy:
    """The strategy that a call is given, which is one by name.

    Raises:
        ConfigError: If it is none (`bad-routing`).
    """
    strategy = checked_strategy(given)
    if isinstance(strategy, str):
        return strategy
    raise ConfigError(
        "a strategy of your own is the runtime's: a call takes one by its name",
        code="bad-routing",
        hint="write dspex.Runtime(strategy=...)",
    )


def checked_strategy(given: Any) -> Strategy | OrderOfTargets:
    """The strategy that a setting says.

    Raises:
        ConfigError: If it says none (`bad-routing`).
    """
    if isinstance(given, str) and given in NAMES:
        return given
    if not isinstance(given, str) and callable(getattr(given, "order", None)) and not isinstance(given, type):
        return cast("OrderOfTargets", given)
    near = did_you_mean(given, NAMES).strip() if isinstance(given, str) else ""
    raise ConfigError(
        f"a strategy must be one of {', '.join(NAMES)}, or an object with `order`, not {shown(given)}",
        code="bad-routing",
        hint=near or "see docs/routing.md",
    )
