"""Tolerance touches only what DSPy refuses or misses: every field that DSPy reads keeps DSPy's value."""

from __future__ import annotations

import functools
import json

import dspy
import pytest
from dspy.adapters.chat_adapter import field_header_pattern
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.parity.test_adapters import thorough
from tests.parity.versions import REFUSALS

import dspex

OURS = {"chat": dspex.ChatAdapter, "json": dspex.JSONAdapter, "xml": dspex.XMLAdapter}
THEIRS = {"chat": dspy.ChatAdapter(), "json": dspy.JSONAdapter(), "xml": dspy.XMLAdapter()}
TYPES = ["str", "str", *cases.TYPES, "Optional[dict[str, int]]"]
NAMES = ["u", "v", "n", "naïve", "completed"]

FORMS = {"chat": "[[ ## {} ## ]]\n{}\n\n", "json": '"{}": {}, ', "xml": "<{0}>{1}</{0}>\n"}
OTHER_FORMS = {
    "chat": [
        *[
            "**[[ ## {} ## ]]**\n{}\n",
            "# [[ ## {} ## ]] #\n{}\n",
            "1. [[ ## {} ## ]] {}\n",
            "> `[[ ## {} ## ]]` {}\n",
        ],
        *[
            "**[[ ## {} ## ]]\n{}**\n",
            "  [[ ## {} ## ]]\n{}\n",
            "so [[ ## {} ## ]] {}\n",
            "[[ ## {} ## ]] {}\r\n",
        ],
        *["\u00b2) [[ ## {} ## ]]\n{}\n", "*" * 40 + "[[ ## {} ## ]]\n{}\n", "\u200b[[ ## {} ## ]]\n{}\n"],
    ],
    "json": ["'{}': {}, ", '"{}": {} ', "{}: {}, ", '"{}": "{}, '],
    "xml": ["<r><{0}>{1}</{0}></r>", "<{0}>{1}", "{1}</{0}>", "<{0}>\r\n{1}\r\n</{0}>", "& <{0}>{1}</{0}>"],
}
EXTRA = {
    "chat": [
        "[[ ## notes ## ]]\nmore\n",
        "[[ ## completed ## ]]\n",
        "**[[ ## completed ## ]]**\n",
        "Sure!\n",
    ],
    "json": ['"notes": {"n": 1}, ', "// note\n", "\n"],
    "xml": ["<notes>R &amp; D</notes>", "Sure: ", "<!-- u -->", "<notes><n>1</n></notes>"],
}
MENTIONS = [f"see [[ ## {name} ## ]] there" for name in NAMES]
POOL = {
    "chat": [
        *cases.TEXTS,
        *MENTIONS,
        *(json.dumps({"k": [mention]}) for mention in MENTIONS),
        *["[[ ## completed ## ]]", '["[[ ## completed ## ]]"]', "x\r\ny", "**b** c", "d **", "5 km", "90%"],
    ],
    "json": [
        *map(json.dumps, [*cases.TEXTS[:30], *MENTIONS]),
        '"1, \\"n\\": 2"',
        "[1, 2]",
        '["a"]',
        '{"n": [1]}',
    ],
    "xml": [*cases.XML_VALUES, "x\r\ny", "90%", "<n>3</n>", "<![CDATA[<n>3</n>]]>", "x <u>y</u>"],
}
POOL["json"] += [
    '{"k": 1}',
    "null",
    "true",
    "2.5",
    "3",
    '"yes"',
    '"b"',
    '[1, "a"]',
    "[[1]]",
    "[true, null]",
    '"5 km"',
]


def a_reply(layout: str, parts: str) -> str:
    return f'{{{parts}"z": 0}}' if layout == "json" else parts


@functools.cache
def accepted(layout: str, kind: str) -> list[str]:
    """The values of the pool that DSPy takes for a type."""
    signature = dspy.Signature(f"q -> u: {kind}")
    found = []
    for value in POOL[layout]:
        try:
            THEIRS[layout].parse(signature, a_reply(layout, FORMS[layout].format("u", value)))
        except REFUSALS:
            continue
        found.append(value)
    return found


