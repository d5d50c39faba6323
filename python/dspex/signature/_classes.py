"""The body of `class QA(dspex.Signature)`."""

from __future__ import annotations

import sys
import typing
from typing import Any, ClassVar, get_origin

from pydantic.fields import FieldInfo

from dspex import _core
from dspex.errors import SignatureError
from dspex.signature._fields import FieldSpec, describe_field, read_field

if typing.TYPE_CHECKING:
    from dspex.signature._value import Signature

__all__ = ["read_class"]


def read_class(
    name: str, bases: tuple[type, ...], namespace: dict[str, Any]
) -> tuple[Signature, tuple[str, ...]]:
    """The signature that a class body describes.

    Fields of the bases come first, and a field declared again keeps its place. The docstring is the
    instructions; without one the nearest base's are, and then DSPy's sentence made of the names.

    Args:
        name: The name of the class.
        bases: Its bases; those that are class signatures hand down their fields.
        namespace: What the body defined.

    Returns:
        The signature, and the names of its fields in the order of declaration, which a subclass that makes an
        output of an input goes by.

    Raises:
        SignatureError: If the body is not that of a signature.
    """
    from dspex.signature._value import Signature

    parents = [base.__dict__ for base in bases if "_value" in base.__dict__]
    specs: dict[str, FieldSpec] = {}
    for parent in reversed(parents):
        fields = parent["_value"].fields
        specs |= {key: describe_field(fields[key]) for key in parent["_declared"]}
    hints = _annotations(namespace)
    _refuse_other_values(name, namespace, hints)
    for key, annotation in hints.items():
        if not _is_class_var(annotation):
            specs[key] = _read(name, key, namespace.get(key), annotation)

    doc, exact = namespace.get("__doc__"), False
    if doc is None and parents:
        doc, exact = parents[0]["_value"].instructions, True
    # A docstring that is there and empty means no instructions at all; only its absence means the default.
    return Signature(_core.build(list(specs.values()), doc, exact=exact or doc == "")), tuple(specs)


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    """Fields to types, in DSPy's order: those with a value first, as they stand in the body."""
    # Python keeps annotations as a dict or, since 3.14, behind a function; a class knows how to read both.
    body = type(
        "_", (), {key: value for key, value in namespace.items() if key.startswith(("__ann", "__cond"))}
    )
    frame = sys._getframe(3)  # around the body, where the names of local classes are
    hints = typing.get_type_hints(body, frame.f_globals, dict(frame.f_locals), include_extras=True)
    ordered: dict[str, Any] = {}
    for key, value in namespace.items():
        if isinstance(value, FieldInfo):
            ordered[key] = hints.get(key)
    return ordered | {key: hint for key, hint in hints.items() if key not in ordered}


def _is_class_var(annotation: Any) -> bool:
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _read(cls: str, key: str, value: Any, annotation: Any) -> FieldSpec:
    if not isinstance(value, FieldInfo):
        raise SignatureError(
            f"field {key!r} of {cls} is not declared with InputField or OutputField",
            code="field-kind",
            hint=f"write {key}: ... = dspex.InputField() or dspex.OutputField()",
        )
    if annotation is None:
        return read_field(key, value, str)._replace(typed=False, marked=True)
    return read_field(key, value, annotation)


def _refuse_other_values(cls: str, namespace: dict[str, Any], hints: dict[str, Any]) -> None:
    """A value without an annotation is a field that lost its InputField; methods and the like may stay."""
    for key, value in namespace.items():
        if key in hints or key.startswith("__") or callable(value) or hasattr(value, "__get__"):
            continue
        raise SignatureError(
            f"{key!r} of {cls} is neither a field nor a method",
            code="field-kind",
            hint=f"write {key}: ... = dspex.InputField(), or annotate it with ClassVar",
        )
