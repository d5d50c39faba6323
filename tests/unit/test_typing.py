"""What type checkers say of a user's programs, in their strict modes."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

import dspex
from dspex._settings import REQUEST_SETTINGS
from dspex.lm import RequestSettings
from dspex.signature._field_settings import FieldSettings
from dspex.signature._fields import _CONSTRAINTS, _DSPY_KEYS, UNTYPED

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((ROOT / "tests" / "typing").glob("*.py"))

CACHE = ROOT / ".mypy_cache" / "of_a_user"
"""What mypy knows of pydantic and aiohttp from the run before."""


def run(folder: Path, *command: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)
    return done.stdout, done.returncode


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The programs outside the repository, whose settings are not a user's.

    What they ignore must be wrong: both checkers complain of an ignored line that is right.
    """
    for program in PROGRAMS:
        shutil.copy(program, tmp_path)
    return tmp_path


def test_mypy_finds_nothing_in_strict_mode(programs: Path) -> None:
    said, status = run(programs, "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}", ".")
    assert (said, status) == (f"Success: no issues found in {len(PROGRAMS)} source files\n", 0)


def test_pyright_finds_nothing_in_strict_mode(programs: Path) -> None:
    settings = {"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": True}
    (programs / "pyrightconfig.json").write_text(json.dumps(settings))
    said, status = run(programs, "pyright", "--pythonpath", sys.executable)
    assert (said.splitlines()[-1:], status) == (["0 errors, 0 warnings, 0 informations"], 0), said


def test_the_settings_that_editors_show_are_those_that_are_known() -> None:
    assert RequestSettings.__annotations__.keys() == REQUEST_SETTINGS


def test_the_settings_of_a_field_that_editors_show_make_a_field() -> None:
    known = {*inspect.signature(pydantic.Field).parameters, *_DSPY_KEYS} - {UNTYPED}
    assert FieldSettings.__annotations__.keys() <= known
    assert FieldSettings.__annotations__.keys() >= _CONSTRAINTS.keys()


def test_configure_takes_what_a_runtime_takes() -> None:
    runtime = dict(inspect.signature(dspex.Runtime).parameters)
    configure = dict(inspect.signature(dspex.configure).parameters)
    assert {name: (each.default, each.annotation) for name, each in configure.items()} == {
        name: (each.default, each.annotation) for name, each in runtime.items()
    }
