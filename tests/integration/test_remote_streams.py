"""Streams of modules that run in workers: what they tell, and what becomes of them when all goes wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import streamed_programs, work
from tests.support.models import Said
from tests.support.processes import until
from tests.support.streams import events_of, tell, texts_of

import dspex
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    DspexError,
    InputError,
    LMError,
    RemoteError,
    ReplyError,
    WorkerDiedError,
)
from dspex.events import Correction, FieldEnd, FieldStart, PartialValue, Status, TextDelta
from dspex.pool import Timeouts
from dspex.router import Retry
from dspex.streaming import sse
from dspex.testing import Cut, HttpError, ModelServer, Stall, no_waiting

PROGRAMS = "tests.support.streamed_programs:"
DONE = "\n\n[[ ## completed ## ]]"
BLUE = f"[[ ## answer ## ]]\nblue and green{DONE}"
ASK = "question -> answer"


def fields(**values: Any) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()) + DONE


def about(request: Any) -> str:
    """Fills the fields that a prompt asks for with what the prompt says."""
    text = request.messages[-1]["content"]
    said = text.split("\n")[1]
    names = ("reasoning", "draft") if "## draft ## ]]`" in text else ("answer",)
    return fields(**{name: f"{name} of {said}" for name in names})


class Native(dspex.Module):
    """What `streamed_programs.Answer` does, on the native side."""

    def __init__(self) -> None:
        self.draft = dspex.ChainOfThought("question -> draft")
        self.steps = [dspex.Predict("draft -> answer")]

    def forward(self, question: str) -> dspex.Prediction:
        draft = self.draft(question=question).draft
        first = self.steps[0](draft=draft).answer
        return dspex.Prediction(answer=self.steps[0](draft=first).answer, draft=draft)


def read(events: Any) -> tuple[list[Any], Any]:
    """The events of a stream, and the prediction that is its last."""
    *told, prediction = events
    return told, prediction


def told_of_fields(events: list[Any]) -> list[Any]:
    return [event for event in events if not isinstance(event, Status | dspex.Prediction)]


@pytest.fixture(autouse=True)
def current(runtime: dspex.Runtime, said: Said) -> dspex.Runtime:
    said.reply, said.answer = BLUE, None
    said.server.requests.clear()
    return runtime


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer(about) as server:
        yield server


def opened(server: ModelServer, **spec: Any) -> dspex.Runtime:
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key="k")
    return dspex.Runtime(lm, pools=dspex.PoolSpec(**{"workers": 1, **spec}))


# --- what they tell -------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["Answer", "AsyncAnswer"])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_program_in_a_worker_tells_the_events_of_the_same_program_here(
    said: Said, program: str, is_async: bool
) -> None:
    said.answer = about
    remote = dspex.program(PROGRAMS + program)
    if is_async:
        events: list[Any] = asyncio.run(events_of(remote.astream(question="x")))
    else:
        events = list(remote.stream(question="x"))
    told, prediction = read(events)
    expected, here = read(Native().stream(question="x"))
    assert told == expected
    assert texts_of(told)["steps[0]", "answer", 1] == "answer of answer of draft of x"
    assert prediction == here == remote(question="x")
    assert prediction.route == "pool:general"
    assert 0 < prediction.timings["first_text"] <= prediction.timings["total"]
    assert prediction.usage["total_tokens"] > 0


def test_lists_and_models_grow_and_the_last_value_is_the_call_s(said: Said) -> None:
    said.reply = fields(place='{"name": "Oslo", "people": 700000}', tags='["sea", "sky"]')
    told, prediction = read(dspex.program(PROGRAMS + "Typed").stream(question="?"))
    values = {
        name: [e for e in told if isinstance(e, PartialValue) and e.field == name]
        for name in ("place", "tags")
    }
    assert [event.value for event in values["tags"]] == [["sea"], ["sea", "sky"], ["sea", "sky"]]
    assert values["tags"][-1].is_last_chunk
    assert {"name": "Oslo"} in [event.value for event in values["place"]]
    assert values["place"][-1].value == prediction.place == {"name": "Oslo", "people": 700000}
    assert {event.predictor for event in told} == {"find"}


@pytest.mark.parametrize("types", [{"Place": streamed_programs.Place}, {"Place": streamed_programs.Spot}])
def test_a_predict_tells_values_of_its_own_types_as_on_the_native_side(said: Said, types: Any) -> None:
    said.reply = fields(places='[{"name": "Oslo", "people": 7}, {"name": "Rome"}]', kind="big", note="n")
    signature = dspex.Signature(
        "question -> places: list[Place], kind: Literal['big', 'small'], note", types=types
    )
    qa = dspex.Predict(signature)
    told, prediction = read(qa.with_options(route="python").stream(question="?"))
    assert told == read(qa.with_options(route="native").stream(question="?"))[0]
    assert told[0] == FieldStart("places")
    (places,) = (
        e.value for e in told if isinstance(e, PartialValue) and e.field == "places" and e.is_last_chunk
    )
    assert places == prediction.places
    assert type(places[0]) is types["Place"]


def test_what_only_the_whole_reply_shows_is_a_correction(said: Said) -> None:
    said.reply = "[[ ## tags ## ]]\n['sea', 'sky'"
    cot = dspex.remote("dspy.Predict", "question -> tags: list[str], note: str | None")
    told, prediction = read(cot.stream(question="?"))
    values = {event.field: event.value for event in told if isinstance(event, PartialValue | Correction)}
    assert values["tags"] == prediction.tags == ["sea", "sky"]
    assert prediction.repairs


def in_stock(item: str) -> int:
    """How many of an item are there."""
    return 7


def test_an_agent_tells_each_turn_of_its_loop_and_its_tools(said: Said) -> None:
    turns = iter(
        [
            fields(next_thought="look", next_tool_name="in_stock", next_tool_args='{"item": "apples"}'),
            fields(next_thought="enough", next_tool_name="finish", next_tool_args="{}"),
            fields(reasoning="asked", answer="seven"),
        ]
    )
    said.answer = lambda _: next(turns)
    agent = dspex.remote("dspy.ReAct", ASK, tools=[in_stock], max_iters=5)
    told, prediction = read(agent.stream(question="How many apples?"))
    assert texts_of(told) == {
        ("react", "next_thought", 0): "look",
        ("react", "next_thought", 1): "enough",
        ("extract.predict", "reasoning", 0): "asked",
        ("extract.predict", "answer", 0): "seven",
    }
    args = [
        e.value
        for e in told
        if isinstance(e, PartialValue) and e.field == "next_tool_args" and e.is_last_chunk
    ]
    assert args == [{"item": "apples"}, {}]
    assert next(e.text for e in told if isinstance(e, Status)) == "Calling tool in_stock..."
    assert prediction.trajectory["observation_0"] == 7


def test_the_copies_that_best_of_n_calls_speak_as_the_module(said: Said) -> None:
    replies = iter(["a pale blue", "blue"])
    said.answer = lambda _: fields(reasoning="r", answer=next(replies))
    best = dspex.remote(
        "dspy.BestOfN",
        module=dspex.remote("dspy.ChainOfThought", ASK),
        N=3,
        reward_fn=lambda args, prediction: float(len(prediction.answer.split()) == 1),
        threshold=1.0,
    )
    told, prediction = read(best.stream(question="?"))
    answers = {key: text for key, text in texts_of(told).items() if key[1] == "answer"}
    assert answers == {
        ("module.predict", "answer", 0): "a pale blue",
        ("module.predict", "answer", 1): "blue",
    }
    assert prediction.answer == "blue"


@pytest.mark.parametrize(
    ("program", "how"), [("SideBySide", "threads"), ("SideBySide", "loop"), ("AsyncSideBySide", "")]
)
def test_calls_side_by_side_in_a_program_never_mix(said: Said, program: str, how: str) -> None:
    said.answer = about
    questions = [f"q{number}" for number in range(8)]
    told, prediction = read(dspex.program(PROGRAMS + program, how=how).stream(questions=questions))
    assert prediction.answers == [f"answer of {question}" for question in questions]
    assert sorted(texts_of(told).values()) == sorted(prediction.answers)
    assert sorted(turn for _, _, turn in texts_of(told)) == list(range(8))
    for turn in range(8):  # each turn is one reply, whole and in order
        of_turn = [event for event in told_of_fields(told) if event.turn == turn]
        assert isinstance(of_turn[0], FieldStart)
        assert isinstance(of_turn[-1], FieldEnd)


async def test_calls_in_threads_of_the_loop_do_not_wait_for_each_other(server: ModelServer) -> None:
    made = dspex.program(PROGRAMS + "AsyncSideBySide", how="threads of the loop").with_options(timeout=20)
    questions = [f"q{number}" for number in range(12)]
    async with opened(server, max_inflight=2):
        told, prediction = read(await events_of(made.astream(questions=questions)))
    assert prediction.answers == [f"answer of {question}" for question in questions]
    assert sorted(texts_of(told).values()) == sorted(prediction.answers)


async def test_sixty_four_streams_of_one_object_never_mix(server: ModelServer) -> None:
    program = dspex.program(PROGRAMS + "AsyncAnswer")
    async with opened(server):
        streams = [events_of(program.astream(question=f"q{number}")) for number in range(64)]
        for number, events in enumerate(await asyncio.gather(*streams)):
            assert texts_of(events) == {
                ("draft.predict", "reasoning", 0): f"reasoning of q{number}",
                ("draft.predict", "draft", 0): f"draft of q{number}",
                ("steps[0]", "answer", 0): f"answer of draft of q{number}",
                ("steps[0]", "answer", 1): f"answer of answer of draft of q{number}",
            }
            assert events[-1].answer == f"answer of answer of draft of q{number}"


async def test_streams_of_a_program_in_threads_never_mix(server: ModelServer) -> None:
    program = dspex.program(PROGRAMS + "Answer")
    async with opened(server):
        streams = [events_of(program.astream(question=f"q{number}")) for number in range(16)]
        for number, events in enumerate(await asyncio.gather(*streams)):
            assert texts_of(events)["steps[0]", "answer", 1] == f"answer of answer of draft of q{number}"
            assert len(texts_of(events)) == 4


def test_a_reply_in_one_piece_streams_too(said: Said) -> None:
    said.reply = '{"reasoning":"r","answer":"blue"}'  # without a blank, the server sends it as one
    cot = dspex.remote("dspy.ChainOfThought", ASK, adapter="json")
    told, prediction = read(cot.stream(question="?"))
    assert [type(event) for event in told] == [FieldStart, TextDelta, FieldEnd] * 2
    assert texts_of(told) == {("predict", "reasoning", 0): "r", ("predict", "answer", 0): "blue"}
    assert prediction.answer == "blue"


@pytest.mark.parametrize(
    "how", ["own adapter", "own model", "blocking", "thread", "thread, own model", "copy", "new"]
)
def test_calls_that_dspy_cannot_stream_are_told_too(said: Said, how: str) -> None:
    said.reply = '{"answer": "blue and green"}' if how == "own adapter" else BLUE
    told, prediction = read(dspex.program(PROGRAMS + "Unusual", how=how).stream(question="?"))
    predictor = "" if how == "new" else "ask"
    assert texts_of(told) == {(predictor, "answer", 0): "blue and green"}
    assert told_of_fields(told)[0] == FieldStart("answer", predictor)
    assert told_of_fields(told)[-1] == FieldEnd("answer", predictor=predictor)
    assert prediction.answer == "blue and green"


@pytest.mark.parametrize("adapter", ["json", "xml", "baml"])
@pytest.mark.parametrize("parsing", ["tolerant", "dspy"])
def test_all_layouts_stream(said: Said, adapter: Any, parsing: Any) -> None:
    said.reply = (
        "<reasoning>\nit scatters\n</reasoning>\n<answer>\nblue\n</answer>"
        if adapter == "xml"
        else '{"reasoning": "it scatters", "answer": "blue"}'
    )
    cot = dspex.remote("dspy.ChainOfThought", ASK, adapter=adapter, parsing=parsing)
    told, prediction = read(cot.stream(question="?"))
    assert texts_of(told) == {("predict", "reasoning", 0): "it scatters", ("predict", "answer", 0): "blue"}
    assert prediction.answer == "blue"


def test_an_adapter_without_fields_in_its_text_is_told_whole(said: Said) -> None:
    said.answer = lambda request: BLUE if len(said.server.requests) > 1 else "I think it is blue and green."
    told, prediction = read(dspex.remote("dspy.Predict", ASK, adapter="two_step").stream(question="?"))
    assert told_of_fields(told) == [
        FieldStart("answer"),
        TextDelta("answer", "blue and green", True),
        FieldEnd("answer"),
    ]
    assert prediction.answer == "blue and green"


def test_of_several_generations_the_first_is_told(said: Said) -> None:
    replies = iter(["one", "two"])
    said.answer = lambda _: fields(answer=next(replies))
    several = dspex.program(PROGRAMS + "Unusual", how="copy").with_options(config={"n": 2})
    told, prediction = read(several.stream(question="?"))
    assert texts_of(told) == {("ask", "answer", 0): "one"}
    assert prediction.completions.answer == ["one", "two"]


def test_only_the_fields_that_are_wanted_are_told(said: Said) -> None:
    said.answer = about
    program = dspex.program(PROGRAMS + "Answer")
    wanted: list[tuple[list[str] | None, set[str]]] = [
        (["answer"], {"answer"}),
        (["draft.predict.draft"], {"draft"}),
        (["reasoning", "steps[0].answer"], {"reasoning", "answer"}),
        ([], set()),
        (None, {"reasoning", "draft", "answer"}),
    ]
    for names, expected in wanted:
        told, prediction = read(program.with_options(stream_fields=names).stream(question="x"))
        assert {event.field for event in told_of_fields(told)} == expected
        assert prediction.answer == "answer of answer of draft of x"
    said.server.requests.clear()
    with pytest.raises(ConfigError) as caught:
        list(program.with_options(stream_fields=["anser"]).stream(question="x"))
    assert caught.value.code == "bad-stream"
    assert "steps[0].answer" in caught.value.hint
    assert said.server.requests == []


# --- in programs of dspex ---------------------------------------------------------------------------


class Whole(dspex.Module):
    """A program with parts on both sides."""

    def __init__(self) -> None:
        self.find = dspex.remote("tests.support.programs:Gives", kind="list")
        self.draft = dspex.Predict("question -> draft")
        self.cot = dspex.remote("dspy.ChainOfThought", "draft -> answer")
        self.ask = dspex.remote("dspy.Predict", "draft -> answer")

    def forward(self, question: str) -> dspex.Prediction:
        self.find(question, k=1)
        draft = self.draft(question=question).draft
        self.cot(draft=draft)
        self.cot.with_options(timeout=30)(draft=draft)
        answer: dspex.Prediction = self.ask(draft=draft)
        return answer


def both(request: Any) -> str:
    text = request.messages[-1]["content"]
    names = [name for name in ("reasoning", "draft", "answer") if f"## {name} ## ]]`" in text]
    return fields(**{name: f"the {name}" for name in names})


def test_a_module_in_a_program_tells_under_its_own_path_and_counts_its_calls(said: Said) -> None:
    said.answer = both
    told, prediction = read(Whole().stream(question="x"))
    assert list(texts_of(told)) == [
        ("draft", "draft", 0),
        ("cot.predict", "reasoning", 0),
        ("cot.predict", "answer", 0),
        ("cot.predict", "reasoning", 1),
        ("cot.predict", "answer", 1),
        ("ask", "answer", 0),
    ]
    assert prediction.answer == "the answer"


class AtOnce(dspex.Module):
    """Calls one remote module three times side by side."""

    def __init__(self) -> None:
        self.cot = dspex.program(PROGRAMS + "AsyncAnswer")

    async def aforward(self, questions: list[str]) -> dspex.Prediction:
        found = await asyncio.gather(*(self.cot.acall(question=question) for question in questions))
        return dspex.Prediction(answers=[one.answer for one in found])


async def test_calls_of_one_module_side_by_side_have_turns_of_their_own(server: ModelServer) -> None:
    questions = ["a", "b", "c"]
    async with opened(server):
        told, prediction = read(await events_of(AtOnce().astream(questions=questions)))
    assert prediction.answers == [f"answer of answer of draft of {question}" for question in questions]
    texts = texts_of(told)
    assert {at for at in texts if at[1] == "answer"} == {
        ("cot.steps[0]", "answer", turn) for turn in range(6)
    }
    drafts = {text for (_, field, _), text in texts.items() if field == "draft"}
    assert drafts == {f"draft of {question}" for question in questions}
    answers = {text for (_, field, _), text in texts.items() if field == "answer"}
    assert answers == {f"answer of {text}" for text in drafts} | set(prediction.answers)


def test_the_fields_of_a_program_with_parts_on_both_sides_are_chosen_by_their_paths(said: Said) -> None:
    said.answer = both
    wanted: list[tuple[list[str], set[tuple[str, str]]]] = [
        (["answer"], {("cot.predict", "answer"), ("ask", "answer")}),
        (["cot.predict.answer"], {("cot.predict", "answer")}),
        (["ask.answer", "draft"], {("draft", "draft"), ("ask", "answer")}),
        (["draft.draft"], {("draft", "draft")}),
    ]
    for names, expected in wanted:
        told = told_of_fields(list(Whole().with_options(stream_fields=names).stream(question="x")))
        assert {(event.predictor, event.field) for event in told} == expected
    with pytest.raises(ConfigError) as caught:
        Whole().with_options(stream_fields=["find_it.answer"]).stream(question="x")
    assert caught.value.code == "bad-stream"


def test_what_gives_no_prediction_cannot_be_streamed_by_itself() -> None:
    with pytest.raises(ConfigError) as caught:
        list(dspex.remote("tests.support.programs:Gives", kind="list").stream("x"))
    assert caught.value.code == "not-a-prediction"


async def test_the_events_become_server_sent_events(server: ModelServer) -> None:
    async with opened(server):
        stream = dspex.program(PROGRAMS + "Answer").astream(question="x")
        parts = [part.decode() async for part in sse(stream)]
    assert '"predictor": "draft.predict"' in parts[0] or '"predictor":"draft.predict"' in parts[0]
    assert parts[-1].startswith("event: prediction")


# --- readers that are slow, or leave ------------------------------------------------------------------


WORDS = " ".join(f"word{number}" for number in range(4_000))
LONG = f"[[ ## answer ## ]]\n{WORDS}{DONE}"


@pytest.mark.parametrize("program", ["Asks", "AsyncAsks"])
async def test_a_slow_reader_slows_the_model_and_gets_it_all(program: str, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    made = dspex.program(PROGRAMS + program, file=str(file), tries=1)
    async with ModelServer(LONG) as server, opened(server) as runtime, made.astream(question="x") as stream:
        await anext(stream)
        await settled(runtime)
        assert not file.exists()  # the reply has not been read to its end
        rest = await events_of(stream)
    assert file.read_text() == "asked\n"
    assert "".join(texts_of(rest).values()) == WORDS


async def settled(runtime: dspex.Runtime) -> None:
    """Wait until nothing comes any more: the worker has turns enough to read on, if it did."""
    pool = runtime._pools[0].pool
    assert pool is not None
    for _ in range(300):
        await pool.echo(None)


class Held:
    """A model that answers once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.asked = 0

    async def __call__(self, request: Any) -> str:
        self.asked += 1
        await self.may.wait()
        return about(request)


