"""A column of floats to another process, and a small reply: `python benches/bench_memory.py [runs]`.

Both ends are processes of their own; what is compared is how the bytes get from one to the other:

- `inline`: over the socket, as the body of a frame;
- `new, mapped`: a new segment for each frame, written through its mapping;
- `new, put`: a new segment for each frame, written by the kernel before it is mapped;
- `reused`: a segment that earlier frames used, which is what a connection comes to;
- `shared`: a segment that was shared before, and is named by the frame alone.

The reply is the column's last number, or the sum of all, for which every page must be read. Times are
medians; each is followed by its ratio to `inline`. On two shared cores, in a virtual machine, where a page
that is found missing costs more than elsewhere, the medians of three runs were, in milliseconds:

======= ====== ======= =========== ======== ====== ======
size    reply  inline  new, mapped new, put reused shared
======= ====== ======= =========== ======== ====== ======
1 MiB   last      0.22        1.19     0.72   0.13   0.03
16 MiB  last      4.85        17.0      9.2   1.82   0.04
128 MiB last       119         130       72   16.1   0.10
1 MiB   sum       0.24        1.30     0.86   0.15   0.08
16 MiB  sum       5.76        21.0     13.9   2.69   0.95
128 MiB sum        130         154      101   20.1   7.07
======= ====== ======= =========== ======== ====== ======

So segments are kept: a new one loses to the socket below some 100 MiB, and a reused one wins by more the
larger it is. Tried and taken out, each at 128 MiB: asking for all pages at once before they are written
(`MADV_POPULATE_WRITE`: 163 ms, and 24 for the copy), or before they are read (19 ms, which the reading
saves); allocating them with `posix_fallocate` (61 ms, and 136 for the copy); advising huge pages, which this
kernel does not give to memfds.
"""

from __future__ import annotations

import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dspex._segments import SharedSegment
from dspex.protocol.memory import memory_pair
from dspex.protocol.memory_receiver import Receiver
from dspex.protocol.memory_sender import Sender

MIB = 1024 * 1024
SIZES = (1, 16, 128)
LIMIT = 1024 * MIB
FRAME = struct.Struct("!BQQ?")
"""A frame: the memory socket, or `INLINE`; the segment; the column's bytes; whether the sum is asked for."""
INLINE = 255
REPLY = struct.Struct("!d")


def serve(frames: socket.socket, *memory: socket.socket) -> None:
    """Answer frames: each answer says that the frame's segment is free."""
    receivers = [Receiver(sock, on_release=lambda number: None, limit=LIMIT) for sock in memory]
    while head := frames.recv(FRAME.size, socket.MSG_WAITALL):
        which, number, size, whole = FRAME.unpack(head)
        body: memoryview | bytearray
        if which != INLINE:
            (body,) = receivers[which].views(number, [(0, size)])
        else:
            body = bytearray(size)
            frames.recv_into(body, size, socket.MSG_WAITALL)
        column = np.frombuffer(body)
        answer = float(column.sum() if whole else column[-1])
        del body, column
        frames.sendall(REPLY.pack(answer))


class Ways:
    """The ways to a process of its own; each sends a column and gives the reply."""

    def __init__(self, column: Any, whole: bool) -> None:
        pairs = [socket.socketpair(), memory_pair(), memory_pair()]
        self.frames, *memory = (pair[0] for pair in pairs if pair is not None)
        there = [pair[1] for pair in pairs if pair is not None]
        numbers = [end.fileno() for end in there]
        self.peer = subprocess.Popen([sys.executable, __file__, "peer", *map(str, numbers)], pass_fds=numbers)
        for end in there:
            end.close()
        self.memory = memory
        self.column = memoryview(column).cast("B")
        self.whole = whole
        self.anew = Sender(memory[0], keep=0, limit=LIMIT)
        self.kept = Sender(memory[1], keep=LIMIT, limit=LIMIT)
        self.segment = SharedSegment([column])
        self.ways: dict[str, Callable[[], float]] = {
            "inline": self.inline,
            "new, mapped": self.mapped,
            "new, put": self.put_anew,
            "reused": self.reused,
            "shared": self.shared,
        }

    def inline(self) -> float:
        self.frames.sendall(FRAME.pack(INLINE, 0, len(self.column), self.whole))
        self.frames.sendall(self.column)
        return self.reply()

    def mapped(self) -> float:
        placed = self.anew.place([len(self.column)])
        assert placed is not None
        placed.parts[0][:] = self.column
        answer = self.ask(0, placed.number)
        del placed
        self.anew.released([self.anew._last])
        return answer

    def put_anew(self) -> float:
        placed = self.anew.put([self.column])
        assert placed is not None
        answer = self.ask(0, placed.number)
        del placed
        self.anew.released([self.anew._last])
        return answer

    def reused(self) -> float:
        placed = self.kept.put([self.column])
        assert placed is not None
        answer = self.ask(1, placed.number)
        self.kept.released([placed.number])
        return answer

    def shared(self) -> float:
        number = self.kept.share(self.segment)
        assert number is not None
        return self.ask(1, number)

    def ask(self, which: int, number: int) -> float:
        self.frames.sendall(FRAME.pack(which, number, len(self.column), self.whole))
        return self.reply()

    def reply(self) -> float:
        (answer,) = REPLY.unpack(self.frames.recv(REPLY.size, socket.MSG_WAITALL))
        return float(answer)

    def close(self) -> None:
        self.frames.close()
        self.peer.wait(60)
        for sender, sock in zip((self.anew, self.kept), self.memory, strict=True):
            sender.close()
            sock.close()


def measure(runs: int) -> None:
    for whole in (False, True):
        for size in SIZES:
            column = np.random.default_rng(1).random(size * MIB // 8)
            ways = Ways(column, whole)
            wanted = float(column.sum() if whole else column[-1])
            times: dict[str, list[float]] = {name: [] for name in ways.ways}
            for way in [*ways.ways.values()] * 2:
                assert abs(way() - wanted) <= 1e-9 * abs(wanted)
            for _ in range(runs):  # in turn, so that a disturbance meets all of them
                for name, way in ways.ways.items():
                    begun = time.perf_counter()
                    way()
                    times[name].append((time.perf_counter() - begun) * 1e3)
            medians = {name: statistics.median(each) for name, each in times.items()}
            row = "   ".join(
                f"{name} {median:7.2f} ({median / medians['inline']:.2f})" for name, median in medians.items()
            )
            print(f"{size:4} MiB, {'sum ' if whole else 'last'}  {row}", flush=True)
            ways.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        serve(*(socket.socket(fileno=int(number)) for number in sys.argv[2:]))
    else:
        measure(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
