"""What an operation may need that not every target has: a bit for each, by which the core compares them.

A target says what it lacks, an operation what it needs, each once; the router's decision is one `&`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from dspex.errors import ConfigError, did_you_mean

__all__ = [
    "ADAPTER",
    "CODES",
    "DIALECT",
    "HERE",
    "MODEL",
    "MODULE",
    "TOOLS",
    "bits_of",
    "codes_of",
    "of_adapter",
    "of_model",
]

MODULE: Final = 1
"""A module, a program or an optimizer that only real DSPy has."""
ADAPTER: Final = 2
"""An adapter that only real DSPy has."""
MODEL: Final = 4
"""A model that only real DSPy speaks to."""
DIALECT: Final = 8
"""Prompts of a version of DSPy that dspex does not know."""
HERE: Final = 16
"""A model that lives in this process."""
TOOLS: Final = 32
"""Native calls of tools."""

CODES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "module-needs-dspy": MODULE,
        "adapter-needs-dspy": ADAPTER,
        "lm-needs-dspy": MODEL,
        "unknown-dspy": DIALECT,
        "lm-not-for-workers": HERE,
        "native-tools": TOOLS,
    }
)
"""Each need by the code of the error that a target without it would raise."""


def codes_of(bits: int) -> tuple[str, ...]:
    """The codes of these needs."""
    return tuple(code for code, bit in CODES.items() if bits & bit)


def bits_of(codes: Iterable[str]) -> int:
    """The bits of these codes.

    Raises:
        ConfigError: If there is no such need (`bad-routing`).
    """
    bits = 0
    for code in codes:
        if code not in CODES:
            raise ConfigError(
                f"there is no need {code!r} that a target could lack",
                code="bad-routing",
                hint=did_you_mean(code, CODES).strip() or f"there are {', '.join(CODES)}",
            )
        bits |= CODES[code]
    return bits


def of_adapter(adapter: Any) -> int:
    """What an adapter needs of a target."""
    bits = 0 if adapter.refusal() is None else ADAPTER
    if adapter.dialect is None:
        bits |= DIALECT
    return bits | TOOLS if adapter.use_native_function_calling else bits


def of_model(lm: Any) -> int:
    """What a language model needs of a target."""
    refusal = getattr(lm, "refusal", None)
    bits = 0 if refusal is None or refusal() is None else MODEL
    return bits if hasattr(lm, "settings_for_worker") else bits | HERE
