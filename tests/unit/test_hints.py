"""Every command that a hint names is one that exists and says something."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest

import dspex

PACKAGE = Path(dspex.__file__).parent
RUST = PACKAGE.parents[1] / "rust"
COMMAND = re.compile(r"`((?:dspex|python3?|pip|make|uv|pipx?) [^`]+)`")
FILLED_IN = {"CODE": "lm-cut"}
"""What stands for the words in capitals that a reader is to replace."""


def texts(tree: ast.Module) -> Iterator[str]:
    """The texts that a program can print: every literal that is not a docstring."""
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def commands() -> list[str]:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for text in texts(ast.parse(file.read_text())):
            found.update(COMMAND.findall(text))
    for file in RUST.rglob("src/**/*.rs"):
        code = "\n".join(line for line in file.read_text().splitlines() if not line.lstrip().startswith("//"))
        found.update(COMMAND.findall(code))
    # Two words of the page about errors, which is for whoever has the sources.
    return sorted(found - {"make errors-page"})


def test_hints_name_the_commands_that_are_known_to_this_test() -> None:
    assert {"dspex doctor", "dspex errors"} <= set(commands())


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith("pip ")])
@pytest.mark.timeout(120)
def test_a_command_that_a_hint_names_runs_and_says_something(command: str) -> None:
    name, *arguments = (FILLED_IN.get(word, word) for word in shlex.split(command))
    assert name in ("dspex", "python"), "teach this test to run it"
    if name == "dspex":
        arguments = ["-m", "dspex", *arguments]
    if command in ("dspex config check", "dspex diff", "dspex signature"):
        arguments.append("--help")  # alone they ask for a target

    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("pip ")])
def test_what_a_hint_installs_has_the_extra_that_it_names(command: str) -> None:
    pip, install, requirement = shlex.split(command)
    assert (pip, install) == ("pip", "install")
    if requirement == "pytest":  # what the suites of stores need, which only developers run
        return
    named = re.fullmatch(r"(\w+)\[(\w+)\]", requirement)
    assert named is not None
    assert named[2] in (metadata(named[1]).get_all("Provides-Extra") or ())
