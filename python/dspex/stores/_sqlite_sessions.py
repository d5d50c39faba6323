"""The sessions of `SQLite`.

A commit is one transaction: it moves the session's row, which says the epoch itself, then writes its entries
and turns. A session whose time is over is not seen any more; its rows go when somebody asks for them to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from dspex.stores._runs import check_size
from dspex.stores._sessions import (
    Changes,
    Claimed,
    Entry,
    NewSession,
    SessionInfo,
    SessionLease,
    Turn,
    Use,
    end_of,
    quota_exceeded,
    session_busy,
    session_exists,
    session_moved,
    session_not_found,
    state_conflict,
)
from dspex.stores._sqlite_file import SMALL_BYTES, SQLiteFile
from dspex.stores._sqlite_schema import NEXT_EPOCH

__all__ = ["SQLiteSessions"]

_INFO: Final = ", ".join(SessionInfo._fields)
_ALIVE: Final = "(expires IS NULL OR expires > :now)"
_USED: Final = """
used = MAX(used, :used),
expires = CASE
    WHEN idle_ttl IS NULL AND max_age IS NULL THEN NULL
    WHEN idle_ttl IS NULL THEN created + max_age
    WHEN max_age IS NULL THEN MAX(used, :used) + idle_ttl
    ELSE MIN(MAX(used, :used) + idle_ttl, created + max_age)
