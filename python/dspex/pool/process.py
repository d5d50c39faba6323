"""A worker's process as the service sees it: started, listened to, signalled, reaped.

Processes are started from one thread that lives as long as the service, because the kernel's
parent-death signal fires when the *thread* that started a process ends, and a starter that blocks must
not stop the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from dspex.worker.guard import BEAT

__all__ = ["Output", "Process", "spawn"]

_LAST_LINES: Final = 60
"""Lines of a worker's output kept for its errors: room for two tracebacks, not a log."""

_MAX_LINE: Final = 2000
"""Characters kept of one line."""


class Output(asyncio.Protocol):
    """The last lines a worker wrote to its standard output and error."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._partial = b""
        self._on_line = on_line
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Keep what was written, line by line."""
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = rest[-_MAX_LINE * 4 :]
        for line in lines:
            text = line.decode(errors="replace")[:_MAX_LINE]
            self._lines.append(text)
            if self._on_line is not None:
                self._on_line(text)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody holds the other end any more."""
        if not self.closed.done():
            self.closed.set_result(None)

    def tail(self) -> str:
        """The last lines, as one text."""
        return "\n".join([*self._lines, *filter(None, [self._partial.decode(errors="replace")[:_MAX_LINE]])])


class _Pulse(asyncio.Protocol):
    """Reads heartbeats; keeps the last one and when it came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._partial = b""
        self.last = loop.time()
        self.resident = 0

    def data_received(self, data: bytes) -> None:
        data = self._partial + data
        whole = len(data) - len(data) % BEAT.size
        self._partial = data[whole:]
        if whole:
            self.last = self._loop.time()
            _, self.resident = BEAT.unpack_from(data, whole - BEAT.size)


@dataclass(slots=True)
class _Ends:
    """The service's ends of what a worker is given, and the worker's, which close once it has them."""

    sock: socket.socket
    lifeline: int
    pulse: int
    output: int
    given_sock: socket.socket
    given_lifeline: int
    given_pulse: int
    given_output: int

    @classmethod
    def open(cls) -> _Ends:
        mine, given = socket.socketpair()
        mine.setblocking(False)
        given_lifeline, lifeline = os.pipe()
        pulse, given_pulse = os.pipe()
        output, given_output = os.pipe()
        return cls(mine, lifeline, pulse, output, given, given_lifeline, given_pulse, given_output)

    def close_given(self) -> None:
        self.given_sock.close()
        for number in (self.given_lifeline, self.given_pulse, self.given_output):
            os.close(number)

    def close_mine(self) -> None:
        self.sock.close()
        for number in (self.lifeline, self.pulse, self.output):
            os.close(number)


class Process:
    """One worker process. Made by `spawn`."""

    def __init__(self, popen: subprocess.Popen[bytes], ends: _Ends) -> None:
        self.pid = popen.pid
        self.socket = ends.sock
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._popen = popen
        self._lifeline = ends.lifeline
        self._pipes: list[asyncio.BaseTransport] = []
        self._pulse: _Pulse
        self.output: Output

    async def _listen(self, ends: _Ends, on_line: Callable[[str], None] | None) -> None:
        loop = asyncio.get_running_loop()
        pulse, self._pulse = await loop.connect_read_pipe(
            lambda: _Pulse(loop), os.fdopen(ends.pulse, "rb", 0)
        )
        output, self.output = await loop.connect_read_pipe(
            lambda: Output(on_line), os.fdopen(ends.output, "rb", 0)
        )
        self._pipes = [pulse, output]
        if hasattr(os, "pidfd_open"):
            pidfd = os.pidfd_open(self.pid)
            loop.add_reader(pidfd, self._reap, pidfd)
        else:
            threading.Thread(target=self._await_exit, args=(loop,), name="dspex-reaper", daemon=True).start()

    @property
    def last_beat(self) -> float:
        """When the last heartbeat arrived, on the loop's clock."""
        return self._pulse.last

    @property
    def resident(self) -> int:
        """Bytes of memory the process said it has, at its last heartbeat."""
        return self._pulse.resident

    def _reap(self, pidfd: int) -> None:
        code = self._popen.poll()
        if code is None:
            return
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self._set_exited(code)

    def _await_exit(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody asks any more
            loop.call_soon_threadsafe(self._set_exited, code)

    def _set_exited(self, code: int) -> None:
        if not self.exited.done():
            self.exited.set_result(code)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process and everything it started, as far as they stayed in its group."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def release(self) -> None:
        """Close the service's ends. Call it when the process has exited."""
        for pipe in self._pipes:
            pipe.close()
        self.socket.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


async def spawn(
    python: str | None, env: Mapping[str, str], on_line: Callable[[str], None] | None = None
) -> Process:
    """Start a worker with a fresh interpreter.

    Args:
        python: The interpreter, or None for this one.
        env: Variables set over this process's environment.
        on_line: Called with every line the worker writes.

    Raises:
        OSError: If the interpreter cannot be started.
    """
    loop = asyncio.get_running_loop()
    ends = _Ends.open()
    start = loop.run_in_executor(_starter(), _start, python or sys.executable, dict(env), ends)
    try:
        # Shielded: a start that was given up still gives back a process, which must not be lost.
        popen = await asyncio.shield(start)
    except asyncio.CancelledError:
        start.add_done_callback(lambda done: _abandon(done, ends))
        raise
    except BaseException:
        ends.close_given()
        ends.close_mine()
        raise
    ends.close_given()
    process = Process(popen, ends)
    await process._listen(ends, on_line)
    return process


def _start(python: str, env: Mapping[str, str], ends: _Ends) -> subprocess.Popen[bytes]:
    numbers = (ends.given_sock.fileno(), ends.given_lifeline, ends.given_pulse)
    return subprocess.Popen(  # noqa: S603 - the interpreter is the caller's own setting
        # -P keeps the working directory off sys.path: a file of the user's must not shadow a module of ours.
        [python, "-P", "-m", "dspex.worker", str(os.getpid()), *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        stdout=ends.given_output,
        stderr=ends.given_output,
        env={**os.environ, **env},
        pass_fds=numbers,
        process_group=0,
    )


def _abandon(done: asyncio.Future[Any], ends: _Ends) -> None:
    ends.close_given()
    ends.close_mine()  # the lifeline ends, and the worker with it
    if not done.cancelled() and done.exception() is None:
        threading.Thread(target=done.result().wait, name="dspex-reaper", daemon=True).start()


_executor: ThreadPoolExecutor | None = None


def _starter() -> ThreadPoolExecutor:
    global _executor  # one per process, for its life: see the module's docstring
    if _executor is None:
        _executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dspex-starter")
    return _executor


def _forget_starter() -> None:
    global _executor  # the thread did not come along into the fork
    _executor = None


os.register_at_fork(after_in_child=_forget_starter)
