"""What is different on other systems than Linux, by the name of the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dspex.errors import ConfigError
from dspex.pool import LocalProcesses, Pool, PoolSpec
from dspex.pool._backends.forkserver import ForkserverLauncher
from dspex.pool._backends.process import SpawnLauncher

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("platform", "settings", "launcher"),
    [
        ("linux", {}, ForkserverLauncher),
        ("linux", {"start": "spawn"}, SpawnLauncher),
        ("linux", {"python": sys.executable}, SpawnLauncher),
        ("darwin", {}, SpawnLauncher),
        ("darwin", {"start": "spawn"}, SpawnLauncher),
        ("freebsd14", {}, SpawnLauncher),
    ],
)
async def test_how_workers_start_on_a_system(platform: str, settings: dict[str, Any], launcher: type) -> None:
    assert type(LocalProcesses(platform).launcher(PoolSpec(**settings))) is launcher


@pytest.mark.parametrize(
    ("platform", "settings", "code"),
    [
        ("win32", {}, "no-pools-here"),
        ("win32", {"start": "spawn"}, "no-pools-here"),
        ("darwin", {"start": "forkserver"}, "no-forkserver-here"),
    ],
)
async def test_what_a_system_cannot_do_is_refused_at_the_start(
    platform: str, settings: dict[str, Any], code: str
) -> None:
    pool = Pool(PoolSpec(**settings), backend=LocalProcesses(platform))
    with pytest.raises(ConfigError) as refused:
        await pool.start()
    assert refused.value.code == code
    assert refused.value.hint
    await pool.aclose()


async def test_a_pool_as_on_macos_answers(tmp_path: Path) -> None:
    async with Pool(PoolSpec(workers=1), backend=LocalProcesses("darwin")) as pool:
        assert await pool.echo(1) == 1
        assert pool.status().backend["platform"] == "darwin"


def test_without_what_windows_has_not_the_native_route_works_and_a_pool_says_so() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.windows"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.stderr == ""
    answered, refused = ended.stdout.splitlines()
    assert answered == "blue {}"
    assert refused.startswith("no-pools-here | worker pools need Unix sockets and signals")
    assert "route='native'" in refused
