"""What a reply says while it is still coming in."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Event", "FieldEnd", "FieldStart", "PartialValue", "TextDelta"]


class FieldStart(NamedTuple):
    """An output field begins."""

    field: str


class TextDelta(NamedTuple):
    """The text of a field goes on. All deltas of a field together are its value."""

    field: str
    text: str


class PartialValue(NamedTuple):
    """All that has come so far of a list or a mapping."""

    field: str
    value: Any


class FieldEnd(NamedTuple):
    """A field has ended: what came before it was its last."""

    field: str


Event = FieldStart | TextDelta | PartialValue | FieldEnd
