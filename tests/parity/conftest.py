"""How many generated cases the differential tests run: `ci` by default, `parity` for `make parity`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    # Explaining a failure traces every line of DSPy and pydantic, which takes minutes and says little.
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}

settings.register_profile("ci", settings(max_examples=1_500, **_COMMON))
settings.register_profile("parity", settings(max_examples=25_000, **_COMMON))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
