"""Values on their way to a worker and back: as wire values, by the types of a signature.

No class is named beside a value. What crosses are dicts, lists and the value types that the wire knows
(`dspex.wire`). A value of a custom type (an enum, a model, a dataclass) crosses as these, and the
other side makes it again by validating them against the type that its own copy of the signature has for the
field. Whether a value comes out as it went in is seen where it is sent; for one that would not, the prompt is
laid out there.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, get_args
from uuid import UUID

from dspex._core import plain_fields
from dspex.errors import WireError
from dspex.signature import Signature
from dspex.signature._names import subscripted

__all__ = [
    "WireValues",
    "classes_in",
    "custom_fields",
    "from_wire",
    "not_encodable",
    "to_wire",
    "values_to_wire",
]

_LEAVES: Final = frozenset(
    {type(None), bool, int, float, str, bytes, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID}
)
"""What the wire carries as it is."""

_CONTAINERS: Final = (list, tuple, set, frozenset)

_CARRIED: Final = _LEAVES | {*_CONTAINERS, dict}

_ABSENT: Final = object()


def custom_fields(signature: Signature) -> Mapping[str, Any]:
    """The fields whose values the wire does not carry as they are, with their types."""
    return {
        name: field.annotation
        for name, field in signature.fields.items()
        if any(cls not in _CARRIED for cls in classes_in(field.annotation))
    }


def classes_in(annotation: Any) -> Iterator[type]:
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
        yield from classes_in(arg)


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


def to_wire(value: Any) -> Any:
    """The value as the wire carries it: models and dataclasses as dicts of fields, enums as their values.

    A model's fields that nobody set are left out where the model would fill them in alike.
    """
    kind = type(value)
    if kind in _LEAVES:
        return value
    if isinstance(value, enum.Enum):
        return to_wire(value.value)
    if kind in _CONTAINERS:
        return kind(map(to_wire, value))
    if kind is dict:
        return {to_wire(key): to_wire(item) for key, item in value.items()}
    fields = getattr(kind, "model_fields", None)
    if fields is not None:
        if getattr(kind, "__pydantic_root_model__", False):
            return to_wire(value.root)
        given = value.model_fields_set
        items = {
            name: to_wire(getattr(value, name))
            for name, info in fields.items()
            if name in given or not _is_default(getattr(value, name), info)
        }
        return items | {name: to_wire(item) for name, item in (value.model_extra or {}).items()}
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_wire(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    from dspex._engine.type_adapters import adapter_of

    return adapter_of(kind).dump_python(value, mode="json")


def _is_default(value: Any, info: Any) -> bool:
    if getattr(info, "default_factory_takes_validated_data", False):
        return False
    return not info.is_required() and _same(info.get_default(call_default_factory=True), value)


class WireValues(NamedTuple):
    """Values on their way to a worker.

    Attributes:
        values: By field; what the wire carries.
        custom: The fields of custom types, whose values the worker makes again from that.
        left: The fields whose values cannot go as what they are, with the reason; `values` lacks them.
    """

    values: dict[str, Any]
    custom: list[str]
    left: dict[str, str]


def values_to_wire(values: Mapping[str, Any], types: dict[str, Any]) -> WireValues:
    """Values as the wire carries them, as far as a prompt says the same of what comes out.

    Args:
        values: Values by field. What is no field is left out, as a prompt leaves it out.
        types: The types of the fields.
    """
    given = values if type(values) is dict else dict(values)
    carried = plain_fields(given, types)
    if carried is not None:
        return WireValues(carried, [], {})
    made = WireValues({}, [], {})
    for name, annotation in types.items():
        value = given.get(name, _ABSENT)
        if type(value) in _LEAVES:
            made.values[name] = value
            continue
        if value is _ABSENT:
            continue
        try:
            if _crosses(value):
                made.values[name] = value
                continue
            wire = to_wire(value)
            # What the value's class says of being equal, or shows of itself, may be anything.
            if _crosses(wire) and _same(from_wire(wire, annotation), value):
                made.values[name] = wire
                made.custom.append(name)
            else:
                made.left[name] = "it would come out as something else"
        except Exception as error:  # noqa: BLE001 - a validator or a serialiser of the user's may raise anything
            made.left[name] = str(error) or type(error).__name__
    return made


def not_encodable(name: str, value: Any, reason: str) -> WireError:
    """The error for a value that cannot cross."""
    return WireError(
        f"the value of `{name}`, a {type(value).__name__}, cannot cross to a worker: {reason}",
        code="not-encodable",
        hint='give the field the value\'s own type, or call with route="native"',
    )


def from_wire(wire: Any, annotation: Any) -> Any:
    """The value of a type, from what has crossed.

    Raises:
        ValueError: If it is none.
    """
    from dspex._engine.type_adapters import adapter_of

    return adapter_of(annotation).validate_python(wire, by_alias=True, by_name=True)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are one: equality takes 1 for True, and what a value shows may hide a part of it."""
    return type(a) is type(b) and repr(a) == repr(b) and bool(a == b)
