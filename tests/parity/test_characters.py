"""Each character of Unicode is to dspex what it is to this Python, whose Unicode may be older than Rust's."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import dspy
from dspy.evaluate.metrics import normalize_text

import dspex
from dspex.errors import SignatureError

CHARS = [chr(code) for code in range(0x80, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
"""All but ASCII and the halves of surrogate pairs."""

UNKNOWN = [char for char in CHARS if unicodedata.category(char) == "Cn"]
"""What this Python's Unicode has not, of which Rust's may have some."""

LATER = [char for char in UNKNOWN if char < "\U00040000"]
"""Those where new characters come: the planes above have no letters."""


def chunks(chars: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(chars), size):
        yield chars[start : start + size]


def test_a_key_is_a_tag_of_xml_where_it_is_for_dspy() -> None:
    signature = dspy.Signature("q -> a")
    theirs, ours = dspy.XMLAdapter(), dspex.dspy.XMLAdapter()
    for some in chunks(CHARS, 20_000):
        demo = {"q": "Q", "a": dict.fromkeys([*some, *(f"a{char}" for char in some)])}
        assert ours.format(signature, [demo], {"q": "Q"}) == theirs.format(signature, [demo], {"q": "Q"})


def test_a_header_ends_a_field_where_it_does_for_dspy() -> None:
    adapter = dspex.ChatAdapter(parsing="dspy")
    plan: Any = adapter.compile("q -> x")
    for char in [*LATER, *CHARS[::40]]:
        header = f"[[ ## a{char} ## ]]"
        rest = "" if re.fullmatch(r"\[\[ ## \w+ ## \]\]", header) else f"\n{header}\nmore"
        assert plan.parse(f"[[ ## x ## ]]\n1\n{header}\nmore") == {"x": f"1{rest}"}, f"{ord(char):x}"


def test_a_name_of_a_signature_is_one_where_python_says_so() -> None:
    for char in [*LATER, *CHARS[::40], "\u200c", "\u200d", "\u30fb", "\uff65"]:
        name = f"zq{char}"
        is_name = name.isidentifier()
        try:
            fields = dspex.Signature(f"{name} -> x").input_fields
        except SignatureError:
            assert not is_name, f"{ord(char):x}"
        else:
            assert is_name == (list(fields) == [unicodedata.normalize("NFKC", name)]), f"{ord(char):x}"


def test_an_answer_is_normalised_as_dspy_does_it() -> None:
    for some in chunks(CHARS, 20_000):
        text = " ".join(f"a{char}B" for char in some)
        ours, theirs = dspex.metrics.normalize(text).split(" "), normalize_text(text).split(" ")
        assert ours == theirs
