"""The end of a connection that places parts of frames in shared memory: see `dspex.protocol.memory`.

Why segments are used again, and not made anew for each frame: see the figures in `benches/bench_memory.py`.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dspex._core import Region
from dspex._segments import SharedSegment, bytes_of, create, laid_out
from dspex.errors import WireError
from dspex.protocol.memory import GONE, MESSAGE, NEW

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Placed", "Sender"]

_SMALLEST: Final = 1024 * 1024
"""Bytes of the smallest segment. What is not written to takes no memory."""

_TOO_LARGE: Final = 4
"""An idle segment that is this many times as large as it need be is left for something larger."""


class Placed(NamedTuple):
    """Where the parts of a frame are to be written.

    Attributes:
        number: The segment's number, for the frame.
        offsets: Where each part begins in it, for the frame.
        parts: Where to write each part, before the frame is written. Afterwards the pages belong to the
            receiver: whoever keeps one of these must not write to it again.
    """

    number: int
    offsets: list[int]
    parts: list[memoryview]


class _Segment(NamedTuple):
    region: Region
    size: int


class Sender:
    """Places parts of frames in segments of shared memory that the peer can read.

    It belongs to one thread, except for `forget`. In a process that was forked from its own it places
    nothing, because the two would write to the same pages.

    Args:
        sock: The memory socket. Whoever opened it closes it.
        keep: Bytes of segments that are kept for further frames while they are idle.
        limit: Bytes of all segments at any time, in use or idle; the receiver's must not be lower.
        on_forget: Called with the number of a shared segment that has ended, in any thread; as it is called
            in the middle of anything, it must neither wait nor raise nor take a lock. It has the peer told
            behind all frames that name the segment, and then calls `told`. Without it the peer is told by
            the memory socket, which may overtake a frame: see `share`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        keep: int,
        limit: int,
        on_forget: Callable[[int], None] | None = None,
    ) -> None:
        self._sock: socket.socket | None = sock
        self._keep = keep
        self._limit = limit
        self._on_forget = on_forget
        self._process = os.getpid()
        self._in_use: dict[int, _Segment] = {}
        self._idle: dict[int, _Segment] = {}  # the one that has been idle longest is the first
        self._unused: set[int] = set()  # of those that are idle, not used since the last trim
        self._idle_size = 0
        self._shared: dict[int, int] = {}  # shared segments the peer has: their keys, their numbers here
        self._known: dict[
            int, int
        ] = {}  # bytes of all that the peer was told of, until it is told of their end
        self._last = 0
        self._gone: deque[int] = deque()  # what the peer is yet to be told

    @property
    def size(self) -> int:
        """Bytes of all segments that the peer can read, those it shares included."""
        return sum(list(self._known.values()))  # a list: `forget` may take one away meanwhile

    @property
    def idle(self) -> bool:
        """Whether it keeps segments that nobody uses."""
        return bool(self._idle)

    def place(self, sizes: Sequence[int]) -> Placed | None:
        """Reserve memory for the parts of one frame.

        It stays reserved until `released` is given its number. If the frame is not written after all, that is
        to be called at once.

        Args:
            sizes: Bytes of each part.

        Returns:
            Where to write them, or None if they must go over the socket.
        """
        if not self._usable():
            return None
        offsets, needed = laid_out(sizes)
        number = self._take_idle(needed) or self._make(needed)
        return None if number is None else self._placed(number, offsets, sizes)

    def put(self, parts: Sequence[Buffer]) -> Placed | None:
        """Place parts that are somewhere already: like `place`, with the parts written.

        Where there is no segment to use again it takes half of the time: see `dspex._segments.create`.

        Args:
            parts: The parts.

        Raises:
            TypeError: If one of them is no buffer, or its bytes do not lie one after the other.
        """
        if not self._usable():
            return None
        contents = [bytes_of(part) for part in parts]
        sizes = [len(content) for content in contents]
        offsets, needed = laid_out(sizes)
        number = self._take_idle(needed)
        if number is None:
            number = self._make(needed, contents, offsets)
            return None if number is None else self._placed(number, offsets, sizes)
        placed = self._placed(number, offsets, sizes)
        for part, content in zip(placed.parts, contents, strict=True):
            part[:] = content
        return placed

    def share(self, segment: SharedSegment) -> int | None:
        """The number by which frames to this peer may name a shared segment, as long as that lives.

        Without `on_forget`, whoever writes such a frame keeps the segment until the frame is answered.
        Nothing is released.

        Returns:
            The number, or None if its parts must go over the socket.
        """
        if not self._usable():
            return None
        number = self._shared.get(segment.key)
        if number is None:
            if not self._make_room(segment.size):
                return None
            number = self._next()
            # First, so that it is found by `forget`, whatever comes in between.
            self._shared[segment.key] = number
            if not segment.pass_to(self, partial(self._pass, number, segment.size)):
                del self._shared[segment.key]
                return None
        return number

    def released(self, numbers: Iterable[Any]) -> None:
        """Take back segments that the peer reads no more, or that no frame was written for.

        Args:
            numbers: Their numbers, as the peer sent them.

        Raises:
            WireError: If one of them is not in use (`bad-frame`).
        """
        if self._sock is None:
            return
        for number in numbers:
            segment = self._in_use.pop(number, None) if type(number) is int else None
            if segment is None:
                raise WireError(f"segment {number!r} was released and is not in use", code="bad-frame")
            self._idle[number] = segment
            self._idle_size += segment.size
        while self._idle_size > self._keep:
            self._end(next(iter(self._idle)))
        self._tell_gone()

    def trim(self) -> None:
        """End the segments that were idle at the last call and have not been used since.

        Called every few seconds, it gives back what a burst has left. It needs no clock.
        """
        if not self._usable():
            return
        for number in self._unused.intersection(self._idle):
            self._end(number)
        self._unused = set(self._idle)
        self._tell_gone()

    def forget(self, key: int) -> None:
        """See `Peer.forget`."""
        number = self._shared.pop(key, None)
        if number is None:
            return
        if self._on_forget is None:
            self._gone.append(number)
            self._tell_gone()
        elif self._usable():
            self._on_forget(number)

    def told(self, numbers: Iterable[int]) -> None:
        """The peer was told that these shared segments have ended."""
        for number in numbers:
            self._known.pop(number, None)

    def close(self) -> None:
        """Let go of all segments. What the peer reads of them stays, for it alone."""
        self._sock = None
        for held in (self._in_use, self._idle, self._unused, self._shared, self._known, self._gone):
            held.clear()
        self._idle_size = 0

    def _usable(self) -> bool:
        return self._sock is not None and self._process == os.getpid()

    def _placed(self, number: int, offsets: list[int], sizes: Sequence[int]) -> Placed:
        whole = self._in_use[number].region.view()
        parts = [whole[at : at + size] for at, size in zip(offsets, sizes, strict=True)]
        return Placed(number, offsets, parts)

    def _take_idle(self, needed: int) -> int | None:
        """The smallest that is large enough; of equals the last used, which may be in the cache still."""
        largest = _TOO_LARGE * _rounded(needed)
        fits = [
            (number, segment) for number, segment in self._idle.items() if needed <= segment.size <= largest
        ]
        if not fits:
            return None
        number, segment = min(reversed(fits), key=lambda fit: fit[1].size)
        del self._idle[number]
        self._unused.discard(number)
        self._idle_size -= segment.size
        self._in_use[number] = segment
        return number

    def _make(
        self, needed: int, contents: Sequence[memoryview] = (), offsets: Sequence[int] = ()
    ) -> int | None:
        size = _rounded(needed)
        if not self._make_room(size):
            return None
        try:
            descriptor, region = create(size, contents, offsets)
        except OSError:
            return None
        number = self._next()
        try:
            if not self._pass(number, size, descriptor):
                return None
        finally:
            os.close(descriptor)
        self._in_use[number] = _Segment(region, size)
        return number

    def _make_room(self, size: int) -> bool:
        """Whether the limit allows for so many bytes more; idle segments that are in the way end."""
        if self.size - self._idle_size + size > self._limit:
            return False
        excess = self.size + size - self._limit
        while excess > 0:
            excess -= self._end(next(iter(self._idle)))
        self._tell_gone()
        return (
            self.size + size <= self._limit
        )  # not if the queue is full: what the peer does not know is not gone

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _end(self, number: int) -> int:
        """Let go of an idle segment; gives its size."""
        size = self._idle.pop(number).size
        self._idle_size -= size
        self._unused.discard(number)
        self._gone.append(number)
        return size

    def _tell_gone(self) -> None:
        # Any thread may come here, by way of `forget`: each takes a number of its own, or finds none.
        while self._gone:
            try:
                number = self._gone.popleft()
            except IndexError:
                return
            if not self._send(MESSAGE.pack(GONE, number)):
                self._gone.appendleft(number)
                return
            self._known.pop(number, None)

    def _pass(self, number: int, size: int, descriptor: int) -> bool:
        sent = self._send(MESSAGE.pack(NEW, number), descriptor)
        if sent:
            self._known[number] = size
        return sent

    def _send(self, message: bytes, *descriptors: int) -> bool:
        sock = self._sock
        if sock is None or self._process != os.getpid():
            return False
        try:
            # Errors: the queue is full, too many descriptors are in queues, or the peer is gone.
            socket.send_fds(sock, [message], descriptors, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True


def _rounded(size: int) -> int:
    """The size of a segment for so many bytes: four sizes to each doubling, so that segments fit again."""
    if size <= _SMALLEST:
        return _SMALLEST
    step = 1 << (size - 1).bit_length() - 3
    return -(-size // step) * step