async def leave(way: str, made: Any) -> None:
    """Read the first event of a stream, and leave it in one of the ways there are."""
    if way == "cancelled":
        told: list[Any] = []
        reading = asyncio.create_task(tell(made.astream(question="x"), told))
        await until(lambda: told)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return
    if way in ("with", "close"):
        await asyncio.to_thread(leave_from_a_thread, way, made)
        return
    stream = made.astream(question="x")
    await anext(stream)
    if way == "async with":
        async with stream:
            pass
    elif way == "aclose":
        await stream.aclose()


def leave_from_a_thread(way: str, made: Any) -> None:
    stream = made.stream(question="x")
    next(stream)
    if way == "with":
        with stream:
            pass
    else:
        stream.close()


@pytest.mark.parametrize("program", ["Answer", "AsyncAnswer"])
@pytest.mark.parametrize("way", ["async with", "aclose", "dropped", "cancelled", "with", "close"])
async def test_a_reader_that_leaves_ends_the_work_and_no_neighbour_s(
    server: ModelServer, program: str, way: str
) -> None:
    made = dspex.program(PROGRAMS + program)
    held = Held()
    async with ModelServer(held) as slow, opened(server) as runtime:
        before = await tasks_of_the_worker(runtime, made)
        (worker,) = (await runtime.apools())["general"].workers
        theirs = made.with_options(lm=dspex.LM("openai/m", api_base=slow.api_base, api_key="k"))
        neighbours = [asyncio.create_task(events_of(theirs.astream(question="n")))]
        neighbours.append(asyncio.create_task(theirs.acall(question="n")))
        await until(lambda: held.asked == 2)

        server.faults.push(Stall("middle"))
        await leave(way, made)
        gc.collect()
        await until(lambda: server.requests[-1].seconds is not None)  # its connection is closed
        await until(lambda: inflight(runtime) == 2)

        held.may.set()
        events, prediction = await asyncio.gather(*neighbours)
        assert events[-1] == prediction
        (after,) = (await runtime.apools())["general"].workers
        assert after.pid == worker.pid
        assert await tasks_of_the_worker(runtime, made) == before


