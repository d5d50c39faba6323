"""Every near miss that is promised is read, in each layout that has it; what could be read in two ways is not.

A row is a shape of reply: how it is written in each layout, what it gives, and by which repairs. Its sibling is as
near, but could be read in two ways, and the error says which.
"""

# A table reads best with a row on a line.
# ruff: noqa: E501

from __future__ import annotations

import enum
import json
import random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from dspex import ChatAdapter, InputField, JSONAdapter, OutputField, Signature, XMLAdapter
from dspex._core import near_text
from dspex.errors import ReplyError

ADAPTERS = {"chat": ChatAdapter(), "json": JSONAdapter(), "xml": XMLAdapter()}


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Car(BaseModel):
    color: Color
    share: float = 1.0
    new: bool | None = None


TYPES = {"Color": Color, "Car": Car}
RED = Car(color=Color.RED, share=0.9)


def chat(value: str) -> str:
    return f"[[ ## a ## ]]\n{value}\n\n[[ ## completed ## ]]"


def as_json(value: str) -> str:
    return f'{{"a": {value}}}'


def xml(value: str) -> str:
    return f"<a>\n{value}\n</a>"


def text(value: str) -> dict[str, str]:
    """A value that is a text in every layout."""
    return {"chat": chat(value), "json": as_json(f'"{value}"'), "xml": xml(value)}


def data(value: str) -> dict[str, str]:
    """A value that is JSON in every layout."""
    return {"chat": chat(value), "json": as_json(value), "xml": xml(value)}


class Miss(NamedTuple):
    """A near miss: the types of the outputs, the reply by layout, the fields, the codes of the repairs."""

    types: str
    replies: dict[str, str]
    fields: dict[str, Any]
    codes: set[str]


CHOICE = "a: Literal['Yes', 'No']"
ENDS = {"a": "Paris", "n": 3}
LIST = {"a": ["x", "y"]}

