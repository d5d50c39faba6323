"""`Blob`: bytes within a plain form, which a codec may keep apart from the rest.

A codec writes a blob where it stands, or, where it is large and the frame has parts, a reference to a part of
the frame. So an array, a table and a long list of numbers reach the other side without a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Blob"]


class Blob:
    """So many bytes, which are written when it is known where to.

    Attributes:
        size: How many.
        write: Writes them into a buffer of that size.
    """

    __slots__ = ("_view", "size", "write")

    def __init__(
        self, size: int, write: Callable[[memoryview], object], view: memoryview | None = None
    ) -> None:
        self.size = size
        self.write = write
        self._view = view

    @classmethod
    def of(cls, data: Any) -> Blob:
        """What a contiguous buffer holds."""
        view = memoryview(data)
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B") if view.nbytes else memoryview(b"")
        return cls(view.nbytes, lambda target: _copy(view, target), view)

    def view(self) -> memoryview:
        """The bytes, written into memory of their own if they are nowhere yet."""
        if self._view is None:
            data = bytearray(self.size)
            self.write(memoryview(data))
            self._view = memoryview(data)
        return self._view


def _copy(view: memoryview, target: memoryview) -> None:
    target[:] = view
