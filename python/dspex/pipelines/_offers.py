"""Fields as the compiler keeps them: who gives what, where it is, and whether anybody uses it."""

from __future__ import annotations

from typing import Any, NamedTuple

from dspex.errors import PipelineError

__all__ = ["Given", "Notes", "Offer"]


class Notes:
    """What is noticed on the way through all blocks."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.warnings: list[str] = []
        self.offers: list[Offer] = []

    def warn(self, error: PipelineError) -> None:
        """What looks wrong; where that was asked for, it is an error."""
        if self.strict:
            raise error
        self.warnings.append(f"{error.step}: {error.message}; {error.hint}")

    def unused(self) -> None:
        for offer in self.offers:
            inside = any(each.used for each in offer.inside)  # by what the step itself does
            if not (offer.used or offer.aside or offer.exported or inside):
                self.warn(
                    PipelineError(
                        f"nothing uses the field {offer.name!r}",
                        code="unused-output",
                        hint="take it in a later step, name it in outputs=, or leave it out",
                        step=offer.by,
                    )
                )


class Offer:
    """A field that is there.

    Attributes:
        name: Its name.
        kind: Its type.
        slot: Where it is.
        by: The path of the step that gives it; empty for an input.
        aside: Whether nobody has to use it.
        only: When it is there, where that is not certain; empty where it is.
        used: Whether something takes it.
        exported: Whether it leaves its block.
        inside: The offers that it is made of.
    """

    __slots__ = ("aside", "by", "exported", "inside", "kind", "name", "only", "slot", "used")

    def __init__(
        self,
        name: str,
        kind: Any,
        slot: int,
        by: str = "",
        *,
        aside: bool = False,
        only: str = "",
        inside: tuple[Offer, ...] = (),
    ) -> None:
        self.name, self.kind, self.slot, self.by = name, kind, slot, by
        self.aside, self.only, self.inside = aside, only, inside
        self.used = self.exported = False

    def use(self) -> None:
        if not self.used:
            self.used = True
            for offer in self.inside:
                offer.use()


class Given(NamedTuple):
    """What a node gives, before it has slots; `source` is what the node itself calls it."""

    kind: Any
    aside: bool = False
    only: str = ""
    inside: tuple[Offer, ...] = ()
    source: str = ""
