"""One worker from the service's side: its process, its socket and the calls on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from dspex.errors import DeadlineExceeded, DspexError, WireError, WorkerDiedError, WorkerStartError
from dspex.pool._backends.process import how_it_ended
from dspex.pool._host_calls import HostCalls
from dspex.pool._lifecycle import Lifecycle, State
from dspex.protocol.channel import Channel
from dspex.protocol.errors import read_error
from dspex.protocol.frames import PROTOCOL, Kind
from dspex.protocol.secrets import redacted, secrets_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex.pool._backends.base import Handle, Launcher
    from dspex.pool._call import Call
    from dspex.pool._spec import PoolSpec

__all__ = ["WINDOW", "Worker", "is_cancelled"]

T = TypeVar("T")

WINDOW: Final = 32
"""Parts of an answer that may be on their way to somebody who has not taken them yet."""

_KILL_WAIT: Final = 10.0
"""Seconds to wait for a killed process to be gone; only one stuck in the kernel needs longer."""

_EXIT_WAIT: Final = 0.5
"""Seconds in which a process whose socket has closed is expected to end by itself."""

_NOT_STARTED: Final = "it did not start: "

_LIVING: Final = frozenset({State.STARTING, State.READY, State.DRAINING})

# An enum's member costs a look-up, and these are asked for with every call.
_CALL: Final = int(Kind.CALL)
_RESULT: Final = int(Kind.RESULT)
_ANSWERS: Final = frozenset({_RESULT, int(Kind.ERROR)})


class Worker(asyncio.BufferedProtocol):
    """A process that serves calls.

    The pool makes one, awaits `start`, hands it calls, and hears of its end by `dead`. Everything that can
    end a worker (its own death, garbage on the wire, a missing heartbeat, the pool's wish) goes through
    `end`, once.

    Args:
        spec: The pool's settings.
        handshake: What the hand-shake tells the process. It holds the LM's key, and goes nowhere else.
        launcher: What starts the process.
        on_free: Called when a call has left the worker.
        on_beat: Called with the worker at its heartbeats, when its memory is known anew, and after calls.
    """

    def __init__(
        self,
        spec: PoolSpec,
        handshake: Mapping[str, Any],
        launcher: Launcher,
        *,
        on_free: Callable[[Call], None],
        on_beat: Callable[[Worker], None],
    ) -> None:
        self.life = Lifecycle()
        self.calls: dict[int, Call] = {}
        self.served = 0
        self.slot = 0
        """Its place in the supervisor."""
        self.restarts = 0
        """Workers its place had before it."""
        self.reason = ""
        """Why it is to go."""
        self.process: Handle | None = None
        self.versions: dict[str, Any] = {}
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.started = loop.time()
        self.open = False
        """Whether it takes calls."""
        self.dead: asyncio.Future[WorkerDiedError] = loop.create_future()
        """Says why, once the process is gone and reaped."""
        self.stopping: set[int] = set()
        """Calls on it that were told to stop and have not said that they did."""
        self.killed_for_fault = False
        """Whether it was ended for the fault of one call, which the others on it did not share."""
        self._spec = spec
        self._handshake = handshake
        self._launcher = launcher
        self._on_free = on_free
        self._on_beat = on_beat
        self.idle_since = self.started
        """When its last call left it, on the loop's clock; of no meaning while it has calls."""
        self._channel = Channel(loop)
        self._host_calls = HostCalls(self.calls, self._channel)
        self._ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._next_id = 1  # odd: the worker's own calls are even
        self._ending: asyncio.Task[None] | None = None
        self._heartbeat_check: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Worker pid={self.pid} {self.life.state.value} calls={len(self.calls)}>"

    @property
    def pid(self) -> int | None:
        """The process's id, once there is one."""
        return self.process.pid if self.process else None

    # --- life ---

    async def start(self) -> None:
        """Start the process and shake hands.

        Raises:
            WorkerStartError: If it exits, refuses, does not say READY in time, or anything else goes wrong on
                the way, in code of ours or of a backend; the process is gone then.
        """
        try:
            async with asyncio.timeout(self._spec.timeouts.start) as limit:
                self.process = await self._launcher.launch()
                self.process.on_beat(lambda: self._on_beat(self))
                self.process.exited.add_done_callback(lambda _: self._exited())
                await self._loop.create_connection(lambda: self, sock=self.process.socket)
                self._channel.send(Kind.HELLO, 0, self._handshake)
                self.versions = await asyncio.shield(self._ready)
            if self._ending is not None:  # it died between saying READY and now
                await self._ended()
                raise self.dead.result()
            self.life.become(State.READY)
            self.open = True
            self._watch_heartbeat()
        except (KeyboardInterrupt, GeneratorExit):  # this task ends here and now: see `Supervisor._resume`
            raise
        except BaseException as err:
            if isinstance(err, asyncio.CancelledError) and is_cancelled():
                await self.end("the pool is closing", force=True)
                raise
            failure = self._start_failure(err, overdue=limit.expired())
        else:
            return
        await self.end(f"{_NOT_STARTED}{failure.reason or failure.message}", force=True)
        try:
            raise failure
        finally:
            del failure  # or it would hold itself, by the frame in its traceback

    def _start_failure(self, err: BaseException, *, overdue: bool) -> WorkerStartError:
        """What whoever waits for the start is told about `err`, whatever it is."""
        match err:
            case TimeoutError() if overdue:
                what = f"it did not say READY within {self._spec.timeouts.start:g} s"
                return self._start_error("start-timeout", what)
            case OSError():
                return self._start_error("start-failed", f"the interpreter cannot be started: {err}")
            case WorkerDiedError():
                return self._start_error("start-exit", err.message.partition("\n")[0])
            case WorkerStartError() if self.process is not None:  # the worker's own words
                return err
            case DspexError():
                return self._start_error(err.code, err.message, err.hint)
        error = self._start_error("start-failed", f"{type(err).__name__}: {err}")
        error.__cause__ = err
        return error

    def _start_error(self, code: str, what: str, hint: str = "") -> WorkerStartError:
        output = self.output() or self._redacted(_quietly(self._launcher.output) or "")
        return WorkerStartError(
            f"a worker of pool {self._spec.name!r} did not start: {what}"
            + (f"\nits last output:\n{output}" if output else ""),
            code=code,
            hint=hint or "`dspex doctor` looks for the cause",
            reason=what,
            output=output,
        )

    def drain(self, why: str) -> None:
        """Take no new calls; leave when those in flight are done.

        Args:
            why: For the event.
        """
        if self.life.state is State.READY:
            self.reason = why
            self.life.become(State.DRAINING)
            self.open = False
            if not self.calls:
                self._begin_end("it was drained", force=False)

    async def end(self, reason: str, *, force: bool = False) -> None:
        """Bring the process to its end, by the ladder ask, TERM, KILL, and wait until it is reaped.

        Args:
            reason: Why, for the errors of calls that are still on it.
            force: Begin with KILL, for a process that does not listen.
        """
        self._begin_end(reason, force=force)
        await self._ended()

    async def _ended(self) -> None:
        # Not the task: whoever cancels all tasks, as a loop does that ends, cancels it too; another goes on.
        await asyncio.shield(self.dead)

    def abandon(self, reason: str) -> None:
        """End a worker that nobody waits for."""
        self._begin_end(reason, force=True)

    def kill_for_fault(self, reason: str) -> None:
        """End the worker for the fault of one call."""
        if self._ending is None:
            self.killed_for_fault = True
            self._begin_end(reason, force=True)

    def _begin_end(self, reason: str, *, force: bool) -> None:
        self.open = False
        if self._ending is not None:
            return
        try:
            if self.life.state in _LIVING:
                self.reason = reason
                self.life.become(State.STOPPING)
        finally:  # whatever is told, the end comes
            self._climb(reason, force=force)

    def _climb(self, reason: str, *, force: bool) -> None:
        self._ending = self._loop.create_task(self._end(reason, force))
        self._ending.add_done_callback(partial(self._climb_on, reason))

    def _climb_on(self, reason: str, ending: asyncio.Task[None]) -> None:
        """An end that was cut short is brought to its end: what waits for it would wait for ever."""
        if self.dead.done():
            return
        if ending.cancelled():
            self._climb(reason, force=True)
        else:
            error = ending.exception()
            _report(f"the end of worker {self.pid}", error)
            self._on_exit(WorkerDiedError(f"{reason}; its end failed: {type(error).__name__}: {error}"))

    async def _end(self, reason: str, force: bool) -> None:
        if self._heartbeat_check is not None:
            self._heartbeat_check.cancel()
        process = self.process
        if process is None:
            why = reason.removeprefix(_NOT_STARTED)
            self._on_exit(WorkerDiedError(f"the worker never ran: {why}", reason=reason))
            return
        if not force:
            _quietly(self._channel.send, Kind.STOP, 0, None)
            _quietly(self._channel.flush)
            await self._wait_exit(process)
        if not force and not process.exited.done():
            _quietly(process.terminate)
            await self._wait_exit(process)
        _quietly(process.kill)
        if not process.exited.done():
            await asyncio.wait([process.exited], timeout=_KILL_WAIT)
        if not process.output_closed.done():
            # The last words are in the pipe; a grandchild may hold it open, so there is an end to waiting.
            await asyncio.wait([process.output_closed], timeout=0.2)
        death = self._death(reason)
        _quietly(self._channel.close)
        _quietly(process.release)
        self._on_exit(death)

    async def _wait_exit(self, process: Handle) -> None:
        if not process.exited.done():
            await asyncio.wait([process.exited], timeout=self._spec.timeouts.stop)

    def _death(self, reason: str) -> WorkerDiedError:
        code = self._exit_code()
        how, name = how_it_ended(code)
        output = self.output()
        return WorkerDiedError(
            f"the worker (pid {self.pid}) {how}: {reason}"
            + (f"\nits last output:\n{output}" if output else ""),
            hint="the call may or may not have had its effect",
            pid=self.pid,
            exit_status=code,
            signal=name,
            reason=reason,
            output=output,
        )

    def _exit_code(self) -> int | None:
        exited = self.process.exited if self.process else None
        known = exited is not None and exited.done() and not exited.cancelled() and exited.exception() is None
        return exited.result() if known and exited is not None else None

    def _on_exit(self, death: WorkerDiedError) -> None:
        if self.life.state is not State.DEAD:
            self.life.become(State.DEAD)
        self._host_calls.drop_all()
        if not self._ready.done():
            self._ready.set_exception(death)
            self._ready.exception()  # `start` may have given up waiting
        self.dead.set_result(death)

    def _exited(self) -> None:
        self._begin_end("the pool did not ask for it", force=True)

    def output(self) -> str:
        """The last lines the process wrote, without the secrets of its LM and its environment."""
        return self._redacted((_quietly(self.process.tail) if self.process else None) or "")

    def _redacted(self, text: str) -> str:
        secrets = (*secrets_in(self._handshake["lm"] or {}), *secrets_in(self._spec.env))
        said: str = redacted(text, secrets)
        return said

    def _watch_heartbeat(self) -> None:
        process = self.process
        if process is None or self._ending is not None:
            return
        left = process.last_beat + self._spec.timeouts.heartbeat - self._loop.time()
        if left <= 0:
            # Beats that arrived while this loop was busy were read before this timer ran (a loop looks at
            # its descriptors first), so what is missing was not sent.
            self._begin_end(f"no heartbeat for {self._spec.timeouts.heartbeat:g} s", force=True)
            return
        self._heartbeat_check = self._loop.call_later(left, self._watch_heartbeat)

    # --- calls ---

    def send(self, call: Call, timeout: float) -> None:
        """Put a call on the worker.

        Raises:
            WireError: If its payload cannot be sent.
        """
        call_id = self._next_id
        said = [call.op, call.payload, timeout, 0 if call.items is None else WINDOW]
        if call.trace is not None:
            said.append(call.trace)
        try:
            self._channel.send(_CALL, call_id, said, alone=not self.calls)
        except WireError:
            self._channel.encode(call.payload)  # it says at which place in the payload
            raise
        self._next_id += 2
        call.id, call.worker = call_id, self
        self.calls[call_id] = call

    def grant(self, call: Call, count: int) -> None:
        """Let the worker send `count` more parts of a call's answer."""
        self._channel.send(Kind.CREDIT, call.id, count)

    def cancel(self, call: Call) -> None:
        """Tell the worker to stop a call; it answers when it has."""
        self.stopping.add(call.id)
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
        self._loop.call_later(_EXIT_WAIT, partial(self._begin_end, reason, force=True))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where what arrives is to be written."""
        return self._channel.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what arrived, frame by frame."""
        try:
            for kind, number, _, _, body in self._channel.take(nbytes):
                if number and kind in _ANSWERS:
                    value = self._channel.decode(body)
                    self._settle(number, value, None if kind == _RESULT else read_error(value))
                else:
                    self._take(kind, number, body)
        except WireError as err:
            self._begin_end(f"it sent what is not a frame: {err.message}", force=True)
            self._channel.close()  # nothing more is believed

    def _settle(self, number: int, value: Any, error: DspexError | None) -> None:
        """A call has its answer."""
        calls = self.calls
        call = calls.pop(number, None)
        if call is None:
            raise _bad_frame(f"an answer for a call {number} that it does not have")
        if call.host_functions:
            self._host_calls.drop(number)
        call.worker = None
        if self.stopping:
            self.stopping.discard(number)
        self.served += 1
        if not calls:
            self.idle_since = self._loop.time()
        if self._spec.recycling.requests is not None:
            self._on_beat(self)
        self._on_free(call)  # first, so that the caller's next call finds the place free
        if not call.answer.done():
            if error is None:
                call.answer.set_result(value)
            else:
                if call.idempotent and isinstance(error, DeadlineExceeded):
                    error.retryable = True
                call.answer.set_exception(error)
        if not calls and not self.open and self.life.state is State.DRAINING:
            self._begin_end("it was drained", force=False)

    def _take(self, kind: int, number: int, body: memoryview) -> None:
        decode = self._channel.decode
        if kind == Kind.ITEM:
            call = self.calls.get(number)
            if call is None or call.items is None:
                raise _bad_frame(f"a part of an answer that call {number} does not have")
            if call.items.qsize() > WINDOW:
                raise _bad_frame(f"more than the {WINDOW} parts that call {number} has room for")
            call.items.put_nowait(decode(body))
        elif kind == Kind.CALL:
            match decode(body):
                case [int(owner), str(name), list(args), dict(kwargs), *trace] if number and number % 2 == 0:
                    self._host_calls.take(number, owner, name, args, kwargs, *trace[:1])
                case _:
                    raise _bad_frame("a call back that is none")
        elif kind == Kind.CANCEL:
            self._host_calls.cancel(number)
        elif kind == Kind.READY:
            self._greeted(decode(body))
        elif kind == Kind.ERROR:
            refusal = read_error(decode(body))
            if not self._ready.done():
                self._ready.set_exception(_as_start_error(refusal))
                self._ready.exception()
        else:
            raise _bad_frame(f"a service does not take {Kind(kind).name} frames")

    def _greeted(self, ready: Any) -> None:
        if not (isinstance(ready, dict) and ready.keys() >= {"protocol", "python", "dspy", "dspex"}):
            raise _bad_frame("a greeting without versions")
        if ready["protocol"] != PROTOCOL:
            raise _bad_frame(f"the worker speaks protocol {ready['protocol']}, not {PROTOCOL}")
        if not self._ready.done():
            self._ready.set_result(ready)


def is_cancelled() -> bool:
    """Whether somebody wants this task to end; else what looks like it came out of something it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _quietly(step: Callable[..., T], *args: Any) -> T | None:
    """Take a step that the following ones must not depend on; what it raises goes to the loop's handler."""
    try:
        return step(*args)
    except Exception as err:  # noqa: BLE001 - code of a backend may raise anything
        _report(getattr(step, "__qualname__", repr(step)), err)
        return None


def _report(what: str, error: BaseException | None) -> None:
    context = {"message": f"dspex: {what} failed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)


def _bad_frame(what: str) -> WireError:
    return WireError(what, code="bad-frame")


def _as_start_error(error: DspexError) -> WorkerStartError:
    return error if isinstance(error, WorkerStartError) else WorkerStartError.from_other(error)
