"""Sessions whose workers and hosts die, move and are replaced: what the caller gets, and that it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.objects import Counter
from tests.support.processes import until

import dspex
from dspex.errors import (
    ConfigError,
    HandleLost,
    InputError,
    RemoteError,
    SessionError,
    SessionMoved,
    WorkerDiedError,
    WorkerStartError,
)
from dspex.pool import PoolSpec, Restart, State, Timeouts
from dspex.protocol.handles import HandleRequest
from dspex.sessions import Session, SessionSettings
from dspex.stores import SQLite
from dspex.telemetry import Event, attach

ROOT = Path(__file__).parents[2]
OBJECTS = "tests.support.objects:"
SPEC = PoolSpec(
    workers=2,
    classes=("tests.support",),
    restart=Restart(max=100),
    timeouts=Timeouts(cancel=0.2, stop=2),
)
LM = dspex.LM("openai/test", api_base="http://127.0.0.1:1/v1", api_key="none")


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[dspex.Runtime]:
    settings = SessionSettings(store=tmp_path / "s.sqlite3", park_after=None)
    async with dspex.Runtime(LM, pools=SPEC, sessions=settings) as opened:
        yield opened


def ready_workers(runtime: dspex.Runtime) -> list[int | None]:
    workers = runtime.pools()["general"].workers
    return [worker.pid for worker in workers if worker.state is State.READY]


async def kill(runtime: dspex.Runtime, pid: int) -> None:
    """Kill a worker, and wait until the pool knows."""
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid not in [worker.pid for worker in runtime.pools()["general"].workers])


# --- objects ---------------------------------------------------------------------------------------------


async def test_an_object_is_made_called_read_and_dropped_in_the_session_s_worker(
    runtime: dspex.Runtime, tmp_path: Path
) -> None:
    s = await runtime.session(affinity="strict")
    counter = await s.handle(Counter, 5, step=2)
    assert (counter.name, counter.target, counter.restore) == ("Counter", OBJECTS + "Counter", "rebuild")
    assert [await counter.call("add"), await counter.call("add_async")] == [7, 9]
    assert await counter.get("value") == 9
    made = await s.handle(OBJECTS + "made_async", 1, name="async")
    assert await made.call("add") == 2
    assert list(s.handles) == ["Counter", "async"]
    pids = {await handle.call("pid") for handle in s.handles.values()}
    assert len(pids) == 1
    assert pids <= set(ready_workers(runtime))
    file = tmp_path / "closed"
    closing = await s.handle(OBJECTS + "Closing", str(file))
    assert await closing.call("ping") == "pong"
    await closing.drop()
    assert file.read_text() == "closed\n"
    assert "Closing" not in s.handles
    with pytest.raises(KeyError):
        await closing.call("ping")
    again = await s.handle(Counter, 5, step=2)
    assert await again.get("value") == 9  # it was there
    assert await s.call(lambda: 1) == 1


@pytest.mark.parametrize(
    ("make", "error", "code"),
    [
        (lambda s: s.handle("os:getcwd"), ConfigError, "not-allowed"),
        (lambda s: s.handle("tests.supportive:X"), ConfigError, "not-allowed"),
        (lambda s: s.handle(OBJECTS + "Missing"), ConfigError, "bad-import-path"),
        (lambda s: s.handle(OBJECTS + "fails"), RemoteError, "remote"),
        (lambda s: s.handle(Counter, wrong=1), InputError, "arguments"),
        (lambda s: s.handle(Counter, object()), SessionError, "state-not-kept"),
        (lambda s: s.handle(Counter, restore="always"), ConfigError, "bad-session"),
        (lambda s: s.handle(OBJECTS + "Plain", restore="state"), ConfigError, "no-member"),
        (lambda s: s.handle(lambda: 1), ConfigError, "bad-import-path"),
    ],
)
async def test_an_object_that_cannot_be_made_leaves_nothing(
    runtime: dspex.Runtime, make: Callable[[Session], Any], error: type[Exception], code: str
) -> None:
    s = await runtime.session()
    with pytest.raises(error) as refused:
        await make(s)
    assert refused.value.code == code  # type: ignore[attr-defined]
    assert list(s.handles) == []
    assert await (await s.handle(Counter)).call("add") == 1


@pytest.mark.parametrize(
    ("ask", "error", "code"),
    [
        (lambda h: h.call("missing"), ConfigError, "no-member"),
        (lambda h: h.call("__class__"), ConfigError, "no-member"),
        (lambda h: h.get("_private"), ConfigError, "no-member"),
        (lambda h: h.call("value"), ConfigError, "no-member"),
        (lambda h: h.call("add", 1), InputError, "arguments"),
        (lambda h: h.call("add_and_fail"), RemoteError, "remote"),
    ],
)
async def test_what_an_object_cannot_be_asked_is_one_clear_error_and_it_goes_on(
    runtime: dspex.Runtime, ask: Callable[[Any], Any], error: type[Exception], code: str
) -> None:
    s = await runtime.session()
    handle = await s.handle(Counter, restore="state")
    with pytest.raises(error) as refused:
        await ask(handle)
    assert refused.value.code == code  # type: ignore[attr-defined]
    assert await handle.call("add") == 1  # of one that failed half-way nothing is left


async def test_two_objects_of_one_name_are_refused(runtime: dspex.Runtime) -> None:
    s = await runtime.session()
    await s.handle(Counter, 1)
    with pytest.raises(ConfigError) as refused:
        await s.handle(Counter, 2)
    assert refused.value.code == "handle-exists"
    assert await (await s.handle(Counter, 2, name="other")).get("value") == 2


async def test_objects_of_different_sessions_are_different(runtime: dspex.Runtime) -> None:
    one, other = await runtime.session(), await runtime.session()
    first, second = await one.handle(Counter), await other.handle(Counter)
    assert await first.call("add") == 1
    assert await second.get("value") == 0
    await one.end()
    assert await second.call("add") == 1


async def test_a_function_in_a_thread_asks_an_object_as_a_part_of_its_call(runtime: dspex.Runtime) -> None:
    s = await runtime.session()
    counter = await s.handle(Counter, restore="state")

    def work(fails: bool) -> int:
        value = asyncio.run(counter.call("add"))
        if fails:
            raise ValueError("no")
        return int(value)

    assert await s.call(work, fails=False) == 1
    with pytest.raises(ValueError, match="no"):
        await s.call(work, fails=True)
    assert await counter.get("value") == 1  # the call that failed left nothing, in the worker neither
    assert await s.call(work, fails=False) == 2


async def test_no_key_of_a_model_reaches_the_store(tmp_path: Path) -> None:
    lm = dspex.LM("openai/test", api_base="http://127.0.0.1:1/v1", api_key="xyzzy-plugh-key")
    path = tmp_path / "s.sqlite3"
    async with dspex.Runtime(lm, pools=SPEC, sessions=path) as runtime:
        s = await runtime.session(affinity="strict")
        counter = await s.handle(Counter, restore="state")
        program = dspex.program("tests.support.where:Where")

        async def work() -> None:
            s.state["n"] = await counter.call("add")
            s.history.append({"pid": (await s.call(program)).pid})

        await s.call(work)
        await s.park()
        written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"Counter" in written
        assert b"xyzzy" not in written


# --- the worker dies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("restore", "left"), [("rebuild", 10), ("state", 12), ("none", None)])
async def test_after_its_worker_died_an_object_is_what_its_author_chose(
    runtime: dspex.Runtime, restore: Any, left: int | None
) -> None:
    told = list[Event]()
    with attach("dspex.session", told.append):
        s = await runtime.session(affinity="strict")
        counter = await s.handle(Counter, 10, restore=restore)
        await counter.call("add")
        await counter.call("add")
        await kill(runtime, await counter.call("pid"))
        if left is None:
            for _ in range(2):
                with pytest.raises(HandleLost) as lost:
                    await counter.get("value")
                assert lost.value.handle == "Counter"
            await counter.drop()
            counter = await s.handle(Counter, 10, restore="none")
            left = 10
        assert await counter.get("value") == left
        assert await counter.call("add") == left + 1
    names = [event.name.removeprefix("dspex.session.") for event in told]
    assert ("recovered" in names) == (restore != "none")
    assert "moved" in names


async def test_a_call_that_dies_in_the_work_writes_nothing_and_the_session_is_that_of_the_last_call(
    runtime: dspex.Runtime,
) -> None:
    s = await runtime.session(affinity="strict")
    counter = await s.handle(Counter, restore="state")

    async def work(method: str) -> int:
        s.state["n"] = s.state.get("n", 0) + 1
        return int(await counter.call(method))

    assert await s.call(work, method="add") == 1
    with pytest.raises(WorkerDiedError):
        await s.call(work, method="add_and_die")
    assert dict(s.state) == {"n": 1}
    assert await s.call(work, method="add") == 2
    assert dict(s.state) == {"n": 2}


async def test_a_worker_that_dies_after_the_work_and_before_the_commit_costs_nothing(
    runtime: dspex.Runtime,
) -> None:
    s = await runtime.session(affinity="strict")
    counter = await s.handle(Counter, restore="state")

    async def work() -> int:
        s.state["n"] = await counter.call("add")
        await kill(runtime, await counter.call("pid"))
        return int(s.state["n"])

    assert await s.call(work) == 1
    assert (dict(s.state), await counter.get("value")) == ({"n": 1}, 1)


async def test_a_worker_that_dies_between_two_calls_costs_nothing(runtime: dspex.Runtime) -> None:
    s = await runtime.session(affinity="strict")
    counter = await s.handle(Counter, restore="state")
    for number in range(1, 4):
        assert await counter.call("add") == number
        await kill(runtime, await counter.call("pid"))
    assert await counter.get("value") == 3


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_program_whose_worker_dies_is_called_again_only_if_it_was_declared_idempotent(
    runtime: dspex.Runtime, tmp_path: Path, idempotent: bool
) -> None:
    s = await runtime.session(affinity="strict")
    program = dspex.program("tests.support.where:Where").with_options(idempotent=idempotent)
    effects = tmp_path / "effects"

    async def work() -> Any:
        s.state["n"] = 1
        return await s.call(program, dies=str(tmp_path / "died"), effects=str(effects))

    if idempotent:
        assert (await s.call(work)).pid in ready_workers(runtime)
        assert (effects.read_text(), dict(s.state)) == ("ran\nran\n", {"n": 1})
    else:
        with pytest.raises(WorkerDiedError):
            await s.call(work)
        assert (effects.read_text(), dict(s.state)) == ("ran\n", {})
    assert (await s.call(program, effects=str(effects))).pid in ready_workers(runtime)


async def test_a_function_is_not_called_again_though_what_it_calls_is_idempotent(
    runtime: dspex.Runtime, tmp_path: Path
) -> None:
    s, calls = await runtime.session(affinity="strict"), 0
    pool = await runtime._sessions.pool_of("general")  # type: ignore[union-attr]

    async def work() -> None:
        nonlocal calls
        calls += 1
        s.state["n"] = s.state.get("n", 0) + 1
        await pool.with_options(idempotent=True).run("os:abort")

    with pytest.raises(WorkerDiedError) as died:
        await s.call(work)
    assert (died.value.retryable, calls, dict(s.state)) == (True, 1, {})


async def test_programs_of_a_session_run_where_its_objects_are(runtime: dspex.Runtime) -> None:
    program = dspex.program("tests.support.where:Where")
    sessions = [await runtime.session(affinity="strict") for _ in range(4)]
    homes = []
    for s in sessions:
        counter = await s.handle(Counter)
        home = await counter.call("pid")
        assert [(await s.call(program)).pid for _ in range(3)] == [home] * 3
        homes.append(home)
    assert sorted(homes.count(pid) for pid in set(homes)) == [2, 2]  # spread over both workers


async def test_an_object_whose_worker_cannot_be_started_any_more_is_an_error_and_the_state_stays(
    tmp_path: Path,
) -> None:
    spec = SPEC.replace(workers=1, restart=Restart(max=1, window=60))
    settings = SessionSettings(store=tmp_path / "s.sqlite3")
    async with dspex.Runtime(LM, pools=spec, sessions=settings) as runtime:
        s = await runtime.session()
        counter = await s.handle(Counter, restore="state")
        s.state["n"] = 1
        for _ in range(2):
            with pytest.raises(WorkerDiedError):
                await counter.call("add_and_die")
        with pytest.raises(WorkerStartError):
            await counter.call("add")
        await s.commit()
        assert dict(s.state) == {"n": 1}


async def test_what_a_host_drops_late_of_a_session_that_it_had_is_nothing_of_what_it_has_again(
    runtime: dspex.Runtime, tmp_path: Path
) -> None:
    settings = SessionSettings(store=tmp_path / "s.sqlite3")
    async with dspex.Runtime(LM, sessions=settings) as second:
        s = await runtime.session(affinity="strict")
        await s.handle(Counter)
        before = s._core
        await second.session(id=s.id, take_over=True)
        with pytest.raises(SessionMoved):
            await s.state.set("n", 1)
        assert await runtime.session(id=s.id, take_over=True) is s
        own = await s.handle(Counter, name="own", restore="none")
        pool = await runtime._sessions.pool_of("general")  # type: ignore[union-attr]
        assert s._core.place is not None
        await pool.call(HandleRequest(do="end", session=before.tag), place=s._core.place)
        assert await own.call("add") == 1


# --- workers come and go ---------------------------------------------------------------------------------


async def test_a_rolling_restart_under_load_drops_no_session_and_loses_no_count(
    runtime: dspex.Runtime,
) -> None:
    sessions = [await runtime.session(affinity="strict") for _ in range(6)]
    counters = [await s.handle(Counter, restore="state") for s in sessions]
    before = set(ready_workers(runtime))
    counts, stop = [0] * len(sessions), False

    async def count(number: int) -> None:
        while not stop:
            assert await counters[number].call("add") == counts[number] + 1
            counts[number] += 1

    counting = [asyncio.create_task(count(number)) for number in range(len(sessions))]
    pool = await runtime._sessions.pool_of("general")  # type: ignore[union-attr]
    await pool.restart()
    await pool.restart()
    stop = True
    await asyncio.gather(*counting)
    assert not before & set(ready_workers(runtime))
    assert [await counter.get("value") for counter in counters] == counts
    assert all(count > 0 for count in counts)


async def test_a_parked_session_leaves_nothing_in_its_worker_and_has_its_objects_again(
    runtime: dspex.Runtime, tmp_path: Path
) -> None:
    s = await runtime.session()
    file = tmp_path / "closed"
    await s.handle(OBJECTS + "Closing", str(file))
    counter = await s.handle(Counter, restore="state")
    await counter.call("add")
    await s.park()
    assert file.read_text() == "closed\n"
    assert sum(worker.sessions for worker in runtime.pools()["general"].workers) == 0
    assert await counter.call("add") == 2
    await s.end()
    assert sum(worker.sessions for worker in runtime.pools()["general"].workers) == 0


async def test_a_session_with_an_object_that_cannot_come_back_is_not_parked_for_idleness(
    tmp_path: Path,
) -> None:
    settings = SessionSettings(store=tmp_path / "s.sqlite3", park_after=0.01)
    async with dspex.Runtime(LM, pools=SPEC, sessions=settings) as runtime:
        kept, parked = await runtime.session(), await runtime.session()
        counter = await kept.handle(Counter, restore="none")
        await parked.handle(Counter)
        keeper = runtime._sessions.keeper  # type: ignore[union-attr]
        assert keeper is not None
        await until(lambda: list(keeper._active) == [kept.id])
        assert await counter.call("add") == 1


# --- the host dies ---------------------------------------------------------------------------------------

HOST = """
import asyncio, sys
import dspex
from dspex.pool import PoolSpec

