"""Rows of a batch whose pipeline is a chain of modules: begun, asked and finished by the batch."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.support.processes import until

import dspex
from dspex import errors
from dspex.callbacks import BaseCallback
from dspex.pipelines import Pipeline
from dspex.pipelines._row import Row
from dspex.stores import Memory
from dspex.testing import ChatRequest, ScriptedLM

SECONDS = 20.0
FIELDS = ("a", "b", "c", "d")


class Model:
    """Says each field as its name and the row's number, but for what `mishaps` has for a field of a row."""

    def __init__(self) -> None:
        self.mishaps: dict[tuple[str, int], str] = {}
        self.running = self.most = self.asked = 0
        self.ticks = 4
        self.gate = asyncio.Event()
        self.gate.set()
        self.lm = ScriptedLM(self.answer)

    async def answer(self, request: ChatRequest) -> str:
        number = int(request.prompt.partition("row ")[2].split()[0])
        field = next(
            name for name in FIELDS if f"[[ ## {name} ## ]]" in request.prompt.split("Respond with")[1]
        )
        self.running += 1
        self.asked += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            for _ in range(
                (number * 7 + len(field)) % self.ticks
            ):  # they end in another order than they began in
                await asyncio.sleep(0)
            match self.mishaps.get((field, number)):
                case "refused":
                    raise errors.LMRequestError(f"{field} of row {number} is refused")
                case "unreadable":
                    return "nothing of this is a field"
                case "never":
                    await asyncio.get_running_loop().create_future()  # until it is cancelled
        finally:
            self.running -= 1
        fields = {"reasoning": f"r{number}", field: f"{field} {number}"}
        return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def runtime(model: Model) -> AsyncIterator[dspex.Runtime]:
    async with dspex.Runtime(model.lm, timeout=SECONDS) as runtime:
        yield runtime


def chain(length: int = 2) -> Pipeline:
    """Each step takes the question and what the step before gives."""
    names = FIELDS[:length]
    return dspex.pipeline(
        *(
            (dspex.ChainOfThought if name == "b" else dspex.Predict)(f"question{before} -> {name}")
            for name, before in zip(names, ("", *(f", {name}" for name in names)), strict=False)
        ),
        outputs=[*names],
    )


def rows(count: int) -> list[dict[str, Any]]:
    return [{"question": f"row {number} ?"} for number in range(count)]


async def one_by_one(pipeline: Pipeline, given: list[Any]) -> list[Any]:
    """What the same rows come to where each is a run of its own."""

    async def run(row: Any) -> Any:
        try:
            return await pipeline.acall(**row)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
            return error

    return [await run(row) for row in given]


def said(outcome: Any) -> Any:
    """All that a caller can see of an outcome, but what differs from run to run: names and times."""
    if isinstance(outcome, Exception):
        said_of_it = [getattr(outcome, name, None) for name in ("code", "step", "completed")]
        others = [*getattr(outcome, "errors", ())]
        text = str(outcome)
        return (
            type(outcome),
            text,
            *said_of_it,
            others,
            bool(getattr(outcome, "run_id", "")),
            [note for note in getattr(outcome, "__notes__", ()) if not note.startswith("row ")],
        )
    steps = [(step.path, step.status) for step in outcome.steps]
    assert all(step.seconds > 0 for step in outcome.steps)
    assert outcome.timings["total"] >= max(step.seconds for step in outcome.steps)
    return dict(outcome), steps, outcome.usage, outcome.errors, bool(outcome.run_id)


def has_rows(pipeline: Pipeline) -> bool:
    begin = pipeline._row_calls().begin
    row = None if begin is None else begin({"question": "row 0 ?"})
    if row is not None:
        assert isinstance(row, Row)
        row.abandon()
    return row is not None


async def test_a_row_comes_to_what_the_same_run_comes_to_by_itself(
    runtime: dspex.Runtime, model: Model
) -> None:
    for seed in range(30):
        choose = random.Random(seed)
        pipeline, given = chain(choose.randint(1, 4)), rows(choose.randint(1, 40))
        for number in range(len(given)):
            if choose.random() < 0.3:
                what = choose.choice(["refused", "unreadable"])
                model.mishaps[choose.choice(FIELDS), number] = what
            if choose.random() < 0.1:
                given[number] = choose.choice(
                    [{**given[number], "other": 1}, {}, {**given[number], "run_id": "mine"}]
                )
        assert has_rows(pipeline)

        found = await pipeline.abatch(given, choose.choice([1, 2, 5, 64]))

        assert [said(each) for each in found] == [said(each) for each in await one_by_one(pipeline, given)]
        model.mishaps.clear()
        assert all(counts.in_flight == 0 for counts in runtime.counts())


