"""Signatures: named, typed inputs and outputs, and the instructions between them."""

from __future__ import annotations

from dspex._core import Field
from dspex.signature.value import Signature

__all__ = ["Field", "Signature"]
