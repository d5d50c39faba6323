"""Worker pools beside their peers, in one run: `python benches/bench_pool.py [quick] [no_op|waits|starting]`.

Absolute figures wander between machines and runs; what counts is the column of ratios. Every peer's answer
is checked before it is timed. A peer that is not installed is left out, and named at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack
import psutil

from dspex import _core
from dspex.pool import EchoRequest, FunctionRequest, Pool, PoolSpec, PredictRequest, State, SyncPool
from dspex.testing import ModelServer

PAYLOAD = {"text": "x" * 180}
KILOBYTE = {"text": "x" * 1000}
QUICK = "quick" in sys.argv
CORES = os.sched_getaffinity(0)
ROUNDS = 3
ECHO = EchoRequest(PAYLOAD)


def echo(value: Any) -> Any:
    return value


def wait_50_ms(value: Any) -> Any:
    time.sleep(0.05)
    return value


async def wait_50_ms_async(value: Any) -> Any:
    await asyncio.sleep(0.05)
    return value


def predict(_: Any) -> str:
    """A DSPy call in a fresh process, on a model that is not there."""
    import dspy
    from dspy.utils.dummies import DummyLM

    with dspy.context(lm=DummyLM([{"answer": "blue"}])):
        return str(dspy.Predict("question -> answer")(question="colour?").answer)


@dataclass
class Row:
    name: str
    value: float


def report(title: str, unit: str, rows: list[Row], *, ours: str, more_is_better: bool) -> None:
    mine = next(row.value for row in rows if row.name == ours)
    print(f"\n{title}")
    for row in rows:
        ratio = mine / row.value if more_is_better else row.value / mine
        print(f"  {row.name:34} {row.value:12,.1f} {unit:8} ours is {ratio:7.2f}x")


# --- the bare peers: an asyncio Protocol here and in a child ---

BARE = """
import asyncio, msgpack, socket, sys
class Bytes(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
    def connection_lost(self, exc): asyncio.get_running_loop().stop()
class Values(Bytes):
    buffer = b""
    def data_received(self, data):
        data, at, out = self.buffer + data, 0, []
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if len(data) < end:
                break
            number, value = msgpack.unpackb(data[at + 4 : end])
            body = msgpack.packb([number, value])
            out.append(len(body).to_bytes(4, "big") + body)
            at = end
        self.buffer = data[at:]
        self.transport.write(b"".join(out))
async def main():
    kind = {"bytes": Bytes, "values": Values}[sys.argv[1]]
    await asyncio.get_running_loop().create_connection(kind, sock=socket.socket(fileno=int(sys.argv[2])))
    await asyncio.Event().wait()
try: asyncio.run(main())
except RuntimeError: pass
"""


class BareBytes(asyncio.Protocol):
    """The least an asyncio client can do: a length and the bytes, answered in order, echoed unread."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Any]] = []
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        at, answered = 0, 0
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if len(data) < end:
                break
            self.waiting[answered].set_result(data[at + 4 : end])
            answered += 1
            at = end
        del self.waiting[:answered]
        self.buffer = data[at:]

    async def call(self, body: bytes) -> bytes:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.transport.write(len(body).to_bytes(4, "big") + body)
        return bytes(await future)


class BareValues(BareBytes):
    """The same with what a call needs at the least: values as MessagePack, and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[int, asyncio.Future[Any]] = {}
        self.numbers = itertools.count()

    def data_received(self, data: bytes) -> None:
        data, at = self.buffer + data, 0
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if len(data) < end:
                break
            number, value = msgpack.unpackb(data[at + 4 : end])
            self.calls.pop(number).set_result(value)
            at = end
        self.buffer = data[at:]

    async def call(self, value: Any) -> Any:
        number = next(self.numbers)
        future = self.calls[number] = asyncio.get_running_loop().create_future()
        body = msgpack.packb([number, value])
        self.transport.write(len(body).to_bytes(4, "big") + body)
        return await future


async def open_bare(kind: type[BareBytes]) -> tuple[Any, subprocess.Popen[bytes]]:
    mine, theirs = socket.socketpair()
    name = "values" if kind is BareValues else "bytes"
    child = subprocess.Popen(
        [sys.executable, "-c", BARE, name, str(theirs.fileno())], pass_fds=[theirs.fileno()]
    )
    theirs.close()
    mine.setblocking(False)
    _, client = await asyncio.get_running_loop().create_connection(kind, sock=mine)
    return client, child


# --- peers that may not be here ---

MISSING: set[str] = set()


def optional_executors() -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        from loky import ProcessPoolExecutor as Loky

        found["loky"] = Loky(1)
    except ImportError:
        MISSING.add("loky")
    try:
        from pebble import ProcessPool

        found["pebble"] = ProcessPool(1)
    except ImportError:
        MISSING.add("pebble")
    for executor in found.values():
        assert submitter(executor)(echo, PAYLOAD).result() == PAYLOAD
    return found


def submitter(executor: Any) -> Callable[..., Any]:
    if type(executor).__module__.startswith("pebble"):
        return lambda function, *args: executor.schedule(function, args=args)
    return executor.submit  # type: ignore[no-any-return]


def close(executor: Any) -> None:
    if hasattr(executor, "shutdown"):
        executor.shutdown()
    else:
        executor.close()
        executor.join()


@contextlib.contextmanager
def ray_cluster() -> Iterator[Any]:
    """Ray on this machine alone, or None if it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    try:
        import ray
    except ImportError:
        MISSING.add("ray")
        yield None
        return
    ray.init(
        num_cpus=4,  # of its own reckoning: its actors need a place each
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def ray_actors(ray: Any) -> tuple[Any, Any]:
    """Classes of a sync and of an async actor."""

    @ray.remote
    class Sync:
        def echo(self, value: Any) -> Any:
            return value

        def wait_50_ms(self, value: Any) -> Any:
            time.sleep(0.05)
            return value

    @ray.remote
    class Async:
        async def echo(self, value: Any) -> Any:
            return value

        async def wait_50_ms(self, value: Any) -> Any:
            await asyncio.sleep(0.05)
            return value

    return Sync, Async


# --- what is measured ---


async def latency(call: Callable[[], Awaitable[Any]], count: int) -> float:
    """Median microseconds of one call after another."""
    for _ in range(50):
        await call()
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def latency_sync(call: Callable[[], Any], count: int) -> float:
    for _ in range(50):
        call()
    times = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def pin(pids: dict[int, int]) -> None:
    """Keep the main thread of each process on one core; a core below 0 frees it again."""
    for pid, core in pids.items():
        os.sched_setaffinity(pid, {core} if core >= 0 else CORES)


async def throughput(call: Callable[[], Awaitable[Any]], *, clients: int, each: int) -> float:
    """Calls per second with `clients` at once."""

    async def client() -> None:
        for _ in range(each):
            await call()

    await asyncio.gather(*(client() for _ in range(clients)))
    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return clients * each / (time.perf_counter() - started)


async def no_op() -> None:
    count = 1000 if QUICK else 2000
    each = 50 if QUICK else 100
    rtt: dict[str, list[float]] = {}
    rate: dict[str, list[float]] = {}
    body = b"x" * 190
    (raw, raw_child), (bare, bare_child) = await open_bare(BareBytes), await open_bare(BareValues)
    with contextlib.ExitStack() as stack:
        pool = Pool(PoolSpec(workers=1, max_inflight=500))
        await pool.start()
        twin = SyncPool(PoolSpec(workers=1, max_inflight=500))
        # On a thread of its own, as all that is sync: on this one, where a loop runs, it refuses.
        await asyncio.to_thread(twin.start)
        executors = {
            "ProcessPoolExecutor": stack.enter_context(ProcessPoolExecutor(1)),
            **optional_executors(),
        }
        mp_pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(1))
        ray = stack.enter_context(ray_cluster())
        actor = ray_actors(ray)[0].remote() if ray else None
        assert await raw.call(body) == body
        assert await bare.call(PAYLOAD) == PAYLOAD
        assert await pool.call(ECHO) == PAYLOAD
        assert await asyncio.to_thread(twin.call, ECHO) == PAYLOAD
        assert mp_pool.apply(echo, (PAYLOAD,)) == PAYLOAD
        assert actor is None or ray.get(actor.echo.remote(PAYLOAD)) == PAYLOAD
        calls = 100 * each
        (worker,) = pool.status().workers
        assert worker.pid is not None
        async_peers: dict[str, tuple[int, Callable[[], Awaitable[Any]]]] = {
            "bare asyncio, ids and msgpack": (bare_child.pid, lambda: bare.call(PAYLOAD)),
            "dspex pool": (worker.pid, lambda: pool.call(ECHO)),
            "bare asyncio, bytes unread": (raw_child.pid, lambda: raw.call(body)),
        }
        pinned: dict[str, dict[str, list[float]]] = {}

        def timed(name: str, ask: Callable[[], Any]) -> None:
            started = time.perf_counter()
            ask()
            note(rate, name, calls / (time.perf_counter() - started))

        for _ in range(ROUNDS):  # interleaved, so that a slow moment of the machine hits all alike
            # A scheduler puts both ends on one core or on two, as it likes, and the one is twice the other.
            for where, theirs in {"on one core": min(CORES), "across cores": max(CORES)}.items():
                for name, (pid, call) in async_peers.items():
                    pin({os.getpid(): min(CORES), pid: theirs})
                    note(pinned.setdefault(where, {}), name, await latency(call, count))
                    pin({os.getpid(): -1, pid: -1})
            for name, (_, call) in async_peers.items():
                note(rtt, name, await latency(call, count))
            from_sync = partial(latency_sync, partial(twin.call, ECHO), count)
            note(rtt, "dspex pool, from sync code", await asyncio.to_thread(from_sync))
            note(rtt, "mp.Pool", latency_sync(lambda: mp_pool.apply(echo, (PAYLOAD,)), count))
            for name, other in executors.items():
                submit = submitter(other)
                note(rtt, name, latency_sync(lambda submit=submit: submit(echo, PAYLOAD).result(), count))
            if actor is not None:
                ask = lambda: ray.get(actor.echo.remote(PAYLOAD))  # noqa: E731
                note(rtt, "Ray actor", latency_sync(ask, count // 4))

            for name, (_, call) in async_peers.items():
                note(rate, name, await throughput(call, clients=100, each=each))
            timed("mp.Pool", lambda: list(mp_pool.imap(echo, [PAYLOAD] * calls)))
            for name, other in executors.items():
                submit = submitter(other)
                timed(
                    name,
                    lambda submit=submit: [f.result() for f in [submit(echo, PAYLOAD) for _ in range(calls)]],
                )
            if actor is not None:
                timed("Ray actor", lambda: ray.get([actor.echo.remote(PAYLOAD) for _ in range(calls)]))
        for name, other in executors.items():
            if name != "ProcessPoolExecutor":
                close(other)
        await asyncio.to_thread(twin.close)
        await pool.aclose()
    for child in (raw_child, bare_child):
        child.kill()
        child.wait()
    ours = "dspex pool"
    for where, table in pinned.items():
        title = f"no-op, 200-byte dict: round trip, median, {where}"
        report(title, "us", medians(table), ours=ours, more_is_better=False)
    report(
        "no-op, 200-byte dict: round trip, median, as it comes",
        "us",
        medians(rtt),
        ours=ours,
        more_is_better=False,
    )
    report(
        "no-op, 200-byte dict: pipelined, 1 worker", "calls/s", medians(rate), ours=ours, more_is_better=True
    )


def note(table: dict[str, list[float]], name: str, value: float) -> None:
    table.setdefault(name, []).append(value)


def medians(table: dict[str, list[float]]) -> list[Row]:
    return [Row(name, statistics.median(values)) for name, values in table.items()]


async def waits() -> None:
    tables: dict[int, dict[str, list[float]]] = {100: {}, 500: {}}
    call = FunctionRequest.of("bench_pool:wait_50_ms_async", KILOBYTE)
    each = 5 if QUICK else 20
    with ray_cluster() as ray:
        for inflight, rates in tables.items():
            async with Pool(PoolSpec(workers=2, max_inflight=inflight)) as pool:
                assert await pool.call(call) == KILOBYTE
                await all_ready(pool, 2)
                for _ in range(ROUNDS):
                    rate = await throughput(lambda: pool.call(call), clients=inflight * 2, each=each)
                    note(rates, "dspex pool, 2 workers", rate)
            if ray:
                await ray_waits(ray, inflight, each, rates)
    with ProcessPoolExecutor(2) as executor:  # one call at a time in each, whatever is asked for
        list(executor.map(echo, range(4)))
        started = time.perf_counter()
        list(executor.map(wait_50_ms, [KILOBYTE] * 100))
        for rates in tables.values():
            note(rates, "ProcessPoolExecutor, 2 workers", 100 / (time.perf_counter() - started))
    for inflight, rates in tables.items():
        title = f"50 ms waits, 1 kB, {inflight} in flight per worker"
        report(title, "calls/s", medians(rates), ours="dspex pool, 2 workers", more_is_better=True)


async def ray_waits(ray: Any, inflight: int, each: int, rates: dict[str, list[float]]) -> None:
    sync_actor, async_actor = ray_actors(ray)
    actors = [async_actor.options(max_concurrency=inflight).remote() for _ in range(2)]
    turns = itertools.cycle(actors)
    assert await actors[0].wait_50_ms.remote(KILOBYTE) == KILOBYTE

    async def ask() -> Any:
        return await next(turns).wait_50_ms.remote(KILOBYTE)

    for _ in range(ROUNDS):
        rate = await throughput(ask, clients=inflight * 2, each=max(2, each // 5))
        note(rates, "Ray, 2 async actors", rate)
    for actor in actors:
        ray.kill(actor)
    if inflight == 100:
        actors = [sync_actor.remote() for _ in range(2)]
        ray.get([actor.echo.remote(1) for actor in actors])
        started = time.perf_counter()
        ray.get([actors[turn % 2].wait_50_ms.remote(KILOBYTE) for turn in range(100)])
        note(rates, "Ray, 2 sync actors", 100 / (time.perf_counter() - started))
        for actor in actors:
            ray.kill(actor)


async def all_ready(pool: Pool, count: int) -> None:
    while [worker.state for worker in pool.status().workers] != [State.READY] * count:
        await asyncio.sleep(0.001)


async def starting() -> None:
    def pss(pids: list[int]) -> float:
        return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 2**20

    first, recovered, eight, memory, with_forkserver = [], [], [], [], []
    ask = PredictRequest.of("question -> answer", {"question": "the sky's colour?"})
    async with ModelServer("[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]") as server:
        lm = {"model": "openai/gpt-4o-mini", "api_base": server.api_base, "api_key": "none"}
        for start in ("spawn", "forkserver"):
            started = time.perf_counter()
            async with Pool(PoolSpec(workers=1, start=start), lm=lm) as pool:
                await pool.call(ask)
                first.append(Row(f"dspex pool, {start}", (time.perf_counter() - started) * 1e3))
                times = []
                for _ in range(5):
                    (worker,) = pool.status().workers
                    assert worker.pid is not None
                    started = time.perf_counter()
                    os.kill(worker.pid, signal.SIGKILL)
                    while pool.status().workers[:1] == () or pool.status().workers[0].pid in (
                        worker.pid,
                        None,
                    ):
                        await asyncio.sleep(0)
                    assert (await pool.call(ask))["completions"] == [{"answer": "blue"}]
                    times.append((time.perf_counter() - started) * 1e3)
                recovered.append(Row(f"dspex pool, {start}", statistics.median(times)))
        for start in ("spawn", "forkserver"):
            pool = Pool(PoolSpec(workers=8, start=start), lm=lm)
            started = time.perf_counter()
            await pool.start()
            await all_ready(pool, 8)
            eight.append(Row(f"dspex pool, {start}", (time.perf_counter() - started) * 1e3))
            # One real call each: the worker with the fewest calls gets the next.
            await asyncio.gather(*(pool.call(ask) for _ in range(8)))
            assert [worker.served for worker in pool.status().workers] == [1] * 8
            pids = [worker.pid for worker in pool.status().workers if worker.pid is not None]
            started_here = psutil.Process().children()
            forkservers = [child.pid for child in started_here if "forkserver" in child.cmdline()]
            memory.append(Row(f"dspex pool, {start}", pss(pids)))
            with_forkserver.append(Row(f"dspex pool, {start}", pss(pids + forkservers)))
            await pool.aclose()
        async with Pool(PoolSpec(workers=1), lm=lm) as pool:
            started = time.perf_counter()
            pool.resize(9)
            await all_ready(pool, 9)
            eight.append(Row("dspex pool, 8 more, forkserver up", (time.perf_counter() - started) * 1e3))
    ours = "dspex pool, forkserver"
    report("from nothing to the first DSPy answer", "ms", first, ours=ours, more_is_better=False)
    report("SIGKILL to the next DSPy answer, 1 worker", "ms", recovered, ours=ours, more_is_better=False)
    report("8 workers ready", "ms", eight, ours=ours, more_is_better=False)
    title = "8 workers after a DSPy call each, summed PSS"
    report(title, "MiB", memory, ours=ours, more_is_better=False)
    report(f"{title}, forkserver included", "MiB", with_forkserver, ours=ours, more_is_better=False)


async def main() -> None:
    if _core._debug_build:
        sys.exit("build dspex in release mode before measuring anything")
    sections = {section.__name__: section for section in (no_op, waits, starting)}
    for name in [name for name in sections if name in sys.argv] or sections:
        await sections[name]()
    if MISSING:
        print(f"\nnot installed, so not compared: {', '.join(sorted(MISSING))}")


if __name__ == "__main__":
    asyncio.run(main())
