"""Many rows through one module: where they come from, how many run, what fails, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import dspy
import pytest

import dspex
from dspex.errors import BatchError, ConfigError, DeadlineExceeded, DspexError, InputError, LMRequestError
from dspex.testing import ChatRequest, ScriptedLM

SECONDS = 20.0
"""How long a test waits for what must happen."""


def number_of(request: ChatRequest) -> int:
    return int(request.prompt.partition("row ")[2].split()[0])


class Model:
    """Answers with the row's number; `refused` ones fail, and each call waits while `gate` is shut."""

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.open = True
        self.running = self.most = 0
        self.cancelled: list[int] = []
        self.asked: list[int] = []
        self.lm = ScriptedLM(self.answer)

    async def answer(self, request: ChatRequest) -> str:
        number = number_of(request)
        self.asked.append(number)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            while not self.open:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        finally:
            self.running -= 1
        if number in self.refused:
            raise LMRequestError(f"row {number} is refused")
        return f"[[ ## reasoning ## ]]\nr\n\n[[ ## answer ## ]]\n{number}"


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def runtime(model: Model) -> Iterator[dspex.Runtime]:
    with dspex.Runtime(model.lm, timeout=SECONDS) as runtime:
        yield runtime


def rows(count: int) -> list[dict[str, Any]]:
    return [{"question": f"row {number} ?"} for number in range(count)]


def answers(outcomes: list[Any]) -> list[Any]:
    return [outcome.code if isinstance(outcome, DspexError) else int(outcome.answer) for outcome in outcomes]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


class Program(dspex.Module):
    """Has a `forward` only, and so runs in threads."""

    def __init__(self) -> None:
        self.inner = dspex.Predict("question -> answer")

    def forward(self, question: str) -> dspex.Prediction:
        return self.inner(question=question)


class AsyncProgram(Program):
    forward: Any = None

    async def aforward(self, question: str) -> dspex.Prediction:
        return await self.inner.acall(question=question)


MODULES: list[Callable[[], dspex.Module]] = [
    lambda: dspex.Predict("question -> answer"),
    lambda: dspex.ChainOfThought("question -> answer"),
    lambda: dspex.BestOfN(dspex.Predict("question -> answer"), 2, lambda inputs, made: 1.0, 1.0),
    Program,
    AsyncProgram,
]


async def in_async(source: Any) -> AsyncIterator[Any]:
    for row in source:
        await asyncio.sleep(0)
        yield row


@pytest.mark.parametrize("make", MODULES)
def test_every_module_runs_its_rows_in_every_way(
    runtime: dspex.Runtime, model: Model, make: Callable[[], dspex.Module]
) -> None:
    module, some = make(), rows(30)
    model.refused = {7, 9}
    expected = ["lm-request" if number in model.refused else number for number in range(30)]
    for source in (some, tuple(some), iter(some), (row for row in some)):
        assert answers(module.batch(source, 4)) == expected
    assert 1 < model.most <= 4
    assert dict(module.batch_as_completed(iter(some), 4)).keys() == set(range(30))
    found = dict(module.batch_as_completed(some))
    assert answers([found[number] for number in range(30)]) == expected

    async def main() -> None:
        assert answers(await module.abatch(some, 4)) == expected
        assert answers(await module.abatch(in_async(some), 4)) == expected
        found = {number: outcome async for number, outcome in module.abatch_as_completed(in_async(some), 4)}
        assert answers([found[number] for number in range(30)]) == expected

    asyncio.run(main())


def test_a_batch_works_on_the_runtime_s_own_loop_and_with_a_runtime_of_its_own(model: Model) -> None:
    async def main() -> None:
        async with dspex.Runtime(model.lm) as runtime:
            predict = dspex.Predict("question -> answer", runtime=runtime)
            assert answers(await predict.abatch(rows(5))) == [*range(5)]
            # From a thread: its own runtime lives on this loop.
            assert answers(await asyncio.to_thread(predict.batch, rows(5))) == [*range(5)]
            with pytest.raises(ConfigError) as caught:
                predict.batch(rows(5))
            assert caught.value.code == "blocking-in-loop"

    asyncio.run(main())


