"""Long lists, as columns: floats as eight bytes each, like rows as one column for each of their keys.

Integers stay what they are: small ones take less in MessagePack, and large ones gained nothing. A list comes
out as a list. These are no types of a user's, so they have no rows in `_kinds`: the selection (`_select`)
puts a `Packed` where a list was, and a codec that can carry bytes writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from dspex import _core
from dspex.wire._blob import Blob
from dspex.wire._kinds import Kind

__all__ = ["BYTES", "COLUMNS", "FLOATS", "ROWS", "Column", "Packed"]


class Column(NamedTuple):
    """One way to write a long list.

    Attributes:
        kind: What it is called.
        from_plain: The list of a plain form. It raises ValueError or TypeError for what is none.
    """

    kind: Kind
    from_plain: Callable[[Any], Any]


class Packed:
    """A list that is written as a column.

    Attributes:
        column: Which one.
        plain: Its plain form.
    """

    __slots__ = ("column", "plain")

    def __init__(self, column: Column, plain: Any) -> None:
        self.column = column
        self.plain = plain

    @classmethod
    def floats(cls, items: list[Any]) -> Packed | None:
        """Floats; None if one of them is something else."""
        data = _core.pack_floats(items)
        return None if data is None else cls(FLOATS, Blob(data))

    @classmethod
    def rows(cls, items: list[Any], look: Callable[[list[Any]], Any]) -> Packed | None:
        """Dicts with the same keys in the same order; None if one of them is something else.

        Args:
            items: The rows.
            look: What is to be written for the list of a column.
        """
        found = _core.columns_of(items)
        if found is None:
            return None
        keys, columns = found
        return cls(ROWS, [keys, [look(column) for column in columns]])

    @classmethod
    def bytes(cls, data: bytes) -> Packed:
        """Bytes that are to be a part of their own."""
        return cls(BYTES, Blob(data))


FLOATS: Final = Column(Kind(40, "floats"), _core.unpack_floats)
ROWS: Final = Column(Kind(41, "rows"), lambda plain: _core.rows_of(*plain))
# Not `bytes` alone, which makes as many of a number as it says.
BYTES: Final = Column(Kind(42, "bytes"), lambda plain: bytes(memoryview(plain)))

COLUMNS: Final = {column.kind.number: column for column in (FLOATS, ROWS, BYTES)}
