"""What the calls inside a module's call take over from it, on whatever thread or task they run.

A program of one's own calls predictors from plain Python; nothing hands them a deadline or a route. So the
call of the program leaves a `Scope` in the context, and each predictor's call looks there. Scopes nest: the
inner one starts from what the outer one says, and a deadline only ever becomes earlier.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dspex._timeouts import check_seconds
from dspex.errors import DeadlineExceeded
from dspex.router import RouteName, Strategy, checked_order

if TYPE_CHECKING:
    from dspex.modules._listening import Listener

__all__ = ["InScope", "Scope", "current_scope", "enter", "in_scope", "says_nothing"]


_NO_SETTINGS: Final[Mapping[str, Any]] = {}


class Scope(NamedTuple):
    """What holds for the calls inside a call.

    Attributes:
        deadline: When the outer call's time runs out, by `time.monotonic`; None for no limit of its own.
        seconds: How long that time was.
        route: Where they go, unless they say otherwise.
        idempotent: Whether a worker may run them again, unless they say otherwise.
        settings: Settings of the LM in the place of its own; a predictor's own come before these.
        strategy: In which order targets are considered, unless they say otherwise.
        listener: Hears of their replies while they come; None where the outer call is not streamed.
    """

    deadline: float | None = None
    seconds: float = 0.0
    route: RouteName | None = None
    idempotent: bool | None = None
    settings: Mapping[str, Any] = _NO_SETTINGS
    listener: Listener | None = None
    strategy: Strategy | None = None

    def left(self, timeout: float | None) -> float | None:
        """The seconds of a call inside: its own or what is left, whichever is less; None for the runtime's.

        Raises:
            DeadlineExceeded: If nothing is left.
        """
        if self.deadline is None:
            return timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise self.ran_out()
        return left if timeout is None else min(left, timeout)

    def ran_out(self) -> DeadlineExceeded:
        """The error for a call that has nothing left."""
        return DeadlineExceeded(
            f"the {self.seconds:g} s of the program's call ran out",
            hint="allow the program more time: with_options(timeout=...)",
            timeout=self.seconds,
            stage="program",
        )


_scope: Final[ContextVar[Scope | None]] = ContextVar("dspex_scope", default=None)
_NONE: Final = Scope()

current_scope = _scope.get
"""The scope of this context, or None."""


@contextmanager
def enter(
    *,
    timeout: float | None = None,
    route: RouteName | None = None,
    idempotent: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    strategy: Strategy | None = None,
) -> Iterator[Scope]:
    """Let these hold for the calls in the block, over what holds already."""
    scope = _scope.get() or _NONE
    if timeout is not None:
        deadline = time.monotonic() + timeout
        if scope.deadline is None or deadline < scope.deadline:
            scope = scope._replace(deadline=deadline, seconds=timeout)
    if route is not None:
        scope = scope._replace(route=route)
    if idempotent is not None:
        scope = scope._replace(idempotent=idempotent)
    if settings:
        scope = scope._replace(settings={**scope.settings, **settings})
    if listener is not None:
        scope = scope._replace(listener=listener)
    if strategy is not None:
        scope = scope._replace(strategy=strategy)
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def says_nothing() -> bool:
    """Whether nothing holds here that a call would have to look at."""
    scope = _scope.get()
    return scope is None or scope is _NONE


class InScope(NamedTuple):
    """What a call comes to by its own options and by the scope that it is made in."""

    timeout: float | None
    route: RouteName | None
    idempotent: bool
    settings: Mapping[str, Any]
    listener: Listener | None
    strategy: Strategy | None


def in_scope(options: Mapping[str, Any]) -> InScope:
    """What a call with these options comes to here; `settings` stand in the place of the LM's own.

    Raises:
        ConfigError: If the time-out or the strategy is none.
        DeadlineExceeded: If the outer call's time is over.
    """
    scope = _scope.get()
    timeout, route, idempotent = options.get("timeout"), options.get("route"), options.get("idempotent")
    strategy = options.get("strategy")
    if timeout is not None:
        timeout = check_seconds(timeout)
    if strategy is not None:
        strategy = checked_order(strategy)
    if scope is None:
        return InScope(timeout, route, bool(idempotent), _NO_SETTINGS, None, strategy)
    return InScope(
        scope.left(timeout),
        scope.route if route is None else route,
        bool(scope.idempotent if idempotent is None else idempotent),
        scope.settings,
        scope.listener,
        scope.strategy if strategy is None else strategy,
    )
