"""What a value of no row crosses as: a subclass of a plain type as that type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspex.wire._refusal import why_not

__all__ = ["as_base"]


def as_base(value: Any) -> Any:
    """A value as what it is a kind of: an IntEnum as a number, a defaultdict as a dict.

    Raises:
        TypeError: If it is of no kind that a codec has a word for.
    """
    # The type's own conversion: `str(x)` of a str enum is its name, not its text.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise TypeError(why_not(value))
