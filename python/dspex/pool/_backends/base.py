"""Where the workers of a pool run: the seam between a pool and what starts its processes.

::

    Pool --> Supervisor --> Worker --socket, heartbeats, end--> Handle      one worker
                              |                             ^
                              +------- launch -------> Launcher     one pool's way to start them
                                                          ^
                                                       Backend      a place: this machine, a cluster

A pool needs four things of a worker, wherever it runs: a connected stream socket that carries the
frames of `dspex.protocol`, heartbeats with its memory, word of its end, and a way to end it. How a worker
comes to be is the launcher's business; what it says is always `dspex.worker.server`'s.

`LocalProcesses` (`launch`) is the default. Workers that are started by somebody else and connect back over
TCP share `dialled`; `dspex.pool.ray` is made of it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dspex.pool._spec import PoolSpec

__all__ = ["Backend", "Handle", "Launcher"]


class Handle(Protocol):
    """One worker that has been started, as its pool holds it. All of it is used on the pool's loop."""

    @property
    def pid(self) -> int:
        """Its process id, where it runs."""
        ...

    @property
    def where(self) -> str:
        """The machine it runs on, for people: `"local"`, or a name or address."""
        ...

    @property
    def memory_socket(self) -> socket.socket | None:
        """The service's end of the socket that passes shared memory, as new; None for a worker without one.

        It is closed by `release`. A worker on another machine has none, nor has any where the system cannot
        pass memory.
        """
        ...

    @property
    def socket(self) -> socket.socket:
        """The service's end of its connection, not blocking; nothing has been read from it or sent."""
        ...

    @property
    def exited(self) -> asyncio.Future[int | None]:
        """Done when it has ended: its exit status, negative for a signal, None if it is unknown."""
        ...

    @property
    def output_closed(self) -> asyncio.Future[None]:
        """Done when nothing can be added to `tail` any more."""
        ...

    @property
    def last_beat(self) -> float:
        """When its last heartbeat arrived, on the loop's clock; before the first, when it was started."""
        ...

    @property
    def resident(self) -> int:
        """Bytes of memory it has, from its last heartbeat."""
        ...

    def on_beat(self, heard: Callable[[], None]) -> None:
        """Call `heard` after every heartbeat from now on."""
        ...

    def tail(self) -> str:
        """The last lines it wrote to its standard output and error."""
        ...

    def terminate(self) -> None:
        """Tell it to end, in a way it may heed or not. Nothing happens to one that has ended."""
        ...

    def kill(self) -> None:
        """End it, in a way it cannot prevent. Nothing happens to one that has ended."""
        ...

    def release(self) -> None:
        """Close what was opened for it. Called once, when it has ended or the pool does not wait for that."""
        ...


class Launcher(Protocol):
    """How the workers of one pool come into being."""

    async def launch(self) -> Handle:
        """Start a worker that waits for HELLO. Cancelled, it leaves nothing behind.

        Raises:
            OSError: If the system refuses.
            WorkerStartError: If it cannot be started for another reason.
        """
        ...

    def output(self) -> str:
        """The last lines of what launches, for the error of a launch that failed."""
        ...

    async def aclose(self) -> None:
        """Let go of what launching needed. The workers go on."""
        ...


class Backend(Protocol):
    """A place where workers run. One may serve several pools."""

    def describe(self) -> Mapping[str, str]:
        """What it is, for people: `backend` is its name, the rest its own."""
        ...

    def launcher(self, spec: PoolSpec) -> Launcher:
        """What starts the workers of a pool. Called on the loop the pool runs on, when it starts.

        Raises:
            ConfigError: If a setting of the pool cannot be had here.
        """
        ...
