"""Answers that come in parts, many payloads at once, and the pool's small print."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.support.pools import OpenPool
from tests.support.processes import until

from dspex import errors
from dspex.pool import FunctionRequest, Pool, State
from dspex.pool._worker import WINDOW

WORK = "tests.support.work:"


def stream(pool: Pool, function: str, *args: Any, **settings: Any) -> Any:
    return pool.stream(FunctionRequest.of(WORK + function, *args), **settings)


async def take_all(parts: Any, taken: list[Any]) -> None:
    async for part in parts:
        taken.append(part)


@pytest.mark.parametrize("function", ["count", "count_async"])
async def test_parts_come_in_order_and_all_of_them(open_pool: OpenPool, function: str) -> None:
    pool = await open_pool(workers=1)
    assert [item async for item in stream(pool, function, 1000)] == list(range(1000))
    assert [item async for item in stream(pool, function, 0)] == []
    assert pool.status().workers[0].inflight == 0


async def test_many_streams_share_a_worker(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)

    async def collect(limit: int) -> list[int]:
        return [item async for item in stream(pool, "count_async", limit)]

    assert await asyncio.gather(*map(collect, range(100))) == [list(range(n)) for n in range(100)]


async def test_the_worker_waits_for_whoever_takes_the_parts(open_pool: OpenPool, tmp_path: Path) -> None:
    pool = await open_pool(workers=1)
    file = tmp_path / "progress"
    async with aclosing(stream(pool, "count_and_tell", str(file))) as parts:
        assert await anext(parts) == 0
        await until(lambda: file.read_text() == str(WINDOW))  # one more made than may be sent
        assert [await anext(parts) for _ in range(WINDOW // 2)] == list(range(1, WINDOW // 2 + 1))
        await until(lambda: file.read_text() == str(WINDOW + WINDOW // 2))
    await until(lambda: file.read_text().endswith(" closed"))  # closing the stream stops the work
    await until(lambda: pool.status().workers[0].inflight == 0)


async def test_an_error_comes_after_the_parts_before_it(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    parts = stream(pool, "count_then_fail", 100)
    assert [await anext(parts) for _ in range(100)] == list(range(100))
    with pytest.raises(errors.RemoteError, match="no more numbers"):
        await anext(parts)


async def test_a_stream_ends_with_its_worker_and_is_not_run_again(
    open_pool: OpenPool, tmp_path: Path
) -> None:
    pool = await open_pool(workers=1)
    parts = stream(pool, "count_and_tell", str(tmp_path / "progress"))
    taken = [await anext(parts) for _ in range(50)]
    pid = pool.status().workers[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(errors.WorkerDiedError):
        await take_all(parts, taken)
    assert taken == list(range(len(taken)))
    assert 50 <= len(taken) <= 50 + 2 * WINDOW


async def test_a_streams_time_runs_out_as_a_calls_does(open_pool: OpenPool, tmp_path: Path) -> None:
    pool = await open_pool(workers=1)
    with pytest.raises(errors.DeadlineExceeded):
        async for _ in stream(pool, "count_and_tell", str(tmp_path / "progress"), timeout=0.3):
            pass
    assert [item async for item in stream(pool, "count", 3)] == [0, 1, 2]


async def test_what_does_not_come_in_parts_is_refused_as_a_stream_and_the_other_way_round(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool(workers=1)
    with pytest.raises(errors.ConfigError, match="does not answer in parts"):
        await anext(stream(pool, "add", 2, 3))
    with pytest.raises(errors.WireError, match="async_generator"):
        await pool.run(WORK + "count_async", 3)


async def test_a_batch_answers_in_order_and_failures_stand_in_their_place(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=2, max_inflight=5, queue=0)
    requests = [FunctionRequest.of(WORK + "wait_a_moment", i) for i in range(50)]
    requests[7] = FunctionRequest.of(WORK + "fail", "seven")

    await until(lambda: [w.state for w in pool.status().workers] == [State.READY, State.READY])
    answers = await pool.batch(requests)

    assert isinstance(answers[7], errors.RemoteError)
    assert [answer for i, answer in enumerate(answers) if i != 7] == [i for i in range(50) if i != 7]
