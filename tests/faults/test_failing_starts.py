"""Whatever goes wrong while a worker starts or ends, supervision goes on: no place is lost, nothing hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from tests.support.backends import Processes
from tests.support.pools import QUICK, OpenPool
from tests.support.processes import children, running, until

from dspex import errors
from dspex.pool import EchoRequest, LocalProcesses, Pool, PoolSpec, State, Timeouts
from dspex.pool._backends import forkserver as forkserver_module
from dspex.pool._backends import process as process_module
from dspex.pool._backends.base import Handle, Launcher
from dspex.pool._backends.forkserver import ForkserverLauncher, _Link
from dspex.pool._backends.process import ChildPipes, Process
from dspex.pool._worker import Worker
from dspex.protocol.channel import Channel

EVERYWHERE = [
    (ChildPipes, "open"),
    (process_module, "_start"),
    (process_module, "_starter"),
    (Process, "__init__"),
    (Process, "listen"),
    (Process, "on_beat"),
    (Worker, "_watch_heartbeat"),
    (Channel, "attach"),
    (Channel, "send"),
]
FORKSERVER = [
    (forkserver_module, "start_interpreter"),
    (forkserver_module, "watch_exit"),
    (forkserver_module, "open_lifeline"),
    (ForkserverLauncher, "_start"),
    (_Link, "open"),
    (_Link, "ask"),
    (_Link, "fork"),
    (_Link, "adopt"),
]
SPAWN = [(process_module, "start_interpreter"), (process_module, "watch_exit")]
STEPS = [("forkserver", *step) for step in (*EVERYWHERE, *FORKSERVER)]
STEPS += [("spawn", *step) for step in (*EVERYWHERE, *SPAWN)]
RAISED: list[Exception] = [
    RuntimeError("can't start new thread"),
    ValueError("embedded null byte"),
    MemoryError(),
    KeyError("x"),
    AssertionError(),
    TimeoutError(),
    BrokenPipeError(),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    RecursionError(),
]


def label(value: Any) -> str:
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


class Fault:
    """Makes a step raise, as often as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Exception) -> None:
        self.left = 0
        self.met = 0
        original = owner.__dict__[name]
        plain = original.__func__ if isinstance(original, classmethod) else original

        def step(*args: Any, **kwargs: Any) -> Any:
            if self.left:
                self.left -= 1
                self.met += 1
                raise error
            return plain(*args, **kwargs)

        monkeypatch.setattr(owner, name, classmethod(step) if plain is not original else step)


@pytest.fixture(autouse=True)
def hushed(caplog: pytest.LogCaptureFixture) -> None:
    """What supervision did not expect it also tells the loop, which logs it."""
    caplog.set_level("CRITICAL", logger="asyncio")


async def kill_worker(pool: Pool) -> None:
    (worker,) = pool.status().workers
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    await until(lambda: worker.pid not in [each.pid for each in pool.status().workers])


@pytest.fixture
def nothing_left() -> Callable[[], Any]:
    descriptors = psutil.Process().num_fds()
    before = {child.pid for child in children()}

    async def check() -> None:
        await until(lambda: not [child for child in children() if child.pid not in before])
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        # The starter's thread, and what the loop opens once, are there for good.
        await until(lambda: psutil.Process().num_fds() <= descriptors + 3, seconds=10)

    return check


@pytest.mark.parametrize(
    ("start", "owner", "name", "error"),
    [
        *((*step, RAISED[index % len(RAISED)]) for index, step in enumerate(STEPS)),
        *(("spawn", process_module, "_start", error) for error in RAISED),
        *(("forkserver", _Link, "fork", error) for error in RAISED),
    ],
    ids=label,
)
async def test_a_first_start_that_fails_is_a_typed_error_and_leaves_nothing(
    start: Any,
    owner: Any,
    name: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    nothing_left: Callable[[], Any],
) -> None:
    fault = Fault(monkeypatch, owner, name, error)
    pool = Pool(PoolSpec(workers=1, start=start, timeouts=Timeouts(start=20.0, stop=2.0)))
    fault.left = 1

    with pytest.raises(errors.WorkerStartError):
        await asyncio.wait_for(pool.start(), 60)

    assert fault.met == 1
    assert pool.state is State.DEAD
    await nothing_left()


@pytest.mark.parametrize(
    ("start", "owner", "name", "error"),
    [(*step, RAISED[index % len(RAISED)]) for index, step in enumerate(STEPS)],
    ids=label,
)
async def test_a_pool_whose_next_starts_fail_serves_again_when_they_succeed(
    start: str,
    owner: Any,
    name: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    open_pool: OpenPool,
) -> None:
    fault = Fault(monkeypatch, owner, name, error)
    here = Processes()
    pool = await open_pool(start=start, timeouts=QUICK.replace(start=20.0), backend=here)
    if here.forkserver is not None:
        os.kill(here.forkserver, signal.SIGKILL)  # so that the start of another is among the steps
    fault.left = 2
    await kill_worker(pool)

    assert await pool.call(EchoRequest("again"), timeout=120) == "again"
    assert fault.met == 2


class Odd:
    """A worker's handle that raises after it has done what it was asked to."""

    def __init__(self, handle: Handle, name: str) -> None:
        self._handle = handle
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._handle, name)
        if name != self._name:
            return value

        def method(*args: Any) -> Any:
            value(*args)
            raise RuntimeError(f"{name} is odd")

        return method


class OddLauncher:
    def __init__(self, launcher: Launcher, name: str) -> None:
        self._launcher = launcher
        self._name = name

    async def launch(self) -> Any:
        return Odd(await self._launcher.launch(), self._name)

    def output(self) -> str:
        return self._launcher.output()

    async def aclose(self) -> None:
        await self._launcher.aclose()


class OddProcesses(LocalProcesses):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def launcher(self, spec: PoolSpec) -> Any:
        return OddLauncher(super().launcher(spec), self._name)


@pytest.mark.parametrize("name", ["terminate", "kill", "release", "tail"])
async def test_a_backend_that_raises_at_a_worker_s_end_costs_no_place_and_no_call_waits(name: str) -> None:
    async with Pool(PoolSpec(workers=1, timeouts=Timeouts(stop=2.0)), backend=OddProcesses(name)) as pool:
        call = asyncio.ensure_future(pool.run("tests.support.work:block"))
        await until(lambda: pool.status().workers[0].inflight == 1)
        (worker,) = pool.status().workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)

        with pytest.raises(errors.WorkerDiedError):
            await asyncio.wait_for(call, 60)
        assert await pool.call(EchoRequest("again"), timeout=60) == "again"


async def test_a_pool_that_is_closed_while_it_starts_tells_who_waits_for_the_start() -> None:
    pool = Pool(PoolSpec(workers=1))
    starting = asyncio.ensure_future(pool.start())
    await until(lambda: pool.status().workers)

    await pool.aclose()

    with pytest.raises(errors.PoolClosedError, match="was closed while it started"):
        await asyncio.wait_for(starting, 60)
    assert pool.state is State.DEAD


async def test_a_forkserver_that_hangs_is_replaced(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Processes()
    pool = await open_pool(start="forkserver", timeouts=QUICK.replace(start=20.0), backend=here)
    assert here.forkserver is not None
    forkserver = psutil.Process(here.forkserver)
    forkserver.send_signal(signal.SIGSTOP)
    await kill_worker(pool)

    assert await pool.call(EchoRequest("again"), timeout=120) == "again"

    assert not running(forkserver)
    assert here.forkserver not in (None, forkserver.pid)