MISSES = {
    # The marker: bold, indented, in a heading, followed by text.
    "bold": Miss("a, n: int", {"chat": "**[[ ## a ## ]]**\nParis\n\n**[[ ## n ## ]]**\n3"}, ENDS, {"marker-decorated"}),
    "indented": Miss("a, n: int", {"chat": "  [[ ## a ## ]]\n  Paris\n  [[ ## n ## ]]\n  3"}, ENDS, {"marker-decorated"}),
    "heading": Miss("a, n: int", {"chat": "## [[ ## a ## ]]\nParis\n\n### [[ ## n ## ]] ###\n3"}, ENDS, {"marker-decorated"}),
    "bold and followed by text": Miss("a, n: int", {"chat": "**[[ ## a ## ]]** Paris\n**[[ ## n ## ]]**: 3"}, ENDS, {"marker-decorated"}),
    "followed by text": Miss("a, n: int", {"chat": "[[ ## a ## ]] Paris\n[[ ## n ## ]] 3"}, ENDS, set()),
    "behind text": Miss("a, n: int", {"chat": "So: [[ ## a ## ]] Paris [[ ## n ## ]] 3"}, ENDS, {"marker-in-line"}),
    "bold with a colon": Miss("a, n: int", {"chat": "**[[ ## a ## ]]:** Paris\n_[[ ## n ## ]]_: 3"}, ENDS, {"marker-decorated"}),
    # Lower and upper case.
    "a choice in other case": Miss(CHOICE, text("YES"), {"a": "Yes"}, {"case"}),
    "a choice that may be left out": Miss("a: Optional[Literal['b', 'c']]", text("B"), {"a": "b"}, {"case"}),
    "a boolean in other case": Miss("a: bool", text("**TRUE**"), {"a": True}, {"decoration"}),
    "a boolean as a sentence": Miss("a: bool", text("No."), {"a": False}, {"decoration"}),
    # Numbers.
    "per cent": Miss("a: float", text("90%"), {"a": 0.9}, {"number"}),
    "per cent with a space": Miss("a: float", text("12.5 %"), {"a": 0.125}, {"number"}),
    "thousands": Miss("a: int", text("1,234,567"), {"a": 1234567}, {"number"}),
    "thousands and a fraction": Miss("a: float", text("-1,234.5"), {"a": -1234.5}, {"number"}),
    "a unit": Miss("a: int", text("42 km"), {"a": 42}, {"number"}),
    "a unit at once": Miss("a: float", text("36.6°C"), {"a": 36.6}, {"number"}),
    # JSON.
    "in a fence": Miss("a: list[str]", {"chat": chat('```json\n["x", "y"]\n```'), "json": '```json\n{"a": ["x", "y"]}\n```'}, LIST, {"json"}),
    "in a fence without a name": Miss("a: list[str]", {"chat": chat('```\n["x", "y"]\n```'), "json": '```\n{"a": ["x", "y"]}\n```'}, LIST, {"json"}),
    # DSPy takes any text in a list of texts for the one item there.
    "in a fence, in XML": Miss("a: list[int]", {"xml": xml("```json\n[1, 2]\n```")}, {"a": [1, 2]}, {"json"}),
    "cut off behind an item": Miss("a: list[str]", {"chat": chat('["x", "y"').partition("\n\n")[0], "json": '{"a": ["x", "y"', "xml": xml('["x", "y"')}, LIST, {"cut-off"}),
    "cut off inside an item": Miss("a: list[list[int]]", {"chat": '[[ ## a ## ]]\n[[1], [2], ["', "json": '{"a": [[1], [2], ["', "xml": xml('[[1], [2], ["')}, {"a": [[1], [2]]}, {"cut-off"}),
    "cut off inside an object": Miss("a: list[dict[str, int]]", {"chat": '[[ ## a ## ]]\n[{"k": 1}, {"l', "json": '{"a": [{"k": 1}, {"l'}, {"a": [{"k": 1}]}, {"cut-off"}),
    "trailing commas": Miss("a: list[str]", data('["x", "y",]'), LIST, {"json"}),
    "single quotes": Miss("a: list[str]", {**data("['x', 'y']"), "json": "{'a': ['x', 'y']}"}, LIST, {"json"}),
    "a comment behind //": Miss("a: list[str]", data('["x", // one\n"y"]'), LIST, {"json"}),
    "a comment behind #": Miss("a: list[str]", data('["x", # one\n"y"]'), LIST, {"json"}),
    "a comment in /* */": Miss("a: list[str]", data('["x", /* one */ "y"]'), LIST, {"json"}),
    "Python's names": Miss("a: list[Optional[bool]]", data("[True, None]"), {"a": [True, None]}, {"json"}),
    "quotes inside a text": Miss("a, n: int", {"json": '{"a": "a "b", "c" d", "n": 3}'}, {"a": 'a "b", "c" d', "n": 3}, {"json"}),
    "a bracket that was not closed": Miss("a: list[dict[str, int]], n: int", {"json": '{"a": [{"k": 1}, "n": 3}'}, {"a": [{"k": 1}], "n": 3}, {"json"}),
    # The one item of a list.
    "one item": Miss("a: list[str]", {"chat": chat("x"), "json": as_json('"x"')}, {"a": ["x"]}, {"one-item"}),
    "one number": Miss("a: list[int]", {"chat": chat("5"), "json": as_json("5")}, {"a": [5]}, {"one-item"}),
    "one item, a near miss": Miss("a: list[float]", {"chat": chat("90%"), "json": as_json('"90%"')}, {"a": [0.9]}, {"one-item", "number"}),
    "one item, in bold": Miss("a: list[bool]", {"chat": chat("**Yes**"), "json": as_json('"**Yes**"')}, {"a": [True]}, {"one-item", "decoration"}),
    "one object": Miss("a: list[dict[str, int]]", data('{"k": 1}'), {"a": [{"k": 1}]}, {"one-item"}),
    "one object, a near miss": Miss("a: list[Car]", data('{"color": "RED", "share": "90%"}'), {"a": [RED]}, {"one-item", "case", "number"}),
    # What stands inside.
    "choices in other case": Miss("a: list[Literal['Yes', 'No']]", {**data('["yes", "NO"]'), "xml": "<a>yes</a><a>NO</a>"}, {"a": ["Yes", "No"]}, {"case"}),
    "choices in elements": Miss("a: list[Literal['Yes', 'No']]", {"xml": "<a><item>yes</item><item>NO</item></a>"}, {"a": ["Yes", "No"]}, {"case"}),
    "numbers": Miss("a: Optional[list[float]]", data('["90%", "1,000", "**3**", 4]'), {"a": [0.9, 1000.0, 3.0, 4.0]}, {"number", "decoration"}),
    "a set": Miss("a: set[Color]", data('["RED", "Red"]'), {"a": {Color.RED}}, {"case"}),
    "a tuple": Miss("a: tuple[Color, int]", data('["RED", "5 km"]'), {"a": (Color.RED, 5)}, {"case", "number"}),
    "a mapping": Miss("a: dict[Color, int]", data('{"RED": "5 km", "blue": 6}'), {"a": {Color.RED: 5, Color.BLUE: 6}}, {"case", "number"}),
    "a model": Miss("a: Car", {**data('{"color": "Red", "share": "90%"}'), "xml": "<a><color>RED</color><share>90%</share></a>"}, {"a": RED}, {"case", "number"}),
    "models": Miss("a: list[Car]", data('[{"color": "red", "new": "Yes."}]'), {"a": [Car(color=Color.RED, new=True)]}, {"decoration"}),
    "cut off behind a near miss": Miss("a: list[Color]", {"chat": '[[ ## a ## ]]\n["RED", "BLU', "json": '{"a": ["RED", "BLU', "xml": xml('["RED", "BLU')}, {"a": [Color.RED]}, {"cut-off", "case"}),
    # No marker.
    "no marker": Miss("a", dict.fromkeys(ADAPTERS, " Paris \n"), {"a": "Paris"}, {"no-marker"}),
    "no marker, a number": Miss("a: int", dict.fromkeys(ADAPTERS, "42"), {"a": 42}, {"no-marker"}),
    "an element in another": Miss("a, n: int", {"xml": "<reply><a>Paris</a><n>3</n></reply>"}, ENDS, {"xml"}),
    "no marker, a choice in other case": Miss(CHOICE, dict.fromkeys(ADAPTERS, "yes"), {"a": "Yes"}, {"no-marker", "case"}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name in MISSES for layout in MISSES[name].replies]
)
def test_a_near_miss_is_read_and_what_was_done_is_listed(name: str, layout: str) -> None:
    miss = MISSES[name]
    fields, repairs = ADAPTERS[layout].read(
        Signature(f"q -> {miss.types}", types=TYPES), miss.replies[layout]
    )
    assert repr(fields) == repr(miss.fields)
    # A fence, and a reply that was cut, are also JSON that was made whole; keys are a way to do it.
    codes = {repair.code for repair in repairs} - {"json-keys"}
    assert codes == miss.codes or codes == {"json"} | miss.codes or codes <= {"json", "cut-off"} >= miss.codes
    assert all(repair.field in {"", "a", "n"} and repair.found for repair in repairs)


