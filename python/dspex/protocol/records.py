"""Records: frozen dataclasses that cross as mappings, written and read by what their annotations say.

`to_wire` leaves out what has its default. `read` checks what has arrived before any of it is used: names,
types and choices, at every depth, so that a mistake is one error with its place, as in `$.tools[0].function`.
None stands for a part that is not there.

What an annotation may be: `str`, `bool`, `int`, `Any`; `Literal` of texts; `Mapping[str, X]` and
`Sequence[X]`; another record, or a `TypedDict`, which is checked alike and stays a mapping; unions of these,
with no two records in one union.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from dspex.errors import ConfigError, did_you_mean

__all__ = ["one_of", "read", "refusal", "to_wire"]

R = TypeVar("R")


def one_of(*names: str) -> Callable[[type[R]], type[R]]:
    """Mark a record of which exactly one of these parts must be given."""

    def mark(record: type[R]) -> type[R]:
        record.__one_of__ = names  # type: ignore[attr-defined]
        return record

    return mark


class _Shape(NamedTuple):
    """What a value of an annotation is on the wire.

    Attributes:
        kinds: Its types.
        record: The record that a mapping is read as.
        items: The shape of each item of a list, or of a mapping of any names; None if that may be anything.
        choices: The texts there are, if only some are.
    """

    kinds: tuple[type[Any], ...]
    record: type[Any] | None = None
    items: _Shape | None = None
    choices: tuple[str, ...] = ()


_ANYTHING: Final = _Shape((object,))


class _Part(NamedTuple):
    """A part of a record: its shape, and its types if a value of one of these will do."""

    shape: _Shape
    simple: tuple[type[Any], ...]


class _Layout(NamedTuple):
    """The parts of a record, those of them that must be there, and those of which exactly one must."""

    parts: dict[str, _Part]
    needed: tuple[str, ...]
    one_of: tuple[str, ...]


def to_wire(record: Any) -> dict[str, Any]:
    """A record as a mapping; parts that have their default, or are empty as it is, are left out."""
    kind = type(record)
    defaults = _DEFAULTS.get(kind)
    if defaults is None:
        defaults = _DEFAULTS[kind] = [(part.name, _default(part)) for part in dataclasses.fields(kind)]
    wire = {}
    for name, default in defaults:
        value = getattr(record, name)
        if value is not default and (default is None or value):
            wire[name] = value if type(value) in _UNCHANGED else _value_to_wire(value)
    return wire


def _value_to_wire(value: Any) -> Any:
    if type(value) in (list, tuple):
        return [to_wire(item) if hasattr(type(item), _FIELDS) else item for item in value]
    return to_wire(value) if hasattr(type(value), _FIELDS) else value


_UNCHANGED: Final = frozenset({str, bool, dict})

_FIELDS: Final = "__dataclass_fields__"

_DEFAULTS: Final[dict[type[Any], list[tuple[str, Any]]]] = {}


def _default(part: dataclasses.Field[Any]) -> Any:
    """What a part that is not given is; None for one that must be."""
    if part.default_factory is not dataclasses.MISSING:
        return part.default_factory()
    return None if part.default is dataclasses.MISSING else part.default


def read(record: type[R], wire: Any, place: str = "$") -> R:
    """The record that a mapping says.

    Args:
        record: Its class.
        wire: What has arrived.
        place: Where it is, for the error.

    Raises:
        ConfigError: If it is none, with the place and what is wrong there (`bad-payload`).
    """
    if not isinstance(wire, dict):
        raise _of_wrong_kind(wire, _Shape((dict,), record), place)
    return _read_record(record, wire, place)


def refusal(place: str, what: str, hint: str = "") -> ConfigError:
    """The error for a request with something wrong at a place."""
    return ConfigError(
        f"the worker cannot serve the call: {place} {what}", code="bad-payload", hint=hint, place=place
    )


def _read_record(record: type[R], wire: dict[Any, Any], place: str) -> R:
    layout = _LAYOUTS.get(record) or _layout(record)
    parts = layout.parts
    given = {}
    for name, value in wire.items():
        part = parts.get(name)
        if part is None:
            raise refusal(place, f"has a part {name!r}", did_you_mean(str(name), parts) + _listed(parts))
        if isinstance(value, part.simple):
            given[name] = value
        elif value is not None:
            given[name] = _read(part.shape, value, place, name)
    for name in layout.needed:
        if name not in given:
            raise refusal(place, f"has no {name!r}", _listed(parts))
    if layout.one_of:
        found = [name for name in layout.one_of if name in given]
        if not found:
            raise refusal(place, f"has no {' and no '.join(map(repr, layout.one_of))}", _listed(parts))
        if len(found) > 1:
            raise refusal(place, f"has {' and '.join(map(repr, found))}", "it has one of them")
    return record(**given)


def _read(shape: _Shape, value: Any, place: str, name: str | int) -> Any:
    """A value at `place`.`name`; the place is written out only where something is wrong or deeper."""
    if not isinstance(value, shape.kinds):
        raise _of_wrong_kind(value, shape, _at(place, name))
    if isinstance(value, dict):
        if shape.record is not None:
            return _read_record(shape.record, value, _at(place, name))
        for key in value:
            if not isinstance(key, str):
                raise refusal(_at(place, name), f"has the key {key!r}", "its keys are names, of type str")
        if shape.items is not None and value:
            here, items = _at(place, name), shape.items
            return {key: _read(items, item, here, key) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        if shape.items is not None and value:
            here, items = _at(place, name), shape.items
            return [_read(items, item, here, index) for index, item in enumerate(value)]
    elif shape.choices and value not in shape.choices:
        hint = f"{did_you_mean(str(value), shape.choices)}one of: {', '.join(shape.choices)}"
        raise refusal(_at(place, name), f"is {value!r}", hint)
    return value


def _of_wrong_kind(value: Any, shape: _Shape, place: str) -> ConfigError:
    kinds = " or ".join(dict.fromkeys("list" if kind is tuple else kind.__name__ for kind in shape.kinds))
    hint = f"it is of type {kinds}"
    if shape.record is not None:
        hint += f", with the parts: {', '.join(_layout(shape.record).parts)}"
    return refusal(place, f"is of type {type(value).__name__}", hint)


def _at(place: str, name: str | int) -> str:
    return f"{place}[{name}]" if isinstance(name, int) else f"{place}.{name}"


def _listed(parts: Iterable[str]) -> str:
    return f"the parts are: {', '.join(parts)}"


_LAYOUTS: Final[dict[type[Any], _Layout]] = {}


def _layout(record: type[Any]) -> _Layout:
    hints = get_type_hints(record)
    if is_typeddict(record):
        names, needed = list(hints), tuple(record.__required_keys__)
    else:
        missing, fields = dataclasses.MISSING, dataclasses.fields(record)
        names = [part.name for part in fields]
        needed = tuple(
            part.name for part in fields if part.default is missing and part.default_factory is missing
        )
    parts = {name: _part(hints[name]) for name in names}
    made = _LAYOUTS[record] = _Layout(parts, needed, getattr(record, "__one_of__", ()))
    return made


def _part(annotation: Any) -> _Part:
    shape = _shape(annotation)
    deeper = dict in shape.kinds or shape.choices or shape.items is not None
    return _Part(shape, () if deeper else shape.kinds)


def _shape(annotation: Any) -> _Shape:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union([_shape(arg) for arg in args if arg is not type(None)])
    if origin is Literal:
        return _Shape((str,), choices=args)
    if origin is Mapping:
        return _Shape((dict,), items=_items(args[1]))
    if origin is Sequence:
        return _Shape((list, tuple), items=_items(args[0]))
    if dataclasses.is_dataclass(annotation) or is_typeddict(annotation):
        return _Shape((dict,), record=annotation)
    return _ANYTHING if annotation is Any else _Shape((annotation,))


def _items(annotation: Any) -> _Shape | None:
    shape = _shape(annotation)
    return None if shape is _ANYTHING else shape


def _union(shapes: list[_Shape]) -> _Shape:
    return _Shape(
        tuple(kind for shape in shapes for kind in shape.kinds),
        record=next((shape.record for shape in shapes if shape.record is not None), None),
        items=next((shape.items for shape in shapes if shape.items is not None), None),
        choices=shapes[0].choices if len(shapes) == 1 else (),
    )
