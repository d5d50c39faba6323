"""What ties a worker's life to the service's, from its first instant.

Three bonds, because each has a hole:

- the kernel's parent-death signal (Linux): instant, but it follows the *thread* that started the worker,
  and a forked worker's parent is not the service;
- a signal on hang-up of the lifeline pipe (Linux): instant, whoever the parent is, even while C code
  holds the interpreter;
- a thread that waits for the lifeline's end: everywhere, but it needs the interpreter lock. On Linux it waits
  for the end of the service's process as well, since a copy of the service that C code forked holds the other
  end of the lifeline, and then the lifeline does not end with the service.

The same thread writes the heartbeats, so a heartbeat shows that the process can still run Python, whatever
the work is doing.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import stat
import sys
import threading
from typing import Final, NamedTuple

from dspex.protocol.heartbeat import BEAT, BEAT_INTERVAL

__all__ = [
    "Descriptors",
    "die_with_parent",
    "kill_on_hangup",
    "watch_parent",
]

_PR_SET_PDEATHSIG: Final = 1
_F_SETSIG: Final = 10


class Descriptors(NamedTuple):
    """What a worker is given by number.

    Attributes:
        socket: Its connection, which carries frames.
        lifeline: What ends when the service does.
        heartbeat: Where its heartbeats go.
        memory: The socket for shared memory, None where the service has none.
    """

    socket: int
    lifeline: int
    heartbeat: int
    memory: int | None = None


def watch_parent(descriptors: Descriptors, *, service: int | None, parent: bool = False) -> None:
    """Tie this process to the service and start its heartbeat.

    Args:
        descriptors: The worker's descriptors.
        service: The service's process id; None where it is on another machine.
        parent: Whether the service started this process itself.
    """
    for number in descriptors:
        if number is not None:
            os.set_inheritable(number, False)  # what the work starts must not hold them
    if parent and service is not None:
        die_with_parent(service)
    kill_on_hangup(descriptors.lifeline)
    ends = [descriptors.lifeline]
    if service is not None and hasattr(os, "pidfd_open"):
        try:
            ends.append(os.pidfd_open(service))
        except ProcessLookupError:  # it is gone already
            os._exit(1)
        except OSError:  # a kernel or a sandbox without it: the lifeline is left
            pass
    threading.Thread(
        target=_heartbeat, args=(ends, descriptors.heartbeat), name="dspex-heartbeat", daemon=True
    ).start()


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux; nothing elsewhere).

    Args:
        parent: The process id of the process that did.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the signal was armed
        os._exit(1)


def kill_on_hangup(lifeline: int) -> None:
    """Have the kernel kill this process when the other end of a pipe closes (Linux; nothing elsewhere).

    A lifeline that is a socket has only the thread: the signal would also come for room to write.
    """
    if sys.platform != "linux" or not stat.S_ISFIFO(os.fstat(lifeline).st_mode):
        return
    import fcntl

    # Nobody writes to the lifeline, so the only event that can ever signal is its end.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it ended before the signal was armed
        os._exit(1)


def _heartbeat(ends: list[int], heartbeat: int) -> None:
    os.set_blocking(heartbeat, False)
    number = 0
    while True:
        try:
            os.write(heartbeat, BEAT.pack(number & 0xFFFFFFFF, _resident()))
        except BlockingIOError:
            pass  # the service is not reading; the heartbeat is lost, and the service knows why
        except OSError:
            os._exit(1)
        number += 1
        if select.select(ends, [], [], BEAT_INTERVAL)[0]:
            # Not sys.exit: the work may hold any lock, and there is nobody left to answer.
            os._exit(1)


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc here
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