def inflight(runtime: dspex.Runtime) -> int:
    pool = runtime._pools[0].pool
    assert pool is not None
    return sum(worker.inflight for worker in pool.status().workers)


async def tasks_of_the_worker(runtime: dspex.Runtime, made: Any) -> int:
    """How many tasks run in a worker that has just ended a stream, the one that counts included."""
    await events_of(made.astream(question="x"))
    pool = runtime._pools[0].pool
    assert pool is not None
    return int(await pool.run(streamed_programs.tasks))


async def test_a_program_in_a_thread_ends_with_the_call_that_it_is_in(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    made = dspex.program(PROGRAMS + "Asks", file=str(file))
    async with ModelServer(BLUE) as server, opened(server) as runtime:
        server.faults.push(None, Stall("middle"))
        async with made.astream(question="x") as stream:
            while await anext(stream) != FieldStart("answer", "ask", 1):
                pass
        await until(lambda: inflight(runtime) == 0)
        assert file.read_text().split() == ["asked", "CancelledError"]
        assert len(server.requests) == 2


async def test_what_a_program_leaves_running_goes_on_and_is_not_told_after_the_prediction() -> None:
    may = asyncio.Event()

    async def answer(request: Any) -> str:
        if "later" in str(request.messages[-1]["content"]):
            await may.wait()
        return about(request)

    async with ModelServer(answer) as server, opened(server) as runtime:
        events = await events_of(dspex.program(PROGRAMS + "Leaves").astream(question="now"))
        assert texts_of(events) == {("ask", "answer", 0): "answer of now"}
        may.set()
        pool = runtime._pools[0].pool
        assert pool is not None
        assert await pool.run(streamed_programs.what_was_left) == "answer of later"


# --- faults -------------------------------------------------------------------------------------------


FAULTS: list[tuple[Any, type[DspexError], bool]] = [
    (HttpError(500), LMError, False),
    (HttpError(429, retry_after=1), LMError, False),
    (Cut(), LMError, False),
    (Cut("middle"), LMError, True),
    (Stall(), LMError, False),
    (Stall("middle"), LMError, True),
]


@pytest.mark.parametrize("program", ["Answer", "AsyncAnswer"])
async def test_a_fault_of_the_server_is_the_call_s_error_and_the_next_stream_works(
    server: ModelServer, program: str
) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key="k", timeout=3)
    made = dspex.program(PROGRAMS + program)
    async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
        before = await tasks_of_the_worker(runtime, made)
        (worker,) = (await runtime.apools())["general"].workers
        for fault, error, has_begun in FAULTS:
            server.requests.clear()
            server.faults.push(fault)
            told: list[Any] = []
            with pytest.raises(DspexError) as called:
                await tell(made.astream(question="x"), told)
            assert isinstance(called.value, error), fault
            assert bool(told) is has_begun, fault
            assert len(server.requests) == 1, fault  # nothing is asked twice
            assert await tasks_of_the_worker(runtime, made) == before
        (after,) = (await runtime.apools())["general"].workers
        assert after.pid == worker.pid


