"""The package as it is imported: what is public, what it pulls in, what its version is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dspex

ROOT = Path(__file__).parents[2]


def test_all_is_sorted_and_every_name_in_it_loads() -> None:
    assert sorted(dspex.__all__) == dir(dspex)
    for name in dspex.__all__:
        assert getattr(dspex, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dspex' has no attribute 'nope'"):
        dspex.nope  # noqa: B018


def test_the_version_comes_from_the_workspace() -> None:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert dspex.__version__ == manifest["workspace"]["package"]["version"]


def test_importing_dspex_pulls_in_nothing_heavy() -> None:
    heavy = ["dspy", "pyarrow", "pydantic", "aiohttp", "asyncio", "litellm", "numpy", "msgpack"]
    code = f"import sys, dspex; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
