"""Arithmetic on what has a score, as DSPy's optimisers do it with predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Scored"]


class Scored(Mapping[str, Any]):
    """A mapping that stands for its item `score` where a number is wanted.

    It is compared with numbers and with its like, added to them and divided by them. Equality is not among
    that: two of them are equal when all their items are.
    """

    __slots__ = ()

    def __float__(self) -> float:
        if "score" not in self:
            raise ValueError(f"the {type(self).__name__.lower()} has no field 'score', which is its number")
        return float(self["score"])

    def __add__(self, other: Any) -> float:
        return NotImplemented if (number := _number(other)) is None else float(self) + number

    def __radd__(self, other: Any) -> float:
        return NotImplemented if (number := _number(other)) is None else number + float(self)

    def __truediv__(self, other: Any) -> float:
        return NotImplemented if (number := _number(other)) is None else float(self) / number

    def __rtruediv__(self, other: Any) -> float:
        return NotImplemented if (number := _number(other)) is None else number / float(self)

    def __lt__(self, other: Any) -> bool:
        return NotImplemented if (number := _number(other)) is None else float(self) < number

    def __le__(self, other: Any) -> bool:
        return NotImplemented if (number := _number(other)) is None else float(self) <= number

    def __gt__(self, other: Any) -> bool:
        return NotImplemented if (number := _number(other)) is None else float(self) > number

    def __ge__(self, other: Any) -> bool:
        return NotImplemented if (number := _number(other)) is None else float(self) >= number


def _number(value: Any) -> float | None:
    """What a value is as a number; None if it is none."""
    return float(value) if isinstance(value, Scored | int | float) else None
