"""Whether this process is a fork of the one that something belongs to."""

from __future__ import annotations

import os
from typing import Final
from weakref import WeakSet

__all__ = ["OwnerProcess"]


class OwnerProcess:
    """The process that something was made in. A fork has a copy of it, without its threads.

    The interpreter says when it forks, so that who asks with every call need not ask the system for the
    process's id, which takes 150 ns.

    Attributes:
        pid: The process's id.
        is_elsewhere: Whether this process is a fork of it.
    """

    __slots__ = ("__weakref__", "is_elsewhere", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.is_elsewhere = False
        _owners.add(self)


_owners: Final[WeakSet[OwnerProcess]] = WeakSet()


def _after_fork_in_child() -> None:
    for owner in _owners:
        owner.is_elsewhere = True


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
