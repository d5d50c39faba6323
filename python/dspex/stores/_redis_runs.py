"""`RedisRuns`: runs of pipelines on a Redis server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from dspex.stores._redis_scripts import RunScripts
from dspex.stores._redis_server import PAGE, RedisServer, name_of, pairs, take_over_of, text_of
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

__all__ = ["RedisRuns"]

PRUNE_EVERY: Final = 60.0


class RedisRuns(RedisServer):
    """A `RunStore` on a server."""

    _retention: float | None
    _pruned: float = 0.0

    async def create_run(
        self, run_id: str, *, pipeline: str, fingerprint: bytes, inputs: bytes, owner: str, lease: float
    ) -> Lease:
        """See `RunStore.create_run`."""
        check_size(inputs, f"the inputs of run {run_id}", self._max)
        if self._retention is not None and time.monotonic() - self._pruned >= PRUNE_EVERY:
            # Before, so that a run whose begin has failed is not there.
            self._pruned = time.monotonic()
            await self.prune_runs(self._retention)
        said = await self._ask(
            RunScripts.create, name_of(run_id), pipeline, fingerprint, inputs, owner, lease
        )
        if said[0] == b"exists":
            raise exists(run_id)
        return Lease(run_id, int(said[2]), float(said[1]))

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
        most = "" if max_resumes is None else max_resumes
        said = await self._ask(
            RunScripts.claim, name_of(run_id), owner, lease, most, *take_over_of(take_over)
        )
        if said[0] == b"busy":
            raise busy(run_id, text_of(said[1]), float(said[2]))
        if said[0] == b"resumes":
            raise too_many_resumes(run_id, int(said[1]))
        _check_run(said, run_id)
        info = _run(run_id, said[1])
        return info, Lease(run_id, info.epoch, info.lease_until)

    async def renew_lease(self, lease: Lease, seconds: float) -> Lease:
        """See `RunStore.renew_lease`."""
        said = await self._ask(RunScripts.renew, name_of(lease.run_id), lease.epoch, seconds)
        _check_run(said, lease.run_id)
        return lease._replace(until=float(said[1]))

    async def record_steps(self, lease: Lease, rows: Sequence[StepRow]) -> None:
        """See `RunStore.record_steps`."""
        for row in rows:
            check_size(row.outcome, f"what {row.path} gave", self._max)
        values = [value for row in rows for value in row[:-1]]
        _check_run(
            await self._ask(RunScripts.record, name_of(lease.run_id), lease.epoch, *values), lease.run_id
        )

    async def steps(self, run_id: str) -> list[StepRow]:
        """See `RunStore.steps`."""
        (_, found) = await self._ask(RunScripts.steps, name_of(run_id))
        rows = []
        for path, packed in pairs(found):
            status, digest, fingerprint, outcome, seconds, at = msgpack.unpackb(packed, raw=True)
            row = (text_of(path), text_of(status), digest, fingerprint, outcome, float(seconds), float(at))
            rows.append(StepRow(*row))
        return rows

    async def forget_steps(self, lease: Lease, paths: Sequence[str]) -> int:
        """See `RunStore.forget_steps`."""
        said = await self._ask(RunScripts.forget, name_of(lease.run_id), lease.epoch, *paths)
        _check_run(said, lease.run_id)
        return int(said[1])

    async def update_run(self, lease: Lease, *, fingerprint: bytes) -> None:
        """See `RunStore.update_run`."""
        said = await self._ask(RunScripts.update, name_of(lease.run_id), lease.epoch, fingerprint)
        _check_run(said, lease.run_id)

    async def end_run(self, lease: Lease, status: RunStatus, outcome: bytes | None = None) -> None:
        """See `RunStore.end_run`."""
        check_size(outcome, f"what run {lease.run_id} came to", self._max)
        there = (0, b"") if outcome is None else (1, outcome)
        said = await self._ask(RunScripts.end, name_of(lease.run_id), lease.epoch, status, *there)
        _check_run(said, lease.run_id)

    async def release_run(self, lease: Lease) -> None:
        """See `RunStore.release_run`."""
        await self._ask(RunScripts.release, name_of(lease.run_id), lease.epoch)

    async def run(self, run_id: str) -> RunInfo | None:
        """See `RunStore.run`."""
        (_, info) = await self._ask(RunScripts.read, name_of(run_id))
        return None if info[0] is None else _run(run_id, info)

    async def runs(
        self, *, pipeline: str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """See `RunStore.runs`."""
        found = await self._pages(RunScripts.page, (pipeline, status), limit)
        return [_run(text_of(info[11]), info[:11]) for info in found]

    async def drop_run(self, run_id: str) -> bool:
        """See `RunStore.drop_run`."""
        return bool((await self._ask(RunScripts.drop, name_of(run_id)))[1])

    async def prune_runs(self, older_than: float, statuses: Sequence[RunStatus] = ENDED) -> int:
        """See `RunStore.prune_runs`."""
        gone, kept = 0, 0
        while True:
            seen: int
            dropped: int
            (_, seen, dropped) = await self._ask(RunScripts.prune, older_than, kept, *statuses)
            gone, kept = gone + dropped, kept + seen - dropped
            if seen < PAGE:
                return gone


def _check_run(said: Sequence[Any], run_id: str) -> None:
    if said[0] == b"none":
        raise not_found(run_id)
    if said[0] == b"lost":
        raise lost(run_id)


def _run(run_id: str, values: Sequence[bytes]) -> RunInfo:
    (pipeline, status, fingerprint, inputs, outcome, created, updated, epoch, resumes, owner, until) = values
    return RunInfo(
        run_id,
        text_of(pipeline),
        text_of(status),  # type: ignore[arg-type]
        fingerprint,
        inputs,
        outcome,
        float(created),
        float(updated),
        int(epoch),
        int(resumes),
        None if owner is None else text_of(owner),
        float(until),
    )
