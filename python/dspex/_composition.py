"""`a | b` and `a & b`: modules, functions and steps written side by side, as data.

`dspex.pipeline` makes steps of it. The operators live here, below modules, because a module has them too:
`dspex.Predict("question -> query") | search` says what follows what, and nothing more until it is compiled.
`&` binds tighter than `|`, so `a & b | c` runs both before `c`.
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["Composable", "Composition"]


class Composable:
    """What can be written with `|` and `&`; the other side may be a plain function."""

    __slots__ = ()

    def __or__(self, after: Any) -> Composition:
        """This, then `after`."""
        made: Composition = Composition.of("|", self, after)
        return made

    def __ror__(self, before: Any) -> Composition:
        """`before`, then this."""
        made: Composition = Composition.of("|", before, self)
        return made

    def __and__(self, beside: Any) -> Composition:
        """This and `beside`, side by side."""
        made: Composition = Composition.of("&", self, beside)
        return made

    def __rand__(self, beside: Any) -> Composition:
        """`beside` and this, side by side."""
        made: Composition = Composition.of("&", beside, self)
        return made


class Composition(Composable):
    """Parts that run one after the other (`"|"`), or side by side (`"&"`). Immutable.

    Attributes:
        operator: Which of the two.
        parts: What was written, in order: modules, functions, steps, compositions of the other kind.
    """

    __slots__ = ("operator", "parts")

    operator: Literal["|", "&"]
    parts: tuple[Any, ...]

    @classmethod
    def of(cls, operator: Literal["|", "&"], left: Any, right: Any) -> Any:
        """Both as one; NotImplemented, which Python makes a `TypeError` of, where one cannot be a part."""
        if not (callable(left) or isinstance(left, Composable)):
            return NotImplemented
        if not (callable(right) or isinstance(right, Composable)):
            return NotImplemented
        made = cls()
        made.operator = operator
        made.parts = (*_parts(operator, left), *_parts(operator, right))
        return made

    def __repr__(self) -> str:
        shown = [f"({part!r})" if isinstance(part, Composition) else repr(part) for part in self.parts]
        return f" {self.operator} ".join(shown)


def _parts(operator: str, part: Any) -> tuple[Any, ...]:
    if isinstance(part, Composition) and part.operator == operator:
        return part.parts
    return (part,)