async def main(path, session_id):
    lm = dspex.LM("openai/test", api_base="http://127.0.0.1:1/v1", api_key="none")
    spec = PoolSpec(workers=1, classes=("tests.support",))
    async with dspex.Runtime(lm, pools=spec, sessions=path) as runtime:
        s = await runtime.session(id=session_id, create=True)
        counter = await s.handle("tests.support.objects:Counter", restore="state")
        while True:
            s.state["n"] = await counter.call("add")
            await s.commit()
            print(s.state["n"], flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_host_had_acknowledged_is_there_when_it_was_killed_and_another_takes_over_at_once(
    runtime: dspex.Runtime, tmp_path: Path
) -> None:
    said = 0
    for number in range(3):
        command = [sys.executable, "-c", HOST, str(tmp_path / "s.sqlite3"), "s1"]
        host = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
        )
        assert host.stdout is not None
        for _ in range(20 + number):
            line = await asyncio.wait_for(asyncio.to_thread(host.stdout.readline), 60)
            said = int(line)
        host.send_signal(signal.SIGKILL)
        for line in host.stdout:  # what it had said before it died
            said = int(line)
        host.stdout.close()
        host.wait(60)
        s = await runtime.session(id="s1")
        value = await s.handles["Counter"].get("value")
        assert said <= s.state["n"] <= value <= said + 2
        async with SQLiteAt(tmp_path) as store:
            info = await store.session("s1")
            assert info is not None
            assert info.owner is not None
        s.state["n"] = value
        await s.commit()
        await s.park()


class SQLiteAt:
    def __init__(self, directory: Path) -> None:
        self.store = SQLite(directory / "s.sqlite3")

    async def __aenter__(self) -> SQLite:
        return self.store

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()
