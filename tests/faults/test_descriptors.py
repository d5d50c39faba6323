"""A service without descriptors cannot start workers, loses none by trying, and starts them afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from functools import partial

import psutil
import pytest
from tests.support.backends import Processes
from tests.support.pools import OpenPool
from tests.support.processes import descriptors_left, until

from dspex import errors
from dspex.pool import EchoRequest, Pool, Restart, State
from dspex.pool._backends.connect_back import Listener
from dspex.pool._backends.process import ChildPipes
from dspex.protocol.connect_back import GREETING, ROLES


def test_what_a_worker_is_given_is_opened_whole_or_not_at_all() -> None:
    before = psutil.Process().num_fds()
    for count in range(10):
        with descriptors_left(count), pytest.raises(OSError, match="Too many open files"):
            ChildPipes.open()
        assert psutil.Process().num_fds() == before
    with descriptors_left(10):
        ends = ChildPipes.open()
    ends.close_child()
    ends.close_parent()
    assert psutil.Process().num_fds() == before


def has_tried(pool: Pool, pid: int, deaths: int) -> bool:
    """Whether a start has failed since the worker `pid` was killed, or, where there was enough, succeeded."""
    others = [worker for worker in pool.status().workers if worker.pid != pid]
    return pool.status().deaths > deaths + 1 or any(worker.state is State.READY for worker in others)


async def test_a_switchboard_without_descriptors_takes_calls_when_there_are_some() -> None:
    listener = Listener()
    connect_info = listener.expect()
    lines = [socket.create_connection((connect_info.host, connect_info.port)) for _ in ROLES]
    for line, role in zip(lines, ROLES, strict=True):
        line.sendall(GREETING.pack(connect_info.token, role, os.getpid()))
    with descriptors_left(0):
        for _ in range(10):
            await asyncio.sleep(0)  # the loop finds that somebody calls

    worker = await asyncio.wait_for(listener.connected(connect_info, "here", lambda: None), 10)

    assert worker.pid == os.getpid()
    assert worker.memory_socket is None  # it may be on another machine
    worker.release()
    await listener.aclose()
    for line in lines:
        line.close()


@pytest.mark.parametrize("start", ["forkserver", "forkserver, gone too", "spawn"])
async def test_a_pool_without_descriptors_starts_again_when_there_are_some(
    open_pool: OpenPool, start: str
) -> None:
    here = Processes()
    pool = await open_pool(
        workers=1, start=start.partition(",")[0], restart=Restart(max=1_000_000), backend=here
    )
    assert await pool.call(EchoRequest(1), timeout=20) == 1
    before = psutil.Process().num_fds()
    for count in range(0, 16, 2):
        deaths = pool.status().deaths
        (pid,) = [worker.pid for worker in pool.status().workers]
        assert pid is not None
        with descriptors_left(count):
            if start == "forkserver, gone too":
                assert here.forkserver is not None
                os.kill(here.forkserver, signal.SIGKILL)
                await until(lambda: here.forkserver is None)
            os.kill(pid, signal.SIGKILL)
            await until(partial(has_tried, pool, pid, deaths))
        while True:
            with contextlib.suppress(errors.WorkerDiedError):
                assert await pool.call(EchoRequest(count), timeout=20) == count
                break
        await until(lambda: psutil.Process().num_fds() == before)
