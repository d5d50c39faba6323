"""Broken JSON is made whole as json_repair makes it: the usual breaks in one walk, others by its rules."""

from __future__ import annotations

import importlib.metadata
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import json_repair
import pytest
import regex
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from dspex import JSONAdapter
from dspex._core import braced, guess_json, json_repair_rules, repair_json

CORPUS = json.loads((Path(__file__).parents[2] / "testdata/replies/broken_json.json").read_text())

DSPYS_PATTERN = regex.compile(r"\{(?:[^{}]|(?R))*\}", regex.DOTALL)

# Words with all that a careless repair may stumble over.
WORDS = [
    *["fox,", "jumps:", "(lazy)", "It's", '"quoted"', "[1]", "{x}", "{x: 1}", "{x: [1, 2]}", "{k: [", "[]}"],
    *["a/b", "//", "#", "\\", "é", "名", "\n", "new\ttab", "`code`", "'q'", "“smart”", "„low”", "true"],
    *["None", ",", "]", "}", ":", "{", "[", "```", "'", "''", "plain", "words.", "5 km", "http://x.y"],
    *["", "a, b", "key:", "\r\n", "\u2028", "\u00a0", "end\n", "\\n", "x\\", "[a-z]", "\x0b", "\b", "/"],
    "😀",
]  # fmt: skip
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
plain = st.sampled_from(["plain", "two words", "It's so.", "a, b", "é", "line\nbreak", 'say "hi"', ""])
scalars = (
    (texts | plain)
    | (texts | plain)
    | st.integers(-(10**6), 10**6)
    | st.sampled_from([0.5, -1.25, 1e10, 12345678901234567890])
    | st.booleans()
    | st.none()
)
keys = st.sampled_from(["a", "key", "b_c", "two words", "名", "n-1", "it's", "t", "none", "9x", "_u", "a:b"])
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=6
)
documents = st.dictionaries(keys, values, max_size=4) | st.lists(values, max_size=4)


def single(value: Any) -> str:
    """A document with single quotes."""
    match value:
        case str():
            inside = json.dumps(value, ensure_ascii=False)[1:-1].replace('\\"', '"')
            return "'" + inside.replace("'", "\\'") + "'"
        case dict():
            return "{" + ", ".join(f"{single(key)}: {single(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(single, value)) + "]"
    return json.dumps(value)


def bare(value: Any) -> str:
    """A document with keys without quotes."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {bare(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(bare, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


BEFORE = [
    "Here you go:\n",
    "Sure! ",
    "Note (this): ",
    "# Title\n",
    "a/b ",
    "\n(x) ",
    'It\'s "so": ',
    "```json\n",
]
AFTER = ["", "\nDone.", "}", "]", " (see below)", "\n// end", ", then", "\n```", ', "x": 1', " [1]"]
COMMENTS = [
    " // note\n",
    ' // it\'s, "so"\n',
    "# note\n",
    " /* c */ ",
    "/* it's: [1] */",
    " // a]b}c\n",
    "/*/",
]


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A document, broken."""
    document = draw(documents)
    write: Callable[[Any], str] = draw(
        st.sampled_from(
            [
                lambda d: json.dumps(d, ensure_ascii=False),
                lambda d: json.dumps(d, indent=2),
                *[single, repr, bare],
            ]
        )
    )
    text = write(document)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        bracket = draw(st.sampled_from("]}"))
        kinds = [
            "around",
            "comma",
            "cut",
            "names",
            "comment",
            "breaks",
            "few commas",
            "brackets",
            "character",
        ]
        match draw(st.sampled_from([*kinds, "quotes"])):
            case "around":
                text = draw(st.sampled_from(["", *BEFORE])) + text + draw(st.sampled_from(AFTER))
            case "comma":
                comma = draw(st.sampled_from([",", ", ", ",\n", ",,"]))
                text = text.replace(bracket, comma + bracket, draw(st.integers(1, 3)))
            case "cut":
                text = text[:at]
            case "names":
                text = text.replace("true", "True").replace("false", "False").replace("null", "None")
            case "comment":
                text = text[:at] + draw(st.sampled_from(COMMENTS)) + text[at:]
            case "breaks":
                text = text.replace("\\n", "\n")
            case "few commas":
                text = text.replace(
                    ", ", draw(st.sampled_from([" ", "\n", ",,", " ,"])), draw(st.integers(1, 2))
                )
            case "brackets":
                text = text.replace(bracket, draw(st.sampled_from(["", "]", "}"])), 1)
            case "character":
                text = text[:at] + draw(st.sampled_from(" ,:{}[]\"'\\\n#/*`abc1-.")) + text[at:]
            case "quotes":
                text = text.replace('"', "'", draw(st.integers(1, 6)))
    return text


