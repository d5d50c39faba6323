"""Calls at once that ask the same: one asks, and what becomes of the others when it ends, however it ends."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import pytest

from dspex import LM
from dspex.errors import (
    DeadlineExceeded,
    DspexError,
    LMRateLimitError,
    LMResponseError,
    LMServerError,
)
from dspex.lm import Cache, LMRequest, LMResponse, RateLimit
from dspex.lm._cache_flights import Flights
from dspex.testing import ChatRequest, HttpError, ModelServer

KEY = b"k" * 32


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def asked(timeout: float | None = 60.0, **settings: Any) -> LMRequest:
    return LMRequest([{"role": "user", "content": "say it"}], settings, timeout)


class Held:
    """A server that answers when it is told to, and an LM that asks it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.arrived = 0
        self.said: Any = "it is said"
        self.server = ModelServer(answer=self.answer)
        self.lm: LM

    async def answer(self, request: ChatRequest) -> Any:
        self.arrived += 1
        await self.gate.wait()
        return self.said

    def call(self, request: LMRequest | None = None) -> asyncio.Task[LMResponse]:
        return asyncio.create_task(self.lm.complete(request or asked()))

    async def waiting(self, count: int) -> None:
        """Until so many calls wait for the one that leads, which has come to the server."""
        cache = self.lm.cache
        assert cache is not None
        key = self.lm._key(asked(), self.lm.settings)
        await until(lambda: self.arrived and cache._state.flights.waiting(key) == count)


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    held = Held()
    async with (
        held.server,
        LM("openai/m", api_base=held.server.api_base, api_key="k", cache=Cache()) as held.lm,
    ):
        yield held
        held.gate.set()
        assert held.lm.cache is not None
        assert len(held.lm.cache._state.flights) == 0


async def test_calls_at_once_are_one_request_and_one_of_them_pays(held: Held) -> None:
    calls = [held.call() for _ in range(20)]
    await held.waiting(19)
    held.gate.set()
    responses = await asyncio.gather(*calls)
    assert held.arrived == 1
    assert {response.texts for response in responses} == {("it is said",)}
    assert sorted(response.cached for response in responses) == [False, *[True] * 19]
    assert sum(bool(response.usage) for response in responses) == 1
    assert held.lm.cache is not None
    assert (held.lm.cache.stats().joined, held.lm.cache.stats().misses) == (19, 1)


async def test_calls_that_differ_do_not_wait_for_each_other(held: Held) -> None:
    calls = [held.call(asked(seed=seed)) for seed in range(3)] + [held.call(asked(rollout_id=1))]
    await until(lambda: held.arrived == 4)
    held.gate.set()
    assert not any(response.cached for response in await asyncio.gather(*calls))


async def test_when_the_first_is_cancelled_the_next_one_asks(held: Held) -> None:
    calls = [held.call() for _ in range(4)]
    await held.waiting(3)
    for number in range(3):
        calls[number].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[number]
        await until(lambda number=number: held.arrived == number + 2)
    held.gate.set()
    response = await calls[3]
    assert (response.texts, response.cached) == (("it is said",), False)
    assert held.arrived == 4


