"""Preloaded by a worker in which optuna is not to be found."""

from __future__ import annotations

import sys

sys.modules["optuna"] = None  # type: ignore[assignment]
