"""Signatures as data, and signatures made of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex import _core
from dspex.compiled._document import FieldPart, SignaturePart, refused
from dspex.compiled._types import settings_of, settings_to
from dspex.errors import SignatureError
from dspex.signature import Signature
from dspex.signature._fields import Details, FieldSpec, check_name, describe_field

if TYPE_CHECKING:
    from dspex.compiled._types import TypeReader, TypeTable
    from dspex.signature import Field

__all__ = ["part_of", "signature_of"]


def part_of(at: str, signature: Signature, types: TypeTable) -> SignaturePart:
    """A signature as data; the classes that it names go into the table.

    Raises:
        ConfigError: If a field is no data (`program-export`).
    """
    fields = [_field(f"{at}.{name}", field, types) for name, field in signature.fields.items()]
    return SignaturePart(instructions=signature.instructions, fields=fields)


def _field(at: str, field: Field, types: TypeTable) -> FieldPart:
    spec = describe_field(field)
    text, pipe_unions = types.text_of(at, spec.annotation)
    return FieldPart(
        name=spec.name,
        kind=spec.kind,
        type=text,
        pipe_unions=pipe_unions,
        typed=spec.typed,
        desc=spec.desc,
        prefix=spec.prefix,
        constraints=spec.constraints,
        settings={} if spec.details is None else settings_to(at, spec.details),
    )


def signature_of(at: str, part: SignaturePart, types: TypeReader, source: str) -> Signature:
    """The signature that the data describes.

    Raises:
        ConfigError: If it describes none (`program-file`).
    """
    specs = [_spec(f"{at}.fields[{place}]", field, types) for place, field in enumerate(part.fields)]
    try:
        for field in part.fields:
            check_name(field.name)
        return Signature(_core.build(specs, part.instructions, exact=True))
    except SignatureError as error:
        raise refused(source, [f"{at}: {error.message}"]) from None


def _spec(at: str, part: FieldPart, types: TypeReader) -> FieldSpec:
    annotation = types.read(at, part)
    settings: dict[str, Any] = settings_of(part, annotation)
    return FieldSpec(
        part.name,
        part.kind,
        annotation,
        part.typed,
        not part.typed,
        part.desc,
        part.prefix,
        part.constraints,
        "factory" if "default_factory" in settings else "value" if "default" in settings else "required",
        Details(settings, (), {}) if settings else None,
    )
