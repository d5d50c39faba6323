"""Values through a worker and back: all kinds, all sizes, and every way that a value may take."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import wire_work
from tests.support.memory import segments_of
from tests.support.pools import QUICK, OpenPool
from tests.support.processes import children, until
from tests.support.wire_large import large_values
from tests.support.wire_same import same
from tests.support.wire_values import Colour, Point, values

from dspex import errors
from dspex.pool import FunctionRequest, Limits, Pool, PoolSpec, SyncPool
from dspex.pool._worker import WINDOW

WORK = "tests.support.wire_work:"
GIVE = "tests.support.work:give"
VALUES = ["tests.support.wire_values"]
LARGE = 2**20 // 8
"""Items of an array of a mebibyte."""


def ask(function: str, *args: Any) -> FunctionRequest:
    return FunctionRequest.of(WORK + function, *args)


# --- calls and results ---


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_every_value_comes_back_equal_in_value_and_type(start: Literal["forkserver", "spawn"]) -> None:
    with SyncPool(PoolSpec(workers=1, start=start, classes=VALUES, timeouts=QUICK)) as pool:

        @settings(max_examples=100)
        @given(values())
        def comes_back(value: Any) -> None:
            assert same(pool.run(GIVE, value), value)

        comes_back()


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_every_large_value_comes_back_equal_in_value_and_type(start: Literal["forkserver", "spawn"]) -> None:
    with SyncPool(PoolSpec(workers=1, start=start, classes=VALUES, timeouts=QUICK)) as pool:

        @settings(max_examples=30)
        @given(large_values())
        def comes_back(value: Any) -> None:
            assert same(pool.run(GIVE, value), value)

        comes_back()
        (worker,) = pool.status().workers
        assert worker.restarts == 0


def test_every_value_comes_back_as_a_part_of_a_stream_both_ways_and_by_a_host_function() -> None:
    with SyncPool(PoolSpec(workers=1, classes=VALUES, timeouts=QUICK)) as pool:

        @settings(max_examples=20)
        @given(st.lists(values() | large_values(), max_size=3))
        def comes_back(parts: list[Any]) -> None:
            streamed = list(pool.stream(ask("back"), input_streams={"parts": parts}))
            assert same(streamed, parts)
            heard: list[Any] = []

            def host(value: Any) -> Any:
                heard.append(value)
                return value

            asked = pool.call(ask("ask", "host", parts), host_functions={"host": host})
            assert same(heard, [parts])
            assert same(asked, parts)

        comes_back()


async def test_many_calls_with_large_values_each_have_their_own_answer(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=2, max_inflight=20)

    async def one(number: int) -> bool:
        value = np.full(LARGE + number, number)
        return same(
            await pool.run(GIVE, [value, number, {"again": value}]), [value, number, {"again": value}]
        )

    assert all(await asyncio.gather(*map(one, range(60))))


async def test_an_answer_is_not_changed_by_those_that_come_after_it(open_pool: OpenPool) -> None:
    pool = await open_pool()
    kept = [await pool.run(wire_work.array, LARGE, first) for first in range(20)]
    assert all(same(array, wire_work.array(LARGE, first)) for first, array in enumerate(kept))
    assert not kept[0].flags.writeable


async def test_what_is_sent_may_be_changed_as_soon_as_the_call_is_made(open_pool: OpenPool) -> None:
    pool = await open_pool()
    value = wire_work.array(LARGE)
    expected = float(value.sum())
    call = asyncio.ensure_future(pool.run(wire_work.total, value))
    await until(lambda: pool.status().workers[0].inflight == 1)
    value[:] = 0
    assert await call == expected


async def test_an_error_carries_large_values(open_pool: OpenPool) -> None:
    pool = await open_pool()
    value = wire_work.array(LARGE)
    with pytest.raises(errors.InputError) as raised:
        await pool.run(wire_work.fail_with, value)
    assert same(raised.value.problems, [{"rows": value}])


# --- streams ---


async def test_record_batches_stream_in_order(open_pool: OpenPool) -> None:
    pool = await open_pool()
    seen = [batch async for batch in pool.stream(ask("batches", 100))]
    assert all(map(pa.RecordBatch.equals, seen, wire_work.batches(100)))
    assert len(seen) == 100


async def test_record_batches_are_made_no_further_ahead_than_the_window(
    open_pool: OpenPool, tmp_path: Path
) -> None:
    pool = await open_pool()
    file = tmp_path / "progress"
    parts = pool.stream(ask("batches_and_tell", str(file)))
    assert same(await anext(parts), wire_work.batch(0))
    await until(lambda: file.exists() and file.read_text() == str(WINDOW))
    for number in range(1, 3 * WINDOW):
        assert (await anext(parts)).equals(wire_work.batch(number))
        assert int(file.read_text() or 0) <= number + WINDOW
    await parts.aclose()
    await until(lambda: pool.status().workers[0].inflight == 0)
    await until(lambda: segments_of() == [], seconds=30)  # what nobody has taken was let go of


async def test_record_batches_stream_in_and_their_source_is_drawn_no_faster_than_they_are_read(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool()
    drawn = 0

    async def source() -> AsyncIterator[Any]:
        nonlocal drawn
        for number in range(200):
            drawn += 1
            yield wire_work.batch(number)

    parts = pool.stream(ask("back"), input_streams={"parts": source()})
    assert same(await anext(parts), wire_work.batch(0))
    before = -1
    while before != drawn:  # until a round trip moves nothing any more
        before = drawn
        for _ in range(20):
            await pool.echo(None)
    assert drawn < 200
    numbers = iter(range(1, 200))
    async for part in parts:
        assert part.equals(wire_work.batch(next(numbers)))
    assert list(numbers) == []


# --- host functions ---


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_host_function_is_given_a_large_array_and_answers_one(open_pool: OpenPool, kind: str) -> None:
    pool = await open_pool()

    async def double(value: Any) -> Any:
        return 2 * value

    def double_in_a_thread(value: Any) -> Any:
        return 2 * value

    function = double if kind == "async" else double_in_a_thread
    value = wire_work.array(LARGE)
    calls = (
        pool.call(ask("ask", "double", value + n), host_functions={"double": function}) for n in range(20)
    )
    answers = await asyncio.gather(*calls)
    assert same(answers, [2 * (value + n) for n in range(20)])


# --- refusals ---


class Holder:
    def __init__(self) -> None:
        self.conn = sqlite3.connect(":memory:")


@pytest.fixture
async def refusing(open_pool: OpenPool) -> AsyncIterator[Pool]:
    """A pool that has nothing to do with what it refused: no call, and no memory, is left of that."""
    pool = await open_pool(classes=["tests.support.wire_work"])
    (before,) = pool.status().workers
    yield pool
    (after,) = pool.status().workers
    assert (after.pid, after.inflight) == (before.pid, 0)
    assert await pool.run(GIVE, 1) == 1
    await until(lambda: segments_of() == [], seconds=30)


def connection() -> sqlite3.Connection:
    return sqlite3.connect(":memory:")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: {"context": [1, 2, 3, {"conn": connection()}]},
            r"\$\.args\[0\]\.context\[3\]\.conn: sqlite3\.Connection",
        ),
        (
            lambda: {"context": [1, 2, 3, wire_work.Held(connection())]},
            r"\$\.args\[0\]\.context\[3\]\.conn: sqlite3\.Conn",
        ),
        (lambda: {"a": [Colour.RED]}, r"\$\.args\[0\]\.a\[0\]: tests\.support\.wire_values\.Colour"),
        (lambda: [Point(1)], r"\$\.args\[0\]\[0\]: tests\.support\.wire_values\.Point"),
        (lambda: {"rows": [np.array([object()])]}, r"\$\.args\[0\]\.rows\[0\]: numpy\.ndarray"),
    ],
    ids=["a connection", "within a dataclass", "an enum", "a dataclass", "an array of objects"],
)
async def test_what_cannot_be_sent_is_refused_by_its_place_before_anything_is_sent(
    refusing: Pool, make: Any, says: str
) -> None:
    value = make()
    beside = [wire_work.array(LARGE), b"x" * 2**20]
    for given_ in (value, {"beside": beside, **value} if isinstance(value, dict) else [*value, *beside]):
        with pytest.raises(errors.WireError, match=says) as refused:
            await refusing.run(GIVE, given_)
        assert refused.value.code == "not-encodable"
    (worker,) = refusing.status().workers
    assert worker.served == 0


async def test_a_result_that_cannot_be_sent_is_refused_by_its_place(refusing: Pool) -> None:
    with pytest.raises(errors.WireError, match=r"\$\.rows\[1\]\.conn: sqlite3\.Connection"):
        await refusing.run(wire_work.give_a_connection)
    with pytest.raises(errors.WireError, match=r"\$\.rows\[1\]: tests\.support\.wire_values\.Colour"):
        await refusing.run(wire_work.give_an_enum)


async def test_a_part_that_cannot_be_sent_ends_its_stream_behind_the_parts_before_it(refusing: Pool) -> None:
    parts = refusing.stream(ask("arrays_and_a_connection", 3))
    assert same([await anext(parts) for _ in range(3)], [wire_work.array(LARGE, n) for n in range(3)])
    with pytest.raises(errors.WireError, match=r"\$\[1\]: sqlite3\.Connection"):
        await anext(parts)


async def test_an_answer_of_a_host_function_that_cannot_be_sent_is_an_error_of_the_work(
    refusing: Pool,
) -> None:
    def answer(_: Any) -> Any:
        return [wire_work.array(LARGE), connection()]

    with pytest.raises(errors.WireError, match=r"\$\[1\]: sqlite3\.Connection"):
        await refusing.call(ask("ask", "answer", 1), host_functions={"answer": answer})


@pytest.mark.parametrize("beside", ["text", "bytes of a dict"])
async def test_a_value_that_is_too_large_is_refused_and_keeps_no_memory(refusing: Pool, beside: str) -> None:
    text = "x" * (65 * 2**20)
    value = {"array": wire_work.array(LARGE), "text": text if beside == "text" else {"deep": [text]}}
    for _ in range(2):
        with pytest.raises(errors.WireError) as refused:
            await refusing.run(GIVE, value)
        assert refused.value.code == "frame-too-large"
    with pytest.raises(errors.WireError) as refused:
        await refusing.run(wire_work.give_too_much, 65 * 2**20)
    assert refused.value.code == "frame-too-large"


# --- other workers, other loops ---


async def test_a_worker_whose_memory_is_limited_takes_and_gives_large_values(open_pool: OpenPool) -> None:
    pool = await open_pool(limits=Limits(memory=4 * 2**30), max_inflight=4)
    value = np.arange(4 * LARGE)
    for _ in range(10):
        answers = await asyncio.gather(*(pool.run(GIVE, value + n) for n in range(4)))
        assert same(answers, [value + n for n in range(4)])
    (worker,) = pool.status().workers
    assert worker.restarts == 0


def test_large_values_take_every_way_on_uvloop() -> None:
    before = {child.pid for child in children()}

    async def main() -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        async with Pool(PoolSpec(workers=1, classes=VALUES, timeouts=QUICK)) as pool:
            value = {"a": wire_work.array(LARGE), "p": Point(b"x" * 2**20)}
            answers = await asyncio.gather(*(pool.run(GIVE, value) for _ in range(20)))
            assert same(answers, [value] * 20)
            seen = [batch async for batch in pool.stream(ask("batches", 50))]
            assert all(map(pa.RecordBatch.equals, seen, wire_work.batches(50)))
            back = pool.stream(ask("back"), input_streams={"parts": [value] * 20})
            assert same([part async for part in back], [value] * 20)

            async def double(value: Any) -> Any:
                return 2 * value

            doubled = await pool.call(ask("ask", "double", value["a"]), host_functions={"double": double})
            assert same(doubled, 2 * value["a"])
            (worker,) = pool.status().workers
            assert worker.pid is not None
            del answers, seen, doubled
            await until(lambda: segments_of(worker.pid or 0) == segments_of() == [], seconds=30)
        await until(lambda: not [child for child in children() if child.pid not in before])

    uvloop.run(main())
