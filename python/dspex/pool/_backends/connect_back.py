"""Workers that connect back to the service over TCP, started by whoever can start a process somewhere.

::

    service                                     somewhere
    Listener.expect() -> ConnectInfo     --->   whoever starts it hands it on
                                                worker.connect_back: three connections, each with the token
      frames  <------------------------------>  calls and answers
      life    <------------------------------   heartbeats; its end, seen from either side, is the end
      output  <------------------------------   standard output and error

The connect info's token is 32 random bytes, for one worker, used up by it; a connection that does not begin
with one that is awaited is closed. What follows is not encrypted, the LM's key in the hand-shake included:
the address is this machine's own unless another is asked for, and then its network must be one to trust,
as a Ray cluster's must be anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from dspex.pool._backends.process import Heartbeats, Output
from dspex.protocol.connect_back import GREETING, ROLES, TOKEN_SIZE, ConnectInfo

__all__ = ["ConnectedWorker", "Listener"]

_GREETING_SECONDS: Final = 10.0
"""What a connection has to say who it is."""

_AGAIN: Final = 0.5
"""Seconds until the next call is taken when one could not be."""


class _Connections(NamedTuple):
    """The three connections of one worker."""

    frames: socket.socket
    life: socket.socket
    output: socket.socket


class Listener:
    """Listens for workers. Opened by the first `expect`, on the loop it runs on.

    Args:
        host: The address to listen on, and for workers to connect to.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self._server: socket.socket | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._awaited: dict[bytes, asyncio.Future[tuple[int, _Connections]]] = {}
        self._arrived: dict[bytes, dict[int, socket.socket]] = {}

    def expect(self) -> ConnectInfo:
        """What a new worker needs in order to connect.

        Raises:
            OSError: If no socket can listen there.
        """
        loop = asyncio.get_running_loop()
        if self._server is None:
            family = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)[0][0]
            self._server = socket.create_server((self._host, 0), family=family)
            self._server.setblocking(False)
            self._keep(self._listen(self._server))
        token = secrets.token_bytes(TOKEN_SIZE)
        self._awaited[token] = loop.create_future()
        return ConnectInfo(self._host, self._server.getsockname()[1], token)

    async def connected(
        self, connect_info: ConnectInfo, where: str, kill: Callable[[], None]
    ) -> ConnectedWorker:
        """Wait for the worker to connect.

        Args:
            connect_info: What it was given.
            where: The machine it was started on.
            kill: Ends it.

        Raises:
            asyncio.CancelledError: With `kill` called: it may come into being all the same.
        """
        try:
            pid, lines = await self._awaited[connect_info.token]
            worker = ConnectedWorker(pid, where, lines, kill)
            await worker.listen()
        except BaseException:
            kill()
            raise
        finally:
            self.forget(connect_info)
        return worker

    def forget(self, connect_info: ConnectInfo) -> None:
        """Expect that worker no longer."""
        self._awaited.pop(connect_info.token, None)
        for line in self._arrived.pop(connect_info.token, {}).values():
            line.close()

    async def aclose(self) -> None:
        """Listen no more; workers that are connected stay so."""
        tasks = list(self._answering)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            self._server = None

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _listen(self, server: socket.socket) -> None:
        while True:
            try:
                line, _ = await asyncio.get_running_loop().sock_accept(server)
            except OSError:  # no descriptor is left, or who called has hung up; who calls now waits meanwhile
                await asyncio.sleep(_AGAIN)
                continue
            self._keep(self._answer(line))

    async def _answer(self, line: socket.socket) -> None:
        """Find out who calls; a stranger is hung up on."""
        line.setblocking(False)
        try:
            async with asyncio.timeout(_GREETING_SECONDS):
                greeting = await _read(line, GREETING.size)
        except (OSError, TimeoutError):
            line.close()
            return
        except asyncio.CancelledError:
            line.close()
            raise
        token, role, pid = GREETING.unpack(greeting)
        known = next((known for known in self._awaited if secrets.compare_digest(known, token)), None)
        if known is None or role not in ROLES:
            line.close()
            return
        arrived = self._arrived.setdefault(known, {})
        arrived[role] = line
        if len(arrived) == len(ROLES) and not self._awaited[known].done():
            del self._arrived[known]
            self._awaited[known].set_result((pid, _Connections(*(arrived[role] for role in ROLES))))


async def _read(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(line, size - len(data))
        if not more:
            raise ConnectionResetError("it hung up")
        data += more
    return data


class _Life(Heartbeats):
    """Reads heartbeats, and hears the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
        super().__init__(loop)
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        """Its process has ended, or its machine cannot be reached."""
        self._ended()


class ConnectedWorker:
    """A worker that has connected back: a `dspex.pool._backends.base.Handle`.

    Args:
        pid: Its process id, where it runs.
        where: The machine.
        lines: Its connections.
        kill: Ends it.
    """

    def __init__(self, pid: int, where: str, lines: _Connections, kill: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.where = where
        self.socket = lines.frames
        self.memory_socket = None  # memory does not pass between machines
        self.exited: asyncio.Future[int | None] = loop.create_future()
        self._lines = lines
        self._kill = kill
        self._notes: list[str] = []
        self._transports: list[asyncio.BaseTransport] = []
        self._life: Heartbeats
        self._output: Output

    async def listen(self) -> None:
        """Begin to read heartbeats and output."""
        loop = asyncio.get_running_loop()
        try:
            life, self._life = await loop.create_connection(
                lambda: _Life(loop, self.set_exited), sock=self._lines.life
            )
            self._transports.append(life)
            output, self._output = await loop.create_connection(Output, sock=self._lines.output)
            self._transports.append(output)
        except BaseException:
            self.release()
            raise

    def set_exited(self, code: int | None = None, note: str = "") -> None:
        """Note that it has ended.

        Args:
            code: Its exit status, if whoever started it knows.
            note: What else is known, for `tail`.
        """
        if note:
            self._notes.append(note)
        if not self.exited.done():
            self.exited.set_result(code)

    @property
    def output_closed(self) -> asyncio.Future[None]:
        """See `Handle.output_closed`."""
        return self._output.closed

    @property
    def last_beat(self) -> float:
        """See `Handle.last_beat`."""
        return self._life.last

    @property
    def resident(self) -> int:
        """See `Handle.resident`."""
        return self._life.resident

    def on_beat(self, heard: Callable[[], None]) -> None:
        """See `Handle.on_beat`."""
        self._life.on_beat = heard

    def tail(self) -> str:
        """See `Handle.tail`."""
        return "\n".join([*filter(None, [self._output.tail()]), *self._notes])

    def terminate(self) -> None:
        """Hang up, which a worker takes for the end of its service."""
        for transport in self._transports[:1]:
            transport.close()

    def kill(self) -> None:
        """See `Handle.kill`."""
        if not self.exited.done():
            with contextlib.suppress(Exception):  # whoever can kill it may be gone, and it with them
                self._kill()

    def release(self) -> None:
        """See `Handle.release`."""
        for transport in self._transports:
            transport.close()
        for line in self._lines[len(self._transports) :]:
            line.close()
        self.socket.close()
