"""Types and values that once went one way natively and another in a worker, as a worker imports them."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Generic, TypeVar

import pydantic
from typing_extensions import TypedDict

T = TypeVar("T")


class Person(pydantic.BaseModel):
    """A model with a part that need not be given."""

    name: str
    age: int = 3
    tags: list[str] = pydantic.Field(default_factory=list)


class Page(pydantic.BaseModel, Generic[T]):
    """A generic model."""

    items: list[T]
    total: int = 0


class Numbers(pydantic.RootModel[list[int]]):
    """A model that is a list."""


class Percent(pydantic.BaseModel):
    """A model whose validator reads what a model writes, and nothing that it has made itself."""

    share: float

    @pydantic.field_validator("share", mode="before")
    @classmethod
    def read(cls, value: Any) -> float:
        """`"90%"` as 0.9."""
        return float(value.strip("%")) / 100


class Movie(TypedDict):
    """A mapping of known keys."""

    title: str
    year: int


class Mood(enum.StrEnum):
    """An enum that is a text too."""

    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Span:
    """A dataclass."""

    start: int
    end: int = 5


class Loud(dict[str, Any]):
    """A mapping that shows itself in its own way."""

    def __str__(self) -> str:
        return "LOUD"


class Text(str):
    """A text that is not just one."""


class Odd:
    """Nothing that pydantic knows."""

    def __repr__(self) -> str:
        return "Odd()"


class Real(float):
    """A number that is not just one, as `numpy.float64` is."""

    def __repr__(self) -> str:
        return f"Real({float(self)})"


class Scalar:
    """A number that is none of Python's, as `numpy.int64` is."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __str__(self) -> str:
        return str(self.n)

    def __repr__(self) -> str:
        return f"Scalar({self.n})"
