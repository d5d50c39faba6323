"""The session whose call is being made, for what is called in it on the way to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol

__all__ = ["SESSION", "SessionScope"]


class SessionScope(Protocol):
    """What a call in a session takes along."""

    def options_in(self, name: str, pool: Any) -> Mapping[str, Any]:
        """The options of a pool's call, by the name of the pool and itself: the session, and its place."""
        ...


SESSION: Final[ContextVar[SessionScope | None]] = ContextVar("dspex_session", default=None)
