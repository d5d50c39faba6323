"""A process at the other end of a memory socket: `python -m tests.support.memory_peer ROLE DESCRIPTOR`.

It says on its standard output how far it has come, a line at a time, and then waits to be killed, or for the
end of its standard input.
"""

from __future__ import annotations

import os
import socket
import sys

import numpy as np

from dspex._segments import SharedSegment
from dspex.protocol.memory_receiver import Receiver
from dspex.protocol.memory_sender import Sender

MIB = 1024 * 1024
SIZE = 16 * MIB


def send(sender: Sender) -> None:
    """Pass a segment, with content, and write no frame."""
    placed = sender.put([b"s" * SIZE])
    assert placed is not None
    say(placed.number)


def share(sender: Sender) -> None:
    shared = SharedSegment([b"s" * SIZE])
    say(sender.share(shared))
    sys.stdin.read()


def read(receiver: Receiver) -> None:
    """Read segment 1, and hold it."""
    say("ready")
    sys.stdin.readline()
    (view,) = receiver.views(1, [(0, SIZE)])
    array = np.frombuffer(view, dtype="u1")
    del view
    say(int(array[-1]))
    sys.stdin.read()


def fork(sender: Sender, receiver: Receiver, released: list[int]) -> None:
    """In a forked child neither end does anything, and what the child lets go of is not released."""
    say("ready")
    sys.stdin.readline()
    held = [receiver.views(1, [(0, SIZE)])]
    placed = sender.place([1])
    assert placed is not None
    child = os.fork()
    if child == 0:
        held.clear()
        refused = sender.place([1]) is None and sender.put([b"x"]) is None
        shared = sender.share(SharedSegment([b"x"]))
        sender.trim()
        os._exit(0 if refused and shared is None and not released else 1)
    _, status = os.waitpid(child, 0)
    say(os.waitstatus_to_exitcode(status), released, sender.place([1]) is not None)
    held.clear()
    say(released)


def say(*what: object) -> None:
    print(*what, flush=True)


def main() -> None:
    role, descriptor = sys.argv[1:]
    sock = socket.socket(fileno=int(descriptor))
    released: list[int] = []
    sender = Sender(sock, keep=64 * MIB, limit=256 * MIB)
    receiver = Receiver(sock, on_release=released.append, limit=256 * MIB)
    if role == "send":
        send(sender)
    elif role == "share":
        share(sender)
    elif role == "read":
        read(receiver)
    elif role == "both":
        send(sender)
        read(receiver)
    elif role == "fork":
        fork(sender, receiver, released)
    sys.stdin.read()


main()
