"""Bodies with parts: large bytes that stand apart from the value that they belong to.

::

    main length (u32)    count (u16)    0 (u16)
    count rows of 32 bytes:
        place (u8)  packing (u8)  0 (u16)  segment (u32)  offset (u64)  stored (u64)  size (u64)
    main                 the value; it refers to part i by the number i
    parts                each at its offset from the beginning of the body

Numbers are big-endian. A part whose place is 0 is in the body, and one whose place is 1 in the segment of
shared memory of that number, at the offset there. `stored` is how many bytes it has there, `size` how many it
has once it is unpacked: packing 0 is none, 1 is an LZ4 block, 2 is Zstandard.

Nothing that a row says is believed before it has been compared with what is there and with the limits.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from dspex.errors import WireError
from dspex.protocol.frames import MAX_FRAME
from dspex.protocol.packing import Packing, packing_of_number
from dspex.wire._blob import Blob, SharedBlob
from dspex.wire._msgpack import MAX_PARTS

if TYPE_CHECKING:
    from dspex._segments import SharedSegment

__all__ = ["MAX_SIZE", "Memory", "Placed", "read_parts", "write_parts"]

MAX_SIZE: Final = 2 * 2**30
"""Bytes that all parts of a body may have, unpacked."""

_HEAD: Final = struct.Struct("!IHH")
_ROW: Final = struct.Struct("!BBHIQQQ")
_HERE, _SEGMENT = 0, 1


class Placed(Protocol):
    """Room in a segment of shared memory.

    Attributes:
        number: The segment's.
        offsets: Where each part begins in it.
        parts: Where each part is to be written.
    """

    @property
    def number(self) -> int: ...  # noqa: D102

    @property
    def offsets(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def parts(self) -> Sequence[memoryview]: ...  # noqa: D102


class Memory(Protocol):
    """What a connection needs of shared memory; `dspex.protocol.local_memory` has it."""

    def place(self, sizes: Sequence[int]) -> Placed | None:
        """Room for the parts of one frame; None if they have to go with the frame."""
        ...

    def put(self, parts: Sequence[Any]) -> Placed | None:
        """The same for parts that are somewhere already; they are written."""
        ...

    def share(self, segment: SharedSegment) -> int | None:
        """The number by which frames may name a shared segment; None if its parts go as others do."""
        ...

    def released(self, numbers: list[int]) -> None:
        """No frame was written for these segments, or nobody reads them any more."""
        ...

    def views(self, number: int, ranges: Sequence[Sequence[int]]) -> Sequence[Any]:
        """What the other side placed in a segment: buffers, good for as long as somebody holds them.

        Raises:
            WireError: If there are no such parts (`bad-frame`).
        """
        ...


def write_parts(
    main: bytes, blobs: Sequence[Blob], memory: Memory | None = None, packing: Packing | None = None
) -> bytearray:
    """The body of a value whose large bytes stand apart.

    Args:
        main: The value; it refers to each blob by its place in the sequence.
        blobs: Its large bytes, not more than `MAX_PARTS`.
        memory: Where they go if there is room; else they go into the body.
        packing: How those in the body are packed.

    Raises:
        WireError: If the body would be too large (`frame-too-large`).
    """
    start = _HEAD.size + len(blobs) * _ROW.size
    _check_length(start + len(main))  # before anything is placed, which nobody would release
    rows: list[bytes] = [b""] * len(blobs)
    left = dict(enumerate(blobs))
    if memory is not None:
        for number, blob in enumerate(blobs):
            segment = memory.share(blob.segment) if isinstance(blob, SharedBlob) else None
            if segment is not None and isinstance(blob, SharedBlob):
                rows[number] = _ROW.pack(_SEGMENT, 0, 0, segment, blob.offset, blob.size, blob.size)
                del left[number]
        placed = _placed(list(left.values()), memory) if left else None
        if placed is not None:
            for (number, blob), offset in zip(left.items(), placed.offsets, strict=True):
                rows[number] = _ROW.pack(_SEGMENT, 0, 0, placed.number, offset, blob.size, blob.size)
            left.clear()
    views: list[tuple[int, memoryview]] = []
    end = start + len(main)
    for number, blob in left.items():
        view, packed = memoryview(blob.buffer()), None if packing is None else packing.pack(blob.buffer())
        if packing is not None and packed is not None:
            view = memoryview(packed)
        at = _aligned(end)
        how = 0 if packing is None or packed is None else packing.number
        rows[number] = _ROW.pack(_HERE, how, 0, 0, at, len(view), blob.size)
        views.append((at, view))
        end = at + len(view)
    _check_length(end)
    body = bytearray(end)
    body[: start + len(main)] = b"".join([_HEAD.pack(len(main), len(blobs), 0), *rows, main])
    for at, view in views:
        body[at : at + len(view)] = view
    return body


def read_parts(body: memoryview, memory: Memory | None = None) -> tuple[memoryview, list[Any]]:
    """The value of a body, still coded, and its parts, each a buffer that outlives the body.

    Args:
        body: The body; it is good for the time of the call alone.
        memory: Where parts may lie.

    Raises:
        WireError: If the body is not as it says (`bad-frame`), or its parts are too large
            (`frame-too-large`).
    """
    if len(body) < _HEAD.size:
        raise _bad("it ends within its head")
    length, count, _ = _HEAD.unpack_from(body)
    start = _HEAD.size + count * _ROW.size
    if count > MAX_PARTS or start + length > len(body):
        raise _bad("it says to hold more than it does")
    main, total = body[start : start + length], 0
    parts: list[Any] = [None] * count
    elsewhere: dict[int, list[tuple[int, int, int]]] = {}  # by segment: a part's number, and its range
    for number in range(count):
        place, packing, zero, segment, offset, stored, size = _ROW.unpack_from(
            body, _HEAD.size + number * _ROW.size
        )
        total += size
        if total > MAX_SIZE:
            raise WireError(
                f"parts of {total} bytes; the limit is {MAX_SIZE}",
                code="frame-too-large",
                length=total,
                limit=MAX_SIZE,
            )
        packed = packing_of_number(packing)
        if zero or (packed is None if packing else stored != size):
            raise _bad(f"the row of part {number} is none")
        if place == _SEGMENT and not packing:
            elsewhere.setdefault(segment, []).append((number, offset, size))
        elif place == _HERE and start + length <= offset and offset + stored <= len(body):
            view = body[offset : offset + stored]
            parts[number] = bytes(view) if packed is None else packed.unpack(view, size)
        else:
            raise _bad(f"part {number} is where there is none")
    for segment, places in elsewhere.items():
        if memory is None:
            raise _bad("it has parts in shared memory, of which this connection has none")
        for (number, _, _), view in zip(places, memory.views(segment, [p[1:] for p in places]), strict=True):
            parts[number] = view
    return main, parts


def _placed(blobs: Sequence[Blob], memory: Memory) -> Placed | None:
    """Blobs in shared memory, written; None if they have to go with the frame."""
    if all(blob.ready for blob in blobs):
        return memory.put([blob.buffer() for blob in blobs])
    placed = memory.place([blob.size for blob in blobs])
    if placed is None:
        return None
    try:
        for blob, target in zip(blobs, placed.parts, strict=True):
            blob.write(target)
    except BaseException:
        memory.released([placed.number])
        raise
    return placed


def _check_length(length: int) -> None:
    if length > MAX_FRAME:
        raise WireError(
            f"{length} bytes; the limit is {MAX_FRAME}",
            code="frame-too-large",
            hint="send less at once, in the parts of a stream, or a path to where it is",
        )


def _aligned(at: int) -> int:
    """The next multiple of 64, where an array may begin."""
    return (at + 63) & ~63


def _bad(what: str) -> WireError:
    return WireError(f"a body with parts is not one: {what}", code="bad-frame")
