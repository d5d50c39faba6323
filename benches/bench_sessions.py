"""Sessions beside their peers, in one run: `python benches/bench_sessions.py`.

OpenAI Agents' sessions and LangGraph's savers, whichever are installed; a Redis server is started where there
is one. What each has kept is compared before anything is timed; rounds take turns; files have the same
journal mode and `synchronous`. Figures are medians.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib.util
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import dspex
from dspex.pool import PoolSpec, Restart
from dspex.sessions import SessionSettings
from dspex.stores import Changes, NewSession, SessionStore, SQLite

PAYLOAD = "x" * 1_000
COMMITS = 1_000
ROUNDS = 5
CALLS = 1_000
IDLE = 10_000
KILLS = 20

Commit = Callable[[int], Awaitable[Any]]

LM = dspex.LM("openai/bench", api_base="http://127.0.0.1:1/v1", api_key="none")
SPEC = PoolSpec(workers=1, classes=("collections",), restart=Restart(max=1_000))


def there(name: str) -> bool:
    """Whether a peer is installed."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(name) is not None
    return False


# -- a call ---------------------------------------------------------------------------------------------


async def calls(directory: Path) -> None:
    """A pool's call alone, in a session that has nothing to commit, and in one that has."""
    settings = SessionSettings(store=directory / "calls.sqlite3")
    async with dspex.Runtime(LM, pools=SPEC, sessions=settings) as runtime:
        s = await runtime.session(affinity="strict")
        counter = await s.handle("collections:Counter")
        pool = await runtime._sessions.pool_of("general")  # type: ignore[union-attr]

        async def plain() -> Any:
            return await pool.echo("x")

        async def in_session() -> Any:
            return await s.call(plain)

        async def changing() -> None:
            s.state["n"] = s.state.get("n", 0) + 1
            await pool.echo("x")

        async def committing() -> Any:
            return await s.call(changing)

        async def function() -> Any:
            return await pool.run(os.getpid)

        async def of_object() -> Any:
            return await counter.call("total")

        ways = {
            "a pool's no-op call": plain,
            "the same in a session": in_session,
            "the same, with a commit": committing,
            "a pool's call of a function": function,
            "a call of an object": of_object,
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                begun = time.perf_counter()
                for _ in range(CALLS):
                    await way()
                times[name].append((time.perf_counter() - begun) / CALLS * 1e6)
        print("a call, one caller")
        for name, each in times.items():
            print(f"  {name:32} {statistics.median(each):8.1f} us")


# -- a commit of 1 kB -----------------------------------------------------------------------------------


async def commits(title: str, ways: dict[str, Commit]) -> None:
    """Median and 99th percentile of a commit, in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    number = 0
    for _ in range(ROUNDS):
        for name, commit in ways.items():
            for _ in range(COMMITS // ROUNDS):
                number += 1
                begun = time.perf_counter()
                await commit(number)
                times[name].append((time.perf_counter() - begun) * 1e6)
    print(f"\na commit of 1 kB, {title}")
    base = statistics.median(next(iter(times.values())))
    for name, each in times.items():
        middle, high = statistics.median(each), sorted(each)[int(len(each) * 0.99)]
        print(f"  {name:32} p50 {middle:8.0f} us   p99 {high:8.0f} us   {middle / base:6.1f} x")


async def ours(store: SessionStore) -> dict[str, Commit]:
    """A value that is written again, and a turn that is appended."""
    value = dspex.wire.dumps(PAYLOAD)
    leases = [
        await store.create_session(NewSession(name), owner="bench", lease=3600.0)
        for name in ("state", "turns")
    ]

    async def state(number: int) -> None:
        await store.commit_session(leases[0], Changes({"state:x": value}), seconds=3600.0)

    async def turn(number: int) -> None:
        await store.commit_session(leases[1], Changes(turns=(value,)), seconds=3600.0)

    await state(0)
    await turn(0)
    assert (await store.session_entries("state"))["state:x"].value == value
    assert len(await store.session_turns("turns")) == 1
    return {"dspex, a value": state, "dspex, a turn": turn}


@contextlib.contextmanager
def synchronous(mode: str) -> Iterator[None]:
    """Every connection that is opened meanwhile has this mode."""
    connect = sqlite3.connect

    def with_mode(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {mode}")
        return connection

    sqlite3.connect = with_mode  # type: ignore[assignment]
    try:
        yield
    finally:
        sqlite3.connect = connect


async def openai(path: Path) -> dict[str, Commit]:
    """An item of OpenAI Agents' session."""
    from agents import SQLiteSession

    session = SQLiteSession("bench", str(path))
    item: Any = {"role": "user", "content": PAYLOAD}

    async def add(number: int) -> None:
        await session.add_items([item])

    await add(0)
    assert await session.get_items() == [item]
    return {"OpenAI Agents SQLiteSession": add}


def _checkpoint(number: int) -> Any:
    from langgraph.checkpoint.base import empty_checkpoint

    made = empty_checkpoint()
    made["channel_values"] = {"x": PAYLOAD}
    made["channel_versions"] = {"x": number}
    return made


CONFIG: Any = {"configurable": {"thread_id": "bench", "checkpoint_ns": ""}}


async def langgraph(path: Path, stack: contextlib.AsyncExitStack, mode: str) -> dict[str, Commit]:
    """A checkpoint of LangGraph's savers."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    db = sqlite3.connect(path, check_same_thread=False)
    stack.callback(db.close)
    saver = SqliteSaver(db)

    async def put(number: int) -> None:
        saver.put(CONFIG, _checkpoint(number), {}, {"x": number})

    ways: dict[str, Commit] = {"LangGraph SqliteSaver": put}
    if there("langgraph.checkpoint.sqlite.aio"):
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        awaited = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(path) + ".async"))
        await awaited.conn.execute(f"PRAGMA synchronous = {mode}")

        async def aput(number: int) -> None:
            await awaited.aput(CONFIG, _checkpoint(number), {}, {"x": number})

        ways["LangGraph AsyncSqliteSaver"] = aput
    for way in ways.values():
        await way(0)
    kept = saver.get_tuple(CONFIG)
    assert kept is not None
    assert kept.checkpoint["channel_values"] == {"x": PAYLOAD}
    return ways


async def sqlite(directory: Path, mode: Any) -> None:
    """All that write files."""
    store = SQLite(directory / f"{mode}.ours", synchronous=mode)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        ways = await ours(store)
        with synchronous(mode):
            if there("agents"):
                ways |= await openai(directory / f"{mode}.agents")
            if there("langgraph.checkpoint.sqlite"):
                ways |= await langgraph(directory / f"{mode}.langgraph", stack, mode)
            await commits(f"SQLite, WAL, synchronous={mode}", ways)


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A server without persistence, on a socket of its own."""
    path = directory / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([*command, "--dir", str(directory)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not path.exists():
            if time.monotonic() > deadline:
                raise SystemExit("redis-server did not start")
            time.sleep(0.01)
        yield f"unix://{path}"
    finally:
        server.terminate()
        server.wait(20)


async def redis(directory: Path) -> None:
    """All that write to Redis. LangGraph's saver for it needs modules that a plain server has not."""
    store_type = getattr(dspex.stores, "Redis", None)
    if store_type is None or shutil.which("redis-server") is None or not there("redis"):
        print("\nRedis: there is no server, or no client")
        return
    with redis_server(directory) as url:
        store = store_type(url)
        ways = await ours(store)
        if there("agents.extensions.memory.redis_session"):
            from agents.extensions.memory.redis_session import RedisSession

            session = RedisSession.from_url("bench", url=url)
            item: Any = {"role": "user", "content": PAYLOAD}

            async def add(number: int) -> None:
                await session.add_items([item])

            await add(0)
            assert await session.get_items() == [item]
            ways["OpenAI Agents RedisSession"] = add
        await commits("Redis, no persistence, a local socket", ways)
        await store.close()


# -- many sessions, and a dead worker -------------------------------------------------------------------


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def many(directory: Path) -> None:
    """What idle sessions take in the parent, and what is left of parked ones."""
    settings = SessionSettings(store=directory / "many.sqlite3", park_after=None)
    async with dspex.Runtime(LM, pools=SPEC, sessions=settings) as runtime:
        for _ in range(500):
            await (await runtime.session()).park()
        gc.collect()
        before = _resident()
        held = [await runtime.session() for _ in range(IDLE)]
        gc.collect()
        print(f"\n{IDLE:,} idle sessions: {_resident() - before:.1f} MiB in the parent")
        keeper = runtime._sessions.keeper  # type: ignore[union-attr]
        assert keeper is not None
        begun = time.perf_counter()
        await keeper.tend()
        print(f"their leases renewed: {(time.perf_counter() - begun) * 1e3:.0f} ms")
        for s in held:
            await s.park()
        del held, s
        gc.collect()
        middle = _resident()
        for _ in range(10):
            for _ in range(IDLE):
                await (await runtime.session()).park()
        gc.collect()
        print(f"{10 * IDLE:,} more, each made and parked: {_resident() - middle:.1f} MiB")


async def killed(directory: Path) -> None:
    """From the worker's death to the answer of the session's next call."""
    settings = SessionSettings(store=directory / "killed.sqlite3")
    async with dspex.Runtime(LM, pools=SPEC, sessions=settings) as runtime:
        s = await runtime.session(affinity="strict")
        pool = await runtime._sessions.pool_of("general")  # type: ignore[union-attr]
        times = []
        for _ in range(KILLS):
            place = s._place(s._core, pool)
            pid = await pool.run(os.getpid) if place.pid is None else place.pid
            os.kill(pid, signal.SIGKILL)
            begun = time.perf_counter()
            while any(worker.pid == pid for worker in runtime.pools()["general"].workers):
                await asyncio.sleep(0)

            call = functools.partial(pool.with_options(place=place).run, os.getpid)
            assert await s.call(call) != pid
            times.append((time.perf_counter() - begun) * 1e3)
        print(
            f"\na worker killed, its session's next call answered (one worker, no objects): median "
            f"{statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f}"
        )


async def main() -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        await calls(directory)
        for mode in ("normal", "full"):
            await sqlite(directory, mode)
        await redis(directory)
        await killed(directory)
        await many(directory)


if __name__ == "__main__":
    asyncio.run(main())
