"""A reply that comes in piece by piece is the reply that comes whole, wherever it is cut."""

from __future__ import annotations

import datetime
import enum
import itertools
from types import SimpleNamespace
from typing import Any

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.parity.test_adapters import thorough
from tests.parity.versions import NEWER_THAN_33
from tests.support.generated import fewer

import dspex
from dspex.errors import ReplyError
from dspex.events import Correction, FieldEnd, FieldStart, PartialValue, TextDelta

ADAPTERS = {"chat": dspex.ChatAdapter, "json": dspex.JSONAdapter, "xml": dspex.XMLAdapter}
REPLIES = {"chat": cases.chat_replies, "json": cases.json_replies, "xml": cases.xml_replies}


def run(stream: Any, pieces: list[Any]) -> list[Any]:
    """All events, with the texts of a field put together and of its partial values the last."""
    told: list[Any] = []
    for events in [*map(stream.feed, pieces), stream.finish()]:
        for event in events:
            last = told[-1] if told else None
            if isinstance(event, TextDelta) and isinstance(last, TextDelta) and not last.is_last_chunk:
                told[-1] = TextDelta(event.field, last.text + event.text, event.is_last_chunk)
            elif isinstance(event, PartialValue) and isinstance(last, PartialValue):
                told[-1] = event
            else:
                told.append(event)
    return told


def final(told: list[Any]) -> dict[str, Any]:
    """What somebody knows of the fields who has listened to the end."""
    known: dict[str, Any] = {}
    for event in told:
        if isinstance(event, TextDelta):
            known[event.field] = known.get(event.field, "") + event.text
        elif isinstance(event, PartialValue | Correction):
            known[event.field] = event.value
    return known


def is_beginning(a: Any, b: Any) -> bool:
    """Whether `b` is what `a` may grow into."""
    if isinstance(a, str) and isinstance(b, str):
        return b.startswith(a)
    if isinstance(a, list) and isinstance(b, list):
        return (
            len(a) <= len(b)
            and a[:-1] == b[: len(a) - 1 if a else 0]
            and all(map(is_beginning, a[-1:], b[len(a) - 1 :]))
        )
    if isinstance(a, dict) and isinstance(b, dict):
        keys = list(a)
        if keys != list(b)[: len(keys)]:
            return False
        return all(a[k] == b[k] for k in keys[:-1]) and all(is_beginning(a[k], b[k]) for k in keys[-1:])
    return repr(a) == repr(b)


def outcome(call: Any) -> Any:
    try:
        return repr(call())
    except ReplyError as error:
        return error.code, error.fields


def check(adapter: Any, signature: Any, reply: bytes, pieces: list[Any]) -> list[Any]:
    """Read the reply whole and in pieces: the same events, and the value of the whole reply in both."""
    whole, cut = adapter.stream(signature), adapter.stream(signature)
    told, expected = run(cut, pieces), run(whole, [reply])
    # How far a value gets that turns out to be broken depends on where one looked.
    sure, expected = (
        [e for e in events if not isinstance(e, PartialValue) or e.is_last_chunk]
        for events in (told, expected)
    )
    assert repr(sure) == repr(expected)
    result = outcome(cut.read)
    text = reply.decode(errors="replace")
    assert result == outcome(lambda: tuple(adapter.read(signature, text)))
    deltas = [e for e in told if isinstance(e, TextDelta)]
    assert all(e.is_last_chunk for e in deltas), "each text has a last chunk, and nothing behind it"
    assert [e.field for e in told if isinstance(e, FieldStart)] == [
        e.field for e in told if isinstance(e, FieldEnd)
    ]
    if isinstance(result, str):
        assert_known(told, cut.read()[0])
    return told


