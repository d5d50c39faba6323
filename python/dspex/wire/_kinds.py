"""The types that survive a codec, each with its number, its name and its plain form.

MessagePack and JSON have words for None, booleans, numbers, texts, lists and maps. Every other type is a row
here: how a value becomes a plain form, which consists of such words and of other rows' types, and how the
value is made again. MessagePack writes a row's number (an extension type), JSON its name
(`{"$": "tuple", "v": ...}`), so one table serves both, and what survives the one survives the other.

Numbers and names are for ever: bytes that were stored are read by later versions.

Rows for enums, dataclasses and models name a class by its import path. Only what `Classes` allows is written
or read so. Rows for libraries (numpy, pyarrow, pandas, polars, DSPy) are looked at when a value of theirs
comes along, so none is imported before.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pathlib
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from dspex.prediction import Prediction
from dspex.wire import _arrays, _classes, _records, _tables
from dspex.wire._classes import Classes

__all__ = ["BY_NAME", "BY_NUMBER", "BY_TYPE", "Kind", "Row", "Rows"]


class Kind(NamedTuple):
    """What a row is called.

    Attributes:
        number: In MessagePack, as an extension type from 1 to 127.
        name: In JSON.
    """

    number: int
    name: str


class Row(NamedTuple):
    """How values of one type, or of a family of types, cross.

    Attributes:
        kind: What it is called.
        to_plain: The plain form of a value. It raises TypeError for a value that does not survive.
        from_plain: The value of a plain form. It raises ValueError, TypeError or ArithmeticError for what is
            none, and imports nothing that the classes do not allow.
    """

    kind: Kind
    to_plain: Callable[[Any, Classes], Any]
    from_plain: Callable[[Any, Classes], Any]


def _simple(number: int, name: str, to: Callable[[Any], Any], of: Callable[[Any], Any]) -> Row:
    return Row(Kind(number, name), lambda value, _: to(value), lambda plain, _: of(plain))


# --- the standard library's value types ---


def _zone(value: Any) -> list[Any]:
    """What `isoformat` leaves out: the fold, and a zone's name."""
    zone = value.tzinfo
    key = getattr(zone, "key", None) if type(zone).__module__ == "zoneinfo" else None
    if key is None:  # the offset stands for a zone of a class that nobody here can make again
        return [value.isoformat(), value.fold]
    return [value.replace(tzinfo=None).isoformat(), value.fold, key]


def _with_zone(kind: Any, plain: Any) -> Any:
    text, fold, *zone = plain
    value = kind.fromisoformat(text).replace(fold=fold)
    if not zone:
        return value
    from zoneinfo import ZoneInfo  # few values have one, and its import reads the system's settings

    return value.replace(tzinfo=ZoneInfo(zone[0]))


def _items(plain: Any) -> list[Any]:
    """A list, as it came. An array of nulls has as many items as it likes, in no memory at all."""
    if type(plain) is not list:
        raise TypeError(f"its items are a list, not a {type(plain).__name__}")
    return plain


def _fraction(plain: Any) -> Any:
    from fractions import Fraction

    numerator, denominator = plain
    # Of a text or a Decimal, Fraction writes out the power of ten that the exponent asks for.
    if type(numerator) is not int or type(denominator) is not int:
        raise TypeError("a fraction is two integers")
    return Fraction(numerator, denominator)


_PATHS: Final[dict[str, type[pathlib.PurePath]]] = {
    "Path": pathlib.Path,  # of whichever system it arrives on
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}


def _path(plain: Any) -> pathlib.PurePath:
    name, text = plain
    kind = _PATHS.get(name)
    if kind is None or not isinstance(text, str):
        raise ValueError(f"no path is of the kind {name!r}")
    return kind(text)


def _path_to_plain(value: pathlib.PurePath) -> list[str]:
    return ["Path" if isinstance(value, pathlib.Path) else type(value).__name__, str(value)]


_PATH_TYPES: Final[tuple[type, ...]] = (*_PATHS.values(), pathlib.PosixPath, pathlib.WindowsPath)
_PATH: Final = _simple(14, "path", _path_to_plain, _path)


def _in_order(value: Iterable[Any]) -> list[Any]:
    return sorted(value, key=repr)


