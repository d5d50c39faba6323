"""How a prompt describes a field whose type Rust does not know: an enum, a model, a type of DSPy's."""

from __future__ import annotations

import enum
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from dspex._engine.described import note_description
from dspex.errors import SignatureError

__all__ = ["describe", "describe_notes", "is_dspy_type", "is_text"]


def _dspy_class(module: str, name: str) -> Any:
    """A class of DSPy's if DSPy is loaded; None if not: no annotation can be one then."""
    return getattr(sys.modules.get(f"dspy.adapters.types.{module}"), name, None)


def _is_subclass(annotation: Any, base: Any) -> bool:
    try:
        return base is not None and inspect.isclass(annotation) and issubclass(annotation, base)
    except TypeError:  # a generic alias that passes for a class
        return False


def is_dspy_type(annotation: Any) -> bool:
    """Whether the annotation is a subclass of `dspy.Type`."""
    return _is_subclass(annotation, _dspy_class("base_type", "Type"))


def is_text(annotation: Any) -> bool:
    """Whether what a model writes for the type is its text, as it stands."""
    return _same(annotation, _dspy_class("reasoning", "Reasoning"))


def describe(name: str, is_output: bool, annotation: Any) -> tuple[str, str, bool, bool]:
    """What only Python can say of a field.

    Args:
        name: The field's name.
        is_output: Whether it is an output.
        annotation: Its type.

    Returns:
        The note beside an output field, the text about its types that follows the description, whether it
        holds the turns of a conversation, and whether it holds calls of tools.

    Raises:
        SignatureError: If no JSON schema can be made of an output field's type.
    """
    return (
        _note(name, annotation) if is_output else "",
        "".join(_about(cls) for cls in _custom_types(annotation)),
        not is_output and _same(annotation, _dspy_class("history", "History")),
        is_output and _same(annotation, _dspy_class("tool", "ToolCalls")),
    )


def describe_notes(notes: Sequence[Any]) -> str:
    """The text about the types that stand beside a field's own in `Annotated`."""
    return "".join(_about(cls) for note in notes for cls in _custom_types(note))


def _same(annotation: Any, cls: Any) -> bool:
    return cls is not None and annotation is cls


def _custom_types(annotation: Any) -> list[Any]:
    """The types of DSPy's, or made of such, in an annotation."""
    if is_dspy_type(annotation):
        return [annotation]
    return [cls for arg in get_args(annotation) for cls in _custom_types(arg)]


def _about(cls: Any) -> str:
    text = cls.description()
    note_description(cls, text)
    name = "str" if cls is _dspy_class("reasoning", "Reasoning") else cls.__name__
    return f"\n    Type description of {name}: {text}" if text else ""


def _note(name: str, annotation: Any) -> str:
    if annotation is _dspy_class("reasoning", "Reasoning"):
        return ""
    if _is_subclass(annotation, enum.Enum):
        return "must be one of: " + "; ".join(str(member.value) for member in annotation)
    if get_origin(annotation) is Literal:
        choices = "; ".join(str(choice) for choice in get_args(annotation))
        return f"must exactly match (no extra characters) one of: {choices}"
    if _is_subclass(annotation, _dspy_class("code", "Code")) and annotation.description():
        return ""
    return f"must adhere to the JSON schema: {json.dumps(_schema(name, annotation), ensure_ascii=False)}"


def _schema(name: str, annotation: Any) -> Any:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return _type_first(TypeAdapter(annotation).json_schema())
    except PydanticUserError as error:
        raise SignatureError(
            f"pydantic can make no JSON schema of the type of the output field `{name}`: {error.message}",
            code="no-json-schema",
            hint="use a type that JSON can carry",
        ) from error


def _type_first(schema: Any) -> Any:
    """The schema with the keys of every mapping sorted, `type` before all others, as DSPy shows it."""
    if isinstance(schema, Mapping):
        keys = sorted(schema, key=lambda key: (key != "type", key))
        return {key: _type_first(schema[key]) for key in keys}
    return [_type_first(item) for item in schema] if isinstance(schema, list) else schema
