"""From a pool's settings to its launcher and to what the hand-shake says."""

from __future__ import annotations

import sys
from typing import Any

from dspex import __version__
from dspex.pool.process import Launcher, SpawnLauncher
from dspex.pool.spec import PoolSpec
from dspex.pool.zygote import ZygoteLauncher
from dspex.wire import PROTOCOL

__all__ = ["make_hello", "make_launcher"]


def make_hello(spec: PoolSpec) -> dict[str, Any]:
    """What workers and zygotes are told, but for the LM's settings, which only workers need."""
    return {
        "protocol": PROTOCOL,
        "dspex": __version__,
        "max_inflight": spec.max_inflight,
        "limits": {"memory": spec.memory_limit, "nice": spec.nice, "cpus": list(spec.cpus)},
        "preload": list(spec.preload),
        # As multiprocessing does: what the service can import, its workers can. Another interpreter has
        # its own packages.
        "path": [entry for entry in sys.path if entry] if spec.python is None else [],
    }


def make_launcher(spec: PoolSpec) -> Launcher:
    """What starts the workers. Call it on the loop the pool runs on."""
    start = spec.start
    if start == "auto":
        start = "zygote" if sys.platform == "linux" and spec.python is None else "spawn"
    if start == "zygote":
        return ZygoteLauncher(spec.python, spec.env, make_hello(spec))
    return SpawnLauncher(spec.python, spec.env)
