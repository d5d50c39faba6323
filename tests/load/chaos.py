"""Everything at once, in random order: `make chaos`, or `python -m tests.load.chaos [rounds] [seed]`.

Each round opens a pool with settings of its own and, for a few seconds, makes calls of every kind, cancels
some, kills and stops workers, kills the forkserver, resizes, restarts, and at last closes the pool with or
without a hurry. Every call must end in its right answer or in a typed error, and in time; the loop must hear
of nothing that nobody handled; no process, task or descriptor may be left. Prints what happened, by kind and
end, and exits with 1 if a promise was broken. A round is the same for the same seed but for the timing of
processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psutil
from tests.support.backends import Processes
from tests.support.processes import children, until

from dspex import errors
from dspex.pool import EchoRequest, FunctionRequest, Pool, PoolSpec, Recycling, Restart, Timeouts

WORK = "tests.support.work:"
PATIENCE = 40.0
"""Seconds that anything may take: a worker that is stopped while it starts is given up after 30."""


class WrongError(Exception):
    """A call had another answer than its own."""


def say(name: str, *args: Any) -> FunctionRequest:
    return FunctionRequest.of(WORK + name, *args)


class Caller:
    """Calls of every kind; each raises `WrongError` if its answer is not its own."""

    def __init__(self, pool: Pool, choice: random.Random) -> None:
        self.pool = pool
        self.choice = choice
        self.timeout = choice.choice([0.02, 0.1, 0.5, 5.0])

    async def function(self, name: str, *args: Any, expected: Any = None, **settings: Any) -> None:
        answer = await self.pool.call(say(name, *args), timeout=self.timeout, **settings)
        if answer != expected:
            raise WrongError(f"{name} answered {answer!r}, not {expected!r}")

    async def echo(self) -> None:
        value = self.choice.choice(
            [self.choice.random(), self.choice.randbytes(self.choice.randint(0, 10**6))]
        )
        if await self.pool.call(EchoRequest(value), timeout=self.timeout) != value:
            raise WrongError("echo")

    async def quick(self) -> None:
        await self.function("add", 2, 3, expected=5)

    async def slow(self) -> None:
        await self.function("nap", self.choice.random() * 0.3)

    async def thread(self) -> None:
        await self.function("block_for", self.choice.random() * 0.4, idempotent=self.choice.random() < 0.5)

    async def endless(self) -> None:
        await self.function("wait_for_ever")

    async def deadly(self) -> None:
        if self.choice.random() < 0.2:
            await self.function("die_by", int(signal.SIGKILL))

    async def unsendable(self) -> None:
        await self.pool.call(EchoRequest(object()), timeout=self.timeout)

    async def batch(self) -> None:
        requests = [say("add", number, 1) for number in range(20)]
        answers = await self.pool.batch(requests, timeout=self.timeout)
        for number, answer in enumerate(answers):
            if answer != number + 1 and not isinstance(answer, errors.DspexError):
                raise WrongError(f"batch: {answer!r}")

    async def stream(self) -> None:
        count = self.choice.randint(0, 200)
        enough = self.choice.choice([count, count // 2])
        parts = self.pool.stream(say("count_to", count), timeout=self.timeout)
        taken = []
        async with contextlib.aclosing(parts):
            async for part in parts:
                taken.append(part)
                if len(taken) > enough:
                    break
        if taken != list(range(len(taken))) or len(taken) < min(enough, count):
            raise WrongError(f"stream: {len(taken)} of {count}")

    async def feed(self) -> None:
        count, bad = self.choice.randint(0, 150), self.choice.choice(["", "", "raises", "hangs"])

        async def source() -> AsyncIterator[int]:
            for number in range(count):
                if number == count // 2 and bad == "raises":
                    raise LookupError("no more rows")
                if number == count // 2 and bad == "hangs":
                    await asyncio.Event().wait()
                yield number

        parts = iter(range(count)) if not bad and self.choice.random() < 0.5 else source()
        await self.function("total", expected=sum(range(count)), input_streams={"parts": parts})

    async def callback(self) -> None:
        kind = self.choice.choice(["async", "thread", "nested", "raises", "hangs"])

        async def ask(value: int) -> int:
            if kind == "raises":
                raise LookupError("nobody knows")
            if kind == "hangs":
                await asyncio.Event().wait()
            if kind == "nested":
                return int(await self.pool.call(say("add", value, 0)))
            return value

        def ask_in_a_thread(value: int) -> int:
            time.sleep(0.05)
            return value

        function = ask_in_a_thread if kind == "thread" else ask
        await self.function("ask", 7, expected=7, host_functions={"ask": function})

    @property
    def kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        made = [self.echo, self.quick, self.slow, self.thread, self.endless, self.deadly, self.unsendable]
        made += [self.batch, self.stream, self.feed, self.callback]
        return {kind.__name__: kind for kind in made}


async def one_call(pool: Pool, choice: random.Random, outcome: Counter[str]) -> None:
    kind, make = choice.choice(list(Caller(pool, choice).kinds.items()))
    try:
        await make()
    except errors.DspexError as err:
        outcome[f"{kind}: {type(err).__name__}"] += 1
    else:
        outcome[f"{kind}: right"] += 1


async def one_blow(pool: Pool, here: Processes, choice: random.Random, outcome: Counter[str]) -> None:
    kind = choice.choice(["kill", "kill", "kill", "stop", "resize", "restart", "forkserver"])
    workers = [worker.pid for worker in pool.status().workers if worker.pid]
    with contextlib.suppress(ProcessLookupError, errors.PoolClosedError, errors.WorkerStartError):
        if kind == "kill" and workers:
            os.kill(choice.choice(workers), choice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
        elif kind == "stop" and workers and choice.random() < 0.3:
            os.kill(choice.choice(workers), signal.SIGSTOP)
        elif kind == "resize":
            pool.resize(choice.randint(1, 4))
        elif kind == "restart":
            await pool.restart()
        elif kind == "forkserver" and here.forkserver:
            os.kill(here.forkserver, signal.SIGKILL)
        outcome[f"- {kind}"] += 1


def settings(choice: random.Random) -> PoolSpec:
    return PoolSpec(
        name="chaos",
        workers=choice.randint(1, 3),
        max_workers=choice.choice([None, 4]),
        max_inflight=choice.choice([1, 3, 20]),
        queue=choice.choice([5, 1000]),
        restart=Restart(max=1_000_000),
        recycling=Recycling(requests=choice.choice([None, 30])),
        timeouts=Timeouts(cancel=0.3, heartbeat=3.0, start=30.0, stop=1.0),
        start=choice.choice(["forkserver", "forkserver", "spawn"]),
    )


async def one_round(choice: random.Random, outcome: Counter[str]) -> list[str]:
    """What went wrong."""
    here = Processes()
    pool = Pool(settings(choice), backend=here)
    await pool.start()
    tasks: list[asyncio.Future[None]] = []
    end = time.monotonic() + choice.uniform(0.5, 3.0)
    while time.monotonic() < end:
        tasks.append(asyncio.ensure_future(one_call(pool, choice, outcome)))
        if choice.random() < 0.1:
            tasks.append(asyncio.ensure_future(one_blow(pool, here, choice, outcome)))
        if choice.random() < 0.2:
            choice.choice(tasks).cancel()
        await asyncio.sleep(choice.choice([0.0, 0.0, 0.001, 0.01, 0.03]))
    if choice.random() < 0.5:
        await asyncio.wait(tasks, timeout=PATIENCE)
    tasks.append(asyncio.ensure_future(pool.aclose(timeout=choice.choice([None, 0.0, 0.1, 2.0]))))
    done, left = await asyncio.wait(tasks, timeout=PATIENCE)
    broken = [f"it hangs: {task}" for task in left]
    broken += [f"{task.exception()!r}" for task in done if not task.cancelled() and task.exception()]
    return broken


THERE_BEFORE = {child.pid for child in children()}
"""Not the pools': a shell that becomes this program leaves it its children, `make chaos` its filter."""


