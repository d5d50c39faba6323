"""How deep a value nests that came from JSON."""

from __future__ import annotations

from typing import Any

__all__ = ["deeper"]


def deeper(value: Any, levels: int) -> bool:
    """Whether lists and dicts in a value stand more than this many levels inside one another."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(deeper(item, levels - 1) for item in value)
