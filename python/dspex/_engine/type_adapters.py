"""What pydantic makes of a type, made once: DSPy makes it anew for every value, which is most of its cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from dspex._release import released

__all__ = ["Memo", "adapter_of", "element_schema_of", "validator_of"]

T = TypeVar("T")


class Memo(Generic[T]):
    """Remembers what `make` gives for an annotation.

    By identity: `Union[int, str]` equals `Union[str, int]`, and pydantic reads a text differently by each. An
    entry keeps its annotation alive, so that the id stays its own.
    """

    def __init__(self, make: Callable[[Any], T], size: int = 1024) -> None:
        self._make = make
        self._size = size
        self._known: dict[int, tuple[Any, T]] = {}

    def __call__(self, annotation: Any) -> T:
        known = self._known.get(id(annotation))
        if known is None:
            if len(self._known) >= self._size:
                self._known.clear()
            known = self._known[id(annotation)] = (annotation, self._make(annotation))
        return known[1]

    def cache_clear(self) -> None:
        """Forget everything."""
        self._known.clear()


adapter_of: Memo[TypeAdapter[Any]] = released(Memo(TypeAdapter))
"""The adapter of an annotation."""

validator_of: Memo[Callable[[Any], Any]] = released(Memo(lambda a: adapter_of(a).validator.validate_python))
"""What validates a value against an annotation, with none of the options that `TypeAdapter` looks at."""

element_schema_of: Memo[dict[str, Any]] = released(Memo(lambda a: adapter_of(a).json_schema(by_alias=False)))
"""The JSON schema of an annotation by the names of its fields, which are the tags in XML."""
