"""How the core reads HTTP and server-sent events, beside strict readers, cut anywhere."""

from __future__ import annotations

import re
from itertools import pairwise

import h11
from hypothesis import given
from hypothesis import strategies as st

from dspex._core import EventReader, HttpReader

# --- answers ----------------------------------------------------------------------------------------------


def read(raw: bytes, cuts: list[int], *, ends: bool) -> tuple[int, bytes, bool] | str:
    """Status, body and whether the connection may be used again; or the kind of fault."""
    reader = HttpReader()
    reader.begin(10**6)
    body = b""
    state = 0
    for piece in pieces(raw, cuts):
        state = reader.feed(piece)
        if state == 3:
            break
        body += reader.take_body()
    if state < 2 and ends:
        state = reader.end()
    if state == 3:
        assert reader.fault is not None
        return reader.fault[0]
    if state < 2:
        return "unfinished"
    return reader.status, body, reader.is_reusable


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in pairwise(places)] or [b""]


def strictly(raw: bytes, *, ends: bool) -> tuple[int, bytes] | str:
    """What `h11` reads."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "h"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        connection.receive_data(raw)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if not ends:
                    return "unfinished"
                ends = False
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif not isinstance(event, h11.InformationalResponse):
                return "cut"
    except h11.RemoteProtocolError:
        return "malformed"


TEXT = st.sampled_from(["x", "a b", "0", "keep-alive", "chunked", "gzip", "12", "é"])
NAMES = st.sampled_from(
    ["Content-Length", "Transfer-Encoding", "Connection", "X-A", "Retry-After", "content-length", "Server"]
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer as servers send it, or nearly."""
    status = draw(st.sampled_from([200, 200, 200, 204, 304, 404, 429, 500]))
    fields = draw(st.lists(st.tuples(NAMES, TEXT), max_size=2))
    body = draw(st.binary(max_size=40))
    match draw(st.sampled_from(["length", "chunks", "end", "none"])):
        case "length":
            fields.append(("Content-Length", str(len(body))))
        case "chunks":
            fields.append(("Transfer-Encoding", "chunked"))
            sizes = draw(st.lists(st.integers(1, 20), max_size=4))
            parts, at = [], 0
            for size in [*sizes, 1000]:
                if part := body[at : at + size]:
                    parts.append(b"%x\r\n%b\r\n" % (len(part), part))
                at += size
            body = b"".join(parts) + b"0\r\n" + draw(st.sampled_from([b"", b"X: y\r\n"])) + b"\r\n"
        case "none":
            body = b""
    draw(st.randoms(use_true_random=False)).shuffle(fields)
    hints = draw(
        st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nL: x\r\n\r\n"])
    )
    version = draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    head = f"HTTP/{version} {status} Fine\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields)
    return hints + head.encode("latin-1") + b"\r\n" + body


@st.composite
def nearly_answers(draw: st.DrawFn) -> bytes:
    """An answer with a few bytes changed, or cut short."""
    raw = bytearray(draw(answers()))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw) - 1))
        match draw(st.sampled_from(["change", "drop", "add"])):
            case "change":
                raw[at] = draw(st.sampled_from(b"\r\n \0:;0123456789abcxyz\xff"))
            case "drop" if len(raw) > 1:
                del raw[at]
            case _:
                raw[at:at] = draw(st.sampled_from([b"\r\n", b"\n", b" ", b"0", b"\0"]))
    return bytes(raw[: draw(st.integers(1, len(raw)))] if draw(st.booleans()) else raw)


CUTS = st.lists(st.integers(0, 400), max_size=12)


@given(answers(), CUTS, st.booleans())
def test_what_a_strict_reader_reads_is_read_alike_however_it_is_cut(
    raw: bytes, cuts: list[int], ends: bool
) -> None:
    strict, ours = strictly(raw, ends=ends), read(raw, cuts, ends=ends)
    if isinstance(strict, tuple):
        # Both refuse some that the other takes: a 304 may name a length, and h11 knows no coding but one.
        assert isinstance(ours, tuple), (raw, ours)
        assert ours[:2] == strict
    assert ours == read(raw, [], ends=ends), "however it is cut"
    assert ours == read(raw, list(range(len(raw))), ends=ends)


@given(nearly_answers(), CUTS, st.booleans())
def test_what_is_nearly_an_answer_is_read_as_a_strict_reader_does_or_refused(
    raw: bytes, cuts: list[int], ends: bool
) -> None:
    strict, ours = strictly(raw, ends=ends), read(raw, cuts, ends=ends)
    assert ours == read(raw, [], ends=ends), "however it is cut"
    if isinstance(strict, tuple) and isinstance(ours, tuple):
        assert ours[:2] == strict
    if isinstance(ours, tuple) and ours[2]:
        # Another request follows only where the strict reader saw the same end.
        assert isinstance(strict, tuple) or is_tolerated(raw), (raw, strict)


def is_tolerated(raw: bytes) -> bool:
    """Whether we read on purpose what h11 refuses.

    That is bare line feeds, bytes of old encodings in values, and empty lines before an answer.
    """
    return bool(re.search(rb"(?<!\r)\n|[\x00-\x08\x80-\xff]|(^|\r\n\r\n)[\r\n]+HTTP/", raw))


@given(st.binary(max_size=300), CUTS)
def test_junk_is_refused_or_waited_for_and_nothing_else(raw: bytes, cuts: list[int]) -> None:
    if not raw.lstrip(b"\r\n").startswith(b"HTTP/"):
        assert read(raw, cuts, ends=True) in ("malformed", "cut")


# --- events -----------------------------------------------------------------------------------------------


def events_of(stream: bytes) -> list[str]:
    """The data of a stream's events as the standard says, read slowly and whole."""
    text = stream.removeprefix(b"\xef\xbb\xbf")
    lines = re.split(rb"\r\n|\n|\r", text)[:-1]  # what has no end is no line
    events, data = [], None
    for line in lines:
        if not line:
            if data is not None:
                events.append(b"\n".join(data).decode("utf-8", "replace"))
            data = None
        elif line.partition(b":")[0] == b"data":
            value = line.partition(b":")[2].removeprefix(b" ")
            data = [*(data or []), value]
    return events


STREAMS = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data", b"data:  c", b": x", b"event: e", b"id: 1", b"retry: 3", b"datum: d",
         "data: é🎈".encode(), b"data: \xff", b"", b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\r\r",
         b"\xef\xbb\xbf", b"data: {\"a\": 1}", b" data: e", b"data\n: f"]
    ),
    max_size=30,
)  # fmt: skip


@given(STREAMS, CUTS)
def test_events_are_those_of_the_standard_however_the_stream_is_cut(
    parts: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(parts)
    for some in (cuts, [], list(range(len(stream)))):
        reader = EventReader(10_000)
        found = [event for piece in pieces(stream, some) for event in reader.feed(piece)[0]]
        assert found == events_of(stream), (stream, some)


def test_a_line_without_an_end_takes_time_in_proportion() -> None:
    def steps(size: int) -> int:
        """Pieces fed before the limit is met."""
        reader = EventReader(size)
        for count in range(10_000):
            if reader.feed(b"x" * 1000)[1]:
                return count
        return -1

    assert (steps(100_000), steps(200_000)) == (100, 200)
