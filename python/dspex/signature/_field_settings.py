"""`FieldSettings`: what `InputField` and `OutputField` take."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, SupportsFloat, TypedDict

__all__ = ["FieldSettings"]


class FieldSettings(TypedDict, total=False):
    """The settings of a field. What is here besides `desc` is `pydantic.Field`'s."""

    desc: str
    description: str
    default: Any
    default_factory: Callable[[], Any]
    examples: Sequence[Any]
    title: str
    alias: str
    discriminator: str
    # constraints: written into the prompt, and enforced by validation
    gt: SupportsFloat
    ge: SupportsFloat
    lt: SupportsFloat
    le: SupportsFloat
    multiple_of: float
    min_length: int
    max_length: int
    pattern: str | re.Pattern[str]
    allow_inf_nan: bool
    max_digits: int
    decimal_places: int
    strict: bool
    union_mode: Literal["smart", "left_to_right"]
    fail_fast: bool
    coerce_numbers_to_str: bool
    # DSPy's older ones, which change no prompt
    prefix: str
    format: Callable[[Any], str]
    parser: Callable[[str], Any]
