"""`no_waiting`: calls that are made again at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from dspex.router import waiting

__all__ = ["no_waiting"]


@contextmanager
def no_waiting() -> Iterator[list[float]]:
    """Let the calls that are begun inside wait for nothing before they are made again.

    Yields:
        The seconds that they would have waited, as they come.

    Example:
        ```python
        with dspex.testing.no_waiting() as waited:
            prediction = predict(question="...")
        assert len(waited) == 1
        ```
    """
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(0)

    token = waiting.set(note)
    try:
        yield waited
    finally:
        waiting.reset(token)