@st.composite
def fields_of(draw: st.DrawFn) -> dict[str, str]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=4))
    return {name: draw(st.sampled_from(TYPES)) for name in names}


def source_of(fields: dict[str, str]) -> str:
    return "q -> " + ", ".join(f"{name}: {kind}" for name, kind in fields.items())


def often(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 9)) > 0


@st.composite
def value_of(draw: st.DrawFn, layout: str, kind: str) -> str:
    good = accepted(layout, kind)
    value: str = draw(st.sampled_from(good if good and often(draw) else POOL[layout]))
    return value


@st.composite
def replies(draw: st.DrawFn, layout: str, fields: dict[str, str]) -> str:
    """A reply that DSPy may read: fields left out, out of place, repeated, and more than was asked for."""
    parts = []
    for name, kind in fields.items():
        if "Optional" not in kind or draw(st.integers(0, 2)) == 0:
            form = FORMS[layout] if often(draw) else draw(st.sampled_from(OTHER_FORMS[layout]))
            parts.append(form.format(name, draw(value_of(layout, kind))))
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(list(fields)))
        form = draw(st.sampled_from([FORMS[layout], *OTHER_FORMS[layout]]))
        extra = [
            draw(st.sampled_from(EXTRA[layout])),
            form.format(name, draw(value_of(layout, fields[name]))),
        ]
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(extra)))
    if not often(draw):
        parts = draw(st.permutations(parts))
    return a_reply(layout, "".join(parts))


def seen_in_chat(reply: str) -> set[str]:
    """The fields whose markers DSPy sees and cuts away whole."""
    lines: dict[str, str] = {}
    for line in reply.splitlines():
        if match := field_header_pattern.match(line.strip()):
            lines.setdefault(match[1], line)
    return {name for name, line in lines.items() if line.startswith("[[")}


@pytest.mark.parametrize("layout", OURS)
@thorough
@given(data=st.data())
def test_a_field_that_dspy_reads_keeps_its_value(layout: str, data: st.DataObject) -> None:
    fields = data.draw(fields_of())
    source, reply = source_of(fields), data.draw(replies(layout, fields))
    signature = dspy.Signature(source)
    try:
        expected = THEIRS[layout].parse(signature, reply)
    except REFUSALS:
        return
    read, repairs = OURS[layout]().read(source, reply)
    found = {repair.field for repair in repairs if repair.code in FOUND}
    for name, value in expected.items():
        if name not in found:
            assert (name, repr(read[name])) == (name, repr(value))
        elif layout == "chat":
            assert name not in seen_in_chat(reply)
        else:
            assert value is None, "DSPy has found nothing"


FOUND = {"marker-decorated", "marker-in-line", "no-marker", "xml", "json-keys"}
"""Repairs by which a field is found that DSPy does not find."""

# What a model may write for a type, and what it should have written.
NEAR = {
    "str": [("yes", "yes")],
    "int": [("5 km", "5"), ("1,234", "1234")],
    "float": [("90%", "0.9")],
    "bool": [("**YES**", "true")],
    "Literal['yes', 'no']": [("Yes!", "yes")],
    "list[int]": [("5", "[5]")],
}


@st.composite
def refused(draw: st.DrawFn, layout: str) -> tuple[str, str, str]:
    """A signature, a reply that DSPy refuses because of `k` alone, and the reply as it should be."""
    fields = draw(fields_of())
    kind = draw(st.sampled_from(sorted(NEAR)))
    near, good = draw(st.sampled_from(NEAR[kind]))
    marked = layout != "json" and (kind == "str" or draw(st.booleans()))
    told = told_well = ""
    for name in draw(st.permutations([*fields, "k"])):
        if not often(draw):
            part = draw(st.sampled_from(EXTRA[layout][:3]))
            told, told_well = told + part, told_well + part
        if name == "k":
            form = FORMS[layout]
            if marked:  # its marker is what is wrong
                near, form = good, draw(st.sampled_from(MARKED[layout]))
            told += form.format("k", json.dumps(near) if layout == "json" else near)
            told_well += FORMS[layout].format("k", json.dumps(good) if layout == "json" else good)
        elif "Optional" not in fields[name] or draw(st.booleans()):
            part = FORMS[layout].format(name, draw(value_of(layout, fields[name])))
            told, told_well = told + part, told_well + part
    return source_of({**fields, "k": kind}), a_reply(layout, told), a_reply(layout, told_well)