@pytest.mark.parametrize("program", ["Answer", "AsyncAnswer"])
async def test_an_error_is_that_of_the_call(server: ModelServer, program: str) -> None:
    made = dspex.program(PROGRAMS + program)
    async with opened(server):
        for fault in (HttpError(500), HttpError(429), Cut(), Cut("middle")):
            seen: list[DspexError] = []
            for run in (made.acall, lambda **inputs: events_of(made.astream(**inputs))):
                server.faults.push(fault)
                with pytest.raises(DspexError) as caught:
                    await run(question="x")
                seen.append(caught.value)
            assert [(type(error), error.code) for error in seen[:1]] == [
                (type(error), error.code) for error in seen[1:]
            ]


@pytest.mark.parametrize(("idempotent", "asked"), [(True, 4), (False, 1)])
async def test_a_runtime_that_retries_begins_a_stream_again_only_before_its_first_event(
    server: ModelServer, idempotent: bool, asked: int
) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key="k")
    made = dspex.program(PROGRAMS + "AsyncAnswer").with_options(idempotent=idempotent)
    with no_waiting():
        async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1), retry=Retry()):
            server.faults.push(HttpError(429))
            told: list[Any] = []
            reading = tell(made.astream(question="x"), told)
            if idempotent:
                await reading
                assert len(told[-1].attempts) == 2
                assert len(texts_of(told)) == 4
            else:
                with pytest.raises(LMError):
                    await reading
                assert told == []
            assert len(server.requests) == asked

            server.faults.push(None, HttpError(429))
            with pytest.raises(LMError):
                await tell(made.astream(question="x"), told)
            assert len(server.requests) == asked + 2


