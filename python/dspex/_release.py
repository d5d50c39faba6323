"""Caches that hold the caller's classes, and when they let go of them.

What is cached for a signature refers to the classes in it. A class that keeps the signature, or a plan made
of it, would then never be collected, because the cache still held both. So such caches are emptied just
before the interpreter looks at all objects there are: a collection of the oldest generation, `gc.collect()`
included. A signature in use is held by whoever uses it; what is needed again is made again, which costs
little beside the collection itself.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

__all__ = ["before_full_collection", "released"]

_OLDEST = 2

_release: list[Callable[[], object]] = []


class _Cached(Protocol):
    def cache_clear(self) -> None: ...


_C = TypeVar("_C", bound=_Cached)


def before_full_collection(release: Callable[[], object]) -> None:
    """Call `release` before every collection of the oldest generation."""
    if not _release:
        gc.callbacks.append(_on_collection)
    _release.append(release)


def released(cached: _C) -> _C:
    """The cached function itself, which forgets all before every collection of the oldest generation."""
    before_full_collection(cached.cache_clear)
    return cached


def _on_collection(phase: str, info: dict[str, Any]) -> None:
    if phase == "start" and info["generation"] == _OLDEST:
        for release in _release:
            release()
