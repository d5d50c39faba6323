"""`waiting`: what a call waits by, for as long as something is not to be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final

__all__ = ["waiting"]

waiting: Final[ContextVar[Callable[[float], Awaitable[object]]]] = ContextVar(
    "dspex_waiting", default=asyncio.sleep
)
"""What a call waits by before it is made again; tests take the waiting out of it."""
