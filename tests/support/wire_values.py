"""Values of every type that a codec carries.

`ROWS` has a strategy for each row of `dspex.wire._kinds`, and `values()` nests them all. `same`, of
`tests.support.wire_same`, compares them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import pathlib
import zoneinfo
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple
from uuid import UUID

import dspy
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dspex.prediction import Prediction, Repair
from dspex.wire._classes import Classes

__all__ = ["CLASSES", "ROWS", "one_of_each", "plain_values", "values"]

CLASSES: Final = Classes(("tests.support.wire_values",))
"""The classes of this module, and DSPy's."""


# --- classes of a user's ---


class Colour(enum.Enum):
    RED = "red"
    CRIMSON = "red"  # noqa: PIE796 - another name of the same
    NOTHING = None


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 9


class Word(enum.StrEnum):
    YES = "yes"


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0
    total: Any = dataclasses.field(init=False, default=None)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Frozen:
    name: Any

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise ValueError("a constructor that is not called again")


class Pair(NamedTuple):
    first: Any
    second: Any = None


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)

    name: str
    tags: Any = None
    _seen: Any = pydantic.PrivateAttr(default=None)

    @pydantic.field_validator("name")
    @classmethod
    def _longer_each_time(cls, value: str) -> str:
        return value + "!"


# --- plain values ---

TEXTS: Final = st.text(max_size=8) | st.text(
    st.characters(categories=["Cs", "Lu", "Cc"]) | st.sampled_from('$v\0"\\\u2028'), max_size=4
)
INTS: Final = st.integers(-(2**63), 2**64 - 1) | st.integers(-5, 5)

PLAIN: Final = st.one_of(
    st.none(),
    st.booleans(),
    INTS,
    st.floats(),
    TEXTS,
    st.binary(max_size=12),
    st.sampled_from(["$", "v", ""]),
)


# --- a strategy for each row ---

_FIXED_ZONES: Final = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone),
)
_ZONES: Final = st.one_of(
    _FIXED_ZONES,
    st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"]).map(zoneinfo.ZoneInfo),
)
_FOLDS: Final = st.integers(0, 1)
_DATETIMES: Final = st.builds(
    lambda when, zone, fold: when.replace(tzinfo=zone, fold=fold), st.datetimes(), _ZONES, _FOLDS
)
_TIMES: Final = st.builds(
    lambda when, zone, fold: when.replace(tzinfo=zone, fold=fold),
    st.times(),
    _FIXED_ZONES,
    _FOLDS,
)
_NAMES: Final = st.text(st.characters(categories=["Ll", "Lo", "Nd"]), min_size=1, max_size=4)
_HASHABLE: Final = st.one_of(
    st.none(), INTS, st.floats(), TEXTS, st.binary(max_size=6), st.uuids(), st.dates(), st.just(Colour.RED),
    st.integers(2**64, 2**70), st.tuples(INTS, TEXTS),
)  # fmt: skip
_ANY: Final = st.deferred(lambda: values())

_FIELD_TYPES: Final = npst.scalar_dtypes()
_RECORDS: Final = npst.array_dtypes(_FIELD_TYPES, max_size=3, allow_subarrays=True)
_PADDED: Final = st.sampled_from(
    [
        np.dtype([("a", "i1"), ("b", "<f8")], align=True),
        np.dtype([(("title", "a"), "i1"), ("b", "<U3", (2,))]),
        np.dtype({"names": ["a", "b"], "formats": ["i4", ">i2"], "offsets": [0, 0], "itemsize": 8}),
        np.dtype([("in", [("x", "M8[s]"), ("y", "V3")])]),
    ]
)
_DTYPES: Final = st.one_of(_FIELD_TYPES, _RECORDS, _PADDED)


@st.composite
def _arrays(draw: st.DrawFn) -> Any:
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    dtype = draw(_DTYPES)
    size = math.prod(shape)
    data = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    if dtype.kind == "b":
        data = bytes(byte & 1 for byte in data)
    elif dtype.kind not in "iufcMmSV" or dtype.names is not None:
        return np.zeros(shape, dtype)  # not any bytes are texts, or records that have such
    made = np.frombuffer(data, dtype).reshape(shape) if data else np.zeros(shape, dtype)
    return draw(
        st.sampled_from(
            [made, np.asfortranarray(made), made[..., ::2] if made.ndim else made, made.T, np.flip(made)]
        )
    )


