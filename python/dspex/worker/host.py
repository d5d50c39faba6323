"""Calls from a worker back to the service: functions that live there, by name, for the life of one call.

The service names with a call the functions that it may use (`Pool.call(..., host_functions=...)`); the call's
work reaches them through `call_host`, or as tools of a DSPy module. What goes over the wire is a name and
plain values; errors come back in the classes of `dspex.errors`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from dspex.errors import ConfigError

__all__ = ["RUNNING", "SETTING", "call_host", "call_host_sync", "connect", "time_left"]

RUNNING: ContextVar[int] = ContextVar("dspex_running_call")
"""The id of the call whose work this is; the server sets it, and threads of the work inherit it."""

SETTING: Final = "dspex_running_call"
"""The setting of DSPy with the same meaning."""


class _Service(NamedTuple):
    loop: asyncio.AbstractEventLoop
    send: Callable[[int, str, list[Any], dict[str, Any]], Awaitable[Any]]
    left: Callable[[int], float | None]


_service: _Service | None = None


def connect(
    loop: asyncio.AbstractEventLoop,
    send: Callable[[int, str, list[Any], dict[str, Any]], Awaitable[Any]],
    left: Callable[[int], float | None],
) -> None:
    """Say how calls reach the service; a worker process has one, for its life.

    Args:
        loop: The worker's loop.
        send: Takes a call's id, the function's name and its arguments, and gives the answer.
        left: Takes a call's id and gives the seconds it has left.
    """
    global _service
    _service = _Service(loop, send, left)


def time_left() -> float | None:
    """Seconds until the deadline of the call whose work this is; None outside of one."""
    call_id = _running()
    return None if _service is None or call_id is None else _service.left(call_id)


async def call_host(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call the function `name` of the service.

    Raises:
        ConfigError: If this is not the work of a call, or the call brought no such function.
        DspexError: What the function raised; with the code `cancelled` if it was cancelled, as it is when
            the call itself is over.
    """
    service, call_id = _here(name)
    return await service.send(call_id, name, list(args), kwargs)


def call_host_sync(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """The same from work that runs in a thread. It blocks the thread; on the worker's loop it is refused."""
    service, call_id = _here(name)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        answer = _await(service.send(call_id, name, list(args), kwargs))
        return asyncio.run_coroutine_threadsafe(answer, service.loop).result()
    raise ConfigError(f"async work calls {name!r} back with `await call_host(...)`", code="no-host-call")


def _here(name: str) -> tuple[_Service, int]:
    call_id = _running()
    if _service is None or call_id is None:
        raise ConfigError(f"{name!r} can be called only in the work of a pool's call", code="no-host-call")
    return _service, call_id


def _running() -> int | None:
    """The call whose work this is, also in threads that DSPy starts for `Evaluate`, `Parallel` and others.

    Those take over DSPy's settings and no context.
    """
    call_id = RUNNING.get(None)
    dspy = sys.modules.get("dspy")
    if call_id is None and dspy is not None:
        call_id = getattr(dspy.settings, SETTING, None)
    return call_id


async def _await(answer: Awaitable[Any]) -> Any:
    return await answer
