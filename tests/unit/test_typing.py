"""What a type checker says of a user's program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parents[1] / "typing").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_mypy_finds_nothing_in_strict_mode(program: Path, tmp_path: Path) -> None:
    # Outside the repository, whose settings are not a user's. What is ignored must be wrong: strict says so.
    copy = tmp_path / program.name
    copy.write_text(program.read_text())
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", copy.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("Success: no issues found in 1 source file\n", 0)
