"""Frames: how a stream of bytes is cut into messages.

::

    byte  0      1     2      3      4..7            8..15            16..
          magic  kind  codec  flags  length (u32)    call id (u64)    body

Numbers are big-endian. The id names the call a frame belongs to; 0 is the connection itself. Either side
may open calls: the service uses odd ids, the worker even ones, so that neither has to ask. The codec and the
flags say how the body is read: it is MessagePack (1) or JSON (2), and with the flag 1 it has parts
(`dspex.protocol.parts`).

The reader trusts nothing: a wrong magic, an unknown kind or codec, or a length beyond the limit is refused
from the header alone, before a byte of the body is kept.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from dspex.errors import WireError
from dspex.wire._codec import NUMBERS

__all__ = [
    "CODEC",
    "HEADER_SIZE",
    "IN_PARTS",
    "JSON",
    "MAX_FRAME",
    "MSGPACK",
    "PARTS",
    "PROTOCOL",
    "Frame",
    "FrameReader",
    "Kind",
    "encode_frame",
    "encode_head",
]

PROTOCOL: Final = 1
"""The version of everything in this package; both sides compare it at the hand-shake."""

MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes a body may have unless a connection sets its own limit."""

MSGPACK: Final = 1
JSON: Final = 2
CODEC: Final = 0xFF
PARTS: Final = 0x100
"""What a frame's form is made of: the number of its codec, and flags, which stand eight bits higher."""

IN_PARTS: Final = MSGPACK | PARTS
"""The form of a body with parts; no other codec has any."""

_MAGIC: Final = 0xD5
_HEADER: Final = struct.Struct("!BBBBIQ")
HEADER_SIZE: Final = _HEADER.size
_unpack: Final = _HEADER.unpack_from
_pack: Final = _HEADER.pack

_ROOM: Final = 64 * 1024
"""Bytes of a reader's buffer: room for the frames of a few hundred calls in one read."""


class Kind(IntEnum):
    """What a frame is for."""

    HELLO = 1  # service -> worker, first frame: versions and settings
    READY = 2  # worker -> service: versions; calls may come
    CALL = 3  # run an operation
    RESULT = 4  # the call's answer; the id is free again
    ERROR = 5  # the call's error, as `DspexError.to_dict`, and the work's stages; the id is free again
    CANCEL = 6  # the caller has gone; stop the call and answer ERROR
    STOP = 7  # service -> worker: finish nothing more and exit
    FORK = 8  # service -> forkserver, with the descriptors of the worker to be
    FORKED = 9  # forkserver -> service: the new worker's process id
    EXITED = 10  # forkserver -> service: a worker's process id and exit status
    ITEM = 11  # one part of an answer that comes in parts; RESULT ends it
    CREDIT = 12  # so many more parts may be sent
    RELEASE = 13  # segments of shared memory that nothing here reads any more, by number
    GONE = 14  # service -> worker: shared segments that no frame names from here on, by number


_KINDS: Final = frozenset(int(kind) for kind in Kind)


Frame = tuple[int, int, memoryview, int]
"""One message: kind, id, its body, still coded, and its form.

The body is a part of the reader's buffer: it is good until the reader is next asked for room. A plain tuple,
because making a named one costs more than cutting the frame."""


def encode_head(kind: int, call_id: int, length: int, form: int = MSGPACK) -> bytes:
    """What a frame begins with.

    Args:
        kind: What it is for.
        call_id: Whose it is.
        length: Bytes of its body.
        form: How that is to be read.

    Raises:
        WireError: If the body is longer than the length field can say (`frame-too-large`).
    """
    try:
        return _pack(_MAGIC, kind, form & CODEC, form >> 8, length, call_id)
    except struct.error as err:
        raise _too_long(length) from err


def encode_frame(kind: int, call_id: int, body: bytes | bytearray, form: int = MSGPACK) -> bytes:
    """The bytes of one frame; see `encode_head`, which is written out here: every call has one."""
    try:
        return _pack(_MAGIC, kind, form & CODEC, form >> 8, len(body), call_id) + body
    except struct.error as err:
        raise _too_long(len(body)) from err


def _too_long(length: int) -> WireError:
    return WireError(f"a body of {length} bytes fits no frame", code="frame-too-large")


