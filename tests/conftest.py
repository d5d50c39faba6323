"""What every test may rely on, and how many generated cases a property test runs.

Examples are the same in every run, and none is timed: whether a test passes depends on neither luck nor
load. The profile is `ci` by default, `parity` for `make parity`, `brief` for a second version of DSPy (`make
parity-33`). A property that needs no differential depth names its own `max_examples`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from dspex import _core

# LiteLLM otherwise fetches a table of prices over the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

# Tests keep no answers where programs do.
os.environ["DSPEX_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), f"dspex-tests-{os.getpid()}")

_COMMON: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    # Explaining a failure traces every line of DSPy and pydantic, which takes minutes and says little.
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}

settings.register_profile("brief", settings(max_examples=120, **_COMMON))
settings.register_profile("ci", settings(max_examples=1_000, **_COMMON))
settings.register_profile("parity", settings(max_examples=25_000, **_COMMON))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_finish() -> None:
    # All that is imported by now stays: to look through it costs a second each time that a test asks for a
    # collection, and the interpreter's own ones as much.
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores what a terminal sends, one under `nohup` a hang-up, and so would every
    # process that the tests start and interrupt.
    usual: dict[str, Any] = {
        "SIGINT": signal.default_int_handler,
        "SIGQUIT": signal.SIG_DFL,
        "SIGHUP": signal.SIG_DFL,
    }
    for name, handler in usual.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if _core._debug_build:
        sys.stderr.write("dspex._core is a debug build: quote none of its figures\n")
