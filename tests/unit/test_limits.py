"""How many calls may be under way at a target, and who waits for a place, how long, and in which order."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest
from tests.support.processes import until
from tests.support.sides import Gate, operation

import dspex
from dspex.errors import ConfigError, LMServerError, RouteError, TargetsUnavailable
from dspex.router import Breaker, Limits, Router
from dspex.testing import ScriptedLM


def start(router: Router, question: Any = "q", *, timeout: float = 60.0, **options: Any) -> Any:
    return asyncio.create_task(router.dispatch(operation(inputs={"question": question}, **options), timeout))


async def there(target: Gate, calls: int) -> None:
    await until(lambda: len(target.calls) >= calls)


async def settle() -> None:
    """Let everything happen that waits for nothing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_call_beyond_the_limit_is_refused_at_once_where_nothing_may_wait() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1))
    first = start(router)
    await until(lambda: target.calls)
    with pytest.raises(TargetsUnavailable) as caught:
        await router.dispatch(operation(), 60.0)
    assert (caught.value.code, caught.value.retryable) == ("targets-full", True)
    target.let(0)
    assert (await first).answer == "blue"
    assert "place" not in (await first).timings


async def test_calls_wait_for_a_place_and_come_in_their_order() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=2, wait=60))
    calls = [start(router, number) for number in range(6)]
    await until(lambda: len(target.calls) == 2)
    await settle()
    for number in range(6):
        assert target.came == list(range(min(6, number + 2)))
        target.let(number, number)
        await calls[number]
        await settle()
    predictions = [await call for call in calls]
    assert [each.answer for each in predictions] == list(range(6))
    assert ["place" in each.timings for each in predictions] == [False, False, True, True, True, True]
    assert router.counts()[0][1:5] == (0, 6, 0, 0)


async def test_a_new_call_does_not_overtake_those_that_wait() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    first, second = start(router, 1), start(router, 2)
    await until(lambda: target.calls)
    await settle()
    target.let(0)
    third = start(router, 3)  # it begins before the second has been told
    await settle()
    assert target.came == [1, 2]
    for number in (1, 2):
        await there(target, number + 1)
        target.let(number)
    await asyncio.gather(first, second, third)
    assert target.came == [1, 2, 3]


async def test_a_call_whose_wait_is_over_is_refused_and_leaves_no_trace() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=0.01))
    first = start(router)
    await until(lambda: target.calls)
    with pytest.raises(TargetsUnavailable, match=re.escape("no place became free within 0.01 s")) as caught:
        await router.dispatch(operation(), 60.0)
    assert caught.value.code == "targets-full"
    target.let(0)
    await first
    assert router.counts()[0][1:5] == (0, 1, 0, 0)


async def test_no_call_waits_longer_than_its_own_time() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    first = start(router)
    await until(lambda: target.calls)
    with pytest.raises(TargetsUnavailable, match=re.escape("within 0.01 s")):
        await router.dispatch(operation(), 0.01)
    target.let(0)
    await first


async def test_a_caller_that_leaves_frees_its_place_in_the_queue() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    calls = [start(router, number) for number in range(3)]
    await until(lambda: target.calls)
    await settle()
    calls[1].cancel()
    await settle()
    target.let(0)
    await until(lambda: len(target.calls) == 2)
    assert target.came == [0, 2]
    target.let(1)
    await asyncio.gather(calls[0], calls[2])
    assert calls[1].cancelled()
    assert router.counts()[0].in_flight == 0


async def test_a_caller_that_leaves_as_it_gets_its_place_gives_it_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    calls = [start(router, number) for number in range(3)]
    await until(lambda: target.calls)
    await settle()
    assert router.places is not None
    freed = router.places.freed

    def then_leave() -> None:
        freed()
        calls[1].cancel()  # it has been handed the place of the first, and has not run since

    monkeypatch.setattr(router.places, "freed", then_leave)
    target.let(0)
    await until(lambda: len(target.calls) == 2)
    assert target.came == [0, 2]
    target.let(1)
    await calls[2]
    assert router.counts()[0].in_flight == 0


async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=60, queue=2))
    calls = [start(router, number) for number in range(3)]
    await until(lambda: target.calls)
    await settle()
    with pytest.raises(TargetsUnavailable, match="2 calls wait for a place already"):
        await router.dispatch(operation(), 60.0)
    for number in range(3):
        await there(target, number + 1)
        target.let(number)
    await asyncio.gather(*calls)


async def test_a_full_target_holds_up_nobody_who_goes_elsewhere() -> None:
    native, pool = Gate(), Gate("pool:p", "python")
    limits = {"native": Limits(in_flight=1, wait=60), "pool:p": Limits(in_flight=1)}
    router = Router([native, pool], limits=limits)
    first, second = start(router, 1), start(router, 2)
    await until(lambda: native.calls and pool.calls)
    assert (native.came, pool.came) == ([1], [2])  # a full target is passed by while there is another
    waiting = start(router, 3, route="native")
    await settle()
    pool.let(0)
    await second
    elsewhere = start(router, 4, route="pool:p")
    await until(lambda: len(pool.calls) == 2)
    with pytest.raises(TargetsUnavailable):  # there is no waiting for this one
        await router.dispatch(operation(route="pool:p"), 60.0)
    native.let(0)
    await until(lambda: len(native.calls) == 2)
    native.let(1)
    pool.let(1)
    await asyncio.gather(first, waiting, elsewhere)


