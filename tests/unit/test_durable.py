"""Runs that are kept: what is run again and what is not, and when a resume is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex import errors
from dspex.pipelines import Pipeline, StepContext
from dspex.stores import Lease, Memory, SQLite


class Count:
    """Steps that count how often they were run, and fail when told to."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.failing: set[str] = set()

    def step(self, name: str, takes: str, **options: Any) -> Any:
        async def work(x: int) -> int:
            self.runs.append(name)
            if name in self.failing:
                raise OwnError(name)
            return x + 1

        return dspex.step(work, name=name, inputs={"x": takes}, outputs=name, **options)

    def pipeline(self, **options: Any) -> Pipeline:
        """a, then b and c of it side by side, d of b, and e of c and d."""

        async def join(c: int, d: int) -> int:
            self.runs.append("e")
            if "e" in self.failing:
                raise OwnError("e")
            return 100 * c + d

        return dspex.pipeline(
            self.step("a", "x"),
            self.step("b", "a", pure=True),
            self.step("c", "a", pure=True),
            self.step("d", "b", pure=True),
            dspex.step(join, outputs="e"),
            inputs={"x": int},
            outputs=["e"],
            **options,
        )

    def taken(self) -> list[str]:
        runs, self.runs = sorted(self.runs), []
        return runs


class OwnError(Exception):
    pass


async def test_a_run_that_is_done_gives_what_it_gave_and_runs_nothing() -> None:
    count, store = Count(), Memory()
    pipeline = count.pipeline(store=store)
    first = await pipeline.arun(x=1, run_id="r")
    assert (first.e, count.taken()) == (304, ["a", "b", "c", "d", "e"])
    assert (await pipeline.aresume("r")).e == 304
    assert pipeline.with_options(store=None) is not pipeline
    assert count.taken() == []


async def test_a_run_that_failed_goes_on_at_what_had_not_finished() -> None:
    count, store = Count(), Memory()
    pipeline = count.pipeline(store=store)
    count.failing = {"e"}
    with pytest.raises(OwnError):
        await pipeline.arun(x=1, run_id="r")
    assert count.taken() == ["a", "b", "c", "d", "e"]
    count.failing = set()
    result = await pipeline.aresume("r")
    assert (result.e, count.taken()) == (304, ["e"])
    assert {step.path: step.status for step in result.steps} == {
        **dict.fromkeys("abcd", "resumed"),
        "e": "ok",
    }


@pytest.mark.parametrize(
    ("from_step", "again"),
    [("a", ["a", "b", "c", "d", "e"]), ("b", ["b", "d", "e"]), ("c", ["c", "e"]), ("e", ["e"])],
)
async def test_from_a_step_on_that_step_runs_again_and_what_waits_for_it(
    from_step: str, again: list[str]
) -> None:
    count, store = Count(), Memory()
    pipeline = count.pipeline(store=store)
    await pipeline.arun(x=1, run_id="r")
    count.taken()
    assert (await pipeline.aresume("r", from_step=from_step)).e == 304
    assert count.taken() == again


async def test_from_one_item_of_a_map_that_item_runs_again_and_what_waits_for_the_map() -> None:
    seen: list[str] = []

    async def note(doc: str) -> str:
        seen.append(doc)
        return doc

    async def join(note: list[str]) -> str:
        seen.append("join")
        return "".join(note)

    pipeline = dspex.pipeline(
        dspex.map(dspex.step(note, outputs="note"), over="docs", item="doc"),
        dspex.step(join, outputs="all"),
        inputs={"docs": list[str]},
        store=Memory(),
    )
    await pipeline.arun(docs=["a", "b", "c"], run_id="r")
    seen.clear()
    assert (await pipeline.aresume("r", from_step="map[1]/note")).all == "abc"
    assert seen == ["b", "join"]
    seen.clear()
    await pipeline.aresume("r", from_step="map[]/note")
    assert sorted(seen) == ["a", "b", "c", "join"]


async def test_a_step_that_there_is_not_is_refused_with_those_there_are() -> None:
    pipeline = Count().pipeline(store=Memory())
    await pipeline.arun(x=1, run_id="r")
    with pytest.raises(errors.PipelineError) as raised:
        await pipeline.aresume("r", from_step="f")
    assert (raised.value.code, raised.value.hint) == ("no-such-step", "there are: a, b, c, d, e")


