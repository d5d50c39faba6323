"""Worker pools beside their peers, in one run: `python benches/bench_pool.py [quick] [no_op|waits|starting]`.

Absolute figures wander between machines and runs; what counts is the column of ratios. Every peer's answer
is checked before it is timed. A peer that is not installed is left out.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil

from dspex import _core
from dspex.pool import Pool, PoolSpec, State
from dspex.testing import ModelServer

PAYLOAD = {"text": "x" * 180}
KILOBYTE = {"text": "x" * 1000}
QUICK = "quick" in sys.argv
ROUNDS = 3


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


# --- the bare peer: an asyncio Protocol in a child, frames of a length and the bytes ---

BARE = """
import asyncio, socket, sys
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
    def connection_lost(self, exc): asyncio.get_running_loop().stop()
async def main():
    await asyncio.get_running_loop().create_connection(Echo, sock=socket.socket(fileno=int(sys.argv[1])))
    await asyncio.Event().wait()
try: asyncio.run(main())
except RuntimeError: pass
"""


class BareEcho(asyncio.Protocol):
    """The least an asyncio client can do: a length, the bytes, one future at a time or in order."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[bytes]] = []
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        at, answered = 0, 0
        while len(data) - at >= 4:
            length = int.from_bytes(data[at : at + 4], "big")
            if len(data) - at - 4 < length:
                break
            self.waiting[answered].set_result(data[at + 4 : at + 4 + length])
            answered += 1
            at += 4 + length
        del self.waiting[:answered]
        self.buffer = data[at:]

    async def call(self, body: bytes) -> bytes:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.transport.write(len(body).to_bytes(4, "big") + body)
        return bytes(await future)


