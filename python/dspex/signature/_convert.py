"""To DSPy's signature classes and back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dspex import _core
from dspex.errors import SignatureError
from dspex.signature._fields import annotated, read_info, to_info

if TYPE_CHECKING:
    import dspy

    from dspex.signature._value import Signature

__all__ = ["from_dspy", "to_dspy"]


def from_dspy(source: Any) -> Signature:
    """The signature that a DSPy class describes.

    Raises:
        SignatureError: If it is no such class.
    """
    from dspex.signature._value import Signature

    # Whoever has a class of DSPy's has imported DSPy.
    dspy: Any = sys.modules.get("dspy")
    if dspy is None or not isinstance(source, type) or not issubclass(source, dspy.Signature):
        raise SignatureError(
            f"{source!r} is not a signature",
            code="signature-source",
            hint="pass a string, a dict of fields, a dspex.Signature class or a dspy.Signature class",
        )
    given: Any = source
    specs = [read_info(name, info, info.annotation) for name, info in given.fields.items()]
    return Signature(_core.build(specs, given.instructions, exact=True))


def to_dspy(signature: Signature) -> type[dspy.Signature]:
    """DSPy's class with the same fields and instructions."""
    import dspy

    fields = {name: (annotated(field), to_info(field)) for name, field in signature.fields.items()}
    made: type[dspy.Signature] = dspy.Signature(fields, signature.instructions)
    # DSPy takes the empty text for none at all; set afterwards it stays.
    made.instructions = signature.instructions
    return made
