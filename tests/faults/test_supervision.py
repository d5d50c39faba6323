"""Supervision survives every exception: whatever a step of a start raises, the pool says so and goes on."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psutil
import pytest
from tests.support.mishaps import Mishap, steps
from tests.support.pools import OpenPool
from tests.support.processes import children, until

from dspex import errors
from dspex.pool import (
    Backend,
    FunctionRequest,
    Handle,
    Launcher,
    LocalProcesses,
    Pool,
    PoolEvent,
    PoolSpec,
    Restart,
    State,
    Timeouts,
)


class Strange(BaseException):
    """What nobody expects."""


KINDS: tuple[type[BaseException], ...] = (
    RuntimeError,
    ValueError,
    MemoryError,
    OSError,
    errors.WireError,
    asyncio.CancelledError,
    TimeoutError,
    GeneratorExit,
    Strange,
)
"""Of every branch of Python's tree. `KeyboardInterrupt` is the loop's, which it ends, and so is `SystemExit`
but for what a backend raises."""

STEPS = dict(steps())

LAST_RESORTS = {
    "_tasks.Tasks.start",  # where a task begins
    "_tasks.Tasks._forget",  # and what hears of its end
    "_supervisor.Supervisor._begin_slot",
    "_supervisor.Supervisor._slot_ended",
    "_supervisor.Supervisor._begin_life",
    "_supervisor.Supervisor._life_ended",
    "channel.Channel.flush",  # a greeting that is never sent is missed when `start_timeout` is over
    "_worker.Worker.connection_made",
    "_worker.Worker.connection_lost",
    "_scheduler.Scheduler._send",  # where what goes wrong with a call is caught
    "_worker.Worker.status",  # of whoever asks for the status
}
"""What supervision itself is made of, so that its failure shows late or not at all."""


@pytest.fixture
async def quiet() -> AsyncIterator[list[dict[str, Any]]]:
    """Keeps what goes to the loop's handler."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    yield said
    asyncio.get_running_loop().set_exception_handler(None)


async def nothing_is_left(before: set[int], descriptors: int | None = None) -> None:
    await until(lambda: not [child for child in children() if child.pid not in before], seconds=30)
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, seconds=30)
    if descriptors is not None:
        await until(lambda: psutil.Process().num_fds() <= descriptors, seconds=30)


# --- a first start ---

FIRST_STEPS = [
    "process.SpawnLauncher.launch",
    "process.ChildPipes.open",
    "process.start_interpreter",
    "process._start",
    "process.watch_exit",
    "process.Process.listen",
    "process.Process.on_beat",
    "_worker.Worker.start",
    "channel.Channel.attach",
    "_worker.Worker._take",
    "channel.Channel.send",
    "_supervisor.Supervisor._spawn",
    "_supervisor.Supervisor._live",
    "_supervisor.Supervisor._fill",
    "_supervisor.Supervisor._keep",
]


@pytest.mark.parametrize("step", FIRST_STEPS)
async def test_a_first_start_that_meets_an_exception_says_so_in_time_and_leaves_nothing(
    step: str, monkeypatch: pytest.MonkeyPatch, quiet: list[dict[str, Any]]
) -> None:
    before = {child.pid for child in children()}
    async with Pool(PoolSpec(workers=1, start="spawn")):
        pass  # the thread that starts processes is there
    descriptors = psutil.Process().num_fds()
    kinds = (*KINDS, SystemExit) if step == "process.SpawnLauncher.launch" else (RuntimeError, Strange)
    for kind in kinds:
        events: list[PoolEvent] = []
        pool = Pool(PoolSpec(workers=1, start="spawn", timeouts=Timeouts(start=20)), on_event=events.append)
        with monkeypatch.context() as patch:
            mishap = Mishap(patch, STEPS[step], kind("no luck"))
            with pytest.raises(errors.WorkerStartError) as raised:
                await asyncio.wait_for(pool.start(), 60)
            assert mishap.happened
        if step.partition(".")[0] not in (
            "_worker",
            "channel",
        ):  # of a failure of the connection, the start hears the end
            assert kind.__name__ in str(raised.value) or "no luck" in str(raised.value)
            if "supervisor" not in step:
                assert any("no luck" in event.reason for event in events)
        assert pool.state is State.DEAD
        await nothing_is_left(before, descriptors)
        with pytest.raises(
            errors.PoolClosedError, match=r"its start failed: .*could not|its start failed: .*did not"
        ):
            await pool.echo(1)


