"""`share`: a value that many calls take, whose large parts are written to shared memory once.

A worker gets the value itself, over the same memory as all others: an index of a gigabyte costs each call
what its name costs. The memory is given back when nothing refers to the `Shared` any more, here, and to no
view of it, there.
"""

from __future__ import annotations

from typing import Any, Final

from dspex._segments import SharedSegment
from dspex.wire._blob import Blob, SharedBlob
from dspex.wire._classes import DEFAULT, Classes

__all__ = ["Shared", "share"]

_FLOOR: Final = 4096
"""Bytes from which something is shared: less takes no longer to send."""


class Shared:
    """A value in shared memory. Give it to a call in the place of the value; `get()` is the value.

    Attributes:
        size: Bytes that are shared.
    """

    __slots__ = ("_classes", "_main", "_segment", "size")

    def __init__(self, main: bytes, segment: SharedSegment, classes: Classes) -> None:
        self._main = main
        self._segment = segment
        self._classes = classes
        self.size = sum(segment.sizes)

    def __repr__(self) -> str:
        return f"<Shared value: {self.size:,} bytes>"

    def get(self) -> Any:
        """The value; its arrays and tables lie over the shared memory, and are read-only."""
        from dspex.wire._msgpack import MessagePack  # which knows this class

        return MessagePack(self._classes).decode(self._main, self._segment.views())

    def parts(self) -> tuple[bytes, list[Blob]]:
        """The bytes that say the value but for its parts, and these; for a codec."""
        views = self._segment.views()
        places = zip(views, self._segment.offsets, strict=True)
        return self._main, [SharedBlob(view, self._segment, offset) for view, offset in places]


def share(value: Any, *, classes: Classes = DEFAULT) -> Shared:
    """Write a value to shared memory once, for any number of calls of any pools of this machine.

    A call that takes it as an argument, or within one, is given the value. Lists of numbers in it become
    lists again in each call; arrays and tables cost nothing.

    Args:
        value: What is shared; it is copied, and may change afterwards.
        classes: Whose classes it may be of.

    Raises:
        WireError: If it, or something in it, cannot be said (`not-encodable`).
        OSError: If the system has no memory or no descriptor left, or passes no memory (only Linux does).
    """
    from dspex.wire._msgpack import MessagePack
    from dspex.wire._select import Worth, select

    main, blobs = MessagePack(classes).encode_in_parts(select(value, Worth(bytes=_FLOOR)), _FLOOR)
    return Shared(main, SharedSegment([blob.buffer() for blob in blobs]), classes)