MISSING, VALUE = "reply-missing-fields", "reply-field-value"

# What is refused: the types, the reply by layout, the code of the error, and what it has to say.
REFUSED: dict[str, tuple[str, dict[str, str], str, str]] = {
    "a marker that is mentioned twice": ("a, n: int", {"chat": "[[ ## a ## ]]\nSee [[ ## n ## ]] and [[ ## n ## ]]: 3"}, VALUE, "its marker stands in 2 lines, and begins none of them"),
    "a choice that matches two": ("a: Literal['ab', 'AB']", text("Ab"), VALUE, "'Ab' may be 'ab' or 'AB'"),
    "two choices": ("a: Literal['yes', 'no']", text("yes or no"), VALUE, "'yes or no' may be 'yes' or 'no'"),
    "two choices, no marker": ("a: Color", dict.fromkeys(ADAPTERS, "red, or blue"), VALUE, "'red, or blue' may be <Color.RED: 'red'> or <Color.BLUE: 'blue'>"),
    "both booleans": ("a: bool", text("Yes and no."), VALUE, "may be True or False"),
    "a boolean that is neither": ("a: bool", text("maybe"), VALUE, "is no bool"),
    "per cent of a whole number": ("a: int", text("90%"), VALUE, "'90%' may be 90 or a multiple of it"),
    "a scale": ("a: int", text("5 million"), VALUE, "'5 million' may be 5 or a multiple of it"),
    "a unit that may be a scale": ("a: float", text("5 m"), VALUE, "'5 m' may be 5 or a multiple of it"),
    "a scale at once": ("a: int", text("5k"), VALUE, "'5k' may be 5 or a multiple of it"),
    "a scale in the plural": ("a: int", text("5 millions"), VALUE, "'5 millions' may be 5 or a multiple of it"),
    "a scale by the hour": ("a: int", text("5 million/h"), VALUE, "'5 million/h' may be 5 or a multiple of it"),
    "a fraction in words": ("a: float", text("3 quarters"), VALUE, "'3 quarters' may be 3 or a multiple of it"),
    "per cent in short": ("a: float", text("5 pct"), VALUE, "'5 pct' may be 5 or a multiple of it"),
    "about a number": ("a: int", text("about 42"), VALUE, "is no int"),
    "between two numbers": ("a: int", text("between 3 and 4"), VALUE, "'between 3 and 4' may be one number or several"),
    "no number": ("a: int", text(""), VALUE, "is no int"),
    "a comma that may be a point": ("a: float", text("1,5"), VALUE, "'1,5' may be one number or several"),
    "thousands that are none": ("a: int", text("1,23"), VALUE, "'1,23' may be one number or several"),
    "two numbers": ("a: int", text("3 or 4"), VALUE, "'3 or 4' may be one number or several"),
    "a range": ("a: float", text("10-20"), VALUE, "'10-20' may be one number or several"),
    "a number and more": ("a: int", text("42 green apples"), VALUE, "is no int"),
    "a fraction of a whole number": ("a: int", text("3.5"), VALUE, "is no int"),
    "one item or several": ("a: list[int]", {"chat": chat("1 and 2"), "json": as_json('"1 and 2"')}, VALUE, "'1 and 2' may be one item or several"),
    "no item": ("a: list[str]", {"chat": chat("none"), "json": as_json('"none"')}, VALUE, "is no list[str]"),
    "a number where texts are": ("a: list[str]", {"json": as_json("5")}, VALUE, "is no list[str]"),
    "cut off in the first item": ("a: list[dict[str, int]]", {"chat": '[[ ## a ## ]]\n[{"k', "json": '{"a": [{"k', "xml": xml('[{"k')}, VALUE, "cut off in its first item"),
    "an object without end": ("a: dict[str, int]", {"chat": chat('{"k": "x')}, VALUE, "is no dict[str, int]"),
    "no marker, two fields": ("a, n: int", dict.fromkeys(ADAPTERS, "Paris, 3"), "reply-", ""),
    "no marker, no value": ("a: int", dict.fromkeys(ADAPTERS, "I do not know"), "reply-", ""),
    "nothing": ("a", dict.fromkeys(ADAPTERS, " "), "reply-", ""),
    "another field": ("a", {"chat": "[[ ## b ## ]]\nParis", "json": '{"b": "Paris"}', "xml": "<b>Paris</b>"}, MISSING, "has no `a`"),
    "a key that comes twice, broken": ("a, n: int", {"json": '{"a": "x "a": 1" y, "n": }'}, VALUE, "is no int"),
    "a key that nobody knows, between": ("a, n: int", {"json": '{"a": "x" y", "z": "1" 2", "n": ?}'}, VALUE, "is no int"),
    "tags that come twice": ("a", {"xml": "<a>Paris & <a>Rome</a>"}, VALUE, "its tag stands in 2 places"),
    "a scale inside": ("a: list[int]", data('["5 million"]'), VALUE, "'5 million' may be 5 or a multiple of it"),
    "two choices inside": ("a: dict[str, Color]", data('{"k": "red or blue"}'), VALUE, "'red or blue' may be"),
    "two keys that are one": ("a: dict[Color, int]", data('{"red": "5 km", "Red": 1}'), VALUE, "two of its keys are one"),
    "a near miss and a miss": ("a: Car", data('{"color": "RED", "share": "most"}'), VALUE, "is no Car"),
    "objects one after the other": ("a: list[Car]", {"chat": chat('{"color": "RED"} {"color": "BLUE"}')}, VALUE, "is no list[Car]"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name in REFUSED for layout in REFUSED[name][1]]
)
def test_what_could_be_read_in_two_ways_is_refused_with_the_reason(name: str, layout: str) -> None:
    types, replies, code, reason = REFUSED[name]
    with pytest.raises(ReplyError) as caught:
        ADAPTERS[layout].parse(Signature(f"q -> {types}", types=TYPES), replies[layout])
    assert caught.value.code.startswith(code)
    assert reason in str(caught.value)
    assert caught.value.reply == replies[layout]


