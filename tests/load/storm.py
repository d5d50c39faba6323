"""A crash storm on real workers: `make storm`, or `python -m tests.load.storm [seconds]`.

A random worker is killed every 300 ms while clients call DSPy through the pool. Every call must end in its
own right answer or in its own typed error, exactly once; afterwards the pool works and nothing is left.
Prints what happened and exits with 1 if a promise was broken.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter

from tests.support.processes import children, until

from dspex import errors
from dspex.pool import Pool, PoolSpec, PredictRequest, Restart, State
from dspex.testing import ChatRequest, ModelServer

KILL_EVERY = 0.3
CLIENTS = 40
WORKERS = 3


def answer_of(request: ChatRequest) -> str:
    """The number in the question, so that an answer that went to the wrong caller is seen."""
    number = request.prompt.split("number ")[1].split("\n")[0]
    return f"[[ ## answer ## ]]\n{number}\n\n[[ ## completed ## ]]"


async def client(
    pool: Pool, number: int, until_time: float, outcome: Counter[str], times: list[float]
) -> None:
    loop = asyncio.get_running_loop()
    turn = 0
    while loop.time() < until_time:
        question = f"number {number}-{turn}"
        turn += 1
        started = time.perf_counter()
        try:
            answer = await pool.call(
                PredictRequest.of("question -> answer", {"question": question}), timeout=20
            )
        except errors.WorkerDiedError as err:
            outcome["worker died" if err.signal == "SIGKILL" else f"unexpected: {err}"] += 1
        except errors.DspexError as err:
            outcome[f"unexpected: {err}"] += 1
        else:
            right = answer["completions"] == [{"answer": question.removeprefix("number ")}]
            outcome["answered" if right else "unexpected: a wrong answer"] += 1
            times.append(time.perf_counter() - started)


async def killer(pool: Pool, until_time: float, kills: Counter[str]) -> None:
    loop = asyncio.get_running_loop()
    choice = random.Random(7)
    while loop.time() < until_time:
        await asyncio.sleep(KILL_EVERY)
        ready = [worker.pid for worker in pool.status().workers if worker.state is State.READY and worker.pid]
        if ready:
            os.kill(choice.choice(ready), signal.SIGKILL)
            kills["killed"] += 1


async def main(seconds: float) -> int:
    # Its complaints about clients that vanish are what this is about.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    outcome: Counter[str] = Counter()
    kills: Counter[str] = Counter()
    times: list[float] = []
    async with ModelServer(answer_of) as server:
        lm = {"model": "openai/test", "api_base": server.api_base, "api_key": "none"}
        spec = PoolSpec(name="storm", workers=WORKERS, restart=Restart(max=1_000_000))
        async with Pool(spec, lm=lm) as pool:
            end = asyncio.get_running_loop().time() + seconds
            clients = [client(pool, number, end, outcome, times) for number in range(CLIENTS)]
            await asyncio.gather(killer(pool, end, kills), *clients)
            await until(lambda: pool.status().deaths == kills["killed"])  # the last kill has been noticed
            await until(lambda: [w.state for w in pool.status().workers] == [State.READY] * WORKERS)
            afterwards: Counter[str] = Counter()
            now = asyncio.get_running_loop().time()
            await asyncio.gather(
                *(client(pool, number, now + 0.5, afterwards, []) for number in range(CLIENTS))
            )
            left = pool.status()
    await until(lambda: not children())
    p50, p99 = (statistics.quantiles(times, n=100)[index] * 1e3 for index in (49, 98))
    print(f"{seconds:.0f} s, {WORKERS} workers, {CLIENTS} clients: {kills['killed']} killed")
    print(f"  {left.deaths:8}  workers replaced")
    for what, count in sorted(outcome.items()):
        print(f"  {count:8}  {what}")
    print(f"  answered in p50 {p50:.1f} ms, p99 {p99:.1f} ms; afterwards {dict(afterwards)}")
    broken = [what for what in (*outcome, *afterwards) if what.startswith("unexpected")]
    if set(afterwards) != {"answered"}:
        broken.append("the pool did not work afterwards")
    if left.waiting or any(worker.inflight for worker in left.workers):
        broken.append("a call was left behind")
    for what in broken:
        print(f"BROKEN: {what}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)))
