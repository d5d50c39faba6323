"""Messages and replies are DSPy's, over generated signatures, values and replies."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import dspy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.parity.versions import REFUSALS
from tests.support.generated import fewer

import dspex
import dspex.errors

ADAPTERS = [
    pytest.param(dspy.ChatAdapter(), dspex.ChatAdapter(parsing="dspy"), id="chat"),
    pytest.param(dspy.JSONAdapter(), dspex.JSONAdapter(parsing="dspy"), id="json"),
    pytest.param(dspy.XMLAdapter(), dspex.XMLAdapter(parsing="dspy"), id="xml"),
]

# A case here draws a signature, values and a reply, and makes DSPy work for milliseconds: fewer do.
thorough = fewer(5)


def outcome(call: Any, *refusals: type[Exception]) -> tuple[str, Any]:
    """What a call gives, in a form that tells True from 1 and lets nan equal itself."""
    try:
        return "value", repr(call())
    except refusals:
        return "refused", None


@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
@thorough
@given(data=st.data())
def test_messages_are_dspys(theirs: Any, ours: Any, data: st.DataObject) -> None:
    their_signature, our_signature = data.draw(cases.signatures())
    names = list(their_signature.fields)
    inputs = data.draw(cases.records(names))
    demos = data.draw(st.lists(cases.records(names), max_size=3))

    # A list whose items are no texts, in a field of type str: DSPy lets the TypeError through.
    expected = outcome(lambda: theirs.format(their_signature, demos, inputs), TypeError, AttributeError)
    assert outcome(lambda: ours.format(our_signature, demos, inputs), dspex.errors.InputError) == expected


@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
@thorough
@given(data=st.data())
def test_the_body_of_a_request_has_the_messages_as_json(theirs: Any, ours: Any, data: st.DataObject) -> None:
    _, signature = data.draw(cases.signatures())
    names = list(signature.fields)
    inputs = data.draw(cases.records(names))
    demos = data.draw(st.lists(cases.records(names), max_size=3))
    plan = ours.compile(signature)

    expected = outcome(lambda: json_of(plan.render(inputs, demos)), dspex.errors.InputError)
    assert outcome(lambda: plan.body(inputs, demos), dspex.errors.InputError) == expected


def json_of(messages: Any) -> Any:
    """The messages as a body has them; as they are where one is more than a text."""
    if all(isinstance(message["content"], str) for message in messages):
        return json.dumps(messages, ensure_ascii=False, separators=(",", ":")).encode()
    return messages


@thorough
@given(data=st.data())
def test_chat_replies_are_read_as_dspy_reads_them(data: st.DataObject) -> None:
    their_signature, our_signature = data.draw(cases.signatures())
    reply = data.draw(cases.chat_replies(list(their_signature.output_fields)))

    expected = outcome(lambda: dspy.ChatAdapter().parse(their_signature, reply), *REFUSALS)
    assert (
        outcome(
            lambda: dspex.ChatAdapter(parsing="dspy").parse(our_signature, reply), dspex.errors.ReplyError
        )
        == expected
    )


@thorough
@given(data=st.data())
def test_json_replies_are_read_as_dspy_reads_them(data: st.DataObject) -> None:
    their_signature, our_signature = data.draw(cases.signatures())
    reply = data.draw(cases.json_replies(list(their_signature.output_fields)))

    expected = outcome(lambda: dspy.JSONAdapter().parse(their_signature, reply), *REFUSALS)
    assert (
        outcome(
            lambda: dspex.JSONAdapter(parsing="dspy").parse(our_signature, reply), dspex.errors.ReplyError
        )
        == expected
    )


@thorough
@given(data=st.data())
def test_xml_replies_are_read_as_dspy_reads_them(data: st.DataObject) -> None:
    their_signature, our_signature = data.draw(cases.signatures())
    reply = data.draw(cases.xml_replies(list(their_signature.output_fields)))

    expected = outcome(lambda: dspy.XMLAdapter().parse(their_signature, reply), *REFUSALS)
    assert (
        outcome(lambda: dspex.XMLAdapter(parsing="dspy").parse(our_signature, reply), dspex.errors.ReplyError)
        == expected
    )


@pytest.mark.parametrize("type_text", cases.TYPES)
def test_every_type_reads_every_known_element_as_dspy_does(type_text: str) -> None:
    source = f"q -> a: {type_text}"
    their_signature, our_signature = dspy.Signature(source), dspex.Signature(source)
    theirs, ours = dspy.XMLAdapter(), dspex.XMLAdapter(parsing="dspy")
    replies = [f"<a>\n{value}\n</a>" for value in [*cases.XML_VALUES, *cases.TEXTS]]

    expected = [outcome(partial(theirs.parse, their_signature, reply), *REFUSALS) for reply in replies]
    got = [outcome(partial(ours.parse, our_signature, reply), dspex.errors.ReplyError) for reply in replies]
    assert dict(zip(replies, got, strict=True)) == dict(zip(replies, expected, strict=True))


@pytest.mark.parametrize(
    "type_text", [*cases.TYPES, "Optional[dict[str, int]]", "dict[str, Optional[list[int]]]"]
)
def test_every_type_reads_tags_that_come_twice_as_dspy_does(type_text: str) -> None:
    source = f"q -> a: {type_text}"
    their_signature, our_signature = dspy.Signature(source), dspex.Signature(source)
    theirs, ours = dspy.XMLAdapter(), dspex.XMLAdapter(parsing="dspy")
    parts = ["", "\n \n", "1", "a", "[2]", "<item>3</item>", "<k></k><k>4</k>", "<k>5</k>"]
    for reply in (f"<a>{one}</a>\n<a>{other}</a>" for one in parts for other in parts):
        expected = outcome(partial(theirs.parse, their_signature, reply), *REFUSALS)
        assert (outcome(partial(ours.parse, our_signature, reply), dspex.errors.ReplyError), reply) == (
            expected,
            reply,
        )


@pytest.mark.parametrize("type_text", cases.TYPES)
def test_every_type_reads_every_known_text_as_dspy_does(type_text: str) -> None:
    source = f"q -> a: {type_text}"
    their_signature, our_signature = dspy.Signature(source), dspex.Signature(source)
    theirs, ours = dspy.ChatAdapter(), dspex.ChatAdapter(parsing="dspy")
    replies = [f"[[ ## a ## ]]\n{text}\n\n[[ ## completed ## ]]" for text in cases.TEXTS]

    expected = [outcome(partial(theirs.parse, their_signature, reply), *REFUSALS) for reply in replies]
    got = [outcome(partial(ours.parse, our_signature, reply), dspex.errors.ReplyError) for reply in replies]
    assert dict(zip(cases.TEXTS, got, strict=True)) == dict(zip(cases.TEXTS, expected, strict=True))


@pytest.mark.parametrize("value", ["[],\\ud83d", "x\\ud83d\\ude00[]", '{"k": \\ud83d}', "\\udfff"])
@pytest.mark.parametrize("type_text", cases.TYPES)
def test_halves_of_surrogate_pairs_out_of_broken_json_are_read_as_dspy_reads_them(
    type_text: str, value: str
) -> None:
    """`json_repair` reads an escaped pair as two halves, which no text of Rust's can hold."""
    source = f"q -> a: {type_text}, b"
    reply = '{"b": 1 "a": ' + json.dumps(value).replace("\\\\", "\\") + ".5: }"

    expected = outcome(partial(dspy.JSONAdapter().parse, dspy.Signature(source), reply), *REFUSALS)
    strict = partial(dspex.JSONAdapter(parsing="dspy").parse, source, reply)
    assert outcome(strict, dspex.errors.ReplyError) == expected
    if expected[0] == "value":
        assert outcome(partial(dspex.JSONAdapter().parse, source, reply)) == expected


@pytest.mark.parametrize("layout", ["Chat", "JSON", "XML"])
@thorough
@given(data=st.data())
def test_tolerance_changes_nothing_that_dspy_reads_whole(layout: str, data: st.DataObject) -> None:
    _, signature = data.draw(cases.signatures())
    replies = {"Chat": cases.chat_replies, "JSON": cases.json_replies, "XML": cases.xml_replies}[layout]
    reply = data.draw(replies(list(signature.output_fields)))
    adapter = getattr(dspex, f"{layout}Adapter")
    # A field that may be left out could be found after all, and an indented marker leaves a part of itself.
    assume(not any(field.optional for field in signature.output_fields.values()))
    assume(not any(re.match(r"\s+\[\[ ##", line) for line in reply.splitlines()))

    expected = outcome(lambda: adapter(parsing="dspy").parse(signature, reply), dspex.errors.ReplyError)
    assume(expected[0] == "value")
    fields, repairs = adapter().read(signature, reply)
    assert repr(fields) == expected[1]
    # What DSPy repairs itself is listed, and nothing else is done.
    assert {repair.code for repair in repairs} <= {"json", "cut-off"}
