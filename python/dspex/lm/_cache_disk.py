"""`Disk`: answers in a SQLite file that many processes share.

::

    glance, aread (an event loop, while looks are quick) -> [connection for glances] --+
    read (a thread without an event loop) ---------------> [reading connection] -------+
    aread (otherwise) ----------> thread for reading ---->        |                    v
    put, forget, clear ---------> thread for writing ----> [writing connection] --> responses.sqlite3 (WAL)

A glance waits for nothing: neither for a lock of SQLite's nor for one of ours, nor for a file to be opened.
What it cannot say at once a thread finds out, as it does every look while looks are slow (`_cache_pace.py`).

States of each process's side::

    CLOSED --first use--> OPEN --its file is none of ours, broken, or cannot be opened--> OFF
                           |
                           +--fork--> CLOSED, on both sides: no connection crosses a fork

Nothing that happens here is an error of a call: a read that fails finds nothing, a write that fails is left
out, and the log of `dspex.lm` has one warning of each kind of trouble. A file that is locked or a disk that
is full may be better the next time, and is tried again. A broken file is left as it is, for
`dspex cache clear`: another process may be at work on it.

A row is written by an upsert in a transaction, so that a process that is killed leaves whole rows. Writes
that wait are bounded in bytes and written together. What was forgotten is not found from that moment on, even
while its row is still there. The file is bounded by its pages in use: where they are too many, the rows that
were longest unused go, a part of them at once. When a row was used is noted in steps of minutes, so that
reading hardly ever writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from dspex.lm._cache_file import (
    FILE,
    LATER,
    NotOursError,
    files_of,
    open_to_read,
    open_to_write,
    size_of_file,
    transaction,
    used_bytes,
)
from dspex.lm._cache_pace import Pace

__all__ = ["NOT_NOW", "Disk", "DiskStats"]

_log = logging.getLogger("dspex.lm")

READ_SECONDS: Final = 0.05
"""How long a read waits for a lock, which in WAL mode there is only while the file is recovered or closed."""
ANSWER_SECONDS: Final = 1.0
"""How long a call of an event loop waits for the thread that reads."""
AGAIN_SECONDS: Final = 5.0
"""How long the file is left alone after it was locked for longer than that."""
WRITE_SECONDS: Final = 5.0
"""How long a write waits for those of other processes, on its thread."""
MOST_WAITING: Final = 64 * 1024 * 1024
"""Bytes of answers that wait to be written; what comes beyond that is left out."""
MOST_AT_ONCE: Final = 256
USED_STEP: Final = 300.0
"""Seconds after which it is noted again that a row was used."""
CLOSE_SECONDS: Final = 2.0
FORK_SECONDS: Final = 1.0

_GET: Final = "SELECT value, used, ends FROM responses WHERE key = ?"
_PUT: Final = """
INSERT INTO responses (key, value, used, ends) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, used = excluded.used, ends = excluded.ends
"""
_GONE: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR})
"""Codes of a file that is none of ours; the last is that of statements that do not fit its tables."""

NOT_NOW: Final = object()
"""What `Disk.glance` says where it would have to wait."""


class DiskStats(NamedTuple):
    """What a file holds.

    Attributes:
        path: The file.
        entries: Answers.
        bytes: Bytes that the file takes, what is about to be written into it included.
    """

    path: Path
    entries: int
    bytes: int


class _Holder:
    """A connection and the lock under which it is used."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


class _Thread:
    """A thread that does one thing after the other; it begins with the first, and ends with `None`."""

    def __init__(self, name: str, run: Callable[[queue.SimpleQueue[Any]], None]) -> None:
        self.work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._name = name
        self._run = run
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, what: Any) -> bool:
        """Have it do something; False where there can be no thread any more."""
        self.work.put(what)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(
                        target=self._run, args=(self.work,), name=self._name, daemon=True
                    )
                    try:
                        thread.start()
                    except RuntimeError:
                        return False
                    self._thread = thread
        return True

    def end(self, seconds: float) -> None:
        """Let it finish, and wait for it so long."""
        if self._thread is not None:
            self.work.put(None)
            self._thread.join(seconds)


