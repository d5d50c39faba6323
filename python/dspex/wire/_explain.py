"""`explain`: what of a value is written how, and why.

It walks the value whole, which the selection does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dspex.wire._blob import Blob
from dspex.wire._classes import DEFAULT, Classes
from dspex.wire._columns import Packed
from dspex.wire._kinds import Row, Rows
from dspex.wire._msgpack import MessagePack
from dspex.wire._refusal import why_not
from dspex.wire._select import DEFAULT as WORTH
from dspex.wire._select import Worth, select

__all__ = ["Choice", "Explanation", "explain"]

_PLAIN = (type(None), bool, int, float, str, bytes)


class Choice(NamedTuple):
    """One part of a value that is written in a way of its own.

    Attributes:
        place: Where it is: `$.docs[3]`.
        how: `"msgpack"` for what is written item by item, `"column"`, `"array"`, `"arrow"`, or the name of a
            type that MessagePack has no word for.
        size: Bytes it takes; 0 for what cannot cross.
        why: The reason, in words.
    """

    place: str
    how: str
    size: int
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.how}, {self.size:,} bytes: {self.why}"


class Explanation(NamedTuple):
    """What `explain` found.

    Attributes:
        size: Bytes of the whole value; 0 if it cannot cross.
        choices: The value itself first, then each part that is written in a way of its own.
        refused: The parts that cannot cross, `$.conn: sqlite3.Connection` and why.
    """

    size: int
    choices: tuple[Choice, ...]
    refused: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.choices), *(f"cannot cross: {row}" for row in self.refused)])


def explain(value: Any, *, classes: Classes = DEFAULT, worth: Worth = WORTH) -> Explanation:
    """What of a value is written how.

    Args:
        value: Any value.
        classes: Whose classes it may be of.
        worth: From which size a list is a column.
    """
    codec = MessagePack(classes)
    choices: list[Choice] = []
    refused: list[str] = []
    for place, part, row in _walk(select(value, worth), "$", Rows(classes)):
        if isinstance(part, Packed):
            how, why = _of_column(part)
        elif row is not None:
            how, why = row.kind.name, f"MessagePack has no word for {_name(part)}"
        else:
            refused.append(f"{place}: {_name(part)}: {why_not(part)}")
            continue
        choices.append(Choice(place, how, _size(codec, part), why))
    size = 0 if refused else len(codec.encode(select(value, worth)))
    whole = Choice(
        "$", "msgpack", size, "written item by item, but for the parts below" if choices else "plain"
    )
    return Explanation(size, (whole, *choices), tuple(refused))


def _size(codec: MessagePack, part: Any) -> int:
    try:
        return len(codec.encode(part))
    except Exception:  # noqa: BLE001 - what it holds cannot cross, and has a row of its own
        return 0


def _of_column(part: Packed) -> tuple[str, str]:
    if isinstance(part.plain, Blob):
        return "column", f"a long list of {part.column.kind.name}: its bytes are copied as they are"
    return "column", f"like rows: the keys once, then {len(part.plain[0])} columns"


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _walk(value: Any, place: str, rows: Rows) -> Iterator[tuple[str, Any, Row | None]]:
    """The parts that MessagePack has no word for, and what they hold."""
    kind = type(value)
    if kind is list or kind is dict:
        items = enumerate(value) if kind is list else value.items()
        for name, item in items:
            if type(item) not in _PLAIN:
                yield from _walk(item, f"{place}[{name}]" if kind is list else f"{place}.{name}", rows)
        return
    if kind in _PLAIN:
        return
    if kind is Packed:
        yield place, value, None
        return
    row = rows[kind]
    if row is None and isinstance(value, str | bytes | int | float | Mapping | list | tuple):
        return  # it travels as what it is a kind of
    yield place, value, row
    if row is not None and kind in (tuple, set, frozenset):
        for number, item in enumerate(value):
            yield from _walk(item, f"{place}[{number}]", rows)
