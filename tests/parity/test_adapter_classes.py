"""Class signatures, with all that a field may say of itself, give DSPy's messages and DSPy's values."""

from __future__ import annotations

import datetime
import decimal
import enum
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.parity.test_adapters import ADAPTERS, outcome, thorough
from tests.parity.versions import REFUSALS
from typing_extensions import TypedDict

import dspex
import dspex.errors


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad «»"
    FOUR = 4


class Size(enum.StrEnum):
    S = "small"
    L = "large"


class Author(pydantic.BaseModel):
    """Who wrote it."""

    name: str = pydantic.Field(description="in full", min_length=1)
    born: datetime.date | None = None
    moods: list[Mood] = pydantic.Field(default_factory=list, max_length=3)


class Book(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    title: str = pydantic.Field(alias="Title")
    author: Author
    price: decimal.Decimal = decimal.Decimal("1.5")
    sequel: Book | None = None


class Movie(TypedDict, total=False):
    name: str
    year: int


class Span(NamedTuple):
    start: int
    end: int = -1


@pydantic.dataclasses.dataclass
class Place:
    city: str
    at: tuple[float, float] = (0.0, 0.0)


TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    bytes,
    list[str],
    dict[str, float],
    int | None,
    str | int,
    Optional[str],  # noqa: UP045 - both spellings are of interest
    Union[int, list[str]],  # noqa: UP007
    Literal["a", "b's", 'c"'],
    Literal[1, "one", True],
    Optional[Literal["x"]],  # noqa: UP045
    Annotated[int, pydantic.Field(ge=1, description="counted")],
    Annotated[list[str], pydantic.Field(max_length=2)] | None,
    Mood,
    Size,
    list[Size],
    Author,
    Book,
    list[Book],
    dict[str, Author],
    Author | None,
    Author | Movie,
    Movie,
    Span,
    Place,
    datetime.date,
    datetime.timedelta,
    decimal.Decimal,
    frozenset[int],
    tuple[int, str, float],
    list[list[Mood]],
    Any,
    object,
    None,
]

NUMBERS: list[dict[str, Any]] = [
    {"gt": 3},
    {"ge": 0, "le": 9},
    {"lt": -2, "description": "how many"},
    {"multiple_of": 5},
]
SIZED: list[dict[str, Any]] = [{"min_length": 1, "max_length": 8}, {"max_length": 2}]


def bounds(annotation: Any) -> list[dict[str, Any]]:
    """What pydantic lets a field of that type say of its values."""
    if annotation in (int, float, decimal.Decimal):
        return [{}, *NUMBERS]
    if annotation is str:
        return [{}, *SIZED, {"pattern": r"^\w+$"}]
    return [{}, *SIZED] if annotation in (bytes, list[str], dict[str, float], list[Book]) else [{}]


TYPED_VALUES: list[Any] = [
    Mood.GOOD,
    Size.L,
    Author(name="Ann", born=datetime.date(1990, 1, 2), moods=[Mood.FOUR]),
    Book(Title="t", author=Author(name="né «»"), sequel=Book(Title="u", author=Author(name="x"))),
    {"name": "m", "year": 2000},
    Span(1),
    Place("Rome"),
    datetime.timedelta(days=1, seconds=2),
    decimal.Decimal("1.10"),
    frozenset([1]),
    [Mood.BAD, Author(name="a"), {"k": Size.S}],
    b"raw",
]

WRITTEN = [
    "good",
    "GOOD",
    "4",
    "small",
    '{"name": "Ann", "born": "1990-01-02", "moods": ["bad «»", 4]}',
    '{"Title": "t", "author": {"name": "a"}, "price": "2.50"}',
    '{"title": "t", "author": {"name": "a"}}',
    '[{"Title": "t", "author": {"name": "a"}, "extra": 1}]',
    '{"k": {"name": "a", "born": null}}',
    '{"name": "m", "year": "2000"}',
    "[1, 2]",
    '{"start": 1}',
    '{"city": "Rome", "at": [1, 2]}',
    "2024-02-30",
    "P1DT2S",
    "1.10",
    '[1, "a", 2.5]',
    '[["good"], [4]]',
    "None",
]


@st.composite
def fields(draw: st.DrawFn, make: Any) -> tuple[Any, Any]:
    annotation = draw(st.sampled_from(TYPES))
    said = dict(draw(st.sampled_from(bounds(annotation))))
    said |= draw(st.sampled_from([{}, {}, {"desc": draw(cases.text)}, {"desc": "${x}"}, {"desc": ""}]))
    if make is dspy.OutputField or draw(st.booleans()):
        said |= draw(st.sampled_from([{}, {}, {"default": None}, {"default": 3}, {"default_factory": list}]))
    return annotation, make(**said)


@st.composite
def signatures(draw: st.DrawFn) -> type[dspy.Signature]:
    names = draw(st.lists(st.sampled_from(cases.NAMES), unique=True, min_size=1, max_size=5))
    split = draw(st.integers(0, len(names)))
    inputs = {name: draw(fields(dspy.InputField)) for name in names[:split]}
    outputs = {name: draw(fields(dspy.OutputField)) for name in names[split:]}
    instructions = draw(st.one_of(st.just("Do it.\n\n    Well."), cases.text))
    made: type[dspy.Signature] = dspy.make_signature({**inputs, **outputs}, instructions)
    return made


values = st.one_of(st.sampled_from(TYPED_VALUES), cases.values)


def records(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.fixed_dictionaries(dict.fromkeys(names, values)),
        st.dictionaries(st.sampled_from([*names, "unknown"]), values),
    )


@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
@thorough
@given(data=st.data())
def test_messages_of_class_signatures_are_dspys(theirs: Any, ours: Any, data: st.DataObject) -> None:
    theirs_signature = data.draw(signatures())
    names = list(theirs_signature.fields)
    inputs, demos = data.draw(records(names)), data.draw(st.lists(records(names), max_size=2))

    expected = outcome(lambda: theirs.format(theirs_signature, demos, inputs), TypeError, AttributeError)
    got = outcome(
        lambda: ours.format(dspex.Signature.of(theirs_signature), demos, inputs), dspex.errors.InputError
    )
    assert got == expected


@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
@thorough
@given(data=st.data())
def test_replies_to_class_signatures_are_read_as_dspy_reads_them(
    theirs: Any, ours: Any, data: st.DataObject
) -> None:
    theirs_signature = data.draw(signatures())
    written = st.one_of(st.sampled_from(WRITTEN), st.sampled_from(cases.TEXTS))
    layout = {
        dspy.ChatAdapter: "[[ ## {} ## ]]\n{}\n\n",
        dspy.JSONAdapter: '"{}": {}, ',
        dspy.XMLAdapter: "<{0}>\n{1}\n</{0}>\n",
    }[type(theirs)]
    reply = "".join(layout.format(name, data.draw(written)) for name in theirs_signature.output_fields)
    if isinstance(theirs, dspy.JSONAdapter):
        reply = f"{{{reply.rstrip(', ')}}}"

    # A value that cannot be hashed, for an enum: DSPy lets the TypeError through.
    expected = outcome(lambda: theirs.parse(theirs_signature, reply), *REFUSALS, TypeError)
    got = outcome(lambda: ours.parse(dspex.Signature.of(theirs_signature), reply), dspex.errors.ReplyError)
    assert got == expected
