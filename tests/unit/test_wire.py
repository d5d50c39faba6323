from __future__ import annotations

import contextlib
import datetime as dt
import enum
import itertools
import subprocess
import sys
from collections import OrderedDict, defaultdict
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.errors import WireError
from dspex.protocol.frames import HEADER_SIZE, FrameReader, Kind, encode_frame
from dspex.protocol.secrets import redacted, secrets_in
from dspex.wire._msgpack import MessagePack

BODY = b"\x93\x01\x02\x03"
GOOD = encode_frame(Kind.CALL, 7, BODY)


@settings(max_examples=200)
@given(
    frames=st.lists(
        st.tuples(st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.binary(max_size=200)), max_size=8
    ),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(frames: Any, cuts: list[int]) -> None:
    stream = b"".join(encode_frame(kind, number, body) for kind, number, body in frames)
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    reader = FrameReader()

    out = []
    for a, b in itertools.pairwise(places):
        out += [(kind, number, bytes(body)) for kind, number, body, _ in reader.feed(stream[a:b])]

    assert out == [(kind, number, body) for kind, number, body in frames]
    reader.finish()


@settings(max_examples=100)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 100, 40_000, 65_519, 65_520, 65_521, 300_000]), max_size=6),
    reads=st.lists(st.integers(1, 200_000), max_size=20),
)
def test_frames_of_any_size_come_out_of_the_room_they_are_written_into(
    sizes: list[int], reads: list[int]
) -> None:
    """As a socket does it: never more than the room has, often less, and whatever size comes next."""
    bodies = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    stream = b"".join(encode_frame(Kind.CALL, number, body) for number, body in enumerate(bodies))
    reader, out, at = FrameReader(), [], 0

    for most in itertools.chain(reads, itertools.repeat(len(stream))):
        if at == len(stream):
            break
        room = reader.room()
        count = min(most, len(room), len(stream) - at)
        room[:count] = stream[at : at + count]
        out += [(number, bytes(body)) for _, number, body, _ in reader.take(count)]
        at += count

    assert out == list(enumerate(bodies))
    reader.finish()


def test_a_header_alone_reserves_no_memory_and_a_large_frame_keeps_none() -> None:
    reader = FrameReader()
    large = encode_frame(Kind.CALL, 1, b"x" * 20_000_000)
    usual, most, at = len(reader.room()), 0.0, 0

    while at < len(large):
        room = reader.room()
        most = max(most, (len(room) + at) / (at + usual))
        count = min(len(room), 65_536, len(large) - at)
        room[:count] = large[at : at + count]
        frames = reader.take(count)
        at += count

    assert len(frames) == 1
    assert len(frames[0][2]) == 20_000_000
    assert most <= 4  # never more than four times what has arrived
    assert len(reader.room()) == usual


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"\x00" + GOOD[1:], "bad-frame"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "bad-frame"),
        (GOOD[:1] + b"\xff" + GOOD[2:], "bad-frame"),
        (GOOD[:1] + b"\x00" + GOOD[2:], "bad-frame"),
        (GOOD[:2] + b"\x03" + GOOD[3:], "bad-frame"),
        (GOOD[:3] + b"\x02" + GOOD[4:], "bad-frame"),
        (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "frame-too-large"),
        (GOOD + b"\x00" * HEADER_SIZE, "bad-frame"),
    ],
    ids=["magic", "http", "kind-255", "kind-0", "codec-3", "flags-2", "length", "second-frame"],
)
def test_a_hostile_stream_is_refused_from_its_header(stream: bytes, code: str) -> None:
    reader = FrameReader(limit=1000)

    with pytest.raises(WireError) as refused:
        reader.feed(stream)

    assert refused.value.code == code
    with pytest.raises(WireError):
        reader.feed(GOOD)


def test_a_frame_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    ((_, _, body, _),) = FrameReader(limit=10).feed(encode_frame(Kind.CALL, 1, b"x" * 10))
    assert body == b"x" * 10
    with pytest.raises(WireError, match="the limit is 10"):
        FrameReader(limit=10).feed(encode_frame(Kind.CALL, 1, b"x" * 11))


@pytest.mark.parametrize("length", range(1, len(GOOD)))
def test_a_stream_that_ends_inside_a_frame_is_truncated(length: int) -> None:
    reader = FrameReader()
    assert reader.feed(GOOD[:length]) == []

    with pytest.raises(WireError) as refused:
        reader.finish()

    assert refused.value.code == "truncated-frame"


class Colour(enum.IntEnum):
    RED = 3


class Word(enum.StrEnum):
    YES = "yes"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**64,
        -(2**200),
        1.5,
        float("inf"),
        "half a pair: \ud83d",
        b"\x00\xff",
        (1, (2, [3, (4,)])),
        {1, 2},
        frozenset({"a"}),
        {"k": {1: "int key", (1, 2): "tuple key", b"b": 0}},
        dt.datetime(2026, 10, 25, 2, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)), fold=1),
        dt.datetime(2026, 10, 25, 2, 30),
        dt.date(2026, 2, 28),
        dt.time(23, 59, 59, 999999),
        dt.timedelta(days=-1, microseconds=1),
        Decimal("1.10"),
        Decimal("-Infinity"),
        UUID(int=5),
        [(Decimal(1), {2**70})],
    ],
    ids=repr,
)
def test_a_value_keeps_its_type(value: Any) -> None:
    codec = MessagePack()

    back = codec.decode(codec.encode(value))

    assert (type(back), back) == (type(value), value)
    assert getattr(back, "fold", 0) == getattr(value, "fold", 0)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 3),
        (Word.YES, "yes"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
    ],
    ids=["int-enum", "str-enum", "ordered-dict", "defaultdict"],
)
def test_a_subclass_travels_as_what_it_is_a_kind_of(value: Any, plain: Any) -> None:
    codec = MessagePack()
    back = codec.decode(codec.encode(value))
    assert (type(back), back) == (type(plain), plain)