_STANDARD: Final[tuple[tuple[type, Row], ...]] = (
    # Only those beyond 64 bits. Not in decimal: that is quadratic, so Python refuses it beyond 4,300 digits.
    (int, _simple(1, "int", hex, lambda p: int(p, 16))),
    (tuple, _simple(2, "tuple", list, lambda p: tuple(_items(p)))),
    # In one order, so that equal sets are equal bytes in every process.
    (set, _simple(3, "set", _in_order, lambda p: set(_items(p)))),
    (frozenset, _simple(4, "frozenset", _in_order, lambda p: frozenset(_items(p)))),
    (dt.datetime, _simple(5, "datetime", _zone, lambda p: _with_zone(dt.datetime, p))),
    (dt.date, _simple(6, "date", dt.date.isoformat, dt.date.fromisoformat)),
    (dt.time, _simple(7, "time", _zone, lambda p: _with_zone(dt.time, p))),
    (
        dt.timedelta,
        _simple(8, "timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda p: dt.timedelta(*p)),
    ),
    (Decimal, _simple(9, "decimal", str, Decimal)),
    # UUID only asserts the type of its argument.
    (UUID, _simple(10, "uuid", lambda v: v.bytes, lambda p: UUID(bytes=bytes(memoryview(p))))),
    (complex, _simple(11, "complex", lambda v: [v.real, v.imag], lambda p: complex(*p))),
    *((kind, _PATH) for kind in _PATH_TYPES),
)


# --- what needs a library or a class ---

_FRACTION: Final = _simple(12, "fraction", lambda v: [v.numerator, v.denominator], _fraction)
_ENUM: Final = Row(Kind(20, "enum"), _classes.enum_to_plain, _classes.enum_from_plain)
_DATACLASS: Final = Row(Kind(21, "dataclass"), _classes.dataclass_to_plain, _classes.dataclass_from_plain)
_MODEL: Final = Row(Kind(22, "model"), _classes.model_to_plain, _classes.model_from_plain)
_NAMED_TUPLE: Final = Row(Kind(23, "named_tuple"), _classes.named_to_plain, _classes.named_from_plain)
_EXAMPLE: Final = Row(Kind(24, "example"), _records.example_to_plain, _records.example_from_plain)
_PREDICTION: Final = Row(Kind(25, "prediction"), _records.prediction_to_plain, _records.prediction_from_plain)
_ARRAY: Final = Row(Kind(30, "array"), _arrays.array_to_plain, _arrays.array_from_plain)
_SCALAR: Final = Row(Kind(31, "scalar"), _arrays.scalar_to_plain, _arrays.scalar_from_plain)
_ARROW: Final = Row(Kind(32, "arrow"), _tables.to_plain, _tables.from_plain)

BY_TYPE: Final = dict(_STANDARD)
"""The standard library's types, each with its row."""

_NAMED: Final = (
    _FRACTION,
    _ENUM,
    _DATACLASS,
    _MODEL,
    _NAMED_TUPLE,
    _EXAMPLE,
    _PREDICTION,
    _ARRAY,
    _SCALAR,
    _ARROW,
)
BY_NUMBER: Final = {row.kind.number: row for row in (*BY_TYPE.values(), *_NAMED)}
BY_NAME: Final = {row.kind.name: row for row in BY_NUMBER.values()}


class Rows(dict[type, Row | None]):
    """The row of each type; None for one that has none, or is a class that may not be named.

    It must not be asked for what a codec has a word for.

    Args:
        classes: The classes that may be named.
    """

    def __init__(self, classes: Classes) -> None:
        super().__init__(BY_TYPE)
        self._classes = classes

    def __missing__(self, kind: type) -> Row | None:
        row = self[kind] = _row_of(kind, self._classes)
        return row


def _row_of(kind: type, classes: Classes) -> Row | None:
    row = _of_library(kind)
    if row is not None or not classes.allow(kind):
        return row
    if issubclass(kind, enum.Enum):
        return _ENUM
    if hasattr(kind, "__pydantic_core_schema__"):
        return _MODEL
    if dataclasses.is_dataclass(kind):
        return _DATACLASS
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _NAMED_TUPLE
    return _EXAMPLE if _records.is_example(kind) else None


def _of_library(kind: type) -> Row | None:
    """The row for a type of numpy, pyarrow, pandas, polars or dspex; known by the name of its module."""
    root = kind.__module__.partition(".")[0]
    if root == "numpy":
        numpy = sys.modules["numpy"]
        if kind is numpy.ndarray:
            return _ARRAY
        return _SCALAR if issubclass(kind, numpy.generic) else None
    if root in ("pyarrow", "pandas", "polars"):
        return _ARROW if _tables.carries(kind) else None
    if root == "fractions":
        return _FRACTION if kind is sys.modules["fractions"].Fraction else None
    return _PREDICTION if kind is Prediction else None
