"""Streams of modules: what they tell, on either route, and what becomes of them when something goes wrong."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pydantic
import pytest
from tests.support.models import Said
from tests.support.streams import events_of, tell, texts_of

import dspex
from dspex.errors import ConfigError, DeadlineExceeded, DspexError, LMError, ReplyError, WorkerDiedError
from dspex.events import Correction, FieldEnd, FieldStart, LMDelta, PartialValue, TextDelta
from dspex.lm import LMRequest
from dspex.streaming import sse
from dspex.testing import Cut, HttpError, ModelServer, ScriptedLM, Stall

REPLY = "[[ ## answer ## ]]\nblue and green\n\n[[ ## score ## ]]\n5\n\n[[ ## completed ## ]]"
DONE = "\n\n[[ ## completed ## ]]"


class Answer(dspex.Module):
    """Drafts, and polishes twice."""

    def __init__(self) -> None:
        self.draft = dspex.ChainOfThought("question -> draft")
        self.steps = [dspex.Predict("draft -> answer")]

    def forward(self, question: str) -> dspex.Prediction:
        draft = self.draft(question=question).draft
        first = self.steps[0](draft=draft).answer
        return dspex.Prediction(answer=self.steps[0](draft=first).answer, draft=draft)


class AsyncAnswer(Answer):
    forward: Any = None

    async def aforward(self, question: str) -> dspex.Prediction:
        draft = (await self.draft.acall(question=question)).draft
        first = (await self.steps[0].acall(draft=draft)).answer
        return dspex.Prediction(answer=(await self.steps[0].acall(draft=first)).answer, draft=draft)


def reply(request: Any) -> str:
    text = request.messages[-1]["content"]
    said = text.split("\n")[1]
    names = ("reasoning", "draft") if "## draft ## ]]`" in text else ("answer",)
    return "\n\n".join(f"[[ ## {name} ## ]]\n{name} of {said}" for name in names) + DONE


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


# -- what they tell -----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["native", "python"])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_stream_tells_the_fields_and_ends_with_the_call_s_prediction(
    runtime: dspex.Runtime, said: Said, route: str, is_async: bool
) -> None:
    said.reply = REPLY
    qa = dspex.Predict("question -> answer, score: int", runtime=runtime).with_options(route=route)
    expected = qa(question="Who?")
    if is_async:
        events: list[Any] = asyncio.run(events_of(qa.astream(question="Who?")))
    else:
        events = list(qa.stream(question="Who?"))
    *told, prediction = events
    assert prediction == expected == dspex.Prediction(answer="blue and green", score=5)
    assert prediction.route.startswith("native" if route == "native" else "pool")
    assert prediction.timings["first_text"] <= prediction.timings["total"]
    assert texts_of(told)["self", "answer", 0] == "blue and green"
    assert told[0] == FieldStart("answer")
    assert [event.field for event in told if isinstance(event, FieldEnd)] == ["answer", "score"]
    scores = [e.value for e in told if isinstance(e, PartialValue | Correction) and e.field == "score"]
    assert scores[-1] == 5


@pytest.mark.parametrize("cls", [Answer, AsyncAnswer])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_program_s_stream_says_which_predictor_speaks_and_for_which_time(
    cls: type[Answer], is_async: bool
) -> None:
    with dspex.Runtime(ScriptedLM(reply)):
        program = cls()
        events: list[Any] = (
            asyncio.run(events_of(program.astream(question="x")))
            if is_async
            else list(program.stream(question="x"))
        )
        assert events[-1] == program(question="x")
    assert texts_of(events) == {
        ("draft.predict", "reasoning", 0): "reasoning of x",
        ("draft.predict", "draft", 0): "draft of x",
        ("steps[0]", "answer", 0): "answer of draft of x",
        ("steps[0]", "answer", 1): "answer of answer of draft of x",
    }
    assert isinstance(events[-1], dspex.Prediction)


async def test_sixty_four_streams_of_one_object_never_mix() -> None:
    program = AsyncAnswer()
    async with dspex.Runtime(ScriptedLM(reply)):
        streams = [events_of(program.astream(question=f"q{number}")) for number in range(64)]
        for number, events in enumerate(await asyncio.gather(*streams)):
            assert texts_of(events)["steps[0]", "answer", 1] == f"answer of answer of draft of q{number}"
            assert {event.turn for event in events[:-1]} == {0, 1}


async def test_a_reply_in_one_piece_streams_too() -> None:
    class Whole(ScriptedLM):
        async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
            yield LMDelta(REPLY, finish_reason="stop")

    async with dspex.Runtime(Whole()):
        events = await events_of(dspex.Predict("question -> answer, score: int").astream(question="Who?"))
    assert texts_of(events)["self", "answer", 0] == "blue and green"
    assert events[-1].score == 5


async def test_of_several_generations_the_first_is_told_and_all_are_in_the_prediction() -> None:
    replies = iter(["one", "two"])
    async with dspex.Runtime(ScriptedLM(lambda _: f"[[ ## answer ## ]]\n{next(replies)}{DONE}")):
        events = await events_of(dspex.Predict("question -> answer", n=2).astream(question="Who?"))
    assert texts_of(events) == {("self", "answer", 0): "one"}
    assert events[-1].completions.answer == ["one", "two"]


async def test_only_the_fields_that_are_wanted_are_told() -> None:
    program = AsyncAnswer()
    async with dspex.Runtime(ScriptedLM(reply)):
        for wanted, expected in (
            (["answer"], {"answer"}),
            (["draft.predict.draft"], {"draft"}),
            ([], set()),
            (None, {"reasoning", "draft", "answer"}),
        ):
            events = await events_of(program.with_options(stream_fields=wanted).astream(question="x"))
            assert {event.field for event in events[:-1]} == expected
    with pytest.raises(ConfigError) as caught:
        program.with_options(stream_fields=["anser"]).astream(question="x")
    assert caught.value.code == "bad-stream"
    assert "steps[0].answer" in caught.value.hint


async def test_a_program_that_returns_something_else_cannot_be_streamed() -> None:
    class Plain(AsyncAnswer):
        async def aforward(self, question: str) -> Any:
            return (await super().aforward(question)).answer

    async with dspex.Runtime(ScriptedLM(reply)):
        with pytest.raises(ConfigError) as caught:
            await events_of(Plain().astream(question="x"))
    assert caught.value.code == "not-a-prediction"


async def test_an_iterator_that_blocks_is_refused_on_an_event_loop() -> None:
    async with dspex.Runtime(ScriptedLM(reply)):
        with pytest.raises(ConfigError) as caught:
            next(Answer().stream(question="x"))
    assert caught.value.code == "blocking-in-loop"


async def test_what_is_wrong_with_a_call_is_raised_by_the_first_step() -> None:
    async with dspex.Runtime(ScriptedLM(reply)):
        with pytest.raises(dspex.errors.InputError):
            await anext(dspex.Predict("question -> answer").astream(questoin="x"))


# -- readers that are slow, or leave ------------------------------------------------------------------


class Long(ScriptedLM):
    """A thousand words, counted as they are taken, and whether the end came by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0
        self.closed = 0

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        try:
            yield LMDelta("[[ ## answer ## ]]\n")
            for number in range(1000):
                self.taken += 1
                await asyncio.sleep(0)
                yield LMDelta(f"word{number} ")
            yield LMDelta(DONE, finish_reason="stop")
        finally:
            self.closed += 1


