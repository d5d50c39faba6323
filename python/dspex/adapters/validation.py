"""pydantic's `TypeAdapter` of a type, made once: DSPy makes one per value, which is most of what it costs."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

__all__ = ["adapter_of"]

_MAX_ADAPTERS = 1024
_adapters: dict[int, tuple[Any, TypeAdapter[Any]]] = {}


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    """The adapter of an annotation."""
    # By identity: `Union[int, str]` equals `Union[str, int]`, and pydantic reads a text differently by each.
    # The entry keeps the annotation alive, so that its id stays its own.
    known = _adapters.get(id(annotation))
    if known is None:
        if len(_adapters) >= _MAX_ADAPTERS:
            _adapters.clear()
        known = _adapters[id(annotation)] = (annotation, TypeAdapter(annotation))
    return known[1]
