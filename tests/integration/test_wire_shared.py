"""`dspex.wire.share` on real workers: who reads a value, how it is dropped, and when its memory is back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import psutil
import pytest
from tests.support import wire_work
from tests.support.memory import segments_of
from tests.support.pools import OpenPool
from tests.support.processes import until
from tests.support.wire_same import same
from tests.support.wire_values import Point

from dspex import errors, wire
from dspex.pool import FunctionRequest, Pool

WORK = "tests.support.wire_work:"
GIVE = "tests.support.work:give"
ITEMS = 2**20 // 8


def value(number: int = 0) -> dict[str, Any]:
    return {
        "index": wire_work.array(ITEMS, number),
        "vectors": [wire_work.array(ITEMS).reshape(-1, 64), b"x" * 2**20],
        "floats": wire_work.array(1000).tolist(),
        "name": f"of number {number}",
    }


def ask(function: str, *args: Any) -> FunctionRequest:
    return FunctionRequest.of(WORK + function, *args)


def pids(*pools: Pool) -> list[int]:
    return [worker.pid or 0 for pool in pools for worker in pool.status().workers]


async def nothing_is_shared(*pools: Pool) -> None:
    """Wait until neither this process nor a worker has memory in common with another."""
    await until(lambda: not any(segments_of(pid) for pid in (os.getpid(), *pids(*pools))))


async def test_a_shared_value_is_read_by_two_workers_in_many_calls_at_once(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=2, max_inflight=50)
    before = psutil.Process().num_fds()
    shared = wire.share(value())

    answers = await asyncio.gather(*(pool.run(wire_work.check_and_pid, shared, value()) for _ in range(80)))

    assert {pid for _, pid in answers} == set(pids(pool))
    assert all(right for right, _ in answers)
    assert psutil.Process().num_fds() == before + 1
    del shared
    await until(lambda: psutil.Process().num_fds() == before)


async def test_a_shared_value_comes_back_as_the_value(open_pool: OpenPool) -> None:
    pool = await open_pool(classes=["tests.support.wire_values"])
    for given in (value(), value()["index"], [b"x" * 5000], Point(value()), 7, "small", b""):
        shared = wire.share(given, classes=wire.Classes(["tests.support.wire_values"]))
        assert same(await pool.run(GIVE, shared), given)
        assert same(shared.get(), given)


async def test_a_shared_value_stands_within_others_beside_large_ones(open_pool: OpenPool) -> None:
    pool = await open_pool()
    first, second = wire.share(value(1)), wire.share(value(2))
    array = wire_work.array(ITEMS, 7)
    given = {"a": array, "b": [first, {"c": second, "d": (first, b"y" * 2**20)}], "e": wire_work.array(9)}
    expected = {
        "a": array,
        "b": [value(1), {"c": value(2), "d": (value(1), b"y" * 2**20)}],
        "e": wire_work.array(9),
    }
    answers = await asyncio.gather(*(pool.run(GIVE, given) for _ in range(10)))
    assert same(answers, [expected] * 10)


async def test_a_shared_value_is_read_in_several_pools_and_by_workers_that_were_restarted(
    open_pool: OpenPool,
) -> None:
    pools = [await open_pool(), await open_pool(start="spawn")]
    shared = wire.share(value())
    old = pids(*pools)
    for _ in range(2):
        answers = await asyncio.gather(*(pool.run(GIVE, shared) for pool in pools * 3))
        assert same(answers, [value()] * 6)
        await asyncio.gather(*(pool.restart() for pool in pools))
    assert not set(old) & set(pids(*pools))

    os.kill(pids(pools[0])[0], signal.SIGKILL)
    await until(lambda: pools[0].status().deaths == 1)
    assert same(await pools[0].run(GIVE, shared), value())
    del shared, answers
    await pools[0].run(wire_work.let_go)


async def test_a_shared_value_that_is_dropped_while_calls_are_on_their_way_reaches_them(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool()
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGSTOP)
    shared = wire.share(value())
    calls = [asyncio.ensure_future(pool.run(wire_work.check_and_pid, shared, value())) for _ in range(10)]
    await until(lambda: pool.status().workers[0].inflight == 10)
    del shared
    os.kill(pid, signal.SIGCONT)
    assert await asyncio.gather(*calls) == [(True, pid)] * 10


async def test_a_shared_value_that_is_dropped_while_its_calls_are_cancelled_ends_no_worker(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool()
    (pid,) = pids(pool)
    for turns in range(20):
        shared = wire.share(value())
        host = answering(shared)
        calls = [asyncio.ensure_future(pool.run(GIVE, shared)) for _ in range(3)]
        calls += [asyncio.ensure_future(pool.call(ask("ask", "host", 1), host_functions={"host": host}))]
        streams = {"parts": [shared] * 3}
        calls += [asyncio.ensure_future(pool.call(ask("count_parts"), input_streams=streams))]
        del shared, host, streams
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await until(lambda: pool.status().workers[0].inflight == 0)
    assert await pool.run(GIVE, 1) == 1
    assert pids(pool) == [pid]


def answering(shared: Any) -> Any:
    async def host(_: Any) -> Any:
        return shared

    return host


async def test_a_view_in_a_worker_outlives_the_shared_value_and_its_end_gives_the_memory_back(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool()
    (pid,) = pids(pool)
    array = np.arange(ITEMS)
    shared = wire.share(array)
    await pool.run(wire_work.keep, shared)
    assert len(segments_of(pid)) == 1
    del shared
    await until(lambda: segments_of() == [])

    assert await pool.run(wire_work.sums_of_kept) == [float(array.sum())]
    assert len(segments_of(pid)) == 1
    await pool.run(wire_work.let_go)
    await nothing_is_shared(pool)


async def test_a_shared_value_that_nobody_holds_takes_no_memory(open_pool: OpenPool) -> None:
    pools = [await open_pool(workers=2), await open_pool()]
    descriptors = psutil.Process().num_fds()
    for number in range(5):
        shared = [wire.share(np.arange(ITEMS) + n) for n in range(4)]
        await asyncio.gather(*(pool.run(wire_work.total, one) for one in shared for pool in pools * 4))
        assert any(segments_of(pid) for pid in pids(*pools))
        del shared
        await nothing_is_shared(*pools)
        assert psutil.Process().num_fds() == descriptors, number


async def test_a_host_function_may_answer_a_shared_value_that_only_the_answer_holds(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool()

    async def share(number: int) -> Any:
        return wire.share(wire_work.array(ITEMS, number))

    def share_in_a_thread(number: int) -> Any:
        return {"a": wire.share(wire_work.array(ITEMS, number))}

    expected = [float(wire_work.array(ITEMS, number).sum()) for number in range(50)]
    for function in (share, share_in_a_thread):
        request = ask("ask_and_sum", "share", 50)
        assert await pool.call(request, host_functions={"share": function}) == expected
    await nothing_is_shared(pool)


async def test_a_stream_of_arguments_may_have_shared_values_that_only_it_holds(open_pool: OpenPool) -> None:
    pool = await open_pool()

    async def source() -> AsyncIterator[Any]:
        for number in range(100):
            yield wire.share(wire_work.array(ITEMS, number))

    answer = await pool.call(ask("sums"), input_streams={"parts": source()})
    assert answer == [float(wire_work.array(ITEMS, number).sum()) for number in range(100)]
    await nothing_is_shared(pool)


async def test_what_cannot_be_shared_is_refused_by_its_place_and_takes_no_memory() -> None:
    with pytest.raises(errors.WireError, match=r"\$\.context\[1\]: object"):
        wire.share({"context": [wire_work.array(ITEMS), object()]})
    assert segments_of() == []
