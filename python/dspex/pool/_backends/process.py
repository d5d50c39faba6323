"""A worker's process as the service sees it: started, listened to, signalled, reaped.

Processes are started from one thread that lives as long as the service, because the kernel's
parent-death signal fires when the *thread* that started a process pipes, and a starter that blocks must
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from dspex.protocol.heartbeat import BEAT
from dspex.protocol.memory import memory_pair
from dspex.protocol.process_group import kill_group

__all__ = [
    "ChildPipes",
    "Heartbeats",
    "Output",
    "Process",
    "SpawnLauncher",
    "close_lifeline",
    "give_up",
    "how_it_ended",
    "on_exit_of",
    "open_lifeline",
    "start_interpreter",
    "watch_exit",
]

_LAST_LINES: Final = 60
"""Lines of a worker's output kept for its errors: room for two tracebacks, not a log."""

_MAX_LINE: Final = 2000
"""Characters kept of one line."""


class Output(asyncio.Protocol):
    """The last lines a worker wrote to its standard output and error."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._partial = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Keep what was written, line by line."""
        *lines, rest = (self._partial + data).split(b"\n")
        self._partial = rest[-_MAX_LINE * 4 :]
        for line in lines:
            self._lines.append(line.decode(errors="replace")[:_MAX_LINE])

    def connection_lost(self, exc: Exception | None) -> None:
        """Every holder of the other end has closed it."""
        if not self.closed.done():
            self.closed.set_result(None)

    def tail(self) -> str:
        """The last lines, as one text."""
        return "\n".join([*self._lines, *filter(None, [self._partial.decode(errors="replace")[:_MAX_LINE]])])


class Heartbeats(asyncio.Protocol):
    """Reads heartbeats; keeps the last one and when it came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._partial = b""
        self.on_beat: Callable[[], None] | None = None
        self.last = loop.time()
        self.resident = 0

    def data_received(self, data: bytes) -> None:
        """Take whole heartbeats; the last one counts."""
        data = self._partial + data
        whole = len(data) - len(data) % BEAT.size
        self._partial = data[whole:]
        if whole:
            self.last = self._loop.time()
            _, self.resident = BEAT.unpack_from(data, whole - BEAT.size)
            if self.on_beat is not None:
                self.on_beat()


_Reader = TypeVar("_Reader", bound=asyncio.Protocol)


@dataclass(slots=True)
class ChildPipes:
    """The service's ends of what a worker is given, and the worker's, which close once it has them."""

    sock: socket.socket
    lifeline: int
    heartbeat: int
    output: int
    child_sock: socket.socket
    child_lifeline: int
    child_heartbeat: int
    child_output: int
    memory: socket.socket | None = None
    child_memory: socket.socket | None = None

    @classmethod
    def open(cls, *, memory: bool = True) -> ChildPipes:
        """A fresh set, or an `OSError` and none.

        Args:
            memory: Whether the worker can be passed shared memory.
        """
        with contextlib.ExitStack() as undo:
            parent, child = map(undo.enter_context, socket.socketpair())
            parent.setblocking(False)
            child_lifeline, lifeline = open_lifeline()
            undo.callback(os.close, child_lifeline)
            undo.callback(close_lifeline, lifeline)
            heartbeat, child_heartbeat = os.pipe()
            undo.callback(_close, (heartbeat, child_heartbeat))
            output, child_output = os.pipe()
            undo.callback(_close, (output, child_output))
            shared, child_shared = (memory_pair() if memory else None) or (None, None)
            undo.pop_all()
        return cls(
            parent,
            lifeline,
            heartbeat,
            output,
            child,
            child_lifeline,
            child_heartbeat,
            child_output,
            shared,
            child_shared,
        )

    def given(self) -> tuple[int, ...]:
        """The worker's ends by number, in the order of `dspex.worker.parent_watch.Descriptors`."""
        numbers = (self.child_sock.fileno(), self.child_lifeline, self.child_heartbeat)
        return numbers if self.child_memory is None else (*numbers, self.child_memory.fileno())

    def close_child(self) -> None:
        """Close the worker's ends here."""
        self.child_sock.close()
        if self.child_memory is not None:
            self.child_memory.close()
        for number in (self.child_lifeline, self.child_heartbeat, self.child_output):
            os.close(number)

    def close_parent(self) -> None:
        """Close the service's ends: a worker that has the others ends with them."""
        self.sock.close()
        if self.memory is not None:
            self.memory.close()
        close_lifeline(self.lifeline)
        for number in (self.heartbeat, self.output):
            os.close(number)


