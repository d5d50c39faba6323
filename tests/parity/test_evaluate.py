"""`Module.evaluate` gives the scores of `dspy.Evaluate`, to the digit, on the same examples."""

from __future__ import annotations

import math
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.models import completion

import dspex
from dspex.errors import BatchError, ConfigError
from dspex.testing import ScriptedLM

NUMBERS = st.booleans() | st.integers(-3, 3) | st.floats(-1e6, 1e6) | st.floats(0, 1) | st.just(math.nan)


def as_prediction(number: Any) -> Any:
    return dspy.Prediction(score=number, feedback="because")


SCORES = NUMBERS | NUMBERS.map(as_prediction)
FAULTS = st.sampled_from(["", "", "", "", "program", "metric"])
ROWS = st.lists(st.tuples(SCORES, FAULTS), min_size=1, max_size=12)


class BoomError(Exception):
    """What programs and metrics of these tests raise."""


def answer(question: str) -> dict[str, Any]:
    if question.startswith("program"):
        raise BoomError(question)
    return {"answer": question.upper()}


class Theirs(dspy.Module):
    def forward(self, question: str) -> Any:
        return dspy.Prediction(**answer(question))


class Ours(dspex.Module):
    def forward(self, question: str) -> dspex.Prediction:
        return dspex.Prediction(**answer(question))


class OursAwaited(dspex.Module):
    async def aforward(self, question: str) -> dspex.Prediction:
        return dspex.Prediction(**answer(question))


def metric(example: Any, prediction: Any, trace: Any = None) -> Any:
    assert prediction.answer == example.question.upper()
    assert trace is None
    if example.question.startswith("metric"):
        raise BoomError(example.question)
    return example.gold


def devset_of(rows: list[tuple[Any, str]]) -> list[Any]:
    return [
        dspy.Example(question=f"{fault} {number}", gold=gold).with_inputs("question")
        for number, (gold, fault) in enumerate(rows)
    ]


def of_dspy(devset: list[Any], **options: Any) -> Any:
    return dspy.Evaluate(devset=devset, metric=metric, num_threads=1, display_progress=False, **options)


def same(one: Any, other: Any) -> bool:
    one, other = float(one), float(other)
    return one == other or (math.isnan(one) and math.isnan(other))


@given(ROWS, st.sampled_from([0.0, 1, -0.5, 0.1]), st.sampled_from([Ours, OursAwaited]))
def test_scores_of_generated_examples_are_dspys(rows: Any, failure_score: float, program: Any) -> None:
    devset = devset_of(rows)
    theirs = of_dspy(devset, failure_score=failure_score, max_errors=len(rows) + 1)(Theirs())
    ours = program().evaluate(devset, metric, 4, failure_score=failure_score, progress=False)
    assert same(ours.score, theirs.score)
    for row, (example, prediction, score), (_, fault) in zip(ours.results, theirs.results, rows, strict=True):
        assert row.example is example
        assert same(row.score, score)
        assert (row.error is not None) == bool(fault)
        if not fault:
            assert row.score is score
            assert row.prediction.to_dict() == prediction.toDict()


@given(ROWS, st.integers(1, 4))
def test_as_many_errors_end_both(rows: Any, most: int) -> None:
    devset = devset_of(rows)
    try:
        theirs: Any = of_dspy(devset, max_errors=most)(Theirs()).score
    except Exception as error:  # DSPy raises it bare
        theirs = None
        if "cancelled due to errors" not in str(error):
            raise
    if theirs is None:
        with pytest.raises(BatchError):
            OursAwaited().evaluate(devset, metric, 1, max_errors=most, progress=False)
    else:
        assert same(OursAwaited().evaluate(devset, metric, 1, max_errors=most).score, theirs)


@pytest.mark.parametrize("gold", [None, "1.0", [1], dspy.Prediction(feedback="no score")], ids=repr)
def test_where_dspy_cannot_add_a_score_up_the_row_has_an_error(gold: Any) -> None:
    devset = devset_of([(1, ""), (gold, ""), (1, "")])
    with pytest.raises((TypeError, ValueError)):
        of_dspy(devset, max_errors=9)(Theirs())
    found = Ours().evaluate(devset, metric)
    assert found.score == 66.67
    (row,) = found.errors
    assert isinstance(row.error, ConfigError)
    assert (row.number, row.error.code, row.score) == (1, "bad-metric", 0.0)


def reply(messages: Any) -> str:
    """What the model says to both."""
    question = messages[-1]["content"].partition("[[ ## question ## ]]\n")[2].partition("\n")[0]
    return "no answer" if question.endswith("3") else f"[[ ## answer ## ]]\n{question * 2}\n"


class Model(dspy.BaseLM):
    """DSPy's side. Its own client leaves event loops behind in 3.3."""

    def __init__(self) -> None:
        super().__init__(model="m", cache=False)

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        return completion(reply(messages))


@pytest.mark.filterwarnings("ignore:Implementing custom LMs through BaseLM:DeprecationWarning")
def test_the_same_model_gives_both_the_same_score() -> None:
    def by_length(example: Any, prediction: Any) -> float:
        return float(len(prediction.answer) / example.length)

    examples = [{"question": "q" * (number % 4 + 1) + f"{number}", "length": 7} for number in range(20)]
    devset = [dspy.Example(**example).with_inputs("question") for example in examples]
    evaluate = dspy.Evaluate(devset=devset, metric=by_length, num_threads=2, max_errors=99)
    with dspy.context(lm=Model()):  # its second try, in JSON, fails too
        theirs = evaluate(dspy.Predict("question -> answer"))
    with dspex.Runtime(ScriptedLM(lambda request: reply(request.messages))):
        predict = dspex.Predict("question -> answer", parsing="dspy")
        for given_as in (devset, examples):
            ours = predict.evaluate(given_as, by_length)
            assert ours.score == theirs.score
            assert [float(row.score) for row in ours.results] == [score for *_, score in theirs.results]
            assert [row.number for row in ours.errors] == [3, 13]
        # DSPy's evaluation takes a module of dspex's as it is.
        assert evaluate(predict).score == theirs.score
