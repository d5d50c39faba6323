"""However the service dies, its workers die with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from tests.support.pools import OpenPool
from tests.support.processes import running, until

ROOT = Path(__file__).resolve().parents[2]


async def start_service(
    kind: str, start: str, *more: str
) -> tuple[asyncio.subprocess.Process, list[psutil.Process]]:
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.service", kind, start, *more),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert service.stdout is not None
    pids = (await service.stdout.readline()).split()
    assert len(pids) == 2
    workers = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # a careless service may be gone already
            workers.append(psutil.Process(int(pid)))
    return service, workers


@pytest.mark.parametrize("kind", ["idle", "busy", "greedy"])
@pytest.mark.parametrize("start", ["forkserver", "spawn"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
async def test_no_worker_outlives_its_service(kind: str, start: str, number: signal.Signals) -> None:
    service, workers = await start_service(kind, start)
    assert all(map(running, workers))

    service.send_signal(number)
    await service.wait()

    await until(lambda: not any(map(running, workers)), seconds=30.0)


@pytest.mark.parametrize("kind", ["idle", "busy"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_the_end_of_the_lifeline_alone_ends_a_worker(kind: str, number: signal.Signals) -> None:
    """As on macOS, where the kernel sends no signal: in the workers, what needs Linux is really off."""
    service, workers = await start_service(kind, "spawn", "tests.support.disarmed")
    assert all(map(running, workers))

    service.send_signal(number)
    await service.wait()

    await until(lambda: not any(map(running, workers)), seconds=30.0)


async def test_the_kernel_is_asked_to_end_a_worker_and_a_test_can_take_that_back(open_pool: OpenPool) -> None:
    pool = await open_pool(start="spawn")
    assert await pool.run("tests.support.work:kernel_signals") == (9, 9)
    pool = await open_pool(start="spawn", preload=("tests.support.disarmed",))
    assert await pool.run("tests.support.work:kernel_signals") == (0, 0)


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_no_worker_outlives_its_service_for_the_sake_of_a_fork_made_in_c(start: str) -> None:
    """Such a fork has not run Python's handlers, so it holds the lifelines of the workers for ever."""
    service, workers = await start_service("forked-in-c", start)
    parent = psutil.Process(service.pid)
    assert service.stdout is not None
    fork = psutil.Process(int(await service.stdout.readline()))
    service.kill()
    await until(lambda: not running(parent))

    await until(lambda: not any(map(running, workers)), seconds=30.0)

    assert running(fork)
    fork.kill()
    await service.communicate()  # its pipes end with the fork, which held them


async def test_no_worker_outlives_its_service_for_the_sake_of_a_fork_of_it() -> None:
    service, workers = await start_service("forked", "forkserver")
    parent = psutil.Process(service.pid)
    (fork,) = [child for child in parent.children() if "tests.support.service" in child.cmdline()]
    (forkserver,) = [child for child in parent.children() if "dspex.worker" in child.cmdline()]
    service.kill()
    await until(lambda: not running(parent))  # not `service.wait`: the fork holds its pipes open still

    await until(lambda: not any(map(running, [*workers, forkserver])), seconds=30.0)

    assert running(fork)
    assert service.stdin is not None
    service.stdin.close()
    await until(lambda: not running(fork))
    await service.wait()


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_a_script_that_forgets_to_close_its_pool_ends_and_the_pool_with_it(start: str) -> None:
    service, workers = await start_service("careless", start)

    _, stderr = await asyncio.wait_for(service.communicate(), 30)

    assert (service.returncode, stderr.decode()) == (0, "")
    await until(lambda: not any(map(running, workers)), seconds=30.0)
