"""`RunStore`: what a store of runs does, and the values that go in and out.

A run has one owner at a time: whoever has the `Lease` with its newest epoch. Every write says its lease, and
the store compares the epoch in the same transaction, so an owner that was away while another took over
writes nothing. Epochs are whole numbers that only grow; no clock but the store's is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

from dspex.errors import LeaseLost, RunBusy, RunExists, RunNotFound, StoreError, TooManyResumes

__all__ = [
    "ENDED",
    "Lease",
    "RunInfo",
    "RunStatus",
    "RunStore",
    "StepRow",
    "busy",
    "check_size",
    "exists",
    "lost",
    "not_found",
    "too_many_resumes",
]

RunStatus = Literal["running", "done", "failed", "cancelled"]
"""How a run stands. One that failed, or was cancelled, can be resumed."""

ENDED: tuple[RunStatus, ...] = ("done", "failed", "cancelled")


class Lease(NamedTuple):
    """The right to write a run.

    Attributes:
        run_id: The run.
        epoch: Which owner of the run it is. A later one has a larger number, also if the run was dropped and
            another was begun of the name meanwhile.
        until: When it ends if it is not renewed, by the store's clock, in seconds since 1970.
    """

    run_id: str
    epoch: int
    until: float


class RunInfo(NamedTuple):
    """A run.

    Attributes:
        run_id: Its name.
        pipeline: The name of the pipeline that began it.
        status: How it stands.
        fingerprint: What the steps of that pipeline were, as its author wrote it.
        inputs: What it was given, as `dspex.wire.dumps` has it.
        outcome: What it came to; None while it has not.
        created: When it began, by the store's clock, in seconds since 1970.
        updated: When it was begun, or last resumed or ended.
        epoch: The number of its last owner; see `Lease`.
        resumes: How often it was resumed.
        owner: Who has it; None for nobody.
        lease_until: When the owner's lease ends.
    """

    run_id: str
    pipeline: str
    status: RunStatus
    fingerprint: bytes
    inputs: bytes
    outcome: bytes | None
    created: float
    updated: float
    epoch: int
    resumes: int
    owner: str | None
    lease_until: float


class StepRow(NamedTuple):
    """A finished step.

    Attributes:
        path: Where in the plan it is: `map[17]/answer`.
        status: How it ended.
        digest: The digest of its inputs.
        fingerprint: What the step was.
        outcome: What it gave.
        seconds: How long it took.
        at: When it was written, by the store's clock; the store sets it.
    """

    path: str
    status: str
    digest: bytes
    fingerprint: bytes
    outcome: bytes
    seconds: float
    at: float = 0.0


class RunStore(Protocol):
    """Keeps runs. Every method may raise a `StoreError` of the store's own, besides what it says.

    A write to a run that was dropped raises `RunNotFound`.

    A write whose caller is cancelled has happened or has not happened when the cancellation arrives: a store
    waits for the outcome first.
    """

    async def create_run(
        self, run_id: str, *, pipeline: str, fingerprint: bytes, inputs: bytes, owner: str, lease: float
    ) -> Lease:
        """Begin a run, with the caller as its owner for `lease` seconds.

        Raises:
            RunExists: If there is one of the name.
        """
        ...

    async def claim_run(
        self,
        run_id: str,
        *,
        owner: str,
        lease: float,
        max_resumes: int | None = None,
        take_over: bool | str = False,
    ) -> tuple[RunInfo, Lease]:
        """Become the owner of a run, in one step that two cannot do at once.

        Args:
            run_id: The run.
            owner: Who the caller is.
            lease: For how many seconds.
            max_resumes: How often a run may be resumed that is not done; beyond that it has failed for good.
            take_over: Whether to become it although another's lease lasts; or the one owner to take it over
                from, who is known to be gone.

        Raises:
            RunNotFound: If there is no such run.
            RunBusy: If another's lease lasts.
            TooManyResumes: If it has been resumed as often as it may be.
        """
        ...

    async def renew_lease(self, lease: Lease, seconds: float) -> Lease:
        """Keep the run for so many seconds from now.

        Raises:
            LeaseLost: If somebody else has become its owner.
        """
        ...

    async def record_steps(self, lease: Lease, rows: Sequence[StepRow]) -> None:
        """Write rows, all or none of them. A row that is there with the same digest stays as it is.

        Raises:
            LeaseLost: If somebody else has become its owner.
        """
        ...

    async def steps(self, run_id: str) -> list[StepRow]:
        """The rows of a run, in the order in which they were written."""
        ...

    async def forget_steps(self, lease: Lease, paths: Sequence[str]) -> int:
        """Forget rows; returns how many there were.

        Raises:
            LeaseLost: If somebody else has become its owner.
        """
        ...

    async def update_run(self, lease: Lease, *, fingerprint: bytes) -> None:
        """The steps of its pipeline are others from now on.

        Raises:
            LeaseLost: If somebody else has become its owner.
        """
        ...

    async def end_run(self, lease: Lease, status: RunStatus, outcome: bytes | None = None) -> None:
        """Say how a run ended, and give it up.

        Raises:
            LeaseLost: If somebody else has become its owner.
        """
        ...

    async def release_run(self, lease: Lease) -> None:
        """Give a run up that has not ended; of one that is another's by now, nothing."""
        ...

    async def run(self, run_id: str) -> RunInfo | None:
        """A run; None if there is no such."""
        ...

    async def runs(
        self, *, pipeline: str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """Runs, those that began last first."""
        ...

    async def drop_run(self, run_id: str) -> bool:
        """Forget a run and its rows, whoever owns it; returns whether there was one."""
        ...

    async def prune_runs(self, older_than: float, statuses: Sequence[RunStatus] = ENDED) -> int:
        """Forget runs that were last written before so many seconds; returns how many there were."""
        ...

    async def close(self) -> None:
        """Let go of what the store holds. It can be used again."""
        ...


# -- errors, in one wording -------------------------------------------------------------------------


def exists(run_id: str) -> RunExists:
    """The error for a name that is taken."""
    return RunExists(
        f"there is a run {run_id!r} already",
        hint="resume it, or give the new run another run_id",
        run_id=run_id,
    )


def not_found(run_id: str) -> RunNotFound:
    """The error for a run that is not there."""
    return RunNotFound(
        f"there is no run {run_id!r}",
        hint="look at store.runs(); ended runs are forgotten after a time",
        run_id=run_id,
    )


def busy(run_id: str, owner: str | None, seconds: float) -> RunBusy:
    """The error for a run that another has."""
    who = (owner or "another").partition(" ")[0]
    return RunBusy(
        f"run {run_id!r} is being run by {who}, whose lease lasts {seconds:.1f} s more",
        hint="wait for its end; or take_over=True if that process is gone",
        run_id=run_id,
        seconds=seconds,
        owner=owner or "",
    )


def lost(run_id: str) -> LeaseLost:
    """The error for an owner that is none any more."""
    return LeaseLost(
        f"run {run_id!r} has another owner by now",
        hint="nothing: that owner goes on with it",
        run_id=run_id,
    )


def too_many_resumes(run_id: str, resumes: int) -> TooManyResumes:
    """The error for a run that ends its process each time."""
    return TooManyResumes(
        f"run {run_id!r} has been resumed {resumes} times and has not come to an end",
        hint="find out what ends it, then resume(run_id, max_resumes=...) with more",
        run_id=run_id,
        resumes=resumes,
    )


def check_size(value: Any, what: str, most: int) -> None:
    """Refuse a value that is too large to keep.

    Raises:
        StoreError: If it is (`store-too-large`).
    """
    if value is not None and len(value) > most:
        raise StoreError(
            f"{what} is {len(value):,} bytes, and the store takes {most:,}",
            code="store-too-large",
            hint="keep the large part elsewhere and give its address, or give the store a larger max_bytes",
        )
