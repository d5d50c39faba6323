"""Calls from a worker back to the service: functions that live there, by name, for the life of one call.

The service says with a call which functions it may use (`Pool.call(..., callbacks=...)`); the call's work
reaches them through `call_back`, or as tools of a DSPy module (`modules`). What goes over the wire is a name
and plain values; errors come back in the classes of `dspex.errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from dspex.errors import ConfigError

__all__ = ["call_back", "call_back_sync", "enter"]

_CURRENT: ContextVar[Callable[[str, list[Any], dict[str, Any]], Awaitable[Any]] | None] = ContextVar(
    "dspex_call_back", default=None
)
"""How the call that is running reaches the service; set by the server for each call."""

_LOOP: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("dspex_loop", default=None)


async def call_back(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call the function `name` of the service.

    Raises:
        ConfigError: If this is not a call of a pool, or the call brought no such function.
        DspexError: What the function raised.
    """
    send = _CURRENT.get()
    if send is None:
        raise ConfigError(f"{name!r} can be called only in the work of a pool's call", code="no-call-back")
    return await send(name, list(args), kwargs)


def call_back_sync(name: str, *args: Any, **kwargs: Any) -> Any:
    """The same from work that runs in a thread. It blocks the thread; on the worker's loop it is refused."""
    loop = _LOOP.get()
    if loop is None:
        raise ConfigError(f"{name!r} can be called only in the work of a pool's call", code="no-call-back")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # It runs in the loop's context, which has no call, so the way back is looked up here.
        send = _CURRENT.get()
        assert send is not None  # noqa: S101 - set together with the loop
        return asyncio.run_coroutine_threadsafe(_await(send(name, list(args), kwargs)), loop).result()
    raise ConfigError(f"async work calls {name!r} back with `await call_back(...)`", code="no-call-back")


async def _await(answer: Awaitable[Any]) -> Any:
    return await answer


def enter(send: Callable[[str, list[Any], dict[str, Any]], Awaitable[Any]]) -> None:
    """Make `send` the way back of the running call."""
    _CURRENT.set(send)
    _LOOP.set(asyncio.get_running_loop())