# --- values of every shape, their texts written otherwise -----------------------------------------------------


def written(value: Any, how: random.Random) -> Any:
    """The value as JSON has it, its texts as near misses."""
    if isinstance(value, BaseModel):
        return {name: written(getattr(value, name), how) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {written(key, how): written(item, how) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [written(item, how) for item in value]
    if isinstance(value, Color):
        return how.choice(
            [value.value, value.name, value.value.upper(), f"**{value.value}**", f"{value.name}."]
        )
    if isinstance(value, bool):
        return how.choice([value, str(value).upper(), f"`{value}`", "Yes." if value else "No."])
    if isinstance(value, int):
        return how.choice([value, f"{value:,}", f"{value} km", f"**{value}**", f"{value}."])
    if isinstance(value, float):
        return how.choice([value, f"{value * 100}%", f"{value} kg", f"_{value}_"])
    return value


LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    Color: st.sampled_from(Color),
    bool: st.booleans(),
    int: st.integers(-(10**7), 10**7),
    float: st.sampled_from([0.5, 0.25, 1.0, 12.5]),
    Car: st.builds(
        Car, color=st.sampled_from(Color), share=st.just(0.5), new=st.sampled_from([None, True, False])
    ),
}


LIST_OF: Any = list
DICT_OF: Any = dict
TUPLE_OF: Any = tuple
"""To be given arguments that only a test knows."""


def shapes(depth: int) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    leaf = st.sampled_from(list(LEAVES.items()))
    if depth == 0:
        return leaf
    inner = shapes(depth - 1)
    return st.one_of(
        leaf,
        inner.map(lambda shape: (LIST_OF[shape[0]], st.lists(shape[1], max_size=3))),
        inner.map(lambda shape: (shape[0] | None, st.none() | shape[1])),
        inner.map(
            lambda shape: (DICT_OF[Color, shape[0]], st.dictionaries(LEAVES[Color], shape[1], max_size=2))
        ),
        st.tuples(inner, inner).map(
            lambda pair: (TUPLE_OF[pair[0][0], pair[1][0]], st.tuples(pair[0][1], pair[1][1]))
        ),
    )


@settings(max_examples=300)
@given(st.data(), st.sampled_from(list(ADAPTERS)), st.randoms(use_true_random=False))
def test_near_misses_inside_a_value_of_any_shape_are_read(
    data: st.DataObject, layout: str, how: random.Random
) -> None:
    annotation, values = data.draw(shapes(3))
    value = data.draw(values)
    signature = Signature({"q": (str, InputField()), "a": (annotation, OutputField())})
    reply = {"chat": chat, "json": as_json, "xml": xml}[layout](json.dumps(written(value, how)))
    assert repr(ADAPTERS[layout].parse(signature, reply)["a"]) == repr(value)


def test_letters_fold_and_digits_count_as_pythons_do() -> None:
    for char in map(chr, [*range(0x80, 0xD800), *range(0xE000, 0x20000)]):
        if (folded := char.casefold()) != char:
            assert near_text(f"a{char}", ([None], [(f"a{folded}", 0)])) == ("case", None), char
        if char.isdecimal():
            assert near_text(char, int) == ("number", int(char)), char