END
"""
_TABLES: Final = ("session_entries", "session_turns", "sessions")


class SQLiteSessions(SQLiteFile):
    """What `SQLite` does as a `SessionStore`."""

    async def create_session(
        self,
        new: NewSession,
        *,
        owner: str,
        lease: float,
        most_of_pool: int | None = None,
        most_of_user: int | None = None,
    ) -> SessionLease:
        """See `SessionStore.create_session`."""
        check_size(new.settings, f"the settings of session {new.session_id}", self._max)

        def create(db: sqlite3.Connection) -> SessionLease:
            now = self._clock()
            if _info(db, new.session_id, now) is not None:
                raise session_exists(new.session_id)
            _forget(db, [new.session_id])
            _check_quota(db, new.session_id, "pool", new.pool, most_of_pool, now)
            if new.user:
                _check_quota(db, new.session_id, "user", new.user, most_of_user, now)
            (epoch,) = db.execute(NEXT_EPOCH).fetchone()
            expires = end_of(now, now, new.idle_ttl, new.max_age)
            row = (*new, now, now, expires, 0, 0, 0, epoch, owner, now + lease)
            marks = ", ".join("?" * len(row))
            db.execute(f"INSERT INTO sessions ({_INFO}) VALUES ({marks})", row)  # noqa: S608 - columns
            return SessionLease(new.session_id, epoch, now + lease)

        return await self._do(create, small=len(new.settings) <= SMALL_BYTES, whole=True)

    async def claim_session(
        self, session_id: str, *, owner: str, lease: float, take_over: bool | str = False
    ) -> Claimed:
        """See `SessionStore.claim_session`."""

        def claim(db: sqlite3.Connection) -> Claimed:
            now = self._clock()
            info = _info(db, session_id, now)
            if info is None:
                raise session_not_found(session_id)
            lasts = info.owner is not None and info.lease_until > now
            if lasts and take_over not in (True, info.owner):
                raise session_busy(session_id, info.owner, info.lease_until - now)
            (epoch,) = db.execute(NEXT_EPOCH).fetchone()
            db.execute(
                f"UPDATE sessions SET epoch = :epoch, owner = :owner, lease_until = :until, {_USED} "  # noqa: S608
                "WHERE session_id = :id",
                {"epoch": epoch, "owner": owner, "until": now + lease, "used": now, "id": session_id},
            )
            after = _info(db, session_id, now)
            assert after is not None  # noqa: S101 - it was there a statement ago
            granted = SessionLease(session_id, epoch, now + lease)
            return Claimed(after, granted, _entries(db, session_id), _turns(db, session_id))

        return await self._do(claim)

    async def commit_session(self, lease: SessionLease, changes: Changes, *, seconds: float) -> SessionInfo:
        """See `SessionStore.commit_session`."""
        size = 0
        for key, value in changes.entries.items():
            check_size(value, f"{key!r} of session {lease.session_id}", self._max)
            size += len(value or b"")
        for value in changes.turns:
            check_size(value, f"a turn of session {lease.session_id}", self._max)
            size += len(value)

        def commit(db: sqlite3.Connection) -> SessionInfo:
            return _commit(db, lease, changes, seconds, self._clock())

        return await self._do(commit, small=size <= SMALL_BYTES, whole=True)

    async def renew_sessions(self, uses: Sequence[Use], seconds: float) -> list[str]:
        """See `SessionStore.renew_sessions`."""

        def renew(db: sqlite3.Connection) -> list[str]:
            now, lost = self._clock(), []
            query = (
                f"UPDATE sessions SET lease_until = :until, {_USED} WHERE session_id = :id "  # noqa: S608
                f"AND epoch = :epoch AND owner IS NOT NULL AND {_ALIVE}"
            )
            for use in uses:
                given = {
                    "until": now + seconds,
                    "used": now - use.idle,
                    "id": use.lease.session_id,
                    "epoch": use.lease.epoch,
                    "now": now,
                }
                if not db.execute(query, given).rowcount:
                    lost.append(use.lease.session_id)
            return lost

        return await self._do(renew) if uses else []

    async def release_session(self, lease: SessionLease, *, idle: float = 0.0) -> None:
        """See `SessionStore.release_session`."""

        def release(db: sqlite3.Connection) -> None:
            db.execute(
                f"UPDATE sessions SET owner = NULL, lease_until = :now, {_USED} "  # noqa: S608 - columns
                f"WHERE session_id = :id AND epoch = :epoch AND owner IS NOT NULL AND {_ALIVE}",
                {
                    "now": self._clock(),
                    "used": self._clock() - idle,
                    "id": lease.session_id,
                    "epoch": lease.epoch,
                },
            )

        await self._do(release, small=True)

    async def session(self, session_id: str) -> SessionInfo | None:
        """See `SessionStore.session`."""
        return await self._do(lambda db: _info(db, session_id, self._clock()))

    async def session_entries(self, session_id: str) -> dict[str, Entry]:
        """See `SessionStore.session_entries`."""

        def read(db: sqlite3.Connection) -> dict[str, Entry]:
            there = _info(db, session_id, self._clock()) is not None
            return _entries(db, session_id) if there else {}

        return await self._do(read)

    async def session_turns(self, session_id: str) -> list[Turn]:
        """See `SessionStore.session_turns`."""

        def read(db: sqlite3.Connection) -> list[Turn]:
            there = _info(db, session_id, self._clock()) is not None
            return _turns(db, session_id) if there else []

        return await self._do(read)

    async def sessions(
        self, *, pool: str | None = None, user: str | None = None, limit: int = 100
    ) -> list[SessionInfo]:
        """See `SessionStore.sessions`."""

        def read(db: sqlite3.Connection) -> list[SessionInfo]:
            query = (
                f"SELECT {_INFO} FROM sessions WHERE {_ALIVE} "  # noqa: S608 - names of columns
                "AND (:pool IS NULL OR pool = :pool) AND (:user IS NULL OR user = :user) "
                "ORDER BY used DESC, session_id LIMIT :limit"
            )
            given = {"now": self._clock(), "pool": pool, "user": user, "limit": max(limit, 0)}
            return [SessionInfo(*row) for row in db.execute(query, given)]

        return await self._do(read)

    async def drop_session(self, session_id: str) -> bool:
        """See `SessionStore.drop_session`."""

        def drop(db: sqlite3.Connection) -> bool:
            there = _info(db, session_id, self._clock()) is not None
            _forget(db, [session_id])
            return there

        return await self._do(drop)

    async def expire_sessions(self, limit: int = 1000) -> list[str]:
        """See `SessionStore.expire_sessions`."""

        def expire(db: sqlite3.Connection) -> list[str]:
            query = "SELECT session_id FROM sessions WHERE expires <= ? ORDER BY expires LIMIT ?"
            gone = [session_id for (session_id,) in db.execute(query, (self._clock(), limit))]
            _forget(db, gone)
            return gone

        return await self._do(expire)


def _commit(
    db: sqlite3.Connection, lease: SessionLease, changes: Changes, seconds: float, now: float
) -> SessionInfo:
    session_id = lease.session_id
    row = db.execute(
        f"UPDATE sessions SET version = version + 1, lease_until = :until, {_USED} "  # noqa: S608 - columns
        f"WHERE session_id = :id AND epoch = :epoch AND owner IS NOT NULL AND {_ALIVE} RETURNING {_INFO}",
        {"until": now + seconds, "used": now, "id": session_id, "epoch": lease.epoch, "now": now},
    ).fetchone()
    if row is None:
        if _info(db, session_id, now) is None:
            raise session_not_found(session_id)
        raise session_moved(session_id)
    info, size = SessionInfo(*row), 0
    for key in {*changes.entries, *changes.expected}:
        query = "SELECT version, length(value) FROM session_entries WHERE session_id = ? AND key = ?"
        version, length = db.execute(query, (session_id, key)).fetchone() or (0, 0)
        wanted = changes.expected.get(key, version)
        if version != wanted:
            raise state_conflict(session_id, key, wanted, version)
        if key in changes.entries:
            value = changes.entries[key]
            size += (0 if value is None else len(value)) - length
            _write(db, session_id, key, info.version, value)
    turns = info.turns + len(changes.turns)
    if changes.turns:
        rows = [(session_id, number, value) for number, value in enumerate(changes.turns, info.turns + 1)]
        db.executemany("INSERT INTO session_turns VALUES (?, ?, ?)", rows)
        size += sum(map(len, changes.turns))
    if changes.forget_to:
        query = "DELETE FROM session_turns WHERE session_id = ? AND number <= ? RETURNING length(value)"
        size -= sum(length for (length,) in db.execute(query, (session_id, changes.forget_to)))
    if size or turns != info.turns:
        info = info._replace(turns=turns, size=info.size + size)
        query = "UPDATE sessions SET turns = ?, size = ? WHERE session_id = ?"
        db.execute(query, (info.turns, info.size, session_id))
    return info


def _write(db: sqlite3.Connection, session_id: str, key: str, version: int, value: bytes | None) -> None:
    if value is None:
        db.execute("DELETE FROM session_entries WHERE session_id = ? AND key = ?", (session_id, key))
    else:
        db.execute(
            "INSERT INTO session_entries VALUES (?, ?, ?, ?) "
            "ON CONFLICT (session_id, key) DO UPDATE SET version = excluded.version, value = excluded.value",
            (session_id, key, version, value),
        )


def _check_quota(
    db: sqlite3.Connection, session_id: str, quota: str, name: str, most: int | None, now: float
) -> None:
    if most is None:
        return
    query = f"SELECT COUNT(*) FROM sessions WHERE {quota} = :name AND {_ALIVE}"  # noqa: S608 - pool or user
    (count,) = db.execute(query, {"name": name, "now": now}).fetchone()
    if count >= most:
        raise quota_exceeded(session_id, quota, name, most)


def _info(db: sqlite3.Connection, session_id: str, now: float) -> SessionInfo | None:
    query = f"SELECT {_INFO} FROM sessions WHERE session_id = :id AND {_ALIVE}"  # noqa: S608 - columns
    row = db.execute(query, {"id": session_id, "now": now}).fetchone()
    return None if row is None else SessionInfo(*row)


def _entries(db: sqlite3.Connection, session_id: str) -> dict[str, Entry]:
    query = "SELECT key, version, value FROM session_entries WHERE session_id = ? ORDER BY key"
    return {key: Entry(version, value) for key, version, value in db.execute(query, (session_id,))}


def _turns(db: sqlite3.Connection, session_id: str) -> list[Turn]:
    query = "SELECT number, value FROM session_turns WHERE session_id = ? ORDER BY number"
    return [Turn(*row) for row in db.execute(query, (session_id,))]


def _forget(db: sqlite3.Connection, session_ids: Sequence[str]) -> None:
    rows: list[Any] = [(session_id,) for session_id in session_ids]
    for table in _TABLES:
        db.executemany(f"DELETE FROM {table} WHERE session_id = ?", rows)  # noqa: S608 - names of tables
