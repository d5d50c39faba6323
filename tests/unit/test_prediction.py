from __future__ import annotations

import copy
import operator
import pickle
from typing import Any

import dspy
import pytest

from dspex import Completions, Prediction
from dspex.prediction import seconds_of, take_stages


def test_fields_are_read_by_attribute_and_by_key() -> None:
    prediction = Prediction.from_completions([{"answer": "Ada", "items": [1]}], route="native")

    assert prediction.answer == prediction["answer"] == "Ada"
    assert prediction["items"] == [1], "a field named like a mapping's method is reached by key"
    assert dict(prediction) == prediction.to_dict() == {"answer": "Ada", "items": [1]}
    assert prediction.route == "native"


def test_the_first_completion_is_the_prediction_and_all_are_kept() -> None:
    prediction = Prediction.from_completions([{"answer": "a"}, {"answer": "b"}])

    assert prediction.answer == "a"
    assert prediction.completions.answer == ["a", "b"]
    assert [row["answer"] for row in prediction.completions] == ["a", "b"]
    assert prediction.completions[0:1] == ({"answer": "a"},)


def test_equality_compares_fields_not_how_they_were_made() -> None:
    one = Prediction.from_completions([{"answer": "a"}], route="native", timings={"total": 1.0})
    other = Prediction.from_completions([{"answer": "a"}], route="pool:general")

    assert one == other
    assert one != Prediction.from_completions([{"answer": "b"}])


def test_a_missing_field_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match="has no field 'anser'; it has: answer, score"):
        Prediction.from_completions([{"answer": "a", "score": 1}]).anser  # noqa: B018
    with pytest.raises(AttributeError, match="no completion has a field 'nope'"):
        Completions([{"answer": "a"}]).nope  # noqa: B018


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_prediction_survives_copying_and_pickling(again: Any) -> None:
    prediction = Prediction.from_completions(
        [{"answer": "a"}], route="native", usage={"total_tokens": 3}, timings={"lm": 0.5}
    )

    twin = again(prediction)

    assert twin == prediction
    assert (twin.route, twin.usage, twin.timings) == ("native", {"total_tokens": 3}, {"lm": 0.5})
    assert twin.completions == prediction.completions


def test_a_prediction_without_completions_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one completion"):
        Prediction.from_completions([])


def test_the_generations_are_reached_by_field_as_in_dspy() -> None:
    rows = [{"answer": "a", "score": 1}, {"answer": "b", "score": 2}]
    for completions in (Completions(rows), dspy.Prediction.from_completions(rows).completions):
        assert completions["answer"] == ["a", "b"]
        assert [*completions.items()] == [("answer", ["a", "b"]), ("score", [1, 2])]
        assert "answer" in completions
        assert "other" not in completions
        with pytest.raises(KeyError):
            completions["other"]
    assert rows[1] in Completions(rows)


NUMBERS: list[Any] = [0, 1, 0.5, True, -2.5]
OPERATIONS = [operator.add, operator.truediv, operator.lt, operator.le, operator.gt, operator.ge]


def outcome(operation: Any, left: Any, right: Any) -> Any:
    try:
        return operation(left, right)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        return type(error)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_prediction_with_a_score_is_reckoned_with_as_dspy_s_is(operation: Any) -> None:
    def values(cls: Any) -> list[Any]:
        return [*NUMBERS, *(cls(score=number) for number in NUMBERS), cls(answer="x"), "text", None]

    for left, theirs_left in zip(values(Prediction), values(dspy.Prediction), strict=True):
        for right, theirs_right in zip(values(Prediction), values(dspy.Prediction), strict=True):
            ours, theirs = outcome(operation, left, right), outcome(operation, theirs_left, theirs_right)
            assert (ours, type(ours)) == (theirs, type(theirs)), (operation, left, right)


def test_scores_are_summed_and_read_as_numbers() -> None:
    made = [Prediction(score=0.5, answer="a"), Prediction(score=1, answer="b")]
    assert sum(made) == 1.5
    assert float(made[1]) == 1.0
    assert max(made).answer == "b"
    with pytest.raises(ValueError, match="has no field 'score'"):
        float(Prediction(answer="a"))
    made[0].set_lm_usage({"total_tokens": 3})
    assert made[0].get_lm_usage() == made[0].usage == {"total_tokens": 3}


def test_no_name_of_what_a_call_took_hides_an_output_field() -> None:
    names = ("seconds", "spent", "total", "render", "lm", "parse", "stages")
    prediction = Prediction(dict.fromkeys(names, "a field"))
    assert [getattr(prediction, name) for name in names] == ["a field"] * len(names)


def test_seconds_by_stage_survive_a_pickle_before_and_after_somebody_has_asked() -> None:
    prediction = Prediction.of_rows([{"answer": "blue"}], None, {}, None, ())
    take_stages(prediction, 0.25, 1.0, 0.5)
    expected = {"render": 0.25, "lm": 1.0, "parse": 0.5, "total": 1.75}
    assert seconds_of(prediction) == 1.75
    for made in (pickle.loads(pickle.dumps(prediction)), copy.deepcopy(prediction), prediction):
        assert (made.timings, seconds_of(made)) == (expected, 1.75)
    assert pickle.loads(pickle.dumps(prediction)).timings == expected
