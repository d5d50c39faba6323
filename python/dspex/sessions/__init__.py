"""Sessions: state that lives with a worker and outlives it; see docs/sessions.md.

`Runtime.session` makes and resumes them. What is here are the parts that a service names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex._lazy import names_of

if TYPE_CHECKING:
    from dspex.sessions._handles import Handle, Handles, Restore
    from dspex.sessions._history import History
    from dspex.sessions._options import SessionOptions, SessionSettings, WhenBusy
    from dspex.sessions._session import Session, current_session
    from dspex.sessions._state import State

__all__ = [
    "Handle",
    "Handles",
    "History",
    "Restore",
    "Session",
    "SessionOptions",
    "SessionSettings",
    "State",
    "WhenBusy",
    "current_session",
]

_HOMES = {
    "Handle": "dspex.sessions._handles",
    "Handles": "dspex.sessions._handles",
    "History": "dspex.sessions._history",
    "Restore": "dspex.sessions._handles",
    "Session": "dspex.sessions._session",
    "SessionOptions": "dspex.sessions._options",
    "SessionSettings": "dspex.sessions._options",
    "State": "dspex.sessions._state",
    "WhenBusy": "dspex.sessions._options",
    "current_session": "dspex.sessions._session",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
