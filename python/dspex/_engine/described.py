"""What types of DSPy's say of themselves in a prompt, which may change while a plan is kept."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Self

__all__ = ["Described", "note_description"]

_listening: ContextVar[list[tuple[Any, str]] | None] = ContextVar("dspex_described", default=None)


def note_description(cls: Any, text: str) -> None:
    """Tell the `Described` around, if there is one, how a type has described itself."""
    if (heard := _listening.get()) is not None:
        heard.append((cls, text))


class Described:
    """What types of DSPy's say of themselves while a plan is compiled, for as long as the plan is kept.

    ::

        with Described() as described:
            plan = Plan(...)
        ...
        if not described.still_holds():
            ...  # compile it again
    """

    def __init__(self) -> None:
        self._said: list[tuple[Any, str]] = []

    def __enter__(self) -> Self:
        self._token = _listening.set(self._said)
        return self

    def __exit__(self, *exc: object) -> None:
        _listening.reset(self._token)

    def still_holds(self) -> bool:
        """Whether they say the same today."""
        return not self._said or all(cls.description() == text for cls, text in self._said)
