"""What every test may rely on."""

from __future__ import annotations

import signal
import sys

import pytest

from dspex import _core


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores what a terminal sends, one under `nohup` a hang-up, and so would every
    # process that the tests start and interrupt.
    usual = {"SIGINT": signal.default_int_handler, "SIGQUIT": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    for name, handler in usual.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if _core._debug_build:
        sys.stderr.write("dspex._core is a debug build: quote none of its figures\n")
