"""How much time a call has, by a number of seconds or by the name of what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from dspex._timeouts import check_seconds
from dspex.errors import ConfigError

__all__ = ["DEADLINES", "Profile", "seconds_of"]

Profile = Literal["interactive", "batch", "optimizer"]

DEADLINES: Final[Mapping[str, float]] = {"interactive": 30.0, "batch": 600.0, "optimizer": 86_400.0}
"""Seconds a call has, by the name of what it is for: a person waits, nobody waits, a job runs."""


def seconds_of(timeout: float | str) -> float:
    """The seconds that a call's `timeout` says.

    Raises:
        ConfigError: If it says none.
    """
    if not isinstance(timeout, str):
        return check_seconds(timeout)
    if timeout in DEADLINES:
        return DEADLINES[timeout]
    try:
        return check_seconds(timeout)
    except ConfigError as err:
        profiles = ", ".join(map(repr, DEADLINES))
        raise ConfigError.from_other(err, hint=f"{err.hint}; or name a profile: {profiles}") from None
