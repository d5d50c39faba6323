"""The parent side of worker pools: start, supervise, and call processes that run real DSPy.

`docs/pools.md` draws the whole. In short: a `Pool` has a queue and some slots; each slot keeps one
`Worker` alive; a worker is a process, a socket, and the calls in flight on it.
"""

from __future__ import annotations

from dspex.pool._backends.base import Backend, Handle, Launcher
from dspex.pool._backends.local import LocalProcesses
from dspex.pool._events import PoolEvent
from dspex.pool._host_calls import describe_tool
from dspex.pool._lifecycle import State
from dspex.pool._pool import Pool, PoolStatus, WorkerStatus
from dspex.pool._spec import Limits, PoolSpec, Recycling, Restart, Scaling, Timeouts
from dspex.pool._sync import SyncPool
from dspex.pool._toml import load_pools

__all__ = [
    "Backend",
    "Handle",
    "Launcher",
    "Limits",
    "LocalProcesses",
    "Pool",
    "PoolEvent",
    "PoolSpec",
    "PoolStatus",
    "Recycling",
    "Restart",
    "Scaling",
    "State",
    "SyncPool",
    "Timeouts",
    "WorkerStatus",
    "describe_tool",
    "load_pools",
]
