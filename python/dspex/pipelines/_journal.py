"""Durable runs: one row for every finished step, and one owner for every run.

::

    begin      create_run ---> lease (epoch 1)
    a step     found? its row is there, with the digest of the same inputs: what it gave comes from there
               else it runs, and its row is written before anybody sees what it gave (durability="sync"),
               soon after ("async"), or when the run ends or fails ("exit")
    the end    end_run: done, or failed; a run that is cancelled is given up, and is there to be resumed
    resume     claim_run: a new epoch, or `RunBusy` while another's lease lasts; then as above

A finished step never runs again; the one in flight when the process died may, and its key (`ctx.key`: run and
path) lets it be idempotent. Conditions and the functions that join branches have rows too, so a run goes the
way that it went. Nothing else is kept: joins are made anew from rows, and there is no snapshot of the whole.

Every write says the lease's epoch, and the store refuses one that is not the run's newest. The lease is
renewed while the run goes on; an owner that has lost it stops.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from dspex import wire
from dspex.errors import LeaseLost, PipelineChanged, PipelineError, StoreError, did_you_mean
from dspex.pipelines._fingerprints import digest_of, dumped, fingerprint_of
from dspex.pipelines._paths import blocks_at, nodes_at, static
from dspex.pipelines._plan import Block, Choice, Inner, Node, Plan, Rounds
from dspex.pipelines._run_options import Durability
from dspex.stores import StepRow

if TYPE_CHECKING:
    from dspex.stores import Lease, RunStore

__all__ = ["StoredJournal", "check_unchanged", "rows_from"]

_AHEAD: Final = 1_000
"""Rows that may wait to be written with `durability="async"`; then the run waits."""


class StoredJournal:
    """The rows of one run in a store; see `dspex.pipelines._run.Journal`.

    Args:
        store: Where they are.
        lease: The right to write them.
        rows: Those that are there.
        durability: When a row is written.
    """

    def __init__(
        self, store: RunStore, lease: Lease, rows: Iterable[StepRow], durability: Durability
    ) -> None:
        self._store = store
        self.lease = lease
        self._rows = {row.path: row for row in rows}
        self._durability = durability
        self._waiting: list[StepRow] = []
        self._room = asyncio.Semaphore(_AHEAD)
        self._writing: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._failed: Exception | None = None
        self._fingerprints: dict[Node, bytes] = {}
        self.lost: LeaseLost | None = None

    def found(self, path: str, node: Node | None, inputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """See `Journal`. A row of other inputs is none: what is before it has given something else since."""
        row = self._rows.get(path)
        if row is None or row.digest != digest_of(inputs, path):
            return None
        outputs: Mapping[str, Any] = wire.loads(row.outcome)
        return outputs

    async def keep(
        self,
        path: str,
        node: Node | None,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """See `Journal`.

        Raises:
            WireError: If a value cannot be written (`not-encodable`).
            StoreError: If the row cannot.
        """
        row = StepRow(
            path=path,
            status="ok",
            digest=digest_of(inputs, path),
            fingerprint=b"" if node is None else self._fingerprint(node),
            outcome=dumped(outputs, path, "gives"),
            seconds=seconds,
        )
        if self._durability == "sync":
            await self._store.record_steps(self.lease, [row])
        elif self._durability == "async":
            await self._later(row)
        else:
            self._waiting.append(row)
        self._rows[path] = row

    def _fingerprint(self, node: Node) -> bytes:
        found = self._fingerprints.get(node)
        if found is None:
            found = self._fingerprints[node] = fingerprint_of(node).encode()
        return found

    async def _later(self, row: StepRow) -> None:
        if self._failed is not None:
            raise self._failed
        await self._room.acquire()
        self._waiting.append(row)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._waiting:
            rows, self._waiting = self._waiting, []
            try:
                await self._store.record_steps(self.lease, rows)
            except Exception as error:  # noqa: BLE001 - the run's next step raises it
                self._failed = error
                return
            finally:
                for _ in rows:
                    self._room.release()

    async def flush(self) -> None:
        """Write what waits.

        Raises:
            StoreError: If it cannot be written.
        """
        if self._writing is not None:
            await self._writing
        if self._failed is not None:
            raise self._failed
        rows, self._waiting = self._waiting, []
        if rows:
            await self._store.record_steps(self.lease, rows)

    # -- the lease ----------------------------------------------------------------------------------

    def hold(self, seconds: float) -> None:
        """Renew the lease from now on; when it is lost, cancel the task that runs this."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a run has one
        self._renewing = asyncio.create_task(self._renew(seconds, task))

    async def _renew(self, seconds: float, task: asyncio.Task[Any]) -> None:
        while True:
            await asyncio.sleep(seconds / 3)
            try:
                self.lease = await self._store.renew_lease(self.lease, seconds)
            except LeaseLost as error:
                self.lost = error
                task.cancel()
                return
            except StoreError:
                continue  # the next write says it, if it stays so

    async def let_go(self) -> None:
        """Renew it no longer."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])


# -- plans that have changed ------------------------------------------------------------------------


def check_unchanged(before: bytes, now: Mapping[str, str], run_id: str, allowed: Iterable[str] = ()) -> None:
    """Refuse to resume a run by a pipeline that is another.

    Args:
        before: The fingerprints that the run began with, as JSON.
        now: Those of the pipeline.
        run_id: The run.
        allowed: Paths of steps that may differ, as they are run again anyway.

    Raises:
        PipelineChanged: With the difference both ways.
    """
    then: dict[str, str] = json.loads(before)
    free = set(allowed)
    added = sorted(path for path in now if path not in then and path not in free)
    removed = sorted(path for path in then if path not in now and path not in free)
    changed = sorted(path for path in now if then.get(path, now[path]) != now[path] and path not in free)
    if not (added or removed or changed):
        return
    parts = [
        f"{what}: {', '.join(paths)}"
        for what, paths in (("added", added), ("removed", removed), ("changed", changed))
        if paths
    ]
    raise PipelineChanged(
        f"the pipeline is not the one that began run {run_id}; {'; '.join(parts)}",
        hint="resume it with the pipeline as it was; or, if the change is meant, "
        "resume(run_id, from_step=...) with the first step that is another",
        added=added,
        removed=removed,
        changed=changed,
    )


def rows_from(plan: Plan, from_step: str) -> frozenset[str]:
    """The paths, with `[]` for numbers, of a step, all in it, and all that wait for it.

    Raises:
        PipelineError: If there is no such step (`no-such-step`).
    """
    wanted = static(from_step)
    found: set[str] = set()
    if not _from(plan.block, "", wanted, found):
        there = [path for _, path in nodes_at(plan.block)]
        raise PipelineError(
            f"the pipeline has no step {from_step!r}",
            code="no-such-step",
            hint=f"{did_you_mean(wanted, there)}there are: {', '.join(there)}",
            step=from_step,
        )
    return frozenset(found)


def _from(block: Block, prefix: str, wanted: str, found: set[str]) -> bool:
    """Collect the step and what waits for it, in the block that has it and in those around."""
    for number, node in enumerate(block.nodes):
        path = prefix + node.name
        if path == wanted or _stands_in(node, prefix, wanted):
            _add(node, path, found)
        elif any(_from(inside, where, wanted, found) for inside, where in blocks_at(node, path)):
            if isinstance(node.does, Rounds):
                # The next round takes what this one gives: from a step on, a loop is run anew.
                _add(node, path, found)
                found.discard(path)
            elif isinstance(node.does, Inner) and node.does.reduce is not None:
                found.add(f"{path}/reduce")
        else:
            continue
        waiting = {number}
        for later in range(number + 1, len(block.nodes)):
            if block.nodes[later].after & waiting:
                waiting.add(later)
                _add(block.nodes[later], prefix + block.nodes[later].name, found)
        return True
    return False


def _stands_in(node: Node, prefix: str, wanted: str) -> bool:
    """Whether the step is one that stands in for the node, or in one: then the node is run again."""
    stand_ins = () if node.modifiers is None else node.modifiers.fallback
    paths = (path for each in stand_ins for _, path in nodes_at(Block(nodes=(each,)), prefix))
    return wanted in paths


def _add(node: Node, path: str, found: set[str]) -> None:
    """Collect a step and all in it, conditions and reductions too."""
    found.add(path)
    does = node.does
    if isinstance(does, Choice):
        found.add(f"{path}/condition")
    elif isinstance(does, Rounds):
        found.add(f"{path}[]/until")
    elif isinstance(does, Inner) and does.reduce is not None:
        found.add(f"{path}/reduce")
    for block, prefix in blocks_at(node, path):
        for each in block.nodes:
            _add(each, prefix + each.name, found)
    if node.modifiers is not None:
        before = path.removesuffix(node.name)
        for each in node.modifiers.fallback:
            _add(each, before + each.name, found)
