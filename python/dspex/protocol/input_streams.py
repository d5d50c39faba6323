"""Input streams cross as host calls: the worker asks the service for parts under a name no user can give.

The worker's end is `dspex.worker.input_streams`, the service's `dspex.pool._input_streams`.
"""

from __future__ import annotations

__all__ = ["host_name"]


def host_name(stream: str) -> str:
    """Under which name the service answers for a stream. No host function of a user has a NUL in its name."""
    return f"\0stream {stream}"
