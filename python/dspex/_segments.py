"""Segments: memory that one process fills and others read, passed between them as a descriptor (Linux).

A segment is a memfd, a file that no directory has: when the last process that maps it, holds it or has it in
the queue of a socket has ended, however it ended, it is gone. Its seals are what a reader relies on:

- It never shrinks. Reading a page that a file has lost is a signal that ends the process, so a descriptor
  without this seal is not mapped.
- Only the mapping that its maker had before can write to it (`create`), or nothing can (`SharedSegment`).

The seals make faults harmless, not a peer that means harm: who made a segment may write to it while it is
read. What is read from one is data; what says how to read it belongs into the frame.
"""

from __future__ import annotations

import errno
import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dspex._core import Region
from dspex.errors import WireError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "ALIGNMENT",
    "PassedSegment",
    "Peer",
    "SharedSegment",
    "bytes_of",
    "check_passed",
    "create",
    "laid_out",
]

ALIGNMENT: Final = 64
"""Parts of a segment begin at multiples of this, as Arrow advises for its buffers."""

_NAME: Final = "dspex"

# What `fcntl` does not name in every version of Python, and not on every system.
_F_ADD_SEALS: Final = 1033
_F_GET_SEALS: Final = 1034
_SEAL: Final = 0x01
_SHRINK: Final = 0x02
_GROW: Final = 0x04
_WRITE: Final = 0x08
_FUTURE_WRITE: Final = 0x10
_MFD_NOEXEC_SEAL: Final = 0x08

_NUMBERS: Final = itertools.count(1)


def laid_out(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Where parts of these sizes begin in a segment, and how long it must be for all of them."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end


def bytes_of(part: Buffer) -> memoryview:
    """A part of a segment as plain bytes.

    Raises:
        TypeError: If it is no buffer, or its bytes do not lie one after the other.
    """
    view = memoryview(part)
    # An empty array has a shape that cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def create(size: int, parts: Iterable[memoryview] = (), offsets: Iterable[int] = ()) -> tuple[int, Region]:
    """A new segment: its descriptor, and the one mapping that can ever write to it.

    Args:
        size: Bytes. Only those that are written take memory.
        parts: What it holds at first. Pages that are new are written by the kernel in half of the time that
            they take through a mapping, each of whose pages is found missing, and zeroed first.
        offsets: Where each of them begins.

    Raises:
        OSError: If the system has no descriptor, no memory, or no such segments.
    """
    descriptor = _memfd(size)
    try:
        _write(descriptor, parts, offsets)
        region = Region(descriptor, size, writable=True)
        _add_seals(descriptor, _SHRINK | _GROW | _FUTURE_WRITE | _SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, region


class PassedSegment(NamedTuple):
    """A segment that another process has passed.

    Attributes:
        region: Its pages, which cannot be written to.
        size: Its bytes.
        fixed: Whether nothing can write to it any more, its maker included.
    """

    region: Region
    size: int
    fixed: bool


def check_passed(descriptor: int, limit: int) -> PassedSegment:
    """Map a segment that another process has passed, if it is one. The descriptor stays open.

    Args:
        descriptor: Its descriptor.
        limit: Bytes it may have.

    Raises:
        WireError: If the descriptor is of something else, its seals are not those of a segment, it is empty,
            or beyond the limit (`bad-frame`).
        OSError: If it cannot be mapped.
    """
    import fcntl

    try:
        seals = fcntl.fcntl(descriptor, _F_GET_SEALS)
    except OSError as err:
        raise WireError("what was passed as a segment is none", code="bad-frame") from err
    if seals & (_SHRINK | _GROW) != _SHRINK | _GROW or not seals & (_WRITE | _FUTURE_WRITE):
        raise WireError(f"a segment was passed with the seals {seals:#x}", code="bad-frame")
    size = os.fstat(descriptor).st_size
    if not 0 < size <= limit:
        raise WireError(
            f"a segment of {size} bytes was passed; {limit} may be",
            code="bad-frame",
            hint="both sides of a connection must have the same limit of shared memory",
        )
    return PassedSegment(Region(descriptor, size), size, bool(seals & _WRITE))


class Peer(Protocol):
    """One connection over which shared segments are passed."""

    def forget(self, key: int) -> None:
        """The shared segment with this key has ended. Called in any thread; it must not wait or raise."""
        ...


class SharedSegment:
    """Bytes that were written once, for any number of readers in any number of processes.

    It lives as long as something here refers to it; then the peers that have it are told. Views of it, here
    and there, live as long as they like.

    Args:
        parts: What it holds: buffers of bytes, one after the other, each aligned.

    Raises:
        OSError: If the system has no descriptor, no memory, or no such segments.

    Attributes:
        key: Its number in this process, which no other segment gets.
        size: Its bytes.
        sizes: Those of each part.
        offsets: Where each part begins.
    """

    def __init__(self, parts: Sequence[Buffer]) -> None:
        flat = [bytes_of(part) for part in parts]
        self.key = next(_NUMBERS)
        self.sizes = [len(part) for part in flat]
        self.offsets, end = laid_out(self.sizes)
        self.size = max(end, ALIGNMENT)
        self._descriptor = _filled(self.size, flat, self.offsets)
        self._peers: weakref.WeakSet[Peer] = weakref.WeakSet()
        self._end = weakref.finalize(self, _ended, self.key, self._descriptor, self._peers)
        self._end.atexit = False  # the system closes what is left, and peers see this process end
        self._region = Region(self._descriptor, self.size)

    def __repr__(self) -> str:
        return f"<SharedSegment {self.key}: {len(self.sizes)} parts, {self.size} bytes>"

    def views(self) -> list[memoryview]:
        """Its parts, read only: for this process, and for peers that no descriptor can be passed to."""
        whole = self._region.view()
        return [whole[at : at + size] for at, size in zip(self.offsets, self.sizes, strict=True)]

    def pass_to(self, peer: Peer, send: Callable[[int], bool]) -> bool:
        """Have `send` pass the descriptor to `peer`, which is told when the segment ends.

        Args:
            peer: Who gets it.
            send: Sends a descriptor, and says whether it could.

        Returns:
            Whether it could.
        """
        self._peers.add(peer)  # first: whatever comes in between, a peer that has it is told
        return send(self._descriptor)


def _ended(key: int, descriptor: int, peers: weakref.WeakSet[Peer]) -> None:
    os.close(descriptor)
    for peer in list(peers):
        peer.forget(key)


def _filled(size: int, parts: Iterable[memoryview], offsets: Iterable[int]) -> int:
    """A descriptor, for reading only, of a new segment that nothing can write to any more."""
    descriptor = _memfd(size)
    try:
        _write(descriptor, parts, offsets)
        _add_seals(descriptor, _SHRINK | _GROW | _WRITE | _SEAL)
        # Before Linux 6.7 a shared mapping is refused where nothing may write, unless the descriptor cannot.
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(descriptor)


def _write(descriptor: int, parts: Iterable[memoryview], offsets: Iterable[int]) -> None:
    for part, at in zip(parts, offsets, strict=True):
        done = 0
        while done < len(part):  # a write of more than 2 GiB stops there
            done += os.pwrite(descriptor, part[done:], at + done)


def _memfd(size: int) -> int:
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "this system has no memory that is passed by descriptor")
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create(_NAME, flags | _MFD_NOEXEC_SEAL)
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create(_NAME, flags)  # Linux before 6.3 does not know the flag
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _add_seals(descriptor: int, seals: int) -> None:
    import fcntl

    fcntl.fcntl(descriptor, _F_ADD_SEALS, seals)
