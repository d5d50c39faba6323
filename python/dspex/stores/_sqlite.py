"""`SQLite`: runs and sessions in a file that many processes share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from dspex._timeouts import check_seconds
from dspex.stores._sqlite_file import Synchronous
from dspex.stores._sqlite_runs import RETENTION_SECONDS, SQLiteRuns
from dspex.stores._sqlite_sessions import SQLiteSessions

__all__ = ["SQLite"]

MAX_BYTES: Final = 64 * 1024 * 1024
BUSY_SECONDS: Final = 5.0


class SQLite(SQLiteRuns, SQLiteSessions):
    """A `RunStore` and a `SessionStore` in one file, for all processes of a machine.

    Args:
        path: The file; it is made when it is first needed, for its user alone. Its directory must be there,
            and on a local disk.
        synchronous: `"normal"` survives a kill of the process, `"full"` a power cut too.
        retention: Seconds after which runs that have ended are forgotten; None for never.
        max_bytes: How large a value may be.
        busy: Seconds that a write waits for those of other processes.
        max_pages: How many pages of 4 KiB the file may have; None for as many as the disk has room for.
        clock: Gives the seconds since 1970 that leases and ends go by; all processes must agree on it.

    Raises:
        ConfigError: If a setting is none (`bad-store`, `bad-timeout`).

    Example:
        ```python
        store = dspex.stores.SQLite("runs.sqlite3")
        pipeline = dspex.pipeline(search, answer, store=store)
        ```
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "normal",
        retention: float | None = RETENTION_SECONDS,
        max_bytes: int = MAX_BYTES,
        busy: float = BUSY_SECONDS,
        max_pages: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            path, synchronous=synchronous, max_bytes=max_bytes, busy=busy, max_pages=max_pages, clock=clock
        )
        self._retention = None if retention is None else check_seconds(retention, "retention")
