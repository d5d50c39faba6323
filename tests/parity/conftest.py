"""How many generated cases the differential tests run.

`ci` by default, `parity` for `make parity`, `brief` for a second version of DSPy (`make parity-33`).
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

# LiteLLM otherwise fetches a table of prices over the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

_COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    # Explaining a failure traces every line of DSPy and pydantic, which takes minutes and says little.
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}

settings.register_profile("brief", settings(max_examples=120, **_COMMON))
settings.register_profile("ci", settings(max_examples=1_500, **_COMMON))
settings.register_profile("parity", settings(max_examples=25_000, **_COMMON))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

SECONDS = {"brief": 300, "ci": 600, "parity": 7_200}
"""How long one differential test may take, by profile: thousands of calls of DSPy, on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = os.path.dirname(__file__)
    seconds = SECONDS[os.environ.get("HYPOTHESIS_PROFILE", "ci")]
    for item in items:
        if str(item.path).startswith(here) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(seconds))
