"""Types and turns that are DSPy's own give the same messages and the same values."""

from __future__ import annotations

import datetime
import enum
import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import dspy
import pydantic
import pytest
from dspy import experimental
from dspy.adapters.types.tool import ToolCallResults
from dspy.experimental import Citations, Document
from hypothesis import given
from hypothesis import strategies as st
from pydantic.errors import PydanticInvalidForJsonSchema
from tests.parity.versions import NEWER_THAN_33, REFUSALS
from tests.support.generated import fewer
from typing_extensions import TypedDict

import dspex
from dspex.errors import ReplyError, SignatureError

ADAPTERS = [
    pytest.param(dspy.ChatAdapter(), dspex.ChatAdapter(parsing="dspy"), id="chat"),
    pytest.param(
        dspy.JSONAdapter(use_native_function_calling=False), dspex.JSONAdapter(parsing="dspy"), id="json"
    ),
    pytest.param(dspy.XMLAdapter(), dspex.XMLAdapter(parsing="dspy"), id="xml"),
]


class Colour(enum.Enum):
    RED = "red"
    TWO = 2


class Number(enum.IntEnum):
    ONE = 1


class Point(pydantic.BaseModel):
    x: int
    label: str | None = pydantic.Field(default=None, alias="Label", description="what to call it")


class Tree(pydantic.BaseModel):
    value: int
    children: list[Tree] = []


class Row(TypedDict):
    name: str
    points: list[Point]


class Shout(dspy.Type):
    text: str

    def format(self) -> list[dict[str, Any]]:
        return [{"type": "text", "text": self.text.upper()}, {"type": "shout", "é": "\"'\n"}]

    @classmethod
    def description(cls) -> str:
        return "Loud text."


def tool(city: str, days: int = 1) -> str:
    """Look up the weather."""
    return f"{city} {days}"


IMAGE_URL = "data:image/png;base64,AAAA"
IMAGE = dspy.Image(url=IMAGE_URL)
CALLS = dspy.ToolCalls.from_dict_list([{"name": "tool", "args": {"city": "Paris"}}])

DOCUMENT = Document(data='The "sky" is <blue>.', title="T", context="c")
CITED = Citations.from_dict_list(
    [
        {
            "cited_text": "é",
            "document_index": 0,
            "start_char_index": 0,
            "end_char_index": 1,
            "supported_text": "s",
        }
    ]
)
RESULTS = ToolCallResults.model_validate(
    {"tool_call_results": [{"call_id": "c1", "name": "tool", "value": {"t": [1, IMAGE_URL]}}]}
)

START, END = "<<CUSTOM-TYPE-START-IDENTIFIER>>", "<<CUSTOM-TYPE-END-IDENTIFIER>>"

