"""Near misses are read and reported; what could be read in two ways is refused."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from dspex import ChatAdapter, JSONAdapter, Signature, XMLAdapter
from dspex.errors import ReplyError
from dspex.events import Correction, TextDelta


class Colour(enum.Enum):
    RED = "red"
    BLUE = "sky"


TYPES = {"Colour": Colour}
TWO = "q -> a: str, n: int"

MARKERS = {
    "bold": "**[[ ## a ## ]]**\nParis\n\n**[[ ## n ## ]]**\n3",
    "bold, text behind": "**[[ ## a ## ]]** Paris\n**[[ ## n ## ]]**: 3",
    "indented": "  [[ ## a ## ]]\n  Paris\n  [[ ## n ## ]]\n  3\n  [[ ## completed ## ]]",
    "heading": "## [[ ## a ## ]]\nParis\n### [[ ## n ## ]]\n3",
    "closed heading": "# [[ ## a ## ]] #\nParis\n# [[ ## n ## ]] #\n3",
    "code": "`[[ ## a ## ]]`\nParis\n`[[ ## n ## ]]`\n3",
    "list": "1. [[ ## a ## ]] Paris\n2. [[ ## n ## ]] 3",
    "bullets": "- [[ ## a ## ]]\nParis\n- [[ ## n ## ]]\n3",
    "in one line": "Answer: [[ ## a ## ]] Paris [[ ## n ## ]] 3 [[ ## completed ## ]]",
    "one of two": "[[ ## a ## ]]\nParis\n\n**[[ ## n ## ]]**\n3\n\n[[ ## completed ## ]]",
}


@pytest.mark.parametrize("shape", MARKERS)
def test_a_marker_is_found_however_it_is_decorated(shape: str) -> None:
    fields, repairs = ChatAdapter().read(TWO, MARKERS[shape])
    assert fields == {"a": "Paris", "n": 3}
    assert repairs, "what was done is reported"
    assert {repair.code for repair in repairs} <= {"marker-decorated", "marker-in-line"}


VALUES: list[tuple[str, str, Any, str | None]] = [
    ("Literal['Yes', 'No']", "yes", "Yes", "case"),
    ("Literal['Yes', 'No']", "**NO**", "No", "case"),
    ("Literal['Yes', 'No']", "Yes.", "Yes", "decoration"),
    ("Literal['Yes', 'No']", "`Yes`", "Yes", "decoration"),
    ("Optional[Literal['a']]", "A", "a", "case"),
    ("Colour", "Red", Colour.RED, "case"),
    ("Colour", "SKY", Colour.BLUE, "case"),
    ("Colour", "blue", Colour.BLUE, "case"),
    ("Colour", "**red**", Colour.RED, "decoration"),
    ("bool", "**True**", True, "decoration"),
    ("bool", "No.", False, "decoration"),
    ("int", "1,234", 1234, "number"),
    ("int", "-1,234,567", -1234567, "number"),
    ("int", "42 apples", 42, "number"),
    ("int", "42km", 42, "number"),
    ("int", "**42**", 42, "decoration"),
    ("int", "42.", 42, None),
    ("Optional[int]", "7 days.", 7, "number"),
    ("float", "90%", 0.9, "number"),
    ("float", "12.5 %", 0.125, "number"),
    ("float", "1,234.5", 1234.5, "number"),
    ("float", "36.6°C", 36.6, "number"),
    ("float", "120 km/h", 120.0, "number"),
    ("int", "```\n42\n```", 42, "fence"),
    ("bool", "```python\nTrue\n```", True, "fence"),
]  # fmt: skip


@pytest.mark.parametrize(("type_text", "text", "value", "code"), VALUES)
def test_a_near_miss_of_a_value_is_read(type_text: str, text: str, value: Any, code: str | None) -> None:
    signature = Signature(f"q -> a: {type_text}", types=TYPES)
    fields, repairs = ChatAdapter().read(signature, f"[[ ## a ## ]]\n{text}\n\n[[ ## completed ## ]]")
    assert fields == {"a": value}
    assert type(fields["a"]) is type(value)
    assert [(repair.field, repair.code) for repair in repairs] == ([] if code is None else [("a", code)])


@pytest.mark.parametrize(
    ("adapter", "reply", "value"),
    [
        (ChatAdapter(), "  Paris \n", "Paris"),
        (JSONAdapter(), "Paris", "Paris"),
        (XMLAdapter(), "Paris", "Paris"),
        (ChatAdapter(), "```\nParis\n```", "```\nParis\n```"),
    ],
)
def test_a_bare_answer_is_the_only_field(adapter: Any, reply: str, value: str) -> None:
    fields, repairs = adapter.read("q -> a", reply)
    assert fields == {"a": value}
    assert [repair.code for repair in repairs] == ["no-marker"]


@pytest.mark.parametrize(
    ("adapter", "signature", "reply"),
    [
        (ChatAdapter(), TWO, "Paris, 3"),
        (ChatAdapter(), "q -> a", ""),
        (ChatAdapter(), "q -> a", "[[ ## b ## ]]\nParis"),
        (ChatAdapter(), TWO, "[[ ## a ## ]]\nSee [[ ## n ## ]] and [[ ## n ## ]]: 3"),
        (JSONAdapter(), "q -> a", '{"b": "Paris"}'),
        (XMLAdapter(), "q -> a", "<b>Paris</b>"),
        (XMLAdapter(), "q -> a", "<a>Paris & <a>Rome</a>"),
    ],
)
def test_a_reply_without_a_sure_place_for_a_field_is_refused(
    adapter: Any, signature: str, reply: str
) -> None:
    with pytest.raises(ReplyError, match="reply-"):
        adapter.parse(signature, reply)


def test_xml_that_is_not_well_formed_is_cut_at_the_fields_own_tags() -> None:
    fields, repairs = XMLAdapter().read(TWO, "<a>\nR & D < all\n</a>\n<n>3</n>")
    assert fields == {"a": "R & D < all", "n": 3}
    assert {repair.code for repair in repairs} == {"xml"}


@pytest.mark.parametrize("shape", MARKERS)
def test_dspys_letter_does_not_read_a_decorated_marker(shape: str) -> None:
    adapter = ChatAdapter(parsing="dspy")
    if shape == "indented":  # DSPy takes it, and leaves a part of the marker in the value
        assert adapter.parse("q -> a", MARKERS[shape]) == {"a": "]]\n  Paris"}
    else:
        with pytest.raises(ReplyError):
            adapter.parse(TWO, MARKERS[shape])


def test_a_field_may_still_be_left_out() -> None:
    reply = "**[[ ## a ## ]]** Paris"
    assert ChatAdapter().parse("q -> a, n: Optional[int]", reply) == {"a": "Paris", "n": None}


def test_a_member_whose_name_is_the_value_of_another_is_ambiguous_in_other_case() -> None:
    class Crossed(enum.Enum):
        A = "b"
        b = "c"

    signature = Signature.of("q -> a: Crossed", types={"Crossed": Crossed})
    assert ChatAdapter().parse(signature, "[[ ## a ## ]]\nb") == {"a": Crossed("b")}
    with pytest.raises(ReplyError, match=r"'B' may be <Crossed\.A: 'b'> or <Crossed\.b: 'c'>"):
        ChatAdapter().parse(signature, "[[ ## a ## ]]\nB")


LEFT_ALONE: list[tuple[Any, str, str, dict[str, Any]]] = [
    # A field that may be left out is, or the neighbour is repaired: what DSPy reads stays as it is.
    (
        XMLAdapter(),
        "q -> tags: list[str], note: Optional[str]",
        "<tags><item>a</item><item>b</item></tags>",
        {"tags": ["a", "b"], "note": None},
    ),
    (
        XMLAdapter(),
        "q -> tags: list[str], score: float",
        "<tags><item>a</item><item>b</item></tags><score>90%</score>",
        {"tags": ["a", "b"], "score": 0.9},
    ),
    (
        XMLAdapter(),
        "q -> code, a: Optional[str], n: int",
        "<code><![CDATA[x < y]]></code>\r\n<a></a><n>5\r\nkm</n>",
        {"code": "x < y", "a": None, "n": 5},
    ),
    (
        ChatAdapter(),
        "q -> a, c: Optional[float]",
        "[[ ## a ## ]]\nParis\n\n[[ ## notes ## ]]\nmore",
        {"a": "Paris", "c": None},
    ),
    (
        ChatAdapter(),
        TWO,
        "[[ ## a ## ]]\nParis\n\n[[ ## notes ## ]]\nmore\n[[ ## n ## ]]\n5 km",
        {"a": "Paris", "n": 5},
    ),
    (
        ChatAdapter(),
        "q -> d: dict, n: int",
        '[[ ## d ## ]]\n{"x": "[[ ## completed ## ]]"}\n[[ ## n ## ]]\n5 km',
        {"d": {"x": "[[ ## completed ## ]]"}, "n": 5},
    ),
    (
        ChatAdapter(),
        "q -> a, o: Optional[str]",
        "[[ ## a ## ]]\nx\n**[[ ## o ## ]]** y",
        {"a": "x\n**[[ ## o ## ]]** y", "o": None},
    ),
    (
        JSONAdapter(),
        "q -> a: list[str], n: int",
        '{"a": ["x",], "n": "5 km"}',
        {"a": ["x"], "n": 5},
    ),
]


@pytest.mark.parametrize(("adapter", "signature", "reply", "fields"), LEFT_ALONE)
def test_what_dspy_reads_is_left_alone(
    adapter: Any, signature: str, reply: str, fields: dict[str, Any]
) -> None:
    assert adapter.parse(signature, reply) == fields


def test_one_broken_element_changes_no_other() -> None:
    reply = "<a>R & D\r\n&lt; <![CDATA[<b>&amp;]]></a>\n<l><item>x</item><item>y</item></l>"
    assert XMLAdapter().parse("q -> a, l: list[str]", reply) == {
        "a": "R & D\n< <b>&amp;",
        "l": ["x", "y"],
    }


EMPHASIS = {
    "**[[ ## a ## ]]\nParis\nx**": "Paris\nx",
    "_[[ ## a ## ]] Paris_": "Paris",
    "**[[ ## a ## ]]\n**Paris** is **big**": "**Paris** is **big**",
    "* [[ ## a ## ]] *Paris*": "*Paris*",
    "`[[ ## a ## ]]\nParis`\n`[[ ## completed ## ]]`": "Paris",
}


@pytest.mark.parametrize("reply", EMPHASIS)
def test_emphasis_that_opens_before_a_marker_may_close_behind_the_value(reply: str) -> None:
    assert ChatAdapter().parse("q -> a", reply) == {"a": EMPHASIS[reply]}
    stream = ChatAdapter().stream("q -> a")
    told = [event for piece in reply for event in stream.feed(piece)] + stream.finish()
    assert "".join(event.text for event in told if isinstance(event, TextDelta)) == EMPHASIS[reply]


@pytest.mark.parametrize("before", ["\u00b2) ", "*" * 40, "so "])
def test_a_marker_inside_a_line_is_not_told_as_the_text_of_another_field(before: str) -> None:
    reply = f"[[ ## a ## ]]\nParis\n{before}[[ ## b ## ]] London"
    stream = ChatAdapter().stream("q -> a, b")
    told = [event for piece in reply for event in stream.feed(piece)] + stream.finish()
    text = "".join(event.text for event in told if isinstance(event, TextDelta))
    assert text == ChatAdapter().parse("q -> a, b", reply)["a"] == f"Paris\n{before.strip()}"


def test_a_mention_of_a_marker_is_told_when_it_is_sure_that_it_is_one() -> None:
    stream = ChatAdapter().stream("q -> a, b")
    told = [event for piece in "[[ ## a ## ]]\nsee [[ ## b ## ]] below\nx" for event in stream.feed(piece)]
    assert "".join(event.text for event in told if isinstance(event, TextDelta)) == "see"
    told = stream.feed("\n[[ ## b ## ]]\ny") + stream.finish()
    texts = [(event.field, event.text) for event in told if isinstance(event, TextDelta) and event.text]
    assert texts == [("a", " [[ ## b ## ]] below\nx"), ("b", "y")]
    assert not any(isinstance(event, Correction) for event in told)


def test_a_field_inside_one_that_is_not_closed_is_not_told_as_its_text() -> None:
    stream = XMLAdapter().stream("q -> b: Optional[str], a")
    told = stream.feed("<b>x <a>y</a>") + stream.finish()
    assert "".join(event.text for event in told if isinstance(event, TextDelta)) == "x"
    assert stream.read()[0] == {"b": None, "a": "y"}


def test_a_repair_shows_the_text_that_it_was_done_to() -> None:
    """Not the value that was made of it."""
    _, repairs = XMLAdapter().read("q -> l: list[int]", "<answer><l>[1, 2</l>")
    assert [(repair.code, repair.found) for repair in repairs] == [("xml", "[1, 2"), ("cut-off", "[1, 2")]


class Picky(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def look_up(cls, size: int) -> int:
        return {1: 1}[size]


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
def test_what_a_validator_raises_refuses_a_reply_where_dspy_says_so_with_tolerance_too(parsing: Any) -> None:
    """DSPy 3.3 takes any error for a refusal, 3.4 a ValueError only."""
    signature = Signature("q -> a: Picky", types={"Picky": Picky})
    reply = '[[ ## a ## ]]\n{"size": 2}'
    with pytest.raises(ReplyError) as refused:
        ChatAdapter(parsing=parsing, dialect="3.3").parse(signature, reply)
    assert refused.value.code == "reply-field-value"
    assert isinstance(refused.value.__cause__, KeyError)
    with pytest.raises(KeyError):
        ChatAdapter(parsing=parsing, dialect="3.4").parse(signature, reply)
