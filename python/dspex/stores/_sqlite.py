"""`SQLite`: runs in a file that many processes share.

::

    a small write --nothing waits, nothing is slow--> done at once, in the caller's thread
    all else --job--> queue --> one thread: BEGIN IMMEDIATE, all jobs that wait, COMMIT --> callers
                                each job in a savepoint; where one breaks the group, each by itself

There is one connection, and one lock under which it is used. A step's row is one statement, which says the
epoch of its lease itself; where the disk is not waited for, it takes less than the way to a thread and back.
So an event loop writes it itself as long as that is quick. The thread does it with `synchronous="full"`,
where another holds the file, and after a write that took long; and it moves the log into the file, which
waits for the disk.

Jobs that wait together are one transaction: many runs at once pay for one commit. A caller is told after the
commit, and one that is cancelled waits for it too.

`synchronous="normal"` in WAL mode survives a kill of the process at any point; `"full"` survives a power cut
too, as each commit waits for the disk (https://www.sqlite.org/pragma.html#pragma_synchronous).

The file says that it is ours (`application_id`) and of which version (`user_version`), and has our tables and
nothing else. A newer one, a file of somebody else's, one that was changed or a broken one is refused and left
as it is. No connection crosses a fork: it is closed before, and both sides open the file anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from weakref import WeakSet

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

APPLICATION: Final = 0x64737872
"""`dsxr`, by which the file is known."""
VERSION: Final = 1
MAX_BYTES: Final = 64 * 1024 * 1024
SMALL_BYTES: Final = 64 * 1024
"""What a row may have that an event loop writes itself."""
RETENTION_SECONDS: Final = 30 * 24 * 3600.0
BUSY_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 60.0
"""How long a caller waits for the thread: a disk that gives no answer holds nobody for ever."""
IDLE_SECONDS: Final = 10.0
PRUNE_EVERY: Final = 60.0
MOST_AT_ONCE: Final = 256
QUICK_SECONDS: Final = 0.002
"""What a write may take that an event loop does itself."""
SLOW_SECONDS: Final = 1.0
"""How long the thread does all of them after one that took longer."""
CHECKPOINT_EVERY: Final = 500
"""Writes after which the thread moves the log into the file."""
FORK_SECONDS: Final = 1.0

_SCHEMA: Final = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, status TEXT NOT NULL, created REAL NOT NULL,
    updated REAL NOT NULL, epoch INTEGER NOT NULL, resumes INTEGER NOT NULL, owner TEXT,
    lease_until REAL NOT NULL
);
CREATE INDEX runs_updated ON runs (updated);
CREATE TABLE run_values (
    run_id TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, inputs BLOB NOT NULL, outcome BLOB
);
CREATE TABLE steps (
    run_id TEXT NOT NULL, path TEXT NOT NULL, status TEXT NOT NULL, digest BLOB NOT NULL,
    fingerprint BLOB NOT NULL, outcome BLOB NOT NULL, seconds REAL NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (run_id, path)
);
"""
_RUN: Final = ", ".join(RunInfo._fields)
_STEP: Final = ", ".join(StepRow._fields)
_RECORD: Final = f"""
INSERT INTO steps (run_id, {_STEP}) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM runs
WHERE run_id = ?1 AND epoch = ?9 AND owner IS NOT NULL
ON CONFLICT (run_id, path) DO UPDATE SET status = excluded.status, digest = excluded.digest,
    fingerprint = excluded.fingerprint, outcome = excluded.outcome, seconds = excluded.seconds,
    at = excluded.at
WHERE digest != excluded.digest
"""  # noqa: S608 - names of columns
_RENEW: Final = "UPDATE runs SET lease_until = ? WHERE run_id = ? AND epoch = ? AND owner IS NOT NULL"
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_NOT_NOW: Final[Any] = object()

Synchronous = Literal["normal", "full"]
_Job = tuple[Callable[[sqlite3.Connection], Any], Future[Any]]