TYPES: dict[str, Any] = {
    "Colour": Colour,
    "Number": Number,
    "Point": Point,
    "Tree": Tree,
    "Row": Row,
    "Shout": Shout,
    "Image": dspy.Image,
    "Audio": dspy.Audio,
    "File": dspy.File,
    "Tool": dspy.Tool,
    "ToolCalls": dspy.ToolCalls,
    "Code": dspy.Code,
    "Java": dspy.Code["java"],
    "Reasoning": dspy.Reasoning,
    "ToolCallResults": ToolCallResults,
    "History": dspy.History,
    "Document": Document,
    "Citations": Citations,
    "date": datetime.date,
}
if NEWER_THAN_33:
    TYPES |= {"Choice": experimental.Choice["yes", "no"], "Score": experimental.Score}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("image: Image, q -> a", {"image": IMAGE, "q": "What?"}),
    "two images": ("images: list[Image] -> a", {"images": [IMAGE, IMAGE]}),
    "image in a dict": ("images: dict[str, Image] -> a", {"images": {'"k"': IMAGE}}),
    "image as output": ("q -> image: Image, more: Optional[list[Image]]", {"q": "?"}),
    "audio": ("sound: Audio -> a", {"sound": dspy.Audio(data="QUJD", audio_format="wav")}),
    "file": ("file: File -> a", {"file": dspy.File(file_id="f1", filename="n.pdf")}),
    "own type": ("s: Shout, l: list[Shout] -> t: Shout", {"s": Shout(text="a"), "l": [Shout(text="b")]}),
    "tools": ("tools: list[Tool], q -> calls: ToolCalls", {"tools": [dspy.Tool(tool)], "q": "?"}),
    "documents": ("docs: list[Document], one: Document, q -> a, sources: Citations", {
        "docs": [DOCUMENT, Document(data="plain")], "one": DOCUMENT, "q": "?"
    }),
    "citations": ("sources: Citations, q -> more: Citations, d: Document", {"sources": CITED, "q": "?"}),
    "results": ("results: ToolCallResults, q -> a", {"results": RESULTS, "q": "?"}),
    "nothing given": ("image: Optional[Image], file: Optional[File], q -> a", {"image": None, "q": "?"}),
    "types in types": ("all: dict[str, list[Image]], pair: tuple[Image, str], q -> a", {
        "all": {"k": [IMAGE], "none": []}, "pair": (IMAGE, "x"), "q": "?"
    }),
    "code": ("code: Code, java: Java -> fixed: Java", {"code": dspy.Code(code="x = 1\n"), "java": "int x;"}),
    "reasoning": ("q -> reasoning: Reasoning, a", {"q": "?"}),
    "models": ("p: Point, l: list[Tree] -> t: Tree, r: Row, ps: list[Point], o: Optional[Point]", {
        "p": Point(x=1, Label="one"),
        "l": [Tree(value=1, children=[Tree(value=2)])],
    }),
    "enums": ("c: Colour, l: list[Colour], n: Number -> d: Colour, m: Number", {
        "c": Colour.RED,
        "l": [Colour.TWO],
        "n": Number.ONE,
    }),
    "dates": ("d: date -> e: date, f: dict[date, date]", {"d": datetime.date(2024, 1, 2)}),
    "a marker in plain text": ("q -> a", {"q": f"x {START}no json{END}"}),
    "half a marker": ("q -> a", {"q": f"x {START} y"}),
}  # fmt: skip


