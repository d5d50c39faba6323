"""One worker from the service's side: its process, its socket and the calls on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from dspex.errors import ConfigError, DspexError, WireError, WorkerDiedError, WorkerStartError
from dspex.pool._host_calls import HostCalls
from dspex.pool._last_words import LastWords, attempt
from dspex.pool._lifecycle import Lifecycle, State
from dspex.pool._status import WorkerStatus
from dspex.pool._tasks import Outcome, is_cancelled
from dspex.protocol.channel import Channel
from dspex.protocol.errors import read_error
from dspex.protocol.frames import MSGPACK, Kind
from dspex.protocol.handshake import Greeting, Handshake, common_codec
from dspex.protocol.packing import available
from dspex.wire import Classes

if TYPE_CHECKING:
    from dspex.pool._backends.base import Handle, Launcher
    from dspex.pool._call import Call
    from dspex.pool._spec import PoolSpec

__all__ = ["WINDOW", "EndOrder", "Worker"]

WINDOW: Final = 32
"""Parts of an answer that may be on their way to somebody who has not taken them yet."""

_KILL_WAIT: Final = 10.0
"""Seconds to wait for a killed process to be gone; only one stuck in the kernel needs longer."""

_EXIT_WAIT: Final = 0.5
"""Seconds in which a process whose socket has closed is expected to end by itself."""

_OUTPUT_WAIT: Final = 0.2
"""Seconds to wait for the last words of a process that has ended: a grandchild may hold the pipe open."""

_NOT_STARTED: Final = "it did not start: "

_LIVING: Final = frozenset({State.STARTING, State.READY, State.DRAINING})

# An enum's member costs a look-up, and these are asked for with every call.
_CALL: Final = int(Kind.CALL)
_RESULT: Final = int(Kind.RESULT)
_ANSWERS: Final = frozenset({_RESULT, int(Kind.ERROR)})


@dataclass(frozen=True, slots=True)
class EndOrder:
    """Why a worker is to end, and how.

    Attributes:
        reason: Why, for the errors of calls that are still on it.
        force: Whether the ladder begins with KILL, for a process that does not listen.
        fault: Whether it ends for the fault of one call, which the others on it did not share.
    """

    reason: str
    force: bool = False
    fault: bool = False


class Worker(asyncio.BufferedProtocol):
    """A process that serves calls.

    The supervisor awaits `start`, waits for an order to end, and awaits `bring_down`. Everything that can end
    a worker (its own death, garbage on the wire, a missing heartbeat, the pool's wish) gives the order, by
    `order_end`; the first counts.

    Args:
        spec: The pool's settings.
        handshake: What the hand-shake tells the process. It holds the LM's key, and goes nowhere else.
        launcher: What starts the process.
        slot: Its place in the pool.
        restarts: Workers its place had before it.
        on_free: Called when a call has left the worker.
        on_beat: Called with the worker at its heartbeats, when its memory is known anew, and after calls.
    """

    def __init__(
        self,
        spec: PoolSpec,
        handshake: Handshake,
        launcher: Launcher,
        *,
        slot: int,
        restarts: int,
        on_free: Callable[[Call], None],
        on_beat: Callable[[Worker], None],
    ) -> None:
        self.life = Lifecycle()
        self.slot = slot
        self.calls: dict[int, Call] = {}
        self.cancelled: set[int] = set()
        """Calls on it that were cancelled and have not stopped yet."""
        self.served = 0
        self.places = 0
        """Sessions that live on it."""
        self.reason = ""
        """Why it drains or ends."""
        self.order: EndOrder | None = None
        self.ordered = asyncio.Event()
        """Set when it is to end."""
        self.started: Outcome[None] = Outcome()
        """Whether it has come to serve; a start that failed is known when the process is gone."""
        self.ended: Outcome[WorkerDiedError] = Outcome()
        """How it died, once it is reaped and its calls are settled."""
        self.process: Handle | None = None
        self.greeting: Greeting | None = None
        loop = asyncio.get_running_loop()
        self._operations: Sequence[str] | None = None  # that it serves; None where it answers for itself
        self._loop = loop
        self._restarts = restarts
        self.born = self.idle_since = loop.time()
        """`idle_since`: when its last call left it, on the loop's clock; of no meaning while it has calls."""
        self._spec = spec
        self._handshake = handshake
        self._launcher = launcher
        self._on_free = on_free
        self._on_beat = on_beat
        self._counts_requests = spec.recycling.requests is not None
        self._last_words = LastWords(spec, handshake.lm, launcher)
        self._channel = Channel(loop, Classes(spec.classes), pickle=spec.pickle)
        self._host_calls = HostCalls(self.calls, self._channel)
        self._ready: Outcome[Greeting] = Outcome()
        self._start_limit: asyncio.Timeout | None = None
        self._start_error: WorkerStartError | None = None
        self._death: WorkerDiedError | None = None
        self._next_id = 1  # odd: the worker's own calls are even
        self._heartbeat_check: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Worker pid={self.pid} {self.life.state.value} calls={len(self.calls)}>"

    @property
    def pid(self) -> int | None:
        """The process's id, once there is one."""
        return self.process.pid if self.process else None

    def status(self) -> WorkerStatus:
        """What it is doing now."""
        return WorkerStatus(
            slot=self.slot,
            pid=self.pid,
            state=self.life.state,
            age=self._loop.time() - self.born,
            inflight=len(self.calls),
            sessions=self.places,
            served=self.served,
            restarts=self._restarts,
            resident=self.process.resident if self.process else 0,
            where=self.process.where if self.process else "",
        )

    # --- its start ---

    async def start(self) -> None:
        """Start the process and shake hands.

        If it exits, refuses, does not say READY in time, or anything else goes wrong on the way, in code of
        ours or of a backend, that is an order to end; `started` has the error once the process is gone.
        """
        limit = asyncio.timeout(self._spec.timeouts.start)
        try:
            async with limit:
                self.greeting = await self._shake_hands(limit)
            if self.order is None:
                self.life.become(State.READY)
                self._watch_heartbeat()
                self.started.succeed(None)
        except (KeyboardInterrupt, GeneratorExit):  # this task ends here and now
            raise
        except BaseException as err:
            if isinstance(err, asyncio.CancelledError) and is_cancelled():
                raise
            # The error that it sent explains more than that it has gone, or was ended, since.
            sent = self._ready.error
            if self.order is None or sent is not None:
                self.fail_start(sent or err, overdue=limit.expired())

    async def _shake_hands(self, limit: asyncio.Timeout) -> Greeting:
        self._start_limit = limit  # so that an order to end stops what is under way
        try:
            self.process = await self._launcher.launch()
            self.process.on_beat(lambda: self._on_beat(self))
            self.process.exited.add_done_callback(lambda _: self._exited())
            packing = self._packing(self.process)
            if self.process.memory_socket is not None and not packing:
                self._channel.share_memory(self.process.memory_socket, shares=True)
            await self._loop.create_connection(lambda: self, sock=self.process.socket)
            self._handshake = replace(self._handshake, packing=packing)
            self._channel.send(Kind.HELLO, 0, self._handshake.to_wire())
            return await self._ready.wait()
        finally:
            self._start_limit = None

    def _packing(self, process: Handle) -> str:
        """How large bytes are packed on the way to this worker and back; empty for not at all."""
        wanted = self._spec.compression
        if wanted == "auto":
            wanted = "off" if process.memory_socket is not None or process.where == "local" else "lz4"
        return "" if wanted == "off" or not available() else wanted

    def fail_start(self, err: BaseException, *, overdue: bool = False) -> None:
        """Have a worker whose start ended with `err` brought to its end."""
        error = self._start_error = self._last_words.start_error(err, self.process, overdue=overdue)
        self.order_end(f"{_NOT_STARTED}{error.reason or error.message}", force=True)

    # --- its end ---

    def drain(self, why: str) -> None:
        """Take no new calls; leave when those in flight are done.

        Args:
            why: For the event.
        """
        if self.life.state is State.READY:
            self.reason = why
            self.life.become(State.DRAINING)
            if not self.calls:
                self.order_end("it was drained")

    def order_end(self, reason: str, *, force: bool = False, fault: bool = False) -> None:
        """Have the worker brought to its end; for the arguments see `EndOrder`. The first order counts."""
        if self.order is not None:
            return
        self.order = EndOrder(reason, force, fault)
        try:
            if self.life.state in _LIVING:
                self.reason = reason
                self.life.become(State.STOPPING)
        finally:  # whatever an observer raises, the end comes
            self.ordered.set()
            if self._start_limit is not None and not self._start_limit.expired():
                self._start_limit.reschedule(self._loop.time())  # a start that still runs stops here

    def hasten(self) -> None:
        """Have an end that was ordered before begin with KILL."""
        if self.order is not None:
            self.order = replace(self.order, force=True)

    async def bring_down(self) -> WorkerDiedError:
        """Climb the ladder ask, TERM, KILL until the process is reaped, and say how it died."""
        order, process = self.order, self.process
        assert order is not None  # noqa: S101 - there is no end without an order
        if self._heartbeat_check is not None:
            self._heartbeat_check.cancel()
        if process is None:
            return self._dead(self._last_words.death(None, order.reason.removeprefix(_NOT_STARTED)))
        if not order.force:
            attempt("to tell it to stop", lambda: self._channel.send(Kind.STOP, 0, None))
            attempt("to tell it to stop", lambda: self._channel.flush())
            await self._wait_exit(process, self._spec.timeouts.stop)
        if not order.force and not process.exited.done():
            attempt("to terminate it", lambda: process.terminate())
            await self._wait_exit(process, self._spec.timeouts.stop)
        attempt("to kill it", lambda: process.kill())
        await self._wait_exit(process, _KILL_WAIT)
        if not process.output_closed.done():
            await asyncio.wait([process.output_closed], timeout=_OUTPUT_WAIT)
        death = self._last_words.death(process, order.reason)
        self._let_go(process)
        return self._dead(death)

    def give_up(self, error: BaseException) -> WorkerDiedError:
        """What an end that itself failed comes to: nothing more is waited for."""
        if self._death is not None:
            return self._death
        reason = self.order.reason if self.order is not None else "it was given up"
        if self.process is not None:
            process = self.process
            attempt("to kill it", lambda: process.kill())
            self._let_go(process)
        return self._dead(WorkerDiedError(f"{reason}; its end failed: {type(error).__name__}: {error}"))

    def conclude(self, death: WorkerDiedError) -> None:
        """Say how it ended, to whoever waits for its start or its end."""
        if not self.started.known:
            self.started.fail(self._start_error or self._last_words.start_error(death, self.process))
        self.ended.succeed(death)

    async def _wait_exit(self, process: Handle, seconds: float) -> None:
        if not process.exited.done():
            await asyncio.wait([process.exited], timeout=seconds)

    def _let_go(self, process: Handle) -> None:
        attempt("to close its connection", lambda: self._channel.close())
        attempt("to release it", lambda: process.release())

    def _dead(self, death: WorkerDiedError) -> WorkerDiedError:
        if self.life.state is not State.DEAD:
            self.life.become(State.DEAD)
        self._host_calls.drop_all()
        self._death = death
        return death

    def _exited(self) -> None:
        self.order_end("the pool did not ask for it", force=True)

    def _watch_heartbeat(self) -> None:
        process = self.process
        if process is None or self.order is not None:
            return
        left = process.last_beat + self._spec.timeouts.heartbeat - self._loop.time()
        if left <= 0:
            # Beats that arrived while this loop was busy were read before this timer ran (a loop looks at
            # its descriptors first), so what is missing was not sent.
            self.order_end(f"no heartbeat for {self._spec.timeouts.heartbeat:g} s", force=True)
            return
        self._heartbeat_check = self._loop.call_later(left, self._watch_heartbeat)

    # --- calls ---

    def send(self, call: Call, timeout: float) -> None:
        """Put a call on the worker.

        Raises:
            WireError: If its payload cannot be sent, or the worker serves no such operation.
        """
        if self._operations is not None and call.op not in self._operations:
            raise WireError(
                f"the workers of pool {self._spec.name!r} have no operation {call.op!r}",
                code="unknown-operation",
                hint=f"there are: {', '.join(self._operations) or 'none'}",
            )
        call_id = self._next_id
        form = None if call.codec is None else self._form_of(call.codec)
        request = [call.op, call.payload, timeout, 0 if call.items is None else WINDOW]
        if call.trace is not None:
            request.append(call.trace)
        try:
            self._channel.send(_CALL, call_id, request, alone=not self.calls, form=form)
        except WireError:
            self._channel.encode(call.payload)  # it says at which place in the payload
            raise
        self._next_id += 2
        call.id, call.worker = call_id, self
        self.calls[call_id] = call

    def _form_of(self, codec: str) -> int:
        """The form of a call that names a codec of its own."""
        read = self.greeting.codecs if self.greeting is not None else ()
        if codec not in read:
            raise ConfigError(
                f"no worker of pool {self._spec.name!r} reads {codec!r}",
                code="bad-call",
                hint=f"they read {', '.join(read)}",
            )
        return self._channel.form_of(codec)

    def grant(self, call: Call, count: int) -> None:
        """Let the worker send `count` more parts of a call's answer."""
        self._channel.send(Kind.CREDIT, call.id, count)

    def cancel(self, call: Call) -> None:
        """Tell the worker to stop a call; it answers when it has."""
        self.cancelled.add(call.id)
        self._channel.send(Kind.CANCEL, call.id, None)
        self._host_calls.drop(call.id)

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        try:
            self._channel.attach(transport)
        except BaseException:
            cast(asyncio.Transport, transport).abort()  # so that the start does not wait for a greeting
            raise

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has closed its end: it is dead or dying. Its exit says more, so give that a moment."""
        reason = "it closed its connection"
        try:
            self._channel.finish()
        except WireError as err:
            reason += f": {err.message}"
        self._loop.call_later(_EXIT_WAIT, partial(self.order_end, reason, force=True))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where what arrives is to be written."""
        return self._channel.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what arrived, frame by frame."""
        channel = self._channel
        try:
            for kind, number, body, form in channel.take(nbytes):
                value = channel.read(body) if form == MSGPACK else channel.decode(body, form)
                if number and kind in _ANSWERS:
                    self._answered(number, value, None if kind == _RESULT else read_error(value))
                else:
                    self._take(kind, number, value)
        except WireError as err:
            self.order_end(f"it sent what is not a frame: {err.message}", force=True)
            self._channel.close()  # nothing more is believed

    def _answered(self, number: int, value: Any, error: DspexError | None) -> None:
        """A call's work has ended, with a result or an error."""
        calls = self.calls
        call = calls.pop(number, None)
        if call is None:
            raise _bad_frame(f"an answer for a call {number} that it does not have")
        if call.host_functions:
            self._host_calls.drop(number)
        call.worker = None
        if self.cancelled:
            self.cancelled.discard(number)
        self.served += 1
        if not calls:
            self.idle_since = self._loop.time()
        if self._counts_requests:
            self._on_beat(self)
        try:
            self._on_free(call)  # first, so that the caller's next call finds the place free
        finally:
            call.finish(value, error)
        if not calls and self.life.state is State.DRAINING:
            self.order_end("it was drained")

    def _take(self, kind: int, number: int, value: Any) -> None:
        if kind == Kind.ITEM:
            call = self.calls.get(number)
            if call is None or call.items is None:
                raise _bad_frame(f"a part of an answer that call {number} does not have")
            if call.items.qsize() > WINDOW:
                raise _bad_frame(f"more than the {WINDOW} parts that call {number} has room for")
            call.items.put_nowait(value)
            call.idempotent = False  # its caller has a part of this run
        elif kind == Kind.CALL:
            match value:
                case [int(owner), str(name), list(args), dict(kwargs), *trace] if number and number % 2 == 0:
                    self._host_calls.take(number, owner, name, args, kwargs, *trace[:1])
                case _:
                    raise _bad_frame("a malformed CALL frame")
        elif kind == Kind.CANCEL:
            self._host_calls.cancel(number)
        elif kind == Kind.RELEASE:
            self._channel.released(value)
        elif kind == Kind.READY:
            self._greeted(value)
        elif kind == Kind.ERROR:
            self._ready.fail(_as_start_error(read_error(value)))
        else:
            raise _bad_frame(f"a service does not take {Kind(kind).name} frames")

    def _greeted(self, ready: Any) -> None:
        greeting = Greeting.from_wire(ready)
        if self._ready.known:
            return
        try:
            self._channel.use(common_codec(self._handshake.codecs, greeting.codecs))
        except WorkerStartError as err:
            self._ready.fail(err)
            return
        if self._handshake.packing and greeting.packs:
            self._channel.pack(self._handshake.packing)
        self._operations = greeting.operations
        self._ready.succeed(greeting)


def _bad_frame(what: str) -> WireError:
    return WireError(what, code="bad-frame")


def _as_start_error(error: DspexError) -> WorkerStartError:
    return error if isinstance(error, WorkerStartError) else WorkerStartError.from_other(error)
