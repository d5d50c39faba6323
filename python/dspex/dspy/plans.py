"""Plans of the core for DSPy's signatures, which are classes that may be changed in place."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import dspy

from dspex import dialects
from dspex._core import Plan
from dspex.errors import SignatureError
from dspex.signature import Signature

__all__ = ["Plans"]


class Plans:
    """The plans of one layout, each compiled once and kept as long as its signature.

    Args:
        layout: The adapter's layout.
        tolerant: Whether replies are read with tolerance.
        markers: What becomes of values that hold field markers; see `dspex.adapters`.
        dialect: The version of DSPy whose prompts are written; by default the installed one's. There are no
            plans where dspex does not know that one.
    """

    def __init__(
        self, layout: str, *, tolerant: bool = False, markers: str = "dspy", dialect: str | None = None
    ) -> None:
        self._layout = layout
        self._tolerant = tolerant
        self._markers = markers
        self._dialect = dialects.chosen(dialect)
        self._known: WeakKeyDictionary[type, tuple[tuple[Any, ...], Plan | None]] = WeakKeyDictionary()

    def get(self, signature: type[dspy.Signature]) -> Plan | None:
        """The plan for a signature; None where the core cannot serve it."""
        if self._dialect is None:
            return None
        said = _said(signature)
        known = self._known.get(signature)
        if known is None or known[0] != said:
            try:
                plan = Plan(
                    Signature.of(signature),
                    self._layout,
                    tolerant=self._tolerant,
                    markers=self._markers,
                    dialect=self._dialect,
                )
            except SignatureError:
                plan = None
            known = self._known[signature] = (said, plan)
        return known[1]


def _said(signature: type[dspy.Signature]) -> tuple[Any, ...]:
    """All that a prompt says of a signature."""
    fields = signature.model_fields
    return (
        signature.__doc__,
        *((name, info.annotation, *info.json_schema_extra.items()) for name, info in fields.items()),
    )
