"""What has been told while a reply came in is the beginning of what is read at the end.

It is never another field's marker, however the marker is decorated.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity.test_adapters import thorough
from tests.parity.test_reply_stream import ADAPTERS
from tests.parity.test_reply_stream import check as check_cuts

import dspex
from dspex.errors import ReplyError
from dspex.events import Correction, FieldStart, TextDelta

CHARACTERS = [
    *"*_`#>-\"'.):0123",
    "\u0663",
    "\u00b2",
    "\u2460",
    " ",
    "\t",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\u00a0",
    "[",
    "a",
]
decorations = st.one_of(
    st.text(st.sampled_from(CHARACTERS), max_size=4),
    st.text(st.sampled_from("*_` #"), max_size=6),
    st.builds(lambda c, n: c * n, st.sampled_from(CHARACTERS), st.integers(28, 44)),
    st.sampled_from(
        ["1. ", "12) **", "\u0663. ", "\u00b2) ", "> - ", "* ", "- ", "## ", "**", "```", "so **"]
    ),
)
names = st.sampled_from(["a", "b", "a", "b", "x", "completed"])
texts = st.one_of(
    st.sampled_from(
        ["Paris", "**big** and **bold**", "1\n2", "**", "x\r\n\r\ny", "`", "# h #", "", "* a\n* b"]
    ),
    st.text("ab *_`#\n[:", max_size=8),
    names.map("see [[ ## {} ## ]] there".format),
    names.map('["[[ ## {} ## ]]"'.format),
)


@st.composite
def replies(draw: st.DrawFn) -> str:
    parts = [draw(texts)] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        before, behind, name = draw(decorations), draw(decorations), draw(names)
        gap = draw(st.sampled_from(["\n", " ", "", "\r\n", ": "]))
        close = draw(st.sampled_from(["\n", "\n\n", "", f"{before[::-1]}\n"]))
        parts.append(f"{before}[[ ## {name} ## ]]{behind}{gap}{draw(texts)}{close}")
    return "".join(parts)


def told_of(stream: Any, pieces: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    texts: dict[str, str] = {}
    corrections = {}
    for events in [*map(stream.feed, pieces), stream.finish()]:
        for event in events:
            if isinstance(event, TextDelta):
                texts[event.field] = texts.get(event.field, "") + event.text
            elif isinstance(event, Correction):
                corrections[event.field] = event.value
    return texts, corrections


def is_first_plain(name: str, reply: str) -> bool:
    """Whether the first marker of a name that leads a line is one that DSPy sees too, or DSPy sees none."""
    marker = re.escape(f"[[ ## {name} ## ]]")
    plain = re.search(rf"(?m)^\s*{marker}", reply.replace("\r", "\n"))
    return plain is None or plain.end() == reply.replace("\r", "\n").index(f"[[ ## {name} ## ]]") + len(
        f"[[ ## {name} ## ]]"
    )


def check(adapter: Any, source: str, reply: str, pieces: list[str]) -> None:
    stream = adapter.stream(source)
    texts, corrections = told_of(stream, pieces)
    try:
        fields, _ = stream.read()
    except ReplyError:
        return
    assert adapter.read(source, reply) == stream.read()
    for name, text in texts.items():
        value = fields[name]
        if value is None:
            continue
        if is_first_plain(name, reply):
            assert value.startswith(text)
        else:
            # A decorated marker came before the one that DSPy sees.
            assert value.startswith(text) or name in corrections
            markers = re.findall(r"(?m)^\s*\[\[ ## (\w+) ## \]\]", text)
            assert set(markers) <= {name}, "another field's marker is nobody's text"


@pytest.mark.parametrize("source", ["q -> a, b", "q -> a: str, b: Optional[str]"])
@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@thorough
@given(data=st.data())
def test_what_is_told_is_the_beginning_of_what_is_read(
    parsing: Any, source: str, data: st.DataObject
) -> None:
    reply = data.draw(replies())
    adapter = dspex.ChatAdapter(parsing=parsing)
    check(adapter, source, reply, list(reply))
    cut = data.draw(st.integers(0, len(reply)))
    check(adapter, source, reply, [reply[:cut], reply[cut:]])


fences = st.sampled_from(
    ["", "", "```json\n", "```xml\n", "```\n", "Sure:\n", "> ", "**", "1. ", "[", "\ufeff"]
)
strings = st.one_of(
    st.sampled_from(
        [
            "Paris",
            "",
            "x, ",
            "x,\n",
            " , ",
            'say \\"hi\\"',
            "half \\ud83d",
            "{a}",
            "[1",
            "a: b",
            "see <b>x</b>",
        ]
    ),
    st.text("ab ,:}]\\n'*", max_size=8),
    names.map(', "{}": "'.format),
)


@st.composite
def json_replies(draw: st.DrawFn) -> str:
    """An object as a model writes it that was told not to: decorated, quoted otherwise, not closed."""
    entries = []
    for _ in range(draw(st.integers(1, 4))):
        around = draw(st.sampled_from(["", "", "", "**", "`", " "]))
        before = draw(st.sampled_from(["", "", "", "- ", "// note\n", "/* n */"]))
        opened, closed = list(
            draw(st.sampled_from(['""', '""', '""', "''", "\u201c\u201d", "``", '" ', "  "]))
        )
        key = f"{before}{around}{opened}{draw(names)}{closed}{around}"
        string = st.builds('"{}{}'.format, strings, st.sampled_from(['"', '"', '"', "", '",', '" x', "'"]))
        plain = st.sampled_from(["3", "null", "true", "Paris", "[1, 2]", '{"b": "x"}', "**bold**", "'x'"])
        colon = draw(st.sampled_from([": ", ": ", ":", " : ", " = ", ":**", ""]))
        entries.append(f"{key}{colon}{draw(st.one_of(string, plain))}")
    body = draw(st.sampled_from([", ", ", ", ",\n", ",,", " ", "\n", ";"])).join(entries)
    end = draw(st.sampled_from(["}", "}", "", ",}", "}}", "}\n```", "}**", "} so {}"]))
    return f"{draw(fences)}{{{body}{end}"


tags = ["<{}>", "<{} >", "< {}>", '<{} x="1">', "<{}\n>", "&lt;{}&gt;", "<{}/>"]
closed_tags = ["</{}>", "</{} >", "</ {}>", "<//{}>", "", "<{}>", "</x>"]
contents = st.one_of(
    strings,
    st.sampled_from(["1 &lt; 2", "<![CDATA[<b>]]>", "<!-- <a> -->", "<item>1</item>", "<b", "</", "<"]),
    names.map("see <{0}> there".format),
    names.map("<{0}>x</{0}>".format),
    names.map("</{0}>".format),
)


@st.composite
def xml_replies(draw: st.DrawFn) -> str:
    """Tags as a model writes them that was told not to: decorated, with attributes, in code, not closed."""
    plain = draw(st.booleans())  # most of what is decorated all over cannot be read
    before = st.sampled_from([""] if plain else ["", "<root>", "<?xml version='1.0'?>\n", "a & b\n"])
    parts = [draw(fences), draw(before)]
    for name in draw(st.one_of(st.just(["a", "b"]), st.lists(names, min_size=1, max_size=4))):
        mark = draw(st.one_of(st.just(""), decorations))
        opened = draw(st.sampled_from(tags[:1] if plain else tags)).format(name)
        closed = draw(st.sampled_from(closed_tags[:1] if plain else closed_tags)).format(name)
        pad = draw(st.sampled_from(["\n", "", "\r\n", " "]))
        parts.append(f"{mark}{opened}{pad}{draw(contents)}{pad}{closed}{mark[::-1]}\n")
    parts.append(draw(st.sampled_from(["", "", "</root>", "\n```", "<completed/>", "Done."])))
    return "".join(parts)


@pytest.mark.parametrize("source", ["q -> a, b", "q -> a: str, b: Optional[str]", "q -> a, b: list[str]"])
@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize(("layout", "decorated"), [("json", json_replies()), ("xml", xml_replies())])
@thorough
@given(data=st.data())
def test_a_decorated_reply_is_the_same_however_it_is_cut(
    layout: str, decorated: st.SearchStrategy[str], parsing: Any, source: str, data: st.DataObject
) -> None:
    reply = data.draw(decorated).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=12)))
    pieces = [reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply)], strict=True)]
    told = check_cuts(ADAPTERS[layout](parsing=parsing), source, reply, pieces)
    check_cuts(ADAPTERS[layout](parsing=parsing), source, reply, [bytes([byte]) for byte in reply])
    begun = [event.field for event in told if isinstance(event, FieldStart)]
    assert len(begun) == len(set(begun)), "a field begins once"


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize(
    "reply",
    [
        '{"a": "Paris, "b": "x"}',
        '{"a": "Paris,\n "b": "x"}',
        '{"a": "Paris , "b": 3, "c": "d"}',
        '{"a": ", "b": "x"}',
        '{"a": "Paris, ", "b": "x"}',
        '{"a": "Paris, ","b": "x, "}',
        '{"a": "Paris,\t" , "b": ","}',
        '{"a": "Paris, " "b": "x"}',
        '{"a": "x ", "b": "cut, ',
    ],
)
def test_a_text_of_json_whose_quote_is_missing_is_told_without_the_comma_behind_it(
    parsing: Any, reply: str
) -> None:
    stream = dspex.JSONAdapter(parsing=parsing).stream("q -> a, b")
    texts, corrections = told_of(stream, list(reply))
    fields, _ = stream.read()
    assert texts["a"] == fields["a"]
    assert texts | corrections == fields
    check_cuts(dspex.JSONAdapter(parsing=parsing), "q -> a, b", reply.encode(), list(reply))