def left_behind() -> list[psutil.Process]:
    return [child for child in children() if child.pid not in THERE_BEFORE]


async def leftovers(descriptors: int) -> AsyncIterator[str]:
    gc.collect()
    await asyncio.sleep(0)
    with contextlib.suppress(TimeoutError):
        await until(lambda: not left_behind() and psutil.Process().num_fds() <= descriptors)
    if left := left_behind():
        yield f"processes are left: {left}"
    if (count := psutil.Process().num_fds()) > descriptors:
        yield f"descriptors are left: {count} instead of {descriptors}"
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        yield f"a task is left: {task}"


async def main(rounds: int, seed: int) -> int:
    outcome: Counter[str] = Counter()
    broken: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, said: broken.append(f"nobody handled: {said}"))
    await one_round(random.Random(seed), Counter())  # threads and descriptors that stay are there now
    gc.collect()
    await until(lambda: not left_behind())
    descriptors = psutil.Process().num_fds()
    for number in range(rounds):
        found = await one_round(random.Random(f"{seed}-{number}"), outcome)
        found += [left async for left in leftovers(descriptors)]
        broken += [f"round {number}: {what}" for what in found]
    print(f"{rounds} rounds with seed {seed}")
    for what, count in sorted(outcome.items()):
        print(f"  {count:8}  {what}")
    for what in broken:
        print(f"BROKEN: {what}")
    return 1 if broken else 0


def arguments() -> Iterator[int]:
    given = [int(argument) for argument in sys.argv[1:]]
    yield given[0] if given else 40
    yield given[1] if given[1:] else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*arguments())))
