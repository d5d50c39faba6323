"""Signatures from strings, read by dspex and by the installed DSPy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dspy
import pydantic
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
def test_a_type_is_the_one_dspy_makes(annotation: Any) -> None:
    ours, theirs = both(f"given: {annotation}, plain -> made: {annotation}")

    assert list(ours.fields) == list(theirs.fields)
    for name, field in theirs.fields.items():
        assert ours.fields[name].annotation == field.annotation
        assert repr(ours.fields[name].annotation) == repr(field.annotation)


@pytest.mark.parametrize("name", NAMES)
def test_prefix_desc_and_instructions_are_dspys(name: Any) -> None:
    ours, theirs = both(f"{name}, other -> result: int")

    assert ours.instructions == theirs.instructions
    assert ours.signature == theirs.signature
    for key, field in theirs.fields.items():
        assert ours.fields[key].prefix == field.json_schema_extra["prefix"]
        assert ours.fields[key].desc == field.json_schema_extra["desc"]
        assert ours.fields[key].kind == field.json_schema_extra["__dspy_field_type"]


@pytest.mark.parametrize(
    "text", ["question -> answer", "number: int, names: list[str], other -> made, sum: int"]
)
def test_a_class_made_for_dspy_shows_its_fields_as_dspys_does(text: Any) -> None:
    """Optimizers put that into prompts."""
    ours, theirs = both(text)
    assert str(ours.to_dspy()) == str(theirs)


@pytest.mark.parametrize("text", REFUSED)
def test_what_dspy_refuses_is_refused(text: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception):  # noqa: B017, PT011 - DSPy raises whatever Python or pydantic does
            dspy.Signature(text)
    with pytest.raises(SignatureError) as caught:
        Signature(text)
    span = caught.value.span
    assert span is not None
    start, end = span
    assert 0 <= start <= end <= len(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a, *rest, b -> c", "parameter-marker"),
        ("a, /, b -> c", "parameter-marker"),
        ("**options -> c", "parameter-marker"),
        ("a -> b): pass\ndef g(x", "syntax"),
        ("a: string.Formatter -> b", "unknown-name"),
        ("a: list['Nope'] -> b", "unknown-name"),
        ("a: Literal[int] -> b", "literal-value"),
        ("a: Literal[...] -> b", "literal-value"),
        ("a: Literal[('x', 'y'),] -> b", "literal-value"),
        ("a: list[int, str] -> b", "type-arguments"),
        ("a: list[()] -> b", "type-arguments"),
        ("a: dict[()] -> b", "type-arguments"),
        ("a: ClassVar -> b", "unsupported-type"),
        ("\uff43lass -> b", "keyword-name"),
        ("a: Literal['\\N{BULLET}'] -> b", "invalid-escape"),
        ("a = [x for x in ()] -> b", "syntax"),
        ("a = f(x) -> b", "default-value"),
    ],
)
def test_what_nobody_can_want_is_refused(text: Any, code: Any) -> None:
    """`docs/dspy_differences.md` gives the reasons."""
    with pytest.raises(SignatureError) as caught:
        Signature(text)

    assert caught.value.code == code


def test_a_name_is_found_wherever_it_stands_and_only_where_the_signature_is_made() -> None:
    class Inner(pydantic.BaseModel):
        x: int

    def elsewhere(text: Any) -> Any:
        return Signature(text)

    assert Signature("a: list[Inner], b: NoneType -> c").fields["a"].annotation == list[Inner]
    with pytest.raises(SignatureError, match="'Inner' is not known"):
        elsewhere("a: Inner -> b")
