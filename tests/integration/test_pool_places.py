"""Sessions that live on a worker: where their calls go, and what becomes of them when it goes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support import work
from tests.support.processes import until

from dspex.errors import ConfigError, DspexError, PoolSaturated, WorkerDiedError
from dspex.pool import Place, Pool, PoolSpec, Recycling, Scaling, State, Timeouts

SPEC = PoolSpec(workers=2, max_inflight=1, timeouts=Timeouts(cancel=0.2, stop=2))


async def ready(pool: Pool, count: int) -> None:
    def all_ready() -> bool:
        return sum(worker.state is State.READY for worker in pool.status().workers) == count

    await until(all_ready)


async def busy(pool: Pool, place: Place, path: Path) -> asyncio.Task[None]:
    """Its worker, blocked until the task is cancelled."""
    task = asyncio.create_task(pool.with_options(place=place).run(work.wait_for_ever, str(path)))
    await until(path.exists)
    return task


async def free(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_calls_of_a_session_go_to_one_worker_and_sessions_are_spread_evenly() -> None:
    async with Pool(SPEC) as pool:
        await ready(pool, 2)
        places = [pool.place(f"s{number}", "strict") for number in range(6)]
        homes = [[await pool.with_options(place=place).run(work.pid) for place in places] for _ in range(3)]
        assert homes[0] == homes[1] == homes[2] == [place.pid for place in places]
        assert sorted(Counter(homes[0]).values()) == [3, 3]
        assert [worker.sessions for worker in pool.status().workers] == [3, 3]
        for place in places:
            pool.leave(place)
        assert [worker.sessions for worker in pool.status().workers] == [0, 0]


async def test_while_its_worker_has_no_room_a_session_waits_is_refused_or_is_served_elsewhere(
    tmp_path: Path,
) -> None:
    async with Pool(SPEC) as pool:
        await ready(pool, 2)
        strict = pool.place("strict", "strict")
        home = await pool.with_options(place=strict).run(work.pid)
        hint, fail_fast = pool.place("hint"), pool.place("fail", "fail_fast")
        for place in (hint, fail_fast):  # both live where `strict` does
            pool._scheduler.places.settle(place, strict.worker)  # type: ignore[union-attr, arg-type]
        blocked = await busy(pool, strict, tmp_path / "begun")

        waiting = asyncio.create_task(pool.with_options(place=strict).run(work.pid))
        with pytest.raises(PoolSaturated) as refused:
            await pool.with_options(place=fail_fast).run(work.pid)
        assert (refused.value.code, refused.value.retryable) == ("worker-busy", True)
        assert await pool.with_options(place=hint).run(work.pid) != home
        assert hint.pid == home
        assert pool.status().waiting == 1
        assert not waiting.done()

        await free(blocked)
        assert await waiting == home
        assert await pool.with_options(place=fail_fast).run(work.pid) == home


async def test_calls_that_wait_for_one_worker_and_those_that_wait_for_any_take_turns(tmp_path: Path) -> None:
    async with Pool(SPEC.replace(workers=1)) as pool:
        place = pool.place("s", "strict")
        blocked = await busy(pool, place, tmp_path / "begun")
        order: list[str] = []

        async def call(name: str, **options: Place) -> None:
            await pool.with_options(session=name, **options).run(work.pid)  # type: ignore[arg-type]
            order.append(name)

        calls = []
        for number in range(4):
            for name, options in ((f"any{number}", {}), (f"own{number}", {"place": place})):
                calls.append(asyncio.create_task(call(name, **options)))
                await asyncio.sleep(0)
        await free(blocked)
        await asyncio.gather(*calls)
        assert order == [f"{kind}{number}" for number in range(4) for kind in ("any", "own")]


async def test_a_session_whose_worker_dies_lives_on_another_and_what_needs_the_old_one_is_refused() -> None:
    async with Pool(SPEC) as pool:
        await ready(pool, 2)
        place = pool.place("s", "strict")
        first = await pool.with_options(place=place).run(work.pid)
        number = place.number
        assert await pool.with_options(place=place, pinned=number).run(work.pid) == first

        os.kill(first, signal.SIGKILL)
        await until(lambda: all(worker.pid != first for worker in pool.status().workers))
        with pytest.raises(WorkerDiedError) as lost:
            await pool.with_options(place=place, pinned=number).run(work.pid)
        assert (lost.value.code, lost.value.retryable) == ("place-lost", True)
        second = await pool.with_options(place=place).run(work.pid)
        assert second != first
        assert place.number == number + 1
        assert await pool.with_options(place=place, pinned=place.number).run(work.pid) == second


async def test_what_waits_for_a_worker_that_dies_goes_on_elsewhere_unless_it_needs_that_one(
    tmp_path: Path,
) -> None:
    async with Pool(SPEC) as pool:
        await ready(pool, 2)
        place = pool.place("s", "strict")
        blocked = await busy(pool, place, tmp_path / "begun")
        home, number = place.pid, place.number
        assert home is not None
        free_one = asyncio.create_task(pool.with_options(place=place).run(work.pid))
        pinned = asyncio.create_task(pool.with_options(place=place, pinned=number).run(work.pid))
        await until(lambda: pool.status().waiting == 2)
        os.kill(home, signal.SIGKILL)
        with pytest.raises(WorkerDiedError) as died:
            await blocked
        assert died.value.code != "place-lost"
        assert await free_one != home
        with pytest.raises(WorkerDiedError) as lost:
            await pinned
        assert lost.value.code == "place-lost"
        assert pool.status().waiting == 0


async def test_a_session_moves_when_its_worker_is_replaced_and_no_call_is_lost() -> None:
    async with Pool(SPEC) as pool:
        await ready(pool, 2)
        places = [pool.place(f"s{number}", "strict") for number in range(4)]
        before = [await pool.with_options(place=place).run(work.pid) for place in places]
        answers: list[int] = []
        stop = False

        async def keep_calling(place: Place) -> None:
            while not stop:
                answers.append(await pool.with_options(place=place).run(work.pid))

        calling = [asyncio.create_task(keep_calling(place)) for place in places]
        await pool.restart()
        await pool.restart()
        stop = True
        await asyncio.gather(*calling)
        after = [await pool.with_options(place=place).run(work.pid) for place in places]
        assert not {*before} & {*after}
        assert {*before} <= {*answers} | {*before}
        assert sum(worker.sessions for worker in pool.status().workers if worker.state is State.READY) == 4


async def test_a_recycled_worker_s_sessions_move_to_its_successor_or_another() -> None:
    spec = SPEC.replace(workers=1, recycling=Recycling(requests=3))
    async with Pool(spec) as pool:
        place = pool.place("s", "strict")
        pids = [await pool.with_options(place=place).run(work.pid) for _ in range(3)]
        while pids[-1] == pids[0]:  # until the deadline of the test
            pids.append(await pool.with_options(place=place).run(work.pid))
        assert len({*pids}) == place.number == 2


async def test_of_idle_workers_the_one_goes_that_no_session_lives_on() -> None:
    spec = SPEC.replace(workers=1, max_workers=2, scaling=Scaling(up_after=0.01, down_after=0.2))
    async with Pool(spec) as pool:
        place = pool.place("s", "strict")
        assert await pool.with_options(place=place).run(work.pid) == place.pid
        home = place.pid
        naps = [asyncio.create_task(pool.run(work.nap, 0.3)) for _ in range(4)]
        await ready(pool, 2)
        await asyncio.gather(*naps)
        await ready(pool, 1)
        assert [worker.pid for worker in pool.status().workers if worker.state is State.READY] == [home]
        assert await pool.with_options(place=place).run(work.pid) == home


async def test_a_caller_who_goes_away_frees_its_turn_at_the_worker(tmp_path: Path) -> None:
    async with Pool(SPEC.replace(queue=1)) as pool:
        await ready(pool, 2)
        place = pool.place("s", "strict")
        blocked = await busy(pool, place, tmp_path / "begun")
        waiting = asyncio.create_task(pool.with_options(place=place).run(work.pid))
        await until(lambda: pool.status().waiting == 1)
        with pytest.raises(PoolSaturated):
            await pool.with_options(place=place).run(work.pid)
        await free(waiting)
        assert pool.status().waiting == 0
        late = pool.with_options(place=place, timeout=0.1).run(work.pid)
        with pytest.raises(DspexError) as raised:
            await late
        assert (raised.value.code, raised.value.details["stage"]) == ("deadline-exceeded", "queue")
        await free(blocked)
        assert await pool.with_options(place=place).run(work.pid) == place.pid


async def test_what_waits_for_a_worker_is_refused_when_the_pool_closes(tmp_path: Path) -> None:
    async with Pool(SPEC) as pool:
        await ready(pool, 2)
        place = pool.place("s", "strict")
        blocked = await busy(pool, place, tmp_path / "begun")
        waiting = asyncio.create_task(pool.with_options(place=place).run(work.pid))
        await until(lambda: pool.status().waiting == 1)
        await pool.aclose(timeout=0)
        for task in (waiting, blocked):
            with pytest.raises(DspexError) as raised:
                await task
            assert raised.value.code == "pool-closed"


async def test_an_affinity_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="no affinity 'loose'"):
        Pool(SPEC).place("s", "loose")  # type: ignore[arg-type]
