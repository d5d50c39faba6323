"""Both ends of a memory socket in one process, and what shared memory a process has."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path

from dspex.protocol.memory import memory_pair
from dspex.protocol.memory_receiver import Receiver
from dspex.protocol.memory_sender import Sender

MIB = 1024 * 1024


class Link:
    """A sender and a receiver over one memory socket; what the receiver lets go of is kept in `released`."""

    def __init__(
        self, keep: int = 64 * MIB, limit: int = 256 * MIB, receiver_limit: int | None = None
    ) -> None:
        self.sockets = sockets()
        self.released: list[int] = []
        self.sender = Sender(self.sockets[0], keep=keep, limit=limit)
        self.receiver = Receiver(
            self.sockets[1], on_release=self.released.append, limit=receiver_limit or limit
        )

    def take_back(self) -> None:
        """Bring what was released to the sender, as RELEASE frames would."""
        numbers, self.released[:] = list(self.released), []
        self.sender.released(numbers)

    def cross(self, *contents: bytes) -> list[memoryview] | None:
        """Send parts; gives the receiver's views, None if they cannot be placed."""
        placed = self.sender.put(contents)
        if placed is None:
            return None
        ranges = [(at, len(content)) for at, content in zip(placed.offsets, contents, strict=True)]
        return self.receiver.views(placed.number, ranges)

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        for sock in self.sockets:
            sock.close()


def sockets() -> tuple[socket.socket, socket.socket]:
    ends = memory_pair()
    assert ends is not None
    return ends


def segments_of(process: int | str = "self") -> list[int]:
    """The inodes of the segments that a process maps or has a descriptor of, with repetition."""
    root = Path("/proc") / str(process)
    mapped = re.findall(r" (\d+) +/memfd:dspex\b", (root / "maps").read_text())
    held = []
    for entry in os.listdir(root / "fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(root / "fd" / entry).startswith("/memfd:dspex"):
                held.append(os.stat(root / "fd" / entry).st_ino)
    return [*map(int, mapped), *held]


def holders_of(inode: int) -> list[int]:
    """The processes of this user that have a segment."""
    holders = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and inode in segments_of(entry):
                holders.append(int(entry))
    return holders


def shared_memory() -> int:
    """Bytes of shared memory that this process has touched."""
    (kibibytes,) = re.findall(r"RssShmem:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) * 1024