class FrameReader:
    """Cut what arrives into frames, however the stream was chopped up.

    What arrives is written into the reader's own buffer (`room`, then `take`), so that a frame costs neither
    an allocation nor a copy: asyncio would give each read 256 KiB of its own, which malloc maps and unmaps,
    and with both ends on one core that was half of a round trip (73 us, 37 without). The buffer grows with
    what has arrived, never with what a header promises.

    Args:
        limit: Bytes a body may have.

    Once it has refused something, frame boundaries are lost, so it rejects all further input.
    """

    __slots__ = ("_buffer", "_failed", "_limit", "_need", "_start", "_stop", "_view")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray(_ROOM)
        self._view = memoryview(self._buffer)
        self._start = self._stop = 0  # what no frame has taken yet
        self._need = HEADER_SIZE  # nothing can be cut before this many bytes are there
        self._failed = False

    def room(self) -> memoryview:
        """Where the next bytes of the stream are to be written. It invalidates bodies returned earlier."""
        start, stop = self._start, self._stop
        if start == stop:
            self._start = self._stop = 0
            if len(self._buffer) > _ROOM:
                self._move(_ROOM)
            return self._view
        if start > _ROOM // 2 or start + self._need > len(self._buffer):
            self._move(len(self._buffer))
        if self._stop == len(self._buffer):
            # Four times what is there, at most: a header alone must not make us take 64 MiB.
            self._move(min(self._need, 4 * self._stop))
        return self._view[self._stop :]

    def take(self, count: int) -> list[Frame]:
        """Take `count` bytes that were written into the room, and give the frames that are now whole.

        Raises:
            WireError: If what arrived is not a frame (`bad-frame`) or one beyond the limit
                (`frame-too-large`).
        """
        if self._failed:
            raise WireError("the stream was refused before", code="bad-frame")
        buffer, view, at = self._buffer, self._view, self._start
        self._stop = end = self._stop + count
        frames: list[Frame] = []
        if end - at < self._need:
            return frames
        need, body = HEADER_SIZE, at + HEADER_SIZE
        while end >= body:
            magic, kind, codec, flags, length, id_ = _unpack(buffer, at)
            form = codec | flags << 8 if flags else codec
            if (
                magic != _MAGIC
                or kind not in _KINDS
                or (form != MSGPACK and form != IN_PARTS and form not in NUMBERS)
                or length > self._limit
            ):
                self._refuse(magic, kind, form, length)
            after = body + length
            if end < after:
                need += length
                break
            frames.append((kind, id_, view[body:after], form))
            at, body = after, after + HEADER_SIZE
        self._need, self._start = need, at
        return frames

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes that are elsewhere already; for the rest see `take`."""
        self.room()
        if len(self._buffer) - self._stop < len(data):
            self._move(self._stop - self._start + len(data))
        self._view[self._stop : self._stop + len(data)] = data
        return self.take(len(data))

    def finish(self) -> None:
        """Say that the stream has ended.

        Raises:
            WireError: If it ended inside a frame (`truncated-frame`).
        """
        have = self._stop - self._start
        if have and not self._failed:
            raise WireError(
                f"the stream ended {self._need - have} bytes before the end of a frame",
                code="truncated-frame",
            )

    def _move(self, size: int) -> None:
        """Bring what no frame has taken to the beginning of a buffer of `size` bytes."""
        left = self._view[self._start : self._stop]
        if size != len(self._buffer):
            self._buffer = bytearray(size)
            self._view = memoryview(self._buffer)
        self._view[: len(left)] = left
        self._start, self._stop = 0, len(left)

    def _refuse(self, magic: int, kind: int, form: int, length: int) -> None:
        self._failed = True
        if magic != _MAGIC:
            raise WireError(f"a frame starts with {_MAGIC:#x}, not {magic:#x}", code="bad-frame")
        if kind not in _KINDS:
            raise WireError(f"no frame is of kind {kind}", code="bad-frame")
        if form not in NUMBERS and form != IN_PARTS:
            raise WireError(
                f"no frame has the codec {form & CODEC} with the flags {form >> 8:#x}", code="bad-frame"
            )
        raise WireError(
            f"a frame of {length} bytes; the limit is {self._limit}",
            code="frame-too-large",
            length=length,
            limit=self._limit,
        )