def test_what_cannot_be_sent_is_named_with_its_place_and_the_codec_still_works() -> None:
    codec = MessagePack()

    with pytest.raises(WireError) as refused:
        codec.encode({"rows": [{"ok": 1}, {"bad": ({3}, object())}]})

    assert refused.value.code == "not-encodable"
    assert refused.value.place == "$.rows[1].bad[1]"
    assert codec.decode(codec.encode([1])) == [1]


def test_a_value_nested_too_deeply_is_refused() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(WireError):
        MessagePack().encode(value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        b"\x01\x02",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\x01",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffabc",
        b"\x91" * 100_000,
        b"\xd4\x63\x00",
        b"\xd4\x01\xa1",
        b"\xc7\x05\x01\xa4nine",
        b"\xc7\x03\x0a\xc4\x01x",
        b"\xa2\xff\xfe",
        b"\x81\x90\x01",
        b"\xc7\x11\x0a\xb0" + b"a" * 16,
    ],
    ids=[
        "empty", "reserved", "short-array", "two-values", "array-bomb", "map-bomb", "bytes-bomb", "text-bomb",
        "deep", "unknown-extension", "broken-extension", "int-of-words", "short-uuid", "not-utf8", "list-key",
        "uuid-of-text",
    ],
)  # fmt: skip
def test_a_hostile_body_is_refused(body: bytes) -> None:
    with pytest.raises(WireError) as refused:
        MessagePack().decode(body)
    assert refused.value.code == "bad-body"


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_decode_to_a_value_or_are_refused(body: bytes) -> None:
    with contextlib.suppress(WireError):  # and nothing else, however hostile
        MessagePack().decode(body)


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_refused(stream: bytes) -> None:
    reader = FrameReader(limit=1000)
    with contextlib.suppress(WireError):
        reader.feed(stream)
        reader.finish()


def test_the_wire_imports_nothing_heavy() -> None:
    heavy = {"asyncio", "pydantic", "dspy", "pyarrow", "aiohttp", "socket"}
    # What measures coverage is there before.
    code = (
        "import sys; before = {*sys.modules}; import dspex.protocol.frames;"
        f"print(sorted({heavy!r} & {{*sys.modules}} - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.strip() == "[]"


def test_arrays_that_claim_more_than_there_is_take_no_memory() -> None:
    """500 nested arrays of eight million elements each, in eight megabytes: 32 GB if they were believed."""
    code = """
from dspex.errors import WireError
from dspex.wire._msgpack import MessagePack
size = 8 * 2**20
body = (b"\\xdd" + (size - 10).to_bytes(4, "big")) * 500
try:
    MessagePack().decode(body + b"\\xc0" * (size - len(body)))
except WireError as err:
    # Not `ru_maxrss`, which begins at what the process that started this one had.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(err.code, int(status["VmHWM"].split()[0]) < 2**19)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.split() == ["bad-body", "True"]


def test_extensions_nested_too_deep_are_refused_and_do_not_end_the_process() -> None:
    """In a process of its own: unbounded, the decoder overruns the C stack."""
    code = """
from dspex.errors import WireError
from dspex.wire._msgpack import MessagePack
body = b"\\xc0"
for _ in range(1000):
    body = b"\\x91" + body
    body = b"\\xc9" + len(body).to_bytes(4, "big") + b"\\x02" + body
try:
    MessagePack().decode(body)
except WireError as err:
    print(err.code)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.split() == ["bad-body"]


def test_what_is_nested_as_deep_as_may_be_crosses_and_one_more_is_the_senders_error() -> None:
    value: object = 1
    for _ in range(32):
        value = (value,)
    assert MessagePack().decode(MessagePack().encode(value)) == value
    with pytest.raises(WireError) as refused:
        MessagePack().encode((value,))
    assert refused.value.code == "not-encodable"


SETTINGS = {
    "model": "openai/gpt-4o-mini",
    "api_key": "sk-0123456789",
    "max_tokens": 1000,
    "extra_headers": {"Authorization": "Bearer tok-abcdefgh", "X-Title": "a shop of books"},
    "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG",
    "keys": ["first-of-two", "short"],
    "temperature": 0.5,
}


def test_secrets_are_found_by_their_names_at_any_depth() -> None:
    assert secrets_in(SETTINGS) == (
        "sk-0123456789",
        "Bearer tok-abcdefgh",
        "tok-abcdefgh",
        "wJalrXUtnFEMI/K7MDENG",
        "first-of-two",
    )
    assert secrets_in({"model": "openai/gpt-4o-mini", "api_key": "none"}) == ()


def test_no_text_of_what_is_redacted_holds_a_secret() -> None:
    told = {
        "message": "401 for Bearer tok-abcdefgh",
        "details": {"sk-0123456789": [1, ('it\'s "wJalrXUtnFEMI/K7MDENG"',), None]},
    }
    assert redacted(told, secrets_in(SETTINGS)) == {
        "message": "401 for ***",
        "details": {"***": [1, ('it\'s "***"',), None]},
    }
