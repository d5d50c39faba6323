"""Input that comes in parts: drawn no faster than it is read, closed when its call is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from tests.support.pools import QUICK, Chat, OpenPool
from tests.support.processes import until

from dspex import errors
from dspex.pool import EchoRequest, FunctionRequest, ModuleRequest, Pool, SyncPool

READERS = "tests.support.readers:"
MOST_AHEAD = 32 + 64
"""What the service draws unasked, and what the worker asks for at once."""


async def read(pool: Pool, function: str, input_streams: Any, **settings: Any) -> Any:
    return await pool.call(FunctionRequest.of(READERS + function), input_streams=input_streams, **settings)


class Source:
    """Counts for ever; knows how far it was drawn and whether it was closed."""

    def __init__(self, limit: float = float("inf")) -> None:
        self.limit = limit
        self.drawn = 0
        self.closed = False

    async def __aiter__(self) -> AsyncGenerator[int, None]:
        try:
            while self.drawn < self.limit:
                self.drawn += 1
                yield self.drawn - 1
        finally:
            self.closed = True


def in_a_thread(limit: int) -> Iterator[int]:
    assert threading.current_thread() is not threading.main_thread()
    yield from range(limit)


SOURCES: list[tuple[str, Callable[[int], Any]]] = [
    ("a list", lambda count: list(range(count))),
    ("a generator", in_a_thread),
    ("an async iterable", Source),
]


@pytest.mark.parametrize("reader", ["collect", "collect_async"])
@pytest.mark.parametrize("make", [row[1] for row in SOURCES], ids=[row[0] for row in SOURCES])
async def test_every_part_arrives_once_and_in_order(
    open_pool: OpenPool, reader: str, make: Callable[[int], Any]
) -> None:
    pool = await open_pool()
    for count in (0, 1, 1000):
        assert await read(pool, reader, {"parts": make(count)}) == list(range(count))
    assert pool.status().workers[0].inflight == 0


async def test_a_call_may_have_several_feeds_and_a_pool_many_such_calls(open_pool: OpenPool) -> None:
    pool = await open_pool()
    calls = (read(pool, "both", {"left": Source(n), "right": Source()}) for n in range(50))
    assert await asyncio.gather(*calls) == [[(i, i) for i in range(n)] for n in range(50)]


@pytest.mark.parametrize("reader", ["double", "double_in_a_thread"])
async def test_a_part_is_there_as_soon_as_it_is_drawn_and_its_answer_too(
    open_pool: OpenPool, reader: str
) -> None:
    pool = await open_pool()
    answered = asyncio.Queue[int]()

    async def one_after_another() -> AsyncGenerator[int, None]:
        yield 0
        for number in range(1, 20):
            assert await answered.get() == 2 * (number - 1)
            yield number

    parts = pool.stream(FunctionRequest.of(READERS + reader), input_streams={"parts": one_after_another()})
    seen = []
    async for part in parts:
        seen.append(part)
        answered.put_nowait(part)
    assert seen == [2 * number for number in range(20)]


async def test_work_that_does_not_read_stops_its_source(open_pool: OpenPool) -> None:
    pool = await open_pool()
    source = Source(5000)
    ahead = []

    async def go() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)  # all the turns it could want
        ahead.append(source.drawn)

    answer = await read(pool, "first_and_ask", {"parts": source}, host_functions={"go": go})

    assert answer == list(range(5000))
    assert 1 <= ahead[0] <= MOST_AHEAD
    assert source.closed


async def test_a_stream_nobody_takes_stops_the_source_of_its_work(open_pool: OpenPool) -> None:
    pool = await open_pool()
    source = Source(5000)
    parts = pool.stream(FunctionRequest.of(READERS + "double"), input_streams={"parts": source})
    assert await anext(parts) == 0
    before = -1
    while before != source.drawn:  # until a round trip moves nothing any more
        before = source.drawn
        for _ in range(20):
            await pool.echo(None)

    assert source.drawn <= MOST_AHEAD + 3 * 32
    assert [part async for part in parts] == [2 * number for number in range(1, 5000)]


async def fail_after_three() -> AsyncGenerator[int, None]:
    for number in range(3):
        yield number
    raise errors.InputError("the file ends here", count=3)


def fail_after_three_in_a_thread() -> Iterator[int]:
    yield from range(3)
    raise ValueError("the file ends here")


@pytest.mark.parametrize("reader", ["collect_and_catch", "collect_and_catch_in_a_thread"])
@pytest.mark.parametrize(
    ("source", "says"),
    [
        (fail_after_three, "InputError: the file ends here"),
        (fail_after_three_in_a_thread, "RemoteError: ValueError: the file ends here"),
        (lambda: [0, 1, 2, object(), 4], "WireError: $[0][0]: object"),
    ],
    ids=["async", "in a thread", "a part that cannot be sent"],
)
async def test_an_error_of_the_source_is_raised_in_the_work_after_the_parts_before_it(
    open_pool: OpenPool, reader: str, source: Callable[[], Any], says: str
) -> None:
    pool = await open_pool()
    taken, error = await read(pool, reader, {"parts": source()})
    assert taken == [0, 1, 2]
    assert error.startswith(says)


async def test_an_error_the_work_does_not_catch_is_the_callers(open_pool: OpenPool) -> None:
    pool = await open_pool()
    with pytest.raises(errors.InputError, match="the file ends here") as raised:
        await read(pool, "collect_async", {"parts": fail_after_three()})
    assert raised.value.count == 3


async def test_parts_that_fit_no_frame_together_come_one_by_one(open_pool: OpenPool) -> None:
    pool = await open_pool()
    size = 25 * 2**20
    assert await read(pool, "sizes", {"parts": [b"x" * size] * 3}) == [size] * 3


async def test_work_that_has_enough_closes_its_source(open_pool: OpenPool) -> None:
    pool = await open_pool()
    source = Source()
    assert await read(pool, "first", {"parts": source}) == 0
    assert source.closed

    source = Source()

    async def closed() -> None:
        assert source.closed  # while the call goes on

    answer = await read(pool, "first_and_close", {"parts": source}, host_functions={"closed": closed})
    assert answer == (0, [])


@pytest.mark.parametrize("end", ["cancelled", "out of time", "worker died", "pool closed"])
async def test_a_source_is_closed_however_its_call_ends(open_pool: OpenPool, end: str) -> None:
    pool = await open_pool(timeouts=QUICK.replace(cancel=0.5))
    source = Source()
    has_one = asyncio.Event()

    async def note() -> None:
        has_one.set()

    work = "first_and_die" if end == "worker died" else "first_and_wait"
    timeout = 0.5 if end == "out of time" else None
    host_functions = {"has_one": note}
    call = asyncio.ensure_future(
        read(pool, work, {"parts": source}, host_functions=host_functions, timeout=timeout)
    )
    if end != "worker died":
        await has_one.wait()
    if end == "cancelled":
        call.cancel()
    elif end == "pool closed":
        await pool.aclose(timeout=0)
    ends = (
        asyncio.CancelledError,
        errors.DeadlineExceeded,
        errors.WorkerDiedError,
        errors.PoolClosedError,
    )
    with pytest.raises(ends):
        await call
    assert source.closed


async def test_a_call_that_is_refused_closes_its_source_and_never_draws_from_it(open_pool: OpenPool) -> None:
    pool = await open_pool(max_inflight=1, queue=0)
    running = asyncio.ensure_future(pool.run("tests.support.work:wait_for_ever"))
    await until(lambda: pool.status().workers[0].inflight == 1)
    source = Source()
    with pytest.raises(errors.PoolSaturated):
        await read(pool, "collect", {"parts": source})
    assert source.drawn == 0
    running.cancel()


async def test_a_source_that_blocks_does_not_keep_its_caller(open_pool: OpenPool) -> None:
    pool = await open_pool(timeouts=QUICK.replace(cancel=0.2))
    go_on = threading.Event()
    closed = threading.Event()

    def blocked() -> Iterator[int]:
        try:
            yield 0
            go_on.wait()
            yield 1
        finally:
            closed.set()

    assert await read(pool, "first", {"parts": blocked()}, timeout=20) == 0
    go_on.set()
    await until(closed.is_set)


async def test_a_source_may_call_the_pool_whose_last_place_its_call_holds(open_pool: OpenPool) -> None:
    pool = await open_pool(max_inflight=1)

    async def from_the_pool() -> AsyncGenerator[Any, None]:
        for number in range(5):
            yield await pool.echo(number)

    assert await read(pool, "collect", {"parts": from_the_pool()}, timeout=20) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("feed", [7, "text", b"bytes", None])
async def test_what_is_no_source_is_refused(open_pool: OpenPool, feed: Any) -> None:
    pool = await open_pool()
    with pytest.raises(errors.ConfigError) as refused:
        await read(pool, "collect", {"parts": feed})
    assert refused.value.code == "bad-input-stream"
    with pytest.raises(errors.ConfigError, match="no arguments"):
        await pool.call(EchoRequest(7), input_streams={"parts": [1]})


async def test_callers_without_a_loop_have_feeds_too(open_pool: OpenPool) -> None:
    view = SyncPool.of(await open_pool())

    def script() -> tuple[Any, list[Any]]:
        collect = FunctionRequest.of(READERS + "collect")
        whole = view.call(collect, input_streams={"parts": in_a_thread(100)})
        parts = view.stream(FunctionRequest.of(READERS + "double"), input_streams={"parts": in_a_thread(100)})
        return whole, list(parts)

    whole, parts = await asyncio.to_thread(script)
    assert whole == list(range(100))
    assert parts == [2 * number for number in range(100)]


async def test_a_dspy_program_reads_a_feed_as_one_of_its_inputs(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm())

    async def lines() -> AsyncGenerator[str, None]:
        yield "the sky"
        yield "is blue"

    request = ModuleRequest.of(READERS + "Summary", {})
    answer = await pool.call(request, input_streams={"lines": lines()})

    assert answer["completions"] == [{"answer": "blue"}]
    assert "the sky is blue" in str(chat.bodies[0]["messages"])