def assert_known(told: list[Any], fields: dict[str, Any]) -> None:
    known = final(told)
    assert {name: repr(known[name]) for name in fields} == {name: repr(v) for name, v in fields.items()}


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize("layout", ADAPTERS)
@thorough
@given(data=st.data())
def test_the_cuts_change_nothing(layout: str, parsing: Any, data: st.DataObject) -> None:
    _, signature = data.draw(cases.signatures())
    reply = data.draw(REPLIES[layout](list(signature.output_fields))).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=12)))
    pieces = [reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
    check(ADAPTERS[layout](parsing=parsing), signature, reply, pieces)


SHORT: dict[str, list[str]] = {
    "chat": [
        "Hm.\n[[ ## a ## ]]\n\n Pa ris\r\n[[ x é\u2028“😀 \n\n[[ ## n ## ]] \n[1,\n2]\n\n[[ ## b ## ]]",
        "[[ ## a ## ]] one\n  [[ ## n ## ]]\n[3]",
        "**[[ ## a ## ]]** Paris\n\n**[[ ## n ## ]]**: [1, 2]\n**[[ ## completed ## ]]**",
        "# [[ ## a ## ]] #\n- x\n1. y\n## [[ ## n ## ]] #\n[1]",
        "[[ ## a ## ]]\nx\n**[[ ## n ## ]]** y\n[[ ## n ## ]]\n[1]",
        "Answer: [[ ## a ## ]] Paris [[ ## n ## ]] [3] [[ ## completed ## ]]",
        "[[ ## a ## ]]\nx\n[[ ## a ## ]]\ny\n[[ ## n ## ]]\n1, 2",
        "[[ ## a ## ]]\nx\n[[ ## n ## ]]\nnope",
        "Paris",
    ],
    "json": [
        'Here: {"a": "P\\u00e9\\n\\ud83d\\ude00\\"“ ", "x": {"a": 1}, "n": [1, 2]} and more',
        '{"n": [1, 2], "a": null}',
        '{"a": "cut o',
        '{"a": true, "n": [1, "x", 2',
        "{'a': 'single', 'n': [1]}",
        '{"a": "x", "a": "y", "n": []}',
        '[{"a": "x", "n": [7]}]',
        '{"a": "half \\ud83d", "n": [1]}',
        "no",
    ],
    "xml": [
        "So: <a>\n 1 &lt; 2 &amp; 3é \n</a><b><n>no</n></b>\n<n><item>1</item><item>2</item></n>",
        "<a>R & D < all &</a><n>[1, 2]</n>",
        "<a>x <b>y</b> z</a><n></n>",
        "<a><![CDATA[x < y]]><!-- no --></a><n><item>1</item></n>",
        "<n>1</n><n>2</n><a/>",
        "<n>\n<>\n< n></n>",
        "<a>cut o",
        "no",
    ],
}


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize("layout", ADAPTERS)
def test_short_replies_are_the_same_cut_at_every_byte(layout: str, parsing: Any) -> None:
    adapter = ADAPTERS[layout](parsing=parsing)
    for text in SHORT[layout]:
        reply = text.encode()
        for signature in ("q -> a, n: list[int]", "q -> a", "q -> a: Optional[str], n: Optional[list[int]]"):
            for at in range(len(reply) + 1):
                check(adapter, signature, reply, [reply[:at], reply[at:]])
            check(adapter, signature, reply, [reply[at : at + 1] for at in range(len(reply))])
            check(adapter, signature, reply, list(text))


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize("depth", [10, 90, 150, 5_000])
@pytest.mark.parametrize("layout", ADAPTERS)
def test_a_value_may_nest_as_deep_as_it_likes(layout: str, depth: int, parsing: Any) -> None:
    """Deeper than Python can follow, it is refused at the end, as the whole reply is, and not before."""
    reply = {
        "chat": f"[[ ## a ## ]]\n{'[' * depth}1{']' * depth}",
        "json": f'{{"a": {"[" * depth}1{"]" * depth}}}',
        "xml": f"<a>{'<item>' * depth}1{'</item>' * depth}</a>",
    }[layout].encode()
    pieces = [reply[at : at + 500] for at in range(0, len(reply), 500)]
    check(ADAPTERS[layout](parsing=parsing), "q -> a: list", reply, pieces)


DECORATED = [
    "**[[ ## a ## ]]** Paris\n\n**[[ ## n ## ]]**: 3\n",
    "# [[ ## a ## ]] #\nParis\n## [[ ## n ## ]]\n3",
    "1. [[ ## a ## ]] Paris\n2. `[[ ## n ## ]]`\n3\n\n- [[ ## completed ## ]]",
    "  [[ ## a ## ]]\n  Paris\n  [[ ## n ## ]]\n  3\n  [[ ## completed ## ]]",
]


@pytest.mark.parametrize("reply", DECORATED)
def test_a_decorated_marker_needs_no_correction(reply: str) -> None:
    stream = dspex.ChatAdapter().stream("q -> a, n: int")
    told = run(stream, list(reply))
    assert [e for e in told if isinstance(e, TextDelta | PartialValue | Correction)] == [
        TextDelta("a", "Paris", True),
        PartialValue("n", 3, True),
    ]
    assert stream.read()[0] == {"a": "Paris", "n": 3}


def test_a_field_that_is_read_otherwise_than_told_is_corrected() -> None:
    stream = dspex.JSONAdapter().stream("q -> a, n: int, left_out: Optional[int]")
    told = run(stream, ['{"a": "yes", "a": "no", "n": "1,200 km"}'])
    assert [e for e in told if isinstance(e, Correction)] == [
        Correction("a", "no"),
        Correction("n", 1200),
        Correction("left_out", None),
    ]


def test_a_reply_that_breaks_off_ends_its_field_but_not_by_its_own_word() -> None:
    stream = dspex.ChatAdapter().stream("q -> a, b")
    told = run(stream, ["[[ ## a ## ]]\nx\n[[ ## b ## ]]\ny"])
    assert [e for e in told if isinstance(e, FieldEnd)] == [FieldEnd("a", True), FieldEnd("b", False)]


@thorough
@given(data=st.data())
def test_the_deltas_of_a_text_are_its_value(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(sorted(ADAPTERS)))
    values = data.draw(st.fixed_dictionaries({"a": cases.text, "b": cases.text}))
    plan = ADAPTERS[layout](parsing="dspy").compile("q -> a, b")
    # The reply is what an example of it looks like.
    reply = plan.render({"q": "?"}, [{"q": "?", **values}])[2]["content"]
    stream = plan.stream()
    told = run(stream, [bytes([byte]) for byte in reply.encode()])
    try:
        fields, _ = stream.read()
    except ReplyError:
        return  # the values broke the layout
    expected = dict.fromkeys(fields, "") | {e.field: e.text for e in told if isinstance(e, TextDelta)}
    assert expected == fields
    assert [e.field for e in told if isinstance(e, FieldStart)] == ["a", "b"]
    assert [e.field for e in told if isinstance(e, FieldEnd)] == ["a", "b"]
    assert not any(isinstance(e, Correction) for e in told)


@thorough
@given(data=st.data())
def test_the_last_partial_value_is_the_value(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(["chat", "json"]))
    # No line breaks of the odd kinds: in chat they become `\n`, which a JSON string may not hold.
    text = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=8)
    scalar = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | text
    values = st.recursive(scalar, lambda v: st.lists(v) | st.dictionaries(text, v), max_leaves=8)
    value = data.draw(st.lists(values) | st.dictionaries(text, values))
    plan = ADAPTERS[layout](parsing="dspy").compile("q -> a: Any, b")
    reply = plan.render({"q": "?"}, [{"q": "?", "a": value, "b": "x"}])[2]["content"].encode()
    size = data.draw(st.integers(1, 9))
    stream = plan.stream()
    told = run(stream, [reply[at : at + size] for at in range(0, len(reply), size)])
    assert [event.value for event in told if isinstance(event, PartialValue)] == [value]
    assert stream.read()[0]["a"] == value