def test_a_program_without_any_runtime_runs_on_a_loop_of_the_batch_s_own() -> None:
    class Plain(dspex.Module):
        async def aforward(self, question: str) -> str:
            await asyncio.sleep(0)
            return question

    assert Plain().batch(rows(2)) == ["row 0 ?", "row 1 ?"]
    assert sorted(Plain().batch_as_completed(rows(1))) == [(0, "row 0 ?")]
    with pytest.raises(ConfigError) as caught:
        dspex.Predict("question -> answer").batch(rows(2))
    assert caught.value.code == "no-runtime"


@pytest.mark.parametrize("is_async", [False, True])
def test_rows_are_read_as_they_are_needed(runtime: dspex.Runtime, model: Model, is_async: bool) -> None:
    read: list[int] = []

    def source() -> Iterator[Any]:
        for number, row in enumerate(rows(1_000)):
            read.append(number)
            yield row

    module = dspex.Predict("question -> answer")
    model.open = False
    if is_async:
        given: Any = in_async(source())
        thread = threading.Thread(target=lambda: asyncio.run(module.abatch(given, 8)))
    else:
        thread = threading.Thread(target=lambda: module.batch(source(), 8))
    thread.start()
    until(lambda: model.running == 8)
    assert len(read) <= 16
    model.open = True
    thread.join(SECONDS)
    assert len(read) == 1_000
    assert model.most == 8


def test_whoever_takes_outcomes_slowly_is_not_run_away_from(runtime: dspex.Runtime, model: Model) -> None:
    with contextlib.closing(dspex.Predict("question -> answer").batch_as_completed(rows(100), 4)) as outcomes:
        next(outcomes)
        until(lambda: model.running == 0 and len(model.asked) >= 12)
        assert len(model.asked) <= 13
        assert len(list(outcomes)) == 99


def test_rows_that_belong_to_a_thread_are_read_on_the_caller_s(runtime: dspex.Runtime) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table t (question text)")
        database.executemany("insert into t values (?)", [(row["question"],) for row in rows(50)])
        cursor = database.execute("select question from t")
        questions = ({"question": question} for (question,) in cursor)
        assert answers(dspex.Predict("question -> answer").batch(questions, 4)) == [*range(50)]


def test_a_row_is_a_mapping_or_an_example_of_dspy_s(runtime: dspex.Runtime) -> None:
    class Columns:
        """As a row of a database is."""

        def keys(self) -> list[str]:
            return ["question"]

        def __getitem__(self, name: str) -> str:
            return "row 2 ?"

    example = dspy.Example(question="row 0 ?", answer="no input")
    some: list[Any] = [
        example.with_inputs("question"),
        dspy.Example(question="row 1 ?"),
        Columns(),
        dspex.Prediction(question="row 3 ?"),
        "text",
        {1: "row 4 ?"},
        None,
        {"question": "row 5 ?", "other": 1},
        {"question": "row 6 ?", "config": {"seed": 3}},
    ]
    found = answers(dspex.Predict("question -> answer").batch(some))
    assert found == [0, 1, 2, 3, "bad-row", "bad-row", "bad-row", "input", 6]


@pytest.mark.parametrize("given", [3, "text", {"question": "row 0"}, None])
def test_what_are_no_rows_is_refused_at_once(given: Any) -> None:
    module = AsyncProgram()
    for call in (module.batch, module.batch_as_completed, lambda rows: asyncio.run(module.abatch(rows))):
        with pytest.raises(InputError) as caught:
            call(given)
        assert caught.value.code == "bad-row"
    with pytest.raises(InputError, match="cannot read an async iterable"):
        module.batch(in_async([]))  # type: ignore[call-overload]


def test_a_batch_of_nothing_is_an_empty_list(runtime: dspex.Runtime) -> None:
    module = dspex.Predict("question -> answer")
    assert module.batch([]) == module.batch(iter(())) == asyncio.run(module.abatch([])) == []
    assert module.batch([], return_failed_examples=True) == ([], [], [])
    assert list(module.batch_as_completed([])) == []


