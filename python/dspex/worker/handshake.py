"""The hand-shake of workers and forkservers: versions, and what is set before DSPy is imported."""

from __future__ import annotations

import importlib
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any, Final

from dspex import __version__
from dspex.errors import WorkerStartError
from dspex.protocol.frames import PROTOCOL

__all__ = [
    "apply_limits",
    "check_versions",
    "import_preload",
    "prepare_interpreter",
    "start_error",
    "versions",
]

_MINE: Final = {"protocol": PROTOCOL, "dspex": __version__}

_DEFAULT_ENV: Final = {
    # One thread each unless the user says otherwise: N workers with N BLAS threads fight over the cores,
    # and a forkserver must have none.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # LiteLLM otherwise fetches its price list over the network while it is imported, in a thread.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}


def check_versions(handshake: Mapping[str, Any]) -> None:
    """Refuse a service that is not of this version.

    Raises:
        WorkerStartError: If the versions differ (`version-mismatch`).
    """
    theirs = {name: handshake.get(name) for name in _MINE}
    if theirs != _MINE:
        raise WorkerStartError(
            f"the service has {theirs}, the worker's interpreter has {_MINE}",
            code="version-mismatch",
            hint="install the same dspex in the interpreter of the pool",
        )


def prepare_interpreter(handshake: Mapping[str, Any]) -> None:
    """Set what must be set before DSPy and the user's modules are imported."""
    for name, value in _DEFAULT_ENV.items():
        os.environ.setdefault(name, value)
    sys.path.extend(entry for entry in handshake["path"] if entry not in sys.path)


def apply_limits(limits: Mapping[str, Any]) -> None:
    """Have the kernel hold this process to the pool's limits.

    Raises:
        WorkerStartError: If the system refuses.
    """
    try:
        if limits["nice"]:
            os.nice(limits["nice"])
        if limits["cpus"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, limits["cpus"])
        if limits["memory"] is not None:
            # Private writable memory, which is what a leak grows; RLIMIT_AS counts what is only reserved.
            resource.setrlimit(resource.RLIMIT_DATA, (limits["memory"], limits["memory"]))
    except (OSError, ValueError) as err:
        raise WorkerStartError(
            f"the system refuses the limits {dict(limits)}: {err}", code="bad-limit"
        ) from err


def import_preload(module: str) -> None:
    """Import a module the pool's settings name.

    Raises:
        WorkerStartError: If it cannot be imported, for whatever reason.
    """
    try:
        importlib.import_module(module)
    except Exception as err:
        raise WorkerStartError(f"preload of {module!r} failed: {type(err).__name__}: {err}") from err


def versions() -> dict[str, Any]:
    """The body of READY."""
    import dspy

    python = ".".join(map(str, sys.version_info[:3]))
    return {**_MINE, "dspy": dspy.__version__, "python": python, "pid": os.getpid()}


def start_error(err: BaseException) -> WorkerStartError:
    """The error that the service gets when the start fails."""
    return err if isinstance(err, WorkerStartError) else WorkerStartError(f"{type(err).__name__}: {err}")
