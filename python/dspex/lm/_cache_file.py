"""The file of answers: where it is, what is in it, and how it is opened, to write or to read alone.

Nobody but SQLite may open it: to close it takes all locks away that this process has on it, also those of its
other connections, and two writers at once break the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

__all__ = [
    "FILE",
    "LATER",
    "NotOursError",
    "default_directory",
    "files_of",
    "open_to_read",
    "open_to_write",
    "size_of_file",
    "transaction",
    "used_bytes",
]

FILE: Final = "responses.sqlite3"
SCHEMA: Final = 1
APPLICATION: Final = 0x64737078  # "dspx"

OPEN_SECONDS: Final = 2.0
"""How long the first use waits for others who are about to make the file."""
LATER: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
"""Codes of a file that others are at work on."""

_TABLES: Final = """
CREATE TABLE responses (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, used REAL NOT NULL, ends REAL
);
CREATE INDEX responses_by_use ON responses (used);
"""


class NotOursError(Exception):
    """The file is not one that this version can use."""


def open_to_write(path: Path, wait: float) -> sqlite3.Connection:
    """A connection to the file, which is made where there is none; it waits so many seconds for a lock.

    Raises:
        OSError: If the directory or the file cannot be made or written.
        sqlite3.Error: If it is broken, or locked for too long.
        NotOursError: If it is of something else, or of another version.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_new = not path.exists()
    if not is_new and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise PermissionError(f"no right to write {path.name} and what is beside it")
    connection = sqlite3.connect(
        path, timeout=max(wait, OPEN_SECONDS), isolation_level=None, check_same_thread=False
    )
    try:
        version = _version(connection)
        if is_new:
            # SQLite has made it; answers may be anybody's secret, and what is beside it gets its rights.
            os.chmod(path, 0o600)
        if version == 0:
            _check_empty(connection)
            with transaction(connection):
                if _version(connection) == 0:
                    for statement in _TABLES.split(";")[:-1]:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {SCHEMA}")
        _check(connection)
        # Nothing where it is so already; while others are at work it stays for the next who opens it.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path, wait: float, *, immutable: bool) -> sqlite3.Connection | None:
    """A connection that only reads; None where there can be none.

    Args:
        path: The file.
        wait: Seconds to wait for a lock.
        immutable: Whether nobody can write it. A file that was left with everything in it, in an image of a
            container, then needs no files beside it.
    """
    for mode in ("mode=ro", "mode=ro&immutable=1") if immutable else ("mode=ro",):
        if "immutable" in mode and size_of_file(Path(f"{path}-wal")):
            return None
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(path))}?{mode}",
                timeout=wait,
                isolation_level=None,
                check_same_thread=False,
                uri=True,
            )
        except sqlite3.Error:
            continue
        try:
            _check(connection)
            connection.execute("SELECT key FROM responses LIMIT 1").fetchone()
        except (sqlite3.Error, NotOursError):
            connection.close()
            continue
        return connection
    return None


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _check_empty(connection: sqlite3.Connection) -> None:
    # One statement, which sees either nothing or all that another process has made meanwhile.
    if connection.execute(
        "SELECT 1 FROM sqlite_master WHERE name NOT IN (SELECT 'responses' UNION SELECT 'responses_by_use')"
        " AND name NOT LIKE 'sqlite_%'"
    ).fetchone():
        raise NotOursError("it is a database of something else")


def _check(connection: sqlite3.Connection) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = _version(connection)
    if application != APPLICATION:
        raise NotOursError("it is a database of something else")
    if version != SCHEMA:
        raise NotOursError(f"another version of dspex made it, with schema {version}")


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the file's pages that are in use."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    used: int = (pages - free) * size
    return used


def files_of(path: Path) -> tuple[Path, ...]:
    """The file and what SQLite has beside it."""
    return (path, Path(f"{path}-wal"), Path(f"{path}-shm"))


def size_of_file(path: Path) -> int:
    """Its bytes; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def default_directory() -> Path | None:
    """Where answers are kept if nobody says where; None where there is no such place."""
    for name, below in (("DSPEX_CACHE_DIR", ""), ("XDG_CACHE_HOME", "dspex")):
        if given := os.environ.get(name):
            return Path(given) / below
    try:
        return Path.home() / ".cache" / "dspex"
    except RuntimeError:  # no HOME, and a user whom the system does not know
        return None
