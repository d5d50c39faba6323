"""The worker of a step is killed while the step is in flight: what the caller gets, and what a resume does.

A worker that dies may have had its effect, so its call is made again only where the step is declared
idempotent. The model's server counts what the worker asked for, and the functions beside it count themselves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import until

import dspex
from dspex import errors
from dspex.pipelines import Pipeline
from dspex.router import Retry
from dspex.stores import SQLite, StepRow
from dspex.testing import ChatRequest, ModelServer

ROOT = Path(__file__).parents[2]
FIELDS = ("draft", "answer")
STEPS: dict[str, Any] = {
    "program": lambda: dspex.program("tests.support.programs:TwoSteps"),
    "remote": lambda: dspex.remote("dspy.Predict", "question -> answer"),
}
"""A step in a worker; each asks the model for an answer at last."""


class Model:
    """Counts what it is asked for, and holds back so many answers until a worker has been killed."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.holds = 0
        self.held = 0

    async def __call__(self, request: ChatRequest) -> str:
        field = next(
            name for name in FIELDS if f"starting with the field `[[ ## {name} ## ]]`" in request.prompt
        )
        self.asked[field] += 1
        if field == "answer" and self.holds:
            self.holds -= 1
            self.held += 1
            await asyncio.Event().wait()
        return f"[[ ## {field} ## ]]\nblue\n\n[[ ## completed ## ]]"


class Case:
    """A durable pipeline with one step in a worker, one before it, one beside it and one after it."""

    def __init__(self, kind: str, store: SQLite, runtime: dspex.Runtime, model: Model) -> None:
        self.store, self.runtime, self.model = store, runtime, model
        self.effects: Counter[str] = Counter()
        self.kind = kind

    def make(self, *, idempotent: bool = False, **modifiers: Any) -> Pipeline:
        async def first(asked: str) -> str:
            self.effects["first"] += 1
            return asked.strip()

        async def beside(question: str) -> str:
            self.effects["beside"] += 1
            return question.upper()

        async def last(answer: Any, loud: str) -> str:
            self.effects["last"] += 1
            return f"{loud} {answer}"

        worker = STEPS[self.kind]()
        if idempotent:
            worker = worker.with_options(idempotent=True)
        return dspex.pipeline(
            dspex.step(first, outputs="question"),
            dspex.step(
                dspex.parallel(
                    dspex.step(beside, outputs="loud"),
                    dspex.step(worker, inputs=["question"], outputs=["answer"], name="worker", **modifiers),
                ),
                name="both",
            ),
            dspex.step(last, outputs="said"),
            inputs={"asked": str},
            outputs=["said"],
            store=self.store,
        )

    async def rows(self) -> dict[str, StepRow]:
        return {row.path: row for row in await self.store.steps("r1")}

    async def kill_one(self, number: int) -> None:
        """Kill the worker that waits for its model, when all beside it has its row."""
        await until(lambda: self.model.held == number)
        async with asyncio.timeout(60):
            while len(await self.rows()) < 2:
                await asyncio.sleep(0.005)
        (pid,) = [w.pid for w in self.runtime.pools()["general"].workers if w.inflight and w.pid]
        os.kill(pid, signal.SIGKILL)

    def is_finished(self, *, times: int) -> None:
        """All that had finished was done once, and the step in the worker so often."""
        assert self.effects == {"first": 1, "beside": 1, "last": 1}
        drafts = {"draft": times} if self.kind == "program" else {}
        assert self.model.asked == {"answer": times, **drafts}


