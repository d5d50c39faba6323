"""JSON that is broken in the usual ways is made whole as json_repair makes it, or left to json_repair."""

from __future__ import annotations

import json
from typing import Any

import json_repair
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.parity.test_adapters import thorough

from dspex import JSONAdapter
from dspex._core import repair_json

# Words with all that a careless repair may stumble over.
WORDS = [
    "fox,",
    "jumps:",
    "(lazy)",
    "It's",
    '"quoted"',
    "[1]",
    "{x}",
    "a/b",
    "#",
    "\\",
    "é",
    "名",
    "\n",
    "new\ttab",
]
WORDS += ["`code`", "'q'", "“smart”", "true", "None", ",", "]", "}", ":", "plain", "words.", "5 km"]
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
scalars = (
    texts
    | texts
    | st.integers(-(10**6), 10**6)
    | st.sampled_from([0.5, -1.25, 1e10])
    | st.booleans()
    | st.none()
)
keys = st.sampled_from(["a", "key", "two words", "名"])
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=6
)
documents = st.dictionaries(keys, values, max_size=4) | st.lists(values, max_size=4)


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A document, broken."""
    text = json.dumps(draw(documents), ensure_ascii=False, indent=draw(st.sampled_from([None, 2])))
    for _ in range(draw(st.integers(1, 2))):
        match draw(st.sampled_from(["prose", "fence", "comma", "cut", "python"])):
            case "prose":
                before = draw(st.sampled_from(["Here you go:\n", "Sure! ", ""]))
                text = before + text + draw(st.sampled_from(["", "\nDone.", "\n"]))
            case "fence":
                text = f"```json\n{text}" + draw(st.sampled_from(["\n```", ""]))
            case "comma":
                bracket = draw(st.sampled_from("]}"))
                text = text.replace(bracket, "," + bracket, draw(st.integers(1, 3)))
            case "cut":
                text = text[: draw(st.integers(1, len(text)))]
            case "python":
                text = text.replace("true", "True").replace("false", "False").replace("null", "None")
    return text


def read(text: str) -> Any:
    try:
        return repr(json.loads(text))
    except ValueError:
        return None


@thorough
@given(broken())
def test_what_is_repaired_is_repaired_as_json_repair_does_it(text: str) -> None:
    assume(read(text) is None)
    whole = repair_json(text)
    assume(whole is not None)
    assert read(whole) in (None, repr(json_repair.loads(text)))


def test_common_breaks_of_a_reply_never_reach_json_repair(monkeypatch: Any) -> None:
    monkeypatch.setattr(json_repair, "loads", lambda *_: 1 / 0)
    adapter = JSONAdapter(parsing="dspy")
    for reply in (
        '```json\n{"a": "x", "l": [1, 2]}\n```',
        'Here it is: {"a": "x", "l": [1, 2]}',
        '{"a": "x", "l": [1, 2,],}',
        '{"a": "x", "l": [1, 2',
        '{"l": [1, 2], "a": "x',
    ):
        assert adapter.parse("q -> a, l: list[int]", reply) == {"a": "x", "l": [1, 2]}
    assert adapter.parse("q -> a: bool", '{"a": True}') == {"a": True}
