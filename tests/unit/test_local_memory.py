"""Shared memory on a loop: who is told of the end of a segment, and when."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.memory import segments_of, sockets
from tests.support.processes import until

from dspex._segments import SharedSegment
from dspex.errors import WireError
from dspex.protocol.frames import MAX_FRAME, Kind
from dspex.protocol.local_memory import LocalMemory
from dspex.protocol.parts import write_parts
from dspex.wire._blob import Blob

MIB = 2**20


class Pair:
    """Both ends of a connection in one process; what they tell each other waits until `pass_on`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.sockets = sockets()
        self.told: list[tuple[Kind, list[int]]] = []
        self.service = LocalMemory(loop, self.sockets[0], lambda *said: self.told.append(said), shares=True)
        self.released: list[int] = []
        self.worker = LocalMemory(
            loop, self.sockets[1], lambda _, numbers: self.released.extend(numbers), shares=False
        )

    def pass_on(self) -> None:
        while self.told:
            kind, numbers = self.told.pop(0)
            assert kind is Kind.GONE
            self.worker.gone(numbers)

    def cross(self, size: int) -> memoryview:
        placed = self.service.place([size])
        assert placed is not None
        (view,) = self.worker.views(placed.number, [(0, size)])
        return view

    def close(self) -> None:
        self.service.close()
        self.worker.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


async def test_a_shared_segment_that_ends_is_read_by_a_frame_that_was_written_before(pair: Pair) -> None:
    segment = SharedSegment([b"x" * MIB])
    number = pair.service.share(segment)
    assert number is not None
    del segment
    await until(lambda: pair.told)

    (view,) = pair.worker.views(number, [(0, MIB)])  # the frame is read only now
    pair.pass_on()

    assert view == b"x" * MIB
    with pytest.raises(WireError, match="was not passed"):
        pair.worker.views(number, [(0, MIB)])
    del view
    assert segments_of() == []


async def test_shared_segments_of_which_the_peer_was_told_make_room_for_others(pair: Pair) -> None:
    for _ in range(3):  # of all the bytes that may be shared, each
        segment = SharedSegment([b""])
        segment.size = 2 * 2**30
        assert pair.service.share(segment) is not None
        del segment
        await until(lambda: pair.told)
        pair.pass_on()


@pytest.mark.parametrize("numbers", [[7], 7, ["1"], [None]])
async def test_the_end_of_what_was_never_passed_is_refused(pair: Pair, numbers: Any) -> None:
    with pytest.raises(WireError) as refused:
        pair.worker.gone(numbers)
    assert refused.value.code == "bad-frame"


async def test_an_idle_segment_ends_at_the_reader_without_a_further_frame(pair: Pair) -> None:
    view = pair.cross(MIB)
    del view
    await until(lambda: pair.released)
    pair.service.released(pair.released)
    pair.service._sender.trim()
    pair.service._sender.trim()

    await until(lambda: segments_of() == [])


async def test_a_view_that_ends_while_another_does_is_told_too(pair: Pair) -> None:
    views = [pair.cross(MIB) for _ in range(3)]

    class Interrupted(deque[int]):
        """A garbage collection, or another thread, comes right behind the first release."""

        def append(self, number: int) -> None:
            super().append(number)
            if len(views) > 1:
                views.pop()

    pair.worker._released = Interrupted()
    views.pop()
    await until(lambda: len(pair.released) == 2)
    views.pop()
    await until(lambda: sorted(pair.released) == [1, 2, 3])


async def test_views_that_end_in_many_threads_are_all_told(pair: Pair) -> None:
    for _ in range(20):
        views = [pair.cross(MIB) for _ in range(8)]
        pair.released.clear()
        start = threading.Barrier(len(views))

        def let_go(start: threading.Barrier = start, views: list[memoryview] = views) -> None:
            start.wait()
            views.pop()

        threads = [threading.Thread(target=let_go) for _ in range(len(views))]
        for thread in threads:
            thread.start()
        await until(lambda: len(pair.released) == 8)
        for thread in threads:
            thread.join()
        pair.service.released(pair.released)


async def test_a_frame_that_is_too_large_keeps_no_memory(pair: Pair) -> None:
    for _ in range(3):
        with pytest.raises(WireError) as refused:
            write_parts(b"x" * (MAX_FRAME + 1), [Blob(b"y" * MIB)], pair.service)
        assert refused.value.code == "frame-too-large"
    gc.collect()
    assert segments_of() == []
