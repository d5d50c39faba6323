"""The package as it is imported: what is public, what it pulls in, what its version is."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dspex
from dspex import lm, pool

ROOT = Path(__file__).parents[2]


def test_all_is_sorted_and_every_name_in_it_loads() -> None:
    assert sorted(dspex.__all__) == dir(dspex)
    for name in dspex.__all__:
        assert getattr(dspex, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dspex' has no attribute 'nope'"):
        getattr(dspex, "nope")  # noqa: B009 - a checker knows that it is not there


INSTEAD = [
    ("Refine", 'dspex.remote("dspy.Refine"'),
    ("ReAct", 'dspex.remote("dspy.ReAct"'),
    ("MIPROv2", 'dspex.optimizer("dspy.MIPROv2"'),
    ("Image", "`dspy.Image`"),
    ("context", "with dspex.Runtime"),
    ("streamify", "program.astream(...)"),
    ("Evaluate", "program.evaluate(devset, metric)"),
    ("LMTimeoutError", "dspex.errors.LMTimeoutError"),
    ("Example", '{"question": ..., "answer": ...}'),
    ("Predcit", "did you mean 'Predict'?"),
    ("runtime_", "did you mean 'Runtime'?"),
]


@pytest.mark.parametrize(("name", "instead"), INSTEAD)
def test_a_name_of_dspy_s_or_a_slip_says_what_to_use_however_it_is_asked_for(name: Any, instead: Any) -> None:
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


def new_modules(code: str) -> set[str]:
    """What a fresh interpreter has imported after `code`, and did not have before."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    return set(done.stdout.split())


def test_importing_dspex_imports_itself_and_the_core() -> None:
    pulled = {name for name in new_modules("import dspex") if not name.startswith("importlib._")}
    assert pulled <= {"dspex", "dspex._core", "__future__", "importlib", "warnings"}


FIRST_USE = """
import dspex
qa = dspex.Predict("question -> answer: float")
lm = dspex.LM("openai/x", api_base="http://127.0.0.1:1/v1", api_key="k")
runtime = dspex.Runtime(lm)
"""
LATER = {
    "aiohttp": "the first request needs it",
    "anyio": "workers need it",
    "dspex.lm._cache": "a cache needs it",
    "difflib": "a mistake needs it",
    "dspex.lm._group": "a group needs it",
    "dspex.pool._pool": "a pool that starts needs it",
    "dspex.pool._rules": "settings of a pool need it",
    "dspex.worker": "workers need it",
    "dspy": "workers and drop-ins need it",
    "email": "a server that says in a date when to come again needs it",
    "importlib.metadata": "a DSPy in an unusual place needs it",
    "json_repair": "DSPy's reading of a broken reply needs it",
    "msgpack": "a pool needs it",
    "numpy": "a value of its own needs it",
    "pyarrow": "a table needs it",
    "sqlite3": "a cache on disk needs it",
    "pydantic": "a type that the core does not read needs it",
    "typing_extensions": "pydantic needs it",
    "urllib.request": "a proxy needs it",
}


def test_the_first_use_imports_nothing_that_only_a_call_or_a_pool_needs() -> None:
    assert new_modules(FIRST_USE) & LATER.keys() == set()


def test_a_blocking_runtime_opens_and_closes_without_what_a_request_needs() -> None:
    assert new_modules(FIRST_USE + "with runtime: pass") & LATER.keys() == set()


def test_settings_of_pools_need_neither_a_pool_nor_pydantic() -> None:
    code = "from dspex.pool import Limits, PoolSpec; PoolSpec(workers=4, limits=Limits(nice=3))"
    assert new_modules(code) & (LATER.keys() - {"dspex.pool._rules"} | {"asyncio"}) == set()


@pytest.mark.parametrize("package", [lm, pool])
def test_every_name_of_a_lazy_package_loads_and_no_other(package: ModuleType) -> None:
    assert sorted(package.__all__) == dir(package)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nope'"):
        package.nope  # noqa: B018
