"""Calls that are run again, and how their callers are told: never in silence, and only where one said so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.support import work
from tests.support.pools import QUICK, Chat, OpenPool
from tests.support.processes import until

import dspex
from dspex.errors import ConfigError, DeadlineExceeded, PoolClosedError, WorkerDiedError, WorkerStartError
from dspex.pool import (
    EchoRequest,
    Pool,
    PoolEvent,
    PoolSpec,
    PredictRequest,
    SyncPool,
    Timeouts,
)
from dspex.testing import ChatRequest, ModelServer, Stall

WORK = "tests.support.work:"
ASK = PredictRequest.of("question -> answer", {"question": "The sky's colour?"})
ANSWER = "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"
SPEC = PoolSpec(workers=1, max_inflight=8, timeouts=Timeouts(cancel=0.2, stop=2))


class SlowOnce:
    """Answers all requests but the first, which it leaves waiting."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, request: ChatRequest) -> str:
        self.requests += 1
        if self.requests == 1:
            await asyncio.Event().wait()
        return ANSWER


async def beside_one_that_hangs(pool: Pool, server: SlowOnce, neighbour: Coroutine[Any, Any, Any]) -> Any:
    """What becomes of `neighbour`, which has asked the LM when another call has its worker ended."""
    task = asyncio.ensure_future(neighbour)
    await until(lambda: server.requests == 1)
    with pytest.raises(DeadlineExceeded):
        await pool.with_options(timeout=0.3).run(work.block)
    return await task


async def test_a_prediction_is_not_made_twice_unless_its_caller_says_that_it_may_be() -> None:
    slow, events = SlowOnce(), list[PoolEvent]()
    async with ModelServer(slow) as server:
        lm = {"model": "openai/test", "api_base": server.api_base, "api_key": "none"}
        async with Pool(SPEC, lm=lm, on_event=events.append) as pool:
            with pytest.raises(WorkerDiedError, match="did not stop") as died:
                await beside_one_that_hangs(pool, slow, pool.call(ASK))
    assert slow.requests == 1
    assert not died.value.retryable
    assert "call.repeated" not in [event.name for event in events]


async def test_an_idempotent_prediction_is_made_again_and_counts_its_attempts() -> None:
    slow, events = SlowOnce(), list[PoolEvent]()
    async with ModelServer(slow) as server:
        lm = {"model": "openai/test", "api_base": server.api_base, "api_key": "none"}
        async with Pool(SPEC, lm=lm, on_event=events.append) as pool:
            (first,) = [worker.pid for worker in pool.status().workers]
            answer = await beside_one_that_hangs(pool, slow, pool.call(ASK, idempotent=True))
            assert "attempts" not in await pool.call(ASK)
    assert answer["attempts"] == 2
    assert answer["completions"] == [{"answer": "blue"}]
    (told,) = [event for event in events if event.name == "call.repeated"]
    assert (told.pid, told.slot) == (first, 0)
    assert told.reason.startswith("predict: a call of 'function' did not stop")


@pytest.mark.parametrize("fault", [Stall(), Stall("middle")])
async def test_an_idempotent_stream_is_run_again_until_its_first_part_has_come(fault: Stall) -> None:
    server, taken = ModelServer(ANSWER, faults=[fault]), list[Any]()

    async def take(pool: Pool) -> None:
        async for event in pool.stream(ASK, idempotent=True):
            taken.append(event)

    async with server:
        lm = {"model": "openai/test", "api_base": server.api_base, "api_key": "none"}
        async with Pool(SPEC, lm=lm) as pool:
            reading = asyncio.ensure_future(take(pool))
            await until(lambda: server.requests if fault.at == "start" else taken)
            with pytest.raises(DeadlineExceeded):
                await pool.with_options(timeout=0.3).run(work.block)
            if fault.at == "middle":
                with pytest.raises(WorkerDiedError) as died:
                    await reading
                assert not died.value.retryable
                assert len(server.requests) == 1
            else:
                await reading
                assert (taken[-1].answer, len(taken[-1].attempts)) == ("blue", 2)


