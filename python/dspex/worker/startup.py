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

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def prepare_interpreter(handshake: Handshake) -> None:
    """Set what must be set before DSPy and the user's modules are imported."""
    for name, value in _DEFAULT_ENV.items():
        os.environ.setdefault(name, value)
    _keep_loopback_from_proxies()
    sys.path.extend(entry for entry in handshake.path if entry not in sys.path)


def _keep_loopback_from_proxies() -> None:
    """Have DSPy's clients reach a server on this machine without a proxy, as a `dspex.LM` does.

    A proxy of the environment would get the calls of a model next door, key included, and could not reach it.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return
    for name in ("no_proxy", "NO_PROXY"):  # some clients read the one, some the other
        said = os.environ.get(name) or os.environ.get(name.swapcase()) or ""
        hosts = [host for host in said.split(",") if host.strip()]
        if "*" not in said:
            os.environ[name] = ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])


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
