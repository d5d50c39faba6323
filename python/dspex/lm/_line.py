"""`Line`: calls that wait for a deployment, in the order in which they came.

Only the first of them looks whether there is one, when it is told that something has changed or when the time
is over for which it knew that there was none; so nobody overtakes, and a change wakes one call and not all. A
call that leaves, with a deployment or without, wakes the one behind it. Calls may be of several event loops.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Line", "Place"]


class Place:
    """A call's place in the line."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def wake(self) -> bool:
        """Let the call look again; False if its event loop is no more."""
        try:
            self.loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:
            return False
        return True

    async def changed(self, seconds: float) -> None:
        """Wait until `wake`, or for so many seconds."""
        timer = self.loop.call_later(seconds, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()
        self._changed.clear()


class Line:
    """The calls that wait."""

    def __init__(self) -> None:
        self._waiting: deque[Place] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place at the end of the line, for as long as the block lasts."""
        place = Place()
        with self._lock:
            self._waiting.append(place)
        try:
            yield place
        finally:
            with self._lock:
                if place in self._waiting:
                    self._waiting.remove(place)
            self.wake()

    def is_first(self, place: Place) -> bool:
        """Whether nobody is before it."""
        with self._lock:
            return bool(self._waiting) and self._waiting[0] is place

    def wake(self) -> None:
        """Something has changed: let the first one look."""
        with self._lock:
            while self._waiting and not self._waiting[0].wake():
                self._waiting.popleft()