def test_a_failed_row_holds_its_error_without_its_frames(runtime: dspex.Runtime, model: Model) -> None:
    model.refused = {1}
    outcome = dspex.Predict("question -> answer").batch(rows(3))[1]
    assert isinstance(outcome, LMRequestError)
    assert outcome.__traceback__ is None


def test_the_error_of_a_program_s_own_is_the_row_s(runtime: dspex.Runtime) -> None:
    class Failing(dspex.Module):
        async def aforward(self, question: str) -> None:
            raise LookupError(question)

    class FailingInThreads(dspex.Module):
        def forward(self, question: str) -> None:
            raise LookupError(question)

    for program in (Failing(), FailingInThreads()):
        assert [str(outcome) for outcome in program.batch(rows(2))] == ["row 0 ?", "row 1 ?"]


def test_the_first_error_is_raised_where_that_is_wanted(runtime: dspex.Runtime, model: Model) -> None:
    model.refused = {2}
    module = dspex.Predict("question -> answer")
    for call in (
        lambda: module.batch(rows(9), 1, errors="raise"),
        lambda: list(module.batch_as_completed(rows(9), 1, errors="raise")),
        lambda: asyncio.run(module.abatch(rows(9), 1, errors="raise")),
    ):
        model.asked.clear()
        with pytest.raises(LMRequestError, match="row 2 is refused") as caught:
            call()
        assert caught.value.__notes__ == ["row 2 of the batch"]
        assert model.asked == [0, 1, 2]


def test_too_many_errors_stop_the_batch_with_counts_and_causes(runtime: dspex.Runtime, model: Model) -> None:
    model.refused = {1, 3, 5, 6}
    module = dspex.Predict("question -> answer")
    done: list[int] = []

    def collecting(*arguments: Any, **options: Any) -> None:
        for number, _ in module.batch_as_completed(*arguments, **options):
            done.append(number)

    for is_list in (True, False):
        model.asked.clear()
        module_call = module.batch if is_list else collecting
        with pytest.raises(BatchError, match="3 of 6 rows failed, the first row 1: LMRequestError") as caught:
            module_call(rows(100), 1, max_errors=3)
        error = caught.value
        assert (error.code, error.done, error.failed) == ("too-many-errors", 6, 3)
        assert [text.partition(":")[0] for text in error.first] == ["row 1", "row 3", "row 5"]
        assert isinstance(error.__cause__, LMRequestError)
        assert model.asked == [*range(6)]
    assert done == [*range(5)]


def test_a_batch_whose_time_is_over_ends_what_is_under_way(runtime: dspex.Runtime, model: Model) -> None:
    model.open = False
    for make in MODULES:
        model.cancelled.clear()
        with pytest.raises(DeadlineExceeded, match=r"0\.2 s of the batch ran out") as caught:
            make().batch(rows(9), 2, timeout=0.2)
        assert caught.value.stage == "batch"
        until(lambda: model.running == 0)


def test_a_row_s_own_time_is_the_row_s_alone(runtime: dspex.Runtime, model: Model) -> None:
    class Slow(AsyncProgram):
        async def aforward(self, question: str) -> dspex.Prediction:
            if question.startswith("row 1"):
                await asyncio.Event().wait()
            return await super().aforward(question)

    assert answers(Slow().with_options(timeout=0.3).batch(rows(3))) == [0, "deadline-exceeded", 2]


def test_a_cancelled_batch_ends_all_that_is_under_way(runtime: dspex.Runtime, model: Model) -> None:
    model.open = False

    async def main() -> None:
        task = asyncio.create_task(dspex.Predict("question -> answer").abatch(rows(9), 4))
        while model.running < 4:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while len(model.cancelled) < 4:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(main(), SECONDS))
    assert sorted(model.cancelled) == [0, 1, 2, 3]


