"""What goes wrong in a step of each kind, what the caller gets, and that nothing runs on.

After each fault the same pipeline, without it, gives what it should.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import dspex
from dspex import errors
from dspex.lm import LMRequest, LMResponse
from dspex.pipelines import Pipeline
from dspex.stores import Memory
from dspex.testing import ModelServer, ScriptedLM

REPLY = "[[ ## y ## ]]\nfine\n\n[[ ## completed ## ]]"


class OwnError(Exception):
    pass


class Faulty:
    """What a test's steps do: `ok`, `raise` or `hang`."""

    def __init__(self) -> None:
        self.does = "ok"
        self.begun = asyncio.Event()

    async def act(self) -> None:
        self.begun.set()
        if self.does == "raise":
            raise OwnError("of the step")
        if self.does == "hang":
            await asyncio.Event().wait()


class FaultyLM(ScriptedLM):
    def __init__(self, faulty: Faulty) -> None:
        super().__init__(lambda _: REPLY)
        self._faulty = faulty

    async def complete(self, request: LMRequest) -> LMResponse:
        await self._faulty.act()
        return await super().complete(request)


def kinds(faulty: Faulty) -> dict[str, tuple[Any, str]]:
    """A step of each kind, and the path of what fails in it."""

    async def work(x: str) -> str:
        await faulty.act()
        return "fine"

    async def good(x: str) -> str:
        return "fine"

    async def reduce(a: str) -> str:
        await faulty.act()
        return a

    async def condition(x: str) -> bool:
        await faulty.act()
        return True

    def step(function: Callable[..., Any]) -> Any:
        return dspex.step(function, outputs="y")

    inner = dspex.pipeline(step(work), name="inner")
    fallback = dspex.step(failing, outputs="y", fallback=step(work))
    return {
        "predictor": (dspex.Predict("x -> y"), "y"),
        "function": (step(work), "y"),
        "parallel": (dspex.step(dspex.parallel(y=work, other=good), outputs=["y"]), "parallel/y"),
        "reduction": (dspex.step(dspex.parallel(a=good, reduce=reduce), outputs="y"), "parallel"),
        "branch": (dspex.branch(lambda x: True, step(work), step(good)), "branch/then/y"),
        "condition": (dspex.branch(condition, step(good), step(good)), "branch"),
        "map": (
            dspex.step(dspex.map(dspex.step(work, outputs="y", inputs={"x": "item"}), over="xs")),
            "map[0]/y",
        ),
        "loop": (dspex.loop(step(work), until="y", at_most=2), "loop[0]/y"),
        "pipeline": (inner, "inner/y"),
        "fallback": (fallback, "y/fallback"),
        "retry": (dspex.step(work, outputs="y", retry=1), "y"),
    }


async def failing(x: str) -> str:
    raise ConnectionError("so that the fallback is at it")


KINDS = list(kinds(Faulty()))


def make(faulty: Faulty, kind: str) -> tuple[Pipeline, str]:
    async def first(x: str) -> str:
        return x

    step, path = kinds(faulty)[kind]
    steps = [dspex.step(first, outputs="z"), step]
    pipeline = dspex.pipeline(*steps, inputs={"x": str, "xs": list[str]}, outputs=["y", "z"])
    return pipeline, path


@pytest.fixture
async def faulty() -> AsyncIterator[Faulty]:
    made = Faulty()
    threads = threading.active_count()
    async with dspex.Runtime(lm=FaultyLM(made)):
        yield made
    assert threading.active_count() <= threads + 1  # the pool of threads of the loop


