"""Enums, dataclasses, models and named tuples: named by their import path, and only where that is allowed.

The allow-list is a list of modules. It allows the classes of these modules and of the modules below them, and
nothing else is ever imported because bytes say so. A class is made again from its fields, without its
constructor: what was a value of it comes out equal, whatever its validators or `__post_init__` do.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import sys
from collections.abc import Iterable
from typing import Any, Final

__all__ = [
    "DEFAULT",
    "Classes",
    "dataclass_from_plain",
    "dataclass_to_plain",
    "enum_from_plain",
    "enum_to_plain",
    "model_from_plain",
    "model_to_plain",
    "named_from_plain",
    "named_to_plain",
]


class Classes:
    """The modules whose classes may be named.

    Args:
        modules: Names of modules, `"my_app.models"`; each stands for those below it too. `dspy` is
            always one.
    """

    __slots__ = ("_allowed", "_found", "modules")

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self.modules = ("dspy", *dict.fromkeys(name for name in modules if name != "dspy"))
        self._allowed: dict[type, bool] = {}
        self._found: dict[str, type] = {}

    def __repr__(self) -> str:
        return f"Classes({list(self.modules)!r})"

    def allow(self, kind: type) -> bool:
        """Whether a class may be named, and can be found by its name."""
        known = self._allowed.get(kind)
        if known is None:
            known = self._allowed[kind] = self.may_import(kind.__module__) and _named(kind)
        return known

    def may_import(self, module: str) -> bool:
        """Whether a module is one of them, or below one."""
        return any(module == name or module.startswith(f"{name}.") for name in self.modules)

    def find(self, path: Any, base: type | None = None) -> Any:
        """The class at a path, imported if its module is allowed.

        Raises:
            ValueError: If it is not allowed, or there is no class, or none of the kind that was named.
        """
        found: Any = self._found.get(path) if isinstance(path, str) else None
        if found is None:
            module, _, name = str(path).partition(":")
            if not self.may_import(module):
                raise ValueError(f"the class {path!r} is in no module of the allow-list")
            try:
                found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
            except (ImportError, AttributeError) as err:
                raise ValueError(f"the class {path!r} cannot be imported: {err}") from err
            # What a module only imported is no class of it.
            if not (isinstance(found, type) and self.may_import(found.__module__)):
                raise ValueError(f"{path!r} is no class of that module")
            self._found[path] = found
        if base is not None and not issubclass(found, base):
            raise ValueError(f"{path!r} is no {base.__name__}")
        return found


DEFAULT: Final = Classes()
"""Allows the classes of DSPy alone."""


def _named(kind: type) -> bool:
    """Whether its module has the class under its name."""
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def path_of(kind: type) -> str:
    """The import path of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def enum_to_plain(value: enum.Enum, _: Classes) -> list[Any]:
    """By its name; by its value where it has none, as combined flags have."""
    kind = type(value)
    if value.name in kind.__members__:
        return [path_of(kind), value.name]
    return [path_of(kind), None, value.value]


def enum_from_plain(plain: Any, classes: Classes) -> enum.Enum:
    """See `enum_to_plain`."""
    path, name, *value = plain
    kind: type[enum.Enum] = classes.find(path, enum.Enum)
    if name is None:
        return kind(value[0])
    if name not in kind.__members__:
        raise ValueError(f"{path!r} has no member {name!r}")
    return kind[name]


def dataclass_to_plain(value: Any, _: Classes) -> list[Any]:
    """Its fields by name, those that are no arguments too."""
    kind = type(value)
    return [path_of(kind), {part.name: getattr(value, part.name) for part in dataclasses.fields(kind)}]


def dataclass_from_plain(plain: Any, classes: Classes) -> Any:
    """See `dataclass_to_plain`; fields that a class has got since have their defaults."""
    path, fields = plain
    kind: type = classes.find(path)
    if not dataclasses.is_dataclass(kind):
        raise ValueError(f"{path!r} is no dataclass")
    made = object.__new__(kind)
    left = dict(fields)
    for part in dataclasses.fields(kind):
        if part.name in left:
            item = left.pop(part.name)
        elif part.default is not dataclasses.MISSING:
            item = part.default
        elif part.default_factory is not dataclasses.MISSING:
            item = part.default_factory()
        else:
            raise ValueError(f"a {path} without its field {part.name!r}")
        object.__setattr__(made, part.name, item)
    if left:
        raise ValueError(f"a {path} with the field {next(iter(left))!r}, which the class does not have")
    return made


def model_to_plain(value: Any, _: Classes) -> list[Any]:
    """Its fields, those that were set, what is extra, and what is private."""
    return [
        path_of(type(value)),
        dict(value.__dict__),
        sorted(value.__pydantic_fields_set__),
        value.__pydantic_extra__,
        value.__pydantic_private__,
    ]


def model_from_plain(plain: Any, classes: Classes) -> Any:
    """See `model_to_plain`; fields that a model has got since have their defaults."""
    path, fields, given, extra, private = plain
    if type(given) is not list:
        raise TypeError("the names of the fields that were given are a list")
    kind = classes.find(path)
    known = getattr(kind, "model_fields", None)
    if known is None:
        raise ValueError(f"{path!r} is no model")
    fields = dict(fields)
    for name, info in known.items():
        if name not in fields:
            if info.is_required():
                raise ValueError(f"a {path} without its field {name!r}")
            fields[name] = info.get_default(call_default_factory=True, validated_data=fields)
    made = kind.__new__(kind)
    object.__setattr__(made, "__dict__", fields)
    object.__setattr__(made, "__pydantic_fields_set__", set(given))
    object.__setattr__(made, "__pydantic_extra__", extra)
    object.__setattr__(made, "__pydantic_private__", private)
    return made


def named_to_plain(value: Any, _: Classes) -> list[Any]:
    """Its items in their order."""
    return [path_of(type(value)), list(value)]


def named_from_plain(plain: Any, classes: Classes) -> Any:
    """See `named_to_plain`."""
    path, items = plain
    kind = classes.find(path, tuple)
    if not hasattr(kind, "_fields") or len(items) != len(kind._fields):
        raise ValueError(f"{path!r} is no named tuple of {len(items)}")
    return tuple.__new__(kind, items)
