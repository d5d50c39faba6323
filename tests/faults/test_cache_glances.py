"""An event loop looks into the file by itself, but waits for nothing there."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dspex import LM
from dspex._core import cache_key
from dspex.lm import Cache, LMRequest
from dspex.lm import _cache_file as files
from dspex.lm._cache_disk import NOT_NOW, Disk
from dspex.lm._cache_file import FILE
from dspex.lm._cache_pace import AWAY_SECONDS, SLOW_SECONDS
from dspex.testing import ModelServer

MIB = 1024 * 1024


class Clock:
    """It goes on by `step` each time somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def key(number: int) -> bytes:
    return cache_key(b"", str(number).encode())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(tmp_path: Path, clock: Clock) -> Iterator[Disk]:
    disk = Disk(tmp_path, 64 * MIB, clock)
    disk.put(key(1), b"one", None)
    disk.put(key(2), b"two", 1e-9)
    assert disk.flush(30)
    yield disk
    disk.close()


async def warmed(disk: Disk) -> None:
    """The thread has opened the file, and seen that it is quick."""
    for _ in range(2):
        assert await disk.aread(key(1)) == (b"one", None)
    assert disk.glance(key(1)) is not NOT_NOW


def leave_the_thread_alone(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(what: Any) -> bool:
        raise AssertionError("a thread is woken")

    monkeypatch.setattr(disk._reader, "add", refuse)


async def test_hits_and_misses_wake_no_thread_once_a_look_was_quick(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert disk.glance(key(1)) is NOT_NOW  # nobody has opened it, and a loop does not
    await warmed(disk)
    leave_the_thread_alone(disk, monkeypatch)
    assert await disk.aread(key(1)) == (b"one", None)
    assert await disk.aread(key(2)) is None  # its time is over
    assert await disk.aread(key(3)) is None


async def test_what_another_process_writes_and_what_is_forgotten_is_seen_at_once(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await warmed(disk)
    leave_the_thread_alone(disk, monkeypatch)
    code = f"""
from pathlib import Path
from dspex.lm._cache_disk import Disk
disk = Disk(Path({str(tmp_path)!r}), 10**9)
disk.put(bytes.fromhex({key(3).hex()!r}), b"three", None)
disk.close()
"""
    assert await disk.aread(key(3)) is None
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True, timeout=60)
    assert await disk.aread(key(3)) == (b"three", None)
    with disk._writing.lock:  # nothing is written now
        disk.forget(key(3))
        assert await disk.aread(key(3)) is None
    assert disk.flush(30)


async def test_after_a_slow_look_a_thread_looks_until_it_is_quick_again(disk: Disk, clock: Clock) -> None:
    await warmed(disk)
    clock.step = SLOW_SECONDS * 2
    assert await disk.aread(key(1)) == (b"one", None)  # by itself, and too slow
    assert disk.glance(key(1)) is NOT_NOW
    clock.now += AWAY_SECONDS
    assert await disk.aread(key(1)) == (b"one", None)  # by the thread, and still too slow
    assert disk.glance(key(1)) is NOT_NOW
    clock.step = 0.0
    assert await disk.aread(key(1)) == (b"one", None)
    assert disk.glance(key(1)) is NOT_NOW  # it was slow a moment ago
    clock.now += AWAY_SECONDS
    assert await disk.aread(key(1)) == (b"one", None)
    assert disk.glance(key(1)) == (b"one", None)


async def test_who_looks_already_is_not_waited_for(disk: Disk) -> None:
    await warmed(disk)
    with disk._glancing.lock:
        assert disk.glance(key(1)) is NOT_NOW
        assert await disk.aread(key(1)) == (b"one", None)
    assert disk.glance(key(1)) == (b"one", None)


async def test_a_lock_is_waited_for_by_the_thread_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "OPEN_SECONDS", 0.01)
    disk = Disk(tmp_path, 64 * MIB, Clock())
    disk.put(key(1), b"one", None)
    disk.close()
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")  # in which who writes keeps readers out
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM responses").fetchone()  # so that it stays
        await warmed(disk)
        other.execute("COMMIT")
        other.execute("BEGIN EXCLUSIVE")
        assert disk.glance(key(1)) is NOT_NOW
        assert caplog.records == []
        assert disk._glancing.connection is not None
        assert disk._glancing.connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
        assert await disk.aread(key(1)) is None
        assert ["locked" in record.getMessage() for record in caplog.records] == [True]
        other.execute("COMMIT")
    assert disk.glance(key(1)) == (b"one", None)
    disk.close()


BREAK = """
import os, sys
with open(sys.argv[1], "r+b") as file:
    size = file.seek(0, 2)
    file.seek(4096)
    file.write(os.urandom(size - 4096))
"""


async def test_a_file_that_breaks_under_a_loop_is_a_miss_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(tmp_path, 64 * MIB, Clock())
    disk.put(key(1), b"one", None)
    for number in range(2, 400):
        disk.put(key(number), bytes(3_000), None)
    disk.close()
    await warmed(disk)
    # By another process: whoever closes the file takes all locks of his away that are on it.
    broken = [sys.executable, "-c", BREAK, str(tmp_path / FILE)]
    await asyncio.to_thread(subprocess.run, broken, check=True, timeout=60)
    with caplog.at_level(logging.WARNING, "dspex"):
        found = [await disk.aread(key(number)) for number in range(2, 400)]
    assert None in found
    assert ["is not used" in record.getMessage() for record in caplog.records] == [True]
    assert disk._glancing.connection is None or disk.glance(key(1)) is None
    disk.close()


def test_loops_in_many_threads_look_at_once(disk: Disk) -> None:
    for number in range(10, 60):
        disk.put(key(number), str(number).encode(), None)
    assert disk.flush(30)
    wrong: list[Any] = []

    async def look() -> None:
        for _ in range(10):
            for number in range(10, 60):
                if await disk.aread(key(number)) != (str(number).encode(), None):
                    wrong.append(number)

    threads = [threading.Thread(target=lambda: asyncio.run(look())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []


async def test_a_file_that_was_closed_is_opened_again_by_the_thread(disk: Disk) -> None:
    await warmed(disk)
    await asyncio.to_thread(disk.close)
    assert disk._glancing.connection is None
    assert disk.glance(key(1)) is NOT_NOW
    await warmed(disk)


async def test_a_call_is_answered_from_disk_before_it_waits_for_anything(tmp_path: Path) -> None:
    cache = Cache("disk", directory=tmp_path)
    asked = LMRequest([{"role": "user", "content": "say it"}], {}, 60.0)
    with ModelServer(answer="it is said") as server:
        async with LM("openai/m", api_base=server.api_base, api_key="k", cache=cache) as lm:
            await lm.complete(asked)
            disk = cache._state.disk
            assert disk is not None
            disk._clock = Clock()
            assert disk.flush(30)
            for _ in range(3):
                cache._state.memory.clear()
                await lm.complete(asked)
            cache._state.memory.clear()
            found = lm.complete_now(asked)
            assert found is not None
            assert (found.texts, found.cached) == (("it is said",), True)
            assert lm.complete_now(LMRequest([{"role": "user", "content": "another"}], {}, 60.0)) is None
        assert len(server.requests) == 1
        assert cache.stats().disk == 4
    cache.close()
