"""The parent side of worker pools: start, supervise, and call processes that run real DSPy.

`docs/pools.md` draws the whole. In short: a `Pool` has a queue and some slots; each slot keeps one
`Worker` alive; a worker is a process, a socket, and the calls in flight on it.
"""

from __future__ import annotations

from dspex.pool.backend import Backend, Handle, Launcher
from dspex.pool.callbacks import describe_tool
from dspex.pool.events import PoolEvent
from dspex.pool.launch import LocalProcesses
from dspex.pool.lifecycle import State
from dspex.pool.pool import Pool, PoolStatus, WorkerStatus
from dspex.pool.settings import load_pools
from dspex.pool.spec import PoolSpec
from dspex.pool.sync import SyncPool

__all__ = [
    "Backend",
    "Handle",
    "Launcher",
    "LocalProcesses",
    "Pool",
    "PoolEvent",
    "PoolSpec",
    "PoolStatus",
    "State",
    "SyncPool",
    "WorkerStatus",
    "describe_tool",
    "load_pools",
]
