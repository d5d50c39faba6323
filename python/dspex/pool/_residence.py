"""Where a pool lives: one process, one event loop and its thread."""

from __future__ import annotations

import asyncio
import threading
from asyncio import get_running_loop

from dspex._forks import OwnerProcess
from dspex.errors import PoolClosedError

__all__ = ["Residence"]


class Residence:
    """The process a pool was made in, and the event loop it was started on.

    Args:
        pool: The pool's name.
    """

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._owner = OwnerProcess()
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop, once the pool has been started."""
        self.thread = 0
        """The thread that runs it."""

    def move_in(self) -> None:
        """Live on the running loop from now on."""
        self.loop = get_running_loop()
        self.thread = threading.get_ident()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is a fork of the pool's."""
        return self._owner.is_elsewhere

    @property
    def has_ended(self) -> bool:
        """Whether the event loop has been closed."""
        return self.loop is not None and self.loop.is_closed()

    def check_process(self) -> None:
        """Refuse to go on in a fork.

        Raises:
            PoolClosedError: If this is one.
        """
        if self._owner.is_elsewhere:
            raise PoolClosedError(
                f"pool {self._pool!r} belongs to process {self._owner.pid}; this is a fork of it",
                code="pool-forked",
                hint="make a pool after the fork",
            )

    def check(self) -> None:
        """Refuse to go on in a fork or on another event loop.

        Raises:
            PoolClosedError: If this is one.
        """
        if self._owner.is_elsewhere:  # asked with every call: not by way of `check_process`
            self.check_process()
        if get_running_loop() is not self.loop:
            raise PoolClosedError(
                f"pool {self._pool!r} belongs to another event loop",
                code="pool-other-loop",
                hint="call it on the loop it was started on, or through the Runtime",
            )
