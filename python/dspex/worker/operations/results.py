"""What a module gives, as values that the wire carries."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import dspy
from pydantic import BaseModel

from dspex.protocol.values import to_wire

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """A value without classes of DSPy's, of numpy's or of a program's own.

    Predictions and examples become dicts of their fields, arrays lists; models, dataclasses and enums what
    crosses for them in inputs. What is none of these stays: the wire carries it or says that it cannot.
    """
    kind = type(value)
    if kind in (str, int, float, bool, type(None)):
        return value
    if isinstance(value, dspy.Example):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if kind in (list, tuple, set, frozenset):
        return kind(map(plain, value))
    if isinstance(value, BaseModel | enum.Enum) or (dataclasses.is_dataclass(value) and kind is not value):
        return to_wire(value)
    tolist = getattr(value, "tolist", None)  # arrays and numbers of numpy, which is not imported for it
    return value if tolist is None else plain(tolist())
