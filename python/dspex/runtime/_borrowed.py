"""The language models that calls bring with them: closed with the runtime, or when there are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dspex.lm import LanguageModel

__all__ = ["MOST", "BorrowedModels"]

MOST: Final = 128
"""Models that are kept open between their calls. A service with one for each customer has more."""


class BorrowedModels:
    """Remembers which models calls have brought, and which of them no call is using.

    They are told apart by identity, as those of a user's own may compare as they like. A model that is closed
    stays usable: its next call opens its connections again.

    Args:
        most: How many may be open at once beyond those in use.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._in_use: dict[int, tuple[LanguageModel, int]] = {}
        self._idle: dict[int, LanguageModel] = {}  # the one that was used last comes last

    def take(self, lm: LanguageModel) -> None:
        """A call begins to use a model."""
        key = id(lm)
        self._idle.pop(key, None)
        _, users = self._in_use.get(key, (lm, 0))
        self._in_use[key] = lm, users + 1

    async def give_back(self, lm: LanguageModel) -> None:
        """A call has ended; a model that is one too many is closed."""
        key = id(lm)
        _, users = self._in_use.pop(key)
        if users > 1:
            self._in_use[key] = lm, users - 1
            return
        self._idle[key] = lm
        if len(self._idle) > self._most:
            await self._idle.pop(next(iter(self._idle))).aclose()

    def all(self) -> list[Any]:
        """All of them, to be closed."""
        return [lm for lm, _ in self._in_use.values()] + [*self._idle.values()]
