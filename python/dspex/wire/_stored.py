"""Values as bytes to keep: state of sessions, checkpoints of pipelines, files of a user's own.

::

    byte  0..3    4        5      6..7  8..11          12..
          "dspx"  version  codec  0     CRC-32 (u32)   body

Numbers are big-endian. The checksum is over the body and finds what a disk or a hand has broken; it is no
signature. A later version reads what an earlier one wrote: golden files hold it to that.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

from dspex.errors import WireError
from dspex.wire._classes import DEFAULT, Classes
from dspex.wire._msgpack import MessagePack
from dspex.wire._select import select

__all__ = ["dumps", "loads"]

_MAGIC: Final = b"dspx"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("!4sBBHI")


def dumps(value: Any, *, classes: Classes = DEFAULT) -> bytes:
    """The bytes of a value, to be kept.

    Args:
        value: What is to be kept.
        classes: Whose classes it may be of.

    Raises:
        WireError: If it, or something in it, cannot be said: its place and its type (`not-encodable`).
    """
    codec = MessagePack(classes)
    body = codec.encode(select(value))
    return _HEAD.pack(_MAGIC, _VERSION, codec.number, 0, zlib.crc32(body)) + body


def loads(data: bytes | bytearray | memoryview, *, classes: Classes = DEFAULT) -> Any:
    """The value of bytes that `dumps` made, in this version or an earlier one.

    Args:
        data: The bytes. Arrays and tables in the value are copies, which outlive them.
        classes: Whose classes it may be of.

    Raises:
        WireError: If the bytes are none of these (`bad-body`), were changed since (`changed-bytes`), or are
            of a newer version (`newer-bytes`).
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEAD.size or bytes(view[:4]) != _MAGIC:
        raise WireError("the bytes are none that dspex.wire.dumps made", code="bad-body")
    _, version, number, _, checksum = _HEAD.unpack_from(view)
    if version > _VERSION:
        raise WireError(
            f"the bytes are of version {version}, this dspex reads up to {_VERSION}",
            code="newer-bytes",
            hint="read them with the dspex that wrote them, or a newer one",
        )
    codec, body = MessagePack(classes), view[_HEAD.size :]
    if number != codec.number:
        raise WireError(f"no codec of stored bytes has the number {number}", code="bad-body")
    if zlib.crc32(body) != checksum:
        raise WireError(
            f"the {len(view)} bytes are not what was written: their checksum differs",
            code="changed-bytes",
            hint="take them from a copy; they were cut off or changed",
        )
    return codec.decode(body)
