"""Heartbeats: what a worker's thread writes twice a second, and the service reads."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["BEAT", "BEAT_INTERVAL"]

BEAT: Final = struct.Struct("!IQ")
"""One heartbeat: its number, from 0, and the process's resident memory in bytes."""

BEAT_INTERVAL: Final = 0.5
"""Seconds between heartbeats. Two a second cost nothing and show a stall before a person notices it."""
