"""`Room`: so many places, of which whoever needs several may take several at once."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Room"]


class Room:
    """Places on one event loop.

    `asyncio.Semaphore` gives one place at a time, and looks at all who wait for each that is given back.

    Args:
        places: How many there are.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, most: int = 1) -> int:
        """Take as many places as are free, no more than these; wait where there is none.

        Returns:
            How many they are, at least one.
        """
        while not self._free:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():  # it had been called, and another is to come in its place
                    self._call_one()
                elif waiter in self._waiting:
                    self._waiting.remove(waiter)
                raise
        taken = min(most, self._free)
        self._free -= taken
        self._call_one()
        return taken

    def give_back(self, count: int = 1) -> None:
        """Give places back that were taken."""
        self._free += count
        self._call_one()

    def _call_one(self) -> None:
        """Call who waits longest; that one calls the next where it leaves something."""
        while self._free and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # else it has been cancelled just now
                waiter.set_result(None)
                return
