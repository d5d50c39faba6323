"""Fields as Python code writes them, and as the core takes them."""

from __future__ import annotations

import copy
import keyword
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dspex._core import Field
from dspex.errors import SignatureError
from dspex.signature._names import (
    Problem,
    arguments_source,
    has_lone_surrogate,
    import_problem,
    note_source,
    problem,
    without_notes,
)

if TYPE_CHECKING:
    from typing import Unpack

    from dspex.signature._field_settings import FieldSettings

__all__ = [
    "Details",
    "FieldSpec",
    "InputField",
    "OutputField",
    "annotated",
    "check_name",
    "describe_field",
    "read_annotated",
    "read_field",
    "read_info",
    "read_mapping",
    "source",
    "to_info",
    "update_field",
    "updates",
]

KIND = "__dspy_field_type"
UNTYPED = "IS_TYPE_UNDEFINED"

_RESERVED = {"fields", "input_fields", "instructions", "model_config", "output_fields", "signature"}
_DSPY_KEYS = ("desc", "prefix", "format", "parser", UNTYPED)
_CONSTRAINTS = {
    "gt": "greater than: ",
    "ge": "greater than or equal to: ",
    "lt": "less than: ",
    "le": "less than or equal to: ",
    "min_length": "minimum length: ",
    "max_length": "maximum length: ",
    "multiple_of": "a multiple of the given number: ",
    "allow_inf_nan": "allow 'inf', '-inf', 'nan' values: ",
}
"""DSPy's words for pydantic's constraints, as prompts show them."""


class FieldSpec(NamedTuple):
    """All there is to a field; the core reads it by these names."""

    name: str
    kind: Literal["input", "output"]
    annotation: Any
    typed: bool
    marked: bool
    desc: str | None
    prefix: str | None
    constraints: str | None
    default: Literal["required", "value", "factory"]
    details: Details | None