async def test_a_slow_reader_slows_the_model() -> None:
    lm = Long()
    async with dspex.Runtime(lm):
        async with dspex.Predict("question -> answer").astream(question="x") as stream:
            await anext(stream)
            taken = -1
            while taken != lm.taken:  # it comes to rest
                taken = lm.taken
                for _ in range(50):
                    await asyncio.sleep(0)
            assert taken < 60
            rest = await events_of(stream)
        assert len(rest[-1].answer.split()) == 1000
    assert lm.closed == 1


@pytest.mark.parametrize("way", ["async with", "aclose", "dropped", "cancelled"])
async def test_a_reader_that_leaves_closes_the_model_s_answer(way: str) -> None:
    lm = Long()
    qa = dspex.Predict("question -> answer")
    async with dspex.Runtime(lm):
        before = len(asyncio.all_tasks())
        if way == "async with":
            async with qa.astream(question="x") as stream:
                async for event in stream:
                    if isinstance(event, TextDelta):
                        break
            assert lm.closed == 1
        elif way == "aclose":
            stream = qa.astream(question="x")
            await anext(stream)
            await stream.aclose()
            await stream.aclose()
            assert lm.closed == 1
            assert await events_of(stream) == []
        elif way == "dropped":
            async for event in qa.astream(question="x"):
                if isinstance(event, TextDelta):
                    break
            gc.collect()
        else:
            reading = asyncio.create_task(events_of(qa.astream(question="x")))
            await until(lambda: lm.taken > 1)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            del reading
            gc.collect()
        await until(lambda: lm.closed == 1 and len(asyncio.all_tasks()) == before)
        assert lm.taken < 1000
        assert (await events_of(qa.astream(question="x")))[-1].answer.startswith("word0")


