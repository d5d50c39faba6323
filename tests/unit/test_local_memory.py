"""Both directions of shared memory on one connection, on a loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.memory import MIB, sockets
from tests.support.processes import until

from dspex.errors import WireError
from dspex.protocol import local_memory
from dspex.protocol.frames import MAX_FRAME
from dspex.protocol.local_memory import LocalMemory
from dspex.protocol.parts import write_parts
from dspex.wire._blob import Blob

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory passes by descriptor here")


class Ends:
    """Two ends whose RELEASE frames arrive at once."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.sockets = sockets()
        self.told: list[int] = []
        self.here = LocalMemory(loop, self.sockets[0], lambda numbers: None, shares=True)
        self.there = LocalMemory(loop, self.sockets[1], self.tell, shares=False)

    def tell(self, numbers: list[int]) -> None:
        self.told += numbers
        self.here.released(numbers)

    def close(self) -> None:
        self.here.close()
        self.there.close()
        for sock in self.sockets:
            sock.close()


@contextlib.contextmanager
def ends() -> Iterator[Ends]:
    both = Ends()
    try:
        yield both
    finally:
        both.close()


async def test_what_is_idle_for_a_while_is_unmapped_by_both_ends_without_another_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_memory, "_IDLE", 0.01)
    with ends() as both:
        placed = both.here.place([5 * MIB])
        assert placed is not None
        views = both.there.views(placed.number, [(0, 5)])
        assert both.there._receiver.size == 5 * MIB
        del views
        await until(lambda: both.here._sender.size == 0)
        await until(lambda: both.there._receiver.size == 0)


async def test_a_release_in_the_middle_of_another_is_told_and_so_is_the_next() -> None:
    with ends() as both:

        class Interrupted(deque[Any]):
            """As when a collection, or another thread, lets go of a view at the worst moment."""

            interrupts = True

            def append(self, number: int) -> None:
                super().append(number)
                if self.interrupts:
                    self.interrupts = False
                    both.there._let_go(numbers[1])

        numbers = [placed.number for _ in range(3) if (placed := both.here.place([1])) is not None]
        both.there._released = Interrupted()
        both.there._let_go(numbers[0])
        await until(lambda: sorted(both.told) == numbers[:2])
        both.there._let_go(numbers[2])
        await until(lambda: sorted(both.told) == numbers)


async def test_a_frame_that_is_too_large_gives_its_segment_back() -> None:
    with ends() as both:
        for _ in range(3):
            with pytest.raises(WireError, match="the limit is"):
                write_parts(b"x" * MAX_FRAME, [Blob(b"part")], both.here)
        assert both.here._sender.size == MIB


async def test_a_peer_that_passes_rubbish_is_watched_no_more() -> None:
    with ends() as both:
        both.sockets[0].send(b"rubbish")
        await until(lambda: both.there._watched is None)
        with pytest.raises(WireError, match="no message"):
            both.there.views(1, [(0, 1)])
