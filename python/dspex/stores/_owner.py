"""Who has a run or a session, and whether that process is gone.

The name of an owner says host, process, and on Linux when the process started and in which boot and which
space of process numbers. By these a process of the same machine knows one that has died, and need not wait
until its lease ends. Of any other owner nothing is known.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["is_gone", "owner_here"]


def owner_here(part: str = "") -> str:
    """The name of this process as an owner: `host:pid`, and what makes sure of it.

    Args:
        part: Which part of the process, where it has several owners.
    """
    pid = os.getpid()
    return f"{socket.gethostname()}:{pid} {_started(pid)}@{_place()}" + (f"#{part}" if part else "")


def is_gone(owner: str | None) -> bool:
    """Whether the owner is a process of this machine that has ended; False where nobody knows."""
    who, _, when = (owner or "").partition("#")[0].partition(" ")
    host, _, pid = who.rpartition(":")
    started, _, place = when.partition("@")
    if not (started and place and pid.isdigit()) or host != socket.gethostname() or place != _place():
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When the process started, in ticks since the boot; empty if there is none, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _place() -> str:
    """This boot of this machine, and the space of process numbers in it; empty where they have no names."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""