@pytest.mark.parametrize("way", ["with", "close", "dropped"])
def test_a_reader_on_a_thread_that_leaves_closes_the_model_s_answer(way: str) -> None:
    lm = Long()
    qa = dspex.Predict("question -> answer")
    with dspex.Runtime(lm):
        if way == "with":
            with qa.stream(question="x") as stream:
                for event in stream:
                    if isinstance(event, TextDelta):
                        break
            assert lm.closed == 1
        elif way == "close":
            stream = qa.stream(question="x")
            next(stream)
            stream.close()
            stream.close()
            assert lm.closed == 1
            assert list(stream) == []
        else:
            for event in qa.stream(question="x"):
                if isinstance(event, TextDelta):
                    break
            del event
            gc.collect()
            asyncio.run(until(lambda: lm.closed == 1))
        assert lm.taken < 1000


def test_a_forward_in_a_thread_ends_with_its_call_when_the_reader_leaves() -> None:
    ended = threading.Event()

    class Loop(dspex.Module):
        def __init__(self) -> None:
            self.step = dspex.Predict("question -> answer")

        def forward(self, question: str) -> dspex.Prediction:
            try:
                while True:
                    self.step(question=question)
            finally:
                ended.set()

    with dspex.Runtime(Long()):
        with Loop().stream(question="x") as stream:
            next(stream)
        assert ended.wait(20)


async def test_a_reader_that_does_not_read_spends_the_time_of_the_call() -> None:
    async with dspex.Runtime(Long()):
        stream = dspex.Predict("question -> answer").with_options(timeout=0.3).astream(question="x")
        await anext(stream)
        await until(lambda: stream._task is not None and stream._task.done())
        with pytest.raises(DeadlineExceeded) as caught:
            await events_of(stream)
        assert caught.value.stage in ("reader", "native", "lm")


# -- faults -------------------------------------------------------------------------------------------

FAULTS: list[tuple[Any, type[DspexError], bool]] = [
    (HttpError(500), LMError, False),
    (HttpError(429, retry_after=1), LMError, False),
    (Cut(), LMError, False),
    (Cut("middle"), LMError, True),
    (Stall("middle"), LMError, True),
]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(REPLY) as server:
        yield server


@pytest.mark.parametrize(("fault", "error", "has_begun"), FAULTS, ids=str)
async def test_a_fault_of_the_server_is_the_call_s_error_and_the_next_stream_works(
    server: ModelServer, fault: Any, error: type[DspexError], has_begun: bool
) -> None:
    timeout = 1.0 if isinstance(fault, Stall) else 30.0
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key="k", timeout=timeout)
    qa = dspex.Predict("question -> answer, score: int")
    async with dspex.Runtime(lm):
        await qa.acall(question="x")
        before = len(asyncio.all_tasks())
        server.faults.push(fault)
        told: list[Any] = []
        with pytest.raises(error):
            await tell(qa.astream(question="x"), told)
        assert bool(told) is has_begun
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert (await events_of(qa.astream(question="x")))[-1].score == 5
    assert len(server.requests) == 3  # nothing is asked twice


async def test_a_reply_that_cannot_be_read_is_told_as_far_as_it_goes() -> None:
    async with dspex.Runtime(ScriptedLM("[[ ## answer ## ]]\nblue\n\n[[ ## score ## ]]\nmany" + DONE)):
        told: list[Any] = []
        with pytest.raises(ReplyError):
            await tell(dspex.Predict("question -> answer, score: int").astream(question="x"), told)
    assert texts_of(told)["self", "answer", 0] == "blue"


async def test_a_worker_that_dies_in_the_middle_fails_the_stream_and_the_next_one_works() -> None:
    async with ModelServer(REPLY) as server:
        lm = dspex.LM("openai/m", api_base=server.api_base, api_key="k")
        async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
            qa = dspex.Predict("question -> answer, score: int").with_options(route="python")
            await qa.acall(question="x")
            server.faults.push(Stall("middle"))
            stream = qa.astream(question="x")
            await anext(stream)
            (worker,) = (await runtime.apools())["general"].workers
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(WorkerDiedError):
                await events_of(stream)
            assert (await events_of(qa.astream(question="x")))[-1].score == 5


