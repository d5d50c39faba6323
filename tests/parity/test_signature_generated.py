"""Generated signatures: dspex and the installed DSPy agree on every field, or both refuse."""

from __future__ import annotations

import warnings
from typing import Any

import dspy
import pytest
from dspy.adapters.utils import get_annotation_name
from hypothesis import example, given, note
from tests.parity.signature_differences import DIFFERENCES
from tests.parity.signature_texts import mistakes, signatures

from dspex.errors import SignatureError
from dspex.signature import Signature

pytestmark = pytest.mark.timeout(1_800)


def theirs(text: str) -> type[dspy.Signature] | Exception:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made: type[dspy.Signature] = dspy.Signature(text)
        except Exception as error:  # noqa: BLE001 - whatever Python, typing or pydantic raise
            return error
    return made


def ours(text: str) -> Signature | SignatureError:
    try:
        return Signature(text)
    except SignatureError as error:
        refusal = error
    start, end = refusal.span or (0, -1)
    assert 0 <= start <= end <= len(text)
    assert refusal.code
    assert refusal.hint
    return refusal


def agree(text: str) -> None:
    expected, got = theirs(text), ours(text)
    note(repr(text))
    if isinstance(expected, Exception) or isinstance(got, Exception):
        if isinstance(expected, Exception) and isinstance(got, Exception):
            return
        assert any(covers(text, got) for covers in DIFFERENCES), f"DSPy: {expected!r}\ndspex: {got!r}"
        return
    same(got, expected)
    # What we print of it reads back to the same, here and there.
    assert Signature(got.text) == got
    again = theirs(got.text)
    assert not isinstance(again, Exception), got.text
    same(got, again)


def same(got: Signature, expected: type[dspy.Signature]) -> None:
    assert list(got.fields) == list(expected.fields)
    assert got.instructions == expected.instructions
    assert got.signature == expected.signature
    assert got.dump_state() == expected.dump_state()
    for name, field in expected.fields.items():
        mine, extra = got.fields[name], field.json_schema_extra
        assert mine.annotation == field.annotation
        assert normal(mine.type_name) == normal(get_annotation_name(field.annotation))
        assert mine.kind == extra["__dspy_field_type"]
        assert mine.typed == (not extra.get("IS_TYPE_UNDEFINED", not mine.typed))


def normal(name: str) -> Any:
    """The letters of a type's name, in no order.

    `typing` keeps the first of two equal types that it ever saw, and unions or literals in different orders
    are equal; so the order in DSPy's types depends on what ran before.
    """
    return sorted(name)


@given(signatures())
def test_a_signature_of_the_grammar_is_read_as_dspy_reads_it(text: Any) -> None:
    agree(text)


@given(mistakes())
@example("a: Literal[1] | Literal[Literal, 'other'] -> b")
def test_a_signature_with_a_mistake_is_refused_where_dspy_refuses_it(text: Any) -> None:
    agree(text)
