"""A process that runs a durable pipeline is killed at every boundary; another goes on.

For each step of a plan with steps of all kinds: after its work and before its row, and after its row and
before anybody was told. A file outside of the store counts what the steps did.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.support.durable_plan import EXPECTED, PATHS, make

import dspex
from dspex import errors
from dspex.lm import LMRequest, LMResponse
from dspex.stores import SQLite
from dspex.testing import ScriptedLM

ROOT = Path(__file__).parents[2]
KILLED = -9
NO_EFFECT = {"gate/condition", "refine[0]/until", "refine[1]/until"}
"""Conditions: they have rows, and do nothing that counts."""


def run(directory: Path, how: str, point: str = "never:") -> subprocess.CompletedProcess[str]:
    """One process that begins the run, or goes on with it."""
    command = [sys.executable, "-m", "tests.support.durable_plan", str(directory / "runs.sqlite3")]
    command += [str(directory / "effects.txt"), "r1", how, point]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def effects(directory: Path) -> Counter[str]:
    return Counter((directory / "effects.txt").read_text().split("\n")[:-1])


def rows(directory: Path) -> set[str]:
    async def read() -> set[str]:
        store = SQLite(directory / "runs.sqlite3")
        found = {row.path for row in await store.steps("r1")}
        await store.close()
        return found

    return asyncio.run(read())


def test_an_undisturbed_run_does_every_step_once(tmp_path: Path) -> None:
    done = run(tmp_path, "begin")
    assert json.loads(done.stdout) == EXPECTED, done.stderr
    assert rows(tmp_path) == set(PATHS)
    assert effects(tmp_path) == Counter(set(PATHS) - NO_EFFECT)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_finished_step_never_runs_again_and_the_one_in_flight_at_most_twice(
    when: str, path: str, tmp_path: Path
) -> None:
    assert run(tmp_path, "begin", f"{when}:{path}").returncode == KILLED
    finished = rows(tmp_path)
    assert (path in finished) == (when == "after")

    done = run(tmp_path, "resume")
    assert json.loads(done.stdout) == EXPECTED, done.stderr
    counts = effects(tmp_path)
    assert rows(tmp_path) == set(PATHS)
    assert {step: counts[step] for step in finished - NO_EFFECT} == dict.fromkeys(finished - NO_EFFECT, 1)
    assert set(counts) == set(PATHS) - NO_EFFECT
    assert max(counts.values()) <= 2


def test_a_run_that_is_killed_at_every_boundary_in_turn_comes_to_the_same(tmp_path: Path) -> None:
    """Each process goes on where the last was killed, and is killed at its first row: before it, or after."""
    assert run(tmp_path, "begin", "before:*").returncode == KILLED
    killed = 1
    for number in range(3 * len(PATHS)):
        done = run(tmp_path, "resume", "before:*" if number % 2 else "after:*")
        if done.returncode != KILLED:
            break
        killed += 1
    assert json.loads(done.stdout) == EXPECTED, done.stderr
    assert rows(tmp_path) == set(PATHS)
    assert killed > len(PATHS)
    # Before its row and after it; and of those that run side by side, once more beside each other's end.
    siblings = {"gather/docs", "gather/facts", "gather/sync"}
    siblings |= {f"notes[{number}]/note" for number in range(3)}
    counts = effects(tmp_path)
    assert {path: count for path, count in counts.items() if count > 2 and path not in siblings} == {}
    assert max(counts.values()) <= 6


def test_of_two_that_resume_one_run_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "effects.txt")
    reply = "[[ ## query ## ]]\nada\n\n[[ ## completed ## ]]"
    held = asyncio.Event()

    async def both() -> None:
        store, other = SQLite(tmp_path / "runs.sqlite3"), SQLite(tmp_path / "runs.sqlite3")

        class Holding(ScriptedLM):
            async def complete(self, request: LMRequest) -> LMResponse:
                held.set()
                await asyncio.Event().wait()
                raise AssertionError(request)

        async with dspex.Runtime(lm=Holding(lambda _: reply)), asyncio.timeout(30):
            first = asyncio.create_task(make(path).arun(question="question", x=0, run_id="r1", store=store))
            await held.wait()
            with pytest.raises(errors.RunBusy) as raised:
                await make(path).aresume("r1", store=other)
            assert raised.value.run_id == "r1"
            first.cancel()
            await asyncio.wait([first])
        async with dspex.Runtime(lm=ScriptedLM(lambda _: reply)):
            assert dict(await make(path).aresume("r1", store=other)) == EXPECTED
        await store.close()
        await other.close()

    asyncio.run(both())


def test_an_owner_whose_run_was_taken_over_stops_and_writes_nothing_more(tmp_path: Path) -> None:
    path = str(tmp_path / "effects.txt")
    reply = "[[ ## query ## ]]\nada\n\n[[ ## completed ## ]]"
    asked, may_answer = asyncio.Event(), asyncio.Event()

    class Holding(ScriptedLM):
        async def complete(self, request: LMRequest) -> LMResponse:
            asked.set()
            await may_answer.wait()
            return await super().complete(request)

    async def both() -> None:
        store, other = SQLite(tmp_path / "runs.sqlite3"), SQLite(tmp_path / "runs.sqlite3")
        async with asyncio.timeout(30):
            async with dspex.Runtime(lm=Holding(lambda _: reply)):
                first = asyncio.create_task(
                    make(path).arun(question="question", x=0, run_id="r1", store=store)
                )
                await asked.wait()
                _, lease = await other.claim_run("r1", owner="another", lease=30.0, take_over=True)
                may_answer.set()
                with pytest.raises(errors.LeaseLost):
                    await first
            assert await store.steps("r1") == []
            await other.release_run(lease)
            async with dspex.Runtime(lm=ScriptedLM(lambda _: reply)):
                assert dict(await make(path).aresume("r1", store=other)) == EXPECTED
        await store.close()
        await other.close()

    asyncio.run(both())
