"""`Blob`: bytes within a plain form, which a codec may keep apart from the rest.

A codec writes a blob where it stands, or, where it is large and the frame has parts, a reference to a part of
the frame. So an array, a table and a long list of numbers reach the other side without a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex._segments import SharedSegment

__all__ = ["Blob", "SharedBlob"]


class Blob:
    """So many bytes, which may be written only when it is known where to.

    Args:
        data: A contiguous buffer of bytes; None if there is none yet.
        size: How many bytes there will be, without `data`.
        fill: Writes them into a buffer of that size, without `data`.
    """

    __slots__ = ("_data", "_fill", "size")

    def __init__(
        self, data: Any = None, *, size: int = 0, fill: Callable[[memoryview], object] | None = None
    ) -> None:
        self._data = data
        self._fill = fill
        self.size = size if data is None else len(data)

    @property
    def ready(self) -> bool:
        """Whether the bytes are somewhere already."""
        return self._data is not None

    def buffer(self) -> Any:
        """A buffer that holds the bytes."""
        if self._data is None:
            data = bytearray(self.size)
            self.write(memoryview(data))
            self._data = data
        return self._data

    def write(self, target: memoryview) -> None:
        """Write the bytes into a buffer of their size."""
        if self._fill is None or self._data is not None:
            target[:] = self._data
        else:
            self._fill(target)


class SharedBlob(Blob):
    """Bytes that lie in shared memory already.

    Args:
        data: A view of them.
        segment: The segment that they are a part of.
        offset: Where in it they begin.
    """

    __slots__ = ("offset", "segment")

    def __init__(self, data: memoryview, segment: SharedSegment, offset: int) -> None:
        super().__init__(data)
        self.segment = segment
        self.offset = offset
