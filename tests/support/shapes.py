"""Types of a service's own, as a worker imports them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import fractions
import pathlib

import pydantic


class Colour(enum.Enum):
    """An enum whose values are of several types."""

    RED = "red"
    TWO = 2


class Level(enum.IntEnum):
    """An enum that is a number too."""

    LOW = 1
    HIGH = 2


class Point(pydantic.BaseModel):
    """A model with an alias, a nested enum, and a date."""

    x: int
    colour: Colour = Colour.RED
    label: str | None = pydantic.Field(default=None, alias="Label")
    day: dt.date | None = None


class Shape(pydantic.BaseModel):
    """A model of models."""

    points: list[Point] = []
    by_name: dict[str, Point] = {}
    where: pathlib.Path | None = None


class Deep(Point):
    """More than its parent: what a field of the parent's type cannot tell."""

    z: int = 0


@dataclasses.dataclass
class Span:
    """A dataclass."""

    start: int
    end: int
    colour: Colour = Colour.RED


class Outer:
    """A place for a type inside another."""

    class Inner(pydantic.BaseModel):
        """A type inside another."""

        n: int


class Odd:
    """Nothing that pydantic makes again from data."""

    def __init__(self, share: fractions.Fraction) -> None:
        self.share = share
