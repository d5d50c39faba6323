"""A run of a plan: steps start when what they wait for has ended, and end together.

::

    run_block     a row of slots; nodes in their order, or, where some wait for less, as they become ready
      run_node    reads its inputs from slots, runs, puts its outputs into slots, is told of once
        Leaf      calls the module or the function
        Inner, Choice, Each, Rounds    run blocks inside

Nothing here is made for a step that does not need it: a chain runs in one task, with one timer for the whole.
Where nodes run side by side, each that ends starts those that waited for it alone, in the same task if it is
one, so there is no barrier. A failing node cancels its siblings, and the block ends when they have; where
the run goes on after failures, what depended on one is skipped.

A journal keeps finished steps (see `_journal.py`); a teller hears of steps as they go (see `_stream.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol

from dspex._threads import in_thread
from dspex.errors import PipelineError, StoreError
from dspex.modules import _scope
from dspex.pipelines._conditions import Condition
from dspex.pipelines._faces import CONTEXT
from dspex.pipelines._plan import ITEMS, Block, Choice, Each, Inner, Leaf, Node, Pack, Rounds
from dspex.pipelines._result import Status, StepContext, StepRun
from dspex.pipelines._siblings import Siblings
from dspex.prediction import Prediction

__all__ = [
    "FAILED",
    "RUNNERS",
    "UNSET",
    "Journal",
    "Run",
    "Teller",
    "add_usage",
    "ended_by",
    "fields_of",
    "kept",
    "outputs_of",
    "run_block",
    "slots_of",
    "take_inputs",
]


class Journal(Protocol):
    """What keeps the finished steps of a run."""

    def found(self, path: str, node: Node | None, inputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What this step gave when it ended, in this run or the one before it; None if it has not."""
        ...

    async def keep(
        self,
        path: str,
        node: Node | None,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Keep what it gave. When this returns it is kept, as far as the run's durability says."""
        ...


class Teller(Protocol):
    """What hears of a run while it goes on."""

    async def started(self, path: str) -> None:
        """A step begins."""
        ...

    async def ended(self, step: StepRun, outputs: Mapping[str, Any]) -> None:
        """A step has ended well."""
        ...

    def failed(self, step: StepRun, error: BaseException | None) -> None:
        """A step has ended otherwise."""
        ...

    def listening(self, path: str, target: Any) -> Any:
        """Hears of what the module tells while it runs; see `dspex.modules`."""
        ...

    def restarts(self, path: str) -> bool:
        """Whether a step may be tried again: it has told nothing, or who listens hears that it restarts."""
        ...


class _Absent:
    """In the place of a value that is not there."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return f"<{self.why}>"


UNSET: Final = _Absent("not given")
FAILED: Final = _Absent("failed")
_WHOLE_NUMBERS: Final = {int}


class Run:
    """One run: what all its nodes share.

    Attributes:
        run_id: Its name, the same when it is resumed.
        continues: Whether it goes on after a failure.
        journal: Keeps finished steps; None for nothing.
        teller: Hears of steps; None for nobody.
        steps: Those that have ended, as `StepRun` has it.
        failures: What failed and was not made good, by path.
        usage: Tokens of all modules that said how many.
        begun: When it began, by `time.perf_counter`.
    """

    __slots__ = ("begun", "continues", "failures", "journal", "run_id", "steps", "teller", "usage")

    def __init__(
        self,
        run_id: str,
        *,
        continues: bool = False,
        journal: Journal | None = None,
        teller: Teller | None = None,
    ) -> None:
        self.run_id = run_id
        self.continues = continues
        self.journal = journal
        self.teller = teller
        self.steps: list[tuple[str, Status, float]] = []
        self.failures: dict[str, Exception] = {}
        self.usage: dict[str, Any] = {}
        self.begun = perf_counter()

    def failed(self, path: str, status: Status, seconds: float, error: BaseException | None = None) -> None:
        """A step has ended, and not well."""
        self.steps.append((path, status, seconds))
        if self.teller is not None:
            self.teller.failed(StepRun(path, status, seconds), error)

    def made_good(self, path: str) -> None:
        """What failed at this path, or inside it, is no failure of the run: something stood in for it."""
        if self.failures:
            for failed in [
                each for each in self.failures if each == path or each.startswith((f"{path}/", f"{path}["))
            ]:
                del self.failures[failed]


# -- blocks -----------------------------------------------------------------------------------------


async def run_block(run: Run, block: Block, inputs: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Run a block and give its outputs.

    Args:
        run: The run.
        block: The block.
        inputs: Values by name; one that may be missing may be missing here.
        prefix: What stands before the names of its nodes in their paths.
    """
    slots = slots_of(block, inputs)
    if block.is_chain:
        for node in block.nodes:
            await run_node(run, node, slots, prefix)
    else:
        await _as_ready(run, block, slots, prefix)
    return outputs_of(block, slots)


def slots_of(block: Block, inputs: Mapping[str, Any]) -> list[Any]:
    """The slots of a block that begins."""
    slots: list[Any] = [UNSET] * block.size
    for name, slot in block.inputs:
        slots[slot] = inputs.get(name, UNSET)
    return slots


def outputs_of(block: Block, slots: Sequence[Any]) -> dict[str, Any]:
    """The outputs of a block that has ended."""
    return {name: _output(slots, where) for name, where in block.outputs}


def _output(slots: Sequence[Any], where: int | Pack) -> Any:
    if type(where) is int:
        return slots[where]
    assert isinstance(where, Pack)  # noqa: S101 - there is nothing else
    record = {name: slots[slot] for name, slot in where.fields}
    return FAILED if any(type(value) is _Absent for value in record.values()) else record


async def _as_ready(run: Run, block: Block, slots: list[Any], prefix: str) -> None:
    nodes = block.nodes
    waits = [len(node.after) for node in nodes]

    async def follow(number: int) -> None:
        while True:
            node = nodes[number]
            await run_node(run, node, slots, prefix)
            number = -1
            for after in node.followers:
                waits[after] -= 1
                if not waits[after]:
                    if number < 0:
                        number = after
                    else:
                        siblings.start(follow(after))
            if number < 0:
                return

    siblings = Siblings()
    for number in block.first:
        node = nodes[number]
        siblings.start(follow(number) if node.followers else run_node(run, node, slots, prefix))
    await siblings.ended()


# -- nodes ------------------------------------------------------------------------------------------


async def run_node(run: Run, node: Node, slots: list[Any], prefix: str) -> None:
    """Run one node, from slots to slots."""
    path = prefix + node.name
    inputs: dict[str, Any] = {}
    start = perf_counter()
    status: Status = "ok"
    try:
        for name, slot, parts in node.takes:
            value = slots[slot]
            if type(value) is _Absent:
                if value is FAILED:
                    _give_up(run, node, slots, path, "skipped", 0.0)
                    return
            else:
                inputs[name] = _part(value, parts, path) if parts else value
        if run.teller is not None:
            await run.teller.started(path)
        if node.modifiers is not None:
            status, outputs = await _modified(run, node, inputs, slots, prefix, path)
        elif run.journal is not None:
            status, outputs = await kept(run, node, inputs, path, 1)
        else:
            outputs = await RUNNERS[type(node.does)](run, node.does, inputs, path, 1)
    except Exception as error:
        run.failures.setdefault(path, error)
        ended = ended_by(error)
        if not run.continues or isinstance(error, StoreError):
            run.failed(path, ended, perf_counter() - start, error)
            raise
        _give_up(run, node, slots, path, ended, perf_counter() - start, error)
        return
    except BaseException as error:
        run.failed(path, "cancelled", perf_counter() - start, error)
        raise
    for name, slot in node.gives:
        slots[slot] = value = outputs[name]
        if value is FAILED:
            status = "failed"
    run.steps.append((path, status, perf_counter() - start))
    if run.teller is not None:
        await run.teller.ended(StepRun(*run.steps[-1]), outputs)


def take_inputs(node: Node, slots: Sequence[Any], path: str) -> dict[str, Any]:
    """The inputs of a node, where nothing that it waits for has failed."""
    return {
        name: _part(slots[slot], parts, path)
        for name, slot, parts in node.takes
        if type(slots[slot]) is not _Absent
    }


def _give_up(
    run: Run,
    node: Node,
    slots: list[Any],
    path: str,
    status: Status,
    seconds: float,
    error: Exception | None = None,
) -> None:
    for _, slot in node.gives:
        slots[slot] = FAILED
    run.failed(path, status, seconds, error)


def ended_by(error: Exception) -> Status:
    """How a step has ended that raised this."""
    is_timeout = isinstance(error, TimeoutError) or getattr(error, "category", "") == "timeout"
    return "timed_out" if is_timeout else "failed"


def _part(value: Any, parts: Iterable[str], path: str) -> Any:
    for part in parts:
        try:
            value = value[part] if isinstance(value, Mapping) else getattr(value, part)
        except (KeyError, AttributeError):
            raise PipelineError(
                f"{path} takes {part!r} of a value that has no such field",
                code="step-outputs",
                hint="look at what the step before gave",
                step=path,
            ) from None
    return value


async def kept(
    run: Run, node: Node, inputs: Mapping[str, Any], path: str, attempt: int
) -> tuple[Status, Mapping[str, Any]]:
    """Run the node unless the journal has what it gave. Leaves have rows; what is around them has none."""
    does = node.does
    journal = run.journal
    if journal is None or not isinstance(does, Leaf):
        return "ok", await RUNNERS[type(does)](run, does, inputs, path, attempt)
    found = journal.found(path, node, inputs)
    if found is not None:
        return "resumed", found
    start = perf_counter()
    outputs = await _leaf(run, does, inputs, path, attempt)
    await journal.keep(path, node, inputs, outputs, perf_counter() - start)
    return "ok", outputs


# -- what nodes do ----------------------------------------------------------------------------------


async def _leaf(run: Run, does: Leaf, inputs: Mapping[str, Any], path: str, attempt: int) -> dict[str, Any]:
    target, face, value, _ = does
    if face.context:
        scope = _scope.current_scope()
        deadline = None if scope is None else scope.deadline
        inputs = {**inputs, CONTEXT: StepContext(run.run_id, path, attempt, deadline)}
    how = face.how
    if run.teller is not None and how != "module":
        outcome = await _told(run.teller, target, how, inputs, path)
    elif how == "async":
        outcome = await target(**inputs)
    elif how == "module":
        outcome = await _module(run, does, inputs, path)
    else:
        outcome = target(**inputs) if how == "inline" else await in_thread(partial(target, **inputs))
        if inspect.isawaitable(outcome):
            outcome = await outcome
    if value is not None:
        return {value: outcome}
    return fields_of(does, outcome, path) if does.fields else {}


async def _told(
    teller: Teller, target: Callable[..., Any], how: str, inputs: Mapping[str, Any], path: str
) -> Any:
    """Call a function of a run that is streamed: what modules tell that it calls is this step's."""
    with _scope.enter(listener=teller.listening(path, target)):
        outcome = await in_thread(partial(target, **inputs)) if how == "thread" else target(**inputs)
        return await outcome if inspect.isawaitable(outcome) else outcome


async def _module(run: Run, does: Leaf, inputs: Mapping[str, Any], path: str) -> Any:
    target: Any = does.target
    if run.teller is None:
        outcome = await target.acall(**inputs)
    else:
        with _scope.enter(listener=run.teller.listening(path, target)):
            outcome = await target.acall(**inputs)
    add_usage(run.usage, outcome)
    return outcome


def add_usage(total: dict[str, Any], outcome: Any) -> None:
    """Count the tokens that an outcome of a module has taken."""
    usage: Mapping[str, Any] | None = getattr(outcome, "usage", None)
    if not usage:
        return
    if not total and set(map(type, usage.values())) == _WHOLE_NUMBERS:  # as of most runs' first step
        total.update(usage)
        return
    for name, count in usage.items():
        if type(count) is int or isinstance(count, int | float):
            total[name] = total.get(name, 0) + count


def fields_of(does: Leaf, outcome: Any, path: str) -> dict[str, Any]:
    """The fields that a module or a function gives, out of what it returned.

    Raises:
        PipelineError: If it returned something else (`step-outputs`).
    """
    fields = does.fields
    try:
        if type(outcome) is Prediction and not does.face.asides:  # as most are; to ask what it is costs more
            given = outcome._fields
            return {name: given[name] for name in fields}
        if does.face.attributes and not isinstance(outcome, Mapping):
            return {name: getattr(outcome, name) for name in fields}
        if isinstance(outcome, Mapping):
            asides = does.face.asides
            return {name: outcome.get(name) if name in asides else outcome[name] for name in fields}
    except (KeyError, AttributeError):
        pass
    if len(fields) == 1 and does.face.is_module and not isinstance(outcome, Mapping):
        return {fields[0]: outcome}
    what = (
        f"a mapping of {', '.join(outcome)}"
        if isinstance(outcome, Mapping)
        else f"a {type(outcome).__name__}"
    )
    raise PipelineError(
        f"{path} gave {what}, and is to give {', '.join(fields)}",
        code="step-outputs",
        hint="return all of them, or change outputs=",
        step=path,
    )


async def _inner(run: Run, does: Inner, inputs: Mapping[str, Any], path: str, _: int) -> dict[str, Any]:
    outputs = await run_block(run, does.block, inputs, f"{path}/")
    if does.reduce is None:
        return outputs
    if any(value is FAILED for value in outputs.values()):
        return dict.fromkeys((does.reduce.value,) if does.reduce.value else does.reduce.fields, FAILED)
    where = f"{path}/reduce"
    journal = run.journal
    if journal is not None and (found := journal.found(where, None, outputs)) is not None:
        return dict(found)
    reduce, start = does.reduce, perf_counter()
    if does.spread:
        target = partial(reduce.target, *outputs.values())
        made = await _leaf(run, reduce._replace(target=target), {}, where, 1)
    else:
        names = reduce.face.inputs
        taken = outputs if reduce.face.open else {name: outputs[name] for name in names if name in outputs}
        made = await _leaf(run, reduce, taken, where, 1)
    if journal is not None:
        await journal.keep(where, None, outputs, made, perf_counter() - start)
    return made


async def _choice(run: Run, does: Choice, inputs: Mapping[str, Any], path: str, _: int) -> dict[str, Any]:
    holds = await _decided(run, does.condition, does.asks, inputs, f"{path}/condition")
    passed = {name: inputs[name] for name in does.passed if name in inputs}
    block = does.then if holds else does.otherwise
    if block is None:
        return _Open(passed)
    outputs = await run_block(run, block, inputs, f"{path}/{'then' if holds else 'otherwise'}/")
    return _Open({**passed, **outputs})


class _Open(dict[str, Any]):
    """Outputs of which some may be missing: the plan sees to it that nobody takes those."""

    def __missing__(self, name: str) -> Any:
        return UNSET


async def _decided(
    run: Run, condition: Condition, asks: Sequence[str], fields: Mapping[str, Any], path: str
) -> bool:
    """Whether a condition holds. A run that is resumed goes the way that it went."""
    asked = {name: fields[name] for name in asks if name in fields}
    journal = run.journal
    if journal is not None and (found := journal.found(path, None, asked)) is not None:
        return bool(found["holds"])
    start = perf_counter()
    holds = await condition.holds(asked)
    if journal is not None:
        await journal.keep(path, None, asked, {"holds": holds}, perf_counter() - start)
    return holds


async def _each(run: Run, does: Each, inputs: Mapping[str, Any], path: str, _: int) -> dict[str, Any]:
    others = dict(inputs)
    items = _items(others.pop(ITEMS), path)
    made: list[dict[str, Any]] = [{}] * len(items)
    numbers = iter(range(len(items)))

    async def work() -> None:
        for number in numbers:
            made[number] = await run_block(
                run, does.block, {**others, does.item: items[number]}, f"{path}[{number}]/"
            )

    at_once = min(does.concurrency, len(items))
    if at_once > 1:
        siblings = Siblings()
        for _ in range(at_once):
            siblings.start(work())
        await siblings.ended()
    else:
        await work()
    outputs: dict[str, Any] = {}
    for name, _where in does.block.outputs:
        values = [each[name] for each in made]
        outputs[name] = FAILED if any(value is FAILED for value in values) else values
    return outputs


def _items(value: Any, path: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise PipelineError(
            f"{path} goes over a list, and was given a {type(value).__name__}",
            code="step-inputs",
            hint="look at what the step before gave",
            step=path,
        )
    return list(value)


async def _rounds(run: Run, does: Rounds, inputs: Mapping[str, Any], path: str, _: int) -> dict[str, Any]:
    fields = dict(inputs)
    outputs: dict[str, Any] = {}
    for number in range(does.at_most):
        where = f"{path}[{number}]"
        outputs = await run_block(run, does.block, fields, f"{where}/")
        if any(outputs.get(name) is FAILED for name in (*does.asks, *does.carried)):
            break
        fields.update((name, outputs[name]) for name in does.carried)
        if await _decided(run, does.until, does.asks, {**fields, **outputs}, f"{where}/until"):
            break
    return outputs


_Runner = Callable[[Run, Any, Mapping[str, Any], str, int], Awaitable[Mapping[str, Any]]]

RUNNERS: Final[Mapping[type, _Runner]] = {
    Leaf: _leaf,
    Inner: _inner,
    Choice: _choice,
    Each: _each,
    Rounds: _rounds,
}
"""What runs what a node does."""


# -- modifiers --------------------------------------------------------------------------------------


async def _modified(
    run: Run, node: Node, inputs: Mapping[str, Any], slots: Sequence[Any], prefix: str, path: str
) -> tuple[Status, Mapping[str, Any]]:
    from dspex.pipelines._modifiers import modified  # most steps have none

    return await modified(run, node, inputs, slots, prefix, path)