class Process:
    """One worker process, and what it says beside its socket: a `dspex.pool._backends.base.Handle`.

    Its process id is its process group's too.
    """

    where = "local"

    def __init__(self, pid: int, pipes: ChildPipes) -> None:
        self.pid = pid
        self.socket = pipes.sock
        self.memory_socket = pipes.memory
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._ends = pipes
        self._unread = [pipes.heartbeat, pipes.output]  # descriptors that no transport owns yet
        self._pipes: list[asyncio.BaseTransport] = []
        self._released = False
        self._heartbeat: Heartbeats
        self._output: Output

    async def listen(self) -> None:
        """Begin to read heartbeats and output."""
        loop = asyncio.get_running_loop()
        self._heartbeat = await self._read(Heartbeats(loop))
        self._output = await self._read(Output())

    async def _read(self, protocol: _Reader) -> _Reader:
        file = os.fdopen(self._unread.pop(0), "rb", 0)
        try:
            pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
        except BaseException:
            file.close()
            raise
        self._pipes.append(pipe)
        return protocol

    @property
    def last_beat(self) -> float:
        """When the last heartbeat arrived, on the loop's clock."""
        return self._heartbeat.last

    @property
    def resident(self) -> int:
        """Bytes of memory the process has, from its last heartbeat."""
        return self._heartbeat.resident

    @property
    def output_closed(self) -> asyncio.Future[None]:
        """Done when every holder of its standard output and error has closed them."""
        return self._output.closed

    def tail(self) -> str:
        """The last lines it wrote."""
        return self._output.tail()

    def on_beat(self, heard: Callable[[], None]) -> None:
        """Call `heard` after every heartbeat from now on."""
        self._heartbeat.on_beat = heard

    def set_exited(self, code: int | None) -> None:
        """Note that it has ended."""
        if not self.exited.done():
            self.exited.set_result(code)

    def terminate(self) -> None:
        """Send TERM to the process and everything it started, as far as they stayed in its group."""
        self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send them KILL."""
        self._send_signal(signal.SIGKILL)

    def _send_signal(self, number: signal.Signals) -> None:
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def release(self) -> None:
        """Close the service's ends; a process that has not ended ends with them."""
        if self._released:
            return
        self._released = True
        for pipe in self._pipes:
            pipe.close()
        _close(self._unread)
        self.socket.close()
        if self.memory_socket is not None:
            self.memory_socket.close()
        close_lifeline(self._ends.lifeline)


def how_it_ended(code: int | None) -> tuple[str, str | None]:
    """An exit status in words, and the name of the signal if it was one."""
    if code is None:
        return "ended with an unknown status", None
    if code >= 0:
        return f"exited with status {code}", None
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal between the named ones
        name = f"signal {-code}"
    return f"was ended by {name}", name


class SpawnLauncher:
    """Starts each worker with a fresh interpreter, or by a command.

    Args:
        python: The interpreter, or None for this one.
        env: Variables set over this process's environment.
        command: The program to start instead, and its arguments.
    """

    def __init__(self, python: str | None, env: Mapping[str, str], command: Sequence[str] = ()) -> None:
        self._python = python
        self._command = command
        self._env = dict(env)

    async def launch(self) -> Process:
        """See `Launcher.launch`."""
        pipes = ChildPipes.open(memory=not self._command)
        try:
            popen = await start_interpreter(
                self._python, self._env, "worker", pipes.given(), pipes.child_output, self._command
            )
        except BaseException:
            pipes.close_parent()  # the lifeline: a process that came into being all the same ends with it
            raise
        finally:
            pipes.close_child()
        try:
            process = Process(popen.pid, pipes)
        except BaseException:
            pipes.close_parent()
            give_up(popen)
            raise
        try:
            watch_exit(popen, process.set_exited)
        except BaseException:
            process.release()
            give_up(popen)
            raise
        try:
            await process.listen()
        except BaseException:
            process.release()
            raise
        return process

    def output(self) -> str:
        """Nothing but the worker itself says anything."""
        return ""

    async def aclose(self) -> None:
        """Nothing is held."""


