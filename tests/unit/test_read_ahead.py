"""Reading ahead of whoever takes the parts, and iterators whose steps block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator

import pytest

from dspex._read_ahead import ReadAhead
from dspex._threads import in_thread, iterate_in_threads


async def until_nothing_moves() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Source:
    """Numbers up to an end, or to an error; it says how many were read and whether it was closed."""

    def __init__(self, end: int, error: Exception | None = None) -> None:
        self.read = 0
        self.closed_by: asyncio.Task[object] | None = None
        self.read_by: asyncio.Task[object] | None = None
        self._end = end
        self._error = error

    async def numbers(self) -> AsyncGenerator[int, None]:
        self.read_by = asyncio.current_task()
        try:
            while self.read < self._end:
                self.read += 1
                yield self.read
            if self._error is not None:
                raise self._error
        finally:
            self.closed_by = asyncio.current_task()


async def test_no_more_than_the_window_is_read_before_somebody_takes_it() -> None:
    source = Source(100)
    ahead = ReadAhead(source.numbers(), 3)
    await until_nothing_moves()
    assert source.read == 0, "nobody has asked yet"
    assert await ahead.take() == [1]
    await until_nothing_moves()
    assert source.read == 4
    assert await ahead.take(10) == [2, 3, 4]
    await until_nothing_moves()
    assert source.read == 7
    await ahead.close()


async def test_parts_that_are_given_back_come_again_and_take_no_room_twice() -> None:
    source = Source(4)
    ahead = ReadAhead(source.numbers(), 2)
    taken = [*await ahead.take(), *await ahead.take()]
    ahead.give_back(taken)
    assert [*await ahead.take(), *await ahead.take(), *await ahead.take(), *await ahead.take()] == [
        1,
        2,
        3,
        4,
    ]
    assert await ahead.take() == []
    assert ahead.finished


async def test_an_error_of_the_source_comes_after_its_parts() -> None:
    ahead = ReadAhead(Source(2, OSError("the disk is gone")).numbers(), 8)
    assert await ahead.take() == [1]
    await until_nothing_moves()
    assert await ahead.take(8) == [2]
    assert not ahead.finished
    with pytest.raises(OSError, match="the disk is gone"):
        await ahead.take()


async def test_a_source_is_closed_by_the_task_that_read_it() -> None:
    source = Source(100)
    ahead = ReadAhead(source.numbers(), 2)
    await ahead.take()
    await ahead.close()
    await ahead.close()
    assert source.closed_by is source.read_by is not asyncio.current_task()
    assert await ahead.take(8) == [2]
    assert await ahead.take() == []


async def test_each_step_of_an_iterator_is_taken_in_a_thread() -> None:
    threads: list[threading.Thread] = []

    def steps() -> Iterator[int]:
        try:
            for number in range(3):
                threads.append(threading.current_thread())
                yield number
        finally:
            threads.append(threading.current_thread())

    assert [number async for number in iterate_in_threads(steps())] == [0, 1, 2]
    assert len(threads) == 4
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("abandon", [False, True])
async def test_a_cancelled_caller_waits_for_its_thread_unless_it_abandons_it(abandon: bool) -> None:
    go_on = threading.Event()
    begun = threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(60)

    caller = asyncio.ensure_future(in_thread(work, abandon=abandon))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    caller.cancel()
    await until_nothing_moves()
    assert caller.done() is abandon
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