@pytest.mark.parametrize("program", ["Answer", "AsyncAnswer"])
async def test_time_that_runs_out_ends_the_work_and_not_the_worker(server: ModelServer, program: str) -> None:
    made = dspex.program(PROGRAMS + program)
    async with opened(server) as runtime:
        before = await tasks_of_the_worker(runtime, made)
        (worker,) = (await runtime.apools())["general"].workers
        server.faults.push(Stall("middle"))
        told: list[Any] = []
        with pytest.raises(DeadlineExceeded):
            await tell(made.with_options(timeout=3).astream(question="x"), told)
        assert told
        await until(lambda: server.requests[-1].seconds is not None)
        await until(lambda: inflight(runtime) == 0)
        assert await tasks_of_the_worker(runtime, made) == before
        (after,) = (await runtime.apools())["general"].workers
        assert after.pid == worker.pid


async def test_a_reader_that_does_not_read_spends_the_time_of_the_call() -> None:
    async with ModelServer(LONG) as server, opened(server) as runtime:
        await runtime.awarmup()
        stream = dspex.program(PROGRAMS + "Unusual", how="copy").with_options(timeout=3).astream(question="x")
        await anext(stream)
        await until(lambda: stream._task is not None and stream._task.done())
        with pytest.raises(DeadlineExceeded) as caught:
            await events_of(stream)
        assert caught.value.stage in ("reader", "worker")
        await until(lambda: inflight(runtime) == 0)
        await until(lambda: server.requests[0].seconds is not None)


