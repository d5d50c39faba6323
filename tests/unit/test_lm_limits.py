"""Rate limits of an LM: who waits, for how long, in which order, and what becomes of those who leave.

That the limits are kept over any time is shown in Rust (`rust/core/src/router/limiter.rs`), without a clock.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

import dspex
from dspex import LM
from dspex._core import Limiter as CoreLimiter
from dspex.errors import ConfigError, LMRateLimitError
from dspex.lm import LMRequest, RateLimit
from dspex.lm._limiter import Limiter, Turn
from dspex.testing import ChatRequest, Cut, HttpError, ModelServer, no_waiting

MESSAGES = [{"role": "user", "content": "say it"}]
ONE_AT_ONCE = RateLimit(concurrency=1)
SLOW = RateLimit(requests_per_minute=1, burst=1)
"""One call, and the next one a minute later."""
QUICK = RateLimit(requests_per_minute=3_000, burst=1 / 3_000)
"""Fifty a second, one at once."""


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(answer="it is said") as server:
        yield server


@pytest.fixture
async def lm(server: ModelServer) -> AsyncIterator[LM]:
    async with made(server, SLOW) as lm:
        yield lm


def made(server: ModelServer, limits: RateLimit | None, **settings: Any) -> LM:
    return LM("openai/m", api_base=server.api_base, api_key="k", limits=limits, **settings)


async def whole(lm: LM, request: LMRequest) -> float:
    return (await lm.complete(request)).waited


async def streamed(lm: LM, request: LMRequest) -> float:
    async with aclosing(lm.stream(request)) as deltas:
        return sum([delta.waited async for delta in deltas])


WAYS = pytest.mark.parametrize("ask", [whole, streamed])


def asked(timeout: float | None = 60.0, **settings: Any) -> LMRequest:
    return LMRequest(MESSAGES, settings, timeout)


def leave(turn: Turn) -> None:
    with turn:
        pass


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


@WAYS
async def test_a_call_that_has_no_turn_in_its_time_is_refused_at_once_and_told_when(
    server: ModelServer, lm: LM, ask: Any
) -> None:
    assert await ask(lm, asked()) == 0.0
    with pytest.raises(
        LMRateLimitError, match=r"no turn within the 30 s that the call has; its turn would"
    ) as caught:
        await ask(lm, asked(30.0))
    error = caught.value
    assert (error.code, error.category, error.http_status) == ("lm-limit", "transient", 429)
    assert error.retry_after is not None
    assert 30 < error.retry_after <= 60
    assert len(server.requests) == 1


@WAYS
async def test_without_limits_nobody_waits(server: ModelServer, ask: Any) -> None:
    async with made(server, None) as lm:
        assert [await ask(lm, asked()) for _ in range(20)] == [0.0] * 20
        assert not lm.is_busy()


@WAYS
async def test_calls_wait_their_turn_in_the_order_in_which_they_came_and_say_how_long(
    server: ModelServer, ask: Any
) -> None:
    order: list[int] = []

    async def call(lm: LM, number: int) -> float:
        waited: float = await ask(lm, asked())
        order.append(number)
        return waited

    async with made(server, QUICK) as lm, asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(call(lm, number)) for number in range(5)]
    waits = [task.result() for task in calls]
    assert waits == sorted(waits)
    assert waits[0] == 0.0
    assert waits[1] > 0.0
    arrived = [request.received for request in server.requests]
    assert len(arrived) == 5
    assert order[0] == 0
    assert arrived[-1] - arrived[0] > 0.05  # at least three turns of 20 ms


async def test_callers_take_turns(server: ModelServer) -> None:
    going, order = threading.Event(), []

    def answer(request: ChatRequest) -> str:
        order.append(request.body["user"])
        going.wait(30)
        return "said"

    server._answer = type(server._answer)(answer)
    async with made(server, ONE_AT_ONCE) as lm:
        first = asyncio.create_task(lm.complete(asked(user="first")))
        await until(lambda: order)
        assert lm._limiter is not None
        calls = []
        for user in ("a", "a", "a", "b", "b", "c"):
            calls.append(asyncio.create_task(lm.complete(asked(user=user))))
            waiting = len(calls)
            await until(lambda: lm._limiter._core.counts()[1] == waiting)  # noqa: B023
        assert lm.is_busy()
        going.set()
        await asyncio.gather(first, *calls)
    assert order == ["first", "a", "b", "c", "a", "b", "a"]


@WAYS
async def test_a_call_that_leaves_gives_its_turn_to_the_next(server: ModelServer, ask: Any) -> None:
    going = asyncio.Event()

    async def answer(request: ChatRequest) -> str:
        await going.wait()
        return "said"

    async with ModelServer(answer) as slow, made(slow, ONE_AT_ONCE) as lm:
        limiter = lm._limiter
        assert limiter is not None
        calls = [asyncio.create_task(ask(lm, asked())) for _ in range(3)]
        await until(lambda: limiter._core.counts() == (1, 2))
        calls[1].cancel()
        await asyncio.wait(calls[1:2])
        assert limiter._core.counts() == (1, 1)
        calls[0].cancel()  # under way: its place is free with it
        await until(lambda: limiter._core.counts() == (1, 0))
        going.set()
        assert await calls[2] > 0
        assert limiter._core.counts() == (0, 0)
        assert not limiter._waiting


async def test_a_call_that_leaves_in_the_moment_of_its_turn_gives_it_back() -> None:
    limiter = Limiter(ONE_AT_ONCE, "m")
    first = await limiter.enter(0, 1, {}, 30.0)
    waits = asyncio.create_task(limiter.enter(0, 1, {}, 30.0))
    await asyncio.sleep(0)
    leave(first)  # which grants the turn, of which the task has yet to hear
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert limiter._core.counts() == (0, 0)


async def test_a_call_whose_turn_did_not_come_in_its_time_leaves_the_line() -> None:
    limiter = Limiter(ONE_AT_ONCE, "m")
    first = await limiter.enter(0, 1, {}, 30.0)
    with pytest.raises(
        LMRateLimitError, match=r"no turn within the 0\.01 s that the call has$|has \["
    ) as caught:
        await limiter.enter(0, 1, {}, 0.01)
    assert caught.value.retry_after is None
    assert limiter._core.counts() == (1, 0)
    leave(first)
    assert (await limiter.enter(0, 1, {}, 0.01)).waited == 0.0


async def test_a_call_that_waits_holds_nothing_when_it_has_left() -> None:
    class Settings(dict[str, Any]):
        pass

    limiter = Limiter(ONE_AT_ONCE, "m")
    await limiter.enter(0, 1, {}, 30.0)
    settings = Settings()
    held = weakref.ref(settings)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(LMRateLimitError):
            await limiter.enter(0, 1, settings, 0.01)
        del settings
        assert held() is None
    finally:
        gc.enable()


# --- tokens ----------------------------------------------------------------------------------------------


async def test_tokens_are_estimated_before_and_corrected_by_the_usage_after(server: ModelServer) -> None:
    # A token for four bytes of the body, some thirty, and as many as the answer may have.
    limits = RateLimit(tokens_per_minute=1_000, burst=1)
    async with made(server, limits, max_tokens=900) as lm:
        await lm.complete(asked())
        # Five tokens were taken and not nine hundred, and the next answers are expected to be as long.
        assert [await whole(lm, asked(5.0)) for _ in range(3)] == [0.0] * 3
    async with made(server, limits, max_tokens=2_000) as lm:
        server.faults.push(Cut())  # of which nobody knows what it took
        with pytest.raises(dspex.errors.LMConnectionError):
            await lm.complete(asked())
        with pytest.raises(LMRateLimitError) as caught:
            await lm.complete(asked(60.0))
        assert caught.value.code == "lm-limit"
    async with made(server, limits, max_tokens=2_000) as lm:
        server.faults.push(HttpError(500))  # which took nothing
        with pytest.raises(dspex.errors.LMServerError):
            await lm.complete(asked())
        assert await whole(lm, asked(60.0)) == 0.0


async def test_tokens_of_streams_count_too(server: ModelServer) -> None:
    async with made(server, RateLimit(tokens_per_minute=1_000, burst=1), max_tokens=900) as lm:
        assert [await streamed(lm, asked(5.0)) for _ in range(3)] == [0.0] * 3


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"total_tokens": 7, "completion_tokens": 3}, (7.0, 3.0)),
        ({"prompt_tokens": 4, "completion_tokens": 2}, (6.0, 2.0)),
        ({}, (None, None)),
        ({"total_tokens": "many", "completion_tokens": True}, (None, None)),
        ({"total_tokens": float("nan"), "prompt_tokens": -1}, (None, None)),
    ],
)
async def test_what_a_server_says_of_tokens_is_looked_at(usage: Any, told: Any, monkeypatch: Any) -> None:
    limiter = Limiter(RateLimit(tokens_per_minute=10), "m")
    turn = await limiter.enter(0, 1, {"max_tokens": "junk", "user": {}}, 1.0)
    heard = []
    monkeypatch.setattr(limiter, "done", lambda call, tokens, answer: heard.append((tokens, answer)))
    with turn:
        turn.usage = usage
    assert heard == [told]


# --- where and for whom ----------------------------------------------------------------------------------


def test_calls_of_several_threads_and_loops_share_the_limits(server: ModelServer) -> None:
    lm = made(server, RateLimit(concurrency=2))
    seen, most = [0], [0]
    lock = threading.Lock()

    def answer(request: ChatRequest) -> str:
        with lock:
            seen[0] += 1
            most[0] = max(most[0], seen[0])
        with lock:
            seen[0] -= 1
        return "said"

    server._answer = type(server._answer)(answer)

    def run() -> None:
        async def calls() -> None:
            async with lm.with_settings() as own:
                await asyncio.gather(*(own.complete(asked()) for _ in range(10)))

        asyncio.run(calls())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert len(server.requests) == 40
    assert most[0] <= 2
    assert lm._limiter is not None
    assert lm._limiter._core.counts() == (0, 0)


def test_a_loop_that_ended_with_calls_in_line_holds_nobody_up() -> None:
    limiter = Limiter(ONE_AT_ONCE, "m")
    loop = asyncio.new_event_loop()
    first = loop.run_until_complete(limiter.enter(0, 1, {}, 30.0))
    lost = loop.create_task(limiter.enter(0, 1, {}, 30.0))
    loop.run_until_complete(asyncio.sleep(0))

    async def here() -> None:
        waits = asyncio.create_task(limiter.enter(0, 1, {}, 30.0))
        await asyncio.sleep(0)
        loop.close()
        leave(first)
        leave(await waits)

    asyncio.run(here())
    assert limiter._core.counts() == (0, 0)
    lost._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_lms_made_of_an_lm_share_its_limits_and_a_pickle_has_its_own(server: ModelServer) -> None:
    async with made(server, SLOW) as lm:
        other = lm.with_settings(temperature=0.5)
        assert other.limits == lm.limits == SLOW
        await lm.complete(asked())
        assert other.is_busy()
        with pytest.raises(LMRateLimitError):
            await other.complete(asked(1.0))
        again = pickle.loads(pickle.dumps(lm))
        assert again.limits == SLOW
        assert not again.is_busy()
        assert repr(SLOW) in repr(lm)
        assert lm != made(server, None)
        assert "limits" not in lm.settings_for_worker()
        await other.aclose()


async def test_a_predictor_s_call_says_what_the_wait_cost(server: ModelServer) -> None:
    server._answer = type(server._answer)("[[ ## answer ## ]]\nblue")
    async with dspex.Runtime(made(server, QUICK)):
        predict = dspex.Predict("question -> answer")
        straight, waited = await asyncio.gather(predict.acall(question="q"), predict.acall(question="r"))
        stream = predict.astream(question="s")
        events = [event async for event in stream]
    assert "limit" not in straight.timings
    assert 0 < waited.timings["limit"] <= waited.timings["lm"]
    last = events[-1]
    assert isinstance(last, dspex.Prediction)
    assert last.timings.get("limit", 0.0) <= last.timings["lm"]


async def test_a_group_asks_a_deployment_whose_limits_leave_room(server: ModelServer) -> None:
    with ModelServer(answer="it is said") as spare:
        group = LM.group([made(server, SLOW), made(spare, SLOW)], strategy="ordered")
        async with group:
            assert [await whole(group, asked(1.0)) for _ in range(2)] == [0.0, 0.0]  # type: ignore[arg-type]
            with pytest.raises(dspex.errors.LMUnavailable) as caught:
                await group.complete(asked(1.0))
            assert caught.value.retry_after is not None
            assert [row.refused for row in group.counts()] == [1, 1]
            assert [row.state for row in group.counts()] == ["closed", "closed"]
    assert (len(server.requests), len(spare.requests)) == (1, 1)


async def test_a_group_whose_limits_have_no_turn_in_time_refuses_also_calls_that_may_wait(
    server: ModelServer,
) -> None:
    async with LM.group([made(server, SLOW)], wait=True) as group:
        await group.complete(asked(1.0))
        with pytest.raises(dspex.errors.LMUnavailable) as caught:
            await group.complete(asked(1.0))
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 1
    assert [row.refused for row in group.counts()] == [1]


async def test_a_test_takes_the_waiting_out(server: ModelServer) -> None:
    async with made(server, RateLimit(requests_per_minute=1, burst=1)) as lm:
        with no_waiting() as waited:
            for _ in range(3):
                assert await whole(lm, asked(1_000.0)) == 0.0
    assert [round(seconds) for seconds in waited] == [60, 120]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "limits nothing"),
        ({"requests_per_minute": 0}, "requests_per_minute must be a number above 0, not 0"),
        ({"requests_per_minute": True}, "requests_per_minute"),
        ({"tokens_per_minute": float("inf")}, "tokens_per_minute"),
        ({"concurrency": 1.5}, "concurrency must be a count"),
        ({"concurrency": 1, "burst": 0}, "burst must be a share above 0"),
        ({"concurrency": 1, "burst": 1.5}, "burst"),
    ],
)
def test_a_limit_s_settings_are_looked_at(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        RateLimit(**settings)
    assert caught.value.code == "bad-rate-limit"


def test_what_is_no_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match="limits must be a RateLimit, not 60"):
        LM("openai/m", limits=60)  # type: ignore[arg-type]


def test_the_core_s_limiter_goes_by_the_clock_that_it_is_given() -> None:
    now = [0.0]
    core = CoreLimiter(60.0, None, None, 1 / 60, clock=lambda: now[0])
    first, granted, _ = core.ask(0, 0, 1, None, None)
    assert granted
    second, granted, wait = core.ask(0, 0, 1, None, 5.0)
    assert (granted, wait) == (False, 1.0)
    assert core.ask(0, 0, 1, None, 1.5) == (None, False, 2.0)
    assert core.turns() == ([], (second, 1.0))
    now[0] = 1.0
    assert core.turns() == ([second], None)
    assert first is not None
    core.done(first)
    assert core.counts() == (1, 0)