async def test_an_outcome_can_be_copied_and_pickled_as_that_of_a_run(runtime: dspex.Runtime) -> None:
    (outcome,) = await chain(3).abatch(rows(1))
    for twin in (copy.deepcopy(outcome), pickle.loads(pickle.dumps(outcome))):
        assert said(twin) == said(outcome)
        assert twin.steps == outcome.steps


async def test_a_chain_may_have_modules_that_no_batch_can_begin(runtime: dspex.Runtime, model: Model) -> None:
    own = dspex.Predict("question, a -> b", lm=model.lm)
    best = dspex.BestOfN(dspex.Predict("question, b -> c"), 2, lambda inputs, outcome: 1.0, threshold=1.0)
    pipeline = dspex.pipeline(dspex.Predict("question -> a"), own, best, outputs=["a", "b", "c"])
    assert has_rows(pipeline)
    given = rows(20)
    model.mishaps = {("b", 3): "refused", ("c", 4): "unreadable"}

    found = await pipeline.abatch(given, 4)

    assert [said(each) for each in found] == [said(each) for each in await one_by_one(pipeline, given)]


class Hears(BaseCallback):
    """Hears of all calls."""


class Subclass(Pipeline):
    """Has a call of its own."""

    async def aforward(self, /, **inputs: Any) -> Any:
        return await super().aforward(**inputs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dspex.pipeline(dspex.Predict("question -> a"), dspex.step(lambda a: a, outputs="b")),
        lambda: dspex.pipeline(dspex.step(dspex.Predict("question -> a"), retry=2)),
        lambda: dspex.pipeline(
            dspex.Predict("question -> a"), dspex.Predict("question -> b"), outputs=["a", "b"]
        ),
        lambda: dspex.pipeline(dspex.Predict("question -> a"), on_error="continue"),
        lambda: dspex.pipeline(dspex.Predict("question -> a"), store=Memory()),
        lambda: dspex.pipeline(dspex.Predict("question -> a"), callbacks=[Hears()]),
        lambda: chain().with_options(timeout=SECONDS),
        lambda: Subclass([dspex.Predict("question -> a")]),
    ],
    ids=["function", "retry", "side by side", "continue", "store", "callbacks", "timeout", "subclass"],
)
async def test_any_other_pipeline_runs_its_rows_whole(
    make: Callable[[], Pipeline], runtime: dspex.Runtime
) -> None:
    pipeline = make()
    assert not has_rows(pipeline)
    outcomes = await pipeline.abatch(rows(3))
    assert [[*outcome] for outcome in outcomes] == [[*pipeline.plan.outputs]] * 3


async def test_as_many_calls_are_asked_at_once_as_may_be_and_no_more(
    runtime: dspex.Runtime, model: Model
) -> None:
    for most in (1, 2, 5, 16):
        model.most, model.asked = 0, 0
        model.gate.clear()
        batch = asyncio.create_task(chain(3).abatch(rows(60), most))
        await until(lambda: model.running == most)  # noqa: B023
        model.gate.set()
        await until(lambda: model.asked >= 60)
        model.gate.clear()  # in the middle, when rows are at different steps
        await until(lambda: model.running == most)  # noqa: B023
        model.gate.set()
        assert [outcome.c for outcome in await batch] == [f"c {number}" for number in range(60)]
        assert model.most == most


@pytest.mark.parametrize(("most", "ahead"), [(8, 2), (16, 1)])
async def test_a_source_may_wait_for_outcomes_of_rows_that_are_under_way(
    most: int, ahead: int, runtime: dspex.Runtime
) -> None:
    """While nothing can be read, the rows that were read take all their steps, and no room gets lost."""
    taken = asyncio.Semaphore(ahead)

    async def source() -> AsyncIterator[dict[str, Any]]:
        for row in rows(60):
            await taken.acquire()
            yield row

    async with asyncio.timeout(SECONDS):
        found = {}
        async for number, outcome in chain(4).abatch_as_completed(source(), most):
            found[number] = outcome.d
            taken.release()
    assert found == {number: f"d {number}" for number in range(60)}


