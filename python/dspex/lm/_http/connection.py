"""`Connection`: one connection, which carries one request at a time.

    idle --begin--> waits for the head --> waits for the body --> whole --> idle, or closed
      |                   |                      |
      +-- closed by       +----------------------+--> failed: late, cut, no HTTP --> closed
          the server

Whoever waits has a future; a timer for the connection, not for each request, ends it when its limit has
passed.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
import time
from typing import TYPE_CHECKING, Final

from dspex import _lm_failures as failures
from dspex._core import HttpReader
from dspex.lm._http.transport import Stage, TransportError, TransportTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex._lm_failures import Failure
    from dspex.lm._http.secure import SecureChannel

__all__ = ["TIMEOUTS", "Connection"]

HELD_BYTES: Final = 256 * 1024
"""Of a stream: with so much that nobody has taken, no more is read from the connection."""

DRAIN_SECONDS: Final = 1.0
"""For the end of a stream that has said all it has to say."""

UNSEEN_SECONDS: Final = 1.0
"""Of idleness, after which a connection is asked whether the server has closed it: the loop may have been too
busy to notice."""

TIMEOUTS: Final[dict[Stage, Failure]] = {
    "connect": failures.CONNECT_TIMEOUT,
    "first-byte": failures.FIRST_BYTE_TIMEOUT,
    "first-text": failures.FIRST_TEXT_TIMEOUT,
    "chunk": failures.CHUNK_TIMEOUT,
    "total": failures.TIMEOUT,
}

_HEAD, _BODY, _DONE, _FAILED = range(4)


class Connection(asyncio.Protocol):
    """One connection to a server.

    Args:
        loop: The event loop it belongs to.
        sock: Its socket.
        channel: What secures it.
    """

    __slots__ = (
        "_channel", "_drained", "_error", "_idle_since", "_loop", "_paused", "_reader", "_stage", "_state",
        "_streams", "_timer", "_total", "_transport", "_until", "_waiter", "sock",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, channel: SecureChannel | None = None
    ) -> None:
        self._loop = loop
        self._channel = channel
        self.sock = sock
        self._reader = HttpReader()
        self._transport: asyncio.Transport | None = None
        self._state = _DONE
        self._streams = False
        self._waiter: asyncio.Future[None] | None = None
        self._drained: Callable[[Connection], None] | None = None
        self._error: TransportError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._total = self._until = math.inf
        self._stage: Stage = "total"
        self._paused = False
        self._idle_since = 0.0

    # --- what the pool asks ---

    def is_open(self) -> bool:
        """Whether a request may be sent: nothing has come since the last answer, not even its end."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._error is not None:
            return False
        return time.monotonic() - self._idle_since < UNSEEN_SECONDS or not _has_news(self.sock)

    def is_reusable(self) -> bool:
        """Whether its answer was read to the end, and both sides keep the connection."""
        transport = self._transport
        if transport is None or self._state != _DONE or not self._reader.is_reusable:
            return False
        if transport.is_closing() or transport.get_write_buffer_size():
            return False  # an answer that came before its request was sent: the server does not want the rest
        self._idle_since = time.monotonic()
        return True

    @property
    def idle_since(self) -> float:
        """When it became idle, by `time.monotonic`."""
        return self._idle_since

    def close(self) -> None:
        """Close it, whatever is on its way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    # --- one request ---

    def begin(self, request: bytes, most: int | None, first_byte: float, total: float) -> None:
        """Send a request, whose answer may have `most` bytes; None for a stream."""
        assert self._transport is not None  # noqa: S101 - a connection is made before it is used
        self._reader.begin(most)
        self._state = _HEAD
        self._streams = most is None
        self._total = total
        if first_byte < total:
            self._watch(first_byte, "first-byte")
        else:
            self._watch(total, "total")
        self._transport.write(request if self._channel is None else self._channel.encrypt(request))

    async def whole(self) -> None:
        """Wait for the whole answer.

        Raises:
            TransportTimeoutError: If a limit passed.
            TransportError: If there is no answer.
        """
        while self._state < _DONE:
            await self._wait()
        self._check()

    async def head(self) -> None:
        """Wait for the head. Raises as `whole` does."""
        while self._state == _HEAD:
            await self._wait()
        self._check()

    async def piece(self, until: float, stage: Stage) -> bytes:
        """What has come of the body; empty at its end. Raises as `whole` does."""
        while True:
            if data := self._reader.take_body():
                if self._paused and self._transport is not None:
                    self._paused = False
                    self._transport.resume_reading()
                return data
            if self._state >= _DONE:
                self._check()
                return b""
            self._watch(until, stage)
            await self._wait()

    def drain(self, done: Callable[[Connection], None]) -> None:
        """Call `done` when the rest of the body has come; it is thrown away, and waited for a moment only."""
        self._reader.take_body()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        if self._state >= _DONE:
            done(self)
        else:
            self._drained = done
            self._watch(self._loop.time() + DRAIN_SECONDS, "total")

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self._reader.status

    @property
    def encoding(self) -> str | None:
        """How its body is packed."""
        return self._reader.header("content-encoding")

    def headers(self) -> dict[str, str]:
        """Its fields by lower-case name."""
        return self._reader.headers()

    def take_body(self) -> bytes:
        """Its body, as it came."""
        return self._reader.take_body()

    # --- what the event loop tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a socket's

    def data_received(self, data: bytes) -> None:
        if self._channel is None:
            self._received(data)
            return
        try:
            data, answer = self._channel.decrypt(data)
        except OSError as error:  # ssl's are among them
            self._ended(error)
            self.close()
            return
        if answer and self._transport is not None:
            self._transport.write(answer)
        if data:  # what TLS says to itself is none
            self._received(data)
        if self._channel.closed:
            self._ended()

    def _received(self, data: bytes) -> None:
        if self._state >= _DONE:
            # Something that nobody asked for, such as the 408 of a server that tires of waiting.
            self._fail(TransportError(failures.CUT))
            self.close()
            return
        before, self._state = self._state, self._reader.feed(data)
        if self._state == _FAILED:
            self._fail(self._fault())
            self.close()
            return
        if before == _HEAD and self._state != _HEAD and self._stage == "first-byte":
            self._watch(self._total, "total")
        if self._streams and self._state == _BODY:
            if self._reader.held > HELD_BYTES and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
            self._wake()
        elif self._state == _DONE:
            self._until = math.inf
            self._wake()

    def eof_received(self) -> bool:
        # Over TLS, an end that the server has not announced may be somebody else's doing.
        self._ended(None if self._channel is None or self._channel.closed else ConnectionResetError())
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ended(error)
        self._transport = None

    # --- inner workings ---

    def _ended(self, error: Exception | None = None) -> None:
        """The server sends no more."""
        if self._state >= _DONE:
            self._error = self._error or TransportError(failures.CUT)
            return
        if error is None and self._reader.end() == _DONE:
            self._state = _DONE
            self._until = math.inf
            self._wake()
            return
        self._state = _FAILED
        midway = self._reader.has_begun
        cut = failures.CUT_STREAM if midway and self._streams else failures.CUT_MIDWAY
        self._fail(TransportError(cut if midway else failures.CUT))

    def _fault(self) -> TransportError:
        kind, why = self._reader.fault or ("malformed", "")
        return TransportError(failures.TOO_LARGE if kind == "overlong" else failures.NOT_HTTP, why)

    def _fail(self, error: TransportError) -> None:
        if self._error is None:
            self._error = error
        if self._state < _DONE:
            self._state = _FAILED
        self._until = math.inf
        self._wake()

    def _check(self) -> None:
        if self._state == _FAILED:
            error = self._error or TransportError(failures.CUT)
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    def _wake(self) -> None:
        if self._drained is not None:
            self._reader.take_body()
            if self._state >= _DONE:
                done, self._drained = self._drained, None
                done(self)
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
            self._until = math.inf  # what its reader does meanwhile is not the server's time

    def _watch(self, until: float, stage: Stage) -> None:
        """End the wait when `until` has passed."""
        self._until, self._stage = until, stage
        timer = self._timer
        if until == math.inf or (timer is not None and timer.when() <= until):
            return  # the timer looks again when it goes off
        if timer is not None:
            timer.cancel()
        self._timer = self._loop.call_at(until, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        if self._until == math.inf:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._time_passed)
            return
        self._fail(TransportTimeoutError(TIMEOUTS[self._stage], self._stage))


def _has_news(sock: socket.socket) -> bool:
    """Whether the server has sent something, or closed: a connection that is idle has nothing to say."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
