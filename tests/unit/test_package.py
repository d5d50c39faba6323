"""The package as it is imported: what is public, what it pulls in, what its version is."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

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


INSTEAD = [
    ("ChainOfThought", '"class": "dspy.ChainOfThought"'),
    ("ReAct", '"class": "dspy.ReAct"'),
    ("MIPROv2", "dspex.Predict(demos=...)"),
    ("Module", "by its import path"),
    ("Image", "`dspy.Image`"),
    ("context", "with dspex.Runtime"),
    ("streamify", "pool.stream"),
    ("LMTimeoutError", "dspex.errors.LMTimeoutError"),
    ("Example", '{"question": ..., "answer": ...}'),
    ("Predcit", "did you mean 'Predict'?"),
    ("runtime_", "did you mean 'Runtime'?"),
]


@pytest.mark.parametrize(("name", "instead"), INSTEAD)
def test_a_name_of_dspy_s_or_a_slip_says_what_to_use_however_it_is_asked_for(name, instead) -> None:
    with pytest.raises(AttributeError, match=re.escape(instead)):
        getattr(dspex, name)
    with pytest.raises(ImportError, match=re.escape(instead)):
        exec(f"from dspex import {name}")
    assert not hasattr(dspex, name)


def test_every_name_of_the_installed_dspy_s_leads_somewhere() -> None:
    import dspy

    names = [
        name
        for name, value in vars(dspy).items()
        if not (name.startswith("_") or isinstance(value, ModuleType))
    ]
    assert len(names) > 50
    for name in sorted(set(names) - set(dspex.__all__)):
        with pytest.raises(AttributeError, match=r"attribute '\w+': \w+"):
            getattr(dspex, name)


def test_what_is_asked_for_by_tools_and_submodules_is_as_ever() -> None:
    assert not hasattr(dspex, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'nothing_like_it'"):
        exec("from dspex import nothing_like_it")
    code = (
        "import dspex\n"
        "assert dspex.dspy.ChatAdapter and dspex.errors.LMError and dspex.testing.ScriptedLM\n"
        "from dspex import prediction, template, runtime\n"
        "assert runtime.Runtime is dspex.Runtime"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=30, check=True)


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