async def test_fewer_generations_than_asked_for_are_refused_as_of_a_call(server: ModelServer) -> None:
    async with dspex.Runtime(dspex.LM("openai/m", api_base=server.api_base, api_key="k")):
        # As from a server that does not know the setting n.
        predict = dspex.Predict("question -> answer", n=2, extra_body={"n": 1})
        with pytest.raises(LMError) as called:
            await predict.acall(question="x")
        with pytest.raises(LMError) as streamed:
            await events_of(predict.astream(question="x"))
    assert streamed.value.code == called.value.code == "lm-few-choices"


async def test_a_runtime_that_closes_ends_its_streams() -> None:
    class Silent(ScriptedLM):
        async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
            yield LMDelta("[[ ## answer ## ]]\nblue and")
            await asyncio.Event().wait()

    async with dspex.Runtime(Silent()):
        stream = dspex.Predict("question -> answer").astream(question="x")
        await anext(stream)
    with pytest.raises(ConfigError) as caught:
        await events_of(stream)
    assert caught.value.code == "runtime-closed"


async def test_a_stream_that_is_never_read_asks_nobody() -> None:
    lm = ScriptedLM(REPLY)
    async with dspex.Runtime(lm):
        stream = dspex.Predict("question -> answer").astream(question="x")
        await stream.aclose()
        assert await events_of(stream) == []
        dspex.Predict("question -> answer").stream(question="x").close()
    assert lm.requests == []


async def test_a_thread_reads_a_stream_of_a_runtime_on_another_loop() -> None:
    async with dspex.Runtime(ScriptedLM(reply)):
        awaited = await events_of(Answer().astream(question="x"))
        assert await asyncio.to_thread(lambda: list(Answer().stream(question="x"))) == awaited


# -- server-sent events -------------------------------------------------------------------------------


async def test_events_become_server_sent_events() -> None:
    async with dspex.Runtime(ScriptedLM(REPLY)):
        stream = dspex.Predict("question -> answer, score: int").astream(question="x")
        parts = [part.decode() async for part in sse(stream)]
    names = [part.splitlines()[0] for part in parts]
    assert names[0] == "event: start"
    assert names[-1] == "event: prediction"
    assert all(part.endswith("\n\n") and part.count("\n") == 3 for part in parts)
    assert json.loads(parts[-1].splitlines()[1].removeprefix("data: ")) == {
        "answer": "blue and green",
        "score": 5,
    }
    texts = [json.loads(p.splitlines()[1][6:])["text"] for p in parts if p.startswith("event: text\n")]
    assert "".join(texts) == "blue and green"


async def test_an_error_is_the_last_of_server_sent_events_and_tells_no_secret(server: ModelServer) -> None:
    server.faults.push(HttpError(500, "an inner secret"))
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key="k")
    async with dspex.Runtime(lm):
        stream = dspex.Predict("question -> answer").astream(question="x")
        parts = [part.decode() async for part in sse(stream)]
    assert parts[-1].startswith("event: error\n")
    assert "secret" not in parts[-1]
    assert json.loads(parts[-1].splitlines()[1][6:])["code"] == "lm-server"


async def test_a_silent_stream_is_kept_alive_by_comments_and_closed_by_who_leaves() -> None:
    begun = asyncio.Event()

    class Silent(ScriptedLM):
        async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
            try:
                begun.set()
                await asyncio.Event().wait()
                yield LMDelta("")
            finally:
                begun.clear()

    async with dspex.Runtime(Silent()):
        parts = sse(dspex.Predict("question -> answer").astream(question="x"), keepalive=0.01)
        assert await anext(parts) == b": keepalive\n\n"
        assert begun.is_set()
        await parts.aclose()
        assert not begun.is_set()


async def test_values_of_classes_are_written_as_json_and_a_bug_of_the_program_tells_no_words() -> None:
    class Place(pydantic.BaseModel):
        name: str

    async def events() -> AsyncGenerator[Any]:
        yield PartialValue("place", Place(name="Oslo"), True)
        yield dspex.Prediction(place=Place(name="Oslo"), size=float("nan"))
        raise LookupError("an inner secret")

    parts: list[bytes] = []

    async def read() -> None:
        async for part in sse(events()):
            parts.append(part)

    with pytest.raises(LookupError):
        await read()
    assert b'"value":{"name":"Oslo"}' in parts[0]
    assert b'"size":null' in parts[1]
    assert parts[2].startswith(b"event: error")
    assert b"secret" not in parts[2]