class Details:
    """The settings of a field that the core has no use for: the default, constraints to enforce, aliases.

    Attributes:
        settings: Arguments of `pydantic.Field`.
        notes: Metadata of `Annotated` for which `pydantic.Field` has no argument.
        extra: Keys that DSPy keeps with a field, other than the texts that the core has.
    """

    __slots__ = ("extra", "notes", "settings")

    def __init__(self, settings: dict[str, Any], notes: tuple[Any, ...], extra: dict[str, Any]) -> None:
        self.settings = settings
        self.notes = notes
        self.extra = extra

    @classmethod
    def of(cls, info: FieldInfo, extra: dict[str, Any]) -> Details | None:
        """What pydantic's view of a field says; None if that is nothing."""
        settings = {name: getattr(info, name) for name in _INFO_ATTRIBUTES}
        settings = {name: value for name, value in settings.items() if value != getattr(_BLANK, name)}
        notes = []
        for note in info.metadata:
            # A constraint is an object with the argument as its attribute; anything else stays as it is.
            found = {name: getattr(note, name) for name in _CONSTRAINT_ARGUMENTS if hasattr(note, name)}
            settings |= found
            if not found and not isinstance(note, _PLAIN):
                notes.append(note)
        return cls(settings, tuple(notes), extra) if settings or notes or extra else None

    @property
    def constraints(self) -> tuple[Any, ...]:
        """What to put beside a type in `Annotated` so that pydantic enforces all constraints."""
        settings = {name: self.settings[name] for name in _CONSTRAINT_ARGUMENTS if name in self.settings}
        return (*self.notes, pydantic.Field(**settings)) if settings else self.notes

    def get_default(self) -> Any:
        """A fresh copy of the default, or what its factory makes."""
        if "default_factory" in self.settings:
            return self.settings["default_factory"]()
        return copy.deepcopy(self.settings["default"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Details):
            return NotImplemented
        return (self.settings, self.notes, self.extra) == (other.settings, other.notes, other.extra)

    __hash__ = None  # type: ignore[assignment]


_PLAIN = (str, bytes, int, float, complex, type(None))
"""Notes that mean nothing to pydantic."""
_BLANK = FieldInfo()
_INFO_ATTRIBUTES = [
    name
    for name in FieldInfo.__slots__
    if not name.startswith("_") and name not in ("annotation", "json_schema_extra", "metadata")
]
_CONSTRAINT_ARGUMENTS = (
    *_CONSTRAINTS,
    "strict",
    "pattern",
    "max_digits",
    "decimal_places",
    "union_mode",
    "fail_fast",
)


def InputField(**settings: Unpack[FieldSettings]) -> Any:  # noqa: N802 - DSPy's name
    """A field that the caller gives.

    Args:
        settings: `desc`, the text for the prompt, and whatever `pydantic.Field` takes: `default`,
            constraints such as `gt` and `max_length` (written into the prompt and enforced by validation),
            `description` (stands in for `desc`).
    """
    return _field("input", dict(settings))


def OutputField(**settings: Unpack[FieldSettings]) -> Any:  # noqa: N802 - DSPy's name
    """A field that the model produces; see `InputField`."""
    return _field("output", dict(settings))


def _field(kind: str, settings: dict[str, Any]) -> Any:
    for name in ("prefix", "format", "parser"):
        if name in settings:
            warnings.warn(
                f"{name}= does not change any prompt; DSPy is going to drop it", DeprecationWarning, 3
            )
    extra: dict[str, Any] = {KIND: kind}
    extra |= {key: value for key, value in settings.items() if key in _DSPY_KEYS}
    if "description" in settings:
        extra.setdefault("desc", settings["description"])
    constraints = _constraints(settings)
    if constraints is not None:
        extra["constraints"] = constraints
    others = {key: value for key, value in settings.items() if key not in _DSPY_KEYS}
    return pydantic.Field(**others, json_schema_extra=extra)


def _constraints(settings: dict[str, Any]) -> str | None:
    parts = [f"{_CONSTRAINTS[key]}{value}" for key, value in settings.items() if key in _CONSTRAINTS]
    return ", ".join(parts) or None


def read_mapping(fields: Mapping[str, Any]) -> list[FieldSpec]:
    """The fields of a dict: names to fields, or to pairs of type and field.

    Raises:
        SignatureError: If it is not such a dict.
    """
    if not isinstance(fields, Mapping):
        raise SignatureError(
            f"a value of class {type(fields).__name__} is not a signature",
            code="signature-source",
            hint="pass a string, a dict of fields, or use Signature.of for a class",
        )
    specs = []
    for name, item in fields.items():
        type_, field = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
        specs.append(read_field(name, field, type_))
    return specs


def read_field(name: str, field: Any, type_: Any = None) -> FieldSpec:
    """One named field.

    Args:
        name: The name.
        field: What `InputField` or `OutputField` returns, here or in DSPy, or a field of a signature.
        type_: The type; by default the field's own, or `str`.

    Raises:
        SignatureError: If any of them cannot be used.
    """
    check_name(name)
    if isinstance(field, Field):
        spec = describe_field(field)._replace(name=name)
        return spec if type_ is None else spec._replace(annotation=_check_type(name, type_))
    if not isinstance(field, FieldInfo):
        raise SignatureError(
            f"field {name!r} is a value of class {type(field).__name__}",
            code="field-value",
            hint="give InputField(...), OutputField(...) or a pair of type and field",
        )
    type_ = field.annotation if type_ is None else type_
    if without_notes(type_) is not type_:
        # pydantic joins what `Annotated` says with what the field says.
        field = FieldInfo.from_annotated_attribute(type_, field)
        type_ = field.annotation
    return read_info(name, field, str if type_ is None else type_)


def read_info(name: str, info: FieldInfo, annotation: Any) -> FieldSpec:
    """What pydantic's view of a field says, when it was made by `InputField` or `OutputField`.

    Raises:
        SignatureError: If it was not, or if the type cannot be used.
    """
    extra: dict[str, Any] = (
        dict(info.json_schema_extra) if isinstance(info.json_schema_extra, Mapping) else {}
    )
    kind: Literal["input", "output"] | None = extra.pop(KIND, None)
    if kind not in ("input", "output"):
        raise SignatureError(
            f"field {name!r} is neither an input nor an output",
            code="field-kind",
            hint="declare it with InputField or OutputField",
        )
    marked = UNTYPED in extra
    typed = not extra.pop(UNTYPED, False)
    default: Literal["required", "value", "factory"] = "required"
    if info.default_factory is not None:
        default = "factory"
    elif info.default is not PydanticUndefined:
        default = "value"
    texts = {key: _text(name, key, extra.pop(key, None)) for key in ("desc", "prefix", "constraints")}
    annotation = _check_type(name, annotation)
    details = Details.of(info, extra)
    if details is not None and details.notes:
        _refuse(name, import_problem(Annotated[annotation, *details.notes]))
    return FieldSpec(name, kind, annotation, typed, marked, **texts, default=default, details=details)


def read_annotated(name: str, kind: str, annotation: Any) -> FieldSpec:
    """The field of a string signature whose type is `Annotated`, with what pydantic makes of the notes.

    Raises:
        SignatureError: If the type cannot be used.
    """
    field = _field("input", {UNTYPED: False}) if kind == "input" else OutputField()
    info = FieldInfo.from_annotated_attribute(annotation, field)
    return read_info(name, info, info.annotation)


def describe_field(field: Field) -> FieldSpec:
    """A field of a signature as the core takes it again."""
    plain_desc, plain_prefix = field._is_plain
    details = field._details
    default: Literal["required", "value", "factory"] = "required"
    if details is not None and "default" in details.settings:
        default = "value"
    elif details is not None and "default_factory" in details.settings:
        default = "factory"
    return FieldSpec(
        field.name,
        field.kind,
        field.annotation,
        field.typed,
        field._marked,
        None if plain_desc else field.desc,
        None if plain_prefix else field.prefix,
        field.constraints,
        default,
        details,
    )


def update_field(field: Field, type_: Any, texts: dict[str, Any]) -> FieldSpec:
    """The field with another type and other texts.

    Raises:
        SignatureError: If the type cannot be used, or a text or key is none that a prompt can hold.
    """
    for key, value in texts.items():
        if has_lone_surrogate(key):
            raise _half("a key", field.name)
        if any(map(has_lone_surrogate, _texts_in(value))):
            raise _half(key, field.name)
    info = to_info(field)
    info.json_schema_extra |= texts  # type: ignore[operator]
    if field._details is not None:
        info.metadata.extend(field._details.notes)
    return read_info(field.name, info, field.annotation if type_ is None else type_)


def to_info(field: Field) -> FieldInfo:
    """The field as pydantic sees it, with all that DSPy keeps beside it.

    It stands in the order of a field of DSPy's that was given the same: optimizers show it to an LM.
    """
    plain_desc, _ = field._is_plain
    extra: dict[str, Any] = {} if field._details is None else dict(field._details.extra)
    if field._marked:
        extra[UNTYPED] = not field.typed
    if not plain_desc:
        extra["desc"] = field.desc
    extra[KIND] = field.kind
    if field.constraints is not None:
        extra["constraints"] = field.constraints
    extra |= {"prefix": field.prefix, "desc": field.desc}
    settings = {} if field._details is None else field._details.settings
    info: FieldInfo = pydantic.Field(**settings, json_schema_extra=extra)
    return info


def annotated(field: Field) -> Any:
    """The annotation with its metadata of `Annotated`."""
    notes = () if field._details is None else field._details.notes
    return Annotated[field.annotation, *notes] if notes else field.annotation


def source(field: Field) -> str:
    """Code that makes the field again: a pair of type and field."""
    settings: dict[str, Any] = {}
    plain_desc, plain_prefix = field._is_plain
    if not plain_desc:
        settings["desc"] = field.desc
    if not plain_prefix:
        settings["prefix"] = field.prefix
    type_ = field._type_source
    if field._details is not None:
        settings |= field._details.settings
        if field._details.notes:
            type_ = f"Annotated[{type_}, {', '.join(map(note_source, field._details.notes))}]"
    if field._marked and not field.typed:
        settings[UNTYPED] = True
    call = "InputField" if field.kind == "input" else "OutputField"
    return f"({type_}, {call}({arguments_source(settings)}))"


def updates(field: Field) -> dict[str, Any]:
    """What `source` cannot say, for `with_updated_fields`."""
    settings, rest = (
        ({}, {}) if field._details is None else (field._details.settings, dict(field._details.extra))
    )
    if field.constraints != _constraints(settings):
        rest["constraints"] = field.constraints
    return rest


def check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise SignatureError(
            f"{name!r} cannot name a field",
            code="field-name",
            hint="a name is an identifier of Python, not a keyword",
        )
    if name.startswith("_"):
        raise SignatureError(
            f"{name!r} starts with an underscore", code="underscore-name", hint="drop the underscore"
        )
    if name in _RESERVED:
        raise SignatureError(
            f"{name!r} cannot name a field",
            code="reserved-name",
            hint="DSPy's signature class has an attribute of that name; choose another",
        )


def _check_type(name: str, annotation: Any) -> Any:
    _refuse(name, problem(annotation))
    return annotation


def _refuse(name: str, found: Problem | None) -> None:
    if found is not None:
        raise SignatureError(
            f"the type of field {name!r} cannot be used: {found.message}",
            code="unsupported-type" if found.is_type else "not-a-type",
            hint=found.hint,
        )


def _half(key: str, name: str) -> SignatureError:
    return SignatureError(
        f"{key} of field {name!r} holds half of a surrogate pair, which is not a character",
        code="lone-surrogate",
        hint='repair it, for example with `text.encode("utf-8", "replace").decode()`',
    )


def _texts_in(value: Any) -> Iterator[str]:
    """The texts of a value that JSON can hold, at any depth."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, (list, tuple, dict)) and id(one) not in seen:
            seen.add(id(one))  # it may hold itself
            waiting += (*one, *one.values()) if isinstance(one, dict) else one


def _text(name: str, key: str, text: Any) -> str | None:
    if text is None:
        return None
    if isinstance(text, str):
        if has_lone_surrogate(text):
            raise _half(key, name)
        return text
    raise SignatureError(
        f"{key} of field {name!r} is a value of class {type(text).__name__}",
        code="field-text",
        hint=f"{key} is a string",
    )
