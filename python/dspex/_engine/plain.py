"""Values of a caller's own types on their way to a worker and back: plain data, by the types of a signature.

No class is named beside a value. What goes over the wire are dicts, lists and the value types that the wire
knows (`dspex.protocol.codec`); the other side makes the value again by validating them against the type that
its own copy of the signature has for the field. Whether a value comes out as it went in is seen where it is
sent; for one that would not, the prompt is laid out there.

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

from dspex._core import plain_fields
from dspex._release import released
from dspex.errors import ConfigError, WireError
from dspex.signature import Signature
from dspex.signature._names import subscripted

__all__ = ["Foreign", "Packed", "foreign_of", "not_encodable", "pack", "to_plain", "unpack"]

_LEAVES: Final = frozenset(
    {type(None), bool, int, float, str, bytes, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID}
)
"""What the wire carries as it is."""

_CONTAINERS: Final = (list, tuple, set, frozenset)

_ABSENT: Final = object()

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


@released
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
    """The classes in an annotation that a text can name, those of a Literal's choices too."""
    if isinstance(annotation, enum.Enum):
        yield type(annotation)
        return
    made = subscripted(annotation)
    args = get_args(annotation) if made is None else made[1]
    if made is not None:
        yield made[0]
    elif isinstance(annotation, type) and not args:
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


def _crosses(value: Any) -> bool:
    """Whether the wire carries a value as it is, and a prompt says the same of it there.

    The order of a set is each process's own.
    """
    kind = type(value)
    if kind in _LEAVES:
        return True
    if kind is dict:
        return _crosses(list(value)) and _crosses(list(value.values()))
    if kind in (list, tuple) or (kind in (set, frozenset) and len(value) < 2):
        return _LEAVES.issuperset(map(type, value)) or all(map(_crosses, value))
    return False


def to_plain(value: Any) -> Any:
    """The value as plain data: models and dataclasses as dicts of their fields, enums as their values.

    A model's fields that nobody set are left out where the model would fill them in alike.
    """
    kind = type(value)
    if kind in _LEAVES:
        return value
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if kind in _CONTAINERS:
        return kind(map(to_plain, value))
    if kind is dict:
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    fields = getattr(kind, "model_fields", None)
    if fields is not None:
        if getattr(kind, "__pydantic_root_model__", False):
            return to_plain(value.root)
        given = value.model_fields_set
        items = {
            name: to_plain(getattr(value, name))
            for name, info in fields.items()
            if name in given or not _is_default(getattr(value, name), info)
        }
        return items | {name: to_plain(item) for name, item in (value.model_extra or {}).items()}
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    from dspex._engine.type_adapters import adapter_of

    return adapter_of(kind).dump_python(value, mode="json")


def _is_default(value: Any, info: Any) -> bool:
    if getattr(info, "default_factory_takes_validated_data", False):
        return False
    return not info.is_required() and _same(info.get_default(call_default_factory=True), value)


class Packed(NamedTuple):
    """Values on their way to a worker.

    Attributes:
        values: By field; plain data.
        typed: The fields whose values the worker makes again from that data.
        left: The fields whose values cannot go as what they are, with the reason; `values` lacks them.
    """

    values: dict[str, Any]
    typed: list[str]
    left: dict[str, str]


def pack(values: Mapping[str, Any], types: dict[str, Any]) -> Packed:
    """Values as plain data, as far as a prompt says the same of what comes out.

    Args:
        values: Values by field. What is no field is left out, as a prompt leaves it out.
        types: The types of the fields.
    """
    given = values if type(values) is dict else dict(values)
    carried = plain_fields(given, types)
    if carried is not None:
        return Packed(carried, [], {})
    packed = Packed({}, [], {})
    plain_values = packed.values
    for name, annotation in types.items():
        value = given.get(name, _ABSENT)
        if type(value) in _LEAVES:
            plain_values[name] = value
            continue
        if value is _ABSENT:
            continue
        try:
            if _crosses(value):
                plain_values[name] = value
                continue
            plain = to_plain(value)
            # What the value's class says of being equal, or shows of itself, may be anything.
            if _crosses(plain) and _same(unpack(plain, annotation), value):
                plain_values[name] = plain
                packed.typed.append(name)
            else:
                packed.left[name] = "it would come out as something else"
        except Exception as error:  # noqa: BLE001 - a validator or a serialiser of the user's may raise anything
            packed.left[name] = str(error) or type(error).__name__
    return packed


def not_encodable(name: str, value: Any, reason: str) -> WireError:
    """The error for a value that cannot cross."""
    return WireError(
        f"the value of `{name}`, a {type(value).__name__}, cannot cross to a worker: {reason}",
        code="not-encodable",
        hint='give the field the value\'s own type, or call with route="native"',
    )


def unpack(plain: Any, annotation: Any) -> Any:
    """The value of a type, from plain data.

    Raises:
        ValueError: If it is none.
    """
    from dspex._engine.type_adapters import adapter_of

    return adapter_of(annotation).validate_python(plain, by_alias=True, by_name=True)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are one: equality takes 1 for True, and what a value shows may hide a part of it."""
    return type(a) is type(b) and repr(a) == repr(b) and bool(a == b)
