"""Signatures: named, typed inputs and outputs, and the instructions between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex._core import Field
from dspex.signature._value import CacheInfo, Limits, Signature, SignatureLike, SignatureMeta, Validation

if TYPE_CHECKING:
    from dspex.signature._fields import InputField, OutputField

__all__ = [
    "CacheInfo",
    "Field",
    "InputField",
    "Limits",
    "OutputField",
    "Signature",
    "SignatureLike",
    "SignatureMeta",
    "Validation",
]


def __getattr__(name: str) -> Any:
    # The two need pydantic, which a string signature does not.
    if name in ("InputField", "OutputField"):
        from dspex.signature import _fields as fields

        return getattr(fields, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
