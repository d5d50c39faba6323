"""`SQLite`: runs in a file that many processes share.

::

    any event loop --job--> queue --> one thread: BEGIN IMMEDIATE, all jobs that wait, COMMIT --> callers
                                      each job in a savepoint: one that fails undoes nothing of another

The thread begins with the first job and ends with `close`, or when nothing has come for a while. Jobs that
wait together are one transaction: many runs at once pay for one commit. A caller is told after the commit,
and one that is cancelled waits for it too.

`synchronous="normal"` in WAL mode survives a kill of the process at any point; `"full"` survives a power cut
too, as each commit waits for the disk (https://www.sqlite.org/pragma.html#pragma_synchronous).

The file says that it is ours (`application_id`) and of which version (`user_version`). A newer one, a file of
somebody else's or a broken one is refused and left as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError, StoreError
from dspex.stores._runs import (
    ENDED,
    Lease,
    RunInfo,
    RunStatus,
    StepRow,
    busy,
    check_size,
    exists,
    lost,
    not_found,
    too_many_resumes,
)

__all__ = ["SQLite"]

T = TypeVar("T")

APPLICATION: Final = 0x64737078
"""`dspx`, by which the file is known."""
VERSION: Final = 1
MAX_BYTES: Final = 64 * 1024 * 1024
RETENTION_SECONDS: Final = 30 * 24 * 3600.0
BUSY_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 10.0
PRUNE_EVERY: Final = 60.0
MOST_AT_ONCE: Final = 256

_SCHEMA: Final = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, status TEXT NOT NULL, fingerprint BLOB NOT NULL,
    inputs BLOB NOT NULL, outcome BLOB, created REAL NOT NULL, updated REAL NOT NULL, epoch INTEGER NOT NULL,
    resumes INTEGER NOT NULL, owner TEXT, lease_until REAL NOT NULL
);
CREATE INDEX runs_updated ON runs (updated);
CREATE TABLE steps (
    run_id TEXT NOT NULL, path TEXT NOT NULL, status TEXT NOT NULL, digest BLOB NOT NULL,
    fingerprint BLOB NOT NULL, outcome BLOB NOT NULL, seconds REAL NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (run_id, path)
);
"""
_RUN: Final = ", ".join(RunInfo._fields)
_STEP: Final = ", ".join(StepRow._fields)
_RECORD: Final = f"""
INSERT INTO steps (run_id, {_STEP}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, path) DO UPDATE SET status = excluded.status, digest = excluded.digest,
    fingerprint = excluded.fingerprint, outcome = excluded.outcome, seconds = excluded.seconds,
    at = excluded.at
WHERE digest != excluded.digest
"""  # noqa: S608 - names of columns

Synchronous = Literal["normal", "full"]
_Job = tuple[Callable[[sqlite3.Connection], Any], Future[Any]]


