"""Tables, batches and arrays of pyarrow, and frames of pandas and polars, as Arrow's IPC stream.

What arrives lies over the memory that it came in and is not copied; frames of pandas are, where its own types
need it. Only the library that a value is of has to be there when it arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dspex.wire._blob import Blob

if TYPE_CHECKING:
    from dspex.wire._classes import Classes

__all__ = ["carries", "from_plain", "to_plain"]

_ONLY: Final = "values"
"""The name of the one column that an array or a series is sent as."""

_NAMES: Final = {
    ("pyarrow", "Table"): "table",
    ("pyarrow", "RecordBatch"): "batch",
    ("pyarrow", "Schema"): "schema",
    ("pyarrow", "ChunkedArray"): "chunked",
    ("pandas", "DataFrame"): "pandas",
    ("pandas", "Series"): "pandas_series",
    ("polars", "DataFrame"): "polars",
    ("polars", "Series"): "polars_series",
}


def _name(kind: type) -> str | None:
    root = kind.__module__.partition(".")[0]
    name = _NAMES.get((root, kind.__name__))
    if name is None and root == "pyarrow" and any(base.__name__ == "Array" for base in kind.__mro__):
        return "array"
    return name


def carries(kind: type) -> bool:
    """Whether a class of one of these libraries crosses."""
    return _name(kind) is not None


def to_plain(value: Any, _: Classes) -> list[Any]:
    """What it is, and its stream.

    Raises:
        TypeError: If a column of it is of no type that Arrow has.
    """
    try:
        import pyarrow as pa
    except ImportError as err:
        raise TypeError("it goes by pyarrow, which is not here: `pip install 'dspex[arrow]'`") from err

    what = _name(type(value))
    more: list[Any] = []
    if what == "array":
        value = pa.RecordBatch.from_arrays([value], [_ONLY])
    elif what == "chunked":
        value = pa.table({_ONLY: value})
    elif what == "pandas":
        value = _from_pandas(pa, value)
    elif what == "pandas_series":
        more = [value.name]
        value = _from_pandas(pa, value.to_frame(_ONLY))
    elif what == "polars":
        value = _from_polars(value)
    elif what == "polars_series":
        more = [value.name]
        value = _from_polars(value.to_frame(_ONLY))  # a column, unlike an array, says that it is an Enum
    return [what, _stream(pa, value), *more]


def _from_polars(frame: Any) -> Any:
    import polars as pl

    for name, kind in frame.schema.items():
        if _has_objects(pl, kind):  # polars would write where they are in memory
            raise TypeError(f"the column {name!r} of a frame of polars holds objects")
    return frame.to_arrow(compat_level=pl.CompatLevel.newest())


def _has_objects(pl: Any, kind: Any) -> bool:
    if isinstance(kind, pl.Struct):
        return any(_has_objects(pl, field.dtype) for field in kind.fields)
    if isinstance(kind, pl.List | pl.Array):
        return _has_objects(pl, kind.inner)
    return bool(kind == pl.Object)


def _from_pandas(pa: Any, frame: Any) -> Any:
    try:
        return pa.Table.from_pandas(frame)
    except (pa.ArrowException, ValueError, TypeError) as err:
        raise TypeError(f"a frame of pandas that Arrow cannot hold: {err}") from err


def _stream(pa: Any, value: Any) -> Blob:
    schema = value if isinstance(value, pa.Schema) else value.schema

    def write(sink: Any) -> None:
        with pa.ipc.new_stream(sink, schema) as writer:
            if value is not schema:
                writer.write(value)

    sized = pa.MockOutputStream()
    write(sized)
    return Blob(size=sized.size(), fill=lambda target: write(pa.FixedSizeBufferWriter(pa.py_buffer(target))))


def from_plain(plain: Any, _: Classes) -> Any:
    """See `to_plain`."""
    import pyarrow as pa

    what, data, *more = plain
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            if what == "schema":
                return reader.schema
            if what in ("batch", "array"):
                batch = reader.read_next_batch()
                batch.validate(full=True)
                return batch if what == "batch" else batch.column(0)
            table = reader.read_all()
            table.validate(full=True)  # offsets that lead out of its buffers would end the process
    except (pa.ArrowException, StopIteration, OSError) as err:
        raise ValueError(f"what should be a {what} is no stream of Arrow: {err}") from err
    if what == "table":
        return table
    if what == "chunked":
        return table.column(0)
    if what in ("pandas", "pandas_series"):
        try:
            frame = table.to_pandas()
        except Exception as err:  # the stream says what pandas is to make of it, which may be anything
            raise ValueError(f"pandas makes no frame of what should be one: {err}") from err
        return frame if what == "pandas" else frame[_ONLY].rename(more[0])
    if what in ("polars", "polars_series"):
        import polars as pl

        try:
            made: Any = pl.from_arrow(table)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as err:
            raise ValueError(f"polars makes no frame of what should be one: {err}") from err
        return made if what == "polars" else made.to_series(0).rename(more[0])
    raise ValueError(f"Arrow carries no {what!r}")