def signatures(source: str) -> tuple[type[dspy.Signature], dspex.Signature]:
    return dspy.Signature(source, custom_types=TYPES), dspex.Signature(source, types=TYPES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
def test_messages_with_dspys_types_are_dspys(theirs: Any, ours: Any, case: str) -> None:
    source, inputs = CASES[case]
    their_signature, our_signature = signatures(source)
    demos = [{**inputs, **dict.fromkeys(their_signature.output_fields, "out")}, inputs]
    assert ours.format(our_signature, demos, inputs) == theirs.format(their_signature, demos, inputs)


Sql: Any = dspy.Code["sql"]


class Described(dspy.Signature):
    """Answer the question.

    Twice indented.
    """

    q = dspy.InputField(desc="What is asked")
    n: int = dspy.InputField(gt=3, le=7, description="how many")
    empty: str = dspy.InputField(desc="", default="none")
    code: Sql = dspy.InputField(desc="to run")
    a: str = dspy.OutputField(desc="${a}", min_length=2)
    b: list[int] = dspy.OutputField(default_factory=list, desc="several\nlines")
    c: int | None = dspy.OutputField()
    d: dict = dspy.OutputField(default={"k": []}, max_length=4)  # type: ignore[type-arg]  # is the case


@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
def test_what_a_class_says_of_its_fields_is_shown_and_stands_in(theirs: Any, ours: Any) -> None:
    demos = [{"q": "x", "a": "y"}]
    expected = theirs.format(Described, demos, {"q": "?", "n": 4})
    assert ours.format(Described, demos, {"q": "?", "n": 4}) == expected

    for reply in ("[[ ## a ## ]]\nyes", '{"a": "yes"}', "<a>yes</a>", "no"):
        expected = outcome(partial(theirs.parse, Described, reply), *REFUSALS)
        assert outcome(partial(ours.parse, Described, reply), ReplyError) == expected


def test_a_default_is_each_replys_own() -> None:
    adapter, reply = dspex.ChatAdapter(parsing="dspy"), "[[ ## a ## ]]\nyes"
    adapter.parse(Described, reply)["d"]["k"].append(1)
    assert adapter.parse(Described, reply) == {"a": "yes", "b": [], "c": None, "d": {"k": []}}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
def test_turns_and_demos_with_dspys_types_are_dspys(theirs: Any, ours: Any, case: str) -> None:
    source, inputs = CASES[case]
    their_signature, our_signature = signatures(f"history: History, {source}")
    # What is an input here may be an output there: every type on both sides.
    values = {**inputs, **dict(zip(their_signature.output_fields, inputs.values(), strict=False))}
    demos = [{**values, "history": dspy.History(messages=[])}, values]
    turns = [values, inputs, {**inputs, **dict.fromkeys(their_signature.output_fields)}]
    now = {**inputs, "history": dspy.History(messages=turns)}
    assert ours.format(our_signature, demos, now) == theirs.format(their_signature, demos, now)


TURNS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "plain": [{"q": "one", "a": "1"}, {"q": "two", "a": 2}],
    "without answer": [{"q": "one"}, {"q": None, "a": None}],
    "without question": [{"a": "1"}, {"other": "x"}, {}],
    "an image": [{"q": IMAGE, "a": "seen"}],
    "calls": [{"q": "one", "calls": CALLS}],
    "calls as a dict": [{"q": "one", "calls": {"tool_calls": [{"name": "tool", "args": {}}]}}],
    "calls with results": [
        {
            "q": "one",
            "calls": {
                "tool_calls": [{"name": "tool", "args": {"city": "Rome"}, "id": "c1"}],
                "tool_call_results": {
                    "tool_call_results": [{"call_id": "c1", "name": "tool", "value": "sunny"}]
                },
            },
        },
        {"q": "two", "a": "done"},
    ],
}


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize(
    "source",
    ["q, history: History -> a", "history: History, q -> calls: ToolCalls, a", "history: History -> a"],
)
@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
def test_turns_are_dspys(theirs: Any, ours: Any, source: str, turns: str) -> None:
    their_signature, our_signature = signatures(source)
    demos = [
        {"q": "demo", "a": "x", "calls": CALLS, "history": dspy.History(messages=[])},
        {"q": "d", "a": "y"},
    ]
    for inputs in ({"q": "now", "history": dspy.History(messages=TURNS[turns])}, {"q": "now"}):
        expected = theirs.format(their_signature, demos, inputs)
        assert ours.format(our_signature, demos, inputs) == expected
        if "history" in inputs:
            plan = ours.compile(our_signature)
            assert plan.render({"q": "now"}, demos, history=TURNS[turns]) == expected


def outcome(call: Any, *refused: type[Exception]) -> tuple[str, Any]:
    try:
        return "value", repr(call())
    except refused:
        return "refused", None


REPLIES: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[2] / "testdata/replies/typed.json").read_text()
)


IN_OTHERS = ["list[{}]", "Optional[{}]", "dict[str, {}]"]


def replies_of(value: str) -> list[str]:
    return [f"[[ ## a ## ]]\n{value}", f'{{"a": {value}}}', f"<a>{value}</a>"]


