"""The file of answers and what can happen to it: a miss and one warning each, never an error of a call."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dspex import LM
from dspex._core import cache_key
from dspex.cli import main
from dspex.lm import Cache, LMChoice, LMRequest, LMResponse
from dspex.lm import _cache_disk as disks
from dspex.lm import _cache_file as files
from dspex.lm._cache_disk import Disk
from dspex.lm._cache_file import FILE, default_directory, files_of
from dspex.testing import ModelServer

MIB = 1024 * 1024


def key(number: int) -> bytes:
    return cache_key(b"", str(number).encode())


def response(text: str = "it is said") -> LMResponse:
    return LMResponse((LMChoice(text, "stop"),), "m")


def asked(content: str = "say it") -> LMRequest:
    return LMRequest([{"role": "user", "content": content}], {}, 60.0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path, 64 * MIB)
    yield disk
    disk.close()


def filled(directory: Path, count: int = 3) -> Path:
    """A file with answers, which nobody has open."""
    disk = Disk(directory, 64 * MIB)
    for number in range(count):
        disk.put(key(number), f"value {number}".encode(), None)
    disk.close()
    return directory / FILE


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM responses").fetchone()[0]
        return count


# --- as it should be -------------------------------------------------------------------------------------


async def test_what_is_put_is_read_again_by_threads_loops_and_other_processes(
    disk: Disk, tmp_path: Path
) -> None:
    disk.put(key(1), b"one", None)
    disk.put(key(2), b"two", 60.0)
    assert disk.flush(30)
    assert disk.read(key(1)) == await disk.aread(key(1)) == (b"one", None)
    found = disk.read(key(2))
    assert found is not None
    assert found[0] == b"two"
    assert found[1] is not None
    assert 0 < found[1] <= 60.0
    assert disk.read(key(3)) is None
    code = f"""
from pathlib import Path
from dspex.lm._cache_disk import Disk
print(Disk(Path({str(tmp_path)!r}), 10**9).read(bytes.fromhex({key(1).hex()!r})))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "(b'one', None)\n"


def test_an_answer_whose_time_is_over_is_not_read(disk: Disk) -> None:
    disk.put(key(1), b"one", 1e-9)
    assert disk.flush(30)
    assert disk.path is not None
    assert rows(disk.path) == 1
    assert disk.read(key(1)) is None


def test_what_is_forgotten_is_not_read_even_before_its_row_is_gone(disk: Disk) -> None:
    disk.put(key(1), b"one", None)
    assert disk.flush(30)
    with disk._writing.lock:  # nothing is written now
        disk.forget(key(1))
        assert disk.read(key(1)) is None
        disk.put(key(1), b"anew", None)
        assert disk.read(key(1)) is None
    assert disk.flush(30)
    assert disk.read(key(1)) == (b"anew", None)


def test_the_file_keeps_its_bound_and_what_was_used_last(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 2 * MIB)
    assert disk.path is not None
    for number in range(60):
        disk.put(key(number), bytes(100_000), None)
        assert disk.flush(30)
        disk._write(disks._used, key(0), time.time() + 1)
        assert disk.flush(30)
        assert disk.path.stat().st_size <= 3 * MIB
    found = [number for number in range(60) if disk.read(key(number)) is not None]
    assert 0 in found
    assert 59 in found
    assert 1 not in found
    assert 10 <= len(found) <= 21
    disk.close()