MARKED = {
    "chat": OTHER_FORMS["chat"][:5],
    "xml": ["<r><{0}>{1}</{0}></r>", "& <{0}>{1}</{0}>", "<{0}>{1}</{0}> < "],
}


@pytest.mark.parametrize("layout", OURS)
@thorough
@given(data=st.data())
def test_a_repair_of_one_field_leaves_the_others_as_dspy_reads_them(layout: str, data: st.DataObject) -> None:
    source, told, told_well = data.draw(refused(layout))
    try:
        expected = THEIRS[layout].parse(dspy.Signature(source), told_well)
    except REFUSALS:
        return
    read, repairs = OURS[layout]().read(source, told)
    found = {repair.field for repair in repairs if repair.code in FOUND}
    assert read.keys() == expected.keys()
    for name in expected.keys() - {"k"}:
        # A value that holds a marker has taken in the end of its section; see the next test.
        if "[[ ##" not in repr(expected[name]) and (name not in found or expected[name] is not None):
            assert (name, repr(read[name])) == (name, repr(expected[name]))


def test_a_list_that_has_taken_in_markers_ends_at_the_first_of_them_if_dspy_cannot_read_it() -> None:
    source, read = "q -> v: list[str], k", OURS["chat"]().read
    taken_in = "[[ ## v ## ]]\nhello {world}\n\n**[[ ## completed ## ]]**\n"
    with pytest.raises(REFUSALS):
        THEIRS["chat"].parse(dspy.Signature(source), taken_in + "**[[ ## k ## ]]**\nyes")
    assert read(source, taken_in + "**[[ ## k ## ]]**\nyes")[0] == {"v": ["world}"], "k": "yes"}
    # With a marker that DSPy knows behind it, DSPy reads it, and its value stays.
    well = taken_in + "[[ ## k ## ]]\nyes"
    assert read(source, well)[0] == THEIRS["chat"].parse(dspy.Signature(source), well)


# The neighbours of a field: none is found, one is repaired, a part that nobody asked for stands between.
NEIGHBOURS = {
    "left out": ("o: Optional[float]", {"chat": "", "json": "", "xml": ""}),
    "repaired": (
        "o: float",
        {layout: form.format("o", '"90%"' if layout == "json" else "90%") for layout, form in FORMS.items()},
    ),
    "in other form": ("o", {"chat": "**[[ ## o ## ]]**\nx\n", "json": "'o': 'x', ", "xml": "<o>R & D</o>"}),
}


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("kind", sorted({*TYPES}))
@pytest.mark.parametrize("layout", OURS)
def test_every_value_that_dspy_reads_is_left_alone(layout: str, kind: str, neighbour: str) -> None:
    other, part = NEIGHBOURS[neighbour]
    signature = dspy.Signature(f"q -> u: {kind}")
    ours = OURS[layout]().compile(f"q -> u: {kind}, {other}")
    changed = {}
    for value in accepted(layout, kind):
        own = FORMS[layout].format("u", value)
        expected = THEIRS[layout].parse(signature, a_reply(layout, own))
        for parts in (own + part[layout], own + EXTRA[layout][0] + part[layout]):
            read = ours.parse(a_reply(layout, parts))
            if repr(read["u"]) != repr(expected["u"]):
                changed[parts] = (read["u"], expected["u"])
    assert changed == {}
