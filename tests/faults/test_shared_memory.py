"""Whoever is killed, and whenever: shared memory ends with those who read it, and the other side goes on."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.support.backends import Processes
from tests.support.memory import MIB, holders_of, segments_of, shared_memory, sockets
from tests.support.pools import OpenPool
from tests.support.processes import until

from dspex._segments import SharedSegment
from dspex.pool import EchoRequest
from dspex.protocol.memory_receiver import Receiver
from dspex.protocol.memory_sender import Sender

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory passes by descriptor here")

SIZE = 16 * MIB
ROOT = Path(__file__).parents[2]


class Peer:
    """A process at the other end, with a sender and a receiver at this one."""

    def __init__(self, role: str) -> None:
        self.sock, child = sockets()
        self.released: list[int] = []
        self.sender = Sender(self.sock, keep=64 * MIB, limit=256 * MIB)
        self.receiver = Receiver(self.sock, on_release=self.released.append, limit=256 * MIB)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.memory_peer", role, str(child.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[child.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            cwd=ROOT,
            bufsize=0,  # what is read ahead would be hidden from `select`
        )
        child.close()

    def hear(self, seconds: float = 60.0) -> str:
        """The next line it says."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], seconds)[0], "it says nothing"
        return self.process.stdout.readline().decode().strip()

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def segments(self) -> set[int]:
        return set(segments_of(self.process.pid))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(60) == -signal.SIGKILL

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        self.sock.close()
        self.process.kill()
        self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def peer() -> Iterator[Callable[[str], Peer]]:
    peers: list[Peer] = []

    def start(role: str) -> Peer:
        peers.append(Peer(role))
        return peers[-1]

    yield start
    for each in peers:
        each.close()


@pytest.fixture(autouse=True)
async def everything_is_as_before() -> AsyncIterator[None]:
    """After each test this process has the descriptors, the pages and the mappings that it had before."""
    gc.collect()
    descriptors, shared = psutil.Process().num_fds(), shared_memory()
    seen = sorted(os.listdir("/dev/shm"))
    yield
    gc.collect()
    await until(lambda: psutil.Process().num_fds() <= descriptors)
    assert segments_of() == []
    assert shared_memory() <= shared + MIB
    assert [name for name in os.listdir("/dev/shm") if "dspex" in name and name not in seen] == []


def gone(inodes: set[int]) -> bool:
    return not any(holders_of(inode) for inode in inodes)


# --- the sender is killed ---


async def test_a_segment_whose_sender_was_killed_before_its_frame_ends_with_the_socket(
    peer: Callable[[str], Peer],
) -> None:
    other = peer("send")
    assert other.hear() == "1"
    inodes = other.segments()
    assert inodes
    other.kill()
    assert gone(inodes)  # nobody maps it; it is in the queue of a socket
    other.close()
    assert gone(inodes)


async def test_a_segment_that_was_taken_from_the_queue_ends_with_its_receiver(
    peer: Callable[[str], Peer],
) -> None:
    other = peer("send")
    assert other.hear() == "1"
    inodes = other.segments()
    other.kill()
    assert not other.receiver.receive()  # all that it has sent, and then the end
    assert other.receiver.size == SIZE
    assert holders_of(*inodes) == [os.getpid()]
    other.receiver.close()
    assert gone(inodes)


@pytest.mark.parametrize("role", ["send", "share"])
async def test_views_outlive_a_sender_that_was_killed(peer: Callable[[str], Peer], role: str) -> None:
    other = peer(role)
    number = int(other.hear())
    inodes = other.segments()
    (view,) = other.receiver.views(number, [(0, SIZE)])
    array = np.frombuffer(view, dtype="u1")
    del view
    other.kill()
    assert not other.receiver.receive()
    other.close()
    assert int(array.sum()) == SIZE * ord("s")
    assert holders_of(*inodes) == [os.getpid()]
    del array
    assert gone(inodes)


# --- the receiver is killed ---


async def test_a_receiver_that_was_killed_holding_views_leaves_nothing_and_the_sender_takes_all_back(
    peer: Callable[[str], Peer],
) -> None:
    other = peer("read")
    assert other.hear() == "ready"
    assert other.sender.put([b"p" * SIZE]) is not None
    inodes = set(segments_of())
    other.tell()
    assert other.hear() == str(ord("p"))
    assert other.segments() == inodes
    other.kill()
    assert holders_of(*inodes) == [os.getpid()]
    assert other.sender.place([1]) is None  # nothing more can be passed
    other.sender.close()
    assert gone(inodes)


async def test_a_shared_segment_outlives_a_reader_that_was_killed(peer: Callable[[str], Peer]) -> None:
    first, second = peer("read"), peer("read")
    shared = SharedSegment([b"p" * SIZE])
    for other in (first, second):
        assert other.hear() == "ready"
        assert other.sender.share(shared) == 1
        other.tell()
        assert other.hear() == str(ord("p"))
    first.kill()
    assert bytes(shared.views()[0][:1]) == b"p"
    inodes = second.segments()
    assert sorted(holders_of(*inodes)) == sorted([os.getpid(), second.process.pid])
    del shared
    gc.collect()
    assert holders_of(*inodes) == [second.process.pid]
    second.kill()
    assert gone(inodes)


# --- both are ---


async def test_nothing_is_left_when_both_sides_were_killed(peer: Callable[[str], Peer]) -> None:
    ends = sockets()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.memory_peer", "both", str(end.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[end.fileno()],
            env=environment,
            cwd=ROOT,
            text=True,
        )
        for end in ends
    ]
    for end in ends:
        end.close()
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "1"
    for process in both:  # now that each has passed its segment
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        assert process.stdout.readline().strip() == str(ord("s"))
    inodes = {inode for process in both for inode in segments_of(process.pid)}
    assert len(inodes) == 2
    assert all(sorted(holders_of(inode)) == sorted(process.pid for process in both) for inode in inodes)
    for process in both:
        process.kill()
        process.wait(60)
        process.communicate()
    assert gone(inodes)


# --- forks ---


async def test_a_forked_process_places_nothing_and_releases_nothing(peer: Callable[[str], Peer]) -> None:
    other = peer("fork")
    assert other.sender.put([b"p" * SIZE]) is not None
    assert other.hear() == "ready"
    other.tell()
    # The child was refused, and told nobody; its parent goes on.
    assert other.hear() == "0 [] True"
    assert other.hear() == "[1]"


# --- workers ---


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_a_local_worker_has_the_other_end_of_its_memory_socket_until_it_dies(
    open_pool: OpenPool, start: str
) -> None:
    here = Processes()
    pool = await open_pool(workers=1, start=start, backend=here)
    assert await pool.call(EchoRequest(1), timeout=60) == 1
    (handle,) = here.handles
    sock: Any = handle.memory_socket
    assert sock is not None
    poll = select.poll()
    watched = os.dup(sock.fileno())
    poll.register(watched, select.POLLHUP)
    assert poll.poll(0) == []
    os.kill(handle.pid, signal.SIGKILL)
    await until(lambda: poll.poll(0))
    await until(lambda: sock.fileno() == -1)  # the service's end is closed with the worker
    os.close(watched)
    assert await pool.call(EchoRequest(2), timeout=60) == 2
    assert here.handles[-1].memory_socket is not None