_SCALARS: Final = st.one_of(
    _DTYPES.map(lambda dtype: np.zeros((), dtype)[()]),
    st.floats().map(np.float64),
    st.floats(width=32).map(np.float32),
    st.integers(-128, 127).map(np.int8),
    st.booleans().map(np.bool_),
    TEXTS.filter(lambda text: text.isprintable()).map(np.str_),
    st.sampled_from(["", "ends\0", "\0", "é"]).map(np.str_),
    st.binary(max_size=5).map(np.bytes_),
    st.datetimes().map(lambda when: np.datetime64(when, "us")),
)

_COLUMNS: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(),
    "text": st.text(max_size=4),
    "flag": st.booleans(),
    "moment": st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2090, 1, 1)),
}


@st.composite
def _columns(draw: st.DrawFn, *, nulls: bool) -> dict[str, list[Any]]:
    count = draw(st.integers(0, 4))
    kinds = draw(st.lists(st.sampled_from(list(_COLUMNS)), unique=True, max_size=4))
    made = {}
    for kind in kinds:
        items = _COLUMNS[kind] | st.none() if nulls else _COLUMNS[kind]
        made[kind] = draw(st.lists(items, min_size=count, max_size=count))
    return made


_ARROW_TYPES: Final[Mapping[str, Any]] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "text": pa.string(),
    "flag": pa.bool_(),
    "moment": pa.timestamp("us", tz="UTC"),
}
_ODD_ARROWS: Final = st.sampled_from(
    [
        pa.array(["a", None, "a"]).dictionary_encode(),
        pa.array([[1, 2], None, []], pa.list_(pa.int8())),
        pa.array([{"a": 1, "b": "x"}, None]),
        pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
        pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
        pa.array([b"abc", b"def"], pa.binary(3)),
        pa.array([None, None]),
        pa.array([], pa.large_string()),
        pa.array(range(10))[3:7],
    ]
)


def _arrow_table(columns: dict[str, list[Any]]) -> Any:
    types = {name: _ARROW_TYPES[name] for name in columns}
    return pa.table(
        {name: pa.array(items, types[name]) for name, items in columns.items()},
        schema=pa.schema(list(types.items()), metadata={"about": "a table"}),
    )


_TABLES: Final = _columns(nulls=True).map(_arrow_table)
_ARROW: Final = st.one_of(
    _TABLES,
    _TABLES.map(lambda table: table.schema),
    _TABLES.filter(lambda table: table.num_columns).map(
        lambda table: pa.RecordBatch.from_arrays(
            [column.combine_chunks() for column in table.columns], schema=table.schema
        )
    ),
    _ODD_ARROWS,
    st.lists(st.lists(st.integers(-9, 9), max_size=3), max_size=3).map(
        lambda chunks: pa.chunked_array(chunks, pa.int8())
    ),
)


def _pandas(columns: dict[str, list[Any]], index: list[Any] | None) -> pd.DataFrame:
    types: dict[str, Any] = {"text": "str", "flag": "bool", "moment": "datetime64[us]"}
    made = {name: pd.Series(items, dtype=types.get(name, name)) for name, items in columns.items()}
    frame = pd.DataFrame(made)
    if index is not None and len(frame) == len(index):
        frame.index = pd.Index(index, name="of rows")
    return frame


