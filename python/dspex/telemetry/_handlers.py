"""Who hears of events, and how they are handed over.

::

    tell(event) --> plain handler                called at once, on the thread on which it happened
               +--> Buffer --> async handler     awaited one event after another, on a loop of its choice

A handler is told, never asked: what it returns is dropped. One that raises has a mistake that it would make
again, so it is detached: `dspex.telemetry` logs why, and an event says so to the others. What is no
`Exception`, such as Ctrl-C, goes through.

States of a handle::

    ATTACHED --detach, or the handler raised, or its loop ended--> DETACHED        once, and for good
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Final, Self, cast

from dspex import _listeners
from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError
from dspex.telemetry._buffer import Buffer
from dspex.telemetry._event import Event, make
from dspex.telemetry._names import check_prefix

__all__ = ["Handle", "Handler", "attach", "dropped", "tell", "wanted"]

Handler = Callable[[Event], Awaitable[object] | object]
"""What is called with each event: a function, or an async one."""

BUFFER: Final = 1_000
"""Events that wait for an async handler: some hundred calls, of less than a megabyte."""

_log = logging.getLogger("dspex.telemetry")
_lock = threading.Lock()
_attached: tuple[Handle, ...] = ()
_by_name: dict[str, tuple[Handle, ...]] = {}
"""Who hears of events of a name: filled as events come, made anew with each change of who is attached."""
_dropped_before = 0  # by handles that are no longer there


class Handle:
    """A handler that is attached; `attach` makes one.

    It is a context manager, which detaches at the end of its block.

    Attributes:
        prefix: What the handler hears of.
    """

    def __init__(self, prefix: str, handler: Handler, buffer: int) -> None:
        self.prefix = prefix
        self._handler = handler
        self._name = _name_of(handler)
        self._buffer: Buffer | None = None
        if _is_async(handler):
            asynchronous = cast("Callable[[Event], Awaitable[object]]", handler)
            self._buffer = Buffer(asynchronous, buffer, self._failed, self.detach)

    @property
    def attached(self) -> bool:
        """Whether the handler gets events."""
        return self in _attached

    @property
    def dropped(self) -> int:
        """Events that an async handler never got, since it was too slow."""
        return 0 if self._buffer is None else self._buffer.dropped

    def detach(self) -> None:
        """Give the handler no more events; those that wait for it are dropped. Twice is harmless."""
        global _attached, _dropped_before
        with _lock:
            if self not in _attached:
                return
            _attached = tuple(handle for handle in _attached if handle is not self)
            _changed()
            if self._buffer is not None:
                self._buffer.close()
                _dropped_before += self._buffer.dropped

    async def drain(self, timeout: float = 5.0) -> None:
        """Wait until an async handler has been given all events that there are by now.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: If it has not been by then.
        """
        if self._buffer is not None:
            await self._buffer.drain(check_seconds(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self.attached else "detached"
        return f"<Handle {self.prefix!r} to {self._name}, {state}>"

    def _give(self, event: Event) -> None:
        if self._buffer is not None:
            self._buffer.put(event)
            return
        try:
            self._handler(event)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is no failure of the call
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if not self.attached:
            return
        self.detach()
        kind = type(error).__name__
        _log.error("the handler %s raised %s and gets no more events: %.200s", self._name, kind, error)
        attributes: dict[str, Any] = {"handler": self._name, "prefix": self.prefix, "error": kind}
        tell(make("dspex.telemetry.detached", attributes))


def attach(prefix: str, handler: Handler, *, buffer: int = BUFFER) -> Handle:
    """Let a handler hear of events.

    A plain function is called with each event as it happens, mostly on the event loop of a runtime, which
    waits for it: it should be quick. An async function is awaited with one event after another, on the event
    loop that runs where `attach` is called, or on a thread of its own where none does; events wait for it in
    a buffer, and when that is full, further ones are dropped and counted.

    Args:
        prefix: What it is to hear of, word by word: `"dspex.call.end"`, `"dspex.call"`, `"dspex"`.
        handler: What is called. What it raises is logged, and detaches it.
        buffer: How many events wait for an async handler at most.

    Returns:
        The handle, by which it is detached.

    Raises:
        ConfigError: If no event has such a name, or the handler cannot be called (`bad-handler`).

    Example:
        ```python
        handle = dspex.telemetry.attach("dspex.call", lambda event: print(event.name, event.seconds))
        ...
        handle.detach()
        ```
    """
    global _attached
    check_prefix(prefix)
    if not callable(handler):
        raise ConfigError(
            f"a handler is called with each event, and {shown(handler)} cannot be called",
            code="bad-handler",
            hint="write a function of one argument, the event",
        )
    if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
        raise ConfigError(f"a buffer is a number of events above 0, not {shown(buffer)}", code="bad-handler")
    handle = Handle(prefix, handler, buffer)
    with _lock:
        _attached = (*_attached, handle)
        _changed()
    return handle


def tell(event: Event) -> None:
    """Hand an event to all that want it."""
    for handle in wanted(event.name):
        handle._give(event)


def wanted(name: str) -> tuple[Handle, ...]:
    """Who hears of events of this name: whoever makes one asks first."""
    found = _by_name.get(name)
    if found is None:
        with _lock:
            words = f"{name}."
            found = tuple(handle for handle in _attached if words.startswith(f"{handle.prefix}."))
            _by_name[name] = found
    return found


def dropped() -> int:
    """Events that async handlers of this process were too slow for."""
    with _lock:
        return _dropped_before + sum(handle.dropped for handle in _attached)


def _changed() -> None:
    _by_name.clear()
    _listeners.given = bool(_attached)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it, which is not here


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_async(handler: Any) -> bool:
    called = handler if not hasattr(handler, "__call__") else type(handler).__call__  # noqa: B004
    return iscoroutinefunction(handler) or iscoroutinefunction(called)


def _name_of(handler: Any) -> str:
    return getattr(handler, "__qualname__", None) or type(handler).__qualname__
