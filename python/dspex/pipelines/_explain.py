"""`Explanation`: what a pipeline does when, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from dspex._timeouts import shown
from dspex.errors import ConfigError
from dspex.pipelines._paths import blocks_at
from dspex.pipelines._plan import ITEMS, Block, Choice, Each, Leaf, Node, Rounds
from dspex.pipelines._types import name_of

if TYPE_CHECKING:
    from dspex.pipelines._pipeline import Pipeline

__all__ = ["ExplainedStep", "Explanation", "explain"]

Format = Literal["plain", "tree"]


class ExplainedStep(NamedTuple):
    """One step.

    Attributes:
        path: Its path in the plan.
        what: What it is.
        takes: Its inputs, and where each comes from.
        gives: The fields that it gives.
        waits_for: The paths of the steps that have to have ended before.
        beside: The paths of steps that may run at the same time.
        why: Why it may run beside others, or why not.
        modifiers: What wraps it, from outside in.
        depth: How many steps it is in.
    """

    path: str
    what: str
    takes: Mapping[str, str]
    gives: Sequence[str]
    waits_for: Sequence[str]
    beside: Sequence[str]
    why: str
    modifiers: Sequence[str]
    depth: int


class Explanation:
    """What a pipeline does when; `print` it.

    Attributes:
        name: The pipeline's name.
        inputs: What it takes, with types.
        outputs: What it gives, with types.
        steps: Its steps, each before those inside it.
    """

    __slots__ = ("_format", "inputs", "name", "outputs", "steps")

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        steps: Sequence[ExplainedStep],
        format: Format,  # noqa: A002 - as in `Pipeline.explain`
    ) -> None:
        self.name, self.inputs, self.outputs, self.steps, self._format = name, inputs, outputs, steps, format

    def __str__(self) -> str:
        takes = ", ".join(f"{name}: {kind}" for name, kind in self.inputs.items())
        gives = ", ".join(f"{name}: {kind}" for name, kind in self.outputs.items())
        head = f"{self.name}: {takes or 'nothing'} -> {gives}"
        return "\n".join([head, *(self._tree() if self._format == "tree" else self._plain())])

    def _plain(self) -> list[str]:
        lines = []
        for step in self.steps:
            margin = "    " * step.depth
            lines.append(f"{margin}{step.path}: {step.what}")
            if step.takes:
                found = [f"{name} from {giver}" for name, giver in step.takes.items()]
                lines.append(f"{margin}    takes {', '.join(found)}")
            if step.gives:
                lines.append(f"{margin}    gives {', '.join(step.gives)}")
            if step.waits_for:
                lines.append(f"{margin}    waits for {', '.join(step.waits_for)}")
            beside = f"may run beside {', '.join(step.beside)}; " if step.beside else ""
            lines.append(f"{margin}    {beside}{step.why}")
            if step.modifiers:
                lines.append(f"{margin}    {', '.join(step.modifiers)}")
        return lines

    def _tree(self) -> list[str]:
        lines = []
        for number, step in enumerate(self.steps):
            later = [each.depth for each in self.steps[number + 1 :]]
            goes_on = _goes_on(later, step.depth)
            bars = ["|  " if _goes_on(later, depth) else "   " for depth in range(step.depth)]
            modifiers = f" ({', '.join(step.modifiers)})" if step.modifiers else ""
            takes, gives = ", ".join(step.takes), ", ".join(step.gives)
            name = step.path.rpartition("/")[2]
            twig = "|- " if goes_on else "`- "
            lines.append(f"{''.join(bars)}{twig}{name}: {step.what}: {takes} -> {gives}{modifiers}")
        return lines

    def __repr__(self) -> str:
        return f"Explanation({self.name!r}, {len(self.steps)} steps)"


def _goes_on(depths: Sequence[int], depth: int) -> bool:
    """Whether another step of this depth follows in the same step."""
    for each in depths:
        if each <= depth:
            return each == depth
    return False


def explain(pipeline: Pipeline, format: Format) -> Explanation:  # noqa: A002 - as in `Pipeline.explain`
    """Explain a pipeline.

    Raises:
        ConfigError: If there is no such format (`bad-format`).
    """
    if format not in ("plain", "tree"):
        raise ConfigError(
            f'format must be "plain" or "tree", not {shown(format)}',
            code="bad-format",
            hint='write explain(format="tree")',
        )
    plan = pipeline.plan
    steps: list[ExplainedStep] = []
    _explain(plan.block, "", dict.fromkeys((slot for _, slot in plan.block.inputs), "the inputs"), 0, steps)
    return Explanation(
        pipeline.name,
        {name: name_of(takes.kind) for name, takes in plan.inputs.items()},
        {name: name_of(kind) for name, kind in plan.outputs.items()},
        steps,
        format,
    )


def _explain(
    block: Block, prefix: str, givers: dict[int, str], depth: int, steps: list[ExplainedStep]
) -> None:
    waits = _all_before(block)
    for number, node in enumerate(block.nodes):
        path = prefix + node.name
        beside = [
            prefix + other.name
            for place, other in enumerate(block.nodes)
            if place != number and place not in waits[number] and number not in waits[place]
        ]
        takes = {
            take.name.replace(ITEMS, "items"): ".".join((givers.get(take.slot, "outside"), *take.parts))
            for take in node.takes
        }
        steps.append(
            ExplainedStep(
                path=path,
                what=_what(node),
                takes=takes,
                gives=[name for name, _ in node.gives],
                waits_for=[prefix + block.nodes[place].name for place in sorted(node.after)],
                beside=beside,
                why=_why(node),
                modifiers=_modifiers(node),
                depth=depth,
            )
        )
        for _, slot in node.gives:
            givers[slot] = path
        for inside, where in blocks_at(node, path):
            _explain(
                inside, where, dict.fromkeys((slot for _, slot in inside.inputs), path), depth + 1, steps
            )


def _all_before(block: Block) -> list[set[int]]:
    """For every node the numbers of all that have ended when it starts."""
    found: list[set[int]] = []
    for node in block.nodes:
        found.append(set(node.after).union(*(found[place] for place in node.after)))
    return found


def _what(node: Node) -> str:
    does = node.does
    if isinstance(does, Leaf):
        ways = {
            "module": f"module {does.face.name}",
            "async": f"async function {does.face.name}",
            "thread": f"function {does.face.name}, in a thread",
            "inline": f"function {does.face.name}, on the event loop",
        }
        return ways[does.face.how]
    if isinstance(does, Choice):
        return f"branch where {does.condition.text}"
    if isinstance(does, Each):
        return f"map, each item as {does.item}, {does.concurrency} at once"
    if isinstance(does, Rounds):
        return f"loop until {does.until.text}, at most {does.at_most} times"
    reduced = "" if does.reduce is None else f", reduced by {does.reduce.face.name}"
    return f"{does.kind}{reduced}"


def _why(node: Node) -> str:
    if node.waits_for_all:
        return "it may have effects, so it runs alone; mark it pure=True if it has none"
    if isinstance(node.does, Leaf):
        return "it asks a model" if node.does.face.is_module else "it is marked pure"
    return "all in it ask models or are pure"


def _modifiers(node: Node) -> list[str]:
    found = []
    if (modifiers := node.modifiers) is not None:
        if modifiers.cache is not None:
            found.append("cache")
        if modifiers.fallback:
            found.append(f"fallback {', '.join(each.name for each in modifiers.fallback)}")
        if modifiers.retry is not None:
            found.append(f"retry, {modifiers.retry.attempts} attempts")
        if modifiers.timeout is not None:
            found.append(f"timeout {modifiers.timeout:g} s")
    return found