_PANDAS: Final = st.builds(
    _pandas, _columns(nulls=False), st.none() | st.lists(st.integers(-9, 9), max_size=4)
) | st.sampled_from(
    [
        pd.DataFrame({"c": pd.Categorical(["a", "b", "a"])}),
        pd.DataFrame({"n": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], dtype="boolean")}),
        pd.DataFrame({"t": pd.date_range("2026-01-01", periods=2, tz="Europe/Berlin", unit="us")}),
        pd.DataFrame({1: [1.5], 2: ["x"]}),
        pd.DataFrame({"v": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["p", None])),
    ]
)
_PANDAS_SERIES: Final = st.builds(
    lambda items, name: pd.Series(items, name=name, dtype="float64"),
    st.lists(st.floats(), max_size=4),
    st.none() | _NAMES | st.integers(-5, 5) | st.tuples(_NAMES, st.integers(0, 5)),
)
_POLARS_TYPES: Final[dict[str, Any]] = {
    "int64": pl.Int64,
    "float64": pl.Float64,
    "text": pl.String,
    "flag": pl.Boolean,
    "moment": pl.Datetime("us"),
}
_POLARS: Final = _columns(nulls=True).map(
    lambda columns: pl.DataFrame(columns, schema={name: _POLARS_TYPES[name] for name in columns})
) | st.sampled_from(
    [
        pl.DataFrame({"c": pl.Series(["a", "b"], dtype=pl.Categorical)}),
        pl.DataFrame({"l": [[1], [], None], "s": [{"a": 1}, None, {"a": 2}]}),
    ]
)
_POLARS_SERIES: Final = st.builds(
    pl.Series, _NAMES, st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), max_size=4)
) | st.just(pl.Series("e", ["a", None], dtype=pl.Enum(["a", "b"])))


@st.composite
def _people(draw: st.DrawFn) -> Person:
    more: dict[str, Any] = draw(st.fixed_dictionaries({}, optional={"tags": _ANY, "extra_one": _ANY}))
    person = Person(name=draw(TEXTS.filter(_is_whole)), **more)
    person._seen = draw(_ANY)
    return person


def _is_whole(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _history(pairs: list[tuple[str, str]]) -> Any:
    return dspy.History(messages=[{"question": q, "answer": a} for q, a in pairs])


_MODELS: Final = st.one_of(
    _people(),
    st.lists(st.tuples(_NAMES, _NAMES), max_size=2).map(_history),
    st.just(dspy.Image(url="https://example.com/a.png")),
    st.builds(
        lambda name, args: dspy.ToolCalls.from_dict_list([{"name": name, "args": args}]),
        _NAMES,
        st.dictionaries(_NAMES, PLAIN, max_size=2),
    ),
)


def _point(x: Any, y: Any, total: Any) -> Point:
    point = Point(x, y)
    point.total = total
    return point


@st.composite
def _examples(draw: st.DrawFn) -> Any:
    names = _NAMES.filter(lambda name: name not in ("self", "base"))  # which DSPy's own constructors take
    fields = draw(st.dictionaries(names, _ANY, max_size=3))
    if draw(st.booleans()):
        return dspy.Example(**fields).with_inputs(*list(fields)[:1])
    if draw(st.booleans()):
        return dspy.Prediction(**fields)
    rows = draw(st.integers(1, 2))
    return dspy.Prediction.from_completions({name: [value] * rows for name, value in fields.items()})


def _prediction(rows: list[dict[str, Any]], tokens: int, repairs: list[Repair], route: str) -> Prediction:
    made = Prediction.from_completions(
        rows, usage={"tokens": tokens}, timings={"total": 0.25}, repairs=repairs, route=route
    )
    made.route_reason = "the pool was slow" if route else ""
    return made


ROWS: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "int": st.integers(2**64) | st.integers(max_value=-(2**63) - 1) | st.builds(lambda: -(10**5000)),
    "tuple": st.lists(_ANY, max_size=3).map(tuple),
    "set": st.sets(_HASHABLE, max_size=3),
    "frozenset": st.frozensets(_HASHABLE, max_size=3),
    "datetime": _DATETIMES,
    "date": st.dates(),
    "time": _TIMES,
    "timedelta": st.timedeltas(),
    "decimal": st.decimals(allow_nan=True) | st.just(Decimal("sNaN12")) | st.just(Decimal("1.10")),
    "uuid": st.uuids(),
    "complex": st.complex_numbers(),
    "fraction": st.fractions(),
    "path": st.one_of(
        _NAMES.map(pathlib.Path), _NAMES.map(pathlib.PurePosixPath), _NAMES.map(pathlib.PureWindowsPath)
    ),
    "enum": st.sampled_from([*Colour, *Level, *Word, *Rights, Rights.READ | Rights.WRITE, Rights(0)]),
    "dataclass": st.builds(_point, _ANY, _ANY, _ANY) | st.builds(Frozen, TEXTS),
    "model": _MODELS,
    "named_tuple": st.builds(Pair, _ANY, _ANY),
    "example": _examples(),
    "prediction": st.builds(
        _prediction,
        st.lists(st.dictionaries(_NAMES, _ANY, max_size=2), min_size=1, max_size=2),
        st.integers(0, 99),
        st.lists(st.builds(Repair, _NAMES, _NAMES, _NAMES), max_size=1),
        st.sampled_from(["", "native", "pool:general"]),
    ),
    "array": _arrays(),
    "scalar": _SCALARS,
    "arrow": st.one_of(_ARROW, _PANDAS, _PANDAS_SERIES, _POLARS, _POLARS_SERIES),
}
"""A strategy for each row of `_kinds`, by its name."""

