"""Settings of generated tests."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

__all__ = ["fewer"]


def fewer(times: int, *, least: int = 1, **more: Any) -> settings:
    """The profile's number of cases divided by `times`, for tests whose cases are costly.

    It is looked at when a module is imported, after `conftest` has chosen the profile.
    """
    profile = settings.default
    assert profile is not None
    return settings(profile, max_examples=max(least, profile.max_examples // times), **more)
