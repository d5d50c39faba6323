"""Every store there is does what the suite says; and what SQLite's file does besides."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dspex import errors
from dspex.stores import Changes, Memory, NewSession, SQLite, StepRow
from dspex.testing.stores import RunStoreSuite, SessionStoreSuite

MAX_BYTES = 64 * 1024 * 1024
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


FIRST_VERSION = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, status TEXT NOT NULL, created REAL NOT NULL,
    updated REAL NOT NULL, epoch INTEGER NOT NULL, resumes INTEGER NOT NULL, owner TEXT,
    lease_until REAL NOT NULL
);
CREATE INDEX runs_updated ON runs (updated);
CREATE TABLE run_values (
    run_id TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, inputs BLOB NOT NULL, outcome BLOB
);
CREATE TABLE steps (
    run_id TEXT NOT NULL, path TEXT NOT NULL, status TEXT NOT NULL, digest BLOB NOT NULL,
    fingerprint BLOB NOT NULL, outcome BLOB NOT NULL, seconds REAL NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (run_id, path)
);
PRAGMA application_id = 0x64737872;
PRAGMA user_version = 1;
INSERT INTO runs VALUES ('r1', 'qa', 'running', 1000000, 1000000, 1, 0, 'one', 1000030);
INSERT INTO run_values VALUES ('r1', x'7b7d', x'696e', NULL);
INSERT INTO steps VALUES ('r1', 'a', 'ok', x'64', x'66', x'6f7574', 0.5, 1000000);
"""


class TestMemory(RunStoreSuite, SessionStoreSuite):
    many_processes = False
    survives_kill = False

    def make(
        self, place: Path, clock: Callable[[], float] | None = None, max_bytes: int | None = None
    ) -> Memory:
        return Memory(clock=clock or time.time, max_bytes=max_bytes or MAX_BYTES)


class TestSQLite(RunStoreSuite, SessionStoreSuite):
    synchronous: Any = "normal"
    older_versions = ("1",)

    def make(
        self, place: Path, clock: Callable[[], float] | None = None, max_bytes: int | None = None
    ) -> SQLite:
        return SQLite(
            place / "store.sqlite3",
            clock=clock or time.time,
            max_bytes=max_bytes or MAX_BYTES,
            synchronous=self.synchronous,
        )

    def write_older(self, place: Path, version: str) -> None:
        with sqlite3.connect(place / "store.sqlite3") as db:
            db.executescript(FIRST_VERSION)
        db.close()


class TestSQLiteFull(TestSQLite):
    synchronous = "full"


def test_no_test_of_one_suite_hides_one_of_the_other() -> None:
    """Most stores derive one class from both."""
    assert {*vars(RunStoreSuite)} & {name for name in vars(SessionStoreSuite) if name[:4] == "test"} == set()


def test_dspex_testing_needs_no_pytest_and_its_suites_say_what_they_need() -> None:
    code = """
import sys
sys.modules["pytest"] = None
import dspex.testing
from dspex.errors import ConfigError
try:
    import dspex.testing.stores
except ConfigError as error:
    print(error.code, error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "pytest-missing `pip install pytest`", done.stderr


@pytest.mark.parametrize("name", ["pathlib:Path", "dspex.stores:Memory"])
def test_another_process_of_a_suite_makes_nothing_but_suites(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dspex.testing.stores", name, __file__, str(tmp_path), "claim_run", "r1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == f"{name} is no suite of stores"


# -- SQLite alone: files, forks and what goes wrong -----------------------------------------------------


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
        db.execute("PRAGMA user_version = 3")
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


@pytest.mark.parametrize("synchronous", ["normal", "full"])
async def test_the_log_of_a_file_does_not_grow_with_its_writes(tmp_path: Path, synchronous: Any) -> None:
    path = tmp_path / "runs.sqlite3"
    store = SQLite(path, synchronous=synchronous)
    lease = await store.create_session(NewSession("s1"), owner="one", lease=30.0)
    sizes = []
    for _ in range(3):
        for _ in range(700):
            await store.commit_session(lease, Changes({"key": b"x" * 1_000}), seconds=30.0)
        sizes.append(Path(f"{path}-wal").stat().st_size)
    await store.close()
    assert sizes[2] <= sizes[0] * 1.5  # pages of a few hundred writes; else it would be three times as much
