"""How a pool keeps its workers: replaced, recycled, scaled, limited, watched."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.support import work
from tests.support.backends import Processes
from tests.support.pools import QUICK, OpenPool
from tests.support.processes import until

from dspex import errors
from dspex.pool import Limits, Pool, PoolEvent, PoolSpec, Recycling, Restart, Scaling, State
from dspex.pool._events import EventName

WORK = "tests.support.work:"
FRAGILE = "tests.support.fragile_start"


def ready(pool: Pool) -> list[int | None]:
    return [worker.pid for worker in pool.status().workers if worker.state is State.READY]


def is_replaced(pool: Pool, pid: int | None) -> bool:
    """Whether others are ready and this worker is not: for a moment both are."""
    return pid not in (now := ready(pool)) and bool(now)


async def keep_calling(pool: Pool, stop: asyncio.Event) -> int:
    """Calls one after another until told to stop; every one must be answered, and rightly."""
    number = 0
    while not stop.is_set():
        assert await pool.run(work.wait_a_moment, number) == number
        number += 1
    return number


async def test_a_worker_is_replaced_after_its_number_of_calls_without_losing_one(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, recycling=Recycling(requests=20))
    stop = asyncio.Event()
    callers = [asyncio.ensure_future(keep_calling(pool, stop)) for _ in range(5)]
    seen: set[int | None] = set()

    def enough() -> bool:
        seen.update(ready(pool))
        return len(seen) >= 4

    await until(enough, seconds=30)
    stop.set()

    assert all(count > 0 for count in await asyncio.gather(*callers))
    assert pool.status().deaths == 0


async def test_a_worker_is_replaced_when_its_own_memory_has_grown(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, recycling=Recycling(memory=300 * 2**20))
    before = await pool.run(work.pid)
    assert await pool.run(work.keep, 10 * 2**20) == before

    await pool.run(work.keep, 300 * 2**20)
    await until(lambda: is_replaced(pool, before), seconds=30)

    assert await pool.run(work.pid) != before
    assert pool.status().deaths == 0


async def test_a_worker_is_replaced_when_it_is_old(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, recycling=Recycling(age=0.6))
    before = await pool.run(work.pid)
    await until(lambda: is_replaced(pool, before), seconds=30)
    assert pool.status().deaths == 0


async def test_a_rolling_restart_replaces_every_worker_and_loses_no_call(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=2)
    await until(lambda: len(ready(pool)) == 2)
    before = set(ready(pool))
    stop = asyncio.Event()
    callers = [asyncio.ensure_future(keep_calling(pool, stop)) for _ in range(5)]

    await pool.restart()
    stop.set()
    await asyncio.gather(*callers)

    await until(lambda: len(pool.status().workers) == 2)
    assert before.isdisjoint(ready(pool))
    assert pool.status().deaths == 0


async def test_a_restart_replaces_a_worker_that_has_just_become_ready() -> None:
    began: list[int] = []
    again = asyncio.Event()

    def heard(event: PoolEvent) -> None:
        if event.name == "worker.ready" and event.pid is not None:
            began.append(event.pid)
            if len(began) == 2:
                again.set()  # wakes who waits before the worker's slot has taken it

    async with Pool(PoolSpec(workers=1), on_event=heard) as pool:
        os.kill(began[0], signal.SIGKILL)
        async with asyncio.timeout(60):
            await again.wait()
        await pool.restart()
        assert len(began) == 3
        assert ready(pool) == began[2:]


async def test_a_rolling_restart_ends_with_its_pool(
    open_pool: OpenPool,
) -> None:
    here = Processes()
    pool = await open_pool(workers=2, backend=here)
    await until(lambda: len(ready(pool)) == 2)  # else the one that starts is not the restart's
    here.starts.clear()
    restarts = [asyncio.ensure_future(pool.restart()) for _ in range(2)]
    await until(lambda: any(w.state is State.STARTING for w in pool.status().workers))

    await pool.aclose()

    for restart in restarts:
        with pytest.raises(errors.PoolClosedError):
            await asyncio.wait_for(restart, 10)


async def test_a_rolling_restart_of_a_pool_that_shrinks_comes_to_its_end(
    open_pool: OpenPool,
) -> None:
    here = Processes()
    pool = await open_pool(workers=2, backend=here)
    await until(lambda: len(ready(pool)) == 2)
    busy = asyncio.ensure_future(pool.run(work.wait_for_ever))
    await until(lambda: pool.status().workers[0].inflight == 1)
    here.starts.clear()
    restart = asyncio.ensure_future(pool.restart())
    await until(lambda: any(w.state is State.STARTING for w in pool.status().workers))

    pool.resize(1)  # the idle one goes, whose turn would be next
    here.starts.set()

    await asyncio.wait_for(restart, 10)
    busy.cancel()
    await until(lambda: len(pool.status().workers) == 1)
    assert await pool.run(work.add, 2, 3) == 5


async def test_rolling_restarts_at_the_same_time_all_come_to_their_end(
    open_pool: OpenPool,
) -> None:
    here = Processes()
    pool = await open_pool(workers=2, backend=here)
    await until(lambda: len(ready(pool)) == 2)
    before = set(ready(pool))
    here.starts.clear()
    restarts = [asyncio.ensure_future(pool.restart()) for _ in range(3)]
    await until(lambda: any(w.state is State.STARTING for w in pool.status().workers))
    restarts.pop().cancel()  # who stops waiting takes nothing from the others
    here.starts.set()

    await asyncio.wait_for(asyncio.gather(*restarts), 20)
    assert before.isdisjoint(ready(pool))


async def test_a_rolling_restart_that_fails_says_why_and_leaves_the_old_worker(
    open_pool: OpenPool, tmp_path: Path
) -> None:
    pool = await open_pool(
        workers=1, env={"DSPEX_TEST_BROKEN": str(tmp_path / "broken")}, preload=[FRAGILE], start="spawn"
    )
    before = await pool.run(work.pid)
    (tmp_path / "broken").touch()

    with pytest.raises(errors.WorkerStartError, match="the model file is gone"):
        await pool.restart()

    assert await pool.run(work.pid) == before
    (tmp_path / "broken").unlink()
    await pool.restart()
    assert await pool.run(work.pid) != before


async def test_a_worker_that_has_just_become_ready_drains_when_the_pool_is_made_smaller() -> None:
    second: list[str] = []

    def heard(event: PoolEvent) -> None:
        if event.slot == 1:
            second.append(event.name)
            if event.name == "worker.ready":
                pool.resize(1)  # before the worker's slot has taken it

    async with Pool(PoolSpec(workers=1, timeouts=QUICK), on_event=heard) as pool:
        pool.resize(2)
        await until(lambda: "worker.dead" in second)
        states = ("starting", "ready", "draining", "stopping", "dead")
        assert second == [f"worker.{state}" for state in states]
        assert pool.status().deaths == 0


async def test_a_pool_can_be_resized_both_ways_under_load(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    stop = asyncio.Event()
    callers = [asyncio.ensure_future(keep_calling(pool, stop)) for _ in range(5)]

    pool.resize(3)
    await until(lambda: len(ready(pool)) == 3)
    pool.resize(1)
    await until(lambda: len(pool.status().workers) == 1)
    stop.set()

    await asyncio.gather(*callers)
    assert pool.status().deaths == 0
    with pytest.raises(errors.ConfigError, match=r"pool\.general\.workers"):
        pool.resize(0)
    with pytest.raises(errors.ConfigError, match=r"write workers=2"):
        pool.resize("2")  # type: ignore[arg-type]
    assert pool.spec.max_workers is None, "a pool that does not scale by itself does not begin to"


async def test_calls_that_wait_get_more_workers_and_idle_ones_go_again(open_pool: OpenPool) -> None:
    pool = await open_pool(
        workers=1, max_workers=3, max_inflight=1, scaling=Scaling(up_after=0.01, down_after=0.3)
    )
    running = [asyncio.ensure_future(pool.run(work.wait_for_ever)) for _ in range(4)]

    await until(lambda: [w.inflight for w in pool.status().workers] == [1, 1, 1])
    assert pool.status().waiting == 1
    for call in running:
        call.cancel()

    await until(lambda: len(pool.status().workers) == 1)
    assert await pool.run(work.add, 2, 3) == 5
    assert pool.status().deaths == 0


async def test_a_pool_does_not_grow_for_calls_that_are_served_in_time(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_workers=3, max_inflight=1, scaling=Scaling(up_after=20.0))
    assert await asyncio.gather(*(pool.run(work.wait_a_moment, i) for i in range(20))) == list(range(20))
    assert len(pool.status().workers) == 1


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_niceness_processors_and_environment_reach_the_worker(open_pool: OpenPool, start: str) -> None:
    cpu = min(os.sched_getaffinity(0))
    pool = await open_pool(
        workers=1, limits=Limits(nice=3, cpus=[cpu]), env={"CUDA_VISIBLE_DEVICES": "1"}, start=start
    )
    niceness, cpus = await pool.run(work.niceness_and_cpus)
    assert niceness == os.nice(0) + 3
    assert cpus == [cpu]
    assert await pool.run(work.environment, "CUDA_VISIBLE_DEVICES") == "1"
    assert await pool.run(work.environment, "OMP_NUM_THREADS") == "1"


async def test_a_worker_without_heartbeats_is_replaced_though_nobody_calls_it(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, timeouts=QUICK.replace(heartbeat=2.0))
    before = ready(pool)
    assert before[0] is not None
    os.kill(before[0], signal.SIGSTOP)
    await until(lambda: ready(pool) not in ([], before), seconds=30)
    assert pool.status().deaths == 1


async def test_work_that_blocks_the_loop_does_not_stop_the_heartbeats(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, timeouts=QUICK.replace(heartbeat=1.0, cancel=0.2))
    with pytest.raises(errors.DeadlineExceeded):  # and not WorkerDiedError for want of a heartbeat
        await pool.with_options(timeout=2.5).run(work.block_the_loop)


async def test_a_crash_loop_ends_with_the_first_cause_and_the_pool_recovers_by_itself(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool(workers=1, restart=Restart(max=2, window=2.0))
    for _ in range(3):
        with pytest.raises(errors.WorkerDiedError):
            await pool.run(work.say_and_die, "out of ideas")

    with pytest.raises(errors.WorkerStartError, match=r"restart\.max=2") as raised:
        await pool.run(work.add, 2, 3)
    assert raised.value.code == "restart-budget"
    assert "out of ideas" in str(raised.value)

    await until(lambda: ready(pool) != [], seconds=20)
    assert await pool.run(work.add, 2, 3) == 5


async def test_calls_that_wait_when_the_budget_ends_are_told(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_inflight=1, restart=Restart(max=0))
    deadly = asyncio.ensure_future(pool.run(work.say_and_die, "the end"))
    waiting = asyncio.ensure_future(pool.run(work.add, 2, 3))
    with pytest.raises(errors.WorkerDiedError):
        await deadly
    with pytest.raises(errors.WorkerStartError, match="the end"):
        await waiting


async def test_every_transition_is_an_event() -> None:
    events: list[PoolEvent] = []
    pool = Pool(PoolSpec(name="told", workers=1), on_event=events.append)
    async with pool:
        (before,) = ready(pool)
        with pytest.raises(errors.WorkerDiedError):
            await pool.run(work.leave, 5)
        await until(lambda: is_replaced(pool, before))
    assert {event.pool for event in events} == {"told"}
    assert [event.name for event in events] == [
        "worker.starting",
        "worker.ready",
        "pool.ready",
        "worker.stopping",
        "worker.dead",
        "worker.starting",
        "worker.ready",
        "pool.draining",
        "pool.stopping",
        "worker.stopping",
        "worker.dead",
        "pool.dead",
    ]
    assert "status 5" in next(event.reason for event in events if event.name == "worker.dead")


async def test_every_kind_of_event_is_told_with_its_place_and_its_reason() -> None:
    events: list[PoolEvent] = []
    spec = PoolSpec(
        workers=1,
        max_workers=2,
        restart=Restart(max=1, window=60),
        recycling=Recycling(requests=3),
        max_inflight=1,
    )
    async with Pool(spec, on_event=events.append) as pool:
        for number in range(3):  # the third wears it out
            assert await pool.run(work.add, number, 0) == number
        await until(lambda: [event.name for event in events].count("worker.dead") == 1)
        pool.resize(2)
        await until(lambda: len(ready(pool)) == 2)
        pool.resize(1)
        await until(lambda: len(pool.status().workers) == 1)
        await pool.restart()
        await until(lambda: len(pool.status().workers) == 1)
        for _ in range(2):
            with pytest.raises(errors.WorkerDiedError):
                await pool.run(work.leave, 5)
        await until(lambda: "pool.backing_off" in [event.name for event in events])

    # `call.repeated` needs two calls at once on a worker: see `test_pool_repeats`.
    assert {event.name for event in events} == set(get_args(EventName)) - {"call.repeated"}
    reasons = {(event.name, event.reason.split("\n")[0]) for event in events}
    for told in [
        ("worker.draining", "it has served 3 calls"),
        ("worker.stopping", "it was drained"),
        ("worker.draining", "the pool was resized"),
        ("worker.draining", "the pool is restarted"),
        ("worker.stopping", "the pool did not ask for it"),
        ("pool.resized", "2"),
        ("pool.resized", "1"),
    ]:
        assert told in reasons
    assert any(name == "pool.backing_off" and "status 5" in why for name, why in reasons)
    assert {event.slot for event in events if event.name.startswith("worker.")} == {0, 1}
    assert {event.slot for event in events if event.name.startswith("pool.")} == {None}
    # Each worker's own events are a way through the drawing of `lifecycle`, from its start to its end.
    for pid in {event.pid for event in events} - {None}:
        names = [event.name.removeprefix("worker.") for event in events if event.pid == pid]
        assert names in (["ready", "draining", "stopping", "dead"], ["ready", "stopping", "dead"])


async def test_the_status_says_of_each_worker_what_it_is_and_does(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=2, max_inflight=3, timeouts=QUICK.replace(cancel=0.2))
    await until(lambda: len(ready(pool)) == 2)
    before = pool.status()
    assert (before.name, before.state, before.wanted, before.waiting) == ("general", State.READY, 2, 0)
    assert [(w.slot, w.restarts, w.served, w.inflight) for w in before.workers] == [
        (0, 0, 0, 0),
        (1, 0, 0, 0),
    ]

    for _ in range(4):
        await pool.run(work.add, 1, 1)
    calls = [asyncio.ensure_future(pool.run(work.wait_for_ever)) for _ in range(7)]
    await until(lambda: pool.status().waiting == 1)
    busy = pool.status()
    assert [worker.inflight for worker in busy.workers] == [3, 3]
    assert sum(worker.served for worker in busy.workers) == 4
    for worker in busy.workers:
        assert worker.pid is not None
        assert 0 < worker.age < 60
        await until(lambda: all(w.resident > 2**20 for w in pool.status().workers))

    victim = busy.workers[1].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    await until(lambda: len(ready(pool)) == 2 and victim not in ready(pool))
    after = pool.status()
    assert [(worker.slot, worker.restarts) for worker in after.workers] == [(0, 0), (1, 1)]
    assert after.workers[1].age < busy.workers[1].age
    assert after.deaths == 1
    for call in calls:
        call.cancel()
    await pool.restart()
    await until(lambda: len(pool.status().workers) == 2)
    assert [(worker.slot, worker.restarts) for worker in pool.status().workers] == [(0, 1), (1, 2)]
    assert pool.status().deaths == 1


async def test_a_listener_that_fails_does_not_harm_the_pool() -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    def fail(_: PoolEvent) -> None:
        raise ValueError("a listener's mistake")

    async with Pool(PoolSpec(workers=1), on_event=fail) as pool:
        assert await pool.run(work.add, 2, 3) == 5
    assert {str(problem["exception"]) for problem in problems} == {"a listener's mistake"}


async def test_a_call_that_needs_more_turns_waits_for_its_session(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_inflight=1)
    order: list[str] = []
    running = asyncio.ensure_future(pool.run(work.wait_for_ever))
    await until(lambda: pool.status().workers[0].inflight == 1)

    async def ask(name: str) -> None:
        await pool.with_options(session=name[0]).run(work.give, name)
        order.append(name)

    calls = [asyncio.ensure_future(ask(name)) for name in ("a1", "a2", "a3", "b1", "c1")]
    await until(lambda: pool.status().waiting == 5)
    running.cancel()
    await asyncio.gather(*calls)

    assert order == ["a1", "b1", "c1", "a2", "a3"]