def assert_read_alike(theirs: Any, ours: Any, name: str, replies: list[str]) -> None:
    their_signature, our_signature = signatures(f"q -> a: {name}")
    # DSPy lets through what a type raises that is no ValueError.
    expected = [outcome(partial(theirs.parse, their_signature, r), *REFUSALS, TypeError) for r in replies]
    got = [outcome(partial(ours.parse, our_signature, r), ReplyError) for r in replies]
    assert dict(zip(replies, got, strict=True)) == dict(zip(replies, expected, strict=True))
    # Tolerance refuses with the same class, and reads no less.
    loose = type(ours)()
    for reply, (kind, _) in zip(replies, expected, strict=True):
        assert outcome(partial(loose.parse, our_signature, reply), ReplyError)[0] in (kind, "value")


@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
def test_no_prompt_asks_for_a_tool(theirs: Any, ours: Any) -> None:
    their_signature, our_signature = signatures("q -> a: Tool")
    with pytest.raises(PydanticInvalidForJsonSchema):
        theirs.format(their_signature, [], {"q": "?"})
    with pytest.raises(SignatureError) as caught:
        ours.format(our_signature, [], {"q": "?"})
    assert caught.value.code == "no-json-schema"


READ = sorted(TYPES.keys() - {"Tool"})
"""What a model can be asked for."""


@pytest.mark.parametrize("name", [*READ, "list[Point]", "Optional[Tree]", "dict[str, Point]"])
@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
def test_replies_of_dspys_types_are_read_as_dspy_reads_them(theirs: Any, ours: Any, name: str) -> None:
    replies = [reply for value in REPLIES["values"] for reply in replies_of(value)]
    assert_read_alike(theirs, ours, name, replies + [f"<a>{value}</a>" for value in REPLIES["elements"]])


# What DSPy's types are made of; no path and no address is real.
PARTS = st.sampled_from(REPLIES["keys"])
LEAVES = st.sampled_from(REPLIES["strings"]) | st.integers(-1, 2) | st.booleans() | st.none()
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(PARTS, inner, max_size=4),
    max_leaves=6,
)


def elements(value: Any) -> str:
    """The value in XML."""
    if isinstance(value, dict):
        return "".join(f"<{name}>{elements(item)}</{name}>" for name, item in value.items())
    if isinstance(value, list):
        return "".join(f"<item>{elements(item)}</item>" for item in value)
    return str(value)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a reply made somebody fetch something")

    monkeypatch.setattr("requests.sessions.Session.request", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(("theirs", "ours"), ADAPTERS)
@fewer(30)
@given(data=st.data())
def test_any_reply_for_a_type_of_dspys_is_read_as_dspy_reads_it(
    theirs: Any, ours: Any, name: str, data: st.DataObject
) -> None:
    form = data.draw(st.sampled_from(["{}", "{}", *IN_OTHERS]))
    value = data.draw(NESTED | st.dictionaries(PARTS, LEAVES, max_size=4))
    text = json.dumps(value, ensure_ascii=False)
    replies = [*replies_of(text), *replies_of(json.dumps(text)), f"<a>{elements(value)}</a>"]
    if isinstance(value, str):
        replies += replies_of(value)
    assert_read_alike(theirs, ours, form.format(name), replies)


NOTED = Annotated[list[str], "with a note"]


@pytest.mark.parametrize("text", ["None", "null", "a", "", '["a"]', "[", "<item>a</item>", "1", "{}"])
@pytest.mark.parametrize(
    "kind",
    [NOTED, NOTED | None, NOTED | str, list[str] | None, Annotated[dict[str, int], "x"] | None],
    ids=str,
)
def test_text_in_a_tag_is_read_by_a_type_that_pydantic_alone_knows(kind: Any, text: str) -> None:
    theirs = dspy.Signature("q -> a").with_updated_fields("a", type_=kind)
    ours = dspex.Signature.of(theirs)
    reply = f"<a>{text}</a>"
    expected: Any
    try:
        expected = dspy.XMLAdapter().parse(theirs, reply)
    except REFUSALS:
        expected = None
    try:
        made: Any = dspex.XMLAdapter(parsing="dspy").parse(ours, reply)
    except ReplyError:
        made = None
    assert repr(made) == repr(expected)
