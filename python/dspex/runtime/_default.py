"""The process's default runtime."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dspex._portal import refuse_blocking
from dspex.errors import ConfigError
from dspex.router import set_default
from dspex.runtime._runtime import DEFAULT_BREAKER, DEFAULT_TIMEOUT_SECONDS, Runtime

if TYPE_CHECKING:
    from dspex.adapters import AdapterLike, Parsing
    from dspex.lm import LanguageModel
    from dspex.pool import PoolSpec
    from dspex.router import Breaker, GivenLimits, Hedge, OrderOfTargets, Retry, Shadow, Strategy
    from dspex.sessions import SessionSettings
    from dspex.stores import SessionStore

__all__ = ["configure"]

_configured: Runtime | None = None
_lock = threading.Lock()


def configure(
    lm: str | LanguageModel | None = None,
    *,
    pools: int | PoolSpec | Sequence[PoolSpec] | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    adapter: AdapterLike = "chat",
    parsing: Parsing | None = None,
    dialect: str | None = None,
    strategy: Strategy | OrderOfTargets = "prefer-native",
    breaker: Breaker | None = DEFAULT_BREAKER,
    retry: Retry | None = None,
    limits: GivenLimits = None,
    hedge: Hedge | None = None,
    shadow: Shadow | float | None = None,
    callbacks: Sequence[Any] | None = None,
    sessions: SessionSettings | SessionStore | str | os.PathLike[str] | None = None,
) -> Runtime:
    """Make and open the runtime that modules use where no other is current.

    It lives on a thread of its own and closes when the process ends, or when `configure` is called again:
    that replaces it as a whole, settings that are left out included, and cancels the calls in flight on it.
    So configure once, at the start. A service on an event loop is better off with `async with Runtime(...)`
    around its life, which spares each call the way to another thread and back.

    Args:
        lm: The language model; for this and all others see `Runtime`.
        pools: The pools of DSPy workers.
        timeout: Seconds a call may take unless it says otherwise.
        adapter: How prompts are laid out and replies read.
        parsing: How tolerantly replies are read.
        dialect: The version of DSPy whose prompts are written.
        strategy: Which side a call goes to that both can serve.
        breaker: Keeps calls from a pool whose workers fail.
        retry: How often a call that failed is made again.
        limits: How many calls may be under way at each target.
        hedge: Makes a call that is late a second time.
        shadow: Runs the other side too for a share of the calls.
        callbacks: Who hears of all calls.
        sessions: Where sessions are kept.

    Returns:
        The runtime, open.

    Raises:
        ConfigError: If a setting is wrong, or there is a runtime to close and an event loop on this thread
            (`blocking-in-loop`); the runtime before stays in place then.
        RouteError: If only real DSPy has the adapter or speaks to the model, and there is no pool.
    """
    global _configured
    before = _configured
    if before is not None and before.usable:
        refuse_blocking(0, "`await asyncio.to_thread(dspex.configure, ...)`: it closes the runtime before")
        if lm is None:
            raise ConfigError(
                "a runtime needs a language model",
                code="no-lm",
                hint="repeat lm=: `configure` replaces the runtime before as a whole",
            )
    runtime = Runtime(
        lm,
        pools=pools,
        timeout=timeout,
        adapter=adapter,
        parsing=parsing,
        dialect=dialect,
        strategy=strategy,
        breaker=breaker,
        retry=retry,
        limits=limits,
        hedge=hedge,
        shadow=shadow,
        callbacks=callbacks,
        sessions=sessions,
    ).open()
    with _lock:
        before, _configured = _configured, runtime
        set_default(runtime)
    if before is not None:
        before.close()
    return runtime
