"""`Flights`: of calls that ask the same at once, one asks, and the others wait for its answer.

::

    nobody --call--> LED by it --answer----------------> nobody; each that waits has the answer
      ^               |   ^  +--error of the server----> nobody; each that waits has a copy of the error
      |               |   |
      |               |   +-- the first that waits, which leads from now on
      |               v
      |              it is cancelled, or its own time is over
      +-- nobody waits

An error of the server's goes to all: each of them would have had it, and to let them ask one after the other
would multiply what an outage costs. Retries are the router's, which makes the next one an ordinary call. What
ends the call that leads and says nothing of the server (it was cancelled, its own time is over, its turn by
the LM's limits would come too late for it) does not end the others.

Calls may be of several event loops and threads. Each waits on its own, no longer than its own time; all that
changes does so under one lock, which is never held while anything is waited for.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

from dspex.errors import DeadlineExceeded, DspexError

__all__ = ["Flights"]

T = TypeVar("T")

_LEAD: Final = object()
_OF_THE_LEADER: Final = frozenset({"lm-limit"})
"""Codes of errors that are about the time of the call that leads."""


class _Waiter:
    """A call that waits.

    Attributes:
        told: What it has been told: an answer, an error, or that it leads; None as long as it waits.
    """

    __slots__ = ("_future", "_loop", "told")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self.told: Any = None

    def tell(self, what: Any) -> bool:
        """Tell it; False if its event loop is no more."""
        self.told = what
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False
        return True

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float) -> None:
        timer = self._loop.call_later(seconds, self._wake)
        try:
            await self._future
        finally:
            timer.cancel()


class _Landed(Generic[T]):
    __slots__ = ("answer",)

    def __init__(self, answer: T) -> None:
        self.answer = answer


class Flights(Generic[T]):
    """The calls that are under way, by their keys."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[_Waiter]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are led."""
        return len(self._waiting)

    def waiting(self, key: bytes) -> int:
        """How many calls wait for that of this key."""
        with self._lock:
            return len(self._waiting.get(key, ()))

    async def answer(
        self, key: bytes, ask: Callable[[], Awaitable[T]], seconds: float
    ) -> tuple[T | None, bool]:
        """The answer to a call, and whether another call has asked for it.

        Args:
            key: What is asked.
            ask: Asks. What it keeps of the answer for later it has kept when it returns.
            seconds: How long the call waits for another.

        Returns:
            The answer; None where the time is over and there is none.

        Raises:
            DspexError: What `ask` raised, or a copy of it.
        """
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is None:
                self._waiting[key] = deque()
                waiter = None
            else:
                waiter = _Waiter()
                waiting.append(waiter)
        if waiter is None:
            return await self._lead(key, ask), False
        try:
            await waiter.wait(seconds)
        except BaseException:
            self._leave(key, waiter)
            raise
        if waiter.told is None and not self._left_in_time(key, waiter):
            return None, False
        told = waiter.told
        if told is _LEAD:
            return await self._lead(key, ask), False
        if isinstance(told, _Landed):
            return told.answer, True
        try:
            raise told
        finally:
            waiter.told = None
            del told, waiter  # the error holds this frame

    async def _lead(self, key: bytes, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await ask()
        except BaseException as error:
            if (
                isinstance(error, DspexError)
                and not isinstance(error, DeadlineExceeded)
                and error.code not in _OF_THE_LEADER
            ):
                self._end(key, error)
            else:
                self._hand_over(key)
            raise
        self._end(key, _Landed(answer))
        return answer

    def _end(self, key: bytes, what: _Landed[T] | DspexError) -> None:
        with self._lock:
            for waiter in self._waiting.pop(key, ()):
                # An error takes notes and a traceback of each call that it ends.
                waiter.tell(copy.copy(what) if isinstance(what, DspexError) else what)

    def _hand_over(self, key: bytes) -> None:
        """Let the first that waits lead; one whose event loop has closed cannot."""
        with self._lock:
            waiting = self._waiting.get(key)
            while waiting:
                if waiting.popleft().tell(_LEAD):
                    return
            self._waiting.pop(key, None)

    def _leave(self, key: bytes, waiter: _Waiter) -> None:
        """A call waits no more; if it has been told to lead meanwhile, another does."""
        with self._lock:
            if waiter.told is None:
                self._waiting[key].remove(waiter)
                return
        if waiter.told is _LEAD:
            self._hand_over(key)

    def _left_in_time(self, key: bytes, waiter: _Waiter) -> bool:
        """Whether a call whose time is over has been told something in that moment; else it waits no more."""
        with self._lock:
            if waiter.told is not None:
                return True
            self._waiting[key].remove(waiter)
            return False
