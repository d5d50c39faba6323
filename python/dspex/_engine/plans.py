"""Plans of the core for DSPy's signatures, which are classes that may be changed in place."""

from __future__ import annotations

from operator import is_
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import dspy

from dspex import dialects
from dspex._core import Plan
from dspex._engine.described import Described
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
        self._known: WeakKeyDictionary[type, _Known] = WeakKeyDictionary()

    def get(self, signature: type[dspy.Signature]) -> Plan | None:
        """The plan for a signature; None where the core cannot serve it."""
        if self._dialect is None:
            return None
        said = _said(signature)
        known = self._known.get(signature)
        if known is None or not known.holds(said):
            with Described() as described:
                plan = self._compile(signature)
            known = self._known[signature] = _Known(said, described, plan)
        return known.plan

    def _compile(self, signature: type[dspy.Signature]) -> Plan | None:
        try:
            return Plan(
                Signature.of(signature),
                self._layout,
                tolerant=self._tolerant,
                markers=self._markers,
                dialect=self._dialect,
            )
        except SignatureError:
            return None


class _Known(NamedTuple):
    """A plan, and what it was made of.

    Attributes:
        said: What the signature said.
        described: What types of DSPy's in it said.
        plan: The plan; None where there can be none.
    """

    said: tuple[Any, ...]
    described: Described
    plan: Plan | None

    def holds(self, said: tuple[Any, ...]) -> bool:
        # By identity: `Literal["x", "y"] == Literal["y", "x"]`, but a prompt shows them in order.
        return len(said) == len(self.said) and all(map(is_, said, self.said)) and self.described.still_holds()


def _said(signature: type[dspy.Signature]) -> tuple[Any, ...]:
    """All that a prompt or a reading takes from a signature."""
    said: list[Any] = [signature.__doc__]
    for name, info in signature.model_fields.items():
        said += (name, info.annotation, info.default, info.default_factory, *info.metadata)
        said += info.json_schema_extra.keys()
        said += info.json_schema_extra.values()
    return tuple(said)