async def test_a_module_says_by_an_option_that_its_calls_may_be_made_again() -> None:
    slow = SlowOnce()
    async with ModelServer(slow) as server:
        lm = dspex.LM("openai/test", api_base=server.api_base, api_key="none")
        async with dspex.Runtime(lm, pools=SPEC) as runtime:
            qa = dspex.Predict("question -> answer", runtime=runtime).with_options(route="python")
            await runtime.awarmup()
            pool = runtime._pools[0].pool
            assert pool is not None
            again = qa.with_options(idempotent=True).acall(question="The sky's colour?")
            prediction = await beside_one_that_hangs(pool, slow, again)
            assert (len(prediction.attempts), prediction.answer) == (2, "blue")

            once = await qa.acall(question="The sky's colour?")
            native = await qa.with_options(route="native").acall(question="The sky's colour?")
            assert [len(each.attempts) for each in (once, native)] == [1, 1]
            slow.requests = 0
            with pytest.raises(WorkerDiedError) as died:
                await beside_one_that_hangs(pool, slow, qa.acall(question="The sky's colour?"))
            assert not died.value.retryable


@pytest.mark.parametrize("idempotent", [True, False, None])
async def test_a_death_is_retryable_where_its_call_may_run_twice(
    open_pool: OpenPool, idempotent: bool | None
) -> None:
    pool = await open_pool()
    with pytest.raises(WorkerDiedError) as died:
        await pool.with_options(idempotent=idempotent).run(work.leave, 5)
    assert died.value.retryable is bool(idempotent)
    assert died.value.to_dict()["retryable"] is bool(idempotent)


@pytest.mark.parametrize("idempotent", [True, False, None])
@pytest.mark.parametrize("function", ["wait_for_ever", "block"])  # the worker says it first, or the pool does
async def test_time_that_ran_out_at_work_is_retryable_where_the_call_may_run_twice(
    open_pool: OpenPool, function: str, idempotent: bool | None
) -> None:
    pool = await open_pool(timeouts=QUICK.replace(cancel=0.2))
    with pytest.raises(DeadlineExceeded) as late:
        await pool.with_options(timeout=0.3, idempotent=idempotent).run(WORK + function)
    assert (late.value.stage, late.value.retryable) == ("worker", bool(idempotent))


