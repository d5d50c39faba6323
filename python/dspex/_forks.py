"""Whether this process is a fork of the one that something belongs to."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["OwnerProcess"]


class _Process:
    """Stands for the running process; a fork gets another. To compare it costs a tenth of `os.getpid`."""

    __slots__ = ("current",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.current = object()


_process: Final = _Process()

if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_process.renew)


class OwnerProcess:
    """The process that something was made in. A fork has a copy of it, without its threads."""

    __slots__ = ("_made_in", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._made_in = _process.current

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is a fork of it."""
        return self._made_in is not _process.current
