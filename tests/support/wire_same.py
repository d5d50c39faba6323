"""Whether two values are the same: equal, and of the same types, all the way down."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
from decimal import Decimal
from typing import Any

import dspy
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic

from dspex.prediction import Prediction

__all__ = ["same"]


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal and of the same types, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return _same_array(a, b)
    if isinstance(a, pd.DataFrame | pd.Series):
        return _same_pandas(a, b)
    if isinstance(a, pl.DataFrame):
        return bool(a.schema == b.schema and a.equals(b, null_equal=True))
    if isinstance(a, pl.Series):
        return bool(a.dtype == b.dtype and a.equals(b, check_names=True, null_equal=True))
    if isinstance(a, pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray | pa.Schema):
        return _same_arrow(a, b)
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, Decimal):
        return bool(a.as_tuple() == b.as_tuple())
    if isinstance(a, dt.datetime | dt.time):
        zones = (a.tzinfo, b.tzinfo)
        return bool(
            a.replace(tzinfo=None) == b.replace(tzinfo=None) and a.fold == b.fold and zones[0] == zones[1]
        )
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            same(ka, kb) and same(a[ka], b[kb]) for ka, kb in zip(a, b, strict=True)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    return _same_object(a, b)


def _same_object(a: Any, b: Any) -> bool:
    if isinstance(a, enum.Enum):
        return a is b
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, pydantic.BaseModel):
        parts = ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
        return all(same(getattr(a, part), getattr(b, part)) for part in parts)
    if isinstance(a, Prediction):
        return (
            all(same(dict(x), dict(y)) for x, y in zip(a.completions, b.completions, strict=True))
            and (a.usage, a.timings, list(a.repairs)) == (b.usage, b.timings, list(b.repairs))
            and (a.route, a.route_reason) == (b.route, b.route_reason)
        )
    if isinstance(a, dspy.Example):
        return same(_state(a), _state(b))
    return bool(a == b)


def _state(example: Any) -> dict[str, Any]:
    state = dict(vars(example))
    completions = state.get("_completions")
    if completions is not None:
        state["_completions"] = dict(vars(completions)["_completions"])
    return state


def _same_array(a: Any, b: Any) -> bool:
    if (a.dtype, a.shape) != (b.dtype, b.shape) or not _same_order(a, b):
        return False
    # By their bytes, which tell nan from nan; padding between fields, which has no meaning, was copied too.
    return bool(a.tobytes() == b.tobytes())


def _same_order(a: Any, b: Any) -> bool:
    """Whether both lie in memory in one order, where the other had one: what has none is given one."""
    if isinstance(a, np.generic):
        return True
    orders = [(array.flags.c_contiguous, array.flags.f_contiguous) for array in (a, b)]
    return orders[0] == orders[1] or (False, False) in orders


def _same_pandas(a: Any, b: Any) -> bool:
    check = pd.testing.assert_frame_equal if isinstance(a, pd.DataFrame) else pd.testing.assert_series_equal
    try:
        check(a, b, check_exact=True)
    except AssertionError:
        return False
    return same(getattr(a, "name", None), getattr(b, "name", None))


def _same_arrow(a: Any, b: Any) -> bool:
    if isinstance(a, pa.Schema):
        return bool(a.equals(b, check_metadata=True))
    if isinstance(a, pa.Table | pa.RecordBatch):
        if not a.schema.equals(b.schema, check_metadata=True) or a.num_rows != b.num_rows:
            return False
        return all(_same_arrow(x, y) for x, y in zip(a.columns, b.columns, strict=True))
    return a.type == b.type and same(_items_of(a), _items_of(b))


def _items_of(column: Any) -> list[Any]:
    items: list[Any] = column.to_pylist()  # nan is no equal of nan in Arrow
    return items
