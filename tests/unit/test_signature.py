"""The value: what it shows, how it compares, how a mistake is reported."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dspex.errors import SignatureError
from dspex.signature import Signature


@dataclass
class Animal:
    name: str


def test_fields_are_ordered_and_typed():
    signature = Signature("question, context: list[str] -> answer, confidence: float")

    assert list(signature.fields) == ["question", "context", "answer", "confidence"]
    assert list(signature.input_fields) == ["question", "context"]
    assert list(signature.output_fields) == ["answer", "confidence"]
    assert [field.typed for field in signature.fields.values()] == [False, True, False, True]
    assert signature.signature == "question, context -> answer, confidence"
    assert signature.fields["context"].annotation == list[str]


def test_equal_signatures_hash_alike_and_others_differ():
    one, same = Signature("a -> b: int"), Signature("a->b : int")

    assert one == same
    assert hash(one) == hash(same)
    assert one != Signature("a -> b: float")
    assert one != Signature("a -> b: int", "Do it.")
    assert one != "a -> b: int"


def test_the_caret_stands_under_the_mistake_in_non_ascii_text():
    with pytest.raises(SignatureError) as caught:
        Signature("größe, übung: Lst -> ähnlich")

    assert str(caught.value).splitlines()[:3] == [
        "the name 'Lst' is not known [unknown-name]",
        "  größe, übung: Lst -> ähnlich",
        "                ^^^",
    ]


def test_names_come_from_types_then_from_the_callers_frame():
    @dataclass
    class Local:
        name: str

    signature = Signature("a: Local, b: list[Animal], c: Other -> d", types={"Other": int})

    assert [field.annotation for field in signature.input_fields.values()] == [Local, list[Animal], int]


def test_a_lone_surrogate_is_one_clear_error():
    with pytest.raises(SignatureError, match="lone surrogate"):
        Signature("a\ud800 -> b")
