"""Calls that waited or were made twice: nothing of them is held when they have ended."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.processes import until
from tests.support.sides import Gate, operation

from dspex.errors import LMServerError, TargetsUnavailable
from dspex.router import Hedge, Limits, Router

AT_ONCE = Hedge(after=0.001, at_most=1.0)


class Thing(str):
    """An input of which it is known whether somebody holds it."""

    __slots__ = ("__weakref__",)


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """What is in a circle stays, and is found."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def begun(router: Router, **options: Any) -> tuple[asyncio.Task[Any], weakref.ref[Thing]]:
    thing = Thing("sky")
    call = asyncio.create_task(router.dispatch(operation(inputs={"question": thing}, **options), 60.0))
    return call, weakref.ref(thing)


async def freed(held: weakref.ref[Thing]) -> bool:
    for _ in range(10):  # tasks that have been cancelled end
        await asyncio.sleep(0)
    return held() is None


class Forgetful(Gate):
    """A target that keeps nothing of a call."""

    async def run(self, operation: Any, timeout: float) -> Any:
        try:
            return await super().run(operation, timeout)
        finally:
            self.came.clear()


async def test_a_call_that_waited_in_vain() -> None:
    target = Forgetful()
    router = Router([target], limits=Limits(in_flight=1, wait=0.01))
    first, _ = await begun(router)
    await until(lambda: target.calls)
    call, held = await begun(router)
    with pytest.raises(TargetsUnavailable):
        await call
    del call
    assert await freed(held)
    target.let(0)
    await first


@pytest.mark.parametrize("ends", ["answers", "fails", "leaves"])
async def test_a_call_that_waited_for_its_place(ends: str) -> None:
    target = Forgetful()
    router = Router([target], limits=Limits(in_flight=1, wait=60))
    first, _ = await begun(router)
    await until(lambda: target.calls)
    call, held = await begun(router)
    await asyncio.sleep(0)
    if ends == "leaves":
        call.cancel()
    else:
        target.let(0)
        await until(lambda: len(target.calls) == 2)
        target.let(1, "blue" if ends == "answers" else LMServerError("down"))
    await asyncio.wait({call})
    assert call.cancelled() or ends != "leaves"
    if not call.cancelled():
        call.exception()
    del call
    target.calls[1:] = []
    assert await freed(held)
    if ends == "leaves":
        target.let(0)
    await first


@pytest.mark.parametrize("ends", ["first", "second", "both fail", "leaves"])
async def test_a_call_that_was_made_twice(ends: str) -> None:
    target = Forgetful()
    router = Router([target], hedge=AT_ONCE)
    call, held = await begun(router, idempotent=True)
    await until(lambda: len(target.calls) == 2)
    if ends == "leaves":
        call.cancel()
    elif ends == "both fail":
        target.let(0, LMServerError("first"))
        target.let(1, LMServerError("second"))
    else:
        target.let(0 if ends == "first" else 1)
    await asyncio.wait({call})
    if not call.cancelled():
        call.exception()
    del call
    await until(lambda: router.counts()[0].in_flight == 0)
    target.calls.clear()
    assert await freed(held)
