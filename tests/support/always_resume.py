"""A way to run every pipeline of a test that rebuilds the run from its store after each finished step.

What the journal does not keep is then not there, and what is found by anything but its path and its inputs is
not found.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from dspex.errors import StoreError
from dspex.pipelines import Pipeline, RunResult
from dspex.stores import Lease, Memory, StepRow

__all__ = ["rebuild_after_each_step"]

MOST = 10_000


class Rebuilt(StoreError):  # noqa: N818 - what has happened
    """A step has been written, and the run is to be built anew."""


class RebuildingStore(Memory):
    """Ends the run after each row."""

    async def record_steps(self, lease: Lease, rows: Sequence[StepRow]) -> None:
        """See `RunStore.record_steps`."""
        await super().record_steps(lease, rows)
        raise Rebuilt("the row has been written")


def rebuild_after_each_step(monkeypatch: Any) -> None:
    """Let every run that is not kept elsewhere be rebuilt after each of its steps."""
    straight = Pipeline.aforward
    numbers = itertools.count()

    async def aforward(self: Pipeline, /, **inputs: Any) -> RunResult:
        if self._run_options.store is not None or self._teller() is not None:
            return await straight(self, **inputs)
        run_id = inputs.pop("run_id", None) or f"rebuilt-{next(numbers)}"
        twin = self.with_options(store=RebuildingStore(), run_id=run_id)
        try:
            return await straight(twin, **inputs)
        except Rebuilt:
            pass
        for _ in range(MOST):
            try:
                return await twin.aresume(run_id, max_resumes=None)
            except Rebuilt:
                continue
        raise AssertionError("the run does not come to an end")

    monkeypatch.setattr(Pipeline, "aforward", aforward)