@pytest.mark.parametrize("step", ["_start", "_Link.open", "_Link.ask", "_Link.fork", "_Link.adopt"])
async def test_a_forkserver_that_meets_an_exception_says_so_in_time_and_leaves_nothing(
    step: str, monkeypatch: pytest.MonkeyPatch, quiet: list[dict[str, Any]]
) -> None:
    name = f"forkserver.ForkserverLauncher.{step}" if step == "_start" else f"forkserver.{step}"
    before = {child.pid for child in children()}
    async with Pool(PoolSpec(workers=1, start="spawn")):
        pass
    descriptors = psutil.Process().num_fds()
    pool = Pool(PoolSpec(workers=1))
    with monkeypatch.context() as patch:
        mishap = Mishap(patch, STEPS[name], RuntimeError("can't start new thread"))
        with pytest.raises(errors.WorkerStartError, match="can't start new thread"):
            await asyncio.wait_for(pool.start(), 60)
        assert mishap.happened
    await nothing_is_left(before, descriptors)


# --- later starts ---


async def serves(pool: Pool) -> None:
    """Wait until a call is answered."""
    async with asyncio.timeout(60):
        while True:
            try:
                assert await pool.echo(1) == 1
            except errors.WorkerDiedError:  # of a worker whose death was not known yet
                continue
            except BaseException as err:
                if err.args != ("no luck",):  # the call itself has met the mishap
                    raise
                continue
            return


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_pool_recovers_from_an_exception_in_any_function_of_its_own(
    monkeypatch: pytest.MonkeyPatch, quiet: list[dict[str, Any]]
) -> None:
    """One forkserver pool; at each step its worker is killed, and the start or the end meets an exception."""
    happened: set[str] = set()
    pool = Pool(PoolSpec(workers=1, restart=Restart(max=1_000_000), timeouts=Timeouts(stop=2.0, cancel=0.2)))
    await pool.start()
    for number, (name, step) in enumerate(STEPS.items()):
        if name in LAST_RESORTS:
            continue
        kind = KINDS[number % len(KINDS)]
        await serves(pool)
        with monkeypatch.context() as patch:
            mishap = Mishap(patch, step, kind("no luck"))
            (victim,) = [w.pid for w in pool.status().workers if w.state is State.READY]
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            try:
                await until(lambda: victim not in [w.pid for w in pool.status().workers], seconds=60)  # noqa: B023
                await serves(pool)
            except TimeoutError:
                pytest.fail(f"{kind.__name__} in {name}: the pool did not recover")
        if mishap.happened:
            happened.add(name)
    assert len(happened) > 40, happened
    await asyncio.wait_for(pool.aclose(), 60)
    quiet.clear()  # its exceptions hold what they went through
    gc.collect()  # what a step was kept from closing, on the way out of a failure, says so here


# --- a backend of somebody else's ---


class Fussy:
    """The processes of this machine, by a backend each of whose methods can be made to raise, once."""

    def __init__(self) -> None:
        self.broken: dict[str, BaseException] = {}
        self._local = LocalProcesses()

    def describe(self) -> Mapping[str, str]:
        return self._local.describe()

    def launcher(self, spec: PoolSpec) -> Launcher:
        self.launched_by = self._local.launcher(spec)
        return Proxy(self.launched_by, self, "launcher")


class Proxy:
    def __init__(self, thing: Launcher | Handle, fussy: Fussy, name: str) -> None:
        self._thing, self._fussy, self._name = thing, fussy, name

    def __getattr__(self, name: str) -> Any:
        error = self._fussy.broken.pop(f"{self._name}.{name}", None)
        if error is not None:
            raise error
        found = getattr(self._thing, name)
        return self._launch if name == "launch" else found

    async def _launch(self) -> Proxy:
        handle = Proxy(await self._thing.launch(), self._fussy, "handle")  # type: ignore[union-attr]
        error = self._fussy.broken.pop("launched", None)
        if error is not None:
            handle._thing.kill()  # type: ignore[union-attr]
            handle._thing.release()  # type: ignore[union-attr]
            raise error
        return handle


def told(events: list[PoolEvent], name: str) -> int:
    """How many events of this name there have been."""
    return [event.name for event in events].count(name)  # type: ignore[arg-type]