class SQLite:
    """A `RunStore` in one file, for all processes of a machine.

    Args:
        path: The file; it is made when it is first needed, for its user alone. Its directory must be there,
            and on a local disk.
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
        self._use = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._slow_until = 0.0
        self._writes = 0
        self._pruned = 0.0
        _stores.add(self)

    # -- runs ---------------------------------------------------------------------------------------

    async def create_run(
        self, run_id: str, *, pipeline: str, fingerprint: bytes, inputs: bytes, owner: str, lease: float
    ) -> Lease:
        """See `RunStore.create_run`."""
        check_size(inputs, f"the inputs of run {run_id}", self._max)

        def create(db: sqlite3.Connection) -> Lease:
            now = self._clock()
            until = now + lease
            try:
                db.execute(
                    "INSERT INTO runs VALUES (?, ?, 'running', ?, ?, 1, 0, ?, ?)",
                    (run_id, pipeline, now, now, owner, until),
                )
            except sqlite3.IntegrityError:
                raise exists(run_id) from None
            db.execute("INSERT INTO run_values VALUES (?, ?, ?, NULL)", (run_id, fingerprint, inputs))
            if self._retention is not None and now - self._pruned >= PRUNE_EVERY:
                self._pruned = now
                _prune(db, now, self._retention, ENDED, 1_000)
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
                    "UPDATE runs SET status = 'failed', owner = NULL, epoch = epoch + 1, updated = ? "
                    "WHERE run_id = ?",
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
            if not db.execute(_RENEW, (until, *lease[:2])).rowcount:
                _check_owner(db, lease)
            return lease._replace(until=until)

        return await self._do(renew, small=True)

    async def record_steps(self, lease: Lease, rows: Sequence[StepRow]) -> None:
        """See `RunStore.record_steps`."""
        for row in rows:
            check_size(row.outcome, f"what {row.path} gave", self._max)

        def record(db: sqlite3.Connection) -> None:
            now = self._clock()
            for row in rows:
                if not db.execute(_RECORD, (lease.run_id, *row[:-1], now, lease.epoch)).rowcount:
                    _check_owner(db, lease)  # else the row was there

        await self._do(record, small=len(rows) == 1 and len(rows[0].outcome) <= SMALL_BYTES)

    async def steps(self, run_id: str) -> list[StepRow]:
        """See `RunStore.steps`."""

        def read(db: sqlite3.Connection) -> list[StepRow]:
            query = f"SELECT {_STEP} FROM steps WHERE run_id = ? ORDER BY rowid"  # noqa: S608
            return [StepRow(*row) for row in db.execute(query, (run_id,))]

        return await self._do(read)

    async def forget_steps(self, lease: Lease, paths: Sequence[str]) -> int:
        """See `RunStore.forget_steps`."""

        def forget(db: sqlite3.Connection) -> int:
            _check_owner(db, lease)
            query = "DELETE FROM steps WHERE run_id = ? AND path = ?"
            return sum(db.execute(query, (lease.run_id, path)).rowcount for path in paths)

        return await self._do(forget)

    async def update_run(self, lease: Lease, *, fingerprint: bytes) -> None:
        """See `RunStore.update_run`."""

        def update(db: sqlite3.Connection) -> None:
            _check_owner(db, lease)
            query = "UPDATE run_values SET fingerprint = ? WHERE run_id = ?"
            db.execute(query, (fingerprint, lease.run_id))

        await self._do(update)

    async def end_run(self, lease: Lease, status: RunStatus, outcome: bytes | None = None) -> None:
        """See `RunStore.end_run`."""
        check_size(outcome, f"what run {lease.run_id} came to", self._max)

        def end(db: sqlite3.Connection) -> None:
            _check_owner(db, lease)
            db.execute(
                "UPDATE runs SET status = ?, owner = NULL, updated = ? WHERE run_id = ?",
                (status, self._clock(), lease.run_id),
            )
            db.execute("UPDATE run_values SET outcome = ? WHERE run_id = ?", (outcome, lease.run_id))

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
                f"SELECT {_RUN} FROM runs JOIN run_values USING (run_id) "  # noqa: S608 - names of columns
                "WHERE (?1 IS NULL OR pipeline = ?1) AND (?2 IS NULL OR status = ?2) "
                "ORDER BY created DESC, runs.rowid DESC LIMIT ?3"
            )
            return [RunInfo(*row) for row in db.execute(query, (pipeline, status, limit))]

        return await self._do(read)

    async def drop_run(self, run_id: str) -> bool:
        """See `RunStore.drop_run`."""

        def drop(db: sqlite3.Connection) -> bool:
            db.execute("DELETE FROM steps WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM run_values WHERE run_id = ?", (run_id,))
            return db.execute("DELETE FROM runs WHERE run_id = ?", (run_id,)).rowcount > 0

        return await self._do(drop)

    async def prune_runs(self, older_than: float, statuses: Sequence[RunStatus] = ENDED) -> int:
        """See `RunStore.prune_runs`."""
        return await self._do(lambda db: _prune(db, self._clock(), older_than, statuses, -1))

    async def close(self) -> None:
        """See `RunStore.close`: the thread ends when what waits is written, and the file is closed."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._jobs.put(None)
        if thread is not None and thread.is_alive():
            await asyncio.to_thread(thread.join, ANSWER_SECONDS)
        with self._use:
            self._disconnect()

    # -- who does the work --------------------------------------------------------------------------

    async def _do(self, job: Callable[[sqlite3.Connection], T], *, small: bool = False) -> T:
        """Do a job, and return after its commit."""
        if small:
            outcome = self._done_here(job)
            if outcome is not _NOT_NOW:
                return outcome
        future: Future[T] = Future()
        self._hand_over((job, future))
        waiting = asyncio.wrap_future(future)
        until = time.monotonic() + ANSWER_SECONDS
        cancelled = False
        try:
            while not waiting.done():
                left = until - time.monotonic()
                if left <= 0:
                    raise StoreError(
                        f"{self._path.name} gave no answer within {ANSWER_SECONDS:g} s",
                        hint="look at its disk; whether the write has happened is not known",
                    )
                try:
                    await asyncio.wait([waiting], timeout=left)
                except asyncio.CancelledError:
                    cancelled = True  # it is passed on when the write has happened, or has not
            if cancelled:
                waiting.exception()  # nobody asks for it any more
                raise asyncio.CancelledError
            return waiting.result()
        finally:
            del waiting, future  # they hold what the job raised, whose frames hold this one

    def _done_here(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Do a small write at once, if nothing is in its way; `_NOT_NOW` if something is."""
        not_now: T = _NOT_NOW
        begun = time.monotonic()
        if self._synchronous == "full" or begun < self._slow_until or not self._jobs.empty():
            return not_now
        if not self._use.acquire(blocking=False):
            return not_now
        try:
            if self._db is None:
                return not_now  # to open the file takes longer
            try:
                outcome = job(self._db)
            except sqlite3.Error:
                return not_now  # the thread waits, or finds out what it is
        finally:
            self._use.release()
        self._writes += 1
        if self._writes >= CHECKPOINT_EVERY:
            self._writes = 0
            self._hand_over((_checkpoint, Future()))
        if time.monotonic() - begun > QUICK_SECONDS:
            self._slow_until = time.monotonic() + SLOW_SECONDS
        return outcome

    def _hand_over(self, job: _Job) -> None:
        """Give the thread a job, and start it if there is none."""
        with self._lock:
            self._jobs.put(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, args=(self._jobs,), name="dspex-store", daemon=True
                )
                self._thread.start()

    def _work(self, jobs: queue.SimpleQueue[_Job | None]) -> None:
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
            with self._use:
                self._commit([each for each in several if each[0] is not _checkpoint])
                if len(several) > 1 or several[0][0] is _checkpoint:
                    self._move_log()
            if ended:
                return

    def _move_log(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):  # the next one does it
                _checkpoint(self._db)

    def _commit(self, jobs: list[_Job]) -> None:
        """Do jobs in one transaction, and tell their callers."""
        if not jobs:
            return
        outcomes: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            if self._db is None:
                self._db = self._open()
            self._begin(self._db)
            for job, future in jobs:
                outcomes.append((future, *_tried(self._db, job)))
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - every caller is told
            self._disconnect()
            if len(jobs) > 1:  # one of them may be to blame
                for each in jobs:
                    self._commit([each])
                return
            said = error if isinstance(error, StoreError) else self._said(error)
            outcomes = [(jobs[0][1], None, said)]
        for future, outcome, failed in outcomes:
            if failed is None:
                future.set_result(outcome)
            else:
                future.set_exception(failed)

    def _begin(self, db: sqlite3.Connection) -> None:
        """Begin a transaction, as soon as nobody else has one."""
        until = time.monotonic() + self._busy
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if _code(error) not in _BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.002)

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _open(self) -> sqlite3.Connection:
        try:  # what is kept is its user's alone; SQLite's other files follow it
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:  # SQLite says what else it is
            if error.errno in _DENIED:
                # It would read a file that it may not write, and leave others beside it that nobody may.
                raise self._read_only() from error
        db = sqlite3.connect(
            self._path, timeout=0.0, isolation_level=None, cached_statements=64, check_same_thread=False
        )
        try:
            self._patiently(lambda: self._is_new(db))  # before anything is written: another's stays as it is
            # Of two that switch a new file to WAL at once, one is told that it is locked.
            self._patiently(lambda: db.execute("PRAGMA journal_mode = WAL"))
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA trusted_schema = OFF")
            if self._max_pages is not None:
                db.execute(f"PRAGMA max_page_count = {int(self._max_pages)}")
            self._begin(db)
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

    def _patiently(self, action: Callable[[], object]) -> None:
        until = time.monotonic() + self._busy
        while True:
            try:
                action()
                return
            except sqlite3.OperationalError as error:
                if _code(error) not in _BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.005)

    def _is_new(self, db: sqlite3.Connection) -> bool:
        """Whether the file is empty, and is to get our tables.

        Raises:
            StoreError: If it is another's or was changed (`store-not-ours`), or is of a newer version
                (`store-newer-schema`).
        """
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        tables = _tables_of(db)
        if application == 0 and version == 0 and not tables:
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
        if tables != _expected():
            raise StoreError(
                f"{self._path.name} has other tables than dspex made",
                code="store-not-ours",
                hint="somebody has changed it; restore it from a copy, or give the store another path",
            )
        return False

    def _said(self, error: Exception) -> StoreError:
        """What went wrong, by SQLite's code (https://www.sqlite.org/rescode.html)."""
        name = self._path.name
        code = _code(error)
        if code in _BUSY:
            return StoreError(
                f"{name} was locked for {self._busy:g} s",
                code="store-locked",
                hint="another process holds a transaction open; try again",
                retryable=True,
            )
        if code == sqlite3.SQLITE_FULL:
            return StoreError(f"no room to write {name}", code="store-full", hint="make room on its disk")
        if code == sqlite3.SQLITE_READONLY:
            return self._read_only()
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return StoreError(
                f"{name} is no database, or a broken one: {error}",
                code="store-not-ours",
                hint="restore it from a copy, or give another path; the file was left as it is",
            )
        return StoreError(
            f"{name} could not be used: {error}", hint="look at the file, its directory and its disk"
        )

    def _read_only(self) -> StoreError:
        return StoreError(
            f"{self._path.name} cannot be written",
            code="store-readonly",
            hint="look at the file's and its directory's rights",
        )

    def __repr__(self) -> str:
        return f"SQLite({self._path.name!r}, synchronous={self._synchronous!r})"


def _tried(db: sqlite3.Connection, job: Callable[[sqlite3.Connection], Any]) -> tuple[Any, StoreError | None]:
    """Do one job of a transaction; what it refuses undoes what it did, and nothing else."""
    db.execute("SAVEPOINT job")
    try:
        outcome = job(db)
    except StoreError as error:
        db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")
        return None, error
    db.execute("RELEASE job")
    return outcome, None


def _checkpoint(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _tables_of(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    return {(kind, name, " ".join(sql.split())) for kind, name, sql in db.execute(query)}


@functools.cache
def _expected() -> set[tuple[str, str, str]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        return _tables_of(db)


def _info(db: sqlite3.Connection, run_id: str) -> RunInfo | None:
    query = f"SELECT {_RUN} FROM runs JOIN run_values USING (run_id) WHERE run_id = ?"  # noqa: S608
    row = db.execute(query, (run_id,)).fetchone()
    return None if row is None else RunInfo(*row)


def _check_owner(db: sqlite3.Connection, lease: Lease) -> None:
    row = db.execute("SELECT epoch, owner FROM runs WHERE run_id = ?", (lease.run_id,)).fetchone()
    if row is None:
        raise not_found(lease.run_id)
    if row[0] != lease.epoch or row[1] is None:
        raise lost(lease.run_id)


def _prune(db: sqlite3.Connection, now: float, older_than: float, statuses: Sequence[str], most: int) -> int:
    marks = ", ".join("?" * len(statuses))
    query = (
        f"SELECT run_id FROM runs WHERE updated < ? AND status IN ({marks}) "  # noqa: S608 - question marks
        "AND (owner IS NULL OR lease_until < ?) ORDER BY updated LIMIT ?"
    )
    old = db.execute(query, (now - older_than, *statuses, now, most)).fetchall()
    for table in ("steps", "run_values", "runs"):
        db.executemany(f"DELETE FROM {table} WHERE run_id = ?", old)  # noqa: S608 - names of tables
    return len(old)


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


# -- forks ------------------------------------------------------------------------------------------

_stores: WeakSet[SQLite] = WeakSet()
_held: list[SQLite] = []
_abandoned: list[sqlite3.Connection] = []


def _before_fork() -> None:
    """Close every connection: SQLite's locks are the process's, and a child would believe it has them."""
    for store in list(_stores):
        if store._use.acquire(timeout=FORK_SECONDS):
            _held.append(store)
            store._disconnect()


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._use.release()


def _after_fork_in_child() -> None:
    _held.clear()
    for store in list(_stores):  # neither thread nor jobs came along
        store._lock, store._use = threading.Lock(), threading.Lock()
        store._jobs, store._thread = queue.SimpleQueue(), None
        if store._db is not None:  # it was in use: to close it here would undo the parent's locks
            _abandoned.append(store._db)
            store._db = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
