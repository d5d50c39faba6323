"""Every value survives every codec, equal in value and type."""

from __future__ import annotations

import json
from typing import Any, Final

import msgpack
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.wire_same import same
from tests.support.wire_values import CLASSES, ROWS, one_of_each, plain_values, values

from dspex.errors import WireError
from dspex.wire._codec import Codec
from dspex.wire._json import Json
from dspex.wire._kinds import BY_NAME
from dspex.wire._msgpack import MessagePack

CODECS: Final[list[Codec]] = [MessagePack(CLASSES), Json(CLASSES)]

by_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


def survives(codec: Codec, value: Any) -> None:
    body = codec.encode(value)
    back = codec.decode(body)
    assert same(back, value), f"{back!r} is not {value!r}; it crossed as {body!r}"


@by_codec
@pytest.mark.parametrize("row", ROWS)
@settings(max_examples=60)
@given(data=st.data())
def test_every_value_of_a_row_survives_each_codec(codec: Codec, row: str, data: st.DataObject) -> None:
    survives(codec, data.draw(ROWS[row]))


@by_codec
@settings(max_examples=150)
@given(value=values())
def test_every_nest_of_values_survives_each_codec(codec: Codec, value: Any) -> None:
    survives(codec, value)


@by_codec
@settings(max_examples=150)
@given(value=plain_values())
def test_plain_values_survive_each_codec(codec: Codec, value: Any) -> None:
    survives(codec, value)


def test_there_is_a_strategy_for_each_row() -> None:
    assert ROWS.keys() == BY_NAME.keys() == one_of_each().keys()


@settings(max_examples=150)
@given(value=values())
def test_a_body_of_json_is_json_for_whoever_reads_it(value: Any) -> None:
    """As RFC 8259 has it: UTF-8, no NaN, and texts without halves of surrogate pairs."""
    text = Json(CLASSES).encode(value).decode()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.dumps(json.loads(text, parse_constant=refuse), ensure_ascii=False).encode()


# --- what is none ---


HUGE: Final = {"$": "array", "v": ["|V0", [10**12], "C", {"$": "bytes", "v": ""}]}
"""An array of items that take no room, in 60 bytes."""

BOMBS: Final[dict[str, tuple[str, Any]]] = {
    "a tuple of such an array": ("tuple", HUGE),
    "a set of such an array": ("set", HUGE),
    "a frozenset of such an array": ("frozenset", HUGE),
    "the fields of a model, of such an array": (
        "model",
        ["dspy:History", {"messages": []}, HUGE, None, None],
    ),
    "a fraction with an exponent": ("fraction", ["1e999999999"]),
    "a fraction of a decimal": ("fraction", [{"$": "decimal", "v": "1e999999999"}]),
    "an array of more than came": ("array", ["<f8", [10**12], "C", {"$": "bytes", "v": ""}]),
    "an array of texts without letters": ("array", ["<U0", [10**12], "C", {"$": "bytes", "v": ""}]),
    "a type of numpy that is a program's text": ("array", ["<i4,<f8", [0], "C", {"$": "bytes", "v": ""}]),
    "a type of numpy that is none": ("scalar", [",4", {"$": "bytes", "v": ""}]),
    "a type of numpy's objects": ("array", ["|O8", [1], "C", {"$": "bytes", "v": "AAAAAAAAAAA="}]),
    "a zone that is a directory": ("datetime", ["2026-01-01T00:00:00", 0, "America"]),
    "a zone outside": ("datetime", ["2026-01-01T00:00:00", 0, "../../etc/passwd"]),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_body_that_asks_for_much_is_refused(bomb: str) -> None:
    """Whatever it would take otherwise, it would not be here: a terabyte, or a number of a gigabyte."""
    name, plain = BOMBS[bomb]
    text = json.dumps({"$": name, "v": plain}).encode()
    with pytest.raises(WireError) as refused:
        CODECS[1].decode(text)
    assert refused.value.code == "bad-body"


@pytest.mark.parametrize(
    "extension",
    [
        msgpack.ExtType(43, msgpack.packb(10**12)),
        msgpack.ExtType(12, msgpack.packb(["1e999999999"])),
        msgpack.ExtType(2, msgpack.packb("text")),
    ],
    ids=["so many bytes", "a fraction with an exponent", "a tuple of a text"],
)
def test_a_small_body_of_messagepack_that_asks_for_much_is_refused(extension: Any) -> None:
    with pytest.raises(WireError) as refused:
        CODECS[0].decode(msgpack.packb(extension))
    assert refused.value.code == "bad-body"


@by_codec
@pytest.mark.parametrize("make", [pa.table, pl.DataFrame, pd.DataFrame], ids=["pyarrow", "polars", "pandas"])
def test_a_text_that_lies_outside_of_its_table_is_refused(codec: Codec, make: Any) -> None:
    """It would end the process: whoever reads a column believes the offsets in it."""
    row = BY_NAME["arrow"]
    what, blob = row.to_plain(make({"t": ["one", "two"]}), CLASSES)
    data = bytes(blob.buffer())
    for size in (4, 8):  # polars writes views, with lengths of their own
        ends = [number.to_bytes(size, "little") for number in (0, 3, 6)]
        data = data.replace(b"".join(ends), b"".join([*ends[:2], (2**30).to_bytes(size, "little")]))
    data = data.replace(b"\3\0\0\0two", b"\xff\xff\xff\x3ftwo")
    assert data != bytes(blob.buffer())
    plain = codec.encode([what, data])
    in_json = b'{"$":"arrow","v":' + plain + b"}"
    body = in_json if codec.name == "json" else msgpack.packb(msgpack.ExtType(row.kind.number, plain))

    with pytest.raises(WireError) as refused:
        codec.decode(body)

    assert refused.value.code == "bad-body"