class Colour(enum.Enum):
    RED = "red"
    REDDISH = "red-dish"


class Point(pydantic.BaseModel):
    x: int
    colour: Colour = Colour.RED
    sure: bool | None = None
    label: str = ""
    tags: list[str] = []


words = st.text("ab <&\"'é\\,]}", min_size=1, max_size=6).map(str.strip).filter(bool)
ints = st.integers(-999, 10**6)
choices = st.sampled_from(["yes", "yes!", "no"])
dates = st.dates()
points = st.builds(
    Point,
    x=ints,
    colour=st.sampled_from(Colour),
    sure=st.none() | st.booleans(),
    label=words,
    tags=st.lists(words, max_size=2),
)
keys = st.sampled_from(["k", "k2", "kk", "naïve"])
CHOICE = "Literal['yes', 'yes!', 'no']"
GROWING: dict[str, st.SearchStrategy[Any]] = {
    "int": ints,
    "float": st.floats(-1e6, 1e6),
    "bool": st.booleans(),
    CHOICE: choices,
    "Colour": st.sampled_from(Colour),
    "date": dates,
    "list[int]": st.lists(ints),
    "list[float]": st.lists(st.floats(-1e6, 1e6)),
    "list[str]": st.lists(words),
    "list[bool]": st.lists(st.booleans()),
    f"list[{CHOICE}]": st.lists(choices),
    "list[Colour]": st.lists(st.sampled_from(Colour)),
    "list[date]": st.lists(dates),
    "list[list[int]]": st.lists(st.lists(ints, min_size=1, max_size=3)),
    "Optional[list[str]]": st.lists(words, min_size=1),  # in XML nothing is None, for DSPy too
    "dict[str, int]": st.dictionaries(keys, ints),
    "dict[str, str]": st.dictionaries(keys, words),
    "dict[str, list[str]]": st.dictionaries(keys, st.lists(words, min_size=1)),
    f"dict[str, {CHOICE}]": st.dictionaries(keys, choices),
    "dict[str, dict[str, Colour]]": st.dictionaries(
        keys, st.dictionaries(keys, st.sampled_from(Colour), min_size=1)
    ),
    "tuple[int, str]": st.tuples(ints, words),
    "Point": points,
    "Optional[Point]": points,
    "list[Point]": st.lists(points, max_size=3),
    "dict[str, Point]": st.dictionaries(keys, points),
}


