"""What is told of sessions: `dspex.session.*`; see `docs/telemetry.md`."""

from __future__ import annotations

from typing import Literal

from dspex import _listeners

__all__ = ["SessionEvent", "tell"]

SessionEvent = Literal["created", "resumed", "moved", "recovered", "parked", "expired", "ended", "lost"]


def tell(event: SessionEvent, session_id: str, **attributes: str | int | float | bool) -> None:
    """Tell of a session, if anybody listens."""
    if not _listeners.given:
        return
    from dspex.telemetry import _handlers
    from dspex.telemetry._event import make

    name = f"dspex.session.{event}"
    if _handlers.wanted(name):
        _handlers.tell(make(name, {"session": session_id, **attributes}))
