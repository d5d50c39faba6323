"""How a worker and a forkserver start: what is set before DSPy is imported, limits, and preloaded modules."""

from __future__ import annotations

import importlib
import os
import resource
import sys
from typing import Final

from dspex.errors import WorkerStartError
from dspex.protocol.handshake import Handshake, ProcessLimits

__all__ = [
    "apply_limits",
    "import_preload",
    "prepare_interpreter",
    "start_error",
]

_DEFAULT_ENV: Final = {
    # One thread each unless the user says otherwise: N workers with N BLAS threads fight over the cores,
    # and a forkserver must have none.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # LiteLLM otherwise fetches its price list over the network while it is imported, in a thread.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}


def prepare_interpreter(handshake: Handshake) -> None:
    """Set what must be set before DSPy and the user's modules are imported."""
    for name, value in _DEFAULT_ENV.items():
        os.environ.setdefault(name, value)
    sys.path.extend(entry for entry in handshake.path if entry not in sys.path)


def apply_limits(limits: ProcessLimits) -> None:
    """Have the kernel hold this process to the pool's limits.

    Raises:
        WorkerStartError: If the system refuses.
    """
    try:
        if limits.nice:
            os.nice(limits.nice)
        if limits.cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, limits.cpus)
        if limits.memory is not None:
            # Private writable memory, which is what a leak grows; RLIMIT_AS counts what is only reserved.
            resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    except (OSError, ValueError) as err:
        raise WorkerStartError(f"the system refuses the limits {limits}: {err}", code="bad-limit") from err


def import_preload(module: str) -> None:
    """Import a module the pool's settings name.

    Raises:
        WorkerStartError: If it cannot be imported, for whatever reason.
    """
    try:
        importlib.import_module(module)
    except Exception as err:
        raise WorkerStartError(f"preload of {module!r} failed: {type(err).__name__}: {err}") from err


def start_error(err: BaseException) -> WorkerStartError:
    """The error that the service gets when the start fails."""
    return err if isinstance(err, WorkerStartError) else WorkerStartError(f"{type(err).__name__}: {err}")
