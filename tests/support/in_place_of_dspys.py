"""A plugin of pytest that runs DSPy's own tests with dspex's adapters in the place of DSPy's.

In a checkout of DSPy's tests, with the packages that they need and dspex installed::

    python -m pytest tests --extra                                          # how many pass with DSPy's own
    PYTHONPATH=<here>/tests/support python -m pytest tests --extra -p in_place_of_dspys

Every test that passes without the plugin must pass with it.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys

import dspy
import pytest

import dspex.dspy

NAMES = ("ChatAdapter", "JSONAdapter", "XMLAdapter")
OURS = {getattr(dspy, name): getattr(dspex.dspy, name) for name in NAMES}
# What is no part of DSPy's library, or would begin to work when it is imported.
PROGRAMS = ("_vendor", "__main__", "local_interpreter_worker")


def replace() -> None:
    """Put our adapters wherever a module of DSPy's, or of its tests, holds one of DSPy's."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("dspy", "tests"):
            for key, value in list(vars(module).items()):
                if isinstance(value, type) and value in OURS:
                    setattr(module, key, OURS[value])


def pytest_configure() -> None:
    """Import all of DSPy, so that no module fetches an adapter from where it still is DSPy's."""
    for found in pkgutil.walk_packages(dspy.__path__, "dspy.", onerror=lambda _: None):
        if not any(name in found.name for name in PROGRAMS):
            with contextlib.suppress(Exception):  # some need packages that are not installed
                importlib.import_module(found.name)
    replace()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The tests' modules have been imported since."""
    replace()