_LEAVES: Final = st.one_of(
    PLAIN,
    *(
        ROWS[name]
        for name in ROWS
        if name not in ("tuple", "dataclass", "model", "named_tuple", "example", "prediction")
    ),
)


def plain_values() -> st.SearchStrategy[Any]:
    """Values of JSON's own kinds, and what MessagePack has besides: bytes, and keys that are no texts."""
    return st.recursive(
        PLAIN,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4),
        max_leaves=12,
    )


def _nested() -> st.SearchStrategy[Any]:
    return st.recursive(
        _LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(_HASHABLE, inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.builds(_point, inner, inner, inner),
            st.builds(Pair, inner, inner),
        ),
        max_leaves=6,
    )


_NESTED: Final = _nested()


def values() -> st.SearchStrategy[Any]:
    """Values of any type that crosses, in lists, dicts, tuples and objects."""
    return _NESTED


def one_of_each() -> dict[str, Any]:
    """One value of each row by its name: always the same, for files of bytes that later versions read."""
    person = Person.model_validate({"name": "Ada", "tags": ["one"], "extra_one": (1, 2)})
    person._seen = 3
    return {
        "int": -(2**70),
        "tuple": (1, ("two", [3.5])),
        "set": {7},
        "frozenset": frozenset({"a"}),
        "datetime": dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        "date": dt.date(2026, 2, 28),
        "time": dt.time(23, 59, 59, 999999, tzinfo=dt.UTC),
        "timedelta": dt.timedelta(days=-1, microseconds=1),
        "decimal": Decimal("1.10"),
        "uuid": UUID(int=2**100),
        "complex": complex(-0.0, math.inf),
        "fraction": Fraction(-1, 3),
        "path": pathlib.PureWindowsPath("c:/a/b"),
        "enum": [Colour.CRIMSON, Level.HIGH, Rights.READ | Rights.WRITE],
        "dataclass": [_point(1, {"a": (2,)}, None), Frozen("kept")],
        "model": [person, _history([("a?", "b")])],
        "named_tuple": Pair(1, b"\x00\xff"),
        "example": dspy.Example(question="a?", answer="b").with_inputs("question"),
        "prediction": _prediction([{"answer": "é"}, {"answer": None}], 3, [Repair("a", "b", "c")], "native"),
        "array": [
            np.arange(6, dtype=">i4").reshape(2, 3),
            np.array([("a", 1.5)], [("n", "U2"), ("v", "f8")]),
        ],
        "scalar": [np.float32(1.5), np.str_("ends\0"), np.datetime64("2026-01-01", "s")],
        "arrow": [
            _arrow_table({"int64": [1, None], "text": ["a", "é"]}),
            pa.array(["a", None]).dictionary_encode(),
            pd.DataFrame({"n": [1.5, 2.5], "t": ["x", "y"]}),
            pd.Series([1, 2], name="s"),
            pl.DataFrame({"n": [1, None], "t": ["x", "y"]}),
            pl.Series("e", ["a", None], dtype=pl.Enum(["a", "b"])),
        ],
    }
