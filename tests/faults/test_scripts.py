"""A pool that is created in a script ends with it, however the script ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from tests.support.processes import running, until

ROOT = Path(__file__).resolve().parents[2]


async def start_script(
    end: str, start: str, file: Path
) -> tuple[asyncio.subprocess.Process, list[psutil.Process]]:
    script = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.script", end, start, str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert script.stdout is not None
    pids = (await script.stdout.readline()).split()
    assert len(pids) == 2
    workers = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # the script's end may be over already
            workers.append(psutil.Process(int(pid)))
    return script, workers


# how the script ends, its status, the last line of its standard error
ENDS = [
    ("by itself", 0, ""),
    ("busy", 0, ""),
    ("exception", 1, "LookupError: the script's own mistake"),
    ("exception while busy", 1, "LookupError: the script's own mistake"),
    ("sys.exit", 3, ""),
    ("os._exit", 4, ""),
    ("os._exit while busy", 4, ""),
]


@pytest.mark.parametrize(("end", "status", "says"), ENDS, ids=[row[0] for row in ENDS])
async def test_a_pool_nobody_closes_ends_with_its_script(
    end: str, status: int, says: str, tmp_path: Path
) -> None:
    start = "spawn" if end == "by itself" else "forkserver"
    script, workers = await start_script(end, start, tmp_path / "told")

    _, stderr = await asyncio.wait_for(script.communicate(), 30)

    assert script.returncode == status
    assert (stderr.decode().splitlines() or [""])[-1] == says
    assert stderr.decode().count("Traceback") == bool(says)
    await until(lambda: not any(map(running, workers)), seconds=30.0)


async def test_ctrl_c_ends_the_call_that_waits_and_not_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "told"
    script, workers = await start_script("interrupted", "forkserver", file)
    await until(lambda: file.exists() and file.read_text() == "begun")

    script.send_signal(signal.SIGINT)
    stdout, stderr = await asyncio.wait_for(script.communicate(), 30)

    assert (stdout.decode(), stderr.decode(), script.returncode) == ("interrupted still here\n", "", 0)
    assert file.read_text() == "cancelled"
    await until(lambda: not any(map(running, workers)), seconds=30.0)


async def test_a_fork_of_the_script_is_refused_and_does_not_end_the_pool(tmp_path: Path) -> None:
    script, workers = await start_script("forked", "forkserver", tmp_path / "told")
    stdout, stderr = await asyncio.wait_for(script.communicate(), 30)
    assert (stdout.decode(), stderr.decode(), script.returncode) == ("pool-forked\nstill here\n", "", 0)
    await until(lambda: not any(map(running, workers)), seconds=30.0)
