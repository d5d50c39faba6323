"""A reply in a worker, told as the chunks of its answer come."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import dspy
import pydantic
import pytest

from dspex._engine.plans import plans_of
from dspex._event_queue import EventQueue
from dspex.errors import ConfigError
from dspex.events import Correction, FieldEnd, FieldStart, PartialValue, TextDelta
from dspex.protocol.events import event_of
from dspex.protocol.requests import PredictRequest, StreamedFields
from dspex.worker.operations import adapters
from dspex.worker.operations.replies import Replies, Reply
from dspex.worker.operations.telling import telling


def chunk(text: str | None = None, *, index: int = 0, over: bool = False) -> Any:
    choice = SimpleNamespace(
        index=index, delta=SimpleNamespace(content=text), finish_reason="stop" if over else None
    )
    return SimpleNamespace(choices=[choice])


def begun(signature: Any, wanted: StreamedFields | None = None) -> tuple[Reply, EventQueue]:
    queue = EventQueue()
    replies = Replies(dspy.Predict(signature), wanted or StreamedFields(), queue)
    made = dspy.Predict(signature).signature
    return replies.begin(made, plans_of("chat", True).get(made)), queue


def told(queue: EventQueue) -> list[Any]:
    return [event_of(part) for part in queue._events]


async def test_the_first_generation_is_told_until_it_is_over() -> None:
    reply, queue = begun("q -> answer")
    await reply.send(SimpleNamespace(choices=[]))  # what carries the usage
    await reply.send(chunk("[[ ## answer ## ]]\n"))
    await reply.send(chunk("[[ ## answer ## ]]\ngreen", index=1))
    await reply.send(chunk("blue"))
    await reply.send(chunk("\n\n[[ ## completed ## ]]", over=True))
    await reply.send(chunk("[[ ## answer ## ]]\nthat of another request"))
    events = told(queue)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "blue"
    assert [type(event) for event in events].count(FieldStart) == 1
    assert events[-1] == FieldEnd("answer", predictor="")
    assert reply.rest({"answer": "blue"}) == []
    assert reply.rest({"answer": "green"}) == [Correction("answer", "green", predictor="")]


async def test_what_has_not_been_heard_is_told_whole() -> None:
    reply, _ = begun("q -> answer, count: int")
    assert reply.rest({"answer": "blue", "count": 3, "more": 1}) == [
        FieldStart("answer", ""),
        TextDelta("answer", "blue", True, ""),
        FieldEnd("answer", True, ""),
        FieldStart("count", ""),
        PartialValue("count", 3, True, ""),
        FieldEnd("count", True, ""),
    ]


class Even(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def check(cls, number: int) -> int:
        if number % 2:
            raise ZeroDivisionError("odd")
        return number


async def test_a_validator_that_raises_is_no_error_of_the_model() -> None:
    signature = dspy.Signature("q -> note").append("even", dspy.OutputField(), Even)
    reply, queue = begun(signature)
    await reply.send(chunk("[[ ## note ## ]]\nn\n\n[[ ## even ## ]]\n"))
    await reply.send(chunk('{"number": 3}'))
    await reply.send(chunk("\n\n[[ ## completed ## ]]", over=True))
    assert "".join(event.text for event in told(queue) if isinstance(event, TextDelta)) == "n"
    assert not reply.hears


class Odd:
    def __repr__(self) -> str:
        raise KeyError("text")


async def test_a_value_that_cannot_cross_is_left_out() -> None:
    queue = EventQueue()
    replies = Replies(dspy.Predict("q -> answer"), StreamedFields(), queue)
    await replies.put([FieldStart("x"), PartialValue("x", {"a": Odd()}, True), FieldEnd("x")])
    assert told(queue) == [FieldStart("x"), FieldEnd("x")]


async def test_a_reader_that_has_left_ends_who_begins_or_tells() -> None:
    reply, _ = begun("q -> answer")
    replies = reply._replies
    replies.leave()
    with pytest.raises(asyncio.CancelledError):
        replies.begin(dspy.Predict("q -> answer").signature, None)
    with pytest.raises(asyncio.CancelledError):
        await reply.send(chunk("[[ ## answer ## ]]\nblue and"))


async def test_copies_of_a_predictor_are_known_by_it_unless_it_is_not_alone() -> None:
    class Program(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = dspy.Predict("q -> answer")
            self.two = dspy.Predict("q -> answer")
            self.three = self.two.deepcopy()

    program = Program()
    replies = Replies(program, StreamedFields(), EventQueue())
    paths = [replies._path(predictor) for _, predictor in program.named_predictors()]
    assert paths == ["one", "two", "three"]
    assert replies._path(program.one.deepcopy()) == "one"
    assert replies._path(program.two.deepcopy()) == ""
    assert replies._path(dspy.Predict("q -> answer")) == ""


async def test_fields_that_are_nowhere_are_refused_but_in_a_part_of_a_program() -> None:
    with pytest.raises(ConfigError, match="no predictor has an output field 'anser'") as caught:
        begun("q -> answer", StreamedFields(fields=["anser"]))
    assert caught.value.code == "bad-stream"
    reply, _ = begun("q -> answer", StreamedFields(fields=["anser"], inner=True))
    assert reply.fields == []


@pytest.mark.parametrize("name", ["chat", "json", "xml", "baml"])
@pytest.mark.parametrize("parsing", [None, "tolerant"])
async def test_an_adapter_that_tells_is_the_adapter_and_reports_no_more_calls(
    name: Any, parsing: Any
) -> None:
    request = PredictRequest.of("q -> answer", {"q": "?"}, adapter=name, parsing=parsing)
    adapter = adapters.make(request, dspy.LM)
    replies = Replies(dspy.Predict("q -> answer"), StreamedFields(), EventQueue())
    twin: Any = telling(adapter, name, replies)
    assert isinstance(twin, type(adapter))
    assert type(twin).__name__ == type(adapter).__name__  # by which DSPy's streaming knows it
    for method in ("format", "parse"):  # which have DSPy's callbacks around them
        assert getattr(type(twin), method) is getattr(type(adapter), method)
    assert (twin.told, getattr(adapter, "told", None)) == (replies, None)
    assert getattr(twin, "repairs", None) is getattr(adapter, "repairs", None)
