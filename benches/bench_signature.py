"""Signatures beside DSPy, and validation beside pydantic, in one run: `pytest benches/bench_signature.py`.

Both sides must agree before either is timed. What counts are the ratios beneath the tables. A signature that
was never seen before is another one in every round, and the cache is empty when the rounds begin.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import dspy
import pydantic
import pytest

import dspex
from dspex.signature import Signature

pytestmark = pytest.mark.skipif(dspex._core._debug_build, reason="a debug build has no figures worth quoting")

FOUR = "question: str, context: list[str] -> answer: str, confidence: float"
TWELVE = (
    "question: str, b: list[dict[str, int]], c: Optional[Literal['x', 'y', 'z']],"
    " d: dict[str, list[tuple[int, str]]], e: int | None, f: set[str]"
    " -> g: Literal['a', 'b', 'c'], h: list[list[float]], i: Union[int, str, None],"
    " j: tuple[int, ...], k: bool, l: dict[str, dict[str, float]]"
)
SIDES: dict[str, Callable[[str], Any]] = {"theirs": dspy.Signature, "ours": Signature}
VALUES = {"a": "text", "b": ["one", "two"], "c": 5, "d": 0.5}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    Signature.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def agree(text: str) -> None:
    theirs, ours = dspy.Signature(text), Signature(text)
    assert list(theirs.fields) == list(ours.fields)
    for name, field in theirs.fields.items():
        assert ours.fields[name].annotation == field.annotation
        assert ours.fields[name].prefix == field.json_schema_extra["prefix"]
    assert theirs.instructions == ours.instructions


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("case", "text"), [("new, 4 fields", FOUR), ("new, 12 fields", TWELVE)])
def test_a_signature_never_seen_before(benchmark: Any, case: str, text: str, side: str) -> None:
    agree(text)
    benchmark.extra_info.update(case=case, side=side)
    make, numbers = SIDES[side], itertools.count()
    batch = 1 if side == "theirs" else 200

    def texts() -> tuple[tuple[list[str]], dict[str, Any]]:
        return ([text.replace("question", f"question{next(numbers)}") for _ in range(batch)],), {}

    def run(batch: list[str]) -> None:
        for text in batch:
            make(text)

    benchmark.pedantic(run, setup=texts, rounds=200, warmup_rounds=5)
    # One round is a batch; the table shows rounds, the ratios below it single signatures.
    benchmark.extra_info["batch"] = batch


@pytest.mark.parametrize("side", SIDES)
def test_a_signature_seen_before(benchmark: Any, side: str) -> None:
    agree(FOUR)
    benchmark.extra_info.update(case="seen before, 4 fields", side=side)
    benchmark(SIDES[side], FOUR)


@pytest.mark.parametrize("side", SIDES)
def test_validation_of_four_inputs(benchmark: Any, side: str) -> None:
    signature = Signature("a: str, b: list[str], c: int, d: float -> e")
    model = pydantic.create_model("Inputs", a=(str, ...), b=(list[str], ...), c=(int, ...), d=(float, ...))
    with pytest.raises(dspex.errors.InputError):
        signature.validate_inputs({**VALUES, "c": "text"})
    with pytest.raises(pydantic.ValidationError):
        model.model_validate({**VALUES, "c": "text"})

    benchmark.extra_info.update(case="validation, 4 fields (pydantic)", side=side)
    benchmark({"theirs": model.model_validate, "ours": signature.validate_inputs}[side], VALUES)
