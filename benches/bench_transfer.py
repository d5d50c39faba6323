"""A column of floats to a worker and a small answer, beside Ray and an executor, in one run.

`python benches/bench_transfer.py`: 1, 16 and 128 MB as an array of numpy, sent anew with each call, and
shared once (`dspex.wire.share`, an object of Ray's store). Each side sums a slice of what it got, so that
nothing is left out, and the sums are compared. Rounds take turns; figures are medians in milliseconds. Ray is
left out where it is not installed: `pip install --group peers`. At last what a call without large values
costs.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from dspex import wire
from dspex.pool import EchoRequest, FunctionRequest, Pool, PoolSpec
from dspex.protocol import channel

ROUNDS = 11
MEGABYTES = (1, 16, 128)
KIBIBYTES = (16, 32, 64, 128, 256, 512, 1024)

Once = Callable[[], Awaitable[float]]


def head(column: Any) -> float:
    """What a worker does with a column: next to nothing."""
    return float(column[:1000].sum()) + len(column)


def ray_actor() -> Any:
    """An actor of Ray on this machine alone, or None."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        return None
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=2 * 2**30,
        _node_ip_address="127.0.0.1",
    )

    @ray.remote
    class Actor:
        def head(self, column: Any) -> float:
            return float(column[:1000].sum()) + len(column)

    return Actor.remote()


async def measure(ways: dict[str, Once], expected: float) -> dict[str, float]:
    """The median milliseconds of each way; rounds take turns."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 2):
        for name, once in ways.items():
            begun = time.perf_counter()
            assert await once() == expected, name
            if turn > 1:
                took[name].append((time.perf_counter() - begun) * 1e3)
    return {name: statistics.median(times) for name, times in took.items()}


def ways_of(pool: Pool, executor: ProcessPoolExecutor, actor: Any, column: Any) -> dict[str, Once]:
    """Every way to send this column."""
    shared = wire.share(column)
    request = FunctionRequest("bench_transfer:head", (column,))
    by_name = FunctionRequest("bench_transfer:head", (shared,))
    loop = asyncio.get_running_loop()
    ways: dict[str, Once] = {
        "dspex": lambda: pool.call(request),
        "dspex, shared": lambda: pool.call(by_name),
        "executor": lambda: loop.run_in_executor(executor, head, column),
    }
    if actor is not None:
        import ray

        stored = ray.put(column)

        async def anew() -> float:
            return float(ray.get(actor.head.remote(ray.put(column))))

        async def again() -> float:
            return float(ray.get(actor.head.remote(stored)))

        ways |= {"Ray": anew, "Ray, shared": again}
    return ways


async def crossing() -> None:
    """From how many bytes shared memory costs less than the socket: what `FLOOR` is chosen by."""
    took: dict[int, list[float]] = {}
    for floor in (1 << 62, 1024):
        channel.FLOOR = floor  # type: ignore[misc]  # which a worker's channel reads when it starts
        async with Pool(PoolSpec(workers=1)) as pool:
            for kibibytes in KIBIBYTES:
                request = FunctionRequest("builtins:len", (bytes(kibibytes * 1024),))
                times = []
                for _ in range(200):
                    begun = time.perf_counter()
                    await pool.call(request)
                    times.append((time.perf_counter() - begun) * 1e6)
                took.setdefault(kibibytes, []).append(statistics.median(times))
    print("\nbytes to a worker, us" + f"\n{'KiB':>8}{'socket':>10}{'shared':>10}")
    for kibibytes, (socket, shared) in took.items():
        print(f"{kibibytes:8}{socket:10.0f}{shared:10.0f}")


async def main() -> None:
    actor = ray_actor()
    with ProcessPoolExecutor(1) as executor:
        async with Pool(PoolSpec(workers=1)) as pool:
            for size in MEGABYTES:
                column = np.random.default_rng(size).random(size * 2**20 // 8)
                figures = await measure(ways_of(pool, executor, actor, column), head(column))
                print(f"\n{size} MB" + "".join(f"\n  {name:16}{ms:10.2f} ms" for name, ms in figures.items()))
            await crossing()
            echo = EchoRequest("x" * 150)
            took = []
            for _ in range(5_000):
                begun = time.perf_counter()
                await pool.call(echo)
                took.append((time.perf_counter() - begun) * 1e6)
            print(f"\na call that does nothing: {statistics.median(took):.0f} us")


if __name__ == "__main__":
    asyncio.run(main())