def test_that_an_answer_was_used_is_noted_now_and_then(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def used() -> float:
        assert disk.flush(30)
        assert disk.path is not None
        with closing(sqlite3.connect(disk.path)) as connection:
            at: float = connection.execute("SELECT used FROM responses").fetchone()[0]
            return at

    disk.put(key(1), b"one", None)
    before = used()
    assert disk.read(key(1)) is not None
    assert used() == before
    monkeypatch.setattr(disks, "USED_STEP", -1.0)
    assert disk.read(key(1)) is not None
    assert used() > before


def test_more_than_waits_to_be_written_is_left_out(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "MOST_WAITING", 1_000)
    with disk._writing.lock:
        for number in range(5):
            disk.put(key(number), bytes(400), None)
    assert disk.flush(30)
    assert [disk.read(key(number)) is not None for number in range(5)] == [True, True, False, False, False]
    disk.put(key(5), bytes(400), None)
    assert disk.flush(30)
    assert disk.read(key(5)) is not None


@pytest.mark.skipif(os.name != "posix", reason="rights of POSIX")
def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    path = filled(tmp_path / "new")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_cache_that_nobody_has_any_more_ends_its_threads_and_closes_its_file(tmp_path: Path) -> None:
    cache = Cache("disk", directory=tmp_path)
    live = weakref.ref(cache._state)
    cache._state.keep(key(1), response())
    asyncio.run(cache._state.afrom_disk(key(2)))
    assert {thread.name for thread in threading.enumerate()} >= {"dspex-cache-write", "dspex-cache-read"}
    assert cache._state.disk is not None
    threads = [each._thread for each in (cache._state.disk._reader, cache._state.disk._writer)]
    del cache
    gc.collect()
    assert live() is None
    assert not any(thread is None or thread.is_alive() for thread in threads)
    assert rows(tmp_path / FILE) == 1
    assert not (tmp_path / f"{FILE}-wal").exists()  # which the last who closes it takes away


def test_what_is_to_be_written_when_the_process_ends_is_written(tmp_path: Path) -> None:
    code = f"""
from dspex.lm import Cache, LMChoice, LMResponse
from dspex._core import cache_key
cache = Cache("disk", directory={str(tmp_path)!r})
for number in range(100):
    cache._state.keep(cache_key(b"", str(number).encode()), LMResponse((LMChoice("x" * 1000, "stop"),), "m"))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
    assert rows(tmp_path / FILE) == 100


# --- as it should not be ---------------------------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1_000)


def broken_in_the_middle(path: Path) -> None:
    filled(path.parent, 200)
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)


def cut_off(path: Path) -> None:
    filled(path.parent, 200)
    os.truncate(path, 5_000)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(filled(path.parent))) as connection:
        connection.execute("PRAGMA user_version = 99")


def of_something_else(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def a_directory(path: Path) -> None:
    path.mkdir()


def without_its_table(path: Path) -> None:
    with closing(sqlite3.connect(filled(path.parent))) as connection:
        connection.execute("DROP TABLE responses")


BROKEN = [garbage, broken_in_the_middle, cut_off, newer, of_something_else, a_directory, without_its_table]


async def works_without(cache: Cache, caplog: pytest.LogCaptureFixture, *, warnings: int = 1) -> None:
    """Calls go on as if there were no file, and the log says so once."""
    with ModelServer(answer="it is said") as server, caplog.at_level(logging.DEBUG, "dspex"):
        async with LM("openai/m", api_base=server.api_base, api_key="k", cache=cache) as lm:
            for _ in range(3):
                assert (await lm.complete(asked())).texts == ("it is said",)
                cache._state.memory.clear()
                assert await asyncio.to_thread(lm.complete_now, asked()) is None
                lm.forget(asked("another"))
            assert not (await lm.complete(asked())).cached
            assert (await lm.complete(asked())).cached  # the memory is there
        assert len(server.requests) == 4
    assert cache._state.disk is not None
    cache._state.disk.flush(30)
    cache.close()
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in told] == ["dspex.lm"] * warnings
    assert all("response cache on disk" in record.getMessage() for record in told)


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
async def test_a_file_that_cannot_be_used_is_a_miss_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None]
) -> None:
    make(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes() if (tmp_path / FILE).is_file() else b""
    cache = Cache("disk", directory=tmp_path)
    await works_without(cache, caplog)
    assert cache._state.disk is not None
    assert cache._state.disk._off  # nobody looks at it again
    if before:
        assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize(
    "make", [each for each in BROKEN if each is not a_directory], ids=lambda m: m.__name__
)
def test_clear_makes_such_a_file_anew(
    tmp_path: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / FILE)
    assert main(["cache", "clear", "--directory", str(tmp_path)]) == 0
    assert "taken away" in capsys.readouterr().out
    filled(tmp_path)
    assert main(["cache", "stats", "--directory", str(tmp_path)]) == 0
    assert "3 answers" in capsys.readouterr().out


async def test_a_directory_that_cannot_be_made_is_a_miss_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    await works_without(Cache("disk", directory=tmp_path / "file" / "below"), caplog)


async def test_without_a_home_there_is_memory_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("DSPEX_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert default_directory() is None
    with caplog.at_level(logging.WARNING, "dspex"):
        cache = Cache("disk")
    await works_without(cache, caplog)
    assert main(["cache", "stats"]) == 2


def test_the_environment_says_where_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("DSPEX_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_directory() == Path("/home/me/.cache/dspex")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_directory() == Path("/xdg/dspex")
    monkeypatch.setenv("DSPEX_CACHE_DIR", "/here")
    assert default_directory() == Path("/here")


NOBODY = """
import os, sys, logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)
directory = sys.argv[1]
import pathlib, sqlite3, urllib.parse
from pathlib import Path
from dspex.lm._cache_disk import Disk
from dspex._core import cache_key
os.setgid(65534); os.setuid(65534)
disk = Disk(Path(directory), 10**9)
key = lambda number: cache_key(b"", str(number).encode())
print(disk.read(key(1)))
disk.put(key(7), b"seven", None)
disk.flush(30)
print(disk.read(key(7)), disk.read(key(2)))
"""


def without_coverage() -> dict[str, str]:
    """The environment of a process that may not write where this one measures what its tests cover."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="it becomes another user")
