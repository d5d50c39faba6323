"""Frames: how a stream of bytes is cut into messages.

::

    byte  0      1     2      3      4..7            8..15            16..
          magic  kind  codec  flags  length (u32)    call id (u64)    body

Numbers are big-endian. The id says which call a frame belongs to; 0 is the connection itself. Either side
may open calls: the service uses odd ids, the worker even ones, so that neither has to ask.

The reader trusts nothing: a wrong magic, an unknown kind or a length beyond the limit is refused from the
header alone, before a byte of the body is kept.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from dspex.errors import WireError

__all__ = ["HEADER_SIZE", "MAX_FRAME", "PROTOCOL", "Frame", "FrameReader", "Kind", "encode_frame"]

PROTOCOL: Final = 1
"""The version of everything in this package; both sides compare it at the hand-shake."""

MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes a body may have unless a connection sets its own limit."""

_MAGIC: Final = 0xD5
_HEADER: Final = struct.Struct("!BBBBIQ")
HEADER_SIZE: Final = _HEADER.size


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1  # service -> worker, first frame: versions and settings
    READY = 2  # worker -> service: versions; calls may come
    CALL = 3  # run an operation
    RESULT = 4  # the call's answer; the id is free again
    ERROR = 5  # the call's error, as `DspexError.to_dict`; the id is free again
    CANCEL = 6  # the caller has gone; stop the call and answer ERROR
    STOP = 7  # service -> worker: finish nothing more and exit
    FORK = 8  # service -> zygote, with the descriptors of the worker to be
    FORKED = 9  # zygote -> service: the new worker's process id
    EXITED = 10  # zygote -> service: a worker's process id and exit status
    ITEM = 11  # one part of an answer that comes in parts; RESULT ends it
    CREDIT = 12  # so many more parts may be sent


_KINDS: Final = frozenset(int(kind) for kind in Kind)


class Frame(NamedTuple):
    """One message, its body still coded."""

    kind: int
    id: int
    codec: int
    flags: int
    body: bytes


def encode_frame(kind: int, call_id: int, body: bytes, *, codec: int, flags: int = 0) -> bytes:
    """The bytes of one frame.

    Raises:
        WireError: If the body is longer than the length field can say (`frame-too-large`).
    """
    try:
        return _HEADER.pack(_MAGIC, kind, codec, flags, len(body), call_id) + body
    except struct.error as err:
        raise WireError(f"a body of {len(body)} bytes fits no frame", code="frame-too-large") from err


class FrameReader:
    """Cut what arrives into frames, however the stream was chopped up.

    Args:
        limit: Bytes a body may have.

    Once it has refused something the stream has lost its beat: every later `feed` is refused too.
    """

    __slots__ = ("_chunks", "_failed", "_have", "_limit", "_need")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []  # what no frame has taken yet
        self._have = 0
        self._need = HEADER_SIZE  # nothing can be cut before this many bytes are there
        self._failed = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take more of the stream and give the frames that are now whole.

        Raises:
            WireError: If what arrived is not a frame (`bad-frame`) or one beyond the limit
                (`frame-too-large`).
        """
        if self._failed:
            raise WireError("the stream was refused before", code="bad-frame")
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
        frames: list[Frame] = []
        at, end, need = 0, len(data), HEADER_SIZE
        while end - at >= HEADER_SIZE:
            magic, kind, codec, flags, length, id_ = _HEADER.unpack_from(data, at)
            if magic != _MAGIC or kind not in _KINDS or length > self._limit:
                self._refuse(magic, kind, length)
            need = HEADER_SIZE + length
            if end - at < need:
                break
            frames.append(Frame(kind, id_, codec, flags, data[at + HEADER_SIZE : at + need]))
            at += need
            need = HEADER_SIZE
        self._need = need
        self._have = end - at
        if self._have:
            self._chunks.append(data[at:])
        return frames

    def finish(self) -> None:
        """Say that the stream has ended.

        Raises:
            WireError: If it ended inside a frame (`truncated-frame`).
        """
        if self._have and not self._failed:
            raise WireError(
                f"the stream ended {self._need - self._have} bytes before the end of a frame",
                code="truncated-frame",
            )

    def _refuse(self, magic: int, kind: int, length: int) -> None:
        self._failed = True
        if magic != _MAGIC:
            raise WireError(f"a frame starts with {_MAGIC:#x}, not {magic:#x}", code="bad-frame")
        if kind not in _KINDS:
            raise WireError(f"no frame is of kind {kind}", code="bad-frame")
        raise WireError(
            f"a frame of {length} bytes; the limit is {self._limit}",
            code="frame-too-large",
            length=length,
            limit=self._limit,
        )
