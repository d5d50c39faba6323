"""Whether this process is a fork of the one that something belongs to."""

from __future__ import annotations

import os

__all__ = ["OwnerProcess"]


class OwnerProcess:
    """The process that something was made in. A fork has a copy of it, without its threads."""

    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.pid = os.getpid()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is a fork of it."""
        return os.getpid() != self.pid
