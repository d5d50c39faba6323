"""However the service dies, its workers die with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from tests.support.processes import running, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ["idle", "busy", "greedy"])
@pytest.mark.parametrize("start", ["zygote", "spawn"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
async def test_no_worker_outlives_its_service(kind: str, start: str, number: signal.Signals) -> None:
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.service", kind, start),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert service.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in (await service.stdout.readline()).split()]
    assert len(workers) == 2
    assert all(map(running, workers))

    service.send_signal(number)
    await service.wait()

    await until(lambda: not any(map(running, workers)), seconds=1.0)
