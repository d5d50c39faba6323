"""A durable pipeline whose store may not be written, by the rights of a real file system."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.stores import SQLite

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user may reach, as pytest's own is not."""
    made = Path(tempfile.mkdtemp(prefix="dspex-readonly-"))
    made.chmod(0o755)
    (made / "kept").mkdir()
    yield made
    (made / "kept").chmod(0o755)
    shutil.rmtree(made)


def begin_one(path: Path) -> None:
    """A store with a run in it, as it is when nobody has it open."""

    async def work(x: int) -> int:
        return x

    async def run() -> None:
        store = SQLite(path)
        await dspex.pipeline(dspex.step(work, outputs="y")).arun(x=1, run_id="before", store=store)
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("file", "inside"),
    [(0o444, 0o555), (0o444, 0o777), (0o644, 0o555), (None, 0o555)],
    ids=["both", "the file", "its directory", "a directory without the file"],
)
def test_a_store_that_may_not_be_written_is_an_error_before_any_step_runs(
    file: int | None, inside: int, directory: Path
) -> None:
    path = directory / "kept" / "runs.sqlite3"
    if file is not None:
        begin_one(path)
        path.chmod(file)
    path.parent.chmod(inside)
    command = [sys.executable, "-m", "tests.support.readonly_run", str(path), str(directory / "warm.sqlite3")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(run_id: str) -> Any:
            process.stdin.write(f"{run_id}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return json.loads(process.stdout.readline())  # type: ignore[union-attr]

        try:
            for _ in range(2):
                refused = ask("r1")
                assert refused == {"outcome": ["StoreError", "store-readonly"], "calls": [], "tasks": 1}
            path.parent.chmod(0o777)
            if file is not None:
                path.chmod(0o666)
            assert ask("r1") == {"outcome": {"z": 3}, "calls": [1, 2], "tasks": 1}
            last, _ = process.communicate(timeout=60)
            assert [name for name in json.loads(last) if "store" in name] == []
            assert process.returncode == 0
        finally:
            process.kill()
    assert os.path.getsize(path) > 0
