"""The runs of `SQLite`.

A step's row is one statement, which says the epoch of its lease itself: an event loop writes it at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

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
from dspex.stores._sqlite_file import SMALL_BYTES, SQLiteFile
from dspex.stores._sqlite_schema import NEXT_EPOCH

__all__ = ["RETENTION_SECONDS", "SQLiteRuns"]

RETENTION_SECONDS: Final = 30 * 24 * 3600.0
PRUNE_EVERY: Final = 60.0

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


class SQLiteRuns(SQLiteFile):
    """What `SQLite` does as a `RunStore`."""

    _retention: float | None = RETENTION_SECONDS
    _pruned = 0.0

    async def create_run(
        self, run_id: str, *, pipeline: str, fingerprint: bytes, inputs: bytes, owner: str, lease: float
    ) -> Lease:
        """See `RunStore.create_run`."""
        check_size(inputs, f"the inputs of run {run_id}", self._max)

        def create(db: sqlite3.Connection) -> Lease:
            now = self._clock()
            until = now + lease
            (epoch,) = db.execute(NEXT_EPOCH).fetchone()
            try:
                db.execute(
                    "INSERT INTO runs VALUES (?, ?, 'running', ?, ?, ?, 0, ?, ?)",
                    (run_id, pipeline, now, now, epoch, owner, until),
                )
            except sqlite3.IntegrityError:
                raise exists(run_id) from None
            db.execute("INSERT INTO run_values VALUES (?, ?, ?, NULL)", (run_id, fingerprint, inputs))
            if self._retention is not None and now - self._pruned >= PRUNE_EVERY:
                self._pruned = now
                _prune(db, now, self._retention, ENDED, 1_000)
            return Lease(run_id, epoch, until)

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
            (epoch,) = db.execute(NEXT_EPOCH).fetchone()
            done = info.status == "done"
            if not done and max_resumes is not None and info.resumes >= max_resumes:
                db.execute(
                    "UPDATE runs SET status = 'failed', owner = NULL, epoch = ?, updated = ? "
                    "WHERE run_id = ?",
                    (epoch, now, run_id),
                )
                return too_many_resumes(run_id, info.resumes)  # not raised: that would undo it
            info = info._replace(
                epoch=epoch,
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