def is_strict(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@given(broken())
def test_what_is_repaired_is_repaired_as_json_repair_does_it(text: str) -> None:
    assume(not is_strict(text))
    whole = repair_json(text)
    if whole is None:
        reject()
    assert repr(whole[0]) == repr(json_repair.loads(text))


@pytest.mark.parametrize("part", ["whole", "cut_off"])
def test_the_corpus_says_what_json_repair_says(part: str) -> None:
    for text, value in CORPUS[part]:
        assert repr(value) == repr(json_repair.loads(text)), text
        assert repr(repair_json(text)) == repr((value, part == "cut_off")), text


# --- what takes a guess -----------------------------------------------------------------------------------


def test_the_rules_are_those_of_the_installed_json_repair() -> None:
    """With another: compare its parser with the core's module `guess`, follow it, and name it there."""
    assert importlib.metadata.version("json_repair") == json_repair_rules


def outcome(read: Callable[[str], Any], text: str) -> str:
    try:
        return repr(read(text))
    except (ValueError, AssertionError, RecursionError):
        return "an error"


def guessed(text: str) -> Any:
    return guess_json(text)[0]


def theirs(text: str) -> Any:
    return json_repair.loads(text, skip_json_loads=True)


# All that a rule of json_repair's looks for.
PIECES = [
    *[
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        '"',
        "'",
        "“",
        "”",
        "„",
        "\\",
        "\n",
        "\r",
        " ",
        ",",
        ":",
        "#",
        "//",
        "/*",
        "*/",
    ],
    *[
        "/",
        "```",
        "```json",
        "`",
        "...",
        ".",
        "a",
        "key",
        "true",
        "NULL",
        "None",
        "false",
        "tr",
        "1",
        "-",
        "2.5",
    ],
    *[
        "1e5",
        "1_0",
        "+",
        "E",
        "9" * 25,
        '\\"',
        "\\'",
        "\\u00e9",
        "\\ud83d",
        "\\ude00",
        "\\x41",
        "\\n",
        "\\\\",
    ],
    *['"a": ', '{"a": ', '", "', '"key": "value"', "[1, 2]", "{x: 1}", '{"a": 1}', '"}', '"]', "},", "],"],
    *[
        "é",
        "²",
        "名",
        "\x00",
        "\u2028",
        "_",
        "<",
        "x,y",
        ", b: c",
        '"":',
        "\ud83d",
        "[a-z",
        "[[1], [2]]",
        "\x1c",
    ],
]
pieces = st.lists(st.sampled_from(PIECES), min_size=1, max_size=24).map("".join)
opened = st.tuples(st.sampled_from(["", "", '{"a": "', '["', "{a: ", "[{", "x "]), pieces).map("".join)


@given(opened | broken())
def test_what_takes_a_guess_is_guessed_as_json_repair_guesses(text: str) -> None:
    assert outcome(guessed, text) == outcome(theirs, text)


@pytest.mark.parametrize("part", ["whole", "cut_off", "doubtful"])
def test_the_corpus_is_guessed_as_json_repair_guesses(part: str) -> None:
    for case in CORPUS[part]:
        text = case if isinstance(case, str) else case[0]
        assert outcome(guessed, text) == outcome(theirs, text), text


# --- how much of it takes none ----------------------------------------------------------------------------

SENTENCES = [
    "Homer wrote the Iliad.",
    "The quick brown fox, it's said, jumps over the lazy dog.",
    "See https://example.org/a?b=c#d for more.",
    'She said "maybe" and left.',
    "Line one.\nLine two:\n- a, b\n- c",
    "def f(x):\n    return {x: [1, 2]}\n",
    "$1,234.50 (about 10%)",
    "Zürich, 名古屋 & Co.",
    "key: value",
    "[1] Smith et al. (2020), {name}",
    "**bold** and `code`",
    "Yes",
]


def document(some: random.Random, depth: int = 0) -> dict[str, Any]:
    """What a model is asked for."""

    def value(depth: int) -> Any:
        kind = some.random()
        if depth > 2 or kind < 0.5:
            return some.choice(SENTENCES)
        if kind < 0.7:
            return some.choice([0, 1, 42, -3, 0.75, 1999, True, False, None])
        if kind < 0.85:
            return [value(depth + 1) for _ in range(some.randint(0, 3))]
        return document(some, depth + 1)

    names = some.sample(
        ["answer", "reasoning", "items", "confidence", "sources", "is_ok"], some.randint(1, 4)
    )
    return {name: value(depth) for name in names}


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def with_names(value: Any, _: random.Random) -> str:
    names = {"true": "True", "false": "False", "null": "None"}
    return re.sub("true|false|null", lambda match: names[match[0]], written(value))


def with_comment(value: Any, some: random.Random) -> str:
    lines = written(value).split("\n")
    lines[some.randrange(len(lines))] += some.choice([" // a note", " # a note", " /* a note */"])
    return "\n".join(lines)


# Each break, and how much of it at least takes no guess.
BREAKS: dict[str, tuple[Callable[[Any, random.Random], str], float]] = {
    "a fence": (lambda d, _: f"```json\n{written(d)}\n```", 1),
    "text around it": (lambda d, _: f"Sure! Here it is:\n\n{written(d)}\n\nAnything else?", 1),
    "a comma at the end": (lambda d, _: written(d)[:-2] + ",\n}", 1),
    "commas at every end": (lambda d, _: re.sub(r'(["\d\]}el])(\s*[\]}])', r"\1,\2", written(d)), 1),
    "no brackets at the end": (lambda d, _: written(d).rstrip("}] \n"), 1),
    "single quotes": (lambda d, _: single(d), 0.98),
    "as Python prints it": (lambda d, _: repr(d), 0.98),
    "Python's names": (with_names, 1),
    "a comment": (with_comment, 0.98),
    "line breaks in strings": (lambda d, _: written(d).replace("\\n", "\n"), 1),
    "keys without quotes": (lambda d, _: bare(d), 1),
    "a comma missing": (lambda d, _: written(d).replace(",\n", "\n", 1), 0.9),
    "a brace too many": (lambda d, _: written(d) + "}", 1),
    # In the middle of a constant, or in the first key, json_repair makes a guess.
    "cut off anywhere": (lambda d, some: (text := written(d))[: some.randint(2, len(text) - 1)], 0.75),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_common_break_of_an_ordinary_document_takes_no_guess(name: str) -> None:
    write, least = BREAKS[name]
    some = random.Random(7)
    texts = [text for _ in range(600) if not is_strict(text := write(document(some), some))]
    assert len(texts) > 100
    native = 0
    for text in texts:
        whole = repair_json(text)
        if whole is not None:
            native += 1
            assert repr(whole[0]) == repr(json_repair.loads(text)), text
        value, steps = guess_json(text)
        assert repr(value) == repr(json_repair.loads(text)), text
        # Ordinary documents stay far from the bound, however they are broken: a tenth of it.
        assert steps < 50 * (len(text) + 20), text
    print(f"{name}: {native} of {len(texts)} take no guess")
    assert native >= least * len(texts)


def test_common_breaks_of_a_reply_take_no_guess(monkeypatch: Any) -> None:
    monkeypatch.setattr("dspex._engine.replies.guess_json", lambda *_: 1 / 0)
    adapter = JSONAdapter(parsing="dspy")
    for reply in (
        '```json\n{"a": "x", "l": [1, 2]}\n```',
        'Here it is: {"a": "x", "l": [1, 2]}',
        '{"a": "x", "l": [1, 2,],}',
        '{"a": "x", "l": [1, 2',
        '{"l": [1, 2], "a": "x',
        "{'a': 'x', 'l': [1, 2]}",
        '{"a": "x", // why\n"l": [1, 2]}',
        '{a: "x", l: [1, 2]}',
    ):
        assert adapter.parse("q -> a, l: list[int]", reply) == {"a": "x", "l": [1, 2]}
    assert adapter.parse("q -> a: bool", '{"a": True}') == {"a": True}


@given(st.lists(st.sampled_from(["{", "}", "a", "{}", '"', "\n", "[", "é"]), max_size=14).map("".join))
def test_what_is_in_braces_is_what_dspys_pattern_finds(text: str) -> None:
    found = DSPYS_PATTERN.search(text)
    assert braced(text) == (found[0] if found else None)
