"""A plan as a drawing in Mermaid's language (https://mermaid.js.org/syntax/flowchart.html).

Steps are boxes, what is inside a step is a frame, and an arrow says which field goes from where to where. It
is made here; nothing is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from dspex.pipelines._paths import blocks_at
from dspex.pipelines._plan import ITEMS, Block, Choice, Each, Inner, Leaf, Node, Plan, Rounds

__all__ = ["drawing"]


def drawing(plan: Plan) -> str:
    """The plan as a flowchart."""
    return "\n".join(["flowchart TD", *_Drawing().lines(plan)])


class _Drawing:
    def __init__(self) -> None:
        self._count = 0
        self._arrows: list[str] = []

    def lines(self, plan: Plan) -> Iterator[str]:
        """All lines but the first."""
        yield f"    inputs([{_quoted(', '.join(plan.inputs) or 'no inputs')}])"
        givers = {slot: ("inputs", name) for name, slot in plan.block.inputs}
        yield from self._block(plan.block, "", givers, 1)
        yield f"    outputs([{_quoted(', '.join(plan.outputs))}])"
        for name, where in plan.block.outputs:
            if isinstance(where, int):
                self._arrow(givers.get(where), "outputs", name)
        yield from dict.fromkeys(self._arrows)

    def _arrow(self, giver: tuple[str, str] | None, taker: str, name: str) -> None:
        if giver is not None:
            self._arrows.append(f"    {giver[0]} -->|{_quoted(name)}| {taker}")

    def _block(
        self, block: Block, prefix: str, givers: dict[int, tuple[str, str]], depth: int
    ) -> Iterator[str]:
        for node in block.nodes:
            yield from self._node(node, prefix + node.name, givers, depth)

    def _node(self, node: Node, path: str, givers: dict[int, tuple[str, str]], depth: int) -> Iterator[str]:
        self._count += 1
        name, margin = f"s{self._count}", "    " * depth
        for take in node.takes:
            label = take.name.replace(ITEMS, "each") if not take.parts else ".".join(take.parts)
            self._arrow(givers.get(take.slot), name, label)
        for field, slot in node.gives:
            givers[slot] = name, field
        if isinstance(node.does, Leaf):
            left, right = ("[[", "]]") if node.does.face.is_module else ("[", "]")
            yield f"{margin}{name}{left}{_quoted(_label(node))}{right}"
        else:
            yield f"{margin}subgraph {name} [{_quoted(_label(node))}]"
            # What comes from outside a frame is drawn to the frame alone.
            for block, where in blocks_at(node, path):
                if isinstance(node.does, Choice):
                    side = "then" if block is node.does.then else "otherwise"
                    yield f"{margin}    subgraph {name}{side} [{_quoted(side)}]"
                    yield from self._block(block, where, {}, depth + 2)
                    yield f"{margin}    end"
                else:
                    yield from self._block(block, where, {}, depth + 1)
            yield f"{margin}end"
        for stand_in in () if node.modifiers is None else node.modifiers.fallback:
            self._count += 1
            yield f"{margin}s{self._count}[{_quoted(_label(stand_in))}]"
            self._arrows.append(f"    {name} -.->|{_quoted('where it fails')}| s{self._count}")


def _label(node: Node) -> str:
    does = node.does
    what = ""
    if isinstance(does, Choice):
        what = does.condition.text
    elif isinstance(does, Each):
        what = f"each {does.item}, {does.concurrency} at once"
    elif isinstance(does, Rounds):
        what = f"until {does.until.text}, at most {does.at_most}"
    elif isinstance(does, Inner) and does.reduce is not None:
        what = f"reduced by {does.reduce.face.name}"
    elif isinstance(does, Leaf):
        what = does.face.name if does.face.name != node.name else ""
    return f"{node.name}: {what}" if what else node.name


def _quoted(text: str) -> str:
    """A label as Mermaid takes it: in quotes, with entities for what would end it."""
    entities = {character: f"#{ord(character)};" for character in '#"<>&'}
    return '"' + " ".join("".join(entities.get(each, each) for each in text).split()) + '"'
