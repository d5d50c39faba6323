"""Tolerant parsing inside a value that pydantic refuses: texts are coerced where they nearly fit their type.

The core parses tolerantly (`rust/core/src/response/near`). It asks here about the inside of a value, because
only pydantic knows which places it refused, and about the types that only Python knows.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from dspex._core import bare_texts, near_text
from dspex._engine.replies import loads, read_value
from dspex._engine.type_adapters import adapter_of

if TYPE_CHECKING:
    from dspex._core import Dialect

__all__ = ["AmbiguousError", "choices", "mended", "type_of_items"]


class AmbiguousError(ValueError):
    """A text that could be read in two ways."""


def mended(
    value: Any, annotation: Any, dialect: Dialect, refusal: ValueError
) -> tuple[Any, list[str]] | None:
    """The value with all that pydantic refused inside it converted, and the codes of what was done.

    Args:
        value: A text, or a value read from JSON.
        annotation: The type that it was read as.
        dialect: Whose reading comes first.
        refusal: Why it is no value of the type as it stands.

    Returns:
        None if it was not pydantic that refused it, or if what it names is not all that is wrong.

    Raises:
        AmbiguousError: If something inside could be read in two ways.
    """
    if not isinstance(refusal, ValidationError):
        return None
    codes: list[str] = []
    if isinstance(value, str):
        value, code = loads(value)
        if code == "cut-off":
            return None  # its last item may be half of another
        if code is not None:
            codes.append(code)
    if not isinstance(value, (list, dict)):
        return None
    places: set[tuple[str, ...]] = set()
    for error in refusal.errors(include_url=False, include_input=False, include_context=False):
        place = tuple(map(str, error["loc"]))
        places.update(place[:length] for length in range(len(place) + 1))
    try:
        value = _Coercer(places, codes).coerce(value, annotation, ())
        return read_value(value, annotation, dialect)[0], codes
    except AmbiguousError:
        raise
    except (ValueError, TypeError, RecursionError):  # keys need not be hashable once they are coerced
        return None


@dataclasses.dataclass
class _Coercer:
    """Converts the texts where pydantic named a place, or one inside, and keeps the codes of what it did."""

    places: set[tuple[str, ...]]
    codes: list[str]

    def coerce(self, value: Any, annotation: Any, place: tuple[str, ...]) -> Any:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self.coerce(value, args[0], place)
        if origin in (Union, types.UnionType):
            some = [arg for arg in args if arg is not type(None)]
            return self.coerce(value, some[0], place) if len(some) == 1 else value
        if isinstance(value, list) and isinstance(origin, type) and issubclass(origin, Collection):
            kinds = args if origin is tuple and args[-1:] != (...,) else args[:1] * len(value)
            kinds = (*kinds, *[Any] * (len(value) - len(kinds)))
            return [
                self.coerce(item, kind, (*place, str(at)))
                for at, (item, kind) in enumerate(zip(value, kinds, strict=False))
            ]
        if isinstance(value, dict):
            if isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
                keys = [self.coerce(key, args[0], (*place, str(key), "[key]")) for key in value]
                if len({adapter_of(args[0]).validate_python(key) for key in keys}) < len(keys):
                    raise AmbiguousError("two of its keys are one")
                values = [self.coerce(item, args[1], (*place, str(key))) for key, item in value.items()]
                return dict(zip(keys, values, strict=True))
            parts = _parts(annotation)
            return {
                key: self.coerce(item, parts.get(key, Any), (*place, str(key))) for key, item in value.items()
            }
        return self._leaf(value, annotation, place)

    def _leaf(self, value: Any, annotation: Any, place: tuple[str, ...]) -> Any:
        if not isinstance(value, str) or place not in self.places:
            return value
        for candidate in bare_texts(value):
            try:
                adapter_of(annotation).validate_python(candidate)
            except ValidationError:
                continue
            self._did("decoration")
            return candidate
        found = near_text(value, _wanted(annotation))
        if found is None:
            return value
        code, value = found
        self._did(code)
        return value

    def _did(self, code: str) -> None:
        if code not in self.codes:
            self.codes.append(code)


def _parts(annotation: Any) -> dict[str, Any]:
    """The types of what a model, a dataclass or a typed dict has, by the names they have in a reply."""
    if is_typeddict(annotation) or dataclasses.is_dataclass(annotation):
        return typing.get_type_hints(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {field.alias or name: field.annotation for name, field in fields}
    return {}


# --- types -------------------------------------------------------------------------------------------------


_Choices = tuple[list[Any], list[tuple[str, int]]]
"""The values that a text may name, and their names, each with the place of its value."""


def choices(annotation: Any) -> _Choices | None:
    """The choices that a `Literal` or an enum consists of; None for any other type."""
    found = _wanted(annotation)
    return found if isinstance(found, tuple) else None


def type_of_items(annotation: Any, depth: int) -> Any:
    """The type of the items of a list, which may be optional, or of the lists in it."""
    for _ in range(depth):
        annotation = get_args(_only(annotation))[0]
    return annotation


def _wanted(annotation: Any) -> _Choices | type | None:
    """What a text may be in other words: a choice, a boolean or a number."""
    annotation = _only(annotation)
    if get_origin(annotation) is Literal:
        args = list(get_args(annotation))
        return args, [(str(arg), at) for at, arg in enumerate(args)]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        # One member's value may be another's name, but for the case. Some members only have names.
        members = [*{id(m): m for m in [*annotation, *annotation.__members__.values()]}.values()]
        places = {id(member): at for at, member in enumerate(members)}
        names = [(str(member.value), places[id(member)]) for member in annotation]
        return members, names + [(name, places[id(m)]) for name, m in annotation.__members__.items()]
    return annotation if annotation in (bool, int, float) else None


def _only(annotation: Any) -> Any:
    """The one type of a union that is not None; None for a union of several; any other type as it is."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    some = [arg for arg in get_args(annotation) if arg is not type(None)]
    return _only(some[0]) if len(some) == 1 else None
