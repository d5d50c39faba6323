"""`Memory`: runs and sessions in this process, for tests and for what need not outlive it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from dspex.stores._memory_sessions import MemorySessions
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

__all__ = ["Memory"]

MAX_BYTES: Final = 64 * 1024 * 1024


class Memory(MemorySessions):
    """A `RunStore` and a `SessionStore` in memory. What it keeps ends with the process.

    Args:
        max_bytes: How large a value may be.
        clock: Gives the seconds since 1970 that leases and ends go by.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._max = max_bytes
        self._clock = clock
        self._runs: dict[str, RunInfo] = {}
        self._steps: dict[str, dict[str, StepRow]] = {}

    async def create_run(
        self, run_id: str, *, pipeline: str, fingerprint: bytes, inputs: bytes, owner: str, lease: float
    ) -> Lease:
        """See `RunStore.create_run`."""
        check_size(inputs, f"the inputs of run {run_id}", self._max)
        if run_id in self._runs:
            raise exists(run_id)
        now = self._clock()
        until = now + lease
        self._runs[run_id] = RunInfo(
            run_id, pipeline, "running", fingerprint, inputs, None, now, now, self._epoch(), 0, owner, until
        )
        self._steps[run_id] = {}
        return Lease(run_id, self._epochs, until)

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
        info = self._runs.get(run_id)
        if info is None:
            raise not_found(run_id)
        now = self._clock()
        if info.owner is not None and info.lease_until > now and take_over not in (True, info.owner):
            raise busy(run_id, info.owner, info.lease_until - now)
        if info.status != "done" and max_resumes is not None and info.resumes >= max_resumes:
            self._runs[run_id] = info._replace(status="failed", owner=None, epoch=self._epoch(), updated=now)
            raise too_many_resumes(run_id, info.resumes)
        until, done = now + lease, info.status == "done"
        info = info._replace(
            epoch=self._epoch(),
            resumes=info.resumes + (not done),
            status="done" if done else "running",
            owner=owner,
            lease_until=until,
            updated=now,
        )
        self._runs[run_id] = info
        return info, Lease(run_id, info.epoch, until)

    async def renew_lease(self, lease: Lease, seconds: float) -> Lease:
        """See `RunStore.renew_lease`."""
        info = self._owned(lease)
        until = self._clock() + seconds
        self._runs[lease.run_id] = info._replace(lease_until=until)
        return lease._replace(until=until)

    async def record_steps(self, lease: Lease, rows: Sequence[StepRow]) -> None:
        """See `RunStore.record_steps`."""
        for row in rows:
            check_size(row.outcome, f"what {row.path} gave", self._max)
        self._owned(lease)
        now, kept = self._clock(), self._steps[lease.run_id]
        for row in rows:
            there = kept.get(row.path)
            if there is None or there.digest != row.digest:
                kept[row.path] = row._replace(at=now)

    async def steps(self, run_id: str) -> list[StepRow]:
        """See `RunStore.steps`."""
        return list(self._steps.get(run_id, {}).values())

    async def forget_steps(self, lease: Lease, paths: Sequence[str]) -> int:
        """See `RunStore.forget_steps`."""
        self._owned(lease)
        kept = self._steps[lease.run_id]
        return sum(kept.pop(path, None) is not None for path in paths)

    async def update_run(self, lease: Lease, *, fingerprint: bytes) -> None:
        """See `RunStore.update_run`."""
        self._runs[lease.run_id] = self._owned(lease)._replace(fingerprint=fingerprint)

    async def end_run(self, lease: Lease, status: RunStatus, outcome: bytes | None = None) -> None:
        """See `RunStore.end_run`."""
        check_size(outcome, f"what run {lease.run_id} came to", self._max)
        self._runs[lease.run_id] = self._owned(lease)._replace(
            status=status, outcome=outcome, owner=None, updated=self._clock()
        )

    async def release_run(self, lease: Lease) -> None:
        """See `RunStore.release_run`."""
        info = self._runs.get(lease.run_id)
        if info is not None and info.epoch == lease.epoch:
            self._runs[lease.run_id] = info._replace(owner=None)

    async def run(self, run_id: str) -> RunInfo | None:
        """See `RunStore.run`."""
        return self._runs.get(run_id)

    async def runs(
        self, *, pipeline: str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """See `RunStore.runs`."""
        found = [
            info
            for info in reversed(self._runs.values())
            if pipeline in (None, info.pipeline) and status in (None, info.status)
        ]
        return found[:limit]

    async def drop_run(self, run_id: str) -> bool:
        """See `RunStore.drop_run`."""
        self._steps.pop(run_id, None)
        return self._runs.pop(run_id, None) is not None

    async def prune_runs(self, older_than: float, statuses: Sequence[RunStatus] = ENDED) -> int:
        """See `RunStore.prune_runs`."""
        now = self._clock()
        before = now - older_than
        old = [
            each.run_id
            for each in self._runs.values()
            if each.status in statuses
            and each.updated < before
            and (each.owner is None or each.lease_until < now)
        ]
        for run_id in old:
            await self.drop_run(run_id)
        return len(old)

    async def close(self) -> None:
        """See `RunStore.close`: its runs stay."""

    def _owned(self, lease: Lease) -> RunInfo:
        info = self._runs.get(lease.run_id)
        if info is None:
            raise not_found(lease.run_id)
        if info.epoch != lease.epoch or info.owner is None:
            raise lost(lease.run_id)
        return info

    def __repr__(self) -> str:
        return f"Memory({len(self._runs)} runs, {len(self._sessions)} sessions)"
