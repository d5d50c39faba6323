"""The values of sessions as a store keeps them: their bytes, their keys, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dspex import wire
from dspex.errors import ConfigError, SessionError, WireError
from dspex.wire import Classes

__all__ = ["HANDLE", "OBJECT", "STATE", "Values", "check_key"]

STATE: Final = "state:"
"""What the keys of a state begin with in the store."""
HANDLE: Final = "handle:"
"""Those of how an object is made."""
OBJECT: Final = "object:"
"""Those of an object's own state."""

MOST_OF_KEY: Final = 256


class Values:
    """Writes and reads values of one runtime's sessions.

    Args:
        classes: Modules whose classes they may be of.
        most: Bytes that one may have.
    """

    def __init__(self, classes: Sequence[str], most: int) -> None:
        self._classes = Classes(classes)
        self._most = most

    def dump(self, value: Any, what: str, session_id: str) -> bytes:
        """The bytes of a value.

        Args:
            value: The value.
            what: What it is, for an error.
            session_id: Whose it is.

        Raises:
            SessionError: If something in it cannot be kept (`state-not-kept`): its place and its type; or if
                it is too large (`state-too-large`).
        """
        try:
            data = wire.dumps(value, classes=self._classes)
        except WireError as error:
            raise SessionError(
                f"{what} of session {session_id!r} cannot be kept: {error.message}",
                code="state-not-kept",
                hint="keep plain values, or name the modules of its classes, SessionSettings(classes=(...,))",
                session_id=session_id,
            ) from error
        if len(data) > self._most:
            raise SessionError(
                f"{what} of session {session_id!r} is {len(data):,} bytes, and {self._most:,} is the limit",
                code="state-too-large",
                hint="keep the large part elsewhere and its address here, or raise value_bytes=",
                session_id=session_id,
            )
        return data

    def load(self, data: bytes) -> Any:
        """The value of bytes that `dump` made."""
        return wire.loads(data, classes=self._classes)


def check_key(key: Any) -> str:
    """A key of a state.

    Raises:
        ConfigError: If it is no text, or an empty or a very long one (`bad-session`).
    """
    if not isinstance(key, str) or not key or len(key) > MOST_OF_KEY:
        raise ConfigError(
            f"a key of a session is a text of 1 to {MOST_OF_KEY} characters: {key!r:.80}", code="bad-session"
        )
    return key
