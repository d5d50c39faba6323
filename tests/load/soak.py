"""Many calls through one pool: `make soak`, or `python -m tests.load.soak [calls]`.

Memory and descriptors, of the service and of its workers, must be flat once the first tenth has warmed
everything up. Prints a line for each tenth and exits with 1 if something grew.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass

import psutil

from dspex.pool import Pool, PoolSpec, PredictRequest
from dspex.testing import ModelServer

INFLIGHT = 100
DSPY_SHARE = 20
"""One call in this many is a DSPy prediction over HTTP; the others go through every part but DSPy."""

MEMORY_SLACK = 12 * 2**20
"""Bytes by which memory may differ: allocators round, and a collection may be due."""

DESCRIPTOR_SLACK = 8
"""Descriptors by which the count may differ: connections to the LM come and go."""


@dataclass
class Reading:
    memory: list[int]
    descriptors: list[int]

    @classmethod
    def take(cls, pool: Pool) -> Reading:
        pids = [os.getpid(), *(worker.pid for worker in pool.status().workers if worker.pid)]
        processes = [psutil.Process(pid) for pid in pids]
        return cls([p.memory_info().rss for p in processes], [p.num_fds() for p in processes])

    def __str__(self) -> str:
        memory = " ".join(f"{size / 2**20:7.1f}" for size in self.memory)
        return f"MiB {memory}   descriptors {self.descriptors}"


async def main(calls: int) -> int:
    ask = PredictRequest.of("question -> answer", {"question": "the sky's colour?"})
    readings: list[Reading] = []
    async with ModelServer("[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]") as server:
        lm = {"model": "openai/test", "api_base": server.api_base, "api_key": "none"}
        async with Pool(PoolSpec(name="soak", workers=2, max_inflight=INFLIGHT), lm=lm) as pool:

            async def client(number: int, count: int) -> None:
                for turn in range(count):
                    if turn % DSPY_SHARE == number % DSPY_SHARE:
                        answer = await pool.call(ask)
                        assert answer["completions"] == [{"answer": "blue"}]
                    else:
                        assert await pool.echo((number, turn)) == (number, turn)

            # The LM clients keep connections for as many calls as they ever had at once: have that now.
            for _ in range(3):
                await asyncio.gather(*(pool.call(ask) for _ in range(2 * INFLIGHT)))
            for tenth in range(10):
                await asyncio.gather(*(client(i, calls // 10 // INFLIGHT) for i in range(INFLIGHT)))
                server.requests.clear()  # the records of the test's own server
                readings.append(Reading.take(pool))
                print(f"{(tenth + 1) * calls // 10:8} calls   {readings[-1]}", flush=True)
    first, last = readings[1], readings[-1]
    grown = [b - a for a, b in zip(first.memory, last.memory, strict=True)]
    opened = [b - a for a, b in zip(first.descriptors, last.descriptors, strict=True)]
    memory = [f"{size / 2**20:+.1f} MiB" for size in grown]
    print(f"from the second tenth to the last: memory {memory}, descriptors {opened}")
    return 1 if max(grown) > MEMORY_SLACK or max(opened) > DESCRIPTOR_SLACK else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)))