@pytest.mark.parametrize("at", ["start", "middle"])
async def test_a_worker_that_dies_fails_the_stream_and_the_next_one_works(
    server: ModelServer, at: Any
) -> None:
    made = dspex.program(PROGRAMS + "AsyncAnswer")
    async with opened(server) as runtime:
        await made.acall(question="x")
        server.requests.clear()
        server.faults.push(Stall(at))
        told: list[Any] = []
        reading = asyncio.create_task(tell(made.astream(question="x"), told))
        await until(lambda: told if at == "middle" else server.requests)
        (worker,) = (await runtime.apools())["general"].workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError):
            await reading
        assert bool(told) is (at == "middle")
        assert len(server.requests) == 1
        assert (await events_of(made.astream(question="x")))[-1].answer == "answer of answer of draft of x"


@pytest.mark.parametrize(("at", "idempotent"), [("start", True), ("start", False), ("middle", True)])
async def test_only_before_its_first_event_a_stream_is_made_again_if_it_may_be(
    server: ModelServer, at: Any, idempotent: bool
) -> None:
    made = dspex.program(PROGRAMS + "AsyncAnswer").with_options(idempotent=idempotent)
    timeouts = Timeouts(cancel=0.2, stop=2)
    async with opened(server, max_inflight=8, timeouts=timeouts) as runtime:
        await made.acall(question="x")
        server.requests.clear()
        server.faults.push(Stall(at))
        told: list[Any] = []
        reading = asyncio.create_task(tell(made.astream(question="x"), told))
        await until(lambda: told if at == "middle" else server.requests)
        pool = runtime._pools[0].pool
        assert pool is not None
        with pytest.raises(DeadlineExceeded):  # the worker is ended for a neighbour that does not stop
            await pool.with_options(timeout=0.3).run(work.block)
        if at == "start" and idempotent:
            await reading
            assert told[-1].answer == "answer of answer of draft of x"
            assert len(told[-1].attempts) == 2
            assert texts_of(told)["draft.predict", "draft", 0] == "draft of x"
        else:
            with pytest.raises(WorkerDiedError):
                await reading
            assert len(server.requests) == 1


