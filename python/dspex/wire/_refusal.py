"""The error for a value that cannot cross: which one it is, where, and what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from dspex.errors import WireError

__all__ = ["UNREADABLE", "not_encodable", "why_not"]

UNREADABLE: Final = (
    ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError,
    BufferError, ImportError, OSError,
)  # fmt: skip
"""What reading a hostile body raises. A class that the allow-list names may raise anything else."""

_DEEPEST: Final = 32
"""Levels that are looked into: deeper ones make no readable place."""


def not_encodable(value: Any, error: Exception, encode: Callable[[Any], object]) -> WireError:
    """The error for `value`, which a codec could not say.

    Args:
        value: The value as a whole.
        error: What the codec raised.
        encode: Raises for what cannot be said, so that the culprit can be looked for.
    """
    place, culprit = _culprit(value, _can(encode), "$", 0)
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return WireError(
        f"{place}: {name}: this value cannot cross: {error}",
        code="not-encodable",
        hint="send plain values, or the types that docs/wire.md lists; allow a class of yours by its module, "
        "as in PoolSpec(classes=['my_app.models'])",
        place=place,
    )


def why_not(value: Any) -> str:
    """Why no codec has a word for it."""
    kind = type(value)
    if (
        dataclasses.is_dataclass(kind)
        or hasattr(kind, "__pydantic_core_schema__")
        or hasattr(kind, "__members__")
    ):
        path = f"{kind.__module__}:{kind.__qualname__}"
        return f"the class {path} is not allowed, or cannot be imported by that name"
    return "no plain value stands for it"


def _can(encode: Callable[[Any], object]) -> Callable[[Any], bool]:
    def can(value: Any) -> bool:
        try:
            encode(value)
        except Exception:  # noqa: BLE001 - a mapping of the caller's may raise whatever it likes
            return False
        return True

    return can


def _culprit(value: Any, can: Callable[[Any], bool], place: str, depth: int) -> tuple[str, Any]:
    if depth == _DEEPEST:
        return place, value
    try:
        items = _items(value, place)
    except Exception:  # noqa: BLE001 - it is the one, then
        return place, value
    for where, item in items:
        if not can(item):
            return _culprit(item, can, where, depth + 1)
    return place, value


def _items(value: Any, place: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        pairs = [(f"{place}.{key}", item) for key, item in value.items()]
        return [*pairs, *((f"the key {key!r} of {place}", key) for key in value)]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"{place}[{index}]", item) for index, item in enumerate(value)]
    if dataclasses.is_dataclass(value):
        return [(f"{place}.{part.name}", getattr(value, part.name)) for part in dataclasses.fields(value)]
    if hasattr(type(value), "model_fields"):
        return [(f"{place}.{name}", item) for name, item in vars(value).items()]
    return []
