"""The end of a connection that reads parts of frames in shared memory: see `dspex.protocol.memory`."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dspex._core import Region
from dspex._segments import PassedSegment, check_passed
from dspex.errors import WireError
from dspex.protocol.memory import GONE, MESSAGE, NEW

__all__ = ["Receiver"]


class Receiver:
    """Reads parts of frames in segments that the peer has passed, without a copy.

    It belongs to one thread; the views belong to anybody.

    Args:
        sock: The memory socket. Whoever opened it closes it.
        on_release: Called with a segment's number when the last view of a frame's parts in it has gone, once
            for each `views`, so that the peer can be told. It is called by whoever lets go of the view: in
            any thread, in the middle of anything (a garbage collection may let go), so it must neither wait
            nor raise nor take a lock. It is not called after `close`, in a forked process, or for segments
            that are shared, which nobody waits for.
        limit: Bytes of all segments that the peer may have passed and not ended.
    """

    def __init__(self, sock: socket.socket, *, on_release: Callable[[int], None], limit: int) -> None:
        self._sock: socket.socket | None = sock
        self._on_release = on_release
        self._limit = limit
        self._process = os.getpid()
        self._segments: dict[int, PassedSegment] = {}
        self._size = 0
        # Segments that are read, each by the region that its views belong to.
        self._read: dict[int, weakref.ref[Region]] = {}
        self._spare = -1
        self._take_spare()

    @property
    def size(self) -> int:
        """Bytes of all segments that the peer has passed and not ended."""
        return self._size

    def views(self, number: Any, ranges: Sequence[Sequence[Any]]) -> list[memoryview]:
        """The parts of one frame in one segment: memory that is read where it is, and cannot be written to.

        A frame's parts in a segment are asked for together: the segment is released when the last of these
        views, and of what was made of them, has gone. Each frame that names a segment must be asked for, even
        if nobody wants the views.

        Args:
            number: The segment, as the frame names it.
            ranges: Offset and length of each part.

        Raises:
            WireError: If the peer has passed no such segment, has it read still, or a part is not in it
                (`bad-frame`); see `receive` too.
        """
        self.receive()
        segment = self._segments.get(number) if type(number) is int else None
        if segment is None:
            raise WireError(f"a frame names segment {number!r}, which was not passed", code="bad-frame")
        places = [_checked(place, number, segment.size) for place in ranges]
        if segment.fixed:
            region = segment.region
        else:
            if number in self._read:
                raise WireError(f"a frame names segment {number}, which is still read", code="bad-frame")
            # The views are told apart from those of the last frame in the same pages by having a region of
            # their own. A weak reference is called back after the last of them, wherever that goes.
            region = segment.region.again()
            self._read[number] = weakref.ref(region, partial(self._let_go, number))
        whole = region.view()
        return [whole[start:end] for start, end in places]

    def receive(self) -> bool:
        """Take what the memory socket has.

        `views` does so too; a loop that watches the socket hears at once which segments have ended.

        Returns:
            Whether there can be more: False when the peer has closed its end.

        Raises:
            WireError: If the peer has sent anything but segments, and those within the limit (`bad-frame`).
        """
        while (sock := self._sock) is not None:
            try:
                # A look first: it costs less than receiving a descriptor, and mostly there is nothing.
                head = sock.recv(MESSAGE.size + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not head:
                return False
            if len(head) != MESSAGE.size:
                raise WireError("what came over a memory socket is no message", code="bad-frame")
            kind, number = MESSAGE.unpack(head)
            if kind == NEW:
                self._take_new(sock, number)
            elif kind == GONE:
                sock.recv(MESSAGE.size)
                self._end(number)
            else:
                raise WireError(f"no message of a memory socket is of kind {kind}", code="bad-frame")
        return False

    def gone(self, number: Any) -> None:
        """The peer has said, behind the last frame that names a shared segment, that it has ended.

        Raises:
            WireError: If it has passed no such segment (`bad-frame`); see `receive` too.
        """
        self.receive()
        self._end(number)

    def close(self) -> None:
        """Let go of the segments. Views that are held stay valid as long as they are."""
        self._sock = None
        self._read.clear()  # with them, what they would have called
        self._segments.clear()
        self._size = 0
        self._drop_spare()

    def _take_new(self, sock: socket.socket, number: int) -> None:
        # One descriptor is always kept back for this: one that cannot be received is lost, and the frame with
        # it.
        self._drop_spare()
        try:
            flags_in = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            _, descriptors, flags, _ = socket.recv_fds(sock, MESSAGE.size, 1, flags_in)
            try:
                if len(descriptors) != 1 or flags & socket.MSG_CTRUNC:
                    raise WireError(f"segment {number} came without its one descriptor", code="bad-frame")
                if number in self._segments:
                    raise WireError(f"segment {number} was passed twice", code="bad-frame")
                try:
                    segment = check_passed(descriptors[0], self._limit - self._size)
                except OSError as err:
                    raise WireError(f"segment {number} cannot be mapped: {err}", code="bad-frame") from err
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        finally:
            self._take_spare()
        self._segments[number] = segment
        self._size += segment.size

    def _end(self, number: Any) -> None:
        segment = self._segments.pop(number, None) if type(number) is int else None
        if segment is None or number in self._read:
            raise WireError(f"segment {number!r} was ended, and is read or was not passed", code="bad-frame")
        self._size -= segment.size

    def _take_spare(self) -> None:
        with contextlib.suppress(OSError):  # there is none now; perhaps there is when it is needed
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _drop_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _let_go(self, number: int, _: weakref.ref[Region]) -> None:
        if self._process == os.getpid() and self._read.pop(number, None) is not None:
            self._on_release(number)


def _checked(place: Sequence[Any], number: int, size: int) -> tuple[int, int]:
    """Where a part begins and ends, if it lies within the segment."""
    match place:
        case [int(offset), int(length)] if offset >= 0 and length >= 0 and offset + length <= size:
            return offset, offset + length
        case _:
            raise WireError(
                f"no part of segment {number}, of {size} bytes, is at {place!r}", code="bad-frame"
            )