async def test_what_a_program_raises_comes_after_the_events_before_it() -> None:
    async with ModelServer(BLUE) as server, opened(server):
        told: list[Any] = []
        with pytest.raises(RemoteError, match="no such city") as caught:
            await tell(dspex.program(PROGRAMS + "Breaks").astream(question="x"), told)
        assert caught.value.type == "LookupError"
        assert texts_of(told) == {("ask", "answer", 0): "blue and green"}


def test_a_reply_that_cannot_be_read_is_told_as_far_as_it_goes(said: Said) -> None:
    said.reply = fields(answer="blue", score="many")
    told: list[Any] = []
    with pytest.raises(ReplyError):
        told.extend(
            dspex.remote("dspy.ChainOfThought", "question -> answer, score: int").stream(question="x")
        )
    with pytest.raises(ReplyError) as caught:
        asyncio.run(
            tell(dspex.remote("dspy.Predict", "question -> answer, score: int").astream(question="x"), told)
        )
    assert caught.value.reply == said.reply
    assert texts_of(told)["self", "answer", 0] == "blue"


@pytest.mark.parametrize(
    ("inputs", "error", "code"),
    [({"questoin": "x"}, InputError, "arguments"), ({}, InputError, "arguments")],
)
def test_what_is_wrong_with_a_call_is_raised_by_the_first_step(
    said: Said, inputs: Any, error: type[DspexError], code: str
) -> None:
    for program in ("Answer", "AsyncAnswer"):
        with pytest.raises(error) as caught:
            next(dspex.program(PROGRAMS + program).stream(**inputs))
        assert caught.value.code == code
    assert said.server.requests == []


async def test_a_runtime_that_closes_ends_its_streams(server: ModelServer) -> None:
    server.faults.push(Stall("middle"))
    async with opened(server):
        stream = dspex.program(PROGRAMS + "AsyncAnswer").astream(question="x")
        await anext(stream)
    with pytest.raises(ConfigError) as caught:
        await events_of(stream)
    assert caught.value.code == "runtime-closed"
