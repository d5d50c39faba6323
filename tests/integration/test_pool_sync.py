"""The pool without an event loop: the same names, blocking."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support import work
from tests.support.pools import QUICK, OpenPool
from tests.support.processes import children

from dspex import errors
from dspex.pool import FunctionRequest, PoolEvent, PoolSpec, State, SyncPool
from dspex.testing import ModelServer

WORK = "tests.support.work:"
OpenSyncPool = Callable[..., SyncPool]


@pytest.fixture
def open_sync_pool() -> Iterator[OpenSyncPool]:
    """Opens pools, closes them, and asserts that neither a process nor a thread of theirs is left."""
    before = {child.pid for child in children()}
    opened: list[SyncPool] = []

    def make(**settings: Any) -> SyncPool:
        pool = SyncPool(PoolSpec(**{"workers": 1, "timeouts": QUICK, **settings}))
        opened.append(pool)
        pool.start()
        return pool

    yield make
    for pool in opened:
        pool.close(timeout=0)
    assert [child for child in children() if child.pid not in before] == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("dspex-pool")] == []


async def test_real_dspy_answers_a_caller_who_has_no_loop() -> None:
    async with ModelServer("[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]") as server:
        lm = {"model": "openai/test", "api_base": server.api_base, "api_key": "none"}

        def script() -> Any:
            with SyncPool(PoolSpec(workers=1), lm=lm) as pool:
                assert pool.versions["dspy"]
                return pool.predict("question -> answer", {"question": "?"})

        answer = await asyncio.to_thread(script)
    assert answer["completions"] == [{"answer": "blue"}]


def test_calls_from_many_threads_share_a_worker_and_keep_their_answers(open_sync_pool: OpenSyncPool) -> None:
    pool = open_sync_pool()
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda i: pool.run(work.wait_a_moment, i), range(200)))
    assert answers == list(range(200))
    assert pool.status().workers[0].served == 200


def test_errors_deadlines_and_deaths_are_what_they_are_in_a_loop(open_sync_pool: OpenSyncPool) -> None:
    pool = open_sync_pool(timeouts=QUICK.replace(cancel=0.2))
    with pytest.raises(errors.RemoteError, match="ValueError: no such row"):
        pool.run(work.fail, "no such row")
    with pytest.raises(errors.DeadlineExceeded):
        pool.with_options(timeout=0.2).run(work.wait_for_ever)
    with pytest.raises(errors.WorkerDiedError, match="status 7"):
        pool.run(work.leave, 7)
    unknown: Any = "soon"
    with pytest.raises(errors.ConfigError, match="or name a profile"):
        pool.with_options(timeout=unknown).run(work.add, 1, 1)
    assert pool.with_options(timeout="interactive").run(work.add, 2, 3) == 5


def test_a_stream_comes_in_parts_and_its_end_stops_the_work(
    open_sync_pool: OpenSyncPool, tmp_path: Path
) -> None:
    pool = open_sync_pool()
    assert list(pool.stream(FunctionRequest.of(WORK + "count", 100))) == list(range(100))

    file = tmp_path / "progress"
    parts = pool.stream(FunctionRequest.of(WORK + "count_and_tell", str(file)))
    assert [next(parts), next(parts)] == [0, 1]
    parts.close()
    while not file.read_text().endswith(" closed"):
        pass

    failing = pool.stream(FunctionRequest.of(WORK + "count_then_fail", 2))
    assert [next(failing), next(failing)] == [0, 1]
    with pytest.raises(errors.RemoteError, match="no more numbers"):
        next(failing)


def test_batch_resize_and_restart(open_sync_pool: OpenSyncPool) -> None:
    pool = open_sync_pool()
    requests = [FunctionRequest.of(work.add, i, 1) for i in range(20)]
    assert pool.batch(requests) == list(range(1, 21))

    pool.resize(2)
    while [worker.state for worker in pool.status().workers] != [State.READY, State.READY]:
        pass
    before = {worker.pid for worker in pool.status().workers}
    pool.restart()
    assert before.isdisjoint({w.pid for w in pool.status().workers if w.state is State.READY})
    with pytest.raises(errors.ConfigError, match=r"pool\.general\.workers"):
        pool.resize(0)


def test_callbacks_sync_and_async_are_called_and_may_call_the_pool(open_sync_pool: OpenSyncPool) -> None:
    pool = open_sync_pool(max_inflight=1)

    def twice(number: int) -> Any:
        return pool.run(work.add, number, number)

    async def on_the_loop(number: int) -> Any:
        return pool.run(work.add, number, number)

    request = FunctionRequest.of("tests.support.programs:ask_back", "ask", 21)
    assert pool.call(request, host_functions={"ask": twice}) == 42
    # An async one runs on the pool's own loop, which must not wait for itself.
    with pytest.raises(errors.ConfigError, match="would wait for its own event loop") as refused:
        pool.call(request, host_functions={"ask": on_the_loop})
    assert refused.value.code == "blocking-in-loop"


def test_a_closed_pool_says_so_and_a_start_that_fails_leaves_nothing(open_sync_pool: OpenSyncPool) -> None:
    pool = open_sync_pool()
    pool.close()
    pool.close()
    assert pool.state is State.DEAD
    for use in (lambda: pool.echo(1), pool.restart, pool.start, pool.status):
        with pytest.raises(errors.PoolClosedError):
            use()
    with pytest.raises(errors.WorkerStartError, match="the model file is missing"):
        open_sync_pool(preload=["tests.support.broken_start"])

    never = SyncPool(PoolSpec(workers=1))
    with pytest.raises(errors.PoolClosedError):
        never.echo(1)
    never.close()
    with pytest.raises(errors.PoolClosedError):
        never.start()


def test_events_are_told(open_sync_pool: OpenSyncPool) -> None:
    events: list[PoolEvent] = []
    with SyncPool(PoolSpec(workers=1), on_event=events.append):
        pass
    assert [events[0].name, events[-1].name] == ["worker.starting", "pool.dead"]


async def test_a_view_serves_the_threads_of_a_service_that_has_a_loop(open_pool: OpenPool) -> None:
    pool = await open_pool()
    view = SyncPool.of(pool)

    assert await asyncio.to_thread(view.run, work.add, 2, 3) == 5
    with pytest.raises(errors.ConfigError) as refused:
        view.run(work.add, 2, 3)
    assert refused.value.code == "blocking-in-loop"
    with view, pytest.raises(errors.ConfigError, match="a view"):
        view.close()
    assert await pool.echo(1) == 1
    with pytest.raises(errors.PoolClosedError):
        SyncPool.of(type(pool)()).echo(1)
