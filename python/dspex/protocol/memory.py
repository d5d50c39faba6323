"""Shared memory for the large parts of frames: what both ends of a worker's memory socket agree on.

::

    Sender (either side)                                         Receiver (the other)

    place(sizes) -> segment 7, offsets, views to write to
      a new segment: NEW 7 + its descriptor  --memory socket-->  mapped once, when it is first asked for
    the frame says "segment 7, at 0, 4096"   --the socket----->  views(7, ...), read where they are
                                                                 the last view is let go of, in any thread:
    released([7]): idle, the next place uses it  <--RELEASE----  on_release(7)
    more is idle than is kept: GONE 7        --memory socket-->  unmapped

A segment belongs to one connection and direction. The sender alone numbers, reuses and ends segments; a
number is never used for another. It is in one of four states, and the one transition that the receiver makes
is its last view's end::

    new --place--> in use --RELEASE--> idle --place--> in use ...
                                        +--trimmed, or in the way of a new one--> gone

The end of a shared segment is no matter of states: it ends with the last `Shared` here, which may be before
the peer has read a frame that names it. So its GONE is a frame, behind those.

A descriptor is in the receiver's queue before the frame that names it is written, and a segment goes only
when it is idle, so that no frame on its way names it: neither side waits for the other, and the two sockets
need no common order. Whatever cannot be had (a descriptor, room in the queue, memory, a kernel with seals)
makes `place` give None, and the part goes over the socket like any other.

Descriptors are closed as soon as they are passed, or mapped: a connection with any number of segments holds
none but its socket and one spare.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

__all__ = ["GONE", "MESSAGE", "NEW", "memory_pair"]

MESSAGE: Final = struct.Struct("!BQ")
"""What goes over a memory socket, one a packet: what it is, and a segment's number."""

NEW: Final = 1
"""With a descriptor: frames may name that segment from now on."""

GONE: Final = 2
"""No frame names that segment any more, those on their way included."""


def memory_pair() -> tuple[socket.socket, socket.socket] | None:
    """The two ends of a memory socket, neither of them blocking; None where no memory passes that way.

    Raises:
        OSError: If no descriptor is left.
    """
    if not hasattr(os, "memfd_create") or not hasattr(socket, "send_fds"):
        return None
    # Packets: each descriptor stays with its number.
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends
