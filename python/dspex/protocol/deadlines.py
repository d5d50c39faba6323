"""Deadlines of many calls, for the price of one timer.

A timer per call costs more than the rest of a small call: nearly every one is cancelled, and the loop keeps
the cancelled ones in its heap. Here a deadline is an entry in a dict, and the one timer is set for the
earliest that was ever entered; when it fires, it looks for what is over and for the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextvars import Context
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

_Key = TypeVar("_Key", bound=Hashable)


class Deadlines(Generic[_Key]):
    """When the time of each key is over.

    Args:
        expired: Called with a key whose time is over, after it has been taken out. It must not raise.
    """

    __slots__ = ("_expired", "_loop", "_next", "_timer", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[_Key], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._when: dict[_Key, float] = {}
        self._next = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: _Key, when: float) -> None:
        """Give `key` until `when`, on the loop's clock."""
        self._when[key] = when
        if when < self._next:
            self._schedule(when)

    def left(self, key: _Key) -> float | None:
        """Seconds that `key` has left, None if it is not here."""
        when = self._when.get(key)
        return None if when is None else when - self._loop.time()

    def discard(self, key: _Key) -> None:
        """Forget `key`, if it is there."""
        self._when.pop(key, None)

    def _schedule(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = when
        # In a context of its own: that of the call which happens to be the first may hold anything.
        self._timer = self._loop.call_at(when, self._fire, context=Context())

    def _fire(self) -> None:
        # The loop may fire a timer early by the resolution of its clock, and the entry must go all the same:
        # the time the timer was set for counts.
        now = max(self._next, self._loop.time())
        over = [key for key, when in self._when.items() if when <= now]
        for key in over:
            del self._when[key]
        self._next, self._timer = float("inf"), None
        if self._when:
            self._schedule(min(self._when.values()))
        for key in over:
            self._expired(key)
