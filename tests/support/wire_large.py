"""Values whose parts are large: around the size from which they go by shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import dspy
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st
from tests.support.wire_values import Frozen, Pair, Point, values

from dspex.protocol.local_memory import FLOOR

__all__ = ["large_values"]

_BYTES: Final = st.sampled_from([FLOOR - 8, FLOOR - 1, FLOOR, FLOOR + 1, FLOOR + 8, 2 * FLOOR + 1])


def _floats(size: int) -> Any:
    return np.arange(size // 8, dtype="f8") / 7


def _rows(size: int) -> list[dict[str, Any]]:
    return [{"id": n, "score": n / 3, "text": f"row {n}", "ok": n % 2 == 0} for n in range(size // 64)]


_MAKERS: Final[dict[str, Callable[[int], Any]]] = {
    "bytes": lambda size: (bytes(range(256)) * (size // 256 + 1))[:size],
    "array": _floats,
    "two dimensions": lambda size: _floats(size).reshape(-1, 1),
    "columns first": lambda size: np.asfortranarray(_floats(size - size % 16).reshape(-1, 2)),
    "every second": lambda size: _floats(2 * size)[::2],
    "small items": lambda size: np.arange(size) % 251 > 100,
    "big-endian": lambda size: _floats(size).astype(">f4"),
    "moments": lambda size: np.arange(size // 8).astype("M8[us]"),
    "records": lambda size: np.zeros(size // 12, [("n", "<i4"), ("v", "<f8")]),
    "list of floats": lambda size: _floats(size).tolist(),
    "list of ints": lambda size: list(range(size // 8)),
    "rows": _rows,
    "text": lambda size: "é" * (size // 2),
    "table": lambda size: pa.table({"n": np.arange(size // 16), "v": _floats(size // 2)}),
    "batch": lambda size: pa.record_batch({"v": pa.array(_floats(size))}),
    "array of arrow": lambda size: pa.array(_floats(size)),
    "pandas": lambda size: pd.DataFrame({"v": _floats(size), "n": np.arange(size // 8)}),
    "polars": lambda size: pl.DataFrame({"v": _floats(size)}),
}

_PARTS: Final = st.builds(lambda name, size: _MAKERS[name](size), st.sampled_from(list(_MAKERS)), _BYTES)
_SMALL: Final = values()


@st.composite
def large_values(draw: st.DrawFn) -> Any:
    """One to four large parts, in whatever holds them, with small values beside."""
    parts = draw(st.lists(_PARTS, min_size=1, max_size=4))
    first, small = parts[0], draw(_SMALL)
    shapes: list[Any] = [
        first,
        parts,
        [small, *parts],
        {"settings": {"k": 3, "small": small}, "parts": {str(n): part for n, part in enumerate(parts)}},
        tuple(parts),
        Pair(first, [parts]),
        Point(parts, {"deep": [{"deeper": (first, small)}]}),
        Frozen(parts),
        dspy.Example(question="a?", context=parts).with_inputs("question"),
        dspy.Prediction(answer=first, more=small),
        [first, first],
    ]
    return draw(st.sampled_from(shapes))
