"""Types as data: the classes that a program's fields are made of, described, and made again of that.

A type stands in a file as the text of a signature writes it, `list[Person] | None`, and each class of the
user's that such a text names stands under its name in one table: a model, a dataclass, a `TypedDict` or an
enum, with its fields, texts and constraints. A JSON schema would not do: it cannot tell `tuple[int, ...]`
from `list[int]`, nor a `date` from a text of its form, and a prompt shows the difference.

    describe:  class --> data        what data cannot say is refused (`program-export`): validators,
        serializers,
                                     types of DSPy's, generic or recursive classes
    make:      data --> class        without `eval`, and without import of what the data names

Methods stay behind: data is what a prompt and a reply need.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Final, NotRequired

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict, is_typeddict

from dspex._core import type_source
from dspex.compiled._document import EnumPart, MemberPart, RecordPart
from dspex.errors import ConfigError, DspexError
from dspex.protocol.unions import pipe_unions_in, with_pipe_unions
from dspex.protocol.values import classes_in
from dspex.signature import Signature
from dspex.signature._fields import Details
from dspex.signature._names import MODULES, only_given

if typing.TYPE_CHECKING:
    from dspex.compiled._document import TypePart

__all__ = ["TypeReader", "TypeTable", "cannot_export", "settings_of", "settings_to"]

_KNOWN: Final = (MODULES - {"dspy"}) | {"builtins", "types"}
"""Modules whose types a text names by itself."""

_SETTINGS: Final = frozenset(
    {"default", "default_factory", "title", "description", "examples", "alias", "validation_alias"}
    | {"serialization_alias", "alias_priority", "gt", "ge", "lt", "le", "min_length", "max_length"}
    | {"multiple_of", "allow_inf_nan", "strict", "pattern", "max_digits", "decimal_places", "union_mode"}
    | {"fail_fast", "repr", "exclude", "frozen", "validate_default", "deprecated", "json_schema_extra"}
)
"""Settings of a field that are data."""

_CONFIG: Final = frozenset(
    {"title", "extra", "frozen", "str_strip_whitespace", "str_to_lower", "str_to_upper", "str_min_length"}
    | {"str_max_length", "populate_by_name", "validate_by_name", "validate_by_alias", "serialize_by_alias"}
    | {"use_enum_values", "strict", "validate_assignment", "validate_default", "coerce_numbers_to_str"}
    | {"allow_inf_nan", "ser_json_timedelta", "ser_json_temporal", "ser_json_bytes", "val_json_bytes"}
    | {"ser_json_inf_nan", "revalidate_instances", "hide_input_in_errors", "regex_engine"}
    | {"use_attribute_docstrings", "json_schema_extra", "protected_namespaces", "loc_by_alias"}
)
"""Settings of a model that are data."""

_NAME: Final = re.compile(r"\w+")

_FACTORIES: Final[Mapping[str, Any]] = {"list": list, "dict": dict, "set": set}

_BASES: Final[Mapping[str, tuple[type, ...]]] = {
    "Enum": (enum.Enum,),
    "IntEnum": (enum.IntEnum,),
    "StrEnum": (enum.StrEnum,),
    "str": (str, enum.Enum),
    "int": (int, enum.Enum),
}

_HOOKS: Final = (
    "__get_pydantic_core_schema__",
    "__get_pydantic_json_schema__",
    "__init__",
    "__new__",
    "__post_init__",
    "model_post_init",
    "model_dump",
    "model_dump_json",
    "_missing_",
)
"""What a class does when it is validated or shown; data cannot say it."""


def cannot_export(at: str, why: str, hint: str) -> ConfigError:
    """The error for a part of a program that is no data."""
    return ConfigError(f"{at} cannot be exported: {why}", code="program-export", hint=hint)


# -- from types to data -----------------------------------------------------------------------------


class TypeTable:
    """Describes types, and keeps the classes that they name.

    Attributes:
        parts: The classes by their names.
    """

    def __init__(self) -> None:
        self.parts: dict[str, TypePart] = {}
        self._classes: dict[str, type] = {}
        self._open: list[type] = []

    def text_of(self, at: str, annotation: Any) -> tuple[str, list[bool]]:
        """A type's text, and which of its unions are written with a bar.

        Raises:
            ConfigError: If a class in it is no data (`program-export`).
        """
        for cls in classes_in(annotation):
            self._add(at, cls)
        pipe_unions = pipe_unions_in(annotation)
        return type_source(annotation), pipe_unions if any(pipe_unions) else []

    def check(self, reader: TypeReader) -> None:
        """Make sure that what is made of the data takes the same values as the classes.

        Raises:
            ConfigError: If it does not (`program-export`).
        """
        for name, cls in self._classes.items():
            if _schema(reader.made(name)) != _schema(cls):
                raise cannot_export(name, "what its description makes has another JSON schema", _WITHOUT_CODE)

    def _add(self, at: str, cls: type) -> None:
        root = cls.__module__.split(".")[0]
        if root in _KNOWN:
            return
        if root == "dspy":
            raise cannot_export(
                at, f"{cls.__qualname__} is DSPy's", "use a type of your own, or save the state"
            )
        if cls in self._open:
            raise cannot_export(
                at,
                f"{cls.__qualname__} has a field of its own class",
                "save the state, and load it into the class",
            )
        if (known := self._classes.setdefault(cls.__name__, cls)) is not cls:
            raise cannot_export(
                at,
                f"{known.__qualname__} and {cls.__qualname__} are both called {cls.__name__}",
                "rename one",
            )
        if cls.__name__ not in self.parts:
            self._open.append(cls)
            self.parts[cls.__name__] = self._described(f"{at}: {cls.__qualname__}", cls)
            self._open.pop()

    def _described(self, at: str, cls: Any) -> TypePart:
        hook = next((name for name in _HOOKS if _is_own(cls, name)), None)
        if hook is not None:
            raise cannot_export(at, f"its {hook} is code", _WITHOUT_CODE)
        kind: Any = cls
        if issubclass(cls, enum.Enum):
            return _enum_part(at, cls)
        if is_typeddict(cls):
            members = {
                name: FieldInfo.from_annotation(hint)
                for name, hint in typing.get_type_hints(cls, include_extras=True).items()
            }
            return self._record(at, cls, "typed_dict", members)
        if issubclass(cls, pydantic.BaseModel):
            _check_model(at, cls)
            config = {name: _json(at, value) for name, value in cls.model_config.items()}
            if unknown := sorted(config.keys() - _CONFIG):
                raise cannot_export(at, f"its configuration has {', '.join(unknown)}", _WITHOUT_CODE)
            return self._record(at, cls, "model", cls.model_fields, config)
        if dataclasses.is_dataclass(cls):
            return self._record(at, kind, "dataclass", _members(kind))
        raise cannot_export(
            at, "only models, dataclasses, typed dicts and enums are data", "make it one of these"
        )

    def _record(
        self,
        at: str,
        cls: type,
        kind: typing.Literal["model", "dataclass", "typed_dict"],
        members: Mapping[str, FieldInfo],
        config: Mapping[str, Any] | None = None,
    ) -> RecordPart:
        fields = []
        for name, info in members.items():
            place = f"{at}.{name}"
            text, pipe_unions = self.text_of(place, info.annotation)
            details = Details.of(info, {})
            settings = {} if details is None else settings_to(place, details)
            if isinstance(info.json_schema_extra, dict):
                settings["json_schema_extra"] = _json(place, info.json_schema_extra)
            required = kind != "typed_dict" or name in cls.__required_keys__  # type: ignore[attr-defined]
            fields.append(
                MemberPart(
                    name=name, type=text, pipe_unions=pipe_unions, required=required, settings=settings
                )
            )
        return RecordPart(kind=kind, doc=_doc(cls), config=dict(config or {}), fields=fields)


def _schema(cls: Any) -> Any:
    return pydantic.TypeAdapter(cls).json_schema()


def settings_to(at: str, details: Details) -> dict[str, Any]:
    """The settings of a field as data.

    Raises:
        ConfigError: If one of them is code (`program-export`).
    """
    if details.notes:
        note = type(details.notes[0]).__name__
        raise cannot_export(at, f"beside its type stands a {note}", _WITHOUT_CODE)
    made = {}
    for name, value in details.settings.items():
        if name not in _SETTINGS:
            raise cannot_export(at, f"its setting {name!r} is no data", _WITHOUT_CODE)
        if name == "default_factory":
            found = next((key for key, factory in _FACTORIES.items() if factory is value), None)
            if found is None:
                raise cannot_export(at, "its default_factory is code", "use list, dict or set, or a default")
            made[name] = found
        else:
            made[name] = _json(at, value)
    return made


def _json(at: str, value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except Exception as error:  # a serializer of the user's may raise anything
        raise cannot_export(
            at, f"{type(value).__name__} has no JSON", "use a value that JSON can carry"
        ) from error


def _is_own(cls: type, name: str) -> bool:
    """Whether a class, or a base of the user's, defines this method itself."""
    for base in cls.__mro__:
        if base.__module__.split(".")[0] in {*_KNOWN, "typing_extensions"}:
            return False
        if name in base.__dict__:
            value = base.__dict__[name]
            code = getattr(getattr(value, "__func__", value), "__code__", None)
            # Methods that `dataclass` and `enum` make have no file, or one of the standard library's.
            return code is not None and code.co_filename != "<string>" and code.co_filename not in _MAKERS
    return False


