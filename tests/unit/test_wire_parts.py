"""Selection, columns, bodies with parts, and bytes to keep."""

from __future__ import annotations

import asyncio
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex import wire
from dspex._core import columns_of, has_large, rows_of, unpack_floats
from dspex.errors import WireError
from dspex.protocol import parts
from dspex.protocol.channel import Channel
from dspex.protocol.frames import MSGPACK, PARTS
from dspex.protocol.packing import PACKINGS, Packing
from dspex.wire._columns import Packed
from dspex.wire._msgpack import MAX_PARTS, MessagePack
from dspex.wire._select import Worth, select

EARLY = Worth(floats=1, rows=1, bytes=1)
FLOATS = [0.0, -0.0, math.inf, -math.inf, 1e-320, 2.5] * 200
ROWS = [{"id": number, "score": number / 7, "text": f"row {number}"} for number in range(100)]


def coded(value: Any, worth: Worth = EARLY) -> Any:
    codec = MessagePack()
    return codec.decode(codec.encode(select(value, worth)))


# --- columns ---


@settings(max_examples=300)
@given(st.lists(st.floats(allow_nan=False)))
def test_floats_come_out_of_a_column_as_they_went_in(items: list[float]) -> None:
    back = coded(items)
    assert [math.copysign(1, item) for item in back] == [math.copysign(1, item) for item in items]
    assert back == items
    assert all(type(item) is float for item in back)


def test_what_a_nan_is_made_of_survives_a_column() -> None:
    (odd,) = struct.unpack("<d", b"\x01\x00\x00\x00\x00\x00\xf8\x7f")
    assert struct.pack("<d", coded([odd])[0]) == b"\x01\x00\x00\x00\x00\x00\xf8\x7f"


VALUES = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.none())


@settings(max_examples=300)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), max_size=6))
def test_rows_come_out_with_the_order_of_their_keys(rows: list[dict[str, Any]]) -> None:
    back = coded(rows)
    assert [list(row.items()) for row in back] == [list(row.items()) for row in rows]
    assert [[type(item) for item in row.values()] for row in back] == [
        [type(item) for item in row.values()] for row in rows
    ]


@pytest.mark.parametrize(
    "items",
    [
        [1.0, 2],
        [1.0, True],
        [1.0, np.float64(2)],
        [{"a": 1}, {"b": 1}],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [{"a": 1}, {"a": 1, "b": 2}],
        [{1: 1}, {1: 1}],
        [{}, {}],
        [{"a": 1}, [("a", 1)]],
    ],
    ids=repr,
)
def test_a_list_of_unlike_items_stays_a_list(items: list[Any]) -> None:
    assert not isinstance(select(items, EARLY), Packed)
    back = coded(items)
    assert repr(back) == repr(items)


@pytest.mark.parametrize(
    ("keys", "columns"),
    [([], []), (["a"], [[1], [2]]), (["a", "b"], [[1], [2, 3]]), (["a", "a"], [[1], [2]])],
)
def test_columns_that_do_not_fit_are_refused(keys: list[str], columns: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"column|key"):
        rows_of(keys, columns)


def test_bytes_that_are_no_column_are_refused() -> None:
    with pytest.raises(ValueError, match="7 bytes"):
        unpack_floats(b"1234567")
    assert columns_of([]) is None


# --- the look ---


def test_nothing_is_copied_where_nothing_is_worth_it() -> None:
    value = {"a": [1, "x", (2.5,)], "b": {"c": [{"d": 1}] * 3}}
    assert select(value) is value


def test_only_what_is_on_the_way_to_a_column_is_copied() -> None:
    value = {"settings": {"k": 1}, "docs": (1, FLOATS)}
    chosen = select(value)
    assert isinstance(chosen["docs"][1], Packed)
    assert chosen["settings"] is value["settings"]
    assert value["docs"] == (1, FLOATS)


def test_every_vector_of_a_list_is_a_column() -> None:
    chosen = select({"vectors": [list(FLOATS) for _ in range(500)]})
    assert all(isinstance(vector, Packed) for vector in chosen["vectors"])


