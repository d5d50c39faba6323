"""`SQLiteFile`: a file that many processes share, and who writes to it.

::

    a small write --nothing waits, nothing is slow--> done at once, in the caller's thread
    all else --job--> queue --> one thread: BEGIN IMMEDIATE, all jobs that wait, COMMIT --> callers
                                each job in a savepoint; where one breaks the group, each by itself

There is one connection, and one lock under which it is used. Where the disk is not waited for, a small write
takes less than the way to a thread and back. So an event loop writes it itself as long as that is quick. The
thread does it with `synchronous="full"`, where another holds the file, and after writes that took long; and
it moves the log into the file, which waits for the disk.

Jobs that wait together are one transaction: many callers at once pay for one commit. A caller is told after
the commit, and one that is cancelled waits for it too.

`synchronous="normal"` in WAL mode survives a kill of the process at any point; `"full"` survives a power cut
too, as each commit waits for the disk (https://www.sqlite.org/pragma.html#pragma_synchronous).

The file says that it is ours and of which version, and has our tables and nothing else (`_sqlite_schema`). An
older one gets what it lacks. A newer one, a file of somebody else's, one that was changed or a broken one is
refused and left as it is. No connection crosses a fork: it is closed before, and both sides open the file
anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from weakref import WeakSet

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError, SessionError, StoreError
from dspex.stores._outcome import outcome_of
from dspex.stores._sqlite_schema import APPLICATION, VERSION, bring_up, expected, tables_of

__all__ = ["SMALL_BYTES", "SQLiteFile"]

T = TypeVar("T")

SMALL_BYTES: Final = 64 * 1024
"""What a row may have that an event loop writes itself."""
ANSWER_SECONDS: Final = 60.0
"""How long a caller waits for the thread: a disk that gives no answer holds nobody for ever."""
IDLE_SECONDS: Final = 10.0
MOST_AT_ONCE: Final = 256
QUICK_SECONDS: Final = 0.002
"""What a write may take that an event loop does itself."""
SLOW_WRITES: Final = 2
"""Writes in a row that take longer: one may have been another process's turn on the core."""
VERY_SLOW_SECONDS: Final = 0.02
SLOW_SECONDS: Final = 1.0
"""How long the thread does all of them after that, or after one that was very slow."""
CHECKPOINT_EVERY: Final = 500
"""Writes after which the thread moves the log into the file."""
FORK_SECONDS: Final = 1.0

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_NOT_NOW: Final[Any] = object()

Synchronous = Literal["normal", "full"]
_Job = tuple[Callable[[sqlite3.Connection], Any], Future[Any]]


class SQLiteFile:
    """A file of SQLite's; for the arguments see `SQLite`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous,
        max_bytes: int,
        busy: float,
        max_pages: int | None,
        clock: Callable[[], float],
    ) -> None:
        if synchronous not in ("normal", "full"):
            raise ConfigError(
                f'synchronous must be "normal" or "full", not {shown(synchronous)}',
                code="bad-store",
                hint='write synchronous="full"',
            )
        self._path = Path(path)
        self._synchronous = synchronous
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
        self._slow_writes = 0
        self._works = False  # whether the thread has jobs that it has taken
        self._writes = 0
        _stores.add(self)

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

    async def _do(
        self, job: Callable[[sqlite3.Connection], T], *, small: bool = False, whole: bool = False
    ) -> T:
        """Do a job, and return after its commit.

        Args:
            job: What is done. What it raises of ours undoes it.
            small: Whether an event loop may do it itself.
            whole: Whether it is more than one statement.
        """
        if small:
            outcome = self._done_here(_together(job) if whole else job)
            if outcome is not _NOT_NOW:
                return outcome
        future: Future[T] = Future()
        self._hand_over((job, future))
        return await outcome_of(future, ANSWER_SECONDS, self._no_answer)

    def _no_answer(self) -> StoreError:
        return StoreError(
            f"{self._path.name} gave no answer within {ANSWER_SECONDS:g} s",
            hint="look at its disk; whether the write has happened is not known",
        )

    def _done_here(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Do a small write at once, if nothing is in its way; `_NOT_NOW` if something is."""
        not_now: T = _NOT_NOW
        begun = time.monotonic()
        if self._synchronous == "full" or begun < self._slow_until:
            return not_now
        if self._works or not self._jobs.empty():  # a lock is not fair: the thread would wait for ever
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
        took = time.monotonic() - begun
        self._slow_writes = self._slow_writes + 1 if took > QUICK_SECONDS else 0
        if self._slow_writes == SLOW_WRITES or took > VERY_SLOW_SECONDS:
            self._slow_writes, self._slow_until = 0, time.monotonic() + SLOW_SECONDS
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
            self._works = True
            several, ended = [job], False
            while len(several) < MOST_AT_ONCE and not jobs.empty():
                more = jobs.get()
                if more is None:
                    ended = True
                    break
                several.append(more)
            with self._use:
                work = [each for each in several if each[0] is not _checkpoint]
                self._commit(work)
                self._writes += len(work)
                if self._writes >= CHECKPOINT_EVERY or len(work) < len(several):
                    self._writes = 0
                    self._move_log()
            self._works = False
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
            self._patiently(lambda: self._version(db))  # before anything is written: another's stays as it is
            # Of two that switch a new file to WAL at once, one is told that it is locked.
            self._patiently(lambda: db.execute("PRAGMA journal_mode = WAL"))
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA trusted_schema = OFF")
            if self._max_pages is not None:
                db.execute(f"PRAGMA max_page_count = {int(self._max_pages)}")
            self._begin(db)
            version = self._version(db)
            if version < VERSION:
                bring_up(db, version)
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

    def _version(self, db: sqlite3.Connection) -> int:
        """Which version the file is of; 0 if it is empty.

        Raises:
            StoreError: If it is another's or was changed (`store-not-ours`), or is of a newer version
                (`store-newer-schema`).
        """
        (application,) = db.execute("PRAGMA application_id").fetchone()
        version: int
        (version,) = db.execute("PRAGMA user_version").fetchone()
        tables = tables_of(db)
        if application == 0 and version == 0 and not tables:
            return 0
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
        if tables != expected(version):
            raise StoreError(
                f"{self._path.name} has other tables than dspex made",
                code="store-not-ours",
                hint="somebody has changed it; restore it from a copy, or give the store another path",
            )
        return version

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
        return f"{type(self).__name__}({self._path.name!r}, synchronous={self._synchronous!r})"


def _tried(db: sqlite3.Connection, job: Callable[[sqlite3.Connection], Any]) -> tuple[Any, Exception | None]:
    """Do one job of a transaction; what it refuses undoes what it did, and nothing else."""
    db.execute("SAVEPOINT job")
    try:
        outcome = job(db)
    except (StoreError, SessionError) as error:
        db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")
        return None, error
    db.execute("RELEASE job")
    return outcome, None


def _together(job: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    """A job as a transaction of its own, if nobody else has one."""

    def done(db: sqlite3.Connection) -> T:
        db.execute("BEGIN IMMEDIATE")
        try:
            outcome = job(db)
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled back
                db.execute("ROLLBACK")
            raise
        return outcome

    return done


def _checkpoint(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


# -- forks ------------------------------------------------------------------------------------------

_stores: WeakSet[SQLiteFile] = WeakSet()
_held: list[SQLiteFile] = []
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
        store._jobs, store._thread, store._works = queue.SimpleQueue(), None, False
        if store._db is not None:  # it was in use: to close it here would undo the parent's locks
            _abandoned.append(store._db)
            store._db = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