@pytest.mark.parametrize("is_async", [False, True])
def test_leaving_the_loop_over_outcomes_ends_what_is_under_way(
    runtime: dspex.Runtime, model: Model, is_async: bool
) -> None:
    module = dspex.Predict("question -> answer")

    async def answer(request: ChatRequest) -> str:
        if number_of(request) == 0:
            return "[[ ## answer ## ]]\n0"
        model.open = False
        return await model.answer(request)

    lm = ScriptedLM(answer)
    if is_async:

        async def main() -> None:
            async with contextlib.aclosing(
                module.with_options(lm=lm).abatch_as_completed(rows(9), 3)
            ) as found:
                async for _ in found:
                    break
            assert {task for task in asyncio.all_tasks() if "BatchRun" in repr(task)} == set()

        asyncio.run(main())
    else:
        with contextlib.closing(module.with_options(lm=lm).batch_as_completed(rows(9), 3)) as found:
            next(found)
    until(lambda: model.running == 0)


def test_a_source_that_fails_fails_the_batch_and_ends_what_is_under_way(
    runtime: dspex.Runtime, model: Model
) -> None:
    def source() -> Iterator[Any]:
        yield from rows(3)
        raise LookupError("the source's own")

    module = dspex.Predict("question -> answer")
    for call in (
        lambda: module.batch(source(), 2),
        lambda: list(module.batch_as_completed(source(), 2)),
        lambda: asyncio.run(module.abatch(source(), 2)),
        lambda: asyncio.run(module.abatch(in_async(source()), 2)),
    ):
        with pytest.raises(LookupError, match="the source's own"):
            call()
        until(lambda: model.running == 0)


def test_a_runtime_that_closes_ends_its_batches(model: Model) -> None:
    model.open = False
    caught: list[Exception] = []
    with dspex.Runtime(model.lm) as runtime:
        module = dspex.Predict("question -> answer", runtime=runtime)

        def run() -> None:
            try:
                module.batch(rows(99), 2)
            except Exception as error:  # noqa: BLE001
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: model.running == 2)
    thread.join(SECONDS)
    assert [getattr(error, "code", error) for error in caught] == ["runtime-closed"]
    assert model.asked == [0, 1]


def test_a_program_s_context_is_not_the_next_row_s(runtime: dspex.Runtime) -> None:
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")
    found = []

    class Leaving(dspex.Module):
        async def aforward(self, question: str) -> None:
            found.append(seen.get())
            seen.set(question)

    token = seen.set("the caller's")
    Leaving().batch(rows(3), 1)
    seen.reset(token)
    assert found == ["the caller's"] * 3


def test_dspy_s_arguments_mean_what_they_mean_there(
    runtime: dspex.Runtime, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.refused = {1}
    examples = [dspy.Example(**row).with_inputs("question") for row in rows(3)]
    module = dspex.Predict("question -> answer")
    with caplog.at_level(logging.WARNING, "dspex.modules"):
        results, failed, errors = module.batch(
            examples,
            num_threads=2,
            max_errors=5,
            return_failed_examples=True,
            provide_traceback=True,
            disable_progress_bar=True,
        )
    assert [result and result.answer for result in results] == ["0", None, "2"]
    assert failed == [examples[1]]
    assert [type(error) for error in errors] == [LMRequestError]
    assert [record.getMessage() for record in caplog.records] == ["row 1 of a batch failed"]
    assert caplog.records[0].exc_info is not None
    assert model.most == 2


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"concurrency": 0}, "bad-batch", "concurrency must be"),
        ({"concurrency": True}, "bad-batch", "concurrency must be"),
        ({"num_threads": "4"}, "bad-batch", "concurrency must be"),
        ({"concurrency": 3, "num_threads": 4}, "bad-batch", "not both"),
        ({"max_errors": 0}, "bad-batch", "max_errors must be"),
        ({"errors": "ignore"}, "bad-batch", "errors must be"),
        ({"progress": 3}, "bad-batch", "progress must be"),
        ({"timeout": 0}, "bad-timeout", "timeout must be"),
        ({"straggler_limit": 3}, "bad-batch", "straggler_limit"),
        ({"concurency": 3}, "unknown-setting", "no option 'concurency'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_what_to_write(
    options: dict[str, Any], code: str, message: str
) -> None:
    module = AsyncProgram()
    for call in (module.batch, module.batch_as_completed, module.abatch_as_completed):
        with pytest.raises(ConfigError, match=message) as caught:
            call([], **options)
        assert caught.value.code == code
        assert caught.value.hint


