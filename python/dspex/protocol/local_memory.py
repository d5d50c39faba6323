"""Both directions of shared memory on one connection, on the loop that the connection is on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from dspex._segments import SharedSegment
from dspex.errors import WireError
from dspex.protocol.memory_receiver import Receiver
from dspex.protocol.memory_sender import Placed, Sender
from dspex.protocol.parts import MAX_SIZE

__all__ = ["FLOOR", "LocalMemory"]

FLOOR: Final = 128 * 1024
"""Bytes from which something goes by shared memory: `benches/bench_wire.py` measures from where."""

_KEPT: Final = 256 * 2**20
"""Bytes of idle segments that a sender keeps, for each direction of each connection."""

_IDLE: Final = 30.0
"""Seconds after which segments that nobody has used since are given back."""


class LocalMemory:
    """What a connection sends and reads by shared memory.

    Args:
        loop: The connection's loop. All but the end of a view happens on it.
        sock: The memory socket. Whoever opened it closes it.
        tell: Sends the peer the numbers of the segments that nothing reads here any more.
        shares: Whether shared segments are passed. Whoever sends one must keep it until the peer has
            answered, as a service keeps a call's arguments; a worker forgets a result that it has sent.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        tell: Callable[[list[int]], None],
        *,
        shares: bool,
    ) -> None:
        self._shares = shares
        self._loop = loop
        self._tell = tell
        self._sender = Sender(sock, keep=_KEPT, limit=MAX_SIZE)
        self._receiver = Receiver(sock, on_release=self._let_go, limit=MAX_SIZE)
        self._released: deque[int] = deque()
        self._due = False  # whether the loop has been asked to tell of them
        self._trimming: asyncio.TimerHandle | None = None
        # What the peer ends is unmapped when it says so, not when its next frame with a segment comes.
        self._watched: socket.socket | None = sock
        loop.add_reader(sock, self._hear)

    def place(self, sizes: Sequence[int]) -> Placed | None:
        """See `Sender.place`."""
        return self._sender.place(sizes)

    def put(self, parts: Sequence[Any]) -> Placed | None:
        """See `Sender.put`."""
        return self._sender.put(parts)

    def share(self, segment: SharedSegment) -> int | None:
        """See `Sender.share`."""
        return self._sender.share(segment) if self._shares else None

    def views(self, number: int, ranges: Sequence[Sequence[int]]) -> list[memoryview]:
        """See `Receiver.views`."""
        return self._receiver.views(number, ranges)

    def released(self, numbers: Any) -> None:
        """The peer reads these segments no more, or no frame was written for them.

        Raises:
            WireError: If they are not in use (`bad-frame`).
        """
        self._sender.released(numbers if isinstance(numbers, list) else [numbers])
        if self._trimming is None:
            self._trimming = self._loop.call_later(_IDLE, self._trim)

    def close(self) -> None:
        """Send and tell nothing more. What is read of the peer's stays, for whoever reads it."""
        if self._trimming is not None:
            self._trimming.cancel()
        self._watch_no_more()
        self._sender.close()
        self._receiver.close()

    def _let_go(self, number: int) -> None:
        # In any thread, and in the middle of anything: it neither waits nor takes a lock.
        self._released.append(number)
        # A flag, and not the length: of two that come here at once, neither would see a length of one, and
        # nothing would be told again. Both may see the flag down, which costs a turn of the loop.
        if not self._due:
            self._due = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the connection with it
                self._loop.call_soon_threadsafe(self._tell_released)

    def _tell_released(self) -> None:
        self._due = False  # first: what comes from here on asks anew
        numbers = []
        while self._released:
            numbers.append(self._released.popleft())
        if numbers:
            self._tell(numbers)

    def _hear(self) -> None:
        try:
            more = self._receiver.receive()
        except WireError:
            more = False  # the frame that was to follow is refused, with the connection
        if not more:
            self._watch_no_more()

    def _watch_no_more(self) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None

    def _trim(self) -> None:
        self._trimming = None
        self._sender.trim()
        if self._sender.idle:
            self._trimming = self._loop.call_later(_IDLE, self._trim)
