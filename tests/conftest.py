"""What every test may rely on."""

from __future__ import annotations

import sys

import pytest

from dspex import _core


def pytest_configure(config: pytest.Config) -> None:
    if _core._debug_build:
        sys.stderr.write("dspex._core is a debug build: quote none of its figures\n")
