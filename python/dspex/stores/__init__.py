"""Where runs of pipelines are kept: what finished steps gave, and who owns which run.

::

    SQLite(path)    one file, for all processes of a machine
    Memory()        this process, for tests and for runs that need not outlive it
    Redis(url)      a server, for many machines; sessions too

All do what `RunStore` says, and `Redis` what `SessionStore` says too; docs/stores.md has the promises, and
what a store of one's own has to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex._lazy import names_of
from dspex.stores._runs import Lease, RunInfo, RunStatus, RunStore, StepRow

if TYPE_CHECKING:
    from dspex.stores._memory import Memory
    from dspex.stores._redis import Redis
    from dspex.stores._sqlite import SQLite

__all__ = ["Lease", "Memory", "Redis", "RunInfo", "RunStatus", "RunStore", "SQLite", "StepRow"]

_HOMES = {"Memory": "dspex.stores._memory", "Redis": "dspex.stores._redis", "SQLite": "dspex.stores._sqlite"}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
