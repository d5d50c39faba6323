"""Values against types that only pydantic knows, and against constraints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from dspex.signature._fields import Details

__all__ = ["adapter"]


def adapter(annotation: Any, details: Details | None) -> Callable[[Any], list[tuple[str, str]] | None]:
    """A check of one type, with the constraints that belong to it.

    Returns:
        A function of a value: None if it fits, else a path within the value and a message for each problem.
    """
    constraints = () if details is None else details.constraints
    if details is not None and not constraints:
        return lambda _value: None
    validate = TypeAdapter(Annotated[annotation, *constraints] if constraints else annotation).validate_python

    def check(value: Any) -> list[tuple[str, str]] | None:
        try:
            validate(value)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            return [(_path(item["loc"]), item["msg"]) for item in found]
        return None

    return check


def _path(parts: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
