"""The tables of `SQLite`, by the version of the file that brought them.

A file says that it is ours (`application_id`) and of which version (`user_version`). Each version is the one
before and some tables more, so a file of an older one gets those when it is next opened.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from typing import Final

__all__ = ["APPLICATION", "NEXT_EPOCH", "VERSION", "bring_up", "expected", "tables_of"]

APPLICATION: Final = 0x64737872
"""`dsxr`, by which the file is known."""

_TABLES: Final = {
    # 1: runs
    1: """
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
""",
    # 2: sessions
    2: """
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY, pool TEXT NOT NULL, user TEXT NOT NULL, settings BLOB NOT NULL,
    idle_ttl REAL, max_age REAL, created REAL NOT NULL, used REAL NOT NULL, expires REAL,
    version INTEGER NOT NULL, turns INTEGER NOT NULL, size INTEGER NOT NULL, epoch INTEGER NOT NULL,
    owner TEXT, lease_until REAL NOT NULL
);
CREATE INDEX sessions_expires ON sessions (expires) WHERE expires IS NOT NULL;
CREATE INDEX sessions_pool ON sessions (pool);
CREATE INDEX sessions_user ON sessions (user) WHERE user != '';
CREATE TABLE session_entries (
    session_id TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (session_id, key)
) WITHOUT ROWID;
CREATE TABLE session_turns (
    session_id TEXT NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (session_id, number)
) WITHOUT ROWID;
CREATE TABLE epochs (last INTEGER NOT NULL);
INSERT INTO epochs SELECT COALESCE(MAX(epoch), 0) FROM runs;
""",
}
VERSION: Final = max(_TABLES)

NEXT_EPOCH: Final = "UPDATE epochs SET last = last + 1 RETURNING last"
"""Epochs are counted over the whole file: the lease of what was dropped fits nothing of its name."""


def bring_up(db: sqlite3.Connection, version: int) -> None:
    """Give a file what it lacks, within the caller's transaction.

    Args:
        db: The file.
        version: Which it is of; 0 for an empty one.
    """
    for number in range(version + 1, VERSION + 1):
        for statement in _TABLES[number].split(";"):
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")


def tables_of(db: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """What a file has: kind, name and definition of each."""
    query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    return {(kind, name, " ".join(sql.split())) for kind, name, sql in db.execute(query)}


@functools.cache
def expected(version: int) -> set[tuple[str, str, str]]:
    """What a file of this version has."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        for number in range(1, version + 1):
            db.executescript(_TABLES[number])
        return tables_of(db)
