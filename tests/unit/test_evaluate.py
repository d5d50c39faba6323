"""`Module.evaluate`: which examples and metrics it takes, what fails, what ends it. Scores: see parity."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import dspy
import pytest

import dspex
from dspex import metrics
from dspex.errors import BatchError, ConfigError, DeadlineExceeded, DspexError, InputError, ReplyError
from dspex.modules import _evaluate
from dspex.testing import ChatRequest, ScriptedLM

SECONDS = 20.0
"""How long a test waits for what must happen."""


def reply(request: ChatRequest) -> str:
    question = request.prompt.partition("[[ ## question ## ]]\n")[2].partition("\n")[0]
    return f"[[ ## reasoning ## ]]\nr\n\n[[ ## answer ## ]]\n{question.upper()}\n"


@pytest.fixture
def runtime() -> Iterator[dspex.Runtime]:
    with dspex.Runtime(ScriptedLM(reply), timeout=SECONDS) as runtime:
        yield runtime


class Echo(dspex.Module):
    """Asks no model."""

    async def aforward(self, question: str, style: str = "") -> dspex.Prediction:
        return dspex.Prediction(answer=question.upper() + style)


class EchoInThreads(dspex.Module):
    def forward(self, question: str) -> dspex.Prediction:
        return dspex.Prediction(answer=question.upper())


ROWS = [{"question": text, "answer": text.upper() if text != "c" else "?"} for text in "kbcd"]
"""The metrics below find three of four right."""


def right(example: Any, prediction: Any) -> bool:
    return bool(example.answer == prediction.answer)


async def right_awaited(example: Any, prediction: Any) -> bool:
    await asyncio.sleep(0)
    return right(example, prediction)


class Judge:
    async def __call__(self, example: Any, prediction: Any) -> bool:
        return await right_awaited(example, prediction)


class JudgeProgram(dspex.Module):
    async def aforward(self, example: Any, prediction: Any) -> dspex.Prediction:
        return dspex.Prediction(score=float(right(example, prediction)), feedback="as I see it")


class JudgeProgramInThreads(dspex.Module):
    def forward(self, example: Any, prediction: Any) -> dspex.Prediction:
        return dspex.Prediction(score=float(right(example, prediction)))


METRICS: list[Callable[[Any, Any], Any]] = [
    right,
    right_awaited,
    Judge(),
    lambda example, prediction: right_awaited(example, prediction),
    partial(right_awaited),
    metrics.answer_exact_match,
    partial(metrics.answer_exact_match, frac=0.9),
    JudgeProgram(),
    JudgeProgramInThreads(),
]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
@pytest.mark.parametrize("program", [Echo(), EchoInThreads()], ids=lambda program: type(program).__name__)
def test_metrics_of_every_kind_judge_in_both_ways(program: dspex.Module, metric: Any) -> None:
    for found in (
        program.evaluate(ROWS, metric, 2, inputs=["question"]),
        asyncio.run(program.aevaluate(ROWS, metric, 2, inputs=["question"])),
    ):
        assert found.score == 75.0
        assert [row.number for row in found.results] == [0, 1, 2, 3]
        assert [row.number for row in found.failures] == [2]
        assert [row.prediction.answer for row in found.results] == ["K", "B", "C", "D"]
        assert found.errors == []
        assert all(row.seconds >= 0 for row in found.results)


class Numbered:
    """A data set: items by number, and no more."""

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, number: int) -> Any:
        return ROWS[number]


async def in_async(source: Any) -> AsyncIterator[Any]:
    for row in source:
        await asyncio.sleep(0)
        yield row


SOURCES: list[Callable[[], Any]] = [
    lambda: ROWS,
    lambda: tuple(ROWS),
    lambda: iter(ROWS),
    lambda: (row for row in ROWS),
    Numbered,
    lambda: [dspy.Example(**row) for row in ROWS],
    lambda: [dspy.Example(**row).with_inputs("question") for row in ROWS],
    lambda: [dspex.Prediction(row) for row in ROWS],
]


@pytest.mark.parametrize("source", SOURCES)
def test_examples_come_from_anywhere_and_a_signature_says_which_fields_are_inputs(
    runtime: dspex.Runtime, source: Callable[[], Any]
) -> None:
    for module in (dspex.Predict("question -> answer"), dspex.ChainOfThought("question -> answer")):
        assert module.evaluate(source(), right).score == 75.0
    best = dspex.BestOfN(dspex.Predict("question -> answer"), 1, lambda inputs, made: 1.0, 1.0)
    assert best.evaluate(source(), right).score == 75.0

    async def main() -> None:
        assert (await module.aevaluate(source(), right)).score == 75.0
        assert (await module.aevaluate(in_async(source()), right)).score == 75.0

    asyncio.run(main())


def test_an_example_of_dspys_stays_itself_and_says_its_inputs_before_the_signature() -> None:
    seen: list[Any] = []

    def metric(example: Any, prediction: Any) -> float:
        seen.append(example)
        return len(prediction.answer)

    example = dspy.Example(question="a", style="!", answer="A!")
    assert Echo().evaluate([example.with_inputs("question", "style")], metric).score == 200.0
    assert Echo().evaluate([example.with_inputs("question")], metric).score == 100.0
    # What the caller says comes first.
    found = Echo().evaluate([example.with_inputs("question")], metric, inputs=("question", "style"))
    assert found.score == 200.0
    assert seen[-1] is found.results[0].example
    assert isinstance(seen[-1], dspy.Example)


def test_a_signature_that_a_program_has_as_an_attribute_says_its_inputs() -> None:
    class Signed(Echo):
        signature = dspex.Signature("question -> answer")

    assert Signed().evaluate(ROWS, right).score == 75.0


def test_a_metric_in_a_thread_may_block_and_ask_a_module(runtime: dspex.Runtime) -> None:
    predict = dspex.Predict("question -> answer")
    threads: set[int] = set()

    def judge(example: Any, prediction: Any) -> bool:
        threads.add(threading.get_ident())
        return bool(predict(question=example.question).answer == example.answer)

    async def main() -> None:
        assert (await predict.aevaluate(ROWS, judge)).score == 75.0
        assert threading.get_ident() not in threads

    assert predict.evaluate(ROWS, judge).score == 75.0
    asyncio.run(main())


def test_a_metric_of_dspexs_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_evaluate, "in_thread", None)
    assert Echo().evaluate(ROWS, metrics.answer_exact_match, inputs=["question"]).score == 75.0
    assert len(Echo().evaluate(ROWS, right, inputs=["question"]).errors) == 4


def test_what_an_async_metric_sets_in_its_context_is_seen_by_no_other() -> None:
    said: contextvars.ContextVar[str] = contextvars.ContextVar("said", default="nothing")
    seen: list[str] = []

    async def metric(example: Any, prediction: Any) -> bool:
        seen.append(said.get())
        said.set(example.question)
        return True

    Echo().evaluate(ROWS, metric, 1, inputs=["question"])
    assert seen == ["nothing"] * 4


def test_a_row_keeps_what_there_was_before_it_failed(runtime: dspex.Runtime) -> None:
    def metric(example: Any, prediction: Any) -> float:
        if example.question == "b":
            raise LookupError("no such thing")
        return 1.0

    rows = [*ROWS, {"answer": "without a question"}]
    found = dspex.Predict("question -> answer").evaluate(rows, metric, failure_score=-1)
    assert found.score == 20.0
    second, last = found.errors
    assert (second.number, second.prediction.answer, second.score) == (1, "B", -1)
    assert isinstance(second.error, LookupError)
    assert second.error.__traceback__ is None
    assert (last.number, last.prediction, last.score) == (4, None, -1)
    assert isinstance(last.error, InputError)


def test_an_unreadable_reply_is_its_rows_error(runtime: dspex.Runtime) -> None:
    with dspex.Runtime(ScriptedLM("nothing of the kind")) as other:
        predict = dspex.Predict("question -> answer: int", runtime=other)
        found = predict.evaluate(ROWS, right)
    assert found.score == 0.0
    assert all(isinstance(row.error, ReplyError) for row in found.results)


def test_the_options_are_those_of_a_batch() -> None:
    def metric(example: Any, prediction: Any) -> float:
        raise LookupError(example.question)

    told: list[tuple[int, int | None]] = []
    program = Echo()
    evaluate = partial(program.evaluate, ROWS, inputs=["question"])
    evaluate(right, progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 4) for number in range(1, 5)]
    with pytest.raises(LookupError) as caught:
        evaluate(metric, 1, errors="raise")
    assert caught.value.__notes__ == ["row 0 of the batch"]
    with pytest.raises(BatchError):
        evaluate(metric, max_errors=2)
    with pytest.raises(ConfigError) as refused:
        evaluate(metric, concurency=3)  # type: ignore[call-arg]
    assert refused.value.code == "unknown-setting"


def test_the_time_of_an_evaluation_is_for_all_of_it() -> None:
    async def metric(example: Any, prediction: Any) -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(DeadlineExceeded) as caught:
        Echo().evaluate(ROWS, metric, inputs=["question"], timeout=0.05)
    assert caught.value.stage == "batch"


BAD: list[tuple[dict[str, Any], type[DspexError], str, str]] = [
    ({"metric": 5}, ConfigError, "bad-metric", "a metric is a function, not 5"),
    (
        {"metric": dspex.Predict("question -> answer")},
        ConfigError,
        "bad-metric",
        "a metric is called with an example and a prediction, and Predict takes its inputs by name",
    ),
    ({"failure_score": "0"}, ConfigError, "bad-batch", "failure_score must be a number, not '0'"),
    ({"threshold": None}, ConfigError, "bad-batch", "threshold must be a number, not None"),
    ({"inputs": "question"}, InputError, "bad-devset", "inputs must be a list of names"),
    ({"inputs": 5}, InputError, "bad-devset", "inputs must be a list of names"),
    ({"devset": []}, InputError, "bad-devset", "the devset is empty"),
    ({"devset": iter(())}, InputError, "bad-devset", "the devset is empty"),
    ({"devset": "rows"}, InputError, "bad-devset", "the devset must be a list of examples, not str"),
    ({"devset": ROWS[0]}, InputError, "bad-devset", "the devset must be a list of examples, not dict"),
    ({"devset": 5}, InputError, "bad-devset", "the devset must be a list of examples, not int"),
    (
        {"devset": [*ROWS, "text"]},
        InputError,
        "bad-devset",
        "devset[4] must map names of fields to values, not be 'text'",
    ),
    ({"inputs": None}, InputError, "bad-devset", "nobody knows which fields of devset[0] are inputs"),
]


@pytest.mark.parametrize(("change", "kind", "code", "message"), BAD)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    change: dict[str, Any], kind: type[DspexError], code: str, message: str
) -> None:
    ran: list[Any] = []

    class Counting(Echo):
        async def aforward(self, question: str, style: str = "") -> dspex.Prediction:
            ran.append(question)
            return await super().aforward(question)

    given = {"devset": ROWS, "metric": right, "inputs": ["question"], **change}
    with pytest.raises(kind) as caught:
        Counting().evaluate(**given)
    assert (caught.value.code, caught.value.args) == (code, (message,))
    with pytest.raises(kind) as awaited:
        asyncio.run(Counting().aevaluate(**given))
    assert str(awaited.value) == str(caught.value)
    assert ran == []


def test_an_example_that_is_none_ends_an_evaluation_that_reads_as_it_goes() -> None:
    with pytest.raises(InputError) as caught:
        Echo().evaluate(iter([*ROWS, 5]), right, 1, inputs=["question"])
    assert caught.value.code == "bad-devset"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


def test_a_cancelled_evaluation_leaves_no_task_and_no_thread_at_work() -> None:
    """One row in the program, one in a metric that is awaited, one in a metric in a thread."""
    started: list[str] = []
    ended: list[str] = []
    opened = threading.Event()

    async def forever(what: str) -> None:
        started.append(what)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(what)

    class Waiting(Echo):
        async def aforward(self, question: str, style: str = "") -> dspex.Prediction:
            if question == "k":
                await forever("program")
            return dspex.Prediction(answer=question)

    def metric(example: Any, prediction: Any) -> Any:
        if example.question == "b":
            return forever("metric")
        started.append("thread")
        assert opened.wait(SECONDS)
        ended.append("thread")
        return True

    async def main() -> None:
        before = asyncio.all_tasks()
        task = asyncio.create_task(Waiting().aevaluate(ROWS[:3], metric, inputs=["question"]))
        while len(started) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        while len(ended) < 2:
            await asyncio.sleep(0.001)
        assert not task.done()  # the thread cannot be stopped
        opened.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == before

    asyncio.run(asyncio.wait_for(main(), SECONDS))
    assert sorted(ended) == sorted(started) == ["metric", "program", "thread"]


def test_what_ends_an_evaluation_ends_its_metrics(runtime: dspex.Runtime) -> None:
    running: set[str] = set()

    async def metric(example: Any, prediction: Any) -> bool:
        if example.question == "d":
            while len(running) < 3:
                await asyncio.sleep(0)
            raise LookupError("the last")
        running.add(example.question)
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(example.question)
        return True

    with pytest.raises(LookupError, match="the last"):
        dspex.Predict("question -> answer").evaluate(ROWS, metric, errors="raise")
    until(lambda: not running)


def test_memory_grows_as_the_examples_do() -> None:
    """Ten thousand rows hold four times what 2,500 do, and no more while they run than when they have."""

    def held(count: int) -> tuple[int, int]:
        rows = ({"question": f"{number}", "answer": f"{number}"} for number in range(count))
        gc.collect()
        tracemalloc.start()
        try:
            found = Echo().evaluate(rows, metrics.answer_exact_match, inputs=["question"], progress=False)
            now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (found.score, len(found.results)) == (100.0, count)
        return now, peak

    held(100)  # what is imported once
    small, _ = held(2_500)
    large, peak = held(10_000)
    assert large < 5 * small
    assert peak < 2 * large


def test_callbacks_hear_of_an_evaluation_around_its_calls(runtime: dspex.Runtime) -> None:
    heard: list[tuple[Any, ...]] = []

    class Callback(dspex.callbacks.BaseCallback):
        def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            heard.append(("start", call_id, instance, inputs))

        def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            heard.append(("module", dspex.callbacks.active_call_id()))

        def on_evaluate_end(
            self, call_id: str, outputs: Any | None, exception: BaseException | None = None
        ) -> None:
            heard.append(("end", call_id, outputs, exception))

    program = Echo(callbacks=[Callback()])
    found = program.evaluate(ROWS, right, inputs=["question"])
    awaited = asyncio.run(program.aevaluate(ROWS, right, inputs=["question"]))
    for each, evaluation in ((heard[:6], found), (heard[6:], awaited)):
        call_id = each[0][1]
        assert each[0] == ("start", call_id, program, {"program": program, "devset": ROWS, "metric": right})
        assert each[1:5] == [("module", call_id)] * 4
        assert each[5] == ("end", call_id, evaluation, None)
    heard.clear()
    with pytest.raises(InputError) as caught:
        program.evaluate([], right)
    assert [each[0] for each in heard] == ["start", "end"]
    assert heard[1][2:] == (None, caught.value)
