"""The prefix of a field is DSPy's, whatever the name is written with."""

from __future__ import annotations

import itertools
import sys
import unicodedata

from dspy.signatures.signature import infer_prefix

from dspex.signature import InputField, Signature


def is_known(text: str) -> bool:
    """Whether this Python's Unicode has all the characters; Rust's is newer and has more."""
    return all(unicodedata.category(char) != "Cn" for char in text)


def prefixes(names: list[str]) -> dict[str, str]:
    # A text is read a hundred times faster; in a text, Python normalises names.
    if all(unicodedata.is_normalized("NFKC", name) for name in names):
        fields = Signature(f"{', '.join(names)} -> output").input_fields
    else:
        fields = Signature({name: (str, InputField()) for name in names}).fields
    assert list(fields) == names
    return {name: field.prefix for name, field in fields.items()}


def test_every_character_at_the_head_of_a_word_becomes_what_python_makes_it() -> None:
    chars = filter(is_known, map(chr, range(sys.maxunicode + 1)))
    names = (f"a_{char}b" for char in chars if f"a{char}".isidentifier())
    compared = 0
    while some := list(itertools.islice(names, 100)):
        ours = {name: prefix for name, prefix in prefixes(some).items() if is_known(prefix)}
        assert ours == {name: infer_prefix(name) + ":" for name in ours}
        compared += len(ours)
    assert compared > 130_000