async def test_a_pipeline_with_other_steps_is_told_the_difference_both_ways() -> None:
    count, store = Count(), Memory()
    count.failing = {"e"}
    with pytest.raises(OwnError):
        await count.pipeline(store=store).arun(x=1, run_id="r")
    count.taken()

    async def other(c: int, b: int) -> int:
        return c + b

    changed = dspex.pipeline(
        count.step("a", "x"),
        count.step("b", "a", pure=True),
        count.step("c", "a", pure=True),
        dspex.step(other, outputs="e"),
        dspex.step(other, outputs="f"),
        inputs={"x": int},
        outputs=["e", "f"],
        store=store,
    )
    with pytest.raises(errors.PipelineChanged) as raised:
        await changed.aresume("r")
    error = raised.value
    assert (error.added, error.removed, error.changed) == (["f"], ["d"], ["e"])
    assert "added: f; removed: d; changed: e" in str(error)
    info = await store.run("r")
    assert info is not None
    assert (info.owner, info.resumes) == (None, 0)


async def test_from_the_first_changed_step_on_a_changed_pipeline_goes_on() -> None:
    count, store = Count(), Memory()
    count.failing = {"e"}
    with pytest.raises(OwnError):
        await count.pipeline(store=store).arun(x=1, run_id="r")
    count.taken()

    async def mended(c: int, d: int) -> int:
        return c - d

    pipeline = dspex.pipeline(
        count.step("a", "x"),
        count.step("b", "a", pure=True),
        count.step("c", "a", pure=True),
        count.step("d", "b", pure=True),
        dspex.step(mended, outputs="e"),
        inputs={"x": int},
        outputs=["e"],
        store=store,
    )
    assert (await pipeline.aresume("r", from_step="e")).e == -1
    assert count.taken() == []
    assert (await pipeline.aresume("r")).e == -1  # it is this pipeline's by now


async def test_a_run_that_never_ends_has_failed_after_so_many_resumes() -> None:
    count, store = Count(), Memory()
    pipeline = count.pipeline(store=store)
    count.failing = {"c"}
    with pytest.raises(OwnError):
        await pipeline.arun(x=1, run_id="r")
    for _ in range(2):
        with pytest.raises(OwnError):
            await pipeline.aresume("r", max_resumes=2)
    with pytest.raises(errors.TooManyResumes):
        await pipeline.aresume("r", max_resumes=2)
    count.failing = set()
    assert (await pipeline.aresume("r", max_resumes=3)).e == 304


@pytest.mark.parametrize(("durability", "kept"), [("sync", 4), ("async", 4), ("exit", 4)])
async def test_rows_of_a_run_that_fails_are_there_whenever_they_are_written(
    durability: Any, kept: int
) -> None:
    class Watched(Memory):
        calls = 0

        async def record_steps(self, lease: Lease, rows: Any) -> None:
            self.calls += 1
            await super().record_steps(lease, rows)

    count, store = Count(), Watched()
    count.failing = {"e"}
    with pytest.raises(OwnError):
        await count.pipeline(store=store, durability=durability).arun(x=1, run_id="r")
    assert len(await store.steps("r")) == 4
    assert store.calls == (1 if durability == "exit" else store.calls)
    assert store.calls <= 4


async def test_a_resumed_run_has_a_new_deadline() -> None:
    hangs = True

    async def slow(x: int, ctx: StepContext) -> int:
        assert ctx.deadline is not None
        if hangs:
            await asyncio.Event().wait()
        return x

    pipeline = dspex.pipeline(dspex.step(slow, outputs="y"), store=Memory())
    for run in (
        pipeline.with_options(timeout=0.05).arun(x=1, run_id="r"),
        pipeline.with_options(timeout=0.05).aresume("r"),
    ):
        with pytest.raises(errors.DeadlineExceeded):
            await run
    hangs = False
    assert (await pipeline.with_options(timeout=60).aresume("r")).y == 1


