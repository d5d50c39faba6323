"""A row of a batch whose pipeline is a plain chain of modules: the batch begins, asks and finishes its calls.

::

    begun: the first module's call --ask--> answered --finish--> GOES_ON: the next one's is begun
                 ^                                                  |
                 +--------------------------------------------------+     at last the `RunResult`

So the prompts and replies of several rows are laid out and read one after the other, as those of one
predictor are (see `dspex/modules/_batch_run.py`), and no row has coroutines of its own. What such a run
gives, and what its errors say, is what `_run.py` makes of the same chain: a test holds the two side by side.

A pipeline has such rows where all its nodes are modules of dspex's own, one after the other, without
modifiers, and its runs have no options and no store, and do not go on after a failure.

A step's seconds are from its beginning to its end, and so have the wait for others of its group in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from dspex.modules._row_call import GOES_ON, RowCall, begin_of
from dspex.pipelines._plan import Block, Leaf, Node
from dspex.pipelines._result import RunResult, Status
from dspex.pipelines._run import Run, add_usage, ended_by, fields_of, outputs_of, slots_of, take_inputs

if TYPE_CHECKING:
    from dspex.pipelines._pipeline import Pipeline
    from dspex.router._backstop import Watch

__all__ = ["Row", "Stage", "stages_of"]


class Stage(NamedTuple):
    """One node of the chain.

    Attributes:
        path: Its path.
        does: What it calls.
        begin: How that call is begun; None where it can only be awaited whole.
        takes: The names of its inputs, and where each of them is.
        node: The node, where a part of a value is an input; else None.
        gives: What it gives, by its own names, and the slots where that goes.
    """

    path: str
    does: Leaf
    begin: Callable[[dict[str, Any]], RowCall | None] | None
    takes: tuple[tuple[str, int], ...]
    node: Node | None
    gives: tuple[tuple[str, int], ...]

    def inputs(self, slots: list[Any]) -> dict[str, Any]:
        """Its inputs. A row has them all: those before it are there, and have given what they give."""
        if self.node is not None:
            return take_inputs(self.node, slots, self.path)
        return {name: slots[slot] for name, slot in self.takes}


def stages_of(block: Block) -> tuple[Stage, ...]:
    """The stages of a chain of modules; none where the block is something else."""
    if not block.is_chain:
        return ()
    stages = []
    for node in block.nodes:
        does = node.does
        if not isinstance(does, Leaf) or does.face.how != "module" or node.modifiers is not None:
            return ()
        takes = tuple((name, slot) for name, slot, _ in node.takes)
        of_parts = node if any(parts for _, _, parts in node.takes) else None
        stages.append(Stage(node.name, does, begin_of(does.target), takes, of_parts, node.gives))
    return tuple(stages) if any(stage.begin for stage in stages) else ()


class Ended(Sequence[tuple[str, Status, float]]):
    """The steps of a row that have ended, which few ask for.

    Args:
        stages: The row's chain.
        ends: When the first step began, and when each has ended.
    """

    __slots__ = ("_ends", "_stages")

    def __init__(self, stages: tuple[Stage, ...], ends: list[float]) -> None:
        self._stages = stages
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[str, Status, float]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, Status, float]]: ...

    def __getitem__(self, index: int | slice) -> Any:
        return [*self][index]

    def __reduce__(self) -> Any:  # of the steps alone: a copy of a result has no module in it
        return list, ([*self],)

    def __iter__(self) -> Iterator[tuple[str, Status, float]]:
        for stage, begun, end in zip(self._stages, self._ends, self._ends[1:], strict=False):
            yield stage.path, "ok", end - begun


class Row:
    """One run of a chain of modules, as the row of a batch; see the top of this file.

    Args:
        pipeline: Whose.
        stages: Its chain.
        run_id: The run's name.
        inputs: Its inputs.

    Raises:
        Exception: With which its first step has failed.
    """

    __slots__ = (
        "_call",
        "_ends",
        "_outcome",
        "_pipeline",
        "_run_id",
        "_slots",
        "_stage",
        "_stages",
        "_usage",
    )

    def __init__(
        self, pipeline: Pipeline, stages: tuple[Stage, ...], run_id: str, inputs: dict[str, Any]
    ) -> None:
        self._pipeline = pipeline
        self._stages = stages
        self._run_id = run_id
        self._slots = slots_of(pipeline.plan.block, inputs)
        self._usage: dict[str, Any] = {}
        self._ends = [perf_counter()]  # of the steps that have ended, after the beginning of the first
        self._begin(stages[0])

    def _begin(self, stage: Stage) -> None:
        self._stage = stage
        try:
            self._call = None if stage.begin is None else stage.begin(stage.inputs(self._slots))
        except BaseException as error:
            self._failed(error)
            raise

    def watched(self, earlier: Watch | None = None) -> Watch | None:
        """See `RowCall`: what is awaited whole has a watch of its own."""
        return earlier if self._call is None else self._call.watched(earlier)

    async def ask(self, watch: Watch | None = None) -> None:
        """Wait for the answer of the step's module."""
        try:
            if self._call is not None:
                await self._call.ask(watch)
            else:
                target: Any = self._stage.does.target
                self._outcome = await target.acall(**self._stage.inputs(self._slots))
        except BaseException as error:
            self._failed(error)
            raise

    def finish(self) -> Any:
        """Put what the module gave into its slots, and begin the next step, or give the run's result."""
        stage, stages, slots, ends = self._stage, self._stages, self._slots, self._ends
        try:
            outcome = self._outcome if self._call is None else self._call.finish()
            add_usage(self._usage, outcome)
            does = stage.does
            given = {does.value: outcome} if does.value is not None else fields_of(does, outcome, stage.path)
            for name, slot in stage.gives:
                slots[slot] = given[name]
        except BaseException as error:
            self._failed(error)
            raise
        ends.append(perf_counter())
        if len(ends) <= len(stages):
            self._begin(stages[len(ends) - 1])
            return GOES_ON
        steps = Ended(stages, ends)
        self._pipeline.has_run(steps)
        outputs = outputs_of(self._pipeline.plan.block, slots)
        return RunResult.of_run(outputs, self._run_id, self._usage, steps, {}, ends[-1] - ends[0])

    def abandon(self) -> None:
        """Give the row up."""
        if self._call is not None:
            self._call.abandon()
        self._failed(None)

    def _failed(self, error: BaseException | None) -> None:
        path, run = self._stage.path, Run(self._run_id)
        run.steps = [*Ended(self._stages, self._ends)]
        status: Status = "cancelled"
        if isinstance(error, Exception):
            run.failures[path] = error
            status = ended_by(error)
        run.failed(path, status, perf_counter() - self._ends[-1], error)
        self._pipeline.has_failed(run, error)
