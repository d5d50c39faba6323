from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

from dspex.protocol.deadlines import Deadlines


class Clock:
    """A loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None], *, context: Context) -> Timer:
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer

    def advance(self, now: float) -> None:
        self.now = now
        for timer in [timer for timer in self.timers if timer.when <= now and not timer.cancelled]:
            timer.cancelled = True
            timer.callback()


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


def make() -> tuple[Clock, Deadlines[Any], list[Any]]:
    clock: Any = Clock()
    expired: list[Any] = []
    return clock, Deadlines(clock, expired.append), expired


def test_keys_expire_at_their_time_and_not_before() -> None:
    clock, deadlines, expired = make()
    deadlines.set("late", 130)
    deadlines.set("early", 110)
    deadlines.set("middle", 120)

    clock.advance(109)
    assert expired == []
    clock.advance(110)
    assert expired == ["early"]
    clock.advance(200)
    assert sorted(expired) == ["early", "late", "middle"]
    assert len(deadlines) == 0


def test_a_discarded_key_never_expires_and_the_next_still_does() -> None:
    clock, deadlines, expired = make()
    deadlines.set("gone", 110)
    deadlines.set("stays", 120)
    deadlines.discard("gone")
    deadlines.discard("gone")
    clock.advance(115)
    assert expired == []
    clock.advance(120)
    assert expired == ["stays"]


def test_a_key_may_be_given_another_time() -> None:
    clock, deadlines, expired = make()
    deadlines.set("key", 110)
    deadlines.set("key", 140)
    clock.advance(139)
    assert expired == []
    clock.advance(140)
    assert expired == ["key"]


def test_a_timer_that_fires_early_by_the_clocks_grain_still_counts() -> None:
    clock, deadlines, expired = make()
    deadlines.set("key", 110.0)
    clock.now = 109.9999
    clock.timers[-1].callback()
    assert expired == ["key"]


def test_many_keys_share_one_timer() -> None:
    clock, deadlines, _ = make()
    for number in range(1000):
        deadlines.set(number, 200 + number)
        deadlines.discard(number)
    assert len(clock.timers) == 1


async def test_it_works_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()
    deadlines: Deadlines[str] = Deadlines(loop, done.set_result)
    deadlines.set("key", loop.time() + 0.01)
    assert await asyncio.wait_for(done, 10) == "key"


class Held:
    pass


async def test_the_timer_keeps_nothing_of_who_set_it() -> None:
    held: ContextVar[Held] = ContextVar("held")
    deadlines: Deadlines[str] = Deadlines(asyncio.get_running_loop(), lambda _: None)

    async def call() -> weakref.ref[Held]:
        one = Held()
        held.set(one)
        deadlines.set("call", asyncio.get_running_loop().time() + 60)
        return weakref.ref(one)

    alive = await asyncio.create_task(call())
    deadlines.discard("call")
    await asyncio.sleep(0)  # for that long the loop itself holds the task's context
    gc.collect()
    assert alive() is None
