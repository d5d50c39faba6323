"""A bounded queue between the calls that make a stream's events and the one who reads them.

There is one in the service, in front of the reader of a module's stream, and one in a worker, in front of the
socket.

::

    calls on event loops --put--> | at most 16, and the rest of one piece | --take--> reader on a loop
                                                                           --take_blocking--> on a thread

Either side may be on any loop or thread, and several calls may put at once: a program may ask two models side
by side, through runtimes that live on loops of their own.

States, each step once::

    OPEN --end--> ENDED     the program has returned or raised: what was put is still taken, then its outcome
      |             |
      +----close----+--> CLOSED     the reader has left: nothing is kept, and who puts is cancelled
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

__all__ = ["END", "EventQueue"]

END: Final = object()
"""What is taken when nothing follows."""

ROOM: Final = 16
"""Events that wait for the reader. More would only be read ahead for nothing where the reader leaves."""


class EventQueue:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collection may close a stream in the middle of its own put
        self._events: deque[Any] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._readers: list[Callable[[], None]] = []  # each wakes one that waits, which looks again
        self._writers: list[Callable[[], None]] = []

    @property
    def ended(self) -> bool:
        """Whether the program has returned or raised."""
        return self._ended

    @property
    def closed(self) -> bool:
        """Whether the reader has left."""
        return self._closed

    # -- the calls' side ----------------------------------------------------------------------------

    def put_now(self, events: Sequence[Any]) -> bool:
        """Put events in, all of them, where there is room for one; False where there is none.

        What comes after the end, from a task that the program has left running, has no reader any more.

        Raises:
            CancelledError: If the reader has left.
        """
        with self._lock:
            if self._closed:
                raise asyncio.CancelledError("the reader of the stream has left")
            if not self._ended:
                if len(self._events) >= ROOM:
                    return False
                self._events.extend(events)
            waiting, self._readers = self._readers, []
        for wake in waiting:
            wake()
        return True

    def add(self, event: Any) -> None:
        """Put an event in whether there is room or not, for whoever cannot wait: it tells of progress."""
        with self._lock:
            if self._ended or self._closed:
                return
            self._events.append(event)
            waiting, self._readers = self._readers, []
        for wake in waiting:
            wake()

    async def put(self, events: Sequence[Any]) -> None:
        """Put events in when there is room.

        Raises:
            CancelledError: If the reader has left.
        """
        while not self.put_now(events):
            waiting = asyncio.get_running_loop().create_future()
            with self._lock:
                if len(self._events) < ROOM or self._closed or self._ended:
                    continue
                self._writers.append(_waker(waiting))
            await waiting

    async def taken(self) -> None:
        """Wait until the reader has taken all that was put.

        Raises:
            CancelledError: If the reader has left.
        """
        while True:
            waiting = asyncio.get_running_loop().create_future()
            with self._lock:
                if self._closed:
                    raise asyncio.CancelledError("the reader of the stream has left")
                if not self._events:
                    return
                self._writers.append(_waker(waiting))
            await waiting

    def end(self, outcome: Any = None, error: BaseException | None = None) -> None:
        """The program has returned what comes last, or has raised."""
        with self._lock:
            self._ended = True
            if self._closed:
                return
            if error is None:
                self._events.append(outcome)
            self._error = error
            waiting = [*self._readers, *self._writers]
            self._readers, self._writers = [], []
        for wake in waiting:
            wake()

    # -- the reader's side --------------------------------------------------------------------------

    async def take(self) -> Any:
        """The next event, or `END`. Who is cancelled while waiting loses none.

        Raises:
            BaseException: What the program raised, once, after the events before it.
        """
        while (event := self._next()) is None:
            waiting = asyncio.get_running_loop().create_future()
            if self._wait(_waker(waiting)):
                await waiting
        return event

    def take_blocking(self) -> Any:
        """`take` for a thread."""
        while (event := self._next()) is None:
            waiting = threading.Event()
            if self._wait(waiting.set):
                waiting.wait()
        return event

    def _next(self) -> Any:
        """The next event, or `END`; None where there is none yet."""
        waiting: Sequence[Callable[[], None]] = ()
        with self._lock:
            if self._events:
                event = self._events.popleft()
                if self._writers and len(self._events) <= ROOM // 2:  # many at a time, not one by one
                    waiting, self._writers = self._writers, []
            elif self._ended or self._closed:
                error, self._error = self._error, None
                if error is None:
                    return END
                try:
                    raise error
                finally:
                    del error  # or it would hold itself, by this frame in its traceback
            else:
                return None
        for wake in waiting:
            wake()
        return event

    def _wait(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called when there may be an event; False where there may be one already."""
        with self._lock:
            if self._events or self._ended or self._closed:
                return False
            self._readers.append(wake)
            return True

    def close(self) -> None:
        """The reader leaves. Safe to call twice, and from anywhere."""
        with self._lock:
            self._closed = True
            self._events.clear()
            self._error = None
            waiting = [*self._readers, *self._writers]
            self._readers, self._writers = [], []
        for wake in waiting:
            wake()


def _waker(waiting: asyncio.Future[None]) -> Callable[[], None]:
    loop = waiting.get_loop()

    def wake() -> None:
        if asyncio._get_running_loop() is loop:
            _settle(waiting)
        else:
            with suppress(RuntimeError):  # its loop has ended, and nobody waits there
                loop.call_soon_threadsafe(_settle, waiting)

    return wake


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