async def start_interpreter(
    python: str | None,
    env: Mapping[str, str],
    role: str,
    given: tuple[int, ...],
    output: int,
    command: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start `python -m dspex.worker` from the thread that lives as long as this process.

    Args:
        python: The interpreter, or None for this one.
        env: Variables set over this process's environment.
        role: What it is to be.
        given: Descriptors it inherits; it gets their numbers as arguments.
        output: The descriptor that becomes its standard output and error.
        command: The program to start instead, and its arguments; it gets the numbers in its environment.

    Raises:
        OSError: If the interpreter cannot be started.
    """
    # Copies: the caller may be cancelled and close its own before the thread comes to it.
    copies: list[int] = []
    try:
        for number in (*given, output):
            copies.append(os.dup(number))  # noqa: PERF401 - those made before one fails must be known
        whole = {**os.environ, **env}
        start = _starter().submit(_start, python or sys.executable, whole, role, copies, command)
    except BaseException:
        _close(copies)
        raise
    start.add_done_callback(lambda _: _close(copies))
    try:
        return await asyncio.wrap_future(start)
    except asyncio.CancelledError:
        start.add_done_callback(_reap_unwanted)
        raise


def _close(numbers: Iterable[int]) -> None:
    for number in numbers:
        os.close(number)


_NAMES: Final = ("DSPEX_SOCKET", "DSPEX_LIFELINE", "DSPEX_HEARTBEAT")
"""The variables in which a command finds the numbers of its descriptors."""


def _start(
    python: str, env: dict[str, str], role: str, copies: list[int], command: Sequence[str]
) -> subprocess.Popen[bytes]:
    *given, output = copies
    if command:
        env = {**env, **{name: str(number) for name, number in zip(_NAMES, given, strict=True)}}
    # -P keeps the working directory off sys.path: a file of the user's must not shadow a module of ours.
    own = [python, "-P", "-m", "dspex.worker", role, str(os.getpid()), *map(str, given)]
    return subprocess.Popen(  # noqa: S603 - the program is the user's own setting
        list(command) or own,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=env,
        pass_fds=given,
        process_group=0,
    )


def _reap_unwanted(start: Future[subprocess.Popen[bytes]]) -> None:
    if not start.cancelled() and start.exception() is None:
        give_up(start.result())


def give_up(popen: subprocess.Popen[bytes]) -> None:
    """End a process that is not watched."""
    kill_group(popen.pid)
    # Without a thread to be had it is reaped by `subprocess`, when that starts another process.
    with contextlib.suppress(RuntimeError):
        threading.Thread(target=popen.wait, name="dspex-reaper", daemon=True).start()


def watch_exit(popen: subprocess.Popen[bytes], exited: Callable[[int], None]) -> None:
    """Call `exited` on the running loop with the status of a child of this process, when it has ended."""
    loop = asyncio.get_running_loop()

    def reap() -> int:
        kill_group(popen.pid)  # what it started ends with it
        return popen.wait()

    if hasattr(os, "pidfd_open"):
        on_exit_of(popen.pid, lambda: exited(reap()))
        return

    def wait() -> None:
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        code = reap()
        with contextlib.suppress(RuntimeError):  # the loop has closed: there is no one to notify
            loop.call_soon_threadsafe(exited, code)

    threading.Thread(target=wait, name="dspex-reaper", daemon=True).start()


def on_exit_of(pid: int, ended: Callable[[], None]) -> None:
    """Call `ended` on the running loop when a process, a child or not, has ended (Linux).

    Raises:
        ProcessLookupError: If there is no such process.
    """
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(pid)

    def readable() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        ended()

    try:
        loop.add_reader(pidfd, readable)
    except BaseException:
        os.close(pidfd)
        raise


_LIFELINES: Final[set[int]] = set()
"""The service's ends of all lifelines. A fork of it must not hold them, or its workers would outlive it."""


def open_lifeline() -> tuple[int, int]:
    """A pipe that ties a process to this one by its end: that process's end, and this one's."""
    child, parent = os.pipe()
    _LIFELINES.add(parent)
    return child, parent


def close_lifeline(parent: int) -> None:
    """Close this process's end: the one that has the other ends."""
    _LIFELINES.discard(parent)
    os.close(parent)


_executor: ThreadPoolExecutor | None = None


def _starter() -> ThreadPoolExecutor:
    global _executor  # one per process, for its life: see the module's docstring
    if _executor is None:
        _executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dspex-starter")
    return _executor


def _after_fork_in_child() -> None:
    global _executor  # the thread did not come along
    _executor = None
    for number in _LIFELINES:
        with contextlib.suppress(OSError):
            os.close(number)
    _LIFELINES.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, where this can be imported all the same
    os.register_at_fork(after_in_child=_after_fork_in_child)
