"""Plans of the core for DSPy's signatures, which are classes that may be changed in place."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple
from weakref import ref

import dspy

from dspex import dialects
from dspex._core import Plan, has_parts, parts_of
from dspex._engine.described import Described
from dspex.errors import SignatureError
from dspex.signature import Signature

__all__ = ["Plans", "plans_of"]


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
        # By identity: a dictionary of weak keys makes and hashes a reference for each look.
        self._known: dict[int, _Known] = {}

    def get(self, signature: type[dspy.Signature]) -> Plan | None:
        """The plan for a signature; None where the core cannot serve it."""
        if self._dialect is None:
            return None
        key = id(signature)
        known = self._known.get(key)
        if known is None or not known.holds(signature):
            alive = ref(signature, lambda _: self._known.pop(key, None))
            doc, parts = signature.__doc__, parts_of(signature.__pydantic_fields__)
            with Described() as described:
                plan = self._compile(signature)
            known = self._known[key] = _Known(alive, doc, parts, described, plan)
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


@cache
def plans_of(layout: str, tolerant: bool, dialect: str | None = None) -> Plans:
    """The plans that all adapters with these settings share."""
    return Plans(layout, tolerant=tolerant, dialect=dialect)


class _Known(NamedTuple):
    """A plan, and what it was made of.

    Attributes:
        alive: The signature, as long as anybody else has it.
        doc: What its instructions were.
        parts: What its fields were made of.
        described: How types of DSPy's in it described themselves.
        plan: The plan; None where there can be none.
    """

    alive: ref[type[dspy.Signature]]
    doc: str | None
    parts: tuple[Any, ...]
    described: Described
    plan: Plan | None

    def holds(self, signature: type[dspy.Signature]) -> bool:
        """Whether the types of the signature describe themselves as they did then."""
        # By identity: `Literal["x", "y"] == Literal["y", "x"]`, but a prompt shows them in order.
        # The attribute is what pydantic's `model_fields` gives, which first looks who asks.
        return (
            signature.__doc__ is self.doc
            and has_parts(signature.__pydantic_fields__, self.parts)
            and self.described.still_holds()
        )