async def test_a_slow_source_costs_no_room(runtime: dspex.Runtime, model: Model) -> None:
    """Room is taken for a group of rows; what a source has no rows for is given back."""
    given: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    found: list[int] = []

    async def source() -> AsyncIterator[dict[str, Any]]:
        while (row := await given.get()) is not None:
            yield row

    async def run() -> None:
        async for number, _ in dspex.Predict("question -> a").abatch_as_completed(source(), 16):
            found.append(number)

    batch = asyncio.create_task(run())
    slow, burst = rows(40)[:24], rows(40)[24:]
    for number, row in enumerate(slow):
        given.put_nowait(row)
        await until(lambda: len(found) == number + 1)  # noqa: B023
    model.gate.clear()
    for row in burst:
        given.put_nowait(row)
    await until(lambda: model.running == 16, seconds=SECONDS)
    model.gate.set()
    given.put_nowait(None)
    await batch
    assert sorted(found) == [*range(40)]


async def test_rows_that_come_while_workers_end_are_asked_at_once_all_the_same(
    runtime: dspex.Runtime, model: Model
) -> None:
    given: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def source() -> AsyncIterator[dict[str, Any]]:
        while (row := await given.get()) is not None:
            yield row

    model.ticks = 1
    model.gate.clear()
    for row in rows(8):
        given.put_nowait(row)
    batch = asyncio.create_task(dspex.Predict("question -> a").abatch(source(), 9))
    await until(lambda: model.running == 8)
    for row in rows(10)[8:]:  # the worker that waits for rows runs before the others have ended
        given.put_nowait(row)
    gate, model.gate = model.gate, asyncio.Event()
    gate.set()
    await until(lambda: model.asked == 10)
    assert model.running == 2
    model.gate.set()
    given.put_nowait(None)
    assert [outcome.a for outcome in await batch] == [f"a {number}" for number in range(10)]


async def test_whoever_takes_outcomes_slowly_is_not_run_away_from(
    runtime: dspex.Runtime, model: Model
) -> None:
    for most in (1, 4):
        model.asked = 0
        async with contextlib.aclosing(chain(2).abatch_as_completed(rows(100), most)) as outcomes:
            await anext(outcomes)
            await until(lambda: model.running == 0 and model.asked >= 2 * 3 * most)  # noqa: B023
            for _ in range(100):
                await asyncio.sleep(0)
            assert model.asked <= 2 * (3 * most + 1)
            assert len([outcome async for outcome in outcomes]) == 99


async def test_a_batch_that_is_left_or_runs_out_of_time_leaves_nothing_behind(
    runtime: dspex.Runtime, model: Model
) -> None:
    for at in ("a", "b", "c"):
        model.mishaps = {(at, number): "never" for number in range(10, 30)}
        async with contextlib.aclosing(chain(3).abatch_as_completed(rows(60), 8)) as outcomes:
            await anext(outcomes)
        with pytest.raises(errors.DeadlineExceeded, match="of the batch ran out"):
            await chain(3).abatch(rows(60), 8, timeout=0.05)
        model.mishaps = {(at, 30): "refused"}
        with pytest.raises(errors.LMRequestError) as caught:
            await chain(3).abatch(rows(60), 8, errors="raise")
        assert caught.value.step == at  # type: ignore[attr-defined]
        assert model.running == 0
        assert all(counts.in_flight == 0 for counts in runtime.counts())
        assert len(asyncio.all_tasks()) <= 2, "this test's, and that of the loop's fixture"


def test_a_pipeline_s_rows_are_begun_on_their_runtime_s_loop_alone(model: Model) -> None:
    """From another loop they are awaited whole."""
    with dspex.Runtime(model.lm, timeout=SECONDS):
        for outcomes in (chain().batch(rows(9), 4), asyncio.run(chain().abatch(rows(9), 4))):
            assert [outcome.b for outcome in outcomes] == [f"b {number}" for number in range(9)]