async def test_one_that_is_cancelled_while_it_waits_changes_nothing(held: Held) -> None:
    calls = [held.call() for _ in range(3)]
    await held.waiting(2)
    calls[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[1]
    await held.waiting(1)
    held.gate.set()
    assert [(await calls[number]).cached for number in (0, 2)] == [False, True]
    assert held.arrived == 1


async def test_all_that_are_cancelled_leave_nothing_behind(held: Held) -> None:
    calls = [held.call() for _ in range(5)]
    await held.waiting(4)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert all(call.cancelled() for call in calls)
    assert held.lm.cache is not None
    assert len(held.lm.cache._state.flights) == 0


async def test_the_first_s_own_time_ends_the_first_alone(held: Held) -> None:
    first = held.call(asked(timeout=0.05))
    await until(lambda: held.arrived == 1)
    other = held.call()
    with pytest.raises(DeadlineExceeded):
        await first
    await until(lambda: held.arrived == 2)
    held.gate.set()
    assert not (await other).cached


async def test_each_that_waits_does_so_for_its_own_time(held: Held) -> None:
    first = held.call()
    await until(lambda: held.arrived == 1)
    late = held.call(asked(timeout=0.05))
    with pytest.raises(DeadlineExceeded, match="the same request to openai/m was under way") as caught:
        await late
    assert (caught.value.stage, caught.value.timeout) == ("lm", 0.05)
    held.gate.set()
    assert (await first).texts == ("it is said",)
    assert held.arrived == 1


async def test_one_that_has_waited_as_long_as_the_lm_grants_an_answer_asks_itself(held: Held) -> None:
    first = held.call(asked(timeout=None))
    await until(lambda: held.arrived == 1)
    lm = LM("openai/m", api_base=held.lm.api_base, api_key="k", cache=held.lm.cache, timeout=0.05)
    async with lm:
        with pytest.raises(DspexError) as caught:  # by its own time-out, the server is held still
            await lm.complete(asked(timeout=None))
    assert caught.value.code == "lm-timeout"
    assert held.arrived == 2
    held.gate.set()
    await first


async def test_an_error_of_the_server_s_is_everybody_s_each_with_one_of_his_own(held: Held) -> None:
    held.said = 5  # which the server turns into an error of its own
    calls = [held.call() for _ in range(5)]
    await held.waiting(4)
    held.gate.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert held.arrived == 1
    assert len({id(error) for error in errors}) == 5
    assert {(type(error), str(error)) for error in errors} == {(type(errors[0]), str(errors[0]))}
    assert isinstance(errors[0], LMServerError)
    held.said = "it is said"
    assert not (await held.lm.complete(asked())).cached


async def test_a_broken_answer_is_everybody_s_and_is_not_kept(held: Held) -> None:
    held.said = {"content": None}
    calls = [held.call() for _ in range(3)]
    await held.waiting(2)
    held.gate.set()
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, LMResponseError)
        assert error.code == "lm-no-content"
    held.said = "it is said"
    assert not (await held.lm.complete(asked())).cached


async def test_a_turn_that_comes_too_late_for_the_first_is_not_too_late_for_all(held: Held) -> None:
    limits = RateLimit(concurrency=1)
    async with LM(
        "openai/m", api_base=held.lm.api_base, api_key="k", cache=held.lm.cache, limits=limits
    ) as lm:
        busy = asyncio.create_task(lm.complete(asked(seed=1)))
        await until(lambda: held.arrived == 1)
        first = asyncio.create_task(lm.complete(asked(timeout=0.05)))
        key = lm._key(asked(), lm.settings)
        assert lm.cache is not None
        flights = lm.cache._state.flights
        await until(lambda: len(flights) == 2)
        second = asyncio.create_task(lm.complete(asked()))
        await until(lambda: flights.waiting(key) == 1)
        with pytest.raises(LMRateLimitError) as caught:
            await first
        assert caught.value.code == "lm-limit"
        held.gate.set()
        assert (await second).texts == ("it is said",)
        await busy


async def test_a_stream_waits_for_nobody_and_nobody_for_a_stream(held: Held) -> None:
    async def stream() -> list[bool]:
        async with aclosing(held.lm.stream(asked())) as deltas:
            return [delta.cached async for delta in deltas]

    streams = [asyncio.create_task(stream()) for _ in range(2)]
    call = held.call()
    await until(lambda: held.arrived == 3)
    held.gate.set()
    assert not any(cached for told in await asyncio.gather(*streams) for cached in told)
    await call


async def test_a_fault_of_one_request_does_not_stay_with_the_next(held: Held) -> None:
    held.server.faults.push(HttpError(503), None)
    held.gate.set()
    with pytest.raises(LMServerError):
        await held.lm.complete(asked())
    assert (await held.lm.complete(asked())).texts == ("it is said",)


# --- without a server: orders of events that a server does not give at will ------------------------------


async def test_one_that_is_to_lead_and_leaves_in_that_moment_hands_over() -> None:
    """It has been told to lead, and is cancelled before it runs again."""
    flights: Flights[str] = Flights()
    gate = asyncio.Event()
    led: list[int] = []

    async def ask(number: int) -> str:
        led.append(number)
        await gate.wait()
        return f"by {number}"

    def call(number: int) -> asyncio.Task[Any]:
        return asyncio.create_task(flights.answer(KEY, lambda: ask(number), 60.0))

    calls = [call(number) for number in range(3)]
    await until(lambda: led == [0] and flights.waiting(KEY) == 2)
    calls[0].cancel()
    with suppress(asyncio.CancelledError):
        await calls[0]  # whose end tells the second to lead
    calls[1].cancel()
    await until(lambda: led[-1] == 2)
    gate.set()
    assert await calls[2] == ("by 2", False)
    assert 1 not in led or calls[1].cancelled()
    assert len(flights) == 0


