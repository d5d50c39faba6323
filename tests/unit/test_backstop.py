"""The limit behind all limits: one timer ends the calls that overstay, and those alone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from dspex.router import _backstop
from dspex.router._backstop import Backstop


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backstop, "INTERVAL_SECONDS", 0.01)


async def watched(backstop: Backstop, seconds: float, work: Any) -> str:
    watch = backstop.begin(seconds)
    try:
        await work
    except asyncio.CancelledError:
        if not watch.ended_it():
            raise
        return "overstayed"
    finally:
        backstop.end(watch)
    watch.ended_it()
    return "done"


async def test_what_overstays_is_ended_and_the_rest_goes_on() -> None:
    backstop, gate = Backstop(), asyncio.Event()
    long = asyncio.create_task(watched(backstop, 100, gate.wait()))
    assert await watched(backstop, 0.02, asyncio.Event().wait()) == "overstayed"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "the cancellation has been taken back"
    gate.set()
    assert await long == "done"


async def test_a_caller_s_own_cancellation_stays_his() -> None:
    backstop = Backstop()
    task = asyncio.create_task(watched(backstop, 100, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_beside_its_own_is_not_swallowed() -> None:
    backstop = Backstop()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # as a caller does who leaves in the same moment
            raise

    task = asyncio.create_task(watched(backstop, 0.02, stubborn()))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_ends_in_spite_of_it_leaves_no_cancellation_behind() -> None:
    backstop = Backstop()

    async def swallowing() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    assert await watched(backstop, 0.02, swallowing()) == "done"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_calls_within_a_call_have_limits_of_their_own() -> None:
    backstop = Backstop()
    inner: list[str] = []

    async def work() -> None:
        inner.append(await watched(backstop, 0.02, asyncio.Event().wait()))

    assert await watched(backstop, 100, work()) == "done"
    assert inner == ["overstayed"]


async def test_it_looks_no_longer_than_there_are_calls() -> None:
    backstop = Backstop()
    await watched(backstop, 100, asyncio.sleep(0))
    async with asyncio.timeout(10):
        while backstop._timer is not None:
            await asyncio.sleep(0.005)


class Held:
    pass


async def test_it_keeps_nothing_of_the_call_that_was_first() -> None:
    held: ContextVar[Held] = ContextVar("held")
    backstop = Backstop()

    async def call() -> weakref.ref[Held]:
        one = Held()
        held.set(one)
        backstop.end(backstop.begin(60))
        return weakref.ref(one)

    alive = await asyncio.create_task(call())
    assert backstop._timer is not None
    await asyncio.sleep(0)  # for that long the loop itself holds the task's context
    gc.collect()
    assert alive() is None