def test_a_function_is_told_of_each_row(runtime: dspex.Runtime, model: Model) -> None:
    told: list[Any] = []
    module = dspex.Predict("question -> answer")
    module.batch(rows(3), 1, progress=lambda done, total: told.append((done, total)))
    module.batch(iter(rows(1)), 1, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3), (1, None)]

    def broken(done: int, total: int | None) -> None:
        raise LookupError("the function's own")

    with pytest.raises(LookupError, match="the function's own"):
        module.batch(rows(3), progress=broken)


class Screen(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("options", "is_terminal", "shown"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"progress": True}, False, True),
        ({"progress": False}, True, False),
        ({"disable_progress_bar": True}, True, False),
    ],
)
def test_a_bar_is_shown_on_terminals_or_where_it_is_wanted(
    runtime: dspex.Runtime,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    options: Any,
    is_terminal: bool,
    shown: bool,
) -> None:
    screen = Screen(is_terminal)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setitem(sys.modules, "rich", None)
    model.refused = {1}
    dspex.Predict("question -> answer").batch(rows(4), **options)
    last = screen.getvalue().rpartition("\r")[2]
    assert bool(last) is shown
    if shown:
        assert last.startswith(f"[{'#' * 30}] 4/4 rows, ")
        assert last.rstrip(" \n").endswith("/s, 1 failed")


@pytest.mark.parametrize("options", [{}, {"progress": True}])
def test_a_screen_that_goes_in_the_middle_ends_no_batch(
    runtime: dspex.Runtime, model: Model, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    screen = Screen(True)
    monkeypatch.setattr("sys.stderr", screen)
    outcomes = dspex.Predict("question -> answer").batch_as_completed(rows(4), 1, **options)
    next(outcomes)
    screen.close()
    assert len(list(outcomes)) == 3


def test_a_screen_that_has_gone_ends_no_batch(
    runtime: dspex.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(True)
    screen.close()
    monkeypatch.setattr("sys.stderr", screen)
    assert answers(dspex.Predict("question -> answer").batch(rows(2), progress=True)) == [0, 1]


def test_a_batch_is_bounded_by_the_program_that_it_is_a_part_of(runtime: dspex.Runtime, model: Model) -> None:
    class Many(dspex.Module):
        def __init__(self) -> None:
            self.inner = dspex.Predict("question -> answer")

        def forward(self) -> list[Any]:
            return self.inner.batch(rows(9), 2)

        async def aforward(self) -> list[Any]:
            return await self.inner.abatch(rows(9), 2)

    assert answers(Many()()) == [*range(9)]
    model.open = False
    with pytest.raises(DeadlineExceeded) as caught:
        Many().with_options(timeout=0.2)()
    assert caught.value.stage == "program"
    with pytest.raises(DeadlineExceeded):
        asyncio.run(Many().with_options(timeout=0.2).acall())
    until(lambda: model.running == 0)


def test_a_reader_that_takes_longer_than_a_row_may_ends_nothing(
    runtime: dspex.Runtime, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that waits for the reader is in no call, and no call's time is over."""
    from dspex.router import _backstop, _call

    looked = threading.Event()
    looks: list[float] = []
    look = _backstop.Backstop._look

    def counted(self: Any, loop: asyncio.AbstractEventLoop) -> None:
        look(self, loop)
        looks.append(loop.time())
        if looks[-1] - looks[0] > 0.2:
            looked.set()

    monkeypatch.setattr(_backstop.Backstop, "_look", counted)
    monkeypatch.setattr(_backstop, "INTERVAL_SECONDS", 0.001)
    monkeypatch.setattr(_call, "BACKSTOP_SECONDS", 0.0)
    qa = dspex.Predict("question -> answer", runtime=runtime).with_options(timeout=0.1)
    rows = [{"question": f"row {number}"} for number in range(20)]
    with contextlib.closing(qa.batch_as_completed(rows, 1, progress=False)) as outcomes:
        next(outcomes)
        assert looked.wait(SECONDS)
        assert len(list(outcomes)) == 19
