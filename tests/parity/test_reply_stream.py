"""A reply that comes in piece by piece is the reply that comes whole, wherever it is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.parity.test_adapters import thorough

import dspex
from dspex.adapters.events import FieldEnd, FieldStart, PartialValue, TextDelta
from dspex.errors import ReplyError

ADAPTERS = {"chat": dspex.ChatAdapter, "json": dspex.JSONAdapter, "xml": dspex.XMLAdapter}
REPLIES = {"chat": cases.chat_replies, "json": cases.json_replies, "xml": cases.xml_replies}


def run(stream: Any, pieces: list[bytes]) -> list[Any]:
    """All events, with the texts of a field put together and of its partial values the last."""
    told: list[Any] = []
    for events in [*map(stream.feed, pieces), stream.finish()]:
        for event in events:
            last = told[-1] if told else None
            if isinstance(event, TextDelta) and isinstance(last, TextDelta):
                told[-1] = TextDelta(event.field, last.text + event.text)
            elif isinstance(event, PartialValue) and isinstance(last, PartialValue):
                told[-1] = event
            else:
                told.append(event)
    return told


def outcome(call: Any) -> Any:
    try:
        return repr(call())
    except ReplyError as error:
        return error.code, error.fields


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize("layout", ADAPTERS)
@thorough
@given(data=st.data())
def test_the_cuts_change_nothing(layout: str, parsing: Any, data: st.DataObject) -> None:
    _, signature = data.draw(cases.signatures())
    reply = data.draw(REPLIES[layout](list(signature.output_fields))).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=12)))
    pieces = [reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
    adapter = ADAPTERS[layout](parsing=parsing)

    whole, cut = adapter.stream(signature), adapter.stream(signature)
    # How far a value gets that turns out to be broken depends on where one looked.
    sure, expected = (
        [event for event in run(stream, fed) if not isinstance(event, PartialValue)]
        for stream, fed in ((cut, pieces), (whole, [reply]))
    )
    assert sure == expected
    assert outcome(cut.read) == outcome(lambda: tuple(adapter.read(signature, reply.decode())))


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


def test_lists_and_mappings_grow() -> None:
    stream = dspex.JSONAdapter().stream("q -> tags: list[str], more: dict[str, int]")
    values = []
    for piece in ['{"tags": ["on', 'e", "tw', 'o"], "more": {"k"', ': 1, "l', '": 2}}']:
        values += [event.value for event in stream.feed(piece) if isinstance(event, PartialValue)]
    assert values == [["on"], ["one", "tw"], ["one", "two"], {}, {"k": 1}, {"k": 1, "l": 2}]
    assert stream.finish() == []
    assert stream.read() == ({"tags": ["one", "two"], "more": {"k": 1, "l": 2}}, [])


def test_a_piece_is_bytes_or_text() -> None:
    with pytest.raises(TypeError, match="bytes or text"):
        dspex.ChatAdapter().stream("q -> a").feed(1)  # type: ignore[arg-type]