async def open_bare() -> tuple[BareEcho, subprocess.Popen[bytes]]:
    mine, theirs = socket.socketpair()
    child = subprocess.Popen([sys.executable, "-c", BARE, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    mine.setblocking(False)
    _, client = await asyncio.get_running_loop().create_connection(BareEcho, sock=mine)
    return client, child


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
    count = 1000 if QUICK else 3000
    each = 50 if QUICK else 200
    rtt: dict[str, list[float]] = {}
    rate: dict[str, list[float]] = {}
    body = b"x" * 190
    bare, child = await open_bare()
    async with Pool(PoolSpec(workers=1, max_inflight=500)) as pool:
        with (
            ProcessPoolExecutor(1) as executor,
            multiprocessing.get_context("spawn").Pool(1) as mp_pool,
        ):
            assert await bare.call(body) == body
            assert await pool.call("echo", PAYLOAD) == PAYLOAD
            assert executor.submit(echo, PAYLOAD).result() == PAYLOAD
            assert mp_pool.apply(echo, (PAYLOAD,)) == PAYLOAD
            others = optional_executors()
            for _ in range(ROUNDS):  # interleaved, so that a slow moment of the machine hits all alike
                note(rtt, "bare asyncio protocol", await latency(lambda: bare.call(body), count))
                note(rtt, "dspex pool", await latency(lambda: pool.call("echo", PAYLOAD), count))
                note(rtt, "mp.Pool", latency_sync(lambda: mp_pool.apply(echo, (PAYLOAD,)), count))
                note(
                    rtt,
                    "ProcessPoolExecutor",
                    latency_sync(lambda: executor.submit(echo, PAYLOAD).result(), count),
                )
                for name, other in others.items():
                    submit = submitter(other)
                    note(rtt, name, latency_sync(lambda submit=submit: submit(echo, PAYLOAD).result(), count))
                calls = 100 * each
                note(
                    rate,
                    "bare asyncio protocol",
                    await throughput(lambda: bare.call(body), clients=100, each=each),
                )
                note(
                    rate,
                    "dspex pool",
                    await throughput(lambda: pool.call("echo", PAYLOAD), clients=100, each=each),
                )
                started = time.perf_counter()
                for pending in [mp_pool.apply_async(echo, (PAYLOAD,)) for _ in range(calls)]:
                    pending.get()
                note(rate, "mp.Pool", calls / (time.perf_counter() - started))
                for name, other in {"ProcessPoolExecutor": executor, **others}.items():
                    submit = submitter(other)
                    started = time.perf_counter()
                    for future in [submit(echo, PAYLOAD) for _ in range(calls)]:
                        future.result()
                    note(rate, name, calls / (time.perf_counter() - started))
            for other in others.values():
                close(other)
    child.kill()
    child.wait()
    report(
        "no-op, 200 bytes: round trip, median", "us", medians(rtt), ours="dspex pool", more_is_better=False
    )
    report(
        "no-op, 200 bytes: pipelined, 1 worker",
        "calls/s",
        medians(rate),
        ours="dspex pool",
        more_is_better=True,
    )


def note(table: dict[str, list[float]], name: str, value: float) -> None:
    table.setdefault(name, []).append(value)


def medians(table: dict[str, list[float]]) -> list[Row]:
    return [Row(name, statistics.median(values)) for name, values in table.items()]


def optional_executors() -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        from loky import ProcessPoolExecutor as Loky

        found["loky"] = Loky(1)
    except ImportError:
        pass
    try:
        from pebble import ProcessPool

        found["pebble"] = ProcessPool(1)
    except ImportError:
        pass
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


async def waits() -> None:
    rows = []
    with ProcessPoolExecutor(2) as executor:
        list(executor.map(echo, range(4)))
        started = time.perf_counter()
        list(executor.map(wait_50_ms, [KILOBYTE] * 100))
        rows.append(Row("ProcessPoolExecutor, 2 workers", 100 / (time.perf_counter() - started)))
    call = {"function": "bench_pool:wait_50_ms_async", "args": [KILOBYTE]}
    for inflight in (100, 500):
        async with Pool(PoolSpec(workers=2, max_inflight=inflight)) as pool:
            assert await pool.call("function", call) == KILOBYTE
            clients = inflight * 2
            rate = await throughput(
                lambda: pool.call("function", call), clients=clients, each=5 if QUICK else 20
            )
            rows.append(Row(f"dspex pool, 2 workers x {inflight} in flight", rate))
    report("50 ms waits, 1 kB", "calls/s", rows, ours=rows[1].name, more_is_better=True)


async def all_ready(pool: Pool, count: int) -> None:
    while [worker.state for worker in pool.status().workers] != [State.READY] * count:
        await asyncio.sleep(0.001)


async def starting() -> None:
    def pss(pids: list[int]) -> float:
        return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 2**20

    first, recovered, eight, memory = [], [], [], []
    ask = {"signature": "question -> answer", "inputs": {"question": "the sky's colour?"}}
    async with ModelServer("[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]") as server:
        lm = {"model": "openai/gpt-4o-mini", "api_base": server.api_base, "api_key": "none"}
        for start in ("spawn", "zygote"):
            started = time.perf_counter()
            async with Pool(PoolSpec(workers=1, start=start), lm=lm) as pool:
                await pool.call("predict", ask)
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
                    assert (await pool.call("predict", ask))["completions"] == [{"answer": "blue"}]
                    times.append((time.perf_counter() - started) * 1e3)
                recovered.append(Row(f"dspex pool, {start}", statistics.median(times)))
        for start in ("spawn", "zygote"):
            pool = Pool(PoolSpec(workers=8, start=start), lm=lm)
            started = time.perf_counter()
            await pool.start()
            await all_ready(pool, 8)
            eight.append(Row(f"dspex pool, {start}", (time.perf_counter() - started) * 1e3))
            await asyncio.gather(*(pool.call("predict", ask) for _ in range(80)))
            pids = [worker.pid for worker in pool.status().workers if worker.pid is not None]
            zygote = getattr(pool._crew._launcher, "pid", None)
            memory.append(Row(f"dspex pool, {start}", pss(pids + ([zygote] if zygote else []))))
            await pool.aclose()
        async with Pool(PoolSpec(workers=1), lm=lm) as pool:
            started = time.perf_counter()
            pool.resize(9)
            await all_ready(pool, 9)
            eight.append(Row("dspex pool, 8 more, zygote up", (time.perf_counter() - started) * 1e3))
    ours = "dspex pool, zygote"
    report("from nothing to the first DSPy answer", "ms", first, ours=ours, more_is_better=False)
    report("SIGKILL to the next DSPy answer, 1 worker", "ms", recovered, ours=ours, more_is_better=False)
    report("8 workers ready", "ms", eight, ours=ours, more_is_better=False)
    report(
        "8 workers after 80 DSPy calls, summed PSS, zygote included",
        "MiB",
        memory,
        ours=ours,
        more_is_better=False,
    )


async def main() -> None:
    if _core._debug_build:
        sys.exit("build dspex in release mode before measuring anything")
    sections = {section.__name__: section for section in (no_op, waits, starting)}
    for name in [name for name in sections if name in sys.argv] or sections:
        await sections[name]()


if __name__ == "__main__":
    asyncio.run(main())