OF_A_BACKEND = ["launcher.launch", "launched", "launcher.output"] + [
    f"handle.{name}"
    for name in (
        "pid",
        "socket",
        "exited",
        "output_closed",
        "last_beat",
        "on_beat",
        "tail",
        "terminate",
        "kill",
    )
]


@pytest.mark.timeout(180)
async def test_a_pool_recovers_from_an_exception_in_any_method_of_its_backend(
    quiet: list[dict[str, Any]],
) -> None:
    before = {child.pid for child in children()}
    fussy: Backend = Fussy()
    assert isinstance(fussy, Fussy)
    events: list[PoolEvent] = []  # not the status, which asks the handles that are broken
    spec = PoolSpec(workers=1, restart=Restart(max=1_000_000), timeouts=Timeouts(stop=2.0))
    pool = Pool(spec, backend=fussy, on_event=events.append)
    await pool.start()
    for number, name in enumerate(OF_A_BACKEND * 2):
        kind = KINDS[number % len(KINDS)]
        await serves(pool)
        victim = next(event.pid for event in reversed(events) if event.name == "worker.ready")
        assert victim is not None
        dead = told(events, "worker.dead")
        fussy.broken[name] = kind("no luck")
        os.kill(victim, signal.SIGKILL)
        try:
            await until(lambda: told(events, "worker.dead") > dead, seconds=60)  # noqa: B023
            await serves(pool)
        except TimeoutError:
            pytest.fail(f"{kind.__name__} in {name}: the pool did not recover")
    fussy.broken = {"handle.terminate": RuntimeError("no luck"), "launcher.aclose": RuntimeError("no luck")}
    await asyncio.wait_for(pool.aclose(), 60)
    assert pool.state is State.DEAD
    await fussy.launched_by.aclose()
    await nothing_is_left(before)


# --- tasks that end ---


async def test_a_pool_that_is_closed_in_the_turn_in_which_it_is_ready_says_so() -> None:
    closing: list[asyncio.Task[None]] = []

    def close(event: PoolEvent) -> None:
        if event.name == "pool.ready":
            closing.append(asyncio.ensure_future(pool.aclose()))

    pool = Pool(PoolSpec(workers=1), on_event=close)
    with pytest.raises(errors.PoolClosedError):
        await asyncio.wait_for(pool.start(), 60)
    await asyncio.gather(*closing)


async def test_whoever_cancels_all_tasks_does_not_take_the_pool_with_them(
    open_pool: OpenPool, quiet: list[dict[str, Any]]
) -> None:
    pool = await open_pool(workers=2)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    for _ in range(3):
        await serves(pool)
        for worker in pool.status().workers:
            if worker.pid is not None and worker.state is State.READY:
                os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: all(w.pid is not None for w in pool.status().workers))
    await serves(pool)


async def test_a_worker_is_ended_though_the_task_that_ends_it_is_cancelled(
    open_pool: OpenPool, quiet: list[dict[str, Any]]
) -> None:
    pool = await open_pool(workers=2, timeouts=Timeouts(stop=600.0))  # only a hurry ends it in time
    await until(lambda: all(worker.state is State.READY for worker in pool.status().workers))
    pids = [worker.pid for worker in pool.status().workers]
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # it does not heed what it is asked
    pool.resize(1)
    await until(lambda: State.STOPPING in [worker.state for worker in pool.status().workers])
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await until(lambda: len(pool.status().workers) == 1, seconds=30)
    (left,) = pool.status().workers
    assert left.pid is not None
    os.kill(left.pid, signal.SIGCONT)
    (gone,) = {*pids} - {left.pid}
    assert gone is not None
    assert not psutil.pid_exists(gone) or psutil.Process(gone).status() == psutil.STATUS_ZOMBIE
    await serves(pool)


@pytest.mark.parametrize("kind", [ValueError, Strange])
async def test_a_listener_that_raises_leaves_no_call_without_an_answer(
    kind: type[BaseException], quiet: list[dict[str, Any]]
) -> None:
    def fail(_: PoolEvent) -> None:
        raise kind("a listener's mistake")

    async with Pool(PoolSpec(workers=1), on_event=fail) as pool:
        for _ in range(2):
            with pytest.raises(errors.WorkerDiedError):
                await pool.call(FunctionRequest.of("os:_exit", 1), timeout=30)
        assert await pool.echo(1) == 1
    assert {type(context["exception"]) for context in quiet} == {kind}
