"""Signatures of payloads: read by the core, so that no text makes a worker import a module; then DSPy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dspy

from dspex._engine.plain import unpack
from dspex._engine.unions import with_bars
from dspex.errors import DspexError, SignatureError
from dspex.signature import Signature
from dspex.signature._names import only_given
from dspex.worker.operations.functions import find

__all__ = ["read", "signature_of"]


def read(text: str, payload: Mapping[str, Any]) -> Signature:
    """The signature that a text stands for; names in it are those of the payload's `types`, or well known."""
    types = {name: find(path) for name, path in (payload.get("types") or {}).items()}
    with only_given():
        return Signature(text, payload.get("instructions") or None, types=types)


def signature_of(payload: Mapping[str, Any]) -> type[dspy.Signature]:
    """DSPy's class for the signature of a payload.

    Raises:
        SignatureError: If its text cannot be read, or what the payload says of a field does not fit.
        ConfigError: If a type cannot be imported.
    """
    ours = read(payload["signature"], payload)
    for name, texts in (payload.get("fields") or {}).items():
        ours = ours.with_updated_fields(name, **texts)
    for part in ("bars", "defaults"):
        for name in payload.get(part) or {}:
            if name not in ours.fields:
                raise SignatureError(
                    f"there is no field {name!r}, of which $.{part} speaks",
                    code="no-such-field",
                    hint=f"the fields are: {', '.join(ours.fields)}",
                )
    made = ours.to_dspy()
    try:
        for name, bars in (payload.get("bars") or {}).items():
            made = made.with_updated_fields(name, type_=with_bars(made.fields[name].annotation, bars))
        for name, plain in (payload.get("defaults") or {}).items():
            made = made.with_updated_fields(name)  # a copy, which is ours to change
            made.fields[name].default = unpack(plain, made.fields[name].annotation)
    except DspexError:
        raise
    except Exception as error:
        raise SignatureError(
            f"the signature cannot be made: {error}", code="signature-refused-by-dspy", source=ours.text
        ) from error
    if payload.get("instructions") is not None:
        # DSPy takes the empty text for none at all; set afterwards it stays.
        made.instructions = payload["instructions"]
    return made