async def test_time_that_ran_out_in_the_queue_is_retryable_since_nothing_was_done(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool(max_inflight=1)
    running = asyncio.ensure_future(pool.run(work.wait_for_ever))
    await until(lambda: pool.status().workers[0].inflight == 1)
    with pytest.raises(DeadlineExceeded) as late:
        await pool.with_options(timeout=0.1).run(work.add, 1, 2)
    assert (late.value.stage, late.value.retryable) == ("queue", True)
    running.cancel()


async def test_a_worker_with_a_call_that_does_not_stop_is_the_last_to_get_another(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool(workers=2, max_inflight=4, timeouts=QUICK.replace(cancel=60))
    await until(lambda: [worker.state.value for worker in pool.status().workers] == ["ready", "ready"])
    with pytest.raises(DeadlineExceeded):
        await pool.with_options(timeout=0.3).run(work.block)
    (stuck,) = [worker.pid for worker in pool.status().workers if worker.inflight]
    busy = [asyncio.ensure_future(pool.run(work.wait_for_ever)) for _ in range(3)]
    await until(lambda: sorted(worker.inflight for worker in pool.status().workers) == [1, 3])
    assert await pool.run(work.pid) != stuck

    busy.append(asyncio.ensure_future(pool.run(work.wait_for_ever)))  # the other one is full
    await until(lambda: sorted(worker.inflight for worker in pool.status().workers) == [1, 4])
    assert await pool.run(work.pid) == stuck
    for call in busy:
        call.cancel()


async def test_a_worker_whose_cancelled_call_has_stopped_gets_calls_as_before(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=2, max_inflight=4)
    await until(lambda: [worker.state.value for worker in pool.status().workers] == ["ready", "ready"])
    with pytest.raises(DeadlineExceeded):
        await pool.with_options(timeout=0.3).run(work.wait_for_ever)
    await until(lambda: not any(worker.inflight for worker in pool.status().workers))
    busy = [asyncio.ensure_future(pool.run(work.wait_for_ever)) for _ in range(4)]
    await until(lambda: sorted(worker.inflight for worker in pool.status().workers) == [2, 2])
    for call in busy:
        call.cancel()


async def test_whether_a_call_may_run_twice_is_true_or_false(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm())
    wrong: list[Any] = ["yes", 1, 0, []]
    misplaced: dict[str, Any] = {"idempotent": True}
    for value in wrong:
        with pytest.raises(ConfigError, match="True or False"):
            await pool.call(EchoRequest(1), idempotent=value)
        with pytest.raises(ConfigError, match="True or False"):
            dspex.Predict("question -> answer").with_options(idempotent=value)
    with pytest.raises(ConfigError, match=r"qa\.with_options\(idempotent=True\)"):
        dspex.Predict("question -> answer", **misplaced)


async def test_a_batch_begins_no_more_tasks_than_it_has_payloads(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_workers=4, max_inflight=1000)
    loop, begun = asyncio.get_running_loop(), []

    def count(loop: asyncio.AbstractEventLoop, work: Any, **settings: Any) -> asyncio.Task[Any]:
        begun.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **settings)

    loop.set_task_factory(count)
    try:
        assert await pool.batch(map(EchoRequest, [1, 2, 3])) == [1, 2, 3]
        assert len([name for name in begun if "batch" in name]) == 3
        assert await pool.batch([]) == []
        begun.clear()
        assert await pool.batch(map(EchoRequest, range(4100))) == list(range(4100))
        assert len([name for name in begun if "batch" in name]) == 4000
    finally:
        loop.set_task_factory(None)


async def test_a_batch_that_cannot_be_made_raises_once_and_makes_no_call(open_pool: OpenPool) -> None:
    pool = await open_pool()
    for wrong in ({"timeout": "5"}, {"timeout": "soon"}, {"session": 3}, {"idempotent": "yes"}):
        requests = iter(map(EchoRequest, [1, 2, 3]))
        with pytest.raises(ConfigError):
            await pool.batch(requests, **wrong)
        assert next(requests).value == 1, "no request has been drawn"
    with pytest.raises(ConfigError, match="write timeout=5, a number"):
        await pool.batch([EchoRequest(1)], timeout="5")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="or name a profile: 'interactive'"):
        await pool.call(EchoRequest(1), timeout="soon")  # type: ignore[arg-type]
    assert await pool.batch([EchoRequest(1)], timeout="interactive") == [1]


async def test_a_batch_on_a_pool_that_is_not_open_raises_at_once(open_pool: OpenPool) -> None:
    pool = await open_pool()
    await pool.aclose()
    for shut, what in ((pool, "it has been closed"), (Pool(SPEC), "it has not been started")):
        requests = iter(map(EchoRequest, [1, 2, 3]))
        with pytest.raises(PoolClosedError, match=what):
            await shut.batch(requests)
        assert next(requests).value == 1, "no request has been drawn"


async def test_a_pool_whose_start_failed_tells_why_to_whoever_calls_it() -> None:
    pool = Pool(PoolSpec(workers=1, preload=["tests.support.no_such_module"]))
    with pytest.raises(WorkerStartError, match="no_such_module"):
        await pool.start()
    with pytest.raises(PoolClosedError, match=r"its start failed: .*no_such_module") as refused:
        await pool.echo(1)
    assert "make another pool" in refused.value.hint
    with pytest.raises(PoolClosedError, match=r"its start failed: .*no_such_module"):
        await pool.start()


@pytest.mark.parametrize("kind", [Pool, SyncPool])
@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("general", r"PoolSpec\(name='general', \.\.\.\)"),
        (4, r"PoolSpec\(workers=4"),
        ({"workers": 4, "env": {"KEY": "secret"}}, "PoolSpec"),
        (PoolSpec, "PoolSpec"),
        ("", "PoolSpec"),
    ],
)
def test_a_pool_is_made_of_a_spec(kind: Any, given: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match="is made of a PoolSpec") as refused:
        kind(given)
    assert refused.value.code == "bad-pools"
    assert re.search(hint, refused.value.hint)
    assert "secret" not in str(refused.value)


def test_a_pool_has_no_public_name_that_only_its_workers_need() -> None:
    plumbing = {"worker_exited", "freed", "seconds", "serving", "exhausted"}
    assert not plumbing & set(dir(Pool))