_MAKERS: Final = frozenset({enum.__file__, dataclasses.__file__, typing.__file__, pydantic.main.__file__})


def _check_model(at: str, cls: type[pydantic.BaseModel]) -> None:
    found = cls.__pydantic_decorators__
    kinds = [kind.name for kind in dataclasses.fields(found) if getattr(found, kind.name)]
    if kinds:
        raise cannot_export(at, f"its {' and '.join(kinds)} are code", _WITHOUT_CODE)
    if cls.__pydantic_generic_metadata__["parameters"] or cls.__pydantic_generic_metadata__["origin"]:
        raise cannot_export(at, "it is generic", "give the class itself the types of its fields")
    if issubclass(cls, pydantic.RootModel):
        raise cannot_export(at, "it is a root model", "use the type that it is made of")


def _members(cls: Any) -> dict[str, FieldInfo]:
    hints = typing.get_type_hints(cls, include_extras=True)
    members = {}
    for each in dataclasses.fields(cls):
        info = FieldInfo.from_annotation(hints[each.name])
        if each.default is not dataclasses.MISSING:
            info.default = each.default
        if each.default_factory is not dataclasses.MISSING:
            info.default_factory = each.default_factory
        members[each.name] = info
    return members


def _doc(cls: type) -> str | None:
    doc = cls.__dict__.get("__doc__")
    made = dataclasses.is_dataclass(cls) and doc is not None and doc.startswith(f"{cls.__name__}(")
    return None if made else doc


