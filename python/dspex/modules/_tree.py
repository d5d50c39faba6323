"""The predictors and modules inside a module, and their paths.

The paths are DSPy's (`primitives/base_module.py`), as they are the keys of the state that both save:
`draft`, `draft.predict`, `steps[0]`, `by_name['short']`. A predictor that is reached by two paths has the
first of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

__all__ = ["ModuleNode", "PredictorNode", "predictors_of", "replace_at", "sub_modules_of"]


class ModuleNode:
    """What the walk takes for a module: `Module` derives from it."""


class PredictorNode(ModuleNode):
    """What it takes for a predictor: `Predict` derives from it."""


def predictors_of(module: ModuleNode) -> list[tuple[str, Any]]:
    """The predictors in a module with their paths; of a predictor, itself as `"self"`."""
    seen: set[int] = set()
    found: list[tuple[str, Any]] = []

    def add(path: str, value: Any) -> None:
        if isinstance(value, PredictorNode):
            if id(value) not in seen:
                seen.add(id(value))
                found.append((path, value))
        elif isinstance(value, ModuleNode):
            if id(value) in above:
                return
            above.add(id(value))
            for name, part in _parts(value):
                add(f"{path}{name}" if path else name.removeprefix("."), part)
            above.discard(id(value))

    above: set[int] = set()
    add("self" if isinstance(module, PredictorNode) else "", module)
    return found


def sub_modules_of(module: ModuleNode) -> Iterator[tuple[str, Any]]:
    """The module as `"self"` and all modules inside it, level by level."""
    queue: deque[tuple[str, Any]] = deque([("self", module)])
    seen = {id(module)}
    while queue:
        path, value = queue.popleft()
        if isinstance(value, ModuleNode):
            yield path, value
        if isinstance(value, PredictorNode):
            continue
        if isinstance(value, ModuleNode):
            parts = [(f".{name}", part) for name, part in vars(value).items()]
        elif isinstance(value, list | tuple):
            parts = [(f"[{place}]", part) for place, part in enumerate(value)]
        elif isinstance(value, dict):
            parts = [(f"[{key}]", part) for key, part in value.items()]
        else:
            continue
        for name, part in parts:
            if id(part) not in seen and (isinstance(part, ModuleNode | list | tuple | dict)):
                seen.add(id(part))
                queue.append((f"{path}{name}", part))


def replace_at(module: ModuleNode, old: Any, new: Any) -> None:
    """Put `new` wherever a module, or a list or dict of its, has `old`."""
    for _, part in sub_modules_of(module):
        for name, value in vars(part).items():
            if value is old:
                setattr(part, name, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]
            elif isinstance(value, tuple) and any(item is old for item in value):
                setattr(part, name, tuple(new if item is old else item for item in value))
            elif isinstance(value, dict):
                for key, item in value.items():
                    if item is old:
                        value[key] = new


def _parts(module: ModuleNode) -> Iterator[tuple[str, Any]]:
    """The attributes of a module, and the items of those that are lists or dicts, in their order."""
    for name, value in vars(module).items():
        if isinstance(value, list | tuple):
            yield from ((f".{name}[{place}]", item) for place, item in enumerate(value))
        elif isinstance(value, dict):
            yield from ((f".{name}['{key}']", item) for key, item in value.items())
        else:
            yield f".{name}", value
