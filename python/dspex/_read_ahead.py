"""Reading from an async iterator before its parts are asked for, and not without end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

__all__ = ["ReadAhead"]

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Reads a source, never more than `window` parts ahead of whoever takes them.

    The reading begins with the first `take`.

    Args:
        source: The parts.
        window: Parts read that nobody has taken.
    """

    def __init__(self, source: AsyncIterator[T], window: int) -> None:
        self._source = source
        self._parts: deque[tuple[T, bool]] = deque()  # and whether the part takes room
        self._room = asyncio.Semaphore(window)
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._ended = False
        self._error: Exception | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to take, an error included."""
        return self._ended and not self._parts and self._error is None

    async def take(self, most: int = 1) -> list[T]:
        """Take the parts there are, at least one; none at the end.

        Args:
            most: No more parts than this.

        Raises:
            Exception: What the source raised, after the parts before it.
        """
        if self._reading is None and not self._ended:
            self._reading = asyncio.create_task(self._read())
        while not (self._parts or self._ended):
            self._changed.clear()
            await self._changed.wait()
        taken = [self._parts.popleft() for _ in range(min(most, len(self._parts)))]
        for _, takes_room in taken:
            if takes_room:
                self._room.release()
        if not taken and self._error is not None:
            raise self._error
        return [part for part, _ in taken]

    def give_back(self, parts: list[T]) -> None:
        """Put parts that were taken in front of the others again: they have not arrived."""
        self._parts.extendleft((part, False) for part in reversed(parts))

    async def close(self) -> None:
        """Read no more and close the source. Safe to call twice."""
        self._ended = True
        self._changed.set()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        else:
            await self._close_source()
        # Both hold this object, the one by its traceback, the other by what its context knows of.
        self._error = self._reading = None

    async def _read(self) -> None:
        try:
            while True:
                await self._room.acquire()
                self._parts.append((await anext(self._source), True))
                self._changed.set()
        except StopAsyncIteration:
            pass
        except Exception as err:  # noqa: BLE001 - whatever it is, whoever takes the parts hears of it
            self._error = err
        finally:
            self._ended = True
            self._changed.set()
            await self._close_source()  # by the task that read it, which its cancel scopes may insist on

    async def _close_source(self) -> None:
        aclose = getattr(self._source, "aclose", None)
        if aclose is not None:
            # What a source does when it is closed is its own affair: nobody reads it any more.
            with contextlib.suppress(Exception):
                await aclose()