async def test_calls_for_one_target_that_wait_in_different_queues_come_in_their_order() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    routes = [None, "native", None, None, "native", "native", None]
    calls = [start(router, number, route=route) for number, route in enumerate(routes)]
    await there(target, 1)
    await settle()
    for number in range(len(routes)):
        await there(target, number + 1)
        target.let(number)
    await asyncio.gather(*calls)
    assert target.came == list(range(len(routes)))


async def test_a_call_that_fails_frees_its_place_too() -> None:
    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    first, second = start(router, 1), start(router, 2)
    await until(lambda: target.calls)
    await settle()
    target.let(0, LMServerError("down"))
    with pytest.raises(LMServerError):
        await first
    await until(lambda: len(target.calls) == 2)
    target.let(1)
    await second


async def test_who_waits_hears_that_its_target_is_left_alone_or_has_gone() -> None:
    pool = Gate("pool:p", "python")
    router = Router([pool], limits=Limits(in_flight=1, wait=60), breaker=Breaker(minimum=1, probes=1))
    first, second = start(router, 1), start(router, 2)
    await until(lambda: pool.calls)
    await settle()
    pool.let(0, ZeroDivisionError("it is broken"))
    with pytest.raises(ZeroDivisionError):
        await first
    with pytest.raises(TargetsUnavailable) as caught:
        await second
    assert caught.value.code == "targets-failing"

    target = Gate()
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    first, second = start(router, 1), start(router, 2)
    await until(lambda: target.calls)
    await settle()
    router.remove("native")
    with pytest.raises(RouteError):
        await second
    target.let(0)
    await first


async def test_who_waits_goes_to_a_target_that_comes() -> None:
    target, other = Gate(), Gate("mine", "python")
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    first, second = start(router, 1), start(router, 2)
    await until(lambda: target.calls)
    await settle()
    router.add(other)
    await until(lambda: other.calls)
    other.let(0)
    target.let(0)
    assert [(await call).route for call in (first, second)] == ["native", "mine"]
    assert router.counts()[1][1:3] == (0, 1)


async def test_a_strategy_of_the_user_s_that_breaks_harms_only_the_call_that_it_is_for() -> None:
    class Breaks:
        broken = False

        def order(self, operation: Any, candidates: Any) -> Any:
            if self.broken and operation.inputs["question"] == 2:
                raise ZeroDivisionError("a bug")
            return [each.name for each in candidates]

    target, strategy = Gate(), Breaks()
    router = Router([target], strategy=strategy, limits=Limits(in_flight=1, wait=60))
    calls = [start(router, number) for number in (1, 2, 3)]
    await until(lambda: target.calls)
    await settle()
    strategy.broken = True
    target.let(0)
    await calls[0]
    with pytest.raises(ZeroDivisionError):
        await calls[1]
    await until(lambda: len(target.calls) == 2)
    target.let(1)
    await calls[2]


async def test_a_runtime_that_closes_ends_those_that_wait() -> None:
    asked = asyncio.Event()

    async def answer(request: Any) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    runtime = dspex.Runtime(ScriptedLM(answer), limits=Limits(in_flight=1, wait=60))
    await runtime.aopen()
    predict = dspex.Predict("question -> answer", runtime=runtime)
    calls = [asyncio.create_task(predict.acall(question="q")) for _ in range(3)]
    await asked.wait()
    await settle()
    await runtime.aclose()
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            await call
        assert caught.value.code == "runtime-closed"


def test_threads_wait_for_places_too_and_never_are_there_more_than_may_be() -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    async def answer(request: Any) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        await asyncio.sleep(0)
        with lock:
            at_once -= 1
        return "[[ ## answer ## ]]\nblue"

    with dspex.Runtime(ScriptedLM(answer), limits=Limits(in_flight=3, wait=60)) as runtime:
        predict = dspex.Predict("question -> answer")
        errors: list[Exception] = []

        def work() -> None:
            try:
                for _ in range(40):
                    predict(question="q")
            except Exception as error:  # noqa: BLE001 - it is looked at below
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        batch = predict.batch([{"question": str(number)} for number in range(50)])
        row = runtime.counts()[0]
    assert (errors, most <= 3, len(list(batch))) == ([], True, 50)
    assert (row.in_flight, row.served) == (0, 370)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_flight": 0}, "in_flight must be a count from 1"),
        ({"in_flight": True}, "in_flight"),
        ({"in_flight": 1, "queue": 0}, "queue must be a count"),
        ({"in_flight": 1, "wait": -1}, "wait must be a number of seconds from 0"),
    ],
)
def test_the_settings_of_limits_are_looked_at(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Limits(**settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"natve": Limits(in_flight=1)}, "there are limits of 'natve', and no such target"),
        ({"native": 3}, "limits['native'] must be a dspex.router.Limits, not 3"),
        (3, "limits must be a dspex.router.Limits, or some by the names of targets, not 3"),
    ],
)
def test_limits_are_of_targets_that_there_are(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        dspex.Runtime(ScriptedLM("blue"), limits=given)
