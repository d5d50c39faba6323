"""Where dspex and DSPy are meant to disagree on a string; `docs/dspy_differences.md` gives the reasons.

Each entry looks at the text and at what dspex made of it. It must hold for nothing but its own case, or the
differential test would stop seeing mistakes.
"""

from __future__ import annotations

import re

from dspex.errors import SignatureError
from dspex.signature import Signature

Outcome = Signature | SignatureError


def refused(got: Outcome, *codes: str) -> bool:
    return isinstance(got, SignatureError) and got.code in codes


def markers_of_parameters(_text: str, got: Outcome) -> bool:
    """`*args`, `**kwargs`, `*` and `/` hide fields in DSPy."""
    return refused(got, "parameter-marker")


def none_type_beside_a_dotted_name(text: str, got: Outcome) -> bool:
    """DSPy forgets `NoneType` when a name was found in the caller's frame."""
    return isinstance(got, Signature) and "NoneType" in text and bool(re.search(r":\s*\w+\.", text))


def a_tuple_as_literal(text: str, got: Outcome) -> bool:
    """`Literal[('a', 'b'),]` has one value, a tuple, which no model can answer with."""
    return refused(got, "literal-value") and "Literal[(" in text


def a_computed_default(text: str, got: Outcome) -> bool:
    """A default may be any expression in DSPy, which drops it."""
    return refused(got, "default-value") and "=" in text


def a_union_as_literal(text: str, got: Outcome) -> bool:
    """`Literal[1 | 0]` has one value, a union, which no model can answer with."""
    return refused(got, "literal-value") and bool(re.search(r"Literal\[[^]]*\|", text))


def a_type_as_literal(text: str, got: Outcome) -> bool:
    """`Literal[int]` and `Literal[Literal, 'a']` have a type for a value, which no model can answer with."""
    return refused(got, "literal-value") and bool(re.search(r"Literal\[([^]]*,)?\s*[A-Za-z]\w*\s*[],]", text))


DIFFERENCES = [
    a_computed_default,
    a_tuple_as_literal,
    a_type_as_literal,
    a_union_as_literal,
    markers_of_parameters,
    none_type_beside_a_dotted_name,
]
