"""Waiting for what a store's thread does: to its end, also for a caller who is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import TypeVar

from dspex.errors import StoreError

__all__ = ["outcome_of"]

T = TypeVar("T")


async def outcome_of(
    job: concurrent.futures.Future[T], seconds: float, no_answer: Callable[[], StoreError]
) -> T:
    """What a job came to. A cancellation is passed on when it has happened, or has not.

    Args:
        job: The job, in another thread.
        seconds: How long to wait.
        no_answer: Makes the error if that is over.
    """
    waiting = asyncio.wrap_future(job)
    until = time.monotonic() + seconds
    cancelled = False
    try:
        while not waiting.done():
            left = until - time.monotonic()
            if left <= 0:
                raise no_answer()
            try:
                await asyncio.wait([waiting], timeout=left)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            waiting.exception()  # nobody asks for it any more
            raise asyncio.CancelledError
        return waiting.result()
    finally:
        del waiting, job  # they hold what the job raised, whose frames hold this one
