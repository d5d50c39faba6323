"""The parent side of worker pools: start, supervise, and call processes that run real DSPy.

`docs/pools_inside.md` draws the whole. In short: a `Pool` has a queue and some slots; each slot keeps one
`Worker` alive; a worker is a process, a socket, and the calls in flight on it.

Names load on first use: a runtime that never starts a pool needs its settings at most.
"""

from __future__ import annotations

from dspex._lazy import names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dspex.pool._backends.base import Backend, Handle, Launcher
    from dspex.pool._backends.local import LocalProcesses
    from dspex.pool._calls import PoolCalls, SyncPoolCalls
    from dspex.pool._events import PoolEvent
    from dspex.pool._lifecycle import State
    from dspex.pool._options import CallOptions
    from dspex.pool._places import Affinity, Place
    from dspex.pool._pool import Pool
    from dspex.pool._spec import Limits, PoolSpec, Recycling, Restart, Scaling, Timeouts
    from dspex.pool._status import PoolStatus, WorkerStatus
    from dspex.pool._sync import SyncPool
    from dspex.pool._toml import load_pools
    from dspex.protocol.host_functions import describe_tool
    from dspex.protocol.requests import (
        EchoRequest,
        FunctionRequest,
        ModuleAnswer,
        ModuleParts,
        ModuleRequest,
        PredictParts,
        PredictRequest,
        Request,
        StreamedFields,
        Tool,
    )
    from dspex.protocol.signature_form import SignatureForm

__all__ = [
    "Affinity",
    "Backend",
    "CallOptions",
    "EchoRequest",
    "FunctionRequest",
    "Handle",
    "Launcher",
    "Limits",
    "LocalProcesses",
    "ModuleAnswer",
    "ModuleParts",
    "ModuleRequest",
    "Place",
    "Pool",
    "PoolCalls",
    "PoolEvent",
    "PoolSpec",
    "PoolStatus",
    "PredictParts",
    "PredictRequest",
    "Recycling",
    "Request",
    "Restart",
    "Scaling",
    "SignatureForm",
    "State",
    "StreamedFields",
    "SyncPool",
    "SyncPoolCalls",
    "Timeouts",
    "Tool",
    "WorkerStatus",
    "describe_tool",
    "load_pools",
]

_HOMES = {
    "Affinity": "dspex.pool._places",
    "Backend": "dspex.pool._backends.base",
    "CallOptions": "dspex.pool._options",
    "EchoRequest": "dspex.protocol.requests",
    "FunctionRequest": "dspex.protocol.requests",
    "Handle": "dspex.pool._backends.base",
    "Launcher": "dspex.pool._backends.base",
    "Limits": "dspex.pool._spec",
    "LocalProcesses": "dspex.pool._backends.local",
    "ModuleAnswer": "dspex.protocol.requests",
    "ModuleParts": "dspex.protocol.requests",
    "ModuleRequest": "dspex.protocol.requests",
    "Place": "dspex.pool._places",
    "Pool": "dspex.pool._pool",
    "PoolCalls": "dspex.pool._calls",
    "PoolEvent": "dspex.pool._events",
    "PoolSpec": "dspex.pool._spec",
    "PoolStatus": "dspex.pool._status",
    "PredictParts": "dspex.protocol.requests",
    "PredictRequest": "dspex.protocol.requests",
    "Recycling": "dspex.pool._spec",
    "Request": "dspex.protocol.requests",
    "Restart": "dspex.pool._spec",
    "Scaling": "dspex.pool._spec",
    "SignatureForm": "dspex.protocol.signature_form",
    "State": "dspex.pool._lifecycle",
    "StreamedFields": "dspex.protocol.requests",
    "SyncPool": "dspex.pool._sync",
    "SyncPoolCalls": "dspex.pool._calls",
    "Timeouts": "dspex.pool._spec",
    "Tool": "dspex.protocol.requests",
    "WorkerStatus": "dspex.pool._status",
    "describe_tool": "dspex.protocol.host_functions",
    "load_pools": "dspex.pool._toml",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
