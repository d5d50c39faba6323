"""A worker leads a process group of its own, so that what it started can be ended with it."""

from __future__ import annotations

import contextlib
import os
import signal

__all__ = ["kill_group"]


def kill_group(pid: int) -> None:
    """Kill what is left of a process's group.

    Call it before the process is reaped: afterwards its id may be another's.

    Args:
        pid: The process's id, which is its group's too.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