class _Counted(dict[str, Any]):
    """A mapping that must not be asked."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the look called into Python")


def test_the_look_calls_nothing_of_a_users() -> None:
    assert not has_large([_Counted(a=FLOATS)], 1, 1, 1)


def test_the_look_goes_no_further_than_it_says() -> None:
    deep: Any = FLOATS
    for _ in range(8):
        deep = [deep]
    assert not has_large(deep, 1, 1, 1)
    assert has_large(deep[0], 1, 1, 1)
    assert not has_large([[0] for _ in range(300)] + [FLOATS], 1, 1, 1)


# --- parts ---


class _Room(NamedTuple):
    number: int
    offsets: Sequence[int]
    parts: Sequence[memoryview]


class _Segments:
    """Shared memory as far as a body with parts knows it, in one process."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.segments: list[bytearray] = []
        self.room = room

    def place(self, sizes: Sequence[int]) -> _Room | None:
        if sum(sizes) > self.room:
            return None
        offsets, at = [], 0
        for size in sizes:
            offsets.append(at)
            at += size
        segment = bytearray(at)
        self.segments.append(segment)
        views = [
            memoryview(segment)[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)
        ]
        return _Room(len(self.segments) - 1, offsets, views)

    def views(self, number: int, ranges: Sequence[Sequence[int]]) -> list[memoryview]:
        whole = memoryview(self.segments[number]).toreadonly()
        return [whole[offset : offset + length] for offset, length in ranges]

    def put(self, given: Sequence[Any]) -> _Room | None:
        room = self.place([len(memoryview(part)) for part in given])
        if room is not None:
            for target, part in zip(room.parts, given, strict=True):
                target[:] = part
        return room

    def share(self, segment: Any) -> int | None:
        raise AssertionError("nothing is shared")

    def released(self, numbers: list[int]) -> None:
        raise AssertionError("nothing went wrong")


LARGE: dict[str, Any] = {
    "array": np.arange(300.0).reshape(30, 10),
    "table": pa.table({"x": list(range(50)), "y": ["a", "b"] * 25}),
    "floats": FLOATS,
    "rows": ROWS,
    "bytes": b"0123456789" * 50,
    "text": "is no part",
}


class Transport(asyncio.WriteTransport):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return False

    def frames(self, reader: Channel) -> list[Any]:
        reader.room()[: len(self.sent)] = self.sent
        return reader.take(len(self.sent))


def _channel(memory: _Segments | None = None, packing: Packing | None = None) -> tuple[Channel, Transport]:
    channel, transport = Channel(asyncio.get_running_loop()), Transport()
    channel.attach(transport)
    channel.use("msgpack")
    channel.use_parts(memory, packing, floor=100)
    return channel, transport


async def test_a_refused_value_leaves_none_of_its_parts_to_the_next_frame() -> None:
    channel, transport = _channel()
    for value in ([b"x" * 200, object()], [np.zeros(100), {"deep": object()}]):
        with pytest.raises(WireError) as refused:
            channel.send(3, 1, value, alone=True)
        assert refused.value.code == "not-encodable"
    channel.send(3, 1, "small", alone=True)
    ((_, _, body, form),) = transport.frames(channel)
    assert (form, channel.decode(body, form)) == (MSGPACK, "small")


@pytest.mark.parametrize("memory", [None, _Segments(), _Segments(room=0)], ids=["none", "room", "full"])
@pytest.mark.parametrize("packing", [None, *PACKINGS.values()], ids=["plain", *PACKINGS])
async def test_parts_come_out_wherever_they_lie_and_however_they_are_packed(
    memory: _Segments | None, packing: Packing | None
) -> None:
    channel, transport = _channel(memory, packing)
    channel.send(3, 1, LARGE, alone=True)
    ((_, _, body, form),) = transport.frames(channel)
    back = channel.decode(body, form)

    assert form == MSGPACK | PARTS
    assert (back.pop("array") == LARGE["array"]).all()
    assert back.pop("table").equals(LARGE["table"])
    assert back == {name: item for name, item in LARGE.items() if name not in ("array", "table")}


def test_what_does_not_get_smaller_is_not_packed() -> None:
    noise = np.random.default_rng(0).bytes(300_000)
    for packing in PACKINGS.values():
        assert packing.pack(noise) is None
        packed = packing.pack(bytes(300_000))
        assert packed is not None
        assert packing.unpack(memoryview(packed), 300_000) == bytes(300_000)


def test_more_parts_than_a_body_has_stay_among_the_values() -> None:
    value = [bytes([number % 256]) * 8 for number in range(MAX_PARTS + 10)]
    codec = MessagePack()
    main, blobs = codec.encode_in_parts(select(value, EARLY), 8)
    assert len(blobs) == MAX_PARTS
    body = parts.write_parts(main, blobs)
    assert codec.decode(*parts.read_parts(memoryview(body))) == value


def _body(rows: Sequence[tuple[int, ...]] = (), data: bytes = b"", count: int | None = None) -> bytes:
    """The body of None with such rows."""
    head = struct.pack("!IHH", 1, len(rows) if count is None else count, 0)
    return head + b"".join(struct.pack("!BBHIQQQ", *row) for row in rows) + b"\xc0" + data