def test_a_directory_that_can_only_be_read_gives_what_is_in_it(tmp_path: Path) -> None:
    """A cache that was filled when an image was built, in a container that writes nowhere."""
    path = filled(tmp_path)
    for each in (*tmp_path.parents, tmp_path):
        if str(each).startswith("/tmp/pytest"):
            each.chmod(0o755)
    path.chmod(0o444)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", NOBODY, str(tmp_path)],
        env=without_coverage(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert [line for line in lines if "can only be read" in line] == lines[:1]
    assert lines[1:] == ["(b'value 1', None)", "None (b'value 2', None)"]
    assert rows(path) == 3


async def test_a_file_that_another_process_has_locked_is_a_miss_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "OPEN_SECONDS", 0.01)
    monkeypatch.setattr(disks, "WRITE_SECONDS", 0.01)
    path = filled(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        cache = Cache("disk", directory=tmp_path)
        await works_without(cache, caplog)
        other.execute("COMMIT")
    cache._state.keep(key(9), response())
    cache.close()
    assert rows(path) == 4  # and it goes on when the other has gone


async def test_a_file_system_that_hangs_holds_up_no_event_loop_for_long(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "ANSWER_SECONDS", 0.01)
    disk.put(key(1), b"one", None)
    assert disk.flush(30)
    with disk._reading.lock:  # as if a read under it took for ever
        assert await asyncio.gather(*(disk.aread(key(1)) for _ in range(3))) == [None] * 3
    monkeypatch.setattr(disks, "ANSWER_SECONDS", 30.0)
    assert await disk.aread(key(1)) == (b"one", None)


async def test_a_writer_that_is_kept_out_writes_the_next_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "WRITE_SECONDS", 0.01)
    disk = Disk(tmp_path, 64 * MIB)
    disk.put(key(1), b"one", None)
    assert disk.flush(30)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in (2, 3):
            disk.put(key(number), b"lost", None)
            assert disk.flush(30)
        assert disk.read(key(1)) == (b"one", None)  # who reads waits for nobody
        other.execute("COMMIT")
    disk.put(key(4), b"four", None)
    assert disk.flush(30)
    assert [disk.read(key(number)) is None for number in (2, 3, 4)] == [True, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    disk.close()


def test_a_disk_that_is_full_is_one_warning_and_what_was_there_stays(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.put(key(1), b"one", None)
    assert disk.flush(30)
    with disk._writing.lock:
        assert disk._writing.connection is not None
        pages = disk._writing.connection.execute("PRAGMA page_count").fetchone()[0]
        disk._writing.connection.execute(f"PRAGMA max_page_count = {pages}")
    for number in (2, 3):
        disk.put(key(number), bytes(100_000), None)
        assert disk.flush(30)
    assert disk.read(key(1)) == (b"one", None)
    assert disk.read(key(2)) is None
    assert ["cannot grow" in record.getMessage() for record in caplog.records] == [True]


LIMITED = """
import logging, resource, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from pathlib import Path
from dspex.lm._cache_disk import Disk
from dspex._core import cache_key
key = lambda number: cache_key(b"", str(number).encode())
disk = Disk(Path(sys.argv[1]), 10**9)
disk.put(key(1), b"one", None)
disk.flush(30)
for number in range(2, 20):
    disk.put(key(number), bytes(50_000), None)
    disk.flush(30)
print(disk.read(key(1)))
disk.close()
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_file_that_the_system_lets_grow_no_more_is_one_warning_of_each_kind(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    *warnings, found = ran.stdout.splitlines()
    assert found == "(b'one', None)"
    assert 1 <= len(warnings) <= 2
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_is_taken_away_under_it_is_made_anew(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.put(key(1), b"one", None)
    assert disk.flush(30)
    assert disk.path is not None
    for path in files_of(disk.path):
        path.unlink(missing_ok=True)
    for number in (2, 3, 4):
        disk.put(key(number), b"another", None)
        assert disk.flush(30)
    assert len(caplog.records) <= 1
    disk.close()
    assert disk.read(key(1)) is None
    disk.put(key(5), b"five", None)
    assert disk.flush(30)
    assert disk.read(key(5)) == (b"five", None)


# --- many processes --------------------------------------------------------------------------------------

WRITER = """
import sys, threading
from pathlib import Path
from dspex.lm._cache_disk import Disk
from dspex._core import cache_key
disk = Disk(Path(sys.argv[1]), 10**9)
own = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(own * 1000, own * 1000 + 100):
    disk.put(cache_key(b"", str(number).encode()), str(number).encode() * 100, None)
    disk.read(cache_key(b"", str(number - 1).encode()))
    if number % 10 == 0:
        disk.flush(30)
assert disk.flush(30)
print("done", flush=True)
disk.close()
"""


@contextmanager
def processes(code: str, *arguments: tuple[str, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *each],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in arguments
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=30)


@pytest.mark.parametrize("again", range(4))
def test_many_processes_make_and_fill_one_file_at_once(tmp_path: Path, again: int) -> None:
    """Nearly each time one of them broke it while the file was opened by others than SQLite."""
    with processes(WRITER, *((str(tmp_path), str(own)) for own in range(5))) as started:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in started:
            out, err = process.communicate(timeout=120)
            assert (out, err, process.returncode) == ("done\n", "", 0)
    assert rows(tmp_path / FILE) == 500
    disk = Disk(tmp_path, 64 * MIB)
    assert all(
        disk.read(key(own * 1000 + number)) is not None for own in range(5) for number in range(0, 100, 7)
    )
    disk.close()


ENDLESS = """
import itertools, sys
from pathlib import Path
from dspex.lm._cache_disk import Disk
from dspex._core import cache_key
disk = Disk(Path(sys.argv[1]), 10**9)
for number in itertools.count():
    disk.put(cache_key(b"", str(number).encode()), (str(number) + " ").encode() * 2000, None)
    disk.flush(30)
    print(number, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_process_that_is_killed_in_the_middle_of_writing_leaves_whole_answers(tmp_path: Path) -> None:
    survivor = Disk(tmp_path, 1024 * MIB)
    survivor.put(key(-1), b"before", None)
    assert survivor.flush(30)
    for _ in range(5):
        with processes(ENDLESS, (str(tmp_path),)) as (process,):
            assert process.stdout is not None
            last = -1
            for line in process.stdout:
                last = int(line)
                if last == 20:
                    break
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        for number in range(last + 1):
            assert survivor.read(key(number)) == ((f"{number} ").encode() * 2000, None)
        survivor.put(key(-1), b"after", None)
        assert survivor.flush(30)
        assert survivor.read(key(-1)) == (b"after", None)
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    survivor.close()


FORKED = """
import asyncio, json, os, sys, warnings
import dspex
from dspex.lm import Cache, LMChoice, LMResponse
from dspex._core import cache_key
key = lambda number: cache_key(b"", str(number).encode())
answer = lambda text: LMResponse((LMChoice(text, "stop"),), "m")
cache = Cache("disk", directory=sys.argv[1])
live = cache._state
live.keep(key(1), answer("one"))
live.disk.flush(30)
live.disk._clock = lambda: 0.0  # every look is quick, so that there are three connections
for _ in range(3):
    asyncio.run(live.afrom_disk(key(0)))
assert None not in [holder.connection for holder in live.disk._holders()]

def side(number):
    seen = [live.from_memory(key(1)).texts[0]]
    live.memory.clear()
    seen.append(live.from_disk(key(1)).texts[0])
    live.keep(key(number), answer(str(number)))
    assert live.disk.flush(30)
    live.memory.clear()
    seen.append(asyncio.run(live.afrom_disk(key(number))).texts[0])

    async def calls():
        async def ask():
            await asyncio.sleep(0)
            return "asked"
        return await asyncio.gather(*(live.flights.answer(key(5), ask, 30.0) for _ in range(2)))

    seen.append([joined for _, joined in asyncio.run(calls())])
    return seen

async def lead():
    # Inside a loop and while a call is led; the child leaves both as they are.
    task = asyncio.create_task(live.flights.answer(key(5), asyncio.Event().wait, 30.0))
    await asyncio.sleep(0)
    pid = os.fork()
    if pid == 0:
        asyncio._set_running_loop(None)
        child()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return pid

def child():
    print(json.dumps(side(2)), flush=True)
    os._exit(0)

if sys.argv[2] == "flying":
    pid = asyncio.run(lead())
else:
    pid = os.fork() or child()
assert os.waitpid(pid, 0)[1] == 0
print(json.dumps(side(3)), flush=True)
live.memory.clear()
print([live.from_disk(key(number)).texts[0] for number in (1, 2, 3)], flush=True)
cache.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.parametrize("when", ["quiet", "flying"])
def test_used_and_forked_both_sides_work(tmp_path: Path, when: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path), when],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    *sides, last = ran.stdout.splitlines()
    assert sorted(json.loads(side) for side in sides) == [
        ["one", "one", "2", [False, True]],
        ["one", "one", "3", [False, True]],
    ]
    assert last == "['one', '2', '3']"
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_fork_while_others_read_and_write_finds_no_lock_taken(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 64 * MIB)
    stop = threading.Event()

    def work(own: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            disk.put(key(own * 100_000 + number), b"x" * 1_000, None)
            disk.read(key(own * 100_000 + number - 5))

    threads = [threading.Thread(target=work, args=(own,)) for own in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)  # a child that hangs ends by it, and not with 0
                disk.put(key(-os.getpid()), b"child", None)
                good = disk.flush(10) and disk.read(key(-os.getpid())) == (b"child", None)
                os._exit(0 if good else 1)
            assert os.waitpid(pid, 0)[1] == 0
            assert disk.read(key(-pid)) == (b"child", None)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    disk.close()


# --- the command -----------------------------------------------------------------------------------------


def test_the_command_says_what_there_is_and_forgets_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSPEX_CACHE_DIR", str(tmp_path))
    for action in ("stats", "clear"):
        assert main(["cache", action]) == 0
        assert "nothing is kept" in capsys.readouterr().out
    filled(tmp_path)
    open_elsewhere = Disk(tmp_path, 64 * MIB)
    assert open_elsewhere.read(key(1)) is not None
    assert main(["cache", "stats"]) == 0
    assert "3 answers" in capsys.readouterr().out
    assert main(["cache", "stats", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["entries"], told["readable"], told["path"]) == (3, True, str(tmp_path / FILE))
    assert main(["cache", "clear"]) == 0
    assert "3 answers are forgotten" in capsys.readouterr().out
    assert open_elsewhere.read(key(1)) is None  # the same file, emptied
    open_elsewhere.put(key(1), b"anew", None)
    assert open_elsewhere.flush(30)
    open_elsewhere.close()
    assert rows(tmp_path / FILE) == 1
    garbage(tmp_path / FILE)
    assert main(["cache", "stats"]) == 1
    assert "cannot be read by this version" in capsys.readouterr().out
