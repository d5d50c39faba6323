"""Which dispatcher a module uses when it was given none.

First the one entered in this context (`with dspex.Runtime(...)`), then the process-wide default: a task
that a web server starts has none of its lifespan's context, and a thread has nobody's, so the context
alone would not reach them. The default is the one that `dspex.configure` made, or else the one that has been
open longest: what opens later takes no other's calls away, and takes over when those before it have closed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Protocol

from dspex.errors import ConfigError
from dspex.prediction import Prediction
from dspex.router._operation import AnyOperation

__all__ = ["Dispatcher", "current_dispatcher", "dispatcher_here", "forget", "offer", "set_default", "use"]


class Dispatcher(Protocol):
    """What runs operations: a `Runtime`."""

    def run(self, operation: AnyOperation) -> Prediction:
        """Run the operation and wait for its prediction."""
        ...

    async def arun(self, operation: AnyOperation) -> Prediction:
        """The same, awaited."""
        ...


class Shared(Dispatcher, Protocol):
    """A dispatcher that can be the process's default."""

    @property
    def usable(self) -> bool:
        """Whether it can run operations here and now."""
        ...


_entered: ContextVar[Dispatcher | None] = ContextVar("dspex_dispatcher", default=None)
_open: list[Shared] = []
_default: Shared | None = None  # the first of them, for calls to read without the lock
_lock = threading.Lock()


def current_dispatcher() -> Dispatcher:
    """The dispatcher of this context, or else the process's default.

    Raises:
        ConfigError: If there is neither.
    """
    found = _entered.get() or _default
    if found is None:
        raise ConfigError(
            "there is no runtime to run this call",
            code="no-runtime",
            hint='call dspex.configure(lm="openai/...") once, or work inside `with dspex.Runtime(lm=...)`',
        )
    return found


def dispatcher_here() -> Dispatcher | None:
    """The dispatcher of this context, or else the process's default; None if there is neither."""
    return _entered.get() or _default


@contextmanager
def use(dispatcher: Shared) -> Iterator[None]:
    """Make `dispatcher` the current one of this context, and the default where there is no other."""
    token = _entered.set(dispatcher)
    offered = offer(dispatcher)
    try:
        yield
    finally:
        if offered:
            forget(dispatcher)
        # Entered in one context and left in another, as a web server's lifespan may do, the variable was
        # never visible here, and there is nothing to put back.
        with suppress(ValueError):
            _entered.reset(token)


def offer(dispatcher: Shared) -> bool:
    """Let `dispatcher`, which has opened, be the process's default when there is no other.

    Returns:
        False if it is among those that may be already.
    """
    with _lock:
        if any(other is dispatcher for other in _open):
            return False
        _arrange([*_without(dispatcher), dispatcher])
        return True


def set_default(dispatcher: Shared) -> None:
    """Make `dispatcher` the process's default, before all others."""
    with _lock:
        _arrange([dispatcher, *_without(dispatcher)])


def forget(dispatcher: Shared) -> None:
    """Let `dispatcher`, which has closed, be the default no longer."""
    with _lock:
        _arrange(_without(dispatcher))


def _without(dispatcher: Shared) -> list[Shared]:
    # One whose loop ended without its being closed, or that is another process's, is nobody's default.
    return [other for other in _open if other is not dispatcher and other.usable]


def _arrange(dispatchers: list[Shared]) -> None:
    global _default
    _open[:] = dispatchers
    _default = dispatchers[0] if dispatchers else None