@pytest.mark.parametrize("layout", ADAPTERS)
@pytest.mark.parametrize("type_text", GROWING)
@fewer(50)
@given(data=st.data())
def test_each_partial_value_is_a_beginning_of_the_next(
    layout: str, type_text: str, data: st.DataObject
) -> None:
    types = {"Colour": Colour, "Point": Point, "date": datetime.date}
    signature = dspex.Signature(f"q -> a: {type_text}, b", types=types)
    value = data.draw(GROWING[type_text])
    plan = ADAPTERS[layout](parsing="dspy").compile(signature)
    reply = plan.render({"q": "?"}, [{"q": "?", "a": value, "b": "x"}])[2]["content"]
    size = data.draw(st.integers(1, 5))
    stream = plan.stream()
    told = []
    for at in range(0, len(reply), size):
        told += stream.feed(reply[at : at + size])
    told += stream.finish()

    try:
        stream.read()
    except ReplyError:
        return  # the value broke the layout
    *grown, last = [e for e in told if isinstance(e, PartialValue)]
    assert not any(isinstance(e, Correction) for e in told)
    assert (last.value, last.is_last_chunk) == (stream.read()[0]["a"], True)
    assert last.value == value
    plain = pydantic.TypeAdapter(type(value)).dump_python(value, mode="json")
    steps = [*(event.value for event in grown), plain]
    for before, after in itertools.pairwise(steps):
        assert is_beginning(before, after), (before, after)
    if isinstance(plain, list | dict) and len(reply) > 200 and size == 1:
        assert len(grown) > 2, "it was told while it came"


def test_lists_and_mappings_grow() -> None:
    stream = dspex.JSONAdapter().stream("q -> tags: list[str], more: dict[str, int]")
    values = []
    for piece in ['{"tags": ["on', 'e", "tw', 'o"], "more": {"k"', ': 1, "l', '": 2}}']:
        values += [event.value for event in stream.feed(piece) if isinstance(event, PartialValue)]
    assert values == [["on"], ["one", "tw"], ["one", "two"], {}, {"k": 1}, {"k": 1, "l": 2}]
    assert stream.finish() == []
    assert stream.read() == ({"tags": ["one", "two"], "more": {"k": 1, "l": 2}}, [])


prose = st.lists(st.text("abcé .,\n", min_size=1, max_size=9), min_size=1, max_size=6).map("".join)


@pytest.mark.skipif(not NEWER_THAN_33, reason="the listener of DSPy 3.3 lets space around a value through")
@pytest.mark.parametrize("layout", ["chat", "xml"])
@fewer(10)
@given(data=st.data())
def test_the_chunks_of_a_field_are_those_of_dspys_listener(layout: str, data: st.DataObject) -> None:
    values = data.draw(st.fixed_dictionaries({"a": prose.filter(str.strip), "b": prose.filter(str.strip)}))
    form = {"chat": "[[ ## {} ## ]]\n{}\n\n", "xml": "<{0}>\n{1}\n</{0}>\n"}[layout]
    reply = "".join(form.format(name, value) for name, value in values.items())
    reply += "[[ ## completed ## ]]" if layout == "chat" else ""
    # In DSPy a piece that holds a whole field gives no chunk; a marker in more than ten pieces gets into one.
    sizes = data.draw(st.lists(st.integers(3, 8), min_size=len(reply)))
    ends = [0, *(at for at in itertools.accumulate(sizes) if at < len(reply)), len(reply)]
    pieces = [reply[a:b] for a, b in itertools.pairwise(ends)]

    theirs = getattr(dspy, {"chat": "ChatAdapter", "xml": "XMLAdapter"}[layout])()
    stream = ADAPTERS[layout](parsing="dspy").stream("q -> a, b")
    told = [event for events in [*map(stream.feed, pieces), stream.finish()] for event in events]
    for name in values:
        listener = dspy.streaming.StreamListener(signature_field_name=name)
        with dspy.context(adapter=theirs):
            chunks = [listener.receive(_chunk(piece)) for piece in pieces] + [listener.finalize()]
        expected = [chunk for chunk in chunks if chunk is not None]
        ours = [event for event in told if isinstance(event, TextDelta) and event.field == name]
        assert "".join(event.text for event in ours) == "".join(chunk.chunk for chunk in expected)
        for flags in ([e.is_last_chunk for e in ours], [c.is_last_chunk for c in expected]):
            assert flags == [False] * (len(flags) - 1) + [True]


def _chunk(text: str) -> Any:
    return SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=text))])


def test_a_piece_is_bytes_or_text() -> None:
    with pytest.raises(TypeError, match="bytes or text"):
        dspex.ChatAdapter().stream("q -> a").feed(1)  # type: ignore[arg-type]
