"""Values of all sizes through workers: `make soak-wire`, or `python -m tests.load.wire_soak [calls]`.

Calls of 10 bytes to 32 MiB go both ways, as arguments and results, by streams and host functions, and as
shared values that come and go. Some are cancelled at a random moment, and workers are killed as they run.
Each answer is compared with what was sent. After each sixth nothing of it may be left: no shared memory and
no task, and after the second no more memory and descriptors. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
from tests.support.memory import segments_of
from tests.support.processes import until

from dspex import errors, wire
from dspex.pool import FunctionRequest, Pool, PoolSpec, Restart, State

MIB: Final = 2**20
ROUNDS: Final = 6
AT_ONCE: Final = 32
CALLS_PER_KILL: Final = 1500
CANCELLED: Final = 0.03
SHARED: Final = 8
"""Shared values that are there at any time."""

SLACK: Final = 32 * MIB
"""Bytes by which the memory of a process may differ: the allocator keeps what one large value has left."""

GIVE: Final = "tests.support.work:give"
WORK: Final = "tests.support.wire_work:"

FLOATS: Final = np.random.default_rng(7).standard_normal(5 * MIB)
BYTES: Final = FLOATS.tobytes()
LIST: Final = FLOATS[: MIB // 4].tolist()


def size_of(chance: random.Random) -> int:
    """10 bytes to 32 MiB, most of them small."""
    most = chance.choices([1_000, 100_000, 2 * MIB, 32 * MIB], [880, 90, 26, 4])[0]
    return int(10 * (most / 10) ** chance.random())


def value_of(chance: random.Random) -> Any:
    size = size_of(chance)
    kind = chance.choice(["bytes", "text", "array", "table", "list", "rows", "nested"])
    at = chance.randrange(MIB // 8)
    array = FLOATS[at : at + size // 8 + 1]
    if kind == "bytes":
        return BYTES[at : at + size]
    if kind == "text":
        return chance.choice("aé") * size
    if kind == "array":
        return array
    if kind == "table":
        return pa.table({"v": pa.array(array), "n": pa.array(np.arange(len(array)))})
    if kind == "list":
        return LIST[at : at + min(size, 2 * MIB) // 9 + 1]
    if kind == "rows":
        return [{"id": n, "score": n / 7, "text": f"row {n}"} for n in range(min(size, MIB) // 40)]
    return {"settings": {"k": chance.randrange(9)}, "arrays": [array, array[::2]], "raw": BYTES[:at]}


def equal(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and np.array_equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and a and not isinstance(a[0], float | dict):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


class Reading(NamedTuple):
    service: int
    worker: int  # the largest of them
    shared: int  # in the whole system, so that others of this machine are in it
    descriptors: int
    tasks: int

    @classmethod
    def take(cls, pool: Pool) -> Reading:
        pids = [worker.pid for worker in pool.status().workers if worker.pid]
        return cls(
            own_memory(os.getpid()),
            max(map(own_memory, pids)),
            psutil.virtual_memory().shared,
            psutil.Process().num_fds(),
            len(asyncio.all_tasks()),
        )

    def __str__(self) -> str:
        return (
            f"service {self.service / MIB:6.1f} MiB, largest worker {self.worker / MIB:6.1f}, "
            f"shared {self.shared / MIB:6.1f}, {self.descriptors} descriptors, {self.tasks} tasks"
        )


def own_memory(pid: int) -> int:
    memory = psutil.Process(pid).memory_info()
    return int(memory.rss - memory.shared)


class Soak:
    def __init__(self, pool: Pool, calls: int) -> None:
        self.pool = pool
        self.chance = random.Random(11)
        self.calls = calls
        self.begun = 0
        self.kills = 0
        self.outcomes: Counter[str] = Counter()
        self.shared: list[tuple[wire.Shared, Any]] = []

    async def ways(self, way: str, value: Any) -> Any:
        """The value, there and back."""
        if way == "call":
            return await self.pool.run(GIVE, value)
        if way == "result":
            count, first = len(value) // 8 + 1 if isinstance(value, bytes) else 100, self.chance.randrange(99)
            array = await self.pool.call(FunctionRequest.of(WORK + "array", count, first))
            return value if np.array_equal(array, np.arange(first, first + count, dtype="f8")) else array
        if way == "stream":
            back = self.pool.stream(
                FunctionRequest.of(WORK + "back"), input_streams={"parts": [value, 1, value]}
            )
            async with contextlib.aclosing(back) as parts:
                first, one, again = [part async for part in parts]
            return first if one == 1 and equal(first, again) else (first, one, again)
        if way == "host":

            async def host(given: Any) -> Any:
                return given

            return await self.pool.call(
                FunctionRequest.of(WORK + "ask", "host", value), host_functions={"host": host}
            )
        shared, _ = value
        if way == "shared by host":

            async def answer(_: Any) -> Any:
                return shared

            return await self.pool.call(
                FunctionRequest.of(WORK + "ask", "host", None), host_functions={"host": answer}
            )
        return await self.pool.run(GIVE, shared)

    async def one(self) -> str:
        chance = self.chance
        ways = ["call", "result", "stream", "host", "shared", "shared by host"]
        way = chance.choices(ways, [60, 10, 5, 10, 12, 3])[0]
        if way.startswith("shared"):
            value = chance.choice(self.shared)
            expected = value[1]
        else:
            value = expected = value_of(chance)
        call = asyncio.ensure_future(self.ways(way, value))
        del value
        if chance.random() < CANCELLED:
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.choice([0, chance.random() * 0.005]))
            call.cancel()
        try:
            answer = await call
        except asyncio.CancelledError:
            return "cancelled"
        except errors.WorkerDiedError as err:
            return "worker died" if "SIGKILL" in err.message else f"WRONG: {err}"
        except errors.DspexError as err:
            return f"WRONG: {way}: {type(err).__name__}: {err.message[:200]}"
        return f"right, by {way}" if equal(answer, expected) else f"WRONG: {way} answered something else"

    async def client(self, until_call: int) -> None:
        while self.begun < until_call:
            self.begun += 1
            if self.begun % 50 == 0:
                self.shared[self.chance.randrange(SHARED)] = self.share()
            if self.begun % CALLS_PER_KILL == 0:
                self.kill()
            self.outcomes[await self.one()] += 1

    def share(self) -> tuple[wire.Shared, Any]:
        value = value_of(self.chance)
        return wire.share(value), value

    def kill(self) -> None:
        ready = [worker.pid for worker in self.pool.status().workers if worker.state is State.READY]
        if ready:
            os.kill(self.chance.choice(ready) or 0, signal.SIGKILL)
            self.kills += 1

    async def rounds(self) -> list[Reading]:
        readings = []
        for number in range(1, ROUNDS + 1):
            began = time.monotonic()
            self.shared = [self.share() for _ in range(SHARED)]
            end = self.calls * number // ROUNDS
            await asyncio.gather(*(self.client(end) for _ in range(AT_ONCE)))
            self.shared.clear()
            seconds = time.monotonic() - began
            gc.collect()
            with contextlib.suppress(TimeoutError):
                await until(lambda: not list(self.leftovers()), seconds=60)
            for left in self.leftovers():
                self.outcomes[f"WRONG: {left}"] += 1
            ctypes.CDLL(None).malloc_trim(0)  # what glibc keeps of large lists varies, and is nobody's
            readings.append(Reading.take(self.pool))
            print(f"{end:8} calls in {seconds:5.1f} s   {readings[-1]}", flush=True)
        return readings

    def leftovers(self) -> Iterator[str]:
        status = self.pool.status()
        if any(worker.state is not State.READY or worker.inflight for worker in status.workers):
            yield "a worker is not ready, or has calls"
            return
        for who, pid in (
            ("the service", os.getpid()),
            *(("a worker", worker.pid) for worker in status.workers),
        ):
            if count := len(segments_of(pid or 0)):
                yield f"{who} has {count} segments"


async def main(calls: int) -> int:
    spec = PoolSpec(name="wire-soak", workers=2, max_inflight=AT_ONCE, restart=Restart(max=1_000_000))
    unhandled: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: unhandled.append(str(said)))
    async with Pool(spec) as pool:
        soak = Soak(pool, calls)
        readings = await soak.rounds()
    outcomes = Counter({what: count for what, count in soak.outcomes.items() if count})
    for what, count in sorted(outcomes.items()):
        print(f"  {count:8}  {what}")
    print(f"  {soak.kills:8}  kills")
    first, last = readings[1], readings[-1]
    grown = [(after - before) / MIB for before, after in zip(first[:3], last[:3], strict=True)]
    print(
        f"from the second sixth to the last: service {grown[0]:+.1f} MiB, largest worker {grown[1]:+.1f}, "
        f"shared {grown[2]:+.1f}, descriptors {last.descriptors - first.descriptors:+}, "
        f"tasks {last.tasks - first.tasks:+}"
    )
    for what in unhandled:
        print(f"nobody handled: {what}")
    broken = bool(unhandled) or any(what.startswith("WRONG") for what in outcomes)
    broken = broken or max(grown[:2]) * MIB > SLACK
    return 1 if broken or last.descriptors > first.descriptors or last.tasks > first.tasks else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int((sys.argv[1:] or ["100000"])[0]))))
