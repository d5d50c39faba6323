"""Values of a caller's own types on their way to a worker and back: plain data, by the types of a signature.

No class is named beside a value. What goes over the wire are dicts, lists and the value types that the wire
knows (`dspex.wire.codec`); the other side makes the value again by validating them against the type that its
own copy of the signature has for the field. A value that would not come out as it went in is refused where it
is sent.

Only the types themselves are named, once for a signature, by where they are imported from: the types that the
caller's own signature uses, never a name out of data.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple, get_args
from uuid import UUID

from dspex.errors import ConfigError, WireError
from dspex.signature import Signature

__all__ = ["Foreign", "foreign_of", "is_plain", "pack", "to_plain", "unpack"]

_LEAVES: Final = frozenset(
    {type(None), bool, int, float, str, bytes, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID}
)
"""What the wire carries as it is."""

_CONTAINERS: Final = (list, tuple, set, frozenset)

_KNOWN_ROOTS: Final = frozenset(
    {"builtins", "collections", "datetime", "decimal", "dspy", "enum", "fractions", "pathlib", "pydantic"}
    | {"types", "typing", "typing_extensions", "uuid"}
)
"""Modules whose types a signature's text names by itself."""


class Foreign(NamedTuple):
    """What a worker must be told of a signature, because its text does not say it.

    Attributes:
        paths: Where each of the caller's types is imported from, by its name in the signature's text.
        fields: The fields whose values the wire does not carry as they are, with their types.
    """

    paths: Mapping[str, str]
    fields: Mapping[str, Any]


@lru_cache(maxsize=1024)
def foreign_of(signature: Signature) -> Foreign:
    """What is foreign in a signature.

    Raises:
        ConfigError: If a type cannot be imported by a worker: it is local to a function, or in a script's
            `__main__`, or not where it says it is; or two types share a name.
    """
    paths: dict[str, str] = {}
    fields: dict[str, Any] = {}
    for name, field in signature.fields.items():
        for cls in _classes(field.annotation):
            if cls not in _LEAVES and cls not in (*_CONTAINERS, dict):
                fields[name] = field.annotation
            if cls.__module__.split(".")[0] in _KNOWN_ROOTS:
                continue
            path = _path(name, cls)
            if paths.setdefault(cls.__name__, path) != path:
                raise ConfigError(
                    f"two types of the signature are called {cls.__name__}: {paths[cls.__name__]} and {path}",
                    code="type-name",
                    hint="rename one of them; the text of a signature cannot tell them apart",
                )
    return Foreign(paths, fields)


def _classes(annotation: Any) -> Iterator[type]:
    """The classes in an annotation, those of a Literal's choices too."""
    if isinstance(annotation, enum.Enum):
        yield type(annotation)
        return
    args = get_args(annotation)
    if isinstance(annotation, type) and not args:
        yield annotation
    for arg in args:
        yield from _classes(arg)


def _path(field: str, cls: type) -> str:
    where = f"the type {cls.__qualname__} of `{field}`"
    if "<locals>" in cls.__qualname__:
        problem = "is local to a function"
    elif cls.__module__ == "__main__":
        problem = "is defined in the script that was started"
    else:
        found: Any = sys.modules.get(cls.__module__)
        for name in cls.__qualname__.split("."):
            found = getattr(found, name, None)
        if found is cls:
            return f"{cls.__module__}:{cls.__qualname__}"
        problem = f"is not what {cls.__module__} has under that name"
    raise ConfigError(
        f"{where} {problem}, so a worker cannot import it",
        code="type-not-importable",
        hint='define it at the top of a module that both can import, or call with route="native"',
    )


def is_plain(value: Any) -> bool:
    """Whether the wire carries a value as it is."""
    if type(value) in _LEAVES:
        return True
    if type(value) in _CONTAINERS:
        return all(map(is_plain, value))
    return type(value) is dict and all(is_plain(k) and is_plain(v) for k, v in value.items())


def to_plain(value: Any) -> Any:
    """The value as plain data: models and dataclasses as dicts of their fields, enums as their values."""
    if type(value) in _LEAVES:
        return value
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if type(value) in _CONTAINERS:
        return type(value)(map(to_plain, value))
    if type(value) is dict:
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    fields = getattr(type(value), "model_fields", None)
    if fields is None and dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
    if fields is not None:
        items = {name: to_plain(getattr(value, name)) for name in fields}
        return items | {
            name: to_plain(item) for name, item in (getattr(value, "model_extra", None) or {}).items()
        }
    from dspex.adapters.validation import adapter_of

    return adapter_of(type(value)).dump_python(value, mode="json")


def pack(
    values: Mapping[str, Any], types: Mapping[str, Any], *, checked: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """Values as plain data, and the names of those that must be made again from it.

    Args:
        values: Values by field; some of them may be plain already.
        types: The fields whose values may not be, with their types.
        checked: Whether to make sure that each comes out as it went in.

    Raises:
        WireError: If one does not (`not-encodable`).
    """
    packed, names = dict(values), []
    for name in types.keys() & values.keys():
        value = values[name]
        if is_plain(value):
            continue
        problem = None
        try:
            packed[name] = to_plain(value)
            if checked and not _same(unpack(packed[name], types[name]), value):
                problem = "it would come out as something else"
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            problem = str(error)
        if problem is not None:
            raise WireError(
                f"the value of `{name}`, a {type(value).__name__}, cannot cross to a worker: {problem}",
                code="not-encodable",
                hint='give the field the value\'s own type, or call with route="native"',
            )
        names.append(name)
    return packed, names


def unpack(plain: Any, annotation: Any) -> Any:
    """The value of a type, from plain data.

    Raises:
        ValueError: If it is none.
    """
    from dspex.adapters.validation import adapter_of

    return adapter_of(annotation).validate_python(plain, by_alias=True, by_name=True)


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and (a == b or repr(a) == repr(b))
