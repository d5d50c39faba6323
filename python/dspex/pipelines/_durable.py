"""A run that is kept in a store: begun, resumed, ended; see `_journal.py` for its rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from dspex import wire
from dspex.errors import ConfigError, InputError, RunBusy, StoreError
from dspex.pipelines._fingerprints import dumped
from dspex.pipelines._journal import StoredJournal, check_unchanged, rows_from
from dspex.pipelines._paths import static
from dspex.pipelines._result import RunResult
from dspex.pipelines._run import Run, Teller
from dspex.pipelines._run_options import RunOptions
from dspex.stores import Lease, RunInfo, RunStatus, RunStore
from dspex.stores._owner import is_gone, owner_here

if TYPE_CHECKING:
    from dspex.pipelines._pipeline import Pipeline

__all__ = ["LEASE_SECONDS", "begin", "resume"]

LEASE_SECONDS: Final = 30.0
"""How long an owner that is gone keeps a run from owners elsewhere."""


async def begin(
    pipeline: Pipeline, run_id: str, inputs: dict[str, Any], options: RunOptions, teller: Teller | None
) -> RunResult:
    """Begin a run, or, where `options.resumes` says so, go on with the one of that name."""
    store = _store_of(pipeline, options)
    given = dumped(inputs, pipeline.name, "is given")
    if options.resumes and (info := await store.run(run_id)) is not None:
        if info.inputs != given:
            raise InputError(
                f"{run_id} was begun with other inputs",
                code="other-inputs",
                hint="give the batch the rows that it was begun with, in their order, or another run_id",
            )
        return await resume(pipeline, run_id, options)
    lease = await store.create_run(
        run_id,
        pipeline=pipeline.name,
        fingerprint=_written(pipeline.fingerprints),
        inputs=given,
        owner=owner_here(),
        lease=options.lease or LEASE_SECONDS,
    )
    journal = StoredJournal(store, lease, (), options.durability)
    return await _go(pipeline, run_id, inputs, options, journal, teller)


async def resume(
    pipeline: Pipeline,
    run_id: str,
    options: RunOptions,
    *,
    from_step: str | None = None,
    max_resumes: int | None = 10,
    take_over: bool = False,
) -> RunResult:
    """Go on with a run; see `Pipeline.aresume`."""
    store = _store_of(pipeline, options)
    again = frozenset[str]() if from_step is None else rows_from(pipeline.plan, from_step)
    info = await store.run(run_id)
    if info is not None:  # else the store says so when it is claimed
        check_unchanged(info.fingerprint, pipeline.fingerprints, run_id, again)
        if info.status == "done" and from_step is None and info.outcome is not None:
            return RunResult.of_run(wire.loads(info.outcome), run_id, {}, (), {})
    info, lease = await _claimed(store, run_id, options.lease or LEASE_SECONDS, max_resumes, take_over)
    try:
        rows = await store.steps(run_id)
        if from_step is not None:
            gone = {row.path for row in rows if _is_run_again(row.path, from_step, again)}
            await store.forget_steps(lease, sorted(gone))
            await store.update_run(lease, fingerprint=_written(pipeline.fingerprints))
            rows = [row for row in rows if row.path not in gone]
    except BaseException:
        await store.release_run(lease)
        raise
    journal = StoredJournal(store, lease, rows, options.durability)
    return await _go(pipeline, run_id, wire.loads(info.inputs), options, journal, None)


async def _claimed(
    store: RunStore, run_id: str, seconds: float, max_resumes: int | None, take_over: bool
) -> tuple[RunInfo, Lease]:
    """Become the owner; at once where the one before is known to be gone."""
    owner = owner_here()
    try:
        return await store.claim_run(
            run_id, owner=owner, lease=seconds, max_resumes=max_resumes, take_over=take_over
        )
    except RunBusy as error:
        if not is_gone(error.owner):
            raise
        gone = error.owner
    return await store.claim_run(run_id, owner=owner, lease=seconds, max_resumes=max_resumes, take_over=gone)


async def _go(
    pipeline: Pipeline,
    run_id: str,
    inputs: Mapping[str, Any],
    options: RunOptions,
    journal: StoredJournal,
    teller: Teller | None,
) -> RunResult:
    store = _store_of(pipeline, options)
    run = Run(run_id, continues=options.on_error == "continue", journal=journal, teller=teller)
    journal.hold(options.lease or LEASE_SECONDS)
    try:
        try:
            result = await pipeline.go(run, inputs)
        finally:
            await journal.let_go()  # before the run is given up: a renewal after that would find it lost
        await journal.flush()
        status: RunStatus = "failed" if run.failures else "done"
        await store.end_run(journal.lease, status, dumped(dict(result), pipeline.name, "gives"))
        return result
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if journal.lost is not None and task is not None and task.uncancel() == 0:
            raise journal.lost from None
        await _give_up(store, journal, None)
        raise
    except Exception as error:
        await _give_up(store, journal, error)
        raise


async def _give_up(store: RunStore, journal: StoredJournal, error: Exception | None) -> None:
    """Write what waits, and give the run up; what goes wrong with that is a note to the error before."""
    try:
        await journal.flush()
        if error is not None:
            await store.end_run(journal.lease, "failed")
    except StoreError as second:
        if error is not None and not isinstance(error, StoreError):
            error.add_note(f"and the run could not be written: {second.message}")
    with suppress(StoreError):
        await store.release_run(journal.lease)


def _store_of(pipeline: Pipeline, options: RunOptions) -> RunStore:
    if options.store is None:
        raise ConfigError(
            f"{pipeline.name} has no store to resume a run from",
            code="no-store",
            hint="write dspex.pipeline(..., store=dspex.stores.SQLite(path)), or resume(..., store=...)",
        )
    return options.store


def _written(fingerprints: Mapping[str, str]) -> bytes:
    return json.dumps(dict(fingerprints), sort_keys=True).encode()


def _is_run_again(path: str, from_step: str, again: frozenset[str]) -> bool:
    """Whether a row is of a step that is run again."""
    plain = static(path)
    if plain not in again:
        return False
    # `map[3]/answer` means that item alone; what waits for the step is the same for all.
    return plain != static(from_step) or path == from_step or from_step == plain
