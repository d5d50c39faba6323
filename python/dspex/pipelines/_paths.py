"""The paths of steps: `evidence/docs`, `map[17]/answer`, `branch/then/mend`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dspex.pipelines._plan import Block, Choice, Inner, Leaf, Node

__all__ = ["blocks_at", "nodes_at", "static"]


def static(path: str) -> str:
    """A path with `[]` in the place of its numbers: that of the step in the plan."""
    return re.sub(r"\[\d+\]", "[]", path)


def blocks_at(node: Node, path: str) -> list[tuple[Block, str]]:
    """The blocks in a node whose path this is, and what stands before the names of their nodes."""
    does = node.does
    if isinstance(does, Leaf):
        return []
    if isinstance(does, Choice):
        sides = [(does.then, "then"), (does.otherwise, "otherwise")]
        return [(block, f"{path}/{name}/") for block, name in sides if block is not None]
    if isinstance(does, Inner):
        return [(does.block, f"{path}/")]
    return [(does.block, f"{path}[]/")]


def nodes_at(block: Block, prefix: str = "") -> Iterator[tuple[Node, str]]:
    """All nodes of a block with their paths, outer ones first; fallbacks after what they stand in for."""
    for node in block.nodes:
        yield from _nodes_at(node, prefix)


def _nodes_at(node: Node, prefix: str) -> Iterator[tuple[Node, str]]:
    path = prefix + node.name
    yield node, path
    for inside, where in blocks_at(node, path):
        yield from nodes_at(inside, where)
    if node.modifiers is not None:
        for stand_in in node.modifiers.fallback:
            yield from _nodes_at(stand_in, prefix)