def _enum_part(at: str, cls: type[enum.Enum]) -> EnumPart:
    bases = tuple(base for base in cls.__bases__ if base is not object)
    base = next((name for name, known in _BASES.items() if known == bases), None)
    if base is None:
        raise cannot_export(at, "its base is not one of enum's, nor str or int", "derive it from Enum")
    members: dict[str, Any] = {}
    for name, member in cls.__members__.items():
        if not isinstance(member.value, str | int | float | bool | None):
            raise cannot_export(at, f"the value of {name} is no text and no number", "use texts or numbers")
        members[name] = member.value
    return EnumPart(kind="enum", base=base, doc=_doc(cls), members=members)  # type: ignore[arg-type]


_WITHOUT_CODE: Final = (
    "a file holds no code: describe the values by types and constraints, or save the state "
    "(program.save) and load it into the program"
)


# -- from data to types -----------------------------------------------------------------------------


class TypeReader:
    """Makes the types of a file.

    Args:
        parts: The table of classes.

    Raises:
        ConfigError: By its methods, if the data makes no type (`program-file`).
    """

    def __init__(self, parts: Mapping[str, TypePart], source: str) -> None:
        self._parts = parts
        self._source = source
        self._made: dict[str, Any] = {}
        self._open: set[str] = set()

    def read(self, at: str, part: MemberPart) -> Any:
        """The type of a field."""
        types = {name: self.made(name, at) for name in _NAME.findall(part.type) if name in self._parts}
        try:
            with only_given(dspy=False):
                fields = Signature(f"value: {part.type} -> none", types=types).fields
        except DspexError as error:
            raise self._wrong(at, error.message) from None
        if list(fields) != ["value", "none"]:
            raise self._wrong(at, f"{part.type!r} is not one type")
        annotation = fields["value"].annotation
        details = fields["value"]._details
        if details is not None:
            annotation = Annotated[annotation, *details.constraints]
        return with_pipe_unions(annotation, part.pipe_unions) if part.pipe_unions else annotation

    def made(self, name: str, at: str = "$.types") -> Any:
        """The class of this name in the table."""
        if name not in self._made:
            if name in self._open:
                raise self._wrong(at, f"{name} is a part of itself")
            self._open.add(name)
            try:
                self._made[name] = self._make(name, self._parts[name])
            except DspexError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever pydantic or enum says of such data
                raise self._wrong(f"$.types.{name}", f"{type(error).__name__}: {error}") from None
            self._open.discard(name)
        return self._made[name]

    def _make(self, name: str, part: TypePart) -> Any:
        if isinstance(part, EnumPart):
            return _made_enum(name, part)
        members = {}
        for place, member in enumerate(part.fields):
            at = f"$.types.{name}.fields[{place}]"
            annotation = self.read(at, member)
            members[member.name] = annotation, settings_of(member, annotation)
        if part.kind == "model":
            fields: Any = {key: (kind, pydantic.Field(**given)) for key, (kind, given) in members.items()}
            model: Any = pydantic.create_model(
                name,
                __config__=pydantic.ConfigDict(**part.config),  # type: ignore[typeddict-item]
                __doc__=part.doc,
                __module__=__name__,
                **fields,
            )
            return model
        if part.kind == "dataclass":
            return _made_dataclass(name, part, members)
        return _made_typed_dict(name, part, members)

    def _wrong(self, at: str, why: str) -> ConfigError:
        from dspex.compiled._document import refused

        return refused(self._source, [f"{at}: {why}"])


