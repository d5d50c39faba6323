"""What every test may rely on."""

from __future__ import annotations

import signal
import sys

import pytest

from dspex import _core


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores Ctrl-C, one under `nohup` a hang-up, and so would every process that
    # the tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if _core._debug_build:
        sys.stderr.write("dspex._core is a debug build: quote none of its figures\n")