class SQLite:
    """A `RunStore` in one file, for all processes of a machine.

    Args:
        path: The file; it is made when it is first needed. Its directory must be there, and on a local disk.
        synchronous: `"normal"` survives a kill of the process, `"full"` a power cut too.
        retention: Seconds after which runs that have ended are forgotten; None for never.
        max_bytes: How large a value may be.
        busy: Seconds that a write waits for those of other processes.
        max_pages: How many pages of 4 KiB the file may have; None for as many as the disk has room for.
        clock: Gives the seconds since 1970 that leases go by; all processes must agree on it.

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
        if synchronous not in ("normal", "full"):
            raise ConfigError(
                f'synchronous must be "normal" or "full", not {shown(synchronous)}',
                code="bad-store",
                hint='write synchronous="full"',
            )
        self._path = Path(path)
        self._synchronous = synchronous
        self._retention = None if retention is None else check_seconds(retention, "retention")
        self._max = max_bytes
        self._busy = check_seconds(busy, "busy")
        self._max_pages = max_pages
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._pruned = 0.0

    # -- runs ---------------------------------------------------------------------------------------

    async def create_run(
        self, run_id: str, *, pipeline: str, fingerprint: bytes, inputs: bytes, owner: str, lease: float
    ) -> Lease:
        """See `RunStore.create_run`."""
        check_size(inputs, f"the inputs of run {run_id}", self._max)

        def create(db: sqlite3.Connection) -> Lease:
            now = self._clock()
            until = now + lease
            row = RunInfo(
                run_id, pipeline, "running", fingerprint, inputs, None, now, now, 1, 0, owner, until
            )
            try:
                db.execute(f"INSERT INTO runs ({_RUN}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
            except sqlite3.IntegrityError:
                raise exists(run_id) from None
            if self._retention is not None and now - self._pruned >= PRUNE_EVERY:
                self._pruned = now
                _prune(db, now - self._retention, ENDED, 1_000)
            return Lease(run_id, 1, until)

        return await self._do(create)

    async def claim_run(
        self,
        run_id: str,
        *,
        owner: str,
        lease: float,
        max_resumes: int | None = None,
        take_over: bool | str = False,
    ) -> tuple[RunInfo, Lease]:
        """See `RunStore.claim_run`."""

        def claim(db: sqlite3.Connection) -> tuple[RunInfo, Lease] | Exception:
            info, now = _info(db, run_id), self._clock()
            if info is None:
                raise not_found(run_id)
            if info.owner is not None and info.lease_until > now and take_over not in (True, info.owner):
                raise busy(run_id, info.owner, info.lease_until - now)
            done = info.status == "done"
            if not done and max_resumes is not None and info.resumes >= max_resumes:
                db.execute(
                    "UPDATE runs SET status = 'failed', owner = NULL, updated = ? WHERE run_id = ?",
                    (now, run_id),
                )
                return too_many_resumes(run_id, info.resumes)  # not raised: that would undo it
            info = info._replace(
                epoch=info.epoch + 1,
                resumes=info.resumes + (not done),
                status="done" if done else "running",
                owner=owner,
                lease_until=now + lease,
                updated=now,
            )
            db.execute(
                "UPDATE runs SET epoch = ?, resumes = ?, status = ?, owner = ?, lease_until = ?, updated = ? "
                "WHERE run_id = ?",
                (info.epoch, info.resumes, info.status, owner, info.lease_until, now, run_id),
            )
            return info, Lease(run_id, info.epoch, info.lease_until)

        outcome = await self._do(claim)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def renew_lease(self, lease: Lease, seconds: float) -> Lease:
        """See `RunStore.renew_lease`."""

        def renew(db: sqlite3.Connection) -> Lease:
            until = self._clock() + seconds
            _owned(db, lease)
            db.execute("UPDATE runs SET lease_until = ? WHERE run_id = ?", (until, lease.run_id))
            return lease._replace(until=until)

        return await self._do(renew)

    async def record_steps(self, lease: Lease, rows: Sequence[StepRow]) -> None:
        """See `RunStore.record_steps`."""
        for row in rows:
            check_size(row.outcome, f"what {row.path} gave", self._max)

        def record(db: sqlite3.Connection) -> None:
            _owned(db, lease)
            now = self._clock()
            if len(rows) == 1:
                db.execute(_RECORD, (lease.run_id, *rows[0][:-1], now))
            else:
                db.executemany(_RECORD, [(lease.run_id, *row[:-1], now) for row in rows])

        await self._do(record)

    async def steps(self, run_id: str) -> list[StepRow]:
        """See `RunStore.steps`."""

        def read(db: sqlite3.Connection) -> list[StepRow]:
            query = f"SELECT {_STEP} FROM steps WHERE run_id = ? ORDER BY rowid"  # noqa: S608
            return [StepRow(*row) for row in db.execute(query, (run_id,))]

        return await self._do(read)

    async def forget_steps(self, lease: Lease, paths: Sequence[str]) -> int:
        """See `RunStore.forget_steps`."""

        def forget(db: sqlite3.Connection) -> int:
            _owned(db, lease)
            query = "DELETE FROM steps WHERE run_id = ? AND path = ?"
            return sum(db.execute(query, (lease.run_id, path)).rowcount for path in paths)

        return await self._do(forget)

    async def update_run(self, lease: Lease, *, fingerprint: bytes) -> None:
        """See `RunStore.update_run`."""

        def update(db: sqlite3.Connection) -> None:
            _owned(db, lease)
            db.execute("UPDATE runs SET fingerprint = ? WHERE run_id = ?", (fingerprint, lease.run_id))

        await self._do(update)

    async def end_run(self, lease: Lease, status: RunStatus, outcome: bytes | None = None) -> None:
        """See `RunStore.end_run`."""
        check_size(outcome, f"what run {lease.run_id} came to", self._max)

        def end(db: sqlite3.Connection) -> None:
            _owned(db, lease)
            db.execute(
                "UPDATE runs SET status = ?, outcome = ?, owner = NULL, updated = ? WHERE run_id = ?",
                (status, outcome, self._clock(), lease.run_id),
            )

        await self._do(end)

    async def release_run(self, lease: Lease) -> None:
        """See `RunStore.release_run`."""
        query = "UPDATE runs SET owner = NULL WHERE run_id = ? AND epoch = ?"
        await self._do(lambda db: db.execute(query, lease[:2]).rowcount)

    async def run(self, run_id: str) -> RunInfo | None:
        """See `RunStore.run`."""
        return await self._do(lambda db: _info(db, run_id))

    async def runs(
        self, *, pipeline: str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """See `RunStore.runs`."""

        def read(db: sqlite3.Connection) -> list[RunInfo]:
            query = (
                f"SELECT {_RUN} FROM runs "  # noqa: S608 - names of columns
                "WHERE (?1 IS NULL OR pipeline = ?1) AND (?2 IS NULL OR status = ?2) "
                "ORDER BY created DESC, rowid DESC LIMIT ?3"
            )
            return [RunInfo(*row) for row in db.execute(query, (pipeline, status, limit))]

        return await self._do(read)

    async def drop_run(self, run_id: str) -> bool:
        """See `RunStore.drop_run`."""

        def drop(db: sqlite3.Connection) -> bool:
            db.execute("DELETE FROM steps WHERE run_id = ?", (run_id,))
            return db.execute("DELETE FROM runs WHERE run_id = ?", (run_id,)).rowcount > 0

        return await self._do(drop)

    async def prune_runs(self, older_than: float, statuses: Sequence[RunStatus] = ENDED) -> int:
        """See `RunStore.prune_runs`."""
        return await self._do(lambda db: _prune(db, self._clock() - older_than, statuses, -1))

    async def close(self) -> None:
        """See `RunStore.close`: the thread ends when what waits is written."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._jobs.put(None)
        if thread is not None and thread.is_alive():
            await asyncio.to_thread(thread.join)

    # -- the thread ---------------------------------------------------------------------------------

    async def _do(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Let the thread do a job, and wait for its commit."""
        future: Future[T] = Future()
        with self._lock:
            if self._process != os.getpid():  # a fork: neither thread nor connection came along
                self._process, self._thread = os.getpid(), None
                self._jobs = queue.SimpleQueue()
            self._jobs.put((job, future))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, args=(self._jobs,), name="dspex-store", daemon=True
                )
                self._thread.start()
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            while not waiting.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.exception()  # nobody asks for it any more
            raise
        finally:
            del waiting, future  # they hold what the job raised, whose frames hold this one

    def _work(self, jobs: queue.SimpleQueue[_Job | None]) -> None:
        db: sqlite3.Connection | None = None
        try:
            while True:
                try:
                    job = jobs.get(timeout=IDLE_SECONDS)
                except queue.Empty:
                    with self._lock:
                        if not jobs.empty():
                            continue
                        if self._thread is threading.current_thread():
                            self._thread = None
                        return
                if job is None:
                    return
                several, ended = [job], False
                while len(several) < MOST_AT_ONCE and not jobs.empty():
                    more = jobs.get()
                    if more is None:
                        ended = True
                        break
                    several.append(more)
                db = self._commit(db, several)
                if ended:
                    return
        finally:
            if db is not None:
                db.close()

    def _commit(self, db: sqlite3.Connection | None, jobs: list[_Job]) -> sqlite3.Connection | None:
        """Do jobs in one transaction, and tell their callers."""
        outcomes: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            if db is None:
                db = self._open()
            db.execute("BEGIN IMMEDIATE")
            for job, future in jobs:
                outcomes.append((future, *_tried(db, job, alone=len(jobs) == 1)))
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - every caller is told
            said = error if isinstance(error, StoreError) else self._said(error)
            outcomes = [(future, None, said) for _, future in jobs]
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.close()
                db = None
        for future, outcome, failed in outcomes:
            if failed is None:
                future.set_result(outcome)
            else:
                future.set_exception(self._said(failed) if isinstance(failed, sqlite3.Error) else failed)
        return db

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=self._busy, isolation_level=None, cached_statements=64)
        try:
            self._is_new(db)  # before anything is written: another's file stays as it is
            # Two that switch a new file to WAL at once: one is told that it is locked, whatever its time-out.
            until = time.monotonic() + self._busy
            while True:
                try:
                    db.execute("PRAGMA journal_mode = WAL")
                    break
                except sqlite3.OperationalError as error:
                    if (
                        _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                        or time.monotonic() > until
                    ):
                        raise
                    time.sleep(0.01)
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            if self._max_pages is not None:
                db.execute(f"PRAGMA max_page_count = {int(self._max_pages)}")
            db.execute("BEGIN IMMEDIATE")
            if self._is_new(db):
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _is_new(self, db: sqlite3.Connection) -> bool:
        """Whether the file is empty, and is to get our tables.

        Raises:
            StoreError: If it is another's (`store-not-ours`), or of a newer version (`store-newer-schema`).
        """
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and version == 0 and tables == 0:
            return True
        if application != APPLICATION:
            raise StoreError(
                f"{self._path.name} is a file of another program's",
                code="store-not-ours",
                hint="give the store another path; the file was left as it is",
            )
        if version > VERSION:
            raise StoreError(
                f"{self._path.name} is of version {version}, and this dspex reads up to {VERSION}",
                code="store-newer-schema",
                hint="use the dspex that wrote it, or a newer one",
            )
        return False

    def _said(self, error: Exception) -> StoreError:
        """What went wrong, by SQLite's code (https://www.sqlite.org/rescode.html)."""
        name = self._path.name
        code = _code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(
                f"{name} was locked for {self._busy:g} s",
                code="store-locked",
                hint="another process holds a transaction open; try again",
                retryable=True,
            )
        if code == sqlite3.SQLITE_FULL:
            return StoreError(f"no room to write {name}", code="store-full", hint="make room on its disk")
        if code == sqlite3.SQLITE_READONLY:
            return StoreError(
                f"{name} cannot be written",
                code="store-readonly",
                hint="look at the file's and its directory's rights",
            )
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return StoreError(
                f"{name} is no database, or a broken one: {error}",
                code="store-not-ours",
                hint="restore it from a copy, or give another path; the file was left as it is",
            )
        return StoreError(
            f"{name} could not be used: {error}", hint="look at the file, its directory and its disk"
        )

    def __repr__(self) -> str:
        return f"SQLite({self._path.name!r}, synchronous={self._synchronous!r})"


def _tried(
    db: sqlite3.Connection, job: Callable[[sqlite3.Connection], Any], *, alone: bool
) -> tuple[Any, Exception | None]:
    """Do one job of a transaction; what it raises undoes what it did, and nothing else."""
    if not alone:
        db.execute("SAVEPOINT job")
    try:
        outcome = job(db)
    except StoreError as error:
        db.execute("ROLLBACK TO job" if not alone else "ROLLBACK")
        if alone:
            db.execute("BEGIN")
        else:
            db.execute("RELEASE job")
        return None, error
    if not alone:
        db.execute("RELEASE job")
    return outcome, None


def _info(db: sqlite3.Connection, run_id: str) -> RunInfo | None:
    row = db.execute(f"SELECT {_RUN} FROM runs WHERE run_id = ?", (run_id,)).fetchone()  # noqa: S608
    return None if row is None else RunInfo(*row)


def _owned(db: sqlite3.Connection, lease: Lease) -> None:
    row = db.execute("SELECT epoch, owner FROM runs WHERE run_id = ?", (lease.run_id,)).fetchone()
    if row is None:
        raise not_found(lease.run_id)
    if row[0] != lease.epoch or row[1] is None:
        raise lost(lease.run_id)


def _prune(db: sqlite3.Connection, before: float, statuses: Sequence[str], most: int) -> int:
    marks = ", ".join("?" * len(statuses))
    query = f"SELECT run_id FROM runs WHERE updated < ? AND status IN ({marks}) ORDER BY updated LIMIT ?"  # noqa: S608
    old = db.execute(query, (before, *statuses, most)).fetchall()
    db.executemany("DELETE FROM steps WHERE run_id = ?", old)
    db.executemany("DELETE FROM runs WHERE run_id = ?", old)
    return len(old)


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