def settings_of(part: MemberPart, annotation: Any) -> dict[str, Any]:
    """The settings of a field, of its data.

    A default that JSON writes as something else (an enum, a date) is read as the field's type.
    """
    settings: dict[str, Any] = {key: value for key, value in part.settings.items() if key in _SETTINGS}
    if "default_factory" in settings:
        settings["default_factory"] = _FACTORIES[str(settings["default_factory"])]
    default = settings.get("default")
    if isinstance(default, str | list | dict):
        with contextlib.suppress(ValueError):  # pydantic does not look at a default either
            adapter = pydantic.TypeAdapter(annotation)
            settings["default"] = adapter.validate_json(json.dumps(default), strict=True)
    return settings


def _made_enum(name: str, part: EnumPart) -> type[enum.Enum]:
    *mixed, base = _BASES[part.base]
    made: Any = base(name, dict(part.members), module=__name__, **({"type": mixed[0]} if mixed else {}))
    made.__doc__ = part.doc
    return typing.cast("type[enum.Enum]", made)


def _made_dataclass(name: str, part: RecordPart, members: Mapping[str, tuple[Any, dict[str, Any]]]) -> Any:
    fields: list[Any] = []
    for key, (annotation, settings) in members.items():
        kept = {"default": settings.pop("default")} if "default" in settings else {}
        if "default_factory" in settings:
            kept["default_factory"] = settings.pop("default_factory")
        kind = Annotated[annotation, pydantic.Field(**settings)] if settings else annotation
        fields.append((key, kind, dataclasses.field(**kept)))
    made = dataclasses.make_dataclass(name, fields, namespace={"__doc__": part.doc} if part.doc else {})
    made.__module__ = __name__
    return made


def _made_typed_dict(name: str, part: RecordPart, members: Mapping[str, tuple[Any, dict[str, Any]]]) -> Any:
    required = {member.name: member.required for member in part.fields}
    fields: dict[str, Any] = {}
    for key, (annotation, settings) in members.items():
        kind = Annotated[annotation, pydantic.Field(**settings)] if settings else annotation
        fields[key] = kind if required[key] else NotRequired[kind]
    made: Any = TypedDict(name, fields)  # type: ignore[misc]
    made.__doc__ = part.doc
    made.__module__ = __name__
    return made
