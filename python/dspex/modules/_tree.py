"""The predictors and modules inside a module, and their paths.

The paths are DSPy's (`primitives/base_module.py`), as they are the keys of the state that both save:
`draft`, `draft.predict`, `steps[0]`, `by_name['short']`. A predictor that is reached by two paths has the
first of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from dspex._composition import Composable

__all__ = [
    "ModuleNode",
    "PredictorNode",
    "RemoteNode",
    "predictors_of",
    "remotes_of",
    "replace_at",
    "sub_modules_of",
]


class ModuleNode(Composable):
    """What the walk takes for a module: `Module` derives from it."""

    _compiled = False
    """Whether it counts as optimised: as a part of another module it keeps its predictors to itself."""


class PredictorNode(ModuleNode):
    """What it takes for a predictor: `Predict` derives from it."""


class RemoteNode(ModuleNode):
    """What it takes for a module whose predictors are in a worker: `RemoteModule` derives from it."""


def predictors_of(module: ModuleNode, *, frozen: bool = False) -> list[tuple[str, Any]]:
    """The predictors in a module with their paths; of a predictor, itself as `"self"`.

    Args:
        module: The module.
        frozen: Whether those inside modules that count as optimised are among them.
    """
    return _found(module, PredictorNode, frozen=frozen)


def remotes_of(module: ModuleNode) -> list[tuple[str, Any]]:
    """The modules in a module that workers run, with their paths; of such a module, itself as `"self"`."""
    return _found(module, RemoteNode, frozen=True)


def _found(module: ModuleNode, kind: type[ModuleNode], *, frozen: bool) -> list[tuple[str, Any]]:
    seen: set[int] = set()
    found: list[tuple[str, Any]] = []

    def add(path: str, value: Any) -> None:
        if isinstance(value, kind):
            if id(value) not in seen:
                seen.add(id(value))
                found.append((path, value))
        elif isinstance(value, ModuleNode) and not isinstance(value, PredictorNode | RemoteNode):
            if id(value) in above or (value is not module and value._compiled and not frozen):
                return
            above.add(id(value))
            for name, part in _parts(value):
                add(f"{path}{name}" if path else name.removeprefix("."), part)
            above.discard(id(value))

    above: set[int] = set()
    add("self" if isinstance(module, kind) else "", module)
    return found


def sub_modules_of(
    module: ModuleNode, kind: type[Any] = ModuleNode, *, frozen: bool = True
) -> Iterator[tuple[str, Any]]:
    """The module as `"self"` and all that is inside it, level by level.

    Args:
        module: The module.
        kind: Of which type what is yielded is.
        frozen: Whether modules that count as optimised are looked into.
    """
    queue: deque[tuple[str, Any]] = deque([("self", module)])
    seen = {id(module)}
    while queue:
        path, value = queue.popleft()
        if isinstance(value, kind):
            yield path, value
        if isinstance(value, PredictorNode):
            continue
        if isinstance(value, ModuleNode) and value._compiled and not frozen:
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
            if id(part) not in seen and isinstance(part, (ModuleNode, list, tuple, dict, kind)):
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
