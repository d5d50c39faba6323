"""Near misses are read and reported; what could be read in two ways is refused."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from dspex import ChatAdapter, JSONAdapter, Signature, XMLAdapter
from dspex.errors import ReplyError


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


VALUES: list[tuple[str, str, Any, str]] = [
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
    crossed = enum.Enum("Crossed", {"A": "b", "b": "c"})
    signature = Signature.of("q -> a: Crossed", types={"Crossed": crossed})
    assert ChatAdapter().parse(signature, "[[ ## a ## ]]\nb") == {"a": crossed("b")}
    with pytest.raises(ReplyError, match=r"'B' may be <Crossed\.A: 'b'> or <Crossed\.b: 'c'>"):
        ChatAdapter().parse(signature, "[[ ## a ## ]]\nB")