class Disk:
    """The answers in a directory.

    Args:
        directory: Where the file is; None where there is no place for one.
        max_bytes: The most that the file may hold.
        clock: Seconds that never go back, to measure looks by.
    """

    def __init__(
        self, directory: Path | None, max_bytes: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self.path = None if directory is None else directory / FILE
        self._max_bytes = max_bytes
        self._told: set[str] = set()
        self._begin()
        if self.path is None:
            self._off = True
            self._tell(
                "directory", "there is no directory for it: no HOME, XDG_CACHE_HOME or DSPEX_CACHE_DIR"
            )
        _disks.add(self)

    def _begin(self) -> None:
        """All that a process has of its own."""
        self._off = False
        self._reads_only = False
        self._glancing = _Holder()
        self._reading = _Holder()
        self._writing = _Holder()
        self._pace = Pace()
        self._reader = _Thread("dspex-cache-read", self._read_on)
        self._writer = _Thread("dspex-cache-write", self._write_on)
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._outdated: dict[bytes, int] = {}
        self._again = 0.0
        self._held: tuple[_Holder, ...] = ()

    # -- reading ----------------------------------------------------------------------------------

    def read(self, key: bytes) -> tuple[bytes, float | None] | None:
        """The JSON of a key and the seconds for which it is good; it may wait, so it is for threads alone."""
        if self._off or key in self._outdated:
            return None
        try:
            with self._reading.lock:
                connection = self._reading.connection
                if connection is None:
                    if time.monotonic() < self._again:
                        return None
                    connection = self._open(self._reading, READ_SECONDS)
                row = connection.execute(_GET, (key,)).fetchone()
        except (sqlite3.Error, OSError, NotOursError) as error:
            self._failed(error, self._reading)
            return None
        return self._taken(key, row)

    def glance(self, key: bytes) -> Any:
        """What `read` gives, if that takes no waiting, else `NOT_NOW`: it is for event loops."""
        if self._off or key in self._outdated:
            return None
        holder = self._glancing
        if not self._pace.is_quick or not holder.lock.acquire(blocking=False):
            return NOT_NOW
        try:
            connection = holder.connection
            if connection is None:
                return NOT_NOW
            begun = self._clock()
            row = connection.execute(_GET, (key,)).fetchone()
            ended = self._clock()
        except sqlite3.Error as error:
            # The thread that looks next meets the same, and tells of it.
            if _base_code(error) not in LATER:
                holder.close()
                self._pace.failed(self._clock())
            return NOT_NOW
        finally:
            holder.lock.release()
        self._pace.took(ended - begun, ended)
        return self._taken(key, row)

    def _taken(self, key: bytes, row: Any) -> tuple[bytes, float | None] | None:
        """What a row says."""
        if row is None or key in self._outdated:
            return None
        now = time.time()
        value, used, ends = row
        if ends is not None and ends <= now:
            return None
        if now - used > USED_STEP and not self._reads_only:
            self._write(_used, key, now)
        return value, None if ends is None else ends - now

    async def aread(self, key: bytes) -> tuple[bytes, float | None] | None:
        """The awaitable twin of `read`: a glance, or else the thread for it does it."""
        found: tuple[bytes, float | None] | None = self.glance(key)
        if found is not NOT_NOW:
            return found
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[bytes, float | None] | None] = loop.create_future()
        if not self._reader.add((key, loop, future)):
            return None
        # A file system that hangs holds up the thread, but no call.
        timer = loop.call_later(ANSWER_SECONDS, _settle, [(future, None)])
        try:
            return await future
        finally:
            timer.cancel()

    def _read_on(self, work: queue.SimpleQueue[Any]) -> None:
        for batch in _batches(work):
            self._read_all(batch)
            del batch  # what its calls wait for is theirs

    def _read_all(self, batch: list[Any]) -> None:
        """Read for calls that wait. Each loop is woken once, which costs more than the reads."""
        found: dict[asyncio.AbstractEventLoop, list[Any]] = {}
        for key, loop, future in batch:
            found.setdefault(loop, []).append((future, self._read_measured(key)))
        for loop, settled in found.items():
            with contextlib.suppress(RuntimeError):  # one that has closed waits for nothing
                loop.call_soon_threadsafe(_settle, settled)

    def _read_measured(self, key: bytes) -> tuple[bytes, float | None] | None:
        was_open = self._reading.connection is not None
        begun = self._clock()
        found = self.read(key)
        ended = self._clock()
        if was_open:  # to open the file says nothing of how quick it is
            self._pace.took(ended - begun, ended)
            if self._pace.is_quick and self._glancing.connection is None:
                self._open_for_glances()
        return found

    def _open_for_glances(self) -> None:
        with self._glancing.lock:
            if self.path is not None and self._glancing.connection is None and not self._off:
                self._glancing.connection = open_to_read(self.path, 0.0, immutable=self._reads_only)
                if self._glancing.connection is None:
                    self._pace.failed(self._clock())

    # -- writing ----------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, seconds: float | None) -> None:
        """Keep an answer, for so many seconds; another thread writes it."""
        if self._off or self._reads_only:
            return
        with self._lock:
            if self._waiting_bytes + len(value) > MOST_WAITING:
                return
            self._waiting_bytes += len(value)
        now = time.time()
        self._write(_put, key, value, now, None if seconds is None else now + seconds)

    def forget(self, key: bytes) -> None:
        """Find the answer of a key no more."""
        if self._off:
            return
        with self._lock:
            self._outdated[key] = self._outdated.get(key, 0) + 1
        self._write(_forget, key)

    def clear(self, seconds: float) -> bool:
        """Forget everything, and wait for that; False where it was not done in time."""
        done = threading.Event()
        return self._write(_clear, done) and done.wait(seconds) and not self._off

    def flush(self, seconds: float) -> bool:
        """Wait until all is written that is to be by now; False where it was not in time."""
        done = threading.Event()
        return self._write(_note, done) and done.wait(seconds)

    def _write(self, what: Callable[..., None], *arguments: Any) -> bool:
        """Have the thread do something; False where it is not done."""
        if self._off or self._reads_only:
            return False
        return self._writer.add((what, arguments))

    def _write_on(self, work: queue.SimpleQueue[Any]) -> None:
        for jobs in _batches(work):
            written = self._write_all(jobs)
            with self._lock:
                for what, arguments in jobs:
                    if what is _put:
                        self._waiting_bytes -= len(arguments[1])
                    # A row that could not be taken away is never read again.
                    if what is _forget and written:
                        left = self._outdated[arguments[0]] - 1
                        self._outdated[arguments[0]] = left
                        if not left:
                            del self._outdated[arguments[0]]
            for what, arguments in jobs:
                if what in (_clear, _note):
                    arguments[0].set()
            del jobs
        with self._writing.lock:
            self._writing.close()

    def _write_all(self, jobs: list[Any]) -> bool:
        """Do all of these in one transaction; False where that was not possible."""
        if self._off or self._reads_only or all(what is _note for what, _ in jobs):
            return False
        try:
            with self._writing.lock:
                connection = self._writing.connection
                if connection is None:
                    connection = self._open(self._writing, WRITE_SECONDS)
                if self._can_only_read():
                    return False
                with transaction(connection):
                    for what, arguments in jobs:
                        what(connection, *arguments)
                self._make_room(connection)
                if any(what is _clear for what, _ in jobs):
                    with contextlib.suppress(sqlite3.OperationalError):  # another process reads
                        connection.execute("VACUUM")
        except (sqlite3.Error, OSError, NotOursError) as error:
            self._failed(error, self._writing)
            return False
        return True

    def _can_only_read(self) -> bool:
        """Whether that has turned out while the file was opened."""
        return self._reads_only

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Let the rows go that were longest unused, until a tenth of the file is free."""
        if used_bytes(connection) <= self._max_bytes:
            return
        with transaction(connection):
            connection.execute("DELETE FROM responses WHERE ends <= ?", (time.time(),))
            while used_bytes(connection) > self._max_bytes * 0.9:
                gone = connection.execute(
                    "DELETE FROM responses WHERE rowid IN (SELECT rowid FROM responses ORDER BY used LIMIT ("
                    "SELECT 1 + count(*) / 20 FROM responses))"
                ).rowcount
                if not gone:
                    break

    # -- the file ---------------------------------------------------------------------------------

    def _open(self, holder: _Holder, wait: float) -> sqlite3.Connection:
        """A connection to the file, which is made where there is none; the caller has the holder's lock."""
        assert self.path is not None  # noqa: S101 - else it is off
        try:
            connection = open_to_write(self.path, wait)
        except (OSError, sqlite3.OperationalError) as error:
            # A directory, a file or a disk that cannot be written may have been filled somewhere else.
            if not self.path.is_file() or getattr(error, "sqlite_errorcode", None) in LATER:
                raise
            only_read = open_to_read(self.path, wait, immutable=True)
            if only_read is None:
                raise
            connection = only_read
            self._reads_only = True
            self._tell("readonly", f"{self.path} can only be read: {error}")
        holder.connection = connection
        return connection

    def _failed(self, error: Exception, holder: _Holder) -> None:
        """Take note of trouble, and tell of the first of each kind."""
        base = _base_code(error)
        if base in LATER:
            if holder.connection is None:
                self._again = time.monotonic() + AGAIN_SECONDS
            self._tell("locked", f"{self.path} is locked by another process; the call went on without it")
            return
        if base == sqlite3.SQLITE_FULL:
            self._tell("full", f"{self.path} cannot grow: {error}")
            return
        opened = holder.connection is not None
        with holder.lock:
            holder.close()  # the file may have been taken away under it; the next one opens what is there
        if isinstance(error, NotOursError) or base in _GONE or not opened:
            self._off = True
            self._tell("off", f"{self.path} is not used: {error}; `dspex cache clear` makes it anew")
            return
        self._tell("other", f"{self.path}: {error}")

    def _tell(self, kind: str, what: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            _log.warning("the response cache on disk: %s", what)

    def stats(self) -> DiskStats | None:
        """What the file holds; None where there is none that can be read."""
        if self.path is None or not self.path.is_file():
            return None
        with self._reading.lock:
            try:
                connection = self._reading.connection or self._open(self._reading, READ_SECONDS)
                entries = connection.execute("SELECT count(*) FROM responses").fetchone()[0]
            except (sqlite3.Error, OSError, NotOursError):
                return None
        return DiskStats(self.path, entries, sum(size_of_file(path) for path in files_of(self.path)))

    def remove(self) -> int:
        """Take the file away, whatever is wrong with it; the bytes that were in it."""
        if self.path is None:
            return 0
        self.close()
        found = sum(size_of_file(path) for path in files_of(self.path))
        for path in files_of(self.path):
            path.unlink(missing_ok=True)
        return found

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what is to be written, within this time, and let go of the file. It can be used again."""
        writer, reader = self._writer, self._reader
        writer.end(seconds)
        reader.end(seconds)
        for holder in self._holders():
            with holder.lock:
                holder.close()
        self._writer = _Thread("dspex-cache-write", self._write_on)
        self._reader = _Thread("dspex-cache-read", self._read_on)

    def _holders(self) -> tuple[_Holder, ...]:
        return self._glancing, self._reading, self._writing

    # -- forks ------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close the connections: a file of SQLite's must not be open on both sides of a fork."""
        self._held = tuple(holder for holder in self._holders() if holder.lock.acquire(timeout=FORK_SECONDS))
        for holder in self._held:
            holder.close()

    def after_fork_in_parent(self) -> None:
        """Go on; the next who needs a connection opens it."""
        held, self._held = self._held, ()
        for holder in held:
            holder.lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the threads are the parent's, and so is a connection that could not be closed."""
        off = self._off
        _left_behind.append(self._holders())
        self._begin()
        self._off = off


def _base_code(error: Exception) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _put(connection: sqlite3.Connection, key: bytes, value: bytes, now: float, ends: float | None) -> None:
    connection.execute(_PUT, (key, value, now, ends))


def _used(connection: sqlite3.Connection, key: bytes, now: float) -> None:
    connection.execute("UPDATE responses SET used = ? WHERE key = ?", (now, key))


def _forget(connection: sqlite3.Connection, key: bytes) -> None:
    connection.execute("DELETE FROM responses WHERE key = ?", (key,))


def _clear(connection: sqlite3.Connection, done: threading.Event) -> None:
    connection.execute("DELETE FROM responses")


def _note(connection: sqlite3.Connection, done: threading.Event) -> None:
    """Nothing is done: who waits for it knows that all before it is."""


def _batches(work: queue.SimpleQueue[Any]) -> Iterator[list[Any]]:
    """What there is to do, as much as has come; it ends with `None`."""
    ended = False
    while not ended:
        batch = [work.get()]
        with contextlib.suppress(queue.Empty):
            while len(batch) < MOST_AT_ONCE:
                batch.append(work.get_nowait())
        ended = None in batch
        yield [each for each in batch if each is not None]


def _settle(settled: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, found in settled:
        if not future.done():
            future.set_result(found)


_disks: Final[WeakSet[Disk]] = WeakSet()
_left_behind: Final[list[Any]] = []
"""The parent's connections in a fork, which may neither be used nor closed there."""


def _before_fork() -> None:
    for disk in list(_disks):
        disk.before_fork()


def _after_fork_in_parent() -> None:
    for disk in list(_disks):
        disk.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for disk in list(_disks):
        disk.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
