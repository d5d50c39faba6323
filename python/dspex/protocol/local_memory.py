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
from dspex.protocol.frames import Kind
from dspex.protocol.memory_receiver import Receiver
from dspex.protocol.memory_sender import Placed, Sender
from dspex.protocol.parts import MAX_SIZE

__all__ = ["FLOOR", "LocalMemory"]

FLOOR: Final = 128 * 1024
"""Bytes from which something goes by shared memory: `benches/bench_transfer.py` measures it."""

_KEPT: Final = 256 * 2**20
"""Bytes of idle segments that a sender keeps, for each direction of each connection."""

_IDLE: Final = 2.0
"""Seconds after which segments that nobody has used since are given back."""


class LocalMemory:
    """What a connection sends and reads by shared memory.

    Args:
        loop: The connection's loop. All but the end of a view happens on it.
        sock: The memory socket. Whoever opened it closes it.
        tell: Sends the peer a frame about segments with these numbers: RELEASE for those that nothing reads
            here any more, GONE for shared ones that no further frame names.
        shares: Whether shared segments are passed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        tell: Callable[[Kind, list[int]], None],
        *,
        shares: bool,
    ) -> None:
        self._shares = shares
        self._loop = loop
        self._tell = tell
        self._sock = sock
        self._sender = Sender(sock, keep=_KEPT, limit=MAX_SIZE, on_forget=self._forget)
        self._receiver = Receiver(sock, on_release=self._let_go, limit=MAX_SIZE)
        self._released: deque[int] = deque()
        self._ended: deque[int] = deque()
        self._telling = False  # whether the loop will tell the peer of these
        self._trimming: asyncio.TimerHandle | None = None
        loop.add_reader(sock, self._receive)  # or the end of a segment would be heard with the next frame

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

    def gone(self, numbers: Any) -> None:
        """The peer has ended these shared segments, behind all frames that name them.

        Raises:
            WireError: If it has passed none of that number (`bad-frame`).
        """
        for number in numbers if isinstance(numbers, list) else [numbers]:
            self._receiver.gone(number)

    def close(self) -> None:
        """Send and tell nothing more. What is read of the peer's stays, for whoever reads it."""
        if self._trimming is not None:
            self._trimming.cancel()
        self._stop_reading()
        self._sender.close()
        self._receiver.close()

    def _receive(self) -> None:
        try:
            more = self._receiver.receive()
        except WireError:
            more = False  # the frame that names what was not received is refused, and the connection ends
        if not more:
            self._stop_reading()

    def _stop_reading(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.remove_reader(self._sock)

    # These two come in any thread, and in the middle of anything, each other included: they neither wait nor
    # take a lock.

    def _let_go(self, number: int) -> None:
        self._released.append(number)
        self._wake()

    def _forget(self, number: int) -> None:
        self._ended.append(number)
        self._wake()

    def _wake(self) -> None:
        if not self._telling:  # two threads may both find this, and wake the loop twice
            self._telling = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the connection with it
                self._loop.call_soon_threadsafe(self._tell_all)

    def _tell_all(self) -> None:
        self._telling = False  # first: what comes from now on wakes the loop again
        if released := _taken(self._released):
            self._tell(Kind.RELEASE, released)
        if ended := _taken(self._ended):
            self._tell(Kind.GONE, ended)
            self._sender.told(ended)

    def _trim(self) -> None:
        self._trimming = None
        self._sender.trim()
        if self._sender.idle:
            self._trimming = self._loop.call_later(_IDLE, self._trim)


def _taken(numbers: deque[int]) -> list[int]:
    taken = []
    while numbers:
        taken.append(numbers.popleft())
    return taken
