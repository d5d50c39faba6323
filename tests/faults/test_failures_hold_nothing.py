"""What a failed call held is let go of with its error, not by a collection some time later."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.support.pools import QUICK, Chat, OpenPool

import dspex
from dspex import errors
from dspex.callbacks import BaseCallback
from dspex.pool import FunctionRequest, Pool, SyncPool
from dspex.testing import HttpError, Stall

WORK = "tests.support.work:"


class Held(str):
    """A text whose end can be seen: it can be sent, and held by a weak reference."""

    __slots__ = ("__weakref__",)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def is_let_go(failing: Callable[[Held], Awaitable[Any]]) -> bool:
    """Whether nothing of a failed call is left once its error is gone."""
    value = Held("x" * 1000)
    end = weakref.ref(value)
    try:
        await failing(value)
    except errors.DspexError:
        pass
    else:
        pytest.fail("it did not fail")
    del value
    for _ in range(20):  # what the loop has yet to do for it
        await asyncio.sleep(0.005)
    return end() is None


def request(function: str, value: Held) -> FunctionRequest:
    return FunctionRequest.of(WORK + function, value)


async def test_a_failed_call_lets_go_of_its_payload(open_pool: OpenPool, no_collector: None) -> None:
    pool = await open_pool(workers=1, max_inflight=4, timeouts=QUICK.replace(cancel=0.2))

    async def raises(value: Held) -> None:
        await pool.call(request("fail", value))

    async def cannot_be_sent(value: Held) -> None:
        await pool.call(FunctionRequest.of(WORK + "add", value, x=object()))

    async def takes_too_long(value: Held) -> None:
        await pool.call(request("wait_a_moment", value), timeout=0.001)

    async def loses_its_worker(value: Held) -> None:
        await pool.call(request("leave_with", value))

    async def has_callbacks(value: Held) -> None:
        await pool.call(request("fail", value), host_functions={"hold": lambda: value})

    async def streams(value: Held) -> None:
        async for _ in pool.stream(request("count_then_fail", value)):
            pass

    async def reads_a_feed(value: Held) -> None:
        async def parts() -> Any:
            yield value
            raise errors.InputError("the file ends here")

        await pool.call(FunctionRequest.of("statistics:fmean"), input_streams={"data": parts()})

    ways = (
        raises,
        cannot_be_sent,
        takes_too_long,
        loses_its_worker,
        has_callbacks,
        streams,
        reads_a_feed,
    )
    assert [way.__name__ for way in ways if not await is_let_go(way)] == []


async def test_the_errors_of_a_batch_hold_no_payload_while_they_live(
    open_pool: OpenPool, no_collector: None
) -> None:
    pool = await open_pool(workers=1)
    values = [Held("x" * 1000) for _ in range(3)]
    ends = [weakref.ref(value) for value in values]
    answers = await pool.batch([request("fail", value) for value in values])
    del values
    assert [type(answer) for answer in answers] == [errors.RemoteError] * 3
    await asyncio.sleep(0.01)  # the end of the batch's last task
    assert [end() for end in ends] == [None] * 3
    end = weakref.ref(answers[0])
    del answers
    assert end() is None


async def test_a_failed_blocking_call_lets_go_of_its_payload(open_pool: OpenPool, no_collector: None) -> None:
    pool: Pool = await open_pool(workers=1)

    async def blocks(value: Held) -> None:
        await asyncio.to_thread(SyncPool.of(pool).call, request("fail", value))

    assert await is_let_go(blocks)


RESPONSES = {"model_type": "responses"}


@pytest.mark.parametrize(
    ("route", "callbacks", "settings"),
    [
        ("native", 0, {}),
        ("python", 0, {}),
        ("native", 2, {}),
        ("native", 0, RESPONSES),
        ("native", 0, {**RESPONSES, "stop": "END"}),  # which is read as a stream
    ],
)
async def test_a_failed_prediction_lets_go_of_its_inputs(
    chat: Chat, no_collector: None, route: str, callbacks: int, settings: dict[str, Any]
) -> None:
    lm = dspex.LM(**chat.lm(), timeout=20, **settings)
    async with dspex.Runtime(lm, pools=1, callbacks=[BaseCallback() for _ in range(callbacks)]) as runtime:
        predict = dspex.Predict("question -> answer: int", runtime=runtime).with_options(route=route)

        async def cannot_be_read(value: Held) -> None:
            chat.reply = lambda _: "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"
            await predict.acall(question=value)

        async def is_refused(value: Held) -> None:
            chat.server.faults.push(HttpError(401))
            await predict.acall(question=value)

        async def takes_too_long(value: Held) -> None:
            chat.server.faults.push(Stall())
            await predict.with_options(timeout=0.05).acall(question=value)

        with pytest.raises(errors.DspexError):  # first uses leave caches behind
            await cannot_be_read(Held("y"))
        ways = (cannot_be_read, is_refused, takes_too_long)
        assert [way.__name__ for way in ways if not await is_let_go(way)] == []


async def test_a_pool_that_does_not_start_lets_go_of_what_waited_for_it(
    chat: Chat, no_collector: None
) -> None:
    spec = dspex.PoolSpec(preload=["tests.support.broken_start"])
    async with dspex.Runtime(dspex.LM(**chat.lm()), pools=spec) as runtime:
        predict = dspex.Predict("question -> answer", runtime=runtime).with_options(route="python")

        async def does_not_start(value: Held) -> None:
            await predict.acall(question=value)

        assert await is_let_go(does_not_start)


async def test_a_route_there_is_not_lets_go_of_the_inputs(chat: Chat, no_collector: None) -> None:
    async with dspex.Runtime(dspex.LM(**chat.lm()), adapter="baml") as runtime:
        predict = dspex.Predict("question -> answer", runtime=runtime).with_options(route="native")

        async def cannot(value: Held) -> None:
            await predict.acall(question=value)

        assert await is_let_go(cannot)
