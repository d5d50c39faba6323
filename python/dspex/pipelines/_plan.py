"""`Plan`: a pipeline as it is run. Immutable, and the same for every run.

::

    Plan
    └── Block                    nodes, and a row of slots that their values are in
        ├── Node  does: Leaf     a module or a function
        ├── Node  does: Inner    a block of its own: a chain with options, a pipeline, branches side by side
        ├── Node  does: Choice   one of two blocks
        ├── Node  does: Each     a block for every item
        └── Node  does: Rounds   a block again and again

Every value has a slot of its own, also where a later step gives a field of the same name, so a step that
runs beside others reads what its author meant. A block sees the fields of the one around it only as its
inputs: so any block can be run with a mapping and gives a mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from dspex.pipelines._conditions import Condition
from dspex.pipelines._faces import Face, Takes
from dspex.router import Retry

__all__ = [
    "ITEMS",
    "Block",
    "Choice",
    "Does",
    "Each",
    "Inner",
    "Leaf",
    "Modifiers",
    "Node",
    "Pack",
    "Plan",
    "Rounds",
    "Take",
]


class Take(NamedTuple):
    """One input of a node.

    Attributes:
        name: What the node calls it.
        slot: Where the value is.
        parts: The fields to go down to, where it is a part of a record.
    """

    name: str
    slot: int
    parts: tuple[str, ...] = ()


class Pack(NamedTuple):
    """An output of a block that is a record: its fields and their slots."""

    fields: tuple[tuple[str, int], ...]


class Leaf(NamedTuple):
    """A module or a function.

    Attributes:
        target: What is called.
        face: What it takes and gives.
        value: The name of its one value; None where it gives fields.
        fields: The fields that it gives, by its own names.
    """

    target: Callable[..., Any]
    face: Face
    value: str | None
    fields: tuple[str, ...]


class Inner(NamedTuple):
    """A block, and what makes one outcome of its own.

    Attributes:
        block: The block.
        kind: What its author wrote.
        reduce: A function of its outputs, as a node that gives `value`; None for none.
        spread: Whether the function takes the values one after the other, without names.
    """

    block: Block
    kind: Literal["chain", "parallel", "pipeline"]
    reduce: Leaf | None = None
    spread: bool = False


class Choice(NamedTuple):
    """One of two blocks.

    Attributes:
        condition: Which.
        asks: The fields that it is asked with.
        then: Where it holds.
        otherwise: Where it does not; None for nothing.
        passed: Fields that one of them does not give, which then stay as they were.
    """

    condition: Condition
    asks: tuple[str, ...]
    then: Block
    otherwise: Block | None
    passed: tuple[str, ...]


ITEMS: Final = "<items>"
"""What an `Each` calls the list that it goes over: no field can have the name."""


class Each(NamedTuple):
    """A block for every item of a list."""

    block: Block
    item: str
    concurrency: int


class Rounds(NamedTuple):
    """A block again and again.

    Attributes:
        block: The block.
        until: What ends it.
        asks: The fields that it is asked with.
        at_most: How many rounds there are, at most.
        carried: Fields that a round takes from the one before.
    """

    block: Block
    until: Condition
    asks: tuple[str, ...]
    at_most: int
    carried: tuple[str, ...]


Does = Leaf | Inner | Choice | Each | Rounds


class Modifiers(NamedTuple):
    """What wraps a node, in this order from outside in."""

    cache: Any
    fallback: tuple[Node, ...]
    retry: Retry | None
    timeout: float | None


@dataclass(slots=True, eq=False, weakref_slot=True)
class Node:
    """One step in its block.

    Attributes:
        name: Its name, which is its path within the block.
        does: What it does.
        takes: Its inputs.
        gives: What it gives, by its own names, and the slots where that goes.
        after: The numbers of the nodes that have to have ended before.
        followers: The numbers of those that wait for this one.
        modifiers: What wraps it; None for nothing.
        waits_for_all: Whether it may have effects, so that it runs when all before it have ended.
        path: Its path in the plan, with `[]` in the place of numbers.
    """

    name: str
    does: Does
    takes: tuple[Take, ...]
    gives: tuple[tuple[str, int], ...]
    after: frozenset[int] = frozenset()
    followers: tuple[int, ...] = ()
    modifiers: Modifiers | None = None
    waits_for_all: bool = False
    path: str = ""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Block:
    """Nodes, and how values go between them.

    Attributes:
        nodes: In the order in which they were written.
        size: How many slots there are.
        inputs: The names of its inputs, and their slots.
        outputs: The names of its outputs, and where they are.
        is_chain: Whether each node waits for the one before it.
        first: The numbers of the nodes that wait for nothing.
    """

    nodes: tuple[Node, ...] = ()
    size: int = 0
    inputs: tuple[tuple[str, int], ...] = ()
    outputs: tuple[tuple[str, int | Pack], ...] = ()
    is_chain: bool = True
    first: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A compiled pipeline.

    Attributes:
        block: What runs.
        inputs: What it takes.
        outputs: What it gives, with types.
        warnings: What looked wrong, and is no error.
    """

    block: Block
    inputs: Mapping[str, Takes]
    outputs: Mapping[str, Any]
    warnings: tuple[str, ...] = field(default=())

    def nodes(self) -> Iterator[Node]:
        """All nodes, outer ones before those inside them, fallbacks after what they stand in for."""
        yield from nodes_of(self.block)


def nodes_of(block: Block) -> Iterator[Node]:
    """All nodes of a block; see `Plan.nodes`."""
    for node in block.nodes:
        yield from _nodes(node)


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for inside in blocks_in(node):
        yield from nodes_of(inside)
    if node.modifiers is not None:
        for stand_in in node.modifiers.fallback:
            yield from _nodes(stand_in)


def blocks_in(node: Node) -> tuple[Block, ...]:
    """The blocks that a node runs."""
    does = node.does
    if isinstance(does, Choice):
        return (does.then,) if does.otherwise is None else (does.then, does.otherwise)
    if isinstance(does, Leaf):
        return ()
    return (does.block,)
