"""Bytes that were written once, and that every later version reads as what they were.

::

    testdata/wire/            a file of each codec for each row of the table of types
    testdata/wire/columns/    bodies of MessagePack with columns in them
    testdata/wire/parts/      bodies whose large bytes stand apart, plain and packed
    testdata/wire/stored/     what `wire.dumps` gave

A file that is there is never changed: somebody has the like of it on a disk. A test here that fails says that
the code no longer reads it. If that is meant, the new form gets a number of its own (a row in
`dspex.wire._kinds` or `_columns`, a packing, or the version in `dspex.wire._stored`), the old one stays
readable, and the new one gets a file: add a value below, and `python -m tests.unit.test_wire_golden` writes
the files that are missing, and no other.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.wire_same import same
from tests.support.wire_values import CLASSES, one_of_each

from dspex import wire
from dspex.errors import WireError
from dspex.protocol import parts
from dspex.protocol.packing import PACKINGS
from dspex.wire._codec import Codec
from dspex.wire._columns import COLUMNS
from dspex.wire._json import Json
from dspex.wire._kinds import BY_NAME
from dspex.wire._msgpack import MessagePack
from dspex.wire._select import Worth, select

GOLDEN: Final = Path(__file__).parents[2] / "testdata" / "wire"
MSGPACK: Final = MessagePack(CLASSES)
CODECS: Final[list[Codec]] = [MSGPACK, Json(CLASSES)]

OF_NO_ROW: Final[dict[str, Any]] = {
    "plain": [
        None, True, False, 0, -(2**63), 2**64 - 1, 1.0, -0.0, 1e300, float("nan"), float("-inf"), "",
        "é\u2028\U0001f600", "half: \ud83d", "\ud83d\ude00", b"\x00\xff",
        {"": {"a": []}}, {1: 2, None: {"$": 3}},
    ]
}  # fmt: skip
"""What has no row, since MessagePack has words for it."""

TYPES: Final = {**OF_NO_ROW, **one_of_each()}

IN_COLUMNS: Final[dict[str, Any]] = {
    "floats": [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308],
    "rows": [{"id": at, "né": at / 7, "": [None, (at,)], "text": f"row {at}"} for at in range(5)],
    "bytes": b"\x00\xff" * 20,
    "nested": {
        "vectors": [[1.0, 2.0], [3.0]],
        "turns": ("a", [{"scores": [0.5, 0.25]}, {"scores": [0.125]}]),
        "unlike": [1.0, 2, {"a": 1.0}],
    },
}
EARLY: Final = Worth(floats=1, rows=1, bytes=1)
"""Columns however short a list is, so that the files are."""

IN_PARTS: Final[dict[str, Any]] = {
    "plain": {
        "array": np.arange(12.0).reshape(3, 4),
        "floats": IN_COLUMNS["floats"],
        "bytes": b"0123456789",
        "table": pa.table({"x": [1, None, 3], "y": ["a", "", "é"]}),
        "between": "no part",
    },
    **{name: {"zeros": bytes(600), "counted": [at / 2 for at in range(100)]} for name in PACKINGS},
}

KEPT: Final[dict[str, Any]] = {
    "state": {"turns": [("hello", 0.5), ("bye", -1.0)], "seen": {1, 2}, "none": None},
    "rows": [{"id": at, "score": at / 7, "text": f"row {at}"} for at in range(40)],
    "floats": [at / 3 for at in range(400)],
    "array": np.arange(6, dtype="<i2").reshape(2, 3),
}


def _in_columns(value: Any) -> bytes:
    return MSGPACK.encode(select(value, EARLY))


def _in_parts(name: str, value: Any) -> bytes:
    main, blobs = MSGPACK.encode_in_parts(select(value, EARLY), 8)
    return bytes(parts.write_parts(main, blobs, packing=PACKINGS.get(name)))


def _of_parts(body: bytes) -> Any:
    return MSGPACK.decode(*parts.read_parts(memoryview(body)))


class _Files(NamedTuple):
    """The files of one form of bytes.

    Attributes:
        pattern: What they are called.
        values: What is in each.
        write: Gives the bytes of a value; it is told the file's name too.
        read: Gives the value of the bytes.
    """

    pattern: str
    values: dict[str, Any]
    write: Callable[[str, Any], bytes]
    read: Callable[[bytes], Any]

    def path(self, name: str) -> Path:
        return GOLDEN / self.pattern.format(name)


def _of_types(codec: Codec) -> _Files:
    return _Files(f"{{}}.{codec.name}", TYPES, lambda _, value: codec.encode(value), codec.decode)


FILES: Final = [
    *map(_of_types, CODECS),
    _Files("columns/{}.msgpack", IN_COLUMNS, lambda _, value: _in_columns(value), MSGPACK.decode),
    _Files("parts/{}.body", IN_PARTS, _in_parts, _of_parts),
    _Files("stored/{}.dspx", KEPT, lambda _, value: wire.dumps(value), wire.loads),
]
EVERY: Final = {
    str(files.path(name).relative_to(GOLDEN)): (files, name) for files in FILES for name in files.values
}


@pytest.mark.parametrize("file", EVERY)
def test_stored_bytes_are_read_as_what_they_were(file: str) -> None:
    """If it fails, and is meant to: what to do is at the head of this file."""
    files, name = EVERY[file]

    assert same(files.read((GOLDEN / file).read_bytes()), files.values[name])


def test_every_value_has_its_file_and_nothing_else_has() -> None:
    there = {str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*") if path.is_file()}
    assert there == EVERY.keys()
    assert TYPES.keys() == {*BY_NAME, *OF_NO_ROW}


def test_every_column_and_every_packing_is_in_a_file() -> None:
    """A new one that has none fails here, and not at a user's who has kept its bytes."""
    used = {column.kind.name for column in COLUMNS.values()}
    assert used <= IN_COLUMNS.keys()
    assert IN_PARTS.keys() >= PACKINGS.keys()
    for name, packing in PACKINGS.items():
        body = (GOLDEN / f"parts/{name}.body").read_bytes()
        assert {packing.number} == {body[at + 1] for at in (8, 40)}, (
            "a file whose parts are not packed shows nothing"
        )


@pytest.mark.parametrize("name", IN_COLUMNS)
def test_a_column_is_written_as_it_was(name: str) -> None:
    """What is kept is read by an older dspex too, as long as its version is the same."""
    body = (GOLDEN / f"columns/{name}.msgpack").read_bytes()

    assert _in_columns(IN_COLUMNS[name]) == body


@settings(max_examples=400)
@given(st.data())
def test_damaged_bodies_decode_to_a_value_or_are_refused(data: st.DataObject) -> None:
    """Of every form: a stored body in which some bytes are others, are gone, or are there twice."""
    file = data.draw(st.sampled_from(sorted(EVERY)))
    files, _ = EVERY[file]
    body = (GOLDEN / file).read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        end = at + data.draw(st.integers(0, 6))
        piece = data.draw(st.one_of(st.binary(max_size=4), st.just(body[at : end + 9])))
        body = body[:at] + piece + body[end:]

    with contextlib.suppress(WireError):  # and nothing else, however hostile
        files.read(body)


def write_missing() -> None:
    """Write the files that are not there."""
    for files in FILES:
        for name, value in files.values.items():
            path = files.path(name)
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.write_bytes(files.write(name, value))


if __name__ == "__main__":
    write_missing()
