"""The service's side of a forkserver: a process that forks workers. See `dspex.worker.forkserver`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from dspex.errors import WireError, WorkerStartError
from dspex.pool._backends.process import (
    ChildPipes,
    Output,
    Process,
    close_lifeline,
    give_up,
    how_it_ended,
    on_exit_of,
    open_lifeline,
    start_interpreter,
    watch_exit,
)
from dspex.protocol.errors import read_error
from dspex.protocol.frames import FrameReader, Kind, encode_frame
from dspex.protocol.handshake import Handshake
from dspex.wire._msgpack import MessagePack

__all__ = ["FORK_SECONDS", "ForkserverLauncher"]

FORK_SECONDS: Final = 5.0
"""Seconds in which a forkserver must fork a worker. It takes milliseconds; one that needs longer hangs."""

_AGAIN: Final = 1.0
"""Seconds until a process is watched after all that could not be, for want of a descriptor."""

_UNTOLD: Final = 1.0
"""Seconds after which a killed worker's end is looked for, if its forkserver has not reported it."""

_LAST_WORDS: Final = 0.05
"""Seconds for which the output of a forkserver that has ended is still read."""


class ForkserverLauncher:
    """Forks each worker from a process that has DSPy imported and warmed.

    The forkserver is started when the first worker is wanted, and again when it has died; workers it forked
    before live on.

    Args:
        python: The interpreter, or None for this one.
        env: Variables set over this process's environment.
        handshake: The settings the forkserver needs, without any secret: it serves all requests.
        fork_seconds: Seconds it has to fork a worker. One that needs longer hangs; it is ended, and the next
            launch starts another.
    """

    def __init__(
        self,
        python: str | None,
        env: Mapping[str, str],
        handshake: Handshake,
        fork_seconds: float = FORK_SECONDS,
    ) -> None:
        self._fork_seconds = fork_seconds
        self._python = python
        self._env = dict(env)
        self._handshake = handshake
        self._link: _Link | None = None
        self._turn = asyncio.Lock()  # one request at a time: see `dspex.worker.forkserver`

    @property
    def pid(self) -> int | None:
        """The forkserver's process id, while there is one."""
        return self._link.popen.pid if self._link is not None and self._link.alive else None

    async def launch(self) -> Process:
        """See `Launcher.launch`."""
        async with self._turn:
            if self._link is not None and not self._link.alive:
                await self._link.end()  # it holds descriptors, and tells of its children still
                self._link = None
            if self._link is None:
                await self._start()
            link = self._link
            assert link is not None  # noqa: S101 - the lines above have seen to it
            pipes = ChildPipes.open()
            try:
                pid = await self._fork(link, pipes)
            except BaseException:
                pipes.close_parent()
                raise
            finally:
                pipes.close_child()
            try:
                process = _Forked(pid, pipes, link)
            except BaseException:
                pipes.close_parent()
                link.disown(pid)
                raise
            try:
                link.adopt(process)
                await process.listen()
            except BaseException:
                process.release()
                raise
            return process

    async def _fork(self, link: _Link, pipes: ChildPipes) -> int:
        try:
            async with asyncio.timeout(self._fork_seconds) as limit:
                return await link.fork(pipes)
        except TimeoutError:
            if not limit.expired():
                raise
            await link.end()
            raise WorkerStartError(
                f"the forkserver did not fork a worker within {self._fork_seconds:g} s and was ended",
                code="forkserver-hung",
                hint="the next start has a new one; workers that it has forked go on",
            ) from None

    def output(self) -> str:
        """See `Launcher.output`."""
        output = self._link.output if self._link is not None else None
        return "" if output is None else output.tail()

    async def aclose(self) -> None:
        """End the forkserver."""
        async with self._turn:
            if self._link is not None:
                await self._link.end()

    async def _start(self) -> None:
        with contextlib.ExitStack() as undo:
            parent, child = map(undo.enter_context, socket.socketpair())
            child_lifeline, lifeline = open_lifeline()
            undo.callback(close_lifeline, lifeline)
            with contextlib.ExitStack() as handed:
                handed.callback(os.close, child_lifeline)
                output, child_output = os.pipe()
                undo.callback(os.close, output)
                handed.callback(os.close, child_output)
                numbers = (child.fileno(), child_lifeline)
                popen = await start_interpreter(self._python, self._env, "forkserver", numbers, child_output)
            undo.callback(give_up, popen)
            self._link = link = _Link(popen, parent, lifeline, output)
            undo.pop_all()
        child.close()
        try:
            await link.open()
            await link.ask(Kind.HELLO, self._handshake.to_wire())
        except BaseException:
            await asyncio.shield(link.end())
            raise


class _Forked(Process):
    """A worker that a forkserver forked, whose end the forkserver tells of, unless it hangs."""

    def __init__(self, pid: int, pipes: ChildPipes, link: _Link) -> None:
        super().__init__(pid, pipes)
        self._link = link

    def kill(self) -> None:
        """See `Handle.kill`."""
        super().kill()
        if not self.exited.done():
            asyncio.get_running_loop().call_later(_UNTOLD, self._link.look_after, self)


