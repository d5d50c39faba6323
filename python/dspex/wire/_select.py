"""Which part of a value is written how: a bounded look, and columns put where it is worth it.

Arrays and tables need no look, for a codec asks about what it has no word for. Lists and bytes it writes by
itself, so long ones have to be found before: `has_large` looks at a few hundred values at most, and nearly
always finds nothing. Only if it finds something is the value walked here, and the containers on the way to a
long list are copied.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from dspex._core import has_large
from dspex.wire._columns import Packed

__all__ = ["DEFAULT", "NOTHING", "Worth", "select"]

_LEVELS: Final = 8
"""Levels that are looked into, as in `has_large`."""


_LEAVES: Final = frozenset({type(None), bool, int, float, str})
"""What has nothing in it."""


class Worth(NamedTuple):
    """From which size a column costs less than a list, or a part of its own less than bytes among others.

    The defaults are crossing points that `benches/bench_wire.py` measures; docs/benchmarks.md has them.

    Attributes:
        floats: Items of a list of floats.
        rows: Items of a list of dicts with the same keys.
        bytes: Bytes of one value.
    """

    floats: int = 384
    rows: int = 32
    bytes: int = 1 << 62


DEFAULT: Final = Worth()

NOTHING: Final = Worth(1 << 62, 1 << 62, 1 << 62)
"""For a codec that has no columns."""


def select(value: Any, worth: Worth = DEFAULT) -> Any:
    """The value, with a `Packed` for each list that is to be a column.

    Args:
        value: What is to be written. It is not changed.
        worth: From which size it is done.
    """
    if not has_large(value, *worth):
        return value
    return _replaced(value, worth, _LEVELS)


def _replaced(value: Any, worth: Worth, levels: int) -> Any:
    kind = type(value)
    if levels == 0:
        return value
    if kind is list:
        return _list(value, worth, levels)
    if kind is dict:
        made = {key: _replaced(item, worth, levels - 1) for key, item in value.items()}
        return made if any(made[key] is not item for key, item in value.items()) else value
    if kind is tuple:
        items = tuple([_replaced(item, worth, levels - 1) for item in value])
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if kind is bytes and len(value) >= worth.bytes:
        return Packed.bytes(value)
    return value


def _list(value: list[Any], worth: Worth, levels: int) -> Any:
    if not value:
        return value
    first, packed = type(value[0]), None
    if first is float and len(value) >= worth.floats:
        packed = Packed.floats(value)
    elif first is dict and len(value) >= worth.rows:
        packed = Packed.rows(value, lambda column: _list(column, worth, levels - 1))
    if packed is not None:
        return packed
    if _LEAVES.issuperset(map(type, value)):
        return value
    items = [_replaced(item, worth, levels - 1) for item in value]
    return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
