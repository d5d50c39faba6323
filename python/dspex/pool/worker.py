"""One worker from the service's side: its process, its socket and the calls on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from dspex.errors import DspexError, WireError, WorkerDiedError, WorkerStartError
from dspex.pool.callbacks import Answerer
from dspex.pool.lifecycle import Lifecycle, State
from dspex.pool.process import how_it_ended
from dspex.wire import PROTOCOL, Kind, read_error, redacted, secrets_in
from dspex.worker.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex.pool.backend import Handle, Launcher
    from dspex.pool.call import Call
    from dspex.pool.spec import PoolSpec

__all__ = ["WINDOW", "Worker", "unexpected_start_error"]

WINDOW: Final = 32
"""Parts of an answer that may be on their way to somebody who has not taken them yet."""

_KILL_WAIT: Final = 10.0
"""Seconds to wait for a killed process to be gone; only one stuck in the kernel needs longer."""

_EXIT_WAIT: Final = 0.5
"""Seconds in which a process whose socket has closed is expected to end by itself."""

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
        hello: What the hand-shake tells the process. It holds the LM's key, and goes nowhere else.
        launcher: What starts the process.
        on_free: Called when a call has left the worker.
        on_beat: Called with the worker at its heartbeats, when its memory is known anew, and after calls.
    """

    def __init__(
        self,
        spec: PoolSpec,
        hello: Mapping[str, Any],
        launcher: Launcher,
        *,
        on_free: Callable[[Call], None],
        on_beat: Callable[[Worker], None],
    ) -> None:
        self.life = Lifecycle()
        self.calls: dict[int, Call] = {}
        self.served = 0
        self.slot = 0
        """Its place in the crew."""
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
        self.condemned = False
        """Whether it was ended for the fault of one call, which the others on it did not share."""
        self._spec = spec
        self._hello = hello
        self._launcher = launcher
        self._on_free = on_free
        self._on_beat = on_beat
        self.idle_since = self.started
        """When its last call left it, on the loop's clock; of no meaning while it has calls."""
        self._channel = Channel(loop)
        self._answerer = Answerer(self.calls, self._channel)
        self._ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._next_id = 1  # odd: the worker's own calls are even
        self._ending: asyncio.Task[None] | None = None
        self._pulse_check: asyncio.TimerHandle | None = None

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
            WorkerStartError: If it exits, refuses, or does not say READY in time; the process is gone then.
        """
        try:
            async with asyncio.timeout(self._spec.start_timeout):
                self.process = await self._launcher.launch()
                self.process.on_beat(lambda: self._on_beat(self))
                self.process.exited.add_done_callback(lambda _: self._exited())
                await self._loop.create_connection(lambda: self, sock=self.process.socket)
                self._channel.send(Kind.HELLO, 0, self._hello)
                self.versions = await asyncio.shield(self._ready)
            if self._ending is not None:  # it died between saying READY and now
                await asyncio.shield(self._ending)
                raise self.dead.result()
        except TimeoutError:
            error = self._start_error(
                "start-timeout", f"it did not say READY within {self._spec.start_timeout:g} s"
            )
        except OSError as err:
            error = self._start_error("start-failed", f"the interpreter cannot be started: {err}")
        except WorkerDiedError as err:
            error = self._start_error("start-exit", f"{err.message.partition(chr(10))[0]}")
        except WorkerStartError as err:
            error = err if self.process is not None else self._start_error(err.code, err.message, err.hint)
        except asyncio.CancelledError:
            await self.end("the pool is closing", force=True)
            raise
        except Exception as err:  # noqa: BLE001 - whatever a step of a start raises, the start has failed
            error = unexpected_start_error(self._spec.name, err)
        else:
            self.life.become(State.READY)
            self.open = True
            self._watch_pulse()
            return
        await self.end("it did not start", force=True)
        raise error

    def _start_error(self, code: str, what: str, hint: str = "") -> WorkerStartError:
        output = self.output() or self._redacted(self._launcher.output())
        return WorkerStartError(
            f"a worker of pool {self._spec.name!r} did not start: {what}"
            + (f"\nits last output:\n{output}" if output else ""),
            code=code,
            hint=hint or "`dspex doctor` looks for the cause",
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
        assert self._ending is not None  # noqa: S101 - the line above has set it
        await asyncio.shield(self._ending)

    def condemn(self, reason: str) -> None:
        """End the worker for the fault of one call."""
        if self._ending is None:
            self.condemned = True
            self._begin_end(reason, force=True)

    def _begin_end(self, reason: str, *, force: bool) -> None:
        self.open = False
        if self._ending is None:
            self._ending = self._loop.create_task(self._end(reason, force))

    async def _end(self, reason: str, force: bool) -> None:
        try:
            await self._bring_to_end(reason, force)
        except Exception as err:  # noqa: BLE001 - whoever waits for its end must hear of it
            self._loop.call_exception_handler(
                {"message": f"{self!r} could not be ended as it should", "exception": err}
            )
            if not self.dead.done():
                self._bury(
                    WorkerDiedError(f"the worker (pid {self.pid}) was given up: {reason}", reason=reason)
                )
            self._channel.close()

    async def _bring_to_end(self, reason: str, force: bool) -> None:
        if self.life.state is not State.DEAD:
            self.reason = reason
            self.life.become(State.STOPPING)
        if self._pulse_check is not None:
            self._pulse_check.cancel()
        process = self.process
        if process is None:
            self._bury(WorkerDiedError(f"the worker never ran: {reason}", reason=reason))
            return
        if not force:
            self._channel.send(Kind.STOP, 0, None)
            self._channel.flush()
            await self._wait_exit(process)
        if not force and not process.exited.done():
            process.terminate()
            await self._wait_exit(process)
        process.kill()
        if not process.exited.done():
            await asyncio.wait([process.exited], timeout=_KILL_WAIT)
        if not process.said_all.done():
            # The last words are in the pipe; a grandchild may hold it open, so there is an end to waiting.
            await asyncio.wait([process.said_all], timeout=0.2)
        self._bury(self._death(reason))
        self._channel.close()
        process.release()

    async def _wait_exit(self, process: Handle) -> None:
        if not process.exited.done():
            await asyncio.wait([process.exited], timeout=self._spec.stop_timeout)

    def _death(self, reason: str) -> WorkerDiedError:
        code = self.process.exited.result() if self.process and self.process.exited.done() else None
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

    def _bury(self, death: WorkerDiedError) -> None:
        self.life.become(State.DEAD)
        self._answerer.drop_all()
        if not self._ready.done():
            self._ready.set_exception(death)
            self._ready.exception()  # `start` may have given up waiting
        self.dead.set_result(death)

    def _exited(self) -> None:
        self._begin_end("the pool did not ask for it", force=True)

    def output(self) -> str:
        """The last lines the process wrote, without the secrets of its LM and its environment."""
        return self._redacted(self.process.tail() if self.process else "")

    def _redacted(self, text: str) -> str:
        secrets = (*secrets_in(self._hello["lm"] or {}), *secrets_in(self._spec.env))
        said: str = redacted(text, secrets)
        return said

    def _watch_pulse(self) -> None:
        process = self.process
        if process is None or self._ending is not None:
            return
        left = process.last_beat + self._spec.heartbeat_timeout - self._loop.time()
        if left <= 0:
            # Beats that arrived while this loop was busy were read before this timer ran (a loop looks at
            # its descriptors first), so what is missing was not sent.
            self._begin_end(f"no heartbeat for {self._spec.heartbeat_timeout:g} s", force=True)
            return
        self._pulse_check = self._loop.call_later(left, self._watch_pulse)

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
        self._channel.send(Kind.CANCEL, call.id, None)
        self._answerer.drop(call.id)

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._channel.attach(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has closed its end: it is dead or dying. Its exit says more, so give that a moment."""
        reason = "it closed its connection"
        try:
            self._channel.finish()
        except WireError as err:
            reason += f": {err.message}"
        process = self.process
        if process is not None and not process.exited.done():
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
        if call.callbacks:
            self._answerer.drop(number)
        call.worker = None
        self.served += 1
        if not calls:
            self.idle_since = self._loop.time()
        if self._spec.max_requests is not None:
            self._on_beat(self)
        self._on_free(call)  # first, so that the caller's next call finds the place free
        if not call.answer.done():
            if error is None:
                call.answer.set_result(value)
            else:
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
                    self._answerer.take(number, owner, name, args, kwargs, *trace[:1])
                case _:
                    raise _bad_frame("a call back that is none")
        elif kind == Kind.CANCEL:
            self._answerer.cancel(number)
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


def _bad_frame(what: str) -> WireError:
    return WireError(what, code="bad-frame")


def unexpected_start_error(pool: str, err: Exception) -> WorkerStartError:
    """The error of a start in which something was raised that no step of a start should raise."""
    error = WorkerStartError(
        f"a worker of pool {pool!r} did not start: {type(err).__name__}: {err}",
        code="start-failed",
        hint="`dspex doctor` looks for the cause",
    )
    error.__cause__ = err
    return error


def _as_start_error(error: DspexError) -> WorkerStartError:
    return error if isinstance(error, WorkerStartError) else WorkerStartError.from_other(error)
