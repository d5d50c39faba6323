"""Looking at processes: who is left, and waiting with a deadline for what must happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil


def children() -> list[psutil.Process]:
    """The processes this one has started, directly or not, that still run."""
    return [child for child in psutil.Process().children(recursive=True) if running(child)]


def running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait for `condition` to be true.

    Raises:
        TimeoutError: If it does not become true.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