HOSTILE = {
    "cut off": b"\x00\x00",
    "a count without rows": _body(count=9),
    "more parts than may be": _body(count=65535) + bytes(65535 * 32),
    "a value that is longer": struct.pack("!IHH", 100, 0, 0),
    "a part behind the end": _body(rows=[(0, 0, 0, 0, 41, 10, 10)], data=b"123"),
    "a part within the head": _body(rows=[(0, 0, 0, 0, 8, 4, 4)], data=b"123"),
    "an offset without end": _body(rows=[(0, 0, 0, 0, 2**64 - 1, 1, 1)], data=b"123"),
    "two sizes": _body(rows=[(0, 0, 0, 0, 41, 3, 5)], data=b"123"),
    "an unknown packing": _body(rows=[(0, 9, 0, 0, 41, 3, 5)], data=b"123"),
    "an unknown place": _body(rows=[(7, 0, 0, 0, 41, 3, 3)], data=b"123"),
    "shared memory that is not there": _body(rows=[(1, 0, 0, 0, 0, 3, 3)]),
    "what is not packed": _body(rows=[(0, 1, 0, 0, 41, 3, 300)], data=b"\xff\xff\xff"),
    "what should be zero": _body(rows=[(0, 0, 1, 0, 41, 3, 3)], data=b"123"),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_is_refused(body: bytes) -> None:
    with pytest.raises(WireError) as refused:
        parts.read_parts(memoryview(body))
    assert refused.value.code == "bad-frame"


@pytest.mark.parametrize("packing", PACKINGS.values(), ids=PACKINGS)
def test_a_part_that_would_be_too_large_is_refused_before_it_is_unpacked(packing: Packing) -> None:
    bomb = packing.pack(bytes(2**20))
    assert bomb is not None
    rows = [(0, packing.number, 0, 0, 41, len(bomb), parts.MAX_SIZE + 1)]
    with pytest.raises(WireError, match="the limit is") as refused:
        parts.read_parts(memoryview(_body(rows=rows, data=bomb)))
    assert refused.value.code == "frame-too-large"


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_body_with_parts_or_refused(data: bytes) -> None:
    try:
        main, found = parts.read_parts(memoryview(data))
    except WireError:
        return
    assert len(main) + sum(map(len, found)) <= len(data) * (len(found) + 1)


# --- bytes to keep ---


def test_what_was_kept_comes_out_and_outlives_its_bytes() -> None:
    data = bytearray(wire.dumps(LARGE))
    back = wire.loads(data)
    data[:] = bytes(len(data))
    assert (back["array"] == LARGE["array"]).all()
    assert back["table"].equals(LARGE["table"])
    assert back["rows"] == ROWS


KEPT = wire.dumps({"a": 1})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bad-body"),
        (b"pickle", "bad-body"),
        (KEPT[:11], "bad-body"),
        (KEPT[:-1], "changed-bytes"),
        (KEPT[:-1] + b"\x02", "changed-bytes"),
        (KEPT + b"\x00", "changed-bytes"),
        (KEPT[:4] + b"\x02" + KEPT[5:], "newer-bytes"),
        (KEPT[:5] + b"\x07" + KEPT[6:], "bad-body"),
        (b"dspx\x01\x01\x00\x00" + struct.pack("!I", zlib.crc32(b"\xc1")) + b"\xc1", "bad-body"),
    ],
)
def test_bytes_that_are_not_what_was_kept_are_refused_with_the_reason(data: bytes, code: str) -> None:
    with pytest.raises(WireError) as refused:
        wire.loads(data)
    assert refused.value.code == code


# --- explain ---


def test_explain_says_what_is_written_how_and_what_cannot_cross() -> None:
    told = wire.explain({**LARGE, "pair": (1, {2}), "conn": [object()]})
    assert {choice.place: choice.how for choice in told.choices} == {
        "$": "msgpack",
        "$.array": "array",
        "$.table": "arrow",
        "$.floats": "column",
        "$.rows": "column",
        "$.pair": "tuple",
        "$.pair[1]": "set",
    }
    assert told.refused == ("$.conn[0]: object: no plain value stands for it",)
    assert "$.rows: column" in str(told)


def test_explain_gives_the_size_that_the_bytes_have() -> None:
    told = wire.explain(LARGE)
    assert told.size == len(wire.dumps(LARGE)) - 12
    assert all(choice.size > 0 for choice in told.choices)
