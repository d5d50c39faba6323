"""Signatures from strings, read by dspex and by the installed DSPy."""

from __future__ import annotations

import warnings
from pathlib import Path

import dspy
import pytest

from dspex.errors import SignatureError
from dspex.signature import Signature

CORPUS = Path(__file__).parents[2] / "testdata" / "signature"
TYPES = (CORPUS / "types.txt").read_text().splitlines()
REFUSED = ["", *(CORPUS / "refused.txt").read_text().splitlines()]
NAMES = ["a", "camelCase", "HTMLParser", "text2number", "a_", "b__c", "iOS", "A1B2", "userID2", "été"]
NAMES += ["\u017f", "\ufb01", "\u1fb3x", "\u01c6abc", "ß9", "\u03a3\u03b1\u03c2", "x\u0663y"]


def both(text: str) -> tuple[Signature, type[dspy.Signature]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Signature(text), dspy.Signature(text)


@pytest.mark.parametrize("annotation", TYPES)
def test_a_type_is_the_one_dspy_makes(annotation):
    ours, theirs = both(f"given: {annotation}, plain -> made: {annotation}")

    assert list(ours.fields) == list(theirs.fields)
    for name, field in theirs.fields.items():
        assert ours.fields[name].annotation == field.annotation
        assert repr(ours.fields[name].annotation) == repr(field.annotation)


@pytest.mark.parametrize("name", NAMES)
def test_prefix_desc_and_instructions_are_dspys(name):
    ours, theirs = both(f"{name}, other -> result: int")

    assert ours.instructions == theirs.instructions
    assert ours.signature == theirs.signature
    for key, field in theirs.fields.items():
        assert ours.fields[key].prefix == field.json_schema_extra["prefix"]
        assert ours.fields[key].desc == field.json_schema_extra["desc"]
        assert ours.fields[key].kind == field.json_schema_extra["__dspy_field_type"]


@pytest.mark.parametrize("text", REFUSED)
def test_what_dspy_refuses_is_refused(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception):  # noqa: B017, PT011 - DSPy raises whatever Python or pydantic does
            dspy.Signature(text)
    with pytest.raises(SignatureError) as caught:
        Signature(text)
    start, end = caught.value.span
    assert 0 <= start <= end <= len(text)
