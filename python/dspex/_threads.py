"""Work that is not async, in a thread: what the service's side and a worker's have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["settled"]

T = TypeVar("T")


def settled(call: Callable[[], T]) -> T:
    """Run `call`; a `StopIteration` of its own becomes an error that a future can hold.

    A future refuses to hold one, and whoever waits for that future would wait for ever.

    Raises:
        RuntimeError: In place of the `StopIteration`.
    """
    try:
        return call()
    except StopIteration as err:
        raise RuntimeError(f"the function raised StopIteration({err.value!r})") from err
