"""Which dispatcher a module uses when it was given none.

First the one entered in this context (`with dspex.Runtime(...)`), then the process-wide default: a task
that a web server starts has none of its lifespan's context, and a thread has nobody's, so the context
alone would not reach them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Protocol

from dspex.errors import ConfigError
from dspex.prediction import Prediction
from dspex.router._operation import Operation

__all__ = ["Dispatcher", "current_dispatcher", "forget", "set_default", "use"]


class Dispatcher(Protocol):
    """What runs operations: a `Runtime`."""

    def run(self, operation: Operation) -> Prediction:
        """Run the operation and wait for its prediction."""
        ...

    async def arun(self, operation: Operation) -> Prediction:
        """The same, awaited."""
        ...


_entered: ContextVar[Dispatcher | None] = ContextVar("dspex_dispatcher", default=None)
_default: Dispatcher | None = None


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


@contextmanager
def use(dispatcher: Dispatcher) -> Iterator[None]:
    """Make `dispatcher` the current one of this context, and the default where there is none."""
    token = _entered.set(dispatcher)
    if made_default := _default is None:
        set_default(dispatcher)
    try:
        yield
    finally:
        if made_default:
            forget(dispatcher)
        # Entered in one context and left in another, as a web server's lifespan may do, the variable was
        # never visible here, and there is nothing to put back.
        with suppress(ValueError):
            _entered.reset(token)


def forget(dispatcher: Dispatcher) -> None:
    """Let `dispatcher`, which has closed, be the process's default no longer."""
    global _default
    if _default is dispatcher:
        _default = None


def set_default(dispatcher: Dispatcher | None) -> Dispatcher | None:
    """Make `dispatcher` the process-wide default and return the one before it."""
    global _default
    before, _default = _default, dispatcher
    return before
