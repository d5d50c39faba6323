"""What a store of runs promises, for every store there is."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.redis_server import RedisServer

from dspex import errors
from dspex.stores import Lease, Memory, Redis, RunStore, SQLite, StepRow

Make = Callable[..., Any]
NEW: dict[str, Any] = {"pipeline": "qa", "fingerprint": b"{}", "inputs": b"in", "owner": "one", "lease": 30.0}


class Clock:
    """The seconds since 1970, as a test says."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def row(path: str, digest: bytes = b"d", outcome: bytes = b"out") -> StepRow:
    return StepRow(path, "ok", digest, b"f", outcome, 0.5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "sqlite, full", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[RunStore]:
    made: RunStore
    if request.param == "memory":
        made = Memory(clock=clock, max_bytes=1_000)
    elif request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.said(b"FLUSHALL")
        made = Redis(server.url, clock=clock, max_bytes=1_000)
    else:
        synchronous: Any = "full" if "full" in request.param else "normal"
        made = SQLite(tmp_path / "runs.sqlite3", clock=clock, synchronous=synchronous, max_bytes=1_000)
    yield made
    await made.close()


async def test_a_run_is_begun_once_and_read_as_it_was_written(store: RunStore, clock: Clock) -> None:
    lease = await store.create_run("r1", **NEW)
    assert lease == Lease("r1", 1, clock.now + 30)
    with pytest.raises(errors.RunExists) as raised:
        await store.create_run("r1", **NEW)
    assert raised.value.run_id == "r1"
    info = await store.run("r1")
    assert info is not None
    assert (info.status, info.inputs, info.owner, info.epoch, info.resumes) == ("running", b"in", "one", 1, 0)
    assert await store.run("r2") is None


async def test_rows_are_kept_in_their_order_and_a_row_that_is_there_stays(
    store: RunStore, clock: Clock
) -> None:
    lease = await store.create_run("r1", **NEW)
    await store.record_steps(lease, [row("b"), row("a")])
    clock.now += 5
    await store.record_steps(lease, [row("a", outcome=b"another"), row("c")])
    assert [(each.path, each.outcome, each.at - 1_000_000) for each in await store.steps("r1")] == [
        ("b", b"out", 0),
        ("a", b"out", 0),
        ("c", b"out", 5),
    ]


async def test_a_row_of_other_inputs_takes_the_place_of_the_one_before(store: RunStore) -> None:
    lease = await store.create_run("r1", **NEW)
    await store.record_steps(lease, [row("a")])
    await store.record_steps(lease, [row("a", digest=b"other", outcome=b"new")])
    assert [each.outcome for each in await store.steps("r1")] == [b"new"]
    await store.record_steps(lease, [row("b")])
    await store.record_steps(lease, [row("a", digest=b"third")])
    assert [each.path for each in await store.steps("r1")] == ["a", "b"]


async def test_a_run_is_another_s_only_when_its_lease_has_ended_or_it_is_taken_over(
    store: RunStore, clock: Clock
) -> None:
    await store.create_run("r1", **NEW)
    clock.now += 29
    with pytest.raises(errors.RunBusy) as raised:
        await store.claim_run("r1", owner="two", lease=30.0)
    assert (raised.value.owner, raised.value.seconds) == ("one", 1)
    with pytest.raises(errors.RunBusy):
        await store.claim_run("r1", owner="two", lease=30.0, take_over="somebody else")
    clock.now += 2
    info, lease = await store.claim_run("r1", owner="two", lease=30.0)
    assert (info.owner, info.epoch, info.resumes, lease.epoch) == ("two", 2, 1, 2)
    _, third = await store.claim_run("r1", owner="three", lease=30.0, take_over=True)
    _, fourth = await store.claim_run("r1", owner="four", lease=30.0, take_over="three")
    assert (third.epoch, fourth.epoch) == (3, 4)


async def test_whoever_has_lost_a_run_writes_nothing_to_it(store: RunStore) -> None:
    old = await store.create_run("r1", **NEW)
    await store.record_steps(old, [row("a")])
    _, new = await store.claim_run("r1", owner="two", lease=30.0, take_over=True)
    for write in (
        store.record_steps(old, [row("b")]),
        store.renew_lease(old, 30.0),
        store.forget_steps(old, ["a"]),
        store.update_run(old, fingerprint=b"x"),
        store.end_run(old, "done", b"x"),
    ):
        with pytest.raises(errors.LeaseLost):
            await write
    await store.release_run(old)
    assert [each.path for each in await store.steps("r1")] == ["a"]
    info = await store.run("r1")
    assert info is not None
    assert (info.status, info.owner, info.fingerprint) == ("running", "two", b"{}")
    await store.end_run(new, "done", b"outcome")


async def test_a_lease_is_renewed_from_now(store: RunStore, clock: Clock) -> None:
    lease = await store.create_run("r1", **NEW)
    clock.now += 20
    assert (await store.renew_lease(lease, 30.0)).until == clock.now + 30
    clock.now += 29
    with pytest.raises(errors.RunBusy):
        await store.claim_run("r1", owner="two", lease=30.0)


async def test_a_run_that_never_ends_is_resumed_so_often_and_has_failed_then(store: RunStore) -> None:
    lease = await store.create_run("r1", **NEW)
    for _ in range(2):
        await store.release_run(lease)
        _, lease = await store.claim_run("r1", owner="two", lease=30.0, max_resumes=2)
    await store.release_run(lease)
    with pytest.raises(errors.TooManyResumes) as raised:
        await store.claim_run("r1", owner="two", lease=30.0, max_resumes=2)
    assert raised.value.resumes == 2
    info = await store.run("r1")
    assert info is not None
    assert info.status == "failed"


async def test_an_ended_run_has_its_outcome_and_claiming_it_counts_no_resume(store: RunStore) -> None:
    lease = await store.create_run("r1", **NEW)
    await store.end_run(lease, "done", b"outcome")
    info, _ = await store.claim_run("r1", owner="two", lease=30.0, max_resumes=0)
    assert (info.status, info.outcome, info.resumes) == ("done", b"outcome", 0)


async def test_runs_are_listed_last_first_and_forgotten_as_a_whole(store: RunStore, clock: Clock) -> None:
    for number, status in enumerate(("done", "failed", "running")):
        clock.now += 10
        lease = await store.create_run(f"r{number}", **{**NEW, "pipeline": f"p{number % 2}"})
        await store.record_steps(lease, [row("a")])
        if status != "running":
            await store.end_run(lease, status)  # type: ignore[arg-type]
    assert [each.run_id for each in await store.runs()] == ["r2", "r1", "r0"]
    assert [each.run_id for each in await store.runs(limit=1)] == ["r2"]
    assert [each.run_id for each in await store.runs(pipeline="p0", status="done")] == ["r0"]
    clock.now += 100
    assert await store.prune_runs(100.0) == 2
    assert await store.steps("r0") == []
    assert await store.drop_run("r2")
    assert not await store.drop_run("r2")
    assert await store.runs() == []


async def test_rows_are_forgotten_by_their_paths(store: RunStore) -> None:
    lease = await store.create_run("r1", **NEW)
    await store.record_steps(lease, [row("a"), row("b")])
    assert await store.forget_steps(lease, ["a", "none"]) == 1
    assert [each.path for each in await store.steps("r1")] == ["b"]


async def test_a_value_that_is_too_large_is_the_caller_s_mistake(store: RunStore) -> None:
    lease = await store.create_run("r1", **NEW)
    for write in (
        store.record_steps(lease, [row("a"), row("b", outcome=b"x" * 1_001)]),
        store.end_run(lease, "done", b"x" * 1_001),
        store.create_run("r2", **{**NEW, "inputs": b"x" * 1_001}),
    ):
        with pytest.raises(errors.StoreError) as raised:
            await write
        assert (raised.value.code, raised.value.category, raised.value.retryable) == (
            "store-too-large",
            "caller",
            False,
        )
    assert await store.steps("r1") == []


async def test_a_write_that_fails_undoes_nothing_of_those_it_waits_with(store: RunStore) -> None:
    leases = [await store.create_run(f"r{number}", **NEW) for number in range(20)]
    stale = [lease._replace(epoch=7) for lease in leases[::2]]
    outcomes = await asyncio.gather(
        *(store.record_steps(lease, [row("a")]) for lease in (*leases, *stale)), return_exceptions=True
    )
    assert outcomes[:20] == [None] * 20
    assert {type(each) for each in outcomes[20:]} == {errors.LeaseLost}
    assert [len(await store.steps(f"r{number}")) for number in range(20)] == [1] * 20


async def test_a_write_whose_caller_is_cancelled_has_happened_when_that_arrives(store: RunStore) -> None:
    lease = await store.create_run("r1", **NEW)
    for number in range(20):
        writing = asyncio.create_task(store.record_steps(lease, [row(f"s{number}")]))
        await asyncio.sleep(0)
        writing.cancel()
        outcome = (await asyncio.gather(writing, return_exceptions=True))[0]
        there = f"s{number}" in {each.path for each in await store.steps("r1")}
        assert there, outcome


def test_a_store_serves_one_loop_after_the_other(tmp_path: Path) -> None:
    store = SQLite(tmp_path / "runs.sqlite3")

    async def begin(name: str) -> None:
        await store.create_run(name, **NEW)

    async def count() -> int:
        found = len(await store.runs())
        await store.close()
        return found

    asyncio.run(begin("a"))
    asyncio.run(begin("b"))
    assert asyncio.run(count()) == 2


CLAIM = """
import asyncio, sys
from dspex import errors
from dspex.stores import SQLite

async def main():
    store = SQLite(sys.argv[1])
    try:
        _, lease = await store.claim_run("r1", owner=sys.argv[2], lease=60.0)
        print(lease.epoch)
    except errors.RunBusy:
        print("busy")
    await store.close()

asyncio.run(main())
"""


async def test_of_processes_that_claim_one_run_at_once_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    store = SQLite(path)
    await store.release_run(await store.create_run("r1", **NEW))
    await store.close()
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(path), f"p{number}"], stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in racing]
    assert sorted(said) == ["2", "busy", "busy", "busy"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_a_forked_child_was_told_is_written_stays_when_its_parent_closes(tmp_path: Path) -> None:
    code = f"""
import asyncio, os
from dspex.stores import SQLite
path, new = {str(tmp_path / "runs.sqlite3")!r}, {NEW!r}
store = SQLite(path)
asyncio.run(store.create_run("parent", **new))
to_parent, to_child = os.pipe(), os.pipe()
if (pid := os.fork()) == 0:
    asyncio.run(store.create_run("child1", **new))
    os.write(to_parent[1], b"x")
    os.read(to_child[0], 1)
    for name in ("child2", "child3"):
        asyncio.run(store.create_run(name, **new))
    os._exit(0)
os.read(to_parent[0], 1)
asyncio.run(store.close())
os.write(to_child[1], b"x")
assert os.waitpid(pid, 0)[1] == 0
print(sorted(run.run_id for run in asyncio.run(SQLite(path).runs())))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['child1', 'child2', 'child3', 'parent']", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_of_a_fork_opens_the_file_anew(tmp_path: Path) -> None:
    code = f"""
import asyncio, os
from dspex.stores import SQLite
store = SQLite({str(tmp_path / "runs.sqlite3")!r})
new = {NEW!r}
async def begin(name):
    await store.create_run(name, **new)
asyncio.run(begin("parent"))
if (pid := os.fork()) == 0:
    asyncio.run(begin("child"))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(begin("again"))
print(sorted(run.run_id for run in asyncio.run(store.runs())))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['again', 'child', 'parent']", done.stderr


async def test_runs_that_have_ended_are_forgotten_after_their_time(tmp_path: Path, clock: Clock) -> None:
    store = SQLite(tmp_path / "runs.sqlite3", clock=clock, retention=100.0)
    await store.end_run(await store.create_run("old", **NEW), "done")
    clock.now += 101
    await store.create_run("new", **NEW)
    assert [each.run_id for each in await store.runs()] == ["new"]
    await store.close()


# -- what goes wrong with the file --------------------------------------------------------------------


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()


def of_another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()


def broken(path: Path) -> None:
    path.write_bytes(b"no database at all, and long enough to be read as one" * 20)


def with_a_trigger(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TRIGGER forget AFTER INSERT ON runs BEGIN DELETE FROM runs; END")
    db.close()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (newer, "store-newer-schema"),
        (of_another, "store-not-ours"),
        (broken, "store-not-ours"),
        (with_a_trigger, "store-not-ours"),
        (a_directory, "store"),
    ],
)
async def test_a_file_that_is_none_of_ours_is_refused_and_left_as_it_is(
    damage: Callable[[Path], None], code: str, tmp_path: Path
) -> None:
    path = tmp_path / "runs.sqlite3"
    store = SQLite(path)
    await store.create_run("r1", **NEW)
    await store.close()
    for extra in ("-wal", "-shm"):
        Path(f"{path}{extra}").unlink(missing_ok=True)
    damage(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(errors.StoreError) as raised:
        await store.run("r1")
    assert raised.value.code == code
    assert str(tmp_path) not in str(raised.value)
    await store.close()
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_the_file_is_its_user_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    store = SQLite(path)
    await store.create_run("r1", **NEW)
    files = [path, *(Path(f"{path}{extra}") for extra in ("-wal", "-shm"))]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    await store.close()


async def test_a_job_that_cannot_be_written_at_all_undoes_nothing_of_those_it_waits_with(
    tmp_path: Path,
) -> None:
    store = SQLite(tmp_path / "runs.sqlite3", synchronous="full")
    lease = await store.create_run("r1", **NEW)
    outcomes = await asyncio.gather(
        *(store.record_steps(lease, [row(path)]) for path in ("a", "bad\ud800", "b")), return_exceptions=True
    )
    assert [type(each) for each in outcomes] == [type(None), errors.StoreError, type(None)]
    assert [each.path for each in await store.steps("r1")] == ["a", "b"]
    await store.close()


async def test_a_file_that_is_locked_for_too_long_says_so_and_works_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    store = SQLite(path, busy=0.05)
    lease = await store.create_run("r1", **NEW)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.StoreError) as raised:
        await store.record_steps(lease, [row("a")])
    assert (raised.value.code, raised.value.retryable) == ("store-locked", True)
    other.execute("ROLLBACK")
    other.close()
    await store.record_steps(lease, [row("a")])
    assert len(await store.steps("r1")) == 1
    await store.close()


async def test_a_file_without_room_says_so_and_works_once_there_is_some(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    store = SQLite(path, max_pages=20)
    lease = await store.create_run("r1", **NEW)
    with pytest.raises(errors.StoreError) as raised:
        await store.record_steps(lease, [row("big", outcome=b"x" * 200_000)])
    assert raised.value.code == "store-full"
    await store.record_steps(lease, [row("small")])
    assert [each.path for each in await store.steps("r1")] == ["small"]
    await store.close()
