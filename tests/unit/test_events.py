"""Stream events: values of their own class, and the same ones after a worker has sent them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from typing import Any, get_args

import pytest

from dspex import Prediction, errors
from dspex.events import (
    Correction,
    Event,
    FieldEnd,
    FieldStart,
    LMDelta,
    LMToolCallDelta,
    PartialValue,
    Status,
    StepEnded,
    StepEvent,
    StepRestarted,
    StepStarted,
    TextDelta,
)
from dspex.protocol.events import event_of, last_part, part_of, says
from dspex.wire._msgpack import MessagePack


class Enough:
    """A value that is its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


CROSSING = [
    FieldStart("answer"),
    FieldStart("answer", "draft.inner"),
    TextDelta("answer", "blu"),
    TextDelta("answer", "e", is_last_chunk=True, predictor="draft"),
    PartialValue("places", [{"name": "Oslo", "size": 0.5}, {"name": "Be"}]),
    PartialValue("place", ("x", 1), is_last_chunk=True),
    FieldEnd("answer"),
    FieldEnd("answer", complete=False, predictor="draft"),
    Correction("answer", "green"),
    Status("Calling tool search..."),
    LMDelta("blu", 2),
    LMDelta("", finish_reason="stop"),
    LMDelta("", usage={"total_tokens": 3}),
    LMDelta("", 1, tool_calls=(LMToolCallDelta(0, "c1", "search"), LMToolCallDelta(1, arguments='{"q'))),
    LMDelta("", reasoning="hm"),
]
"""What a worker tells."""

EVENTS = [
    *CROSSING,
    StepStarted("answer"),
    StepEvent("map[17]/note", TextDelta("answer", "blu")),
    StepRestarted("answer"),
    StepEnded("answer", "ok", 0.5, {"answer": "blue"}),
]


def test_every_class_of_the_vocabulary_is_here() -> None:
    assert {type(event) for event in EVENTS} | {Prediction} == set(get_args(Event))


@pytest.mark.parametrize("event", CROSSING, ids=repr)
def test_an_event_crosses_as_it_is(event: Any) -> None:
    codec = MessagePack()
    arrived = event_of(codec.decode(codec.encode(part_of(event))))
    assert arrived == event
    assert type(arrived) is type(event)


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_an_event_is_a_frozen_value(event: Any) -> None:
    assert pickle.loads(pickle.dumps(event)) == copy.deepcopy(event) == event
    assert repr(event).startswith(f"{type(event).__name__}(")
    with pytest.raises(FrozenInstanceError):
        setattr(event, event.__match_args__[0], "other")


def test_events_of_two_classes_are_never_equal() -> None:
    text: Any = TextDelta("field", "x")
    start: Any = FieldStart("x")
    status: Any = Status("x")
    assert text != PartialValue("field", "x")
    assert start != status != ("x",)


def test_the_last_part_is_the_prediction_of_a_call() -> None:
    codec = MessagePack()
    answer = {
        "completions": [{"answer": "blue"}, {"answer": "grey"}],
        "usage": {"total_tokens": 7},
        "timings": {"lm": 0.5, "worker": 0.75},
        "repairs": [("answer", "case", "BLUE")],
    }
    prediction = event_of(codec.decode(codec.encode(last_part(answer))))
    assert isinstance(prediction, Prediction)
    assert prediction.answer == "blue"
    assert prediction.completions.answer == ["blue", "grey"]
    assert prediction.usage == {"total_tokens": 7}
    assert prediction.timings == {"lm": 0.5, "worker": 0.75}
    assert [repair.code for repair in prediction.repairs] == ["case"]


PARTS_THAT_ARE_NONE: list[Any] = [
    None, 1, [], {}, ["answer"], ["text"], ["text", "a", "b", True, "self", 1, 2], [["text"], "a", "b"],
    ["prediction"], ["prediction", None], ["prediction", {"completions": []}], ["prediction", {}, {}],
]  # fmt: skip


@pytest.mark.parametrize("part", PARTS_THAT_ARE_NONE, ids=repr)
def test_a_part_that_is_no_event_is_refused(part: Any) -> None:
    with pytest.raises(errors.WireError) as refused:
        event_of(part)
    assert refused.value.code == "bad-body"


SAID: list[tuple[Any, Any, bool]] = [
    ("blue", "blue", True),
    ("blue", "green", False),
    ("blue", Enough("blue"), True),  # a type of which the text is all there is
    ("None", None, False),
    (1, 1, True),
    (1, True, False),
    (1, 1.0, False),
    (float("nan"), float("nan"), True),
    ([1.0, float("nan")], [1.0, float("nan")], True),
    (["a"], ["a", "b"], False),
]


@pytest.mark.parametrize(("told", "value", "is_said"), SAID)
def test_what_events_have_told_is_the_value_or_is_not(told: Any, value: Any, is_said: bool) -> None:
    assert says(told, value) is is_said
