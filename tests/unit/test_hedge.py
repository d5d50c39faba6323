"""Calls that are made a second time while the first is under way: which, when, how many, and who answers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from tests.support.processes import until
from tests.support.sides import Gate, operation

import dspex
from dspex.errors import ConfigError, LMServerError
from dspex.router import Breaker, Hedge, Limits, Retry, Router
from dspex.testing import ScriptedLM

AT_ONCE = Hedge(after=0.001, at_most=1.0)


async def settled() -> None:
    """Let the loop do all that it can do without waiting."""
    for _ in range(50):
        await asyncio.sleep(0)


async def there(target: Gate, calls: int) -> None:
    await until(lambda: len(target.calls) >= calls)


def start(router: Router, *, timeout: float = 60.0, **options: Any) -> Any:
    return asyncio.create_task(router.dispatch(operation(**{"idempotent": True, **options}), timeout))


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_first_answer_wins_and_the_other_attempt_is_cancelled(winner: int) -> None:
    target = Gate()
    router = Router([target], hedge=AT_ONCE)
    call = start(router)
    await until(lambda: len(target.calls) == 2)
    target.let(winner, f"from {winner}")
    prediction = await call
    assert prediction.answer == f"from {winner}"
    assert "hedge" in prediction.timings
    assert bool(prediction.route_reason) == bool(winner)
    await until(lambda: router.counts()[0].in_flight == 0)
    assert (target.cancelled, router.counts()[0][1:5]) == (1, (0, 1, 0, 1))


async def test_a_call_that_answers_in_time_is_made_once() -> None:
    target = Gate()
    router = Router([target], hedge=Hedge(after=30, at_most=1.0))
    call = start(router)
    await until(lambda: target.calls)
    target.let(0)
    assert "hedge" not in (await call).timings
    assert len(target.calls) == 1


@pytest.mark.parametrize("options", [{"idempotent": False}, {"sink": object()}])
async def test_only_what_is_idempotent_and_no_stream_is_made_twice(options: Any) -> None:
    target = Gate()
    router = Router([target], hedge=Hedge(after=0, at_most=1.0))
    call = start(router, **options)
    await until(lambda: target.calls)
    await settled()
    target.let(0)
    await call
    assert len(target.calls) == 1


@pytest.mark.parametrize(("elsewhere", "route"), [(True, "pool:p"), (False, "native")])
async def test_the_second_goes_elsewhere_only_where_that_is_asked_for(elsewhere: bool, route: str) -> None:
    native, pool = Gate(), Gate("pool:p", "python")
    router = Router([native, pool], hedge=Hedge(after=0.001, at_most=1.0, elsewhere=elsewhere))
    call = start(router)
    await until(lambda: len(native.calls) + len(pool.calls) == 2)
    (pool if elsewhere else native).let(-1)
    prediction = await call
    assert prediction.route == route
    assert re.fullmatch(r"native had not answered after 0\.\d+ s", prediction.route_reason)


async def test_a_route_of_the_call_s_own_holds_for_the_second_too() -> None:
    native, pool = Gate(), Gate("pool:p", "python")
    router = Router([native, pool], hedge=Hedge(after=0.001, at_most=1.0, elsewhere=True))
    call = start(router, route="native")
    await until(lambda: len(native.calls) == 2)
    native.let(1)
    await call
    assert pool.calls == []


async def test_where_one_fails_the_other_is_waited_for_and_where_both_do_the_first_error_is_raised() -> None:
    for failing, error in ((0, LMServerError("first")), (1, LMServerError("second"))):
        target = Gate()
        call = start(Router([target], hedge=AT_ONCE))
        await there(target, 2)
        target.let(failing, error)
        await settled()
        assert not call.done()
        target.let(1 - failing, "blue")
        assert (await call).answer == "blue"
    target = Gate()
    call = start(Router([target], hedge=AT_ONCE))
    await until(lambda: len(target.calls) == 2)
    target.let(1, LMServerError("second"))
    target.let(0, LMServerError("first"))
    with pytest.raises(LMServerError, match="first"):
        await call


async def test_a_call_that_fails_before_it_is_late_is_not_made_twice() -> None:
    target = Gate()
    call = start(Router([target], hedge=Hedge(after=30, at_most=1.0)))
    await until(lambda: target.calls)
    target.let(0, LMServerError("down"))
    with pytest.raises(LMServerError):
        await call
    assert len(target.calls) == 1


async def test_a_caller_that_leaves_ends_both() -> None:
    target = Gate()
    router = Router([target], hedge=AT_ONCE)
    call = start(router)
    await until(lambda: len(target.calls) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: target.cancelled == 2)
    assert router.counts()[0][1:5] == (0, 0, 0, 2)


async def calls_that_are_late(router: Router, target: Gate, number: int) -> int:
    """How many of so many late calls were made twice."""
    twice = 0
    for _ in range(number):
        before = len(target.calls)
        call = start(router)
        await there(target, before + 1)
        await settled()
        twice += len(target.calls) - before - 1
        target.let(before)
        await call
    return twice


async def test_no_more_are_made_twice_than_the_share() -> None:
    target = Gate()
    router = Router([target], hedge=Hedge(after=0, at_most=0.25))
    # One is there from the beginning, and each call adds a quarter.
    assert await calls_that_are_late(router, target, 40) in (10, 11)


async def test_a_second_attempt_counts_against_the_budget_of_retries() -> None:
    target = Gate()
    retry = Retry(share=0.1, per_second=0)
    router = Router([target], hedge=Hedge(after=0, at_most=1.0), retry=retry)
    assert await calls_that_are_late(router, target, 50) in (4, 5)


async def test_a_quantile_means_nothing_before_there_are_answers_and_is_learned_from_them() -> None:
    target, now = Gate(), [0.0]
    router = Router([target], hedge=Hedge(after="p95", at_most=1.0), clock=lambda: now[0])
    for number in range(30):
        call = start(router)
        await there(target, number + 1)
        now[0] += 0.002
        target.let(number)
        assert "hedge" not in (await call).timings
    assert router._hedges is not None
    ticket, _ = router.decide(operation(), 0, 0)
    after = router._hedges.after(ticket)
    assert after is not None
    assert 0.002 <= after <= 0.002 * 33 / 32  # to the width of the histogram's classes
    call = start(router)  # the target answers within that time; this one does not
    await there(target, 32)
    target.let(31)
    assert "hedge" in (await call).timings


async def test_a_hedge_never_makes_a_call_fail() -> None:
    every: list[dict[str, Any]] = [{"limits": Limits(in_flight=1)}, {"breaker": Breaker(minimum=1)}]
    for settings in every:
        target = Gate("pool:p", "python")
        router = Router([target], hedge=AT_ONCE, **settings)
        call = start(router)
        while not target.calls:
            await asyncio.sleep(0)  # it has not been late yet
        if "breaker" in settings:
            router.core.force(0, "open")
        await settled()
        assert len(target.calls) == 1
        target.let(0)
        assert (await call).answer == "blue"


async def test_a_call_that_has_waited_for_its_place_may_be_late_from_then_on() -> None:
    target = Gate()
    router = Router([target], hedge=AT_ONCE, limits=Limits(in_flight=2, wait=60))
    others = [start(router, idempotent=False) for _ in range(2)]
    await there(target, 2)
    call = start(router)
    await settled()
    assert len(target.calls) == 2
    for number in (0, 1):  # a place for each of its attempts
        target.let(number)
    await there(target, 4)
    target.let(3, "second")
    prediction = await call
    assert (prediction.answer, {"place", "hedge"} <= set(prediction.timings)) == ("second", True)
    await asyncio.gather(*others)
    await until(lambda: router.counts()[0].in_flight == 0)


async def test_a_runtime_that_closes_ends_both_attempts() -> None:
    asked = []

    async def answer(request: Any) -> str:
        asked.append(request)
        await asyncio.Event().wait()
        return ""

    runtime = dspex.Runtime(ScriptedLM(answer), hedge=AT_ONCE)
    await runtime.aopen()
    predict = dspex.Predict("question -> answer", runtime=runtime).with_options(idempotent=True)
    call = asyncio.create_task(predict.acall(question="q"))
    await until(lambda: len(asked) == 2)
    await runtime.aclose()
    with pytest.raises(ConfigError) as caught:
        await call
    assert caught.value.code == "runtime-closed"


def test_blocking_calls_are_hedged_too() -> None:
    asked: list[Any] = []
    late = asyncio.Event()

    async def answer(request: Any) -> str:
        asked.append(request)
        if len(asked) == 1:
            await late.wait()
        return "[[ ## answer ## ]]\nblue"

    with dspex.Runtime(ScriptedLM(answer), hedge=AT_ONCE):
        prediction = dspex.Predict("question -> answer").with_options(idempotent=True)(question="q")
    assert (prediction.answer, len(asked)) == ("blue", 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"after": "95"}, "after of a hedge must be a quantile such as \"p95\", or seconds, not '95'"),
        ({"after": "p0"}, "after"),
        ({"after": "p100"}, "after"),
        ({"after": -1}, "after must be a number of seconds from 0"),
        ({"at_most": 2}, "at_most of a hedge must be a share from 0 to 1, not 2"),
        ({"elsewhere": 1}, "elsewhere of a hedge must be True or False"),
    ],
)
def test_a_hedge_s_settings_are_looked_at(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Hedge(**settings)


def test_quantiles_are_written_as_percent() -> None:
    assert [Hedge(after=text).quantile for text in ("p50", "p99.9")] == [0.5, 0.9990000000000001]
    assert Hedge(after=2).quantile is None
