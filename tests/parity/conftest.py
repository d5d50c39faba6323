"""What differential tests share, and how long one may take: thousands of calls of DSPy, on a busy machine."""

from __future__ import annotations

import os

import pytest
from tests.support.models import runtime, said

__all__ = ["runtime", "said"]

SECONDS = {"brief": 600, "ci": 1_200, "parity": 7_200}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    seconds = SECONDS[os.environ.get("HYPOTHESIS_PROFILE", "ci")]
    for item in items:
        if str(item.path).startswith(here) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(seconds))
