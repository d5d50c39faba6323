"""Looking at processes: who is left, what one may open, and waiting with a deadline for what must happen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable, Iterator

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


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """This process can open `count` more descriptors, and no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filled = [os.open("/dev/null", os.O_RDONLY)]
    while filled[-1] < highest:
        filled.append(os.dup(filled[0]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in filled:
            os.close(number)
