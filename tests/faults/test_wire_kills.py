"""Workers that are killed with large values in hand: one error, the next call works, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from tests.support import wire_work
from tests.support.memory import segments_of
from tests.support.pools import OpenPool
from tests.support.processes import until
from tests.support.wire_same import same

from dspex import errors, wire
from dspex.pool import FunctionRequest, Pool, Restart

WORK = "tests.support.wire_work:"
GIVE = "tests.support.work:give"
ITEMS = 2**20 // 8


class Mortal(NamedTuple):
    pool: Pool

    @property
    def pid(self) -> int:
        (worker,) = self.pool.status().workers
        assert worker.pid is not None
        return worker.pid

    async def has_died(self, times: int) -> None:
        await until(lambda: self.pool.status().deaths == times)

    async def dies(self, *calls: asyncio.Future[Any]) -> None:
        """Each of the calls fails, by the death of its worker."""
        for call in calls:
            with pytest.raises(errors.WorkerDiedError, match="SIGKILL"):
                await call


@pytest.fixture
async def mortal(open_pool: OpenPool) -> AsyncIterator[Mortal]:
    """A pool of one worker that may die; afterwards the next works, and nothing of the dead is left here."""
    pool = await open_pool(max_inflight=20, restart=Restart(max=1000))
    assert await pool.run(GIVE, 1) == 1
    descriptors = psutil.Process().num_fds()
    yield Mortal(pool)
    value = wire_work.array(ITEMS)
    assert same(await pool.run(GIVE, value), value)
    (worker,) = pool.status().workers

    def nothing_is_left() -> bool:
        gc.collect()  # errors hold what their callers had sent
        here, there = segments_of(), segments_of(worker.pid or 0)
        return here == there == [] and psutil.Process().num_fds() == descriptors

    await until(nothing_is_left)


async def test_a_worker_that_is_killed_while_it_holds_views(mortal: Mortal) -> None:
    value = wire_work.array(ITEMS)
    shared = wire.share(value)
    for given in (value, shared, [value, {"deep": shared}, b"x" * 2**20]):
        await mortal.dies(asyncio.ensure_future(mortal.pool.run(wire_work.keep_and_die, given)))
    assert same(shared.get(), value)
    assert same(await mortal.pool.run(GIVE, shared), value)


async def test_a_worker_that_is_killed_while_large_arguments_are_on_their_way(mortal: Mortal) -> None:
    for _ in range(3):
        assert await mortal.pool.run(GIVE, 1) == 1
        pid = mortal.pid
        os.kill(pid, signal.SIGSTOP)
        values = [wire_work.array(ITEMS), b"x" * 2**20, wire.share(wire_work.array(ITEMS)), "x" * 2**20]
        calls = [asyncio.ensure_future(mortal.pool.run(GIVE, value)) for value in values * 3]
        await until(lambda: mortal.pool.status().workers[0].inflight == 12)
        os.kill(pid, signal.SIGKILL)
        await mortal.dies(*calls)


async def test_a_worker_that_is_killed_while_large_results_are_on_their_way(mortal: Mortal) -> None:
    ends: set[str] = set()
    for turn in range(4):
        assert await mortal.pool.run(GIVE, 1) == 1
        pid = mortal.pid
        calls = [asyncio.ensure_future(mortal.pool.run(wire_work.array, ITEMS * 8, n)) for n in range(12)]
        for call in calls[: turn % 4]:
            await call
        os.kill(pid, signal.SIGKILL)
        for number, call in enumerate(calls):
            with contextlib.suppress(errors.WorkerDiedError):
                assert same(await call, wire_work.array(ITEMS * 8, number))
                ends.add("answered")
                continue
            ends.add("died")
        await mortal.has_died(turn + 1)
    assert ends == {"answered", "died"}


async def test_a_view_here_outlives_the_worker_that_sent_it(mortal: Mortal) -> None:
    seen: list[Any] = []

    async def take(value: Any) -> None:
        seen.append(value)
        os.kill(mortal.pid, signal.SIGKILL)
        await asyncio.Event().wait()

    value = {"a": wire_work.array(ITEMS), "b": b"y" * 2**20}
    request = FunctionRequest.of(WORK + "ask", "take", value)
    await mortal.dies(asyncio.ensure_future(mortal.pool.call(request, host_functions={"take": take})))
    result = await mortal.pool.run(wire_work.array, ITEMS)
    os.kill(mortal.pid, signal.SIGKILL)
    await until(lambda: mortal.pool.status().deaths == 2)

    assert same(seen, [value])
    assert same(result, wire_work.array(ITEMS))
    seen.clear()


async def test_a_worker_that_is_killed_in_the_middle_of_streams(mortal: Mortal) -> None:
    parts = mortal.pool.stream(FunctionRequest.of(WORK + "batches", 10_000))
    for number in range(50):
        assert (await anext(parts)).equals(wire_work.batch(number))
    os.kill(mortal.pid, signal.SIGKILL)
    numbers = iter(range(50, 10_000))

    async def take_the_rest() -> None:
        async for part in parts:
            assert part.equals(wire_work.batch(next(numbers)))

    await mortal.dies(asyncio.ensure_future(take_the_rest()))

    async def source() -> AsyncIterator[Any]:
        for number in range(10_000):
            if number == 100:
                os.kill(mortal.pid, signal.SIGKILL)
            yield wire.share(wire_work.array(ITEMS, number)) if number % 2 else np.arange(ITEMS)

    sums = mortal.pool.call(FunctionRequest.of(WORK + "sums"), input_streams={"parts": source()})
    await mortal.dies(asyncio.ensure_future(sums))


async def test_calls_that_are_cancelled_leave_no_large_values(mortal: Mortal) -> None:
    pid = mortal.pid
    for turns in range(30):
        value = wire_work.array(ITEMS)
        calls = [asyncio.ensure_future(mortal.pool.run(GIVE, value)) for _ in range(10)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert mortal.pid == pid
