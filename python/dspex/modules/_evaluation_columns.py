"""The rows of an evaluation as columns: for its table, for CSV and for Arrow.

::

    row | the example's fields | the prediction's fields | score, what else the metric said | error | seconds

A field whose name another column has gets the name of its group in front: `example_answer`, `pred_answer`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dspex.errors import ConfigError
from dspex.modules._examples import has_fields
from dspex.modules._state import replacing

if TYPE_CHECKING:
    import pyarrow as pa

    from dspex.modules._evaluation import EvaluatedRow

__all__ = ["arrow_table", "columns_of", "error_text", "text_of", "write_csv"]

_OWN: Final = ("row", "score", "error", "seconds")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""With what a text begins that a spreadsheet takes for a formula, or for the end of one."""


def columns_of(rows: Sequence[EvaluatedRow]) -> dict[str, list[Any]]:
    """The columns by their names, None where a row has no such field."""
    groups: list[tuple[str, list[Mapping[str, Any]]]] = [
        ("example", [_fields(row.example) for row in rows]),
        ("pred", [_fields(row.prediction) for row in rows]),
        ("score", [_feedback(row.score) for row in rows]),
    ]
    names = [dict.fromkeys(name for fields in each for name in fields) for _, each in groups]
    columns: dict[str, list[Any]] = {"row": [row.number for row in rows]}
    for place, (group, each) in enumerate(groups):
        if group == "score":
            columns["score"] = [float(row.score) for row in rows]
        others = {*_OWN}.union(*(found for other, found in enumerate(names) if other != place))
        for name in names[place]:
            called = f"{group}_{name}" if name in others else name
            while called in columns or called in _OWN:
                called += "_"
            columns[called] = [fields.get(name) for fields in each]
    columns["error"] = [error_text(row.error) for row in rows]
    columns["seconds"] = [row.seconds for row in rows]
    return columns


def _fields(value: Any) -> Mapping[str, Any]:
    """The fields of an example or a prediction; what has none is one field, `value`."""
    if value is None:
        return {}
    if not has_fields(value):
        return {"value": value}
    return {str(name): value[name] for name in value.keys()}  # noqa: SIM118 - an example is no mapping


def _feedback(score: Any) -> Mapping[str, Any]:
    """What a metric said beside the score."""
    if not has_fields(score):
        return {}
    return {name: value for name, value in _fields(score).items() if name != "score"}


def error_text(error: Exception | None) -> str | None:
    """An error in a cell."""
    return None if error is None else f"{type(error).__name__}: {error}"


def text_of(value: Any) -> str:
    """A value in a cell: a text as it is, a number as Python writes it, all else as JSON where it has one."""
    if value is None:
        return ""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | int | float):
        return str(value)
    try:
        made = value if isinstance(value, list | tuple | dict) else _plain(value)
        return made if isinstance(made, str) else json.dumps(made, ensure_ascii=False, default=_plain)
    except Exception:  # noqa: BLE001 - classes of the user's take part, and a report is no place to fail
        return _repr(value)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - as in `text_of`
        return f"<{type(value).__name__}>"


def _plain(value: Any) -> Any:
    """What JSON has for a value that it does not know."""
    if has_fields(value):
        return dict(_fields(value))
    dump: Callable[..., Any] | None = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return _repr(value)


def write_csv(rows: Sequence[EvaluatedRow], path: str | os.PathLike[str]) -> None:
    """Write a CSV file; see `Evaluation.to_csv`."""
    columns = columns_of(rows)
    try:
        with replacing(Path(path)) as file:
            # Half a surrogate pair, which a model may have sent, is no reason to lose the rest.
            text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
            writer = csv.writer(text)
            writer.writerow(map(_cell, columns))
            writer.writerows(map(_cell, row) for row in zip(*columns.values(), strict=True))
            text.flush()
            text.detach()
    except OSError as error:
        raise ConfigError(
            f"the evaluation cannot be written to {os.fspath(path)}: {error}",
            code="evaluation-file",
            hint="look at the path: its directory has to be there",
        ) from error


def _cell(value: Any) -> str:
    text = text_of(value)
    is_number = isinstance(value, bool | int | float)
    return f"'{text}" if text.startswith(_FORMULA) and not is_number else text


def arrow_table(rows: Sequence[EvaluatedRow]) -> pa.Table:
    """The rows as a table of pyarrow; see `Evaluation.to_arrow`."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ConfigError(
            "a table of Arrow needs pyarrow, which is not installed",
            code="arrow-missing",
            hint="pip install 'dspex[arrow]'",
        ) from error
    types = {"row": pa.int64(), "score": pa.float64(), "error": pa.string(), "seconds": pa.float64()}
    columns = columns_of(rows)
    arrays = [_array(pa, values, types.get(name)) for name, values in columns.items()]
    return pa.Table.from_arrays(arrays, names=[_encodable(name) for name in columns])


def _array(pa: Any, values: list[Any], type_: Any) -> Any:
    try:
        return pa.array([_arrow_value(value) for value in values], type_)
    except Exception:  # noqa: BLE001 - pyarrow and the values' own classes refuse in many ways
        texts = [None if value is None else _encodable(text_of(value)) for value in values]
        return pa.array(texts, pa.string())


def _arrow_value(value: Any) -> Any:
    if isinstance(value, str):
        return _encodable(value)
    if has_fields(value):
        return {_encodable(name): _arrow_value(item) for name, item in _fields(value).items()}
    if isinstance(value, list | tuple):
        return [_arrow_value(item) for item in value]
    dump: Callable[..., Any] | None = getattr(value, "model_dump", None)
    return value if dump is None else _arrow_value(dump())


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
