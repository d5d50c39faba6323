"""Generated signatures, values and replies, for comparing adapters with DSPy's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
from hypothesis import strategies as st

import dspex

# Few plain names and few odd ones: a name matters to a prompt only by its characters.
NAMES = [
    "question",
    "context",
    "answer",
    "reasoning",
    "x",
    "n2",
    "naïve",
    "名前",
    "user_id",
    "HTTPCode",
    "completed",
]

TYPES = [
    "str",
    "int",
    "float",
    "bool",
    "list[str]",
    "list[int]",
    "list[float]",
    "list[list[int]]",
    "list",
    "dict",
    "dict[str, int]",
    "dict[str, list[str]]",
    "dict[int, str]",
    "Optional[int]",
    "Optional[str]",
    "Optional[float]",
    "Optional[list[str]]",
    "Optional[Literal['a', 'b']]",
    "Union[int, str]",
    "Union[int, str, None]",
    "Literal['yes', 'no']",
    "Literal['it\\'s', \"q\\\"\", 'x y']",
    "Literal[1, 2, 3]",
    "Literal['a', 1, True, None]",
    "list[Literal['a', 'b']]",
    "list[Optional[bool]]",
    "tuple[int, str]",
    "tuple[int, ...]",
    "set[int]",
    "Any",
    "dict[str, Any]",
    "datetime.datetime",
]

# All of what JSON, strip and splitlines treat specially, beside ordinary letters.
_SPECIAL = "\n\r\t\v\f\x1c\x1f\x7f\x85\xa0\u2028\u3000\"'\\/<>&[]{}#`«»:, é名😀"
text = st.text(st.one_of(st.sampled_from(_SPECIAL), st.characters(exclude_categories=["Cs"])), max_size=24)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**30), max_value=10**30),
    st.floats(),
    st.sampled_from([1e20, 1e16, 1e-5, 0.1, -0.0, 5.0]),
    text,
)

values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(
            st.one_of(text, st.integers(), st.booleans(), st.none(), st.floats()), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


@st.composite
def signatures(draw: st.DrawFn) -> tuple[type[dspy.Signature], dspex.Signature]:
    """The same signature for DSPy and for us."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    split = draw(st.integers(0, len(names)))
    fields = [f"{name}: {draw(st.sampled_from(TYPES))}" for name in names]
    source = f"{', '.join(fields[:split])} -> {', '.join(fields[split:])}"
    instructions = draw(st.one_of(st.none(), text, st.just("  Two\n    lines.\n\n  And a third.")))
    theirs = dspy.Signature(source, instructions)
    return theirs, dspex.Signature(source, instructions)


def records(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Values for some of the names, or all, and now and then for one that no signature has."""
    complete = st.fixed_dictionaries(dict.fromkeys(names, values))
    return st.one_of(complete, st.dictionaries(st.sampled_from([*names, "unknown"]), values))


_CORPUS = json.loads((Path(__file__).parents[2] / "testdata/replies/values.json").read_text())

TEXTS: list[str] = _CORPUS["text"]
"""What models write for the value of a field, well or badly."""

reply_values = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(TEXTS).map(lambda word: f"  {word}\n"),
    text,
    st.builds(lambda a, b: f"{a}\n{b}", st.sampled_from(TEXTS), text),
)


@st.composite
def chat_replies(draw: st.DrawFn, names: list[str]) -> str:
    """A reply in the layout of chat, more or less."""
    parts = [draw(st.sampled_from(["", "Sure!\n"]))]
    pool = (
        st.sampled_from([*names, *names, "completed", "other", "unk nown"]) if names else st.just("completed")
    )
    order = draw(st.one_of(st.just(names), st.lists(pool, max_size=6)))
    for name in order:
        indent = draw(st.sampled_from(["", "", "", "  ", "\u3000", "**"]))
        gap = draw(st.sampled_from(["\n", "\n", "\n\n", " ", "  ", "\r\n", "\u2028", ""]))
        end = draw(st.sampled_from(["\n\n", "\n", "\r\n", "\x85"]))
        parts.append(f"{indent}[[ ## {name} ## ]]{gap}{draw(reply_values)}{end}")
    parts.append(draw(st.sampled_from(["", "[[ ## completed ## ]]", "[[ ## completed ## ]]\n"])))
    return "".join(parts)


@st.composite
def json_replies(draw: st.DrawFn, names: list[str]) -> str:
    """A reply in the layout of JSON, more or less."""
    pool = st.sampled_from([*names, *names, "other"]) if names else st.just("other")
    order = draw(st.one_of(st.just(names), st.lists(pool, max_size=6)))
    strings = text.map(lambda t: json.dumps(t, ensure_ascii=False))
    entries = [f'"{name}": {draw(st.one_of(st.sampled_from(_CORPUS["json"]), strings))}' for name in order]
    body = draw(st.sampled_from([", ", ",\n  ", ",", " "])).join(entries)
    before = draw(st.sampled_from(["", "", "", "Here:\n", "```json\n", "[", "\ufeff", "{} "]))
    after = draw(st.sampled_from(["}", "}", "}", "}\n", "", "}\n```", ",}", "}]", "} {}", "}\nDone {1}."]))
    return f"{before}{{{body}{after}"


XML_VALUES: list[str] = [
    *[
        "1",
        "-2",
        "007",
        "1.5",
        "nan",
        "true",
        "False",
        "yes",
        "a",
        "[1, 2]",
        '["a"]',
        "null",
        "",
        " ",
        "1 &lt; 2",
    ],
    *[
        "<item>1</item><item>2</item>",
        "<item>a</item>",
        "<item>1</item>x",
        "<item/>",
        "<item><item>1</item></item>",
    ],
    *[
        "<a>1</a>",
        "<a>x</a><b>y</b>",
        '<entry key="b c">1</entry>',
        "<a><item>x</item></a>",
        "<a>1</a><a>2</a>",
    ],
    *[
        "<b>bold</b> text",
        "x <i>y</i> z",
        "<a/>",
        "&amp;",
        "&#65;",
        "&quot;q&quot;",
        "a > b",
        "]]>",
        "a & b",
        "a < b",
    ],
    *[
        "<![CDATA[x < y]]>",
        "<!-- c -->1",
        "<?pi?>1",
        "<x:a>1</x:a>",
        '<a xmlns="u">1</a>',
        '<a k="v">1</a>',
        "&nope;",
    ],
    *[
        "<1>2</1>",
        "<a>1",
        "\x0b",
        "2024-01-01T10:00:00",
        "<entry>1</entry>",
        '<item key="k">1</item>',
        "\u2028x\xa0",
    ],
]
"""What models write between the tags of a field, well or badly."""


@st.composite
def xml_replies(draw: st.DrawFn, names: list[str]) -> str:
    """A reply in the layout of XML, more or less."""
    pool = st.sampled_from([*names, *names, "other"]) if names else st.just("other")
    order = draw(st.one_of(st.just(names), st.lists(pool, max_size=6)))
    value = st.one_of(st.sampled_from(XML_VALUES), st.sampled_from(TEXTS), text)
    parts = [draw(st.sampled_from(["", "", "Sure:\n", "a & b\n"]))]
    for name in order:
        pad = draw(st.sampled_from(["\n", "", "\r\n", " \n"]))
        parts.append(f"<{name}>{pad}{draw(value)}{pad}</{name}>\n")
    parts.append(draw(st.sampled_from(["", "", "", "Done.", "</x>", "<completed/>"])))
    return "".join(parts)
