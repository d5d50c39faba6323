"""What a reply says while it is still coming in.

Of each field: `FieldStart`; then its text in `TextDelta`s, or a value that is no text in `PartialValue`s, of
which each goes on where the one before stood; then `FieldEnd`. The last delta or value of a field has
`is_last_chunk`. When the reply is over, `Correction` names every field whose value is not what was told.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Correction", "Event", "FieldEnd", "FieldStart", "PartialValue", "TextDelta"]


class FieldStart(NamedTuple):
    """An output field begins."""

    field: str


class TextDelta(NamedTuple):
    """The text of a field goes on. All deltas of a field together are its value.

    Attributes:
        field: The field.
        text: What has come, maybe nothing.
        is_last_chunk: Whether the text ends with it, as in DSPy's `StreamResponse`.
    """

    field: str
    text: str
    is_last_chunk: bool = False


class PartialValue(NamedTuple):
    """All that is sure by now of a value that is no text.

    Attributes:
        field: The field.
        value: While it grows a list or a mapping of plain values, a model as a dict: numbers, constants and
            choices when they are whole, texts as far as they have come. At last the value, of its type.
        is_last_chunk: Whether it is the value itself.
    """

    field: str
    value: Any
    is_last_chunk: bool = False


class FieldEnd(NamedTuple):
    """A field has ended: what came before it was its last.

    Attributes:
        field: The field.
        complete: Whether the reply said that it ended there; False where the reply broke off.
    """

    field: str
    complete: bool = True


class Correction(NamedTuple):
    """The reply is over, and a field's value is not what was told of it, or nothing was.

    So it is where only the whole reply shows how it is to be read: broken JSON that was repaired, a marker
    that did not look like one, a field that was left out.
    """

    field: str
    value: Any


Event = FieldStart | TextDelta | PartialValue | FieldEnd | Correction
"""What a stream says of a reply."""