class _Link(asyncio.Protocol):
    """One running forkserver."""

    def __init__(
        self, popen: subprocess.Popen[bytes], sock: socket.socket, lifeline: int, output: int
    ) -> None:
        loop = asyncio.get_running_loop()
        self.popen = popen
        self.output: Output | None = None
        self.exited: asyncio.Future[int] = loop.create_future()
        self._loop = loop
        self._sock = sock
        self._lifeline = lifeline
        self._codec = MessagePack()
        self._reader = FrameReader()
        self._asked = 0
        self._answer: asyncio.Future[Any] | None = None
        self._children: dict[int, Process] = {}
        self._early: dict[int, int] = {}  # exits that overtook the answer to their fork
        self._disowned: set[int] = set()  # forked for somebody who no longer wanted them
        self._unread = output  # no transport owns it yet
        self._transport: Any = None
        self._pipe: Any = None
        watch_exit(popen, self._set_exited)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        connected = self._transport is not None and not self._transport.is_closing()
        return connected and not self.exited.done()

    async def open(self) -> None:
        """Begin to read what it says."""
        self._sock.setblocking(False)
        file = os.fdopen(self._unread, "rb", 0)
        self._unread = -1
        self._pipe, self.output = await self._loop.connect_read_pipe(Output, file)
        await self._loop.create_connection(lambda: self, sock=self._sock)

    async def fork(self, pipes: ChildPipes) -> int:
        """Have it fork a worker; gives its process id."""
        sock, lifeline, heartbeat, *memory = pipes.given()
        return int(await self.ask(Kind.FORK, None, [sock, lifeline, heartbeat, pipes.child_output, *memory]))

    def adopt(self, process: Process) -> None:
        """See to it that `process`, a worker it forked, hears of its own end."""
        if process.pid in self._early:
            process.set_exited(self._early.pop(process.pid))
        else:
            self._children[process.pid] = process

    def disown(self, pid: int) -> None:
        """Ignore the end of a worker it forked."""
        if self._early.pop(pid, None) is None:
            self._disowned.add(pid)

    def look_after(self, process: Process) -> None:
        """Watch a worker directly, whose end the forkserver has not reported."""
        if not process.exited.done():
            # It stays a child: the forkserver may yet report its end, with the exit status.
            self._watch(process)

    async def ask(self, kind: Kind, value: Any, numbers: list[int] | None = None) -> Any:
        """Send a request, with descriptors, and wait for its answer.

        Raises:
            WorkerStartError: If it refuses or is gone.
        """
        self._answer = self._loop.create_future()
        self._asked += 1
        frame = encode_frame(kind, self._asked, self._codec.encode(value))
        try:
            socket.send_fds(self._sock, [frame], numbers or [])
        except OSError as err:
            self._answer = None  # nobody waits for it
            raise self._gone() from err
        return await self._answer

    async def end(self) -> None:
        """End the process and let go of it. Its children are reaped by init from then on."""
        self._hand_over_children()
        if self._transport is not None:
            self._transport.abort()
        else:
            self._sock.close()
        if self._unread >= 0:
            os.close(self._unread)
            self._unread = -1
        with contextlib.suppress(ProcessLookupError):
            self.popen.kill()
        await self.exited
        if self._pipe is not None:
            self._pipe.close()
        if self._lifeline >= 0:
            close_lifeline(self._lifeline)
            self._lifeline = -1

    def _set_exited(self, code: int) -> None:
        self.exited.set_result(code)
        self._hand_over_children()
        if self._answer is not None and not self._answer.done():
            # Its last words are in the pipe still; the error should have them.
            self._loop.call_later(_LAST_WORDS, self._fail, self._gone())

    def _hand_over_children(self) -> None:
        """Watch its children directly: their exit statuses are lost, but not that they end."""
        for process in self._children.values():
            self._watch(process)
        self._children.clear()

    def _watch(self, process: Process) -> None:
        try:
            on_exit_of(process.pid, lambda: process.set_exited(None))
        except ProcessLookupError:
            process.set_exited(None)
        except OSError:  # no descriptor is left; until there is one, the end of its socket tells of its death
            self._loop.call_later(_AGAIN, self._watch, process)

    def _gone(self) -> WorkerStartError:
        how, _ = how_it_ended(self.exited.result() if self.exited.done() else None)
        return WorkerStartError(f"the forkserver {how}", code="forkserver-died")

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        try:
            for kind, number, body, _ in self._reader.feed(data):
                self._take(kind, number, self._codec.decode(body))
        except WireError as err:
            self._fail(err)
            self.popen.kill()

    def _take(self, kind: int, number: int, value: Any) -> None:
        if kind == Kind.EXITED:
            match value:
                case [int(pid), int(code)] if pid in self._children:
                    self._children.pop(pid).set_exited(code)
                case [int(pid), int(_)] if pid in self._disowned:
                    self._disowned.discard(pid)
                case [int(pid), int(code)]:
                    self._early[pid] = code
                case _:
                    raise WireError("malformed EXITED frame", code="bad-frame")
        elif number == self._asked and self._answer is not None and not self._answer.done():
            if kind == Kind.ERROR:
                self._answer.set_exception(read_error(value))
            else:
                self._answer.set_result(value)
        elif kind == Kind.FORKED and isinstance(value, int):
            # The answer to an earlier question, whose asker was cancelled: that worker's lifeline is closed.
            self.disown(value)