class Watched(Memory):
    """Says when a lease was renewed, and whether renewals go on when a run is given up."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed = asyncio.Event()
        self.renewing: list[str] = []

    async def renew_lease(self, lease: Lease, seconds: float) -> Lease:
        renewed = await super().renew_lease(lease, seconds)
        self.renewed.set()
        return renewed

    async def end_run(self, lease: Lease, status: Any, outcome: bytes | None = None) -> None:
        self.renewing += [repr(task) for task in asyncio.all_tasks() if "StoredJournal._renew" in repr(task)]
        await super().end_run(lease, status, outcome)


async def test_a_lease_is_renewed_while_the_run_goes_on_and_no_longer() -> None:
    store = Watched()

    async def patient(x: int) -> int:
        await store.renewed.wait()
        return x

    pipeline = dspex.pipeline(dspex.step(patient, outputs="y"), store=store, lease=0.03)
    async with asyncio.timeout(30):
        assert (await pipeline.arun(x=1)).y == 1
    assert store.renewing == []
    assert len(asyncio.all_tasks()) == 1


async def test_an_owner_that_has_lost_its_lease_stops_although_its_step_hangs() -> None:
    store = Watched()
    hangs = asyncio.Event()

    async def hang(x: int) -> int:
        hangs.set()
        await asyncio.Event().wait()
        return x

    pipeline = dspex.pipeline(dspex.step(hang, outputs="y"), store=store, lease=0.03)
    running = asyncio.create_task(pipeline.arun(x=1, run_id="r"))
    await hangs.wait()
    await store.claim_run("r", owner="another", lease=60.0, take_over=True)
    ended, _ = await asyncio.wait([running], timeout=10)
    assert ended
    with pytest.raises(errors.LeaseLost):
        await running
    info = await store.run("r")
    assert info is not None
    assert (info.owner, info.status) == ("another", "running")


async def test_a_step_s_error_stays_the_error_where_the_store_fails_after_it() -> None:
    class Failing(Memory):
        async def end_run(self, lease: Lease, status: Any, outcome: bytes | None = None) -> None:
            raise errors.StoreError("no room", code="store-full")

    count, store = Count(), Failing()
    count.failing = {"c"}
    with pytest.raises(OwnError) as raised:
        await count.pipeline(store=store).arun(x=1, run_id="r")
    assert raised.value.__notes__ == ["and the run could not be written: no room"]
    info = await store.run("r")
    assert info is not None
    assert info.owner is None


async def test_a_result_that_cannot_be_written_leaves_the_run_to_be_resumed() -> None:
    class Failing(Memory):
        full = True

        async def end_run(self, lease: Lease, status: Any, outcome: bytes | None = None) -> None:
            if self.full:
                raise errors.StoreError("no room", code="store-full")
            await super().end_run(lease, status, outcome)

    count, store = Count(), Failing()
    pipeline = count.pipeline(store=store)
    with pytest.raises(errors.StoreError):
        await pipeline.arun(x=1, run_id="r")
    count.taken()
    store.full = False
    assert ((await pipeline.aresume("r")).e, count.taken()) == (304, [])


async def test_from_what_stood_in_for_a_step_that_step_runs_again() -> None:
    runs: list[str] = []

    async def fails(x: int) -> int:
        runs.append("fails")
        raise OwnError

    async def other(x: int) -> int:
        runs.append("other")
        return x

    pipeline = dspex.pipeline(dspex.step(fails, outputs="y", fallback=other), store=Memory())
    await pipeline.arun(x=1, run_id="r")
    await pipeline.aresume("r", from_step="y/fallback")
    assert runs == ["fails", "other"] * 2


async def test_a_run_that_is_not_there_and_a_name_that_is_taken_are_said() -> None:
    pipeline = Count().pipeline(store=Memory())
    with pytest.raises(errors.RunNotFound):
        await pipeline.aresume("none")
    await pipeline.arun(x=1, run_id="r")
    with pytest.raises(errors.RunExists):
        await pipeline.arun(x=1, run_id="r")
    with pytest.raises(errors.ConfigError) as raised:
        await Count().pipeline().aresume("r")
    assert raised.value.code == "no-store"


async def test_a_run_whose_process_is_gone_is_resumed_at_once(tmp_path: Path) -> None:
    code = """
import asyncio, os, sys
import dspex
from dspex.stores import SQLite

async def a(x: int) -> int:
    return x

async def b(y: int) -> int:
    os.kill(os.getpid(), 9)

pipeline = dspex.pipeline(dspex.step(a, outputs="y"), dspex.step(b, outputs="z"), store=SQLite(sys.argv[1]))
asyncio.run(pipeline.arun(x=1, run_id="r"))
"""
    script = tmp_path / "dies.py"
    script.write_text(code)
    path = tmp_path / "runs.sqlite3"
    done = subprocess.run([sys.executable, str(script), str(path)], timeout=60, check=False)
    assert done.returncode == -9

    async def a(x: int) -> int:
        raise AssertionError

    async def b(y: int) -> int:
        return -y

    store = SQLite(path)
    info = await store.run("r")
    assert info is not None
    assert info.owner is not None  # its lease lasts for half a minute more
    pipeline = dspex.pipeline(dspex.step(a, outputs="y"), dspex.step(b, outputs="z"), store=store)
    with pytest.raises(errors.PipelineChanged):
        await pipeline.aresume("r")
    with pytest.raises(AssertionError):
        await pipeline.aresume("r", from_step="y")
    await store.close()


async def test_the_blocking_twin_resumes_too() -> None:
    count, store = Count(), Memory()
    pipeline = count.pipeline(store=store)
    await pipeline.arun(x=1, run_id="r")
    with pytest.raises(errors.ConfigError) as raised:
        pipeline.resume("r")
    assert raised.value.code == "blocking-in-loop"
