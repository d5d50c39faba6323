"""What a call takes along to its worker and back: its time, its trace, its context, its end."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from tests.support import programs
from tests.support.pools import QUICK, OpenPool
from tests.support.processes import until

from dspex import errors
from dspex.pool import EchoRequest, FunctionRequest, SyncPool
from dspex.telemetry import current_trace, use_trace

PROGRAMS = "tests.support.programs:"
WORK = "tests.support.work:"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-a3ce929d0e0e4736-01"

customer: ContextVar[str] = ContextVar("customer", default="nobody")


async def test_a_nested_call_has_no_more_time_than_the_call_that_waits_for_it(open_pool: OpenPool) -> None:
    pool = await open_pool(max_inflight=1, timeouts=QUICK.replace(cancel=0.2))
    view = SyncPool.of(pool)
    seen: list[Any] = []

    async def ask() -> float:
        left, _ = await pool.with_options(timeout=600).run(programs.time_and_trace)
        return left or 0.0

    async def ask_for_ever() -> None:
        await pool.call(FunctionRequest.of(WORK + "wait_for_ever"), timeout=600)

    def ask_in_a_thread() -> None:
        try:
            view.call(FunctionRequest.of(WORK + "wait_for_ever"), timeout=600)
        except errors.DspexError as err:
            seen.append(err)
            raise

    asking = pool.with_options(host_functions={"ask": ask}, timeout=20)
    assert 0 < await asking.run(programs.ask_back, "ask") <= 20
    assert 500 < await ask() <= 600
    for function in (ask_for_ever, ask_in_a_thread):
        asking = pool.with_options(host_functions={"ask": function}, timeout=0.4)
        with pytest.raises(errors.DeadlineExceeded):
            await asking.run(programs.ask_back, "ask")
    await until(lambda: seen != [])
    assert isinstance(seen[0], errors.DeadlineExceeded)


async def test_what_a_call_back_leaves_running_is_nobodys_nested_call(open_pool: OpenPool) -> None:
    pool = await open_pool()
    go = asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def later() -> Any:
        await go.wait()
        return await pool.with_options(timeout=600).run(programs.time_and_trace)

    async def leave() -> None:
        left.append(asyncio.create_task(later()))

    await pool.with_options(host_functions={"leave": leave}, timeout=20).run(programs.ask_back, "leave")
    go.set()
    seconds, _ = await left[0]
    assert seconds > 500


async def test_call_backs_may_nest_deeper_than_a_default_executor_has_threads(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_inflight=1)
    view = SyncPool.of(pool)

    def deeper(depth: int) -> int:
        if depth == 0:
            return 0
        request = FunctionRequest.of(PROGRAMS + "ask_back_from_a_thread", "deeper", depth - 1)
        return 1 + int(view.call(request, host_functions={"deeper": deeper}))

    # The default executor has cores + 4 threads, 32 at most.
    assert (
        await pool.with_options(host_functions={"deeper": deeper}, timeout=50).run(
            programs.ask_back, "deeper", 40
        )
        == 40
    )


async def test_a_call_back_runs_in_the_context_of_its_call_and_alone_in_it(open_pool: OpenPool) -> None:
    pool = await open_pool()

    async def who(number: int) -> tuple[str, int]:
        before = customer.get()
        customer.set(f"guest {number}")
        await asyncio.sleep(0)
        return before, number

    def who_in_a_thread() -> str:
        return customer.get()

    customer.set("ada")
    host_functions: dict[str, Any] = {"who": who, "thread": who_in_a_thread}
    assert await pool.with_options(host_functions=host_functions).run(programs.ask_back_many, "who", 5) == [
        ("ada", i) for i in range(5)
    ]
    assert await pool.with_options(host_functions=host_functions).run(programs.ask_back, "thread") == "ada"


async def test_a_trace_reaches_the_worker_and_comes_back_in_call_backs_and_nested_calls(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool()
    headers = {"traceparent": PARENT, "tracestate": "congo=t61rcWkgMzE"}

    async def trace() -> Any:
        _, nested = await pool.run(programs.time_and_trace)
        return current_trace(), nested

    def trace_in_a_thread() -> Any:
        return current_trace()

    host_functions: dict[str, Any] = {"trace": trace, "thread": trace_in_a_thread}
    assert (await pool.run(programs.time_and_trace))[1] is None
    assert (await pool.with_options(trace=PARENT).run(programs.time_and_trace))[1] == {"traceparent": PARENT}
    asking = pool.with_options(host_functions=host_functions)
    assert await asking.run(programs.ask_back, "trace") == (None, None)
    with use_trace(headers):
        assert (await pool.run(programs.time_and_trace))[1] == headers
        assert await asking.run(programs.ask_back, "trace") == (headers, headers)
        parts = pool.stream(FunctionRequest.of(PROGRAMS + "stream_trace"))
        assert [part async for part in parts] == [headers]
        # What is said with the call goes before what is around it.
        other = pool.with_options(trace=OTHER)
        assert (await other.run(programs.time_and_trace))[1] == {"traceparent": OTHER}
        assert await asyncio.to_thread(
            SyncPool.of(pool).call,
            FunctionRequest.of(PROGRAMS + "ask_back_from_a_thread", "thread"),
            host_functions=host_functions,
        ) == headers  # fmt: skip
    there = await asking.with_options(trace=PARENT).run(programs.ask_back, "thread")
    assert there == {"traceparent": PARENT}


async def test_the_trace_of_a_call_back_is_the_one_its_work_is_in_by_then(open_pool: OpenPool) -> None:
    pool = await open_pool()

    async def trace() -> Any:
        return current_trace()

    host_functions: dict[str, Any] = {"trace": trace}
    asking = pool.with_options(host_functions=host_functions, trace=PARENT)
    assert await asking.run(programs.ask_back_in_a_trace, "trace", OTHER) == {"traceparent": OTHER}
    traces = [PARENT if i % 2 else None for i in range(20)]
    many = (pool.with_options(trace=given).run(programs.time_and_trace) for given in traces)
    assert [trace for _, trace in await asyncio.gather(*many)] == [None, {"traceparent": PARENT}] * 10


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "nonsense",
        PARENT.upper(),
        "ff" + PARENT[2:],
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        {},
        {"tracestate": "a=b"},
        {"traceparent": PARENT, "cookie": "x"},
        {"traceparent": PARENT, "baggage": "x" * 8193},
    ],
)
def test_what_is_no_trace_is_refused(trace: Any) -> None:
    with pytest.raises(errors.ConfigError) as refused, use_trace(trace):
        pass
    assert refused.value.code == "bad-trace"


async def test_a_call_with_a_bad_trace_takes_no_place(open_pool: OpenPool) -> None:
    pool = await open_pool(max_inflight=1)
    with pytest.raises(errors.ConfigError):
        await pool.call(EchoRequest(1), trace="nonsense")
    assert pool.status().workers[0].inflight == 0
    assert await pool.echo(1) == 1


@pytest.mark.parametrize("timeout", [None, 0.3], ids=["cancelled", "out of time"])
async def test_work_that_waits_in_a_thread_for_the_service_ends_with_its_call_and_not_its_worker(
    open_pool: OpenPool, tmp_path: Path, timeout: float | None
) -> None:
    pool = await open_pool(max_inflight=1)
    file = tmp_path / "told"
    (before,) = pool.status().workers
    asked = asyncio.Event()

    async def never() -> None:
        asked.set()
        await asyncio.Event().wait()

    ask = pool.with_options(host_functions={"never": never}, timeout=timeout).run(
        programs.ask_back_and_tell, "never", str(file)
    )
    call = asyncio.ensure_future(ask)
    await asked.wait()
    if timeout is None:
        call.cancel()
    with pytest.raises((asyncio.CancelledError, errors.DeadlineExceeded)):
        await call

    await until(lambda: pool.status().workers[0].inflight == 0)
    assert "the call is over or is to stop" in file.read_text()
    assert pool.status().workers[0].pid == before.pid


async def leave() -> None:
    raise SystemExit(3)


def leave_from_a_thread() -> None:
    raise SystemExit(3)


def stop_iterating() -> None:
    raise StopIteration("no more")


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (leave, "SystemExit: 3"),
        (leave_from_a_thread, "SystemExit: 3"),
        (stop_iterating, "StopIteration"),
        (cancel_itself, "was cancelled"),
    ],
)
async def test_whatever_a_call_back_raises_is_an_answer(
    open_pool: OpenPool, function: Any, says: str
) -> None:
    pool = await open_pool()
    with pytest.raises(errors.DspexError, match=says):
        await pool.with_options(host_functions={"fail": function}, timeout=20).run(programs.ask_back, "fail")
    assert await pool.echo(1) == 1


async def test_a_stop_iteration_of_the_work_is_an_answer_too(open_pool: OpenPool) -> None:
    pool = await open_pool()
    with pytest.raises(errors.RemoteError, match="StopIteration"):
        await pool.call(FunctionRequest.of(WORK + "stop_iterating"), timeout=20)


async def test_a_question_that_outlives_its_call_is_answered_with_that(open_pool: OpenPool) -> None:
    pool = await open_pool()

    async def never() -> None:
        await asyncio.Event().wait()

    await pool.with_options(host_functions={"never": never}).run(programs.leave_a_question_behind, "never")
    assert "the call is over" in await pool.run(programs.what_was_left)
