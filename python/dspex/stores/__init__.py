"""Where the work of pipelines and the state of sessions is kept, and who owns which of it.

::

    SQLite(path)    one file, for all processes of a machine
    Redis(url)      a server, for many machines
    Memory()        this process, for tests and for what need not outlive it

Each does what `RunStore` and `SessionStore` say; docs/stores.md has the promises, and what a store of one's
own has to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex._lazy import names_of
from dspex.stores._runs import Lease, RunInfo, RunStatus, RunStore, StepRow
from dspex.stores._sessions import (
    Changes,
    Claimed,
    Entry,
    NewSession,
    SessionInfo,
    SessionLease,
    SessionStore,
    Turn,
    Use,
)

if TYPE_CHECKING:
    from dspex.stores._memory import Memory
    from dspex.stores._redis import Redis
    from dspex.stores._sqlite import SQLite

__all__ = [
    "Changes",
    "Claimed",
    "Entry",
    "Lease",
    "Memory",
    "NewSession",
    "Redis",
    "RunInfo",
    "RunStatus",
    "RunStore",
    "SQLite",
    "SessionInfo",
    "SessionLease",
    "SessionStore",
    "StepRow",
    "Turn",
    "Use",
]

_HOMES = {"Memory": "dspex.stores._memory", "Redis": "dspex.stores._redis", "SQLite": "dspex.stores._sqlite"}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