@asynccontextmanager
async def opened(kind: str, directory: Path) -> AsyncIterator[Case]:
    model, store = Model(), SQLite(directory / "runs.sqlite3")
    async with ModelServer(model) as server:
        lm = dspex.LM("openai/m", api_base=server.api_base, api_key="none")
        async with dspex.Runtime(lm=lm, pools=1) as runtime, asyncio.timeout(120):
            yield Case(kind, store, runtime, model)
    await store.close()


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("modifiers", [{}, {"retry": 3}], ids=["no retry", "retry"])
async def test_a_killed_worker_ends_the_run_even_with_retry_as_its_step_may_have_had_its_effect(
    modifiers: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as case:
        pipeline = case.make(**modifiers)
        case.model.holds = 1
        running = asyncio.create_task(pipeline.arun(asked=" why? ", run_id="r1"))
        await case.kill_one(1)
        with pytest.raises(errors.WorkerDiedError) as raised:
            await running
        error: Any = raised.value
        assert (error.step, set(error.completed)) == ("both/worker", {"question", "both/loud"})
        assert (error.signal, error.retryable, error.run_id) == ("SIGKILL", False, "r1")
        (run,) = await case.store.runs()
        assert (run.status, run.owner) == ("failed", None)
        assert set(await case.rows()) == {"question", "both/loud"}
        assert case.effects == {"first": 1, "beside": 1}

        result = await pipeline.aresume("r1")
        assert result.said == "WHY? blue"
        statuses = {step.path: step.status for step in result.steps}
        assert (statuses["question"], statuses["both/loud"]) == ("resumed", "resumed")
        assert (statuses["both/worker"], statuses["said"]) == ("ok", "ok")
        case.is_finished(times=2)


@pytest.mark.parametrize("kind", STEPS)
async def test_an_idempotent_step_with_retry_is_tried_again_in_another_worker(
    kind: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as case:
        pipeline = case.make(idempotent=True, retry=Retry(attempts=2, first_wait=0.001))
        case.model.holds = 1
        running = asyncio.create_task(pipeline.arun(asked="why?", run_id="r1"))
        await case.kill_one(1)
        result = await running
        assert result.said == "WHY? blue"
        assert {step.status for step in result.steps} == {"ok"}
        case.is_finished(times=2)
        assert (await pipeline.aresume("r1")).said == "WHY? blue"  # it is done: nothing runs
        case.is_finished(times=2)


@pytest.mark.parametrize("kind", STEPS)
async def test_an_idempotent_step_without_retry_fails_and_says_that_it_may_be_retried(
    kind: str, tmp_path: Path
) -> None:
    async with opened(kind, tmp_path) as case:
        pipeline = case.make(idempotent=True)
        case.model.holds = 1
        running = asyncio.create_task(pipeline.arun(asked="why?", run_id="r1"))
        await case.kill_one(1)
        with pytest.raises(errors.WorkerDiedError) as raised:
            await running
        assert raised.value.retryable
        assert (await pipeline.aresume("r1")).said == "WHY? blue"
        case.is_finished(times=2)


async def test_a_worker_that_is_killed_at_every_attempt_is_the_caller_s_error(tmp_path: Path) -> None:
    async with opened("remote", tmp_path) as case:
        pipeline = case.make(idempotent=True, retry=Retry(attempts=2, first_wait=0.001))
        case.model.holds = 2
        running = asyncio.create_task(pipeline.arun(asked="why?", run_id="r1"))
        await case.kill_one(1)
        await case.kill_one(2)
        with pytest.raises(errors.WorkerDiedError) as raised:
            await running
        assert raised.value.step == "both/worker"  # type: ignore[attr-defined]
        assert set(await case.rows()) == {"question", "both/loud"}
        assert (await pipeline.aresume("r1")).said == "WHY? blue"
        case.is_finished(times=3)


@pytest.mark.parametrize("point", ["during:worker", "before:worker", "after:worker"])
def test_a_service_that_is_killed_with_its_worker_goes_on_in_another_process(
    point: str, tmp_path: Path
) -> None:
    effects = tmp_path / "effects.txt"

    def run(how: str, point: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.support.durable_worker", str(tmp_path / "runs.sqlite3")]
        command += [str(effects), how, point]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert run("begin", point).returncode == -signal.SIGKILL
    done = run("resume", "never:")
    assert json.loads(done.stdout) == {"said": "WHY? blue"}, done.stderr
    asked = 1 if point == "after:worker" else 2
    assert Counter(effects.read_text().split()) == {"first": 1, "worker": asked, "last": 1}