async def works(faulty: Faulty, pipeline: Pipeline) -> None:
    """That nothing runs on, and that the pipeline works afterwards."""
    running = {task for task in asyncio.all_tasks() if "Pipeline" in repr(task) or "follow" in repr(task)}
    assert running == set()
    faulty.does = "ok"
    result = await pipeline.arun(x="x", xs=["x"])
    assert (result.y in ("fine", ["fine"]), result.z) == (True, "x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("durable", [False, True])
async def test_a_step_that_fails_is_the_caller_s_error_with_its_path(
    durable: bool, kind: str, faulty: Faulty
) -> None:
    pipeline, path = make(faulty, kind)
    store = Memory()
    if durable:
        pipeline = pipeline.with_options(store=store)
    faulty.does = "raise"
    with pytest.raises((OwnError, errors.LMError, ConnectionError)) as raised:
        await pipeline.arun(x="x", xs=["x"])
    error: Any = raised.value
    if kind == "fallback":  # the step's own error, and that of what stood in for it beside it
        assert (error.step, set(error.errors)) == ("y", {"y/fallback"})
    else:
        assert error.step == path
    assert error.completed[:1] == ("z",)
    await works(faulty, pipeline)
    if durable:
        (run,) = await store.runs(status="failed")
        assert (run.run_id, run.owner) == (error.run_id, None)
        assert (await pipeline.aresume(run.run_id)).z == "x"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_step_that_hangs_ends_with_the_run_s_time(kind: str, faulty: Faulty) -> None:
    pipeline, _ = make(faulty, kind)
    faulty.does = "hang"
    with pytest.raises(errors.DeadlineExceeded):
        await pipeline.with_options(timeout=0.05).arun(x="x", xs=["x"])
    await works(faulty, pipeline)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("durable", [False, True])
async def test_a_run_that_is_cancelled_in_a_step_ends_and_can_be_resumed(
    durable: bool, kind: str, faulty: Faulty
) -> None:
    pipeline, _ = make(faulty, kind)
    store = Memory()
    if durable:
        pipeline = pipeline.with_options(store=store)
    faulty.does = "hang"
    running = asyncio.create_task(pipeline.arun(x="x", xs=["x"]))
    async with asyncio.timeout(10):
        await faulty.begun.wait()
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()
    await works(faulty, pipeline)
    if durable:
        (run,) = await store.runs(status="running")
        assert run.owner is None
        assert (await pipeline.aresume(run.run_id)).z == "x"


async def test_a_run_whose_worker_is_killed_says_so_and_works_afterwards() -> None:
    dies = dspex.step(
        dspex.program("tests.support.programs:Dies"), inputs=["question"], outputs=["answer"], name="worker"
    )
    asks = dspex.remote("dspy.Predict", "question -> answer")
    reply = "[[ ## answer ## ]]\nfine\n\n[[ ## completed ## ]]"
    async with ModelServer(reply) as server:
        lm = dspex.LM("openai/m", api_base=server.api_base, api_key="none")
        async with dspex.Runtime(lm=lm, pools=1):
            with pytest.raises(errors.WorkerDiedError) as raised:
                await dspex.pipeline(dies, inputs={"question": str}).arun(question="?")
            error: Any = raised.value
            assert (error.step, error.completed) == ("worker", ())
            assert (await dspex.pipeline(asks).arun(question="?")).answer == "fine"
            other = dspex.pipeline(dspex.step(dies, fallback=asks), inputs={"question": str})
            assert (await other.arun(question="?")).answer == "fine"


async def test_a_value_that_cannot_be_kept_is_refused_with_its_step_and_field() -> None:
    class Odd:
        pass

    async def odd(x: int) -> Any:
        return {"deep": [Odd()]}

    async def other(x: int) -> Any:
        return 1

    pipeline = dspex.pipeline(
        dspex.step(odd, outputs="y", retry=3, fallback=other), store=Memory(), outputs=["y"]
    )
    with pytest.raises(errors.WireError) as raised:
        await pipeline.arun(x=1)
    error: Any = raised.value
    assert (error.code, error.step) == ("not-encodable", "y")
    assert "$.y.deep[0]" in str(error)


class FullStore(Memory):
    """A store without room from the second row on."""

    rows = 0

    async def record_steps(self, lease: Any, rows: Any) -> None:
        self.rows += len(rows)
        if self.rows > 1:
            raise errors.StoreError("no room", code="store-full")
        await super().record_steps(lease, rows)


@pytest.mark.parametrize("on_error", ["fail", "continue"])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_store_that_is_full_ends_the_run_and_asks_no_model_again(
    durability: str, on_error: str
) -> None:
    calls = []

    async def count(x: int, ctx: dspex.pipelines.StepContext) -> int:
        calls.append(ctx.path)
        return x

    steps = [dspex.step(count, outputs="x", name=f"s{number}", retry=3) for number in range(3)]
    store = FullStore()
    options: Any = {"store": store, "durability": durability, "on_error": on_error}
    with pytest.raises(errors.StoreError) as raised:
        await dspex.pipeline(*steps, **options).arun(x=1, run_id="r")
    assert raised.value.code == "store-full"
    assert len(calls) == len(set(calls))
    assert len(asyncio.all_tasks()) == 1
