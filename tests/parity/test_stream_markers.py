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

import dspex
from dspex.adapters.events import Correction, TextDelta
from dspex.errors import ReplyError

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