async def test_an_error_of_the_code_s_is_nobody_else_s() -> None:
    flights: Flights[str] = Flights()
    gate, led = asyncio.Event(), 0

    async def ask() -> str:
        nonlocal led
        led += 1
        await gate.wait()
        raise TypeError("a mistake")

    calls = [asyncio.create_task(flights.answer(KEY, ask, 60.0)) for _ in range(3)]
    await until(lambda: flights.waiting(KEY) == 2)
    gate.set()
    assert all(isinstance(e, TypeError) for e in await asyncio.gather(*calls, return_exceptions=True))
    assert led == 3
    assert len(flights) == 0


def test_calls_of_several_event_loops_are_one_request() -> None:
    flights: Flights[str] = Flights()
    count, gate = [0], threading.Event()

    async def ask() -> str:
        count[0] += 1
        await asyncio.to_thread(gate.wait, 30)
        return "it"

    found: list[Any] = []

    def run() -> None:
        found.append(asyncio.run(flights.answer(KEY, ask, 60.0)))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline = threading.Event()
    for _ in range(30_000):
        if flights.waiting(KEY) == 5:
            break
        deadline.wait(0.001)
    gate.set()
    for thread in threads:
        thread.join(30)
    assert count == [1]
    assert sorted(found) == [("it", False), *[("it", True)] * 5]


def test_one_whose_event_loop_has_closed_does_not_lead() -> None:
    """The leader is cancelled when the loop of the first that waits is closed already; the next one leads."""
    flights: Flights[str] = Flights()

    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    async def ask() -> str:
        return "it"

    first, dead, third = (asyncio.new_event_loop() for _ in range(3))
    leading = first.create_task(flights.answer(KEY, never, 60.0))
    first.run_until_complete(asyncio.sleep(0))
    lost = dead.create_task(flights.answer(KEY, ask, 60.0))
    dead.run_until_complete(asyncio.sleep(0))
    dead.close()
    waiting = third.create_task(flights.answer(KEY, ask, 60.0))
    third.run_until_complete(asyncio.sleep(0))
    assert flights.waiting(KEY) == 2
    leading.cancel()
    with suppress(asyncio.CancelledError):
        first.run_until_complete(leading)
    assert third.run_until_complete(asyncio.wait_for(waiting, 30)) == ("it", False)
    assert len(flights) == 0
    lost._log_destroy_pending = False  # type: ignore[attr-defined]
    first.close()
    third.close()


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_in_whatever_order_everyone_ends_and_nothing_stays(seed: int) -> None:
    """Calls, cancellations, errors and times that end, by chance: each call has an end of its own."""
    chance = random.Random(seed)
    flights: Flights[str] = Flights()
    gates: list[asyncio.Event] = []
    running = most = 0

    async def ask() -> str:
        nonlocal running, most
        gate = asyncio.Event()
        gates.append(gate)
        running += 1
        most = max(most, running)
        try:
            await gate.wait()
        finally:
            running -= 1
        if chance.random() < 0.3:
            raise LMServerError("down")
        return "it"

    calls: list[asyncio.Task[Any]] = []
    for _ in range(200):
        what = chance.randrange(5)
        if what <= 1:
            calls.append(asyncio.create_task(flights.answer(KEY, ask, chance.choice([60.0, 0.0005]))))
        elif what == 2 and calls:
            chance.choice(calls).cancel()
        elif what == 3 and gates:
            gates.pop().set()
        else:
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
    async with asyncio.timeout(30):
        while any(not call.done() for call in calls):
            for gate in gates:
                gate.set()
            await asyncio.sleep(0)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    known = (("it", True), ("it", False), (None, False))
    assert all(end in known or isinstance(end, LMServerError | asyncio.CancelledError) for end in ends)
    assert most == 1
    assert len(flights) == 0


async def test_nothing_of_a_call_stays_when_it_has_failed() -> None:
    flights: Flights[str] = Flights()

    class Inputs:
        pass

    async def failing(inputs: Inputs, gate: asyncio.Event) -> str:
        await gate.wait()
        raise LMServerError("down")

    gc.disable()
    try:
        held = []
        gate = asyncio.Event()
        calls = []
        for _ in range(3):
            inputs = Inputs()
            held.append(weakref.ref(inputs))
            ask = partial(failing, inputs, gate)
            calls.append(asyncio.create_task(flights.answer(KEY, ask, 60.0)))
            del inputs, ask
        await until(lambda: flights.waiting(KEY) == 2)
        gate.set()
        for call in calls:
            with pytest.raises(LMServerError):
                await call
        calls.clear()
        del call
        await asyncio.sleep(0)
        assert [each() for each in held] == [None] * 3
    finally:
        gc.enable()
