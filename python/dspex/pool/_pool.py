"""`Pool`: the queue, the slots, and who gets which call.

::

    call() --> queue --> worker with the fewest calls --> answer
                 ^             |
                 |             v  dies, is worn, is too much or too few
                 +---------- supervisor

Everything here runs on one event loop, the one `start` was awaited on, so there is nothing to lock, and
nothing polls. The supervisor (`_supervisor`) keeps the workers; the pool decides who gets which call, and for
how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final, Literal, Self

from dspex._settings import check_idempotent
from dspex._timeouts import check_seconds
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    DspexError,
    PoolClosedError,
    PoolSaturated,
    WorkerDiedError,
    WorkerStartError,
    from_dict,
)
from dspex.pool._backends.base import Backend
from dspex.pool._backends.local import LocalProcesses, make_handshake
from dspex.pool._call import Call, FairQueue
from dspex.pool._events import PoolEvent
from dspex.pool._host_calls import outer_call
from dspex.pool._input_streams import Source, streaming_inputs
from dspex.pool._lifecycle import Lifecycle, State
from dspex.pool._spec import PoolSpec
from dspex.pool._supervisor import Owner, Supervisor
from dspex.pool._worker import WINDOW, Worker
from dspex.protocol.deadlines import Deadlines
from dspex.protocol.events import event_of
from dspex.telemetry._trace import Trace, current_trace, read_trace

__all__ = ["DEADLINES", "Pool", "PoolStatus", "WorkerStatus"]

Profile = Literal["interactive", "batch", "optimizer"]

DEADLINES: Final[Mapping[str, float]] = {"interactive": 30.0, "batch": 600.0, "optimizer": 86_400.0}
"""Seconds a call has, by the name of what it is for: a person waits, nobody waits, a job runs."""

_IDEMPOTENT: Final = frozenset({"echo"})
"""Operations that may be run again without harm, when the caller does not say. `predict` is none: to ask an
LM twice costs twice, and only the caller knows what a second answer does."""

_PREDICTIONS: Final = frozenset({"predict", "module"})
"""Operations whose answer is a mapping that tells how it came about."""

_READY: Final = State.READY  # an enum's member costs a look-up, and this is asked for with every call

_WORKER_MARGIN: Final = 0.05
"""Seconds, at most, by which the worker's limit fires before the caller's, to be the one that explains."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker now.

    Attributes:
        slot: Its place in the pool, from 0. While one is replaced, both are there, in the same place.
        pid: Its process id, None while it has none.
        state: Where it is in its life.
        age: Seconds since its start.
        inflight: Calls on it.
        served: Calls it has answered.
        restarts: Workers its place had before it.
        resident: Bytes of memory, its own, at its last heartbeat.
        where: The machine it runs on: `"local"`, or a name or address.
    """

    slot: int
    pid: int | None
    state: State
    age: float
    inflight: int
    served: int
    restarts: int
    resident: int
    where: str


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool now.

    Attributes:
        name: Its name.
        state: Where it is in its life.
        waiting: Calls in the queue.
        deaths: Workers lost since the start, those that were asked to go not counted.
        wanted: Workers it is to have at the moment.
        workers: Those it has, by their places. A place without one is waiting to start another.
        backend: What its backend says of itself.
    """

    name: str
    state: State
    waiting: int
    deaths: int
    wanted: int
    workers: tuple[WorkerStatus, ...]
    backend: Mapping[str, str]


class Pool:
    """Worker processes of one kind, kept alive, with a queue in front.

    Args:
        spec: The settings.
        lm: Settings of the workers' language model: `model`, `api_base`, `api_key` and anything `dspy.LM`
            takes. They reach the workers over the socket; the key is never shown.
        on_event: Called on the loop with every `PoolEvent`. What it raises goes to the loop's handler.
        backend: Where the workers run; None for processes on this machine.

    Use it as ``async with Pool(spec) as pool``, or await `start` and `aclose`. It belongs to the event
    loop it was started on, and to the process.
    """

    def __init__(
        self,
        spec: PoolSpec | None = None,
        *,
        lm: Mapping[str, Any] | None = None,
        on_event: Callable[[PoolEvent], None] | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.spec = PoolSpec() if spec is None else _checked(spec)
        self._backend = backend or LocalProcesses()
        self._handshake = {**make_handshake(self.spec), "lm": dict(lm) if lm else None}
        self._on_event = on_event
        self._life = Lifecycle()
        self._life.watch(self._changed)
        self._queue = FairQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._owner = os.getpid()
        self._supervisor: Supervisor
        self._deadlines: Deadlines[Call]
        self._closing: asyncio.Future[None] | None = None
        self._finalizer: AsyncGenerator[None, None]
        self._loop_ends = False
        self._start_failure = ""  # why there was never a worker
        self._hurried = False
        """Whether closing ends the workers without asking them first: nobody waits for what they do."""
        self._growing: asyncio.TimerHandle | None = None
        self._shrinking: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.spec.name!r} {self._life.state.value}>"

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.spec.name

    @property
    def state(self) -> State:
        """Where the pool is in its life."""
        return self._life.state

    @property
    def versions(self) -> dict[str, str]:
        """What the workers run: `python`, `dspy`, `dspex`; empty before one is ready."""
        ready = [
            worker.versions for worker in (self._supervisor.workers if self._loop else ()) if worker.versions
        ]
        return {name: str(ready[0][name]) for name in ("python", "dspy", "dspex")} if ready else {}

    # --- opening and closing ---

    async def start(self) -> None:
        """Start the workers; returns when one can serve. The others follow by themselves.

        Raises:
            WorkerStartError: If none came up within the restart budget; the first failure is told.
            PoolClosedError: If the pool has been started before.
            ConfigError: If the backend cannot give what the settings say; on Windows, always.
        """
        if self._loop is not None or self._life.state is not State.STARTING:
            raise PoolClosedError(
                f"pool {self.name!r} has been started or closed before"
                + (f": its start failed: {self._start_failure}" if self._start_failure else ""),
                code="pool-restarted",
            )
        launcher = self._backend.launcher(self.spec)
        self._loop = loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._deadlines = Deadlines(loop, self._overdue)
        self._finalizer = self._leave_with_loop()
        owner = Owner(self._freed, self._serving, self._worker_exited, self._exhausted)
        self._supervisor = Supervisor(self.spec, self._handshake, launcher, owner, self._emit)
        try:
            await anext(self._finalizer)
            await self._supervisor.start(self.spec.workers)
            self._check_open()  # it may have been closed in the turn in which its first worker was ready
        except BaseException as err:
            if isinstance(err, DspexError) and not isinstance(err, PoolClosedError):
                self._start_failure = err.message
            await self.aclose(timeout=0)
            raise

    async def _leave_with_loop(self) -> AsyncGenerator[None, None]:
        """Waits for the end of the loop, which closes what generators it has, as `asyncio.run` sees to.

        A pool that nobody has closed by then could never be closed: its workers would stay, idle, for as
        long as the process does.
        """
        try:
            yield
        finally:
            # A loop that ends has cancelled all tasks, one that was closing the pool among them.
            if self._closing is None or self._closing.cancelled():
                self._hurried = self._loop_ends = True
                await self.aclose(timeout=0)

    async def aclose(self, *, timeout: float | None = None) -> None:
        """Finish the calls in flight, refuse new ones, and end the workers. Safe to await twice.

        Args:
            timeout: Seconds the calls have; None for the pool's `timeouts.stop`. What is left then fails
                with `PoolClosedError`.
        """
        if self.belongs_elsewhere:  # in a fork, the workers are not ours to end
            return
        if timeout is not None:
            timeout = check_seconds(timeout, zero=True)
        if self._life.state in (State.STARTING, State.READY):
            finish = self.spec.timeouts.stop if timeout is None else timeout
            ready = self._life.state is State.READY
            self._life.become(State.DRAINING if ready else State.STOPPING)
            self._closing = asyncio.ensure_future(self._close(finish))
        elif self._closing is not None and self._closing.cancelled():
            self._closing = asyncio.ensure_future(self._close(0))
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, finish: float) -> None:
        if self._loop is not None:
            answers = [call.answer for worker in self._supervisor.workers for call in worker.calls.values()]
            answers += [call.answer for call in self._queue]
            if answers and finish > 0:
                await asyncio.wait(answers, timeout=finish)
        if self._life.state is State.DRAINING:
            self._life.become(State.STOPPING)
        for timer in (self._growing, self._shrinking):
            if timer is not None:
                timer.cancel()
        if self._loop is not None:
            await self._supervisor.close(force=self._hurried)
            if not self._loop_ends:  # else it is the finalizer that closes
                await self._finalizer.aclose()
        self._refuse_waiting(self._closed_error())
        self._life.become(State.DEAD)

    def resize(self, workers: int) -> None:
        """Want this many workers from now on; those there are too many of finish their calls first.

        It is also the number autoscaling does not go below.

        Raises:
            ConfigError: If it is not a number of workers.
            PoolClosedError: If the pool is not open.
        """
        self._check_open()
        most = self.spec.max_workers
        spec = self.spec.replace(workers=workers, max_workers=None)
        self.spec = spec if most is None else spec.replace(max_workers=max(workers, most))
        self._supervisor.resize(workers)

    async def restart(self) -> None:
        """Replace the workers one by one, each by a new one that is ready before it goes. No call is lost.

        Raises:
            WorkerStartError: If a new one does not start. The old ones that are left go on.
            PoolClosedError: If the pool is not open, or is closed meanwhile.
        """
        self._check_open()
        await self._supervisor.restart()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- calls ---

    async def call(
        self,
        op: str,
        payload: Any,
        *,
        timeout: float | Profile | None = None,
        idempotent: bool | None = None,
        session: str = "",
        host_functions: Mapping[str, Callable[..., Any]] | None = None,
        input_streams: Mapping[str, Source] | None = None,
        trace: str | Trace | None = None,
    ) -> Any:
        """Run an operation on one of the workers.

        Args:
            op: The operation's name, such as `"predict"`.
            payload: Its argument: plain values (see `dspex.protocol`).
            timeout: Seconds from now until the answer, waiting in the queue included; or a profile of
                `DEADLINES`; None for the pool's `timeouts.call`.
            idempotent: Whether the call may be run again when its worker is ended for another call's fault.
                None is False for all operations but `echo`. One whose own work ends the worker is not run
                again; its `WorkerDiedError` is then `retryable`.
            session: Whose call it is: sessions take turns in the queue.
            host_functions: Functions of this process, by name, that the work may call while the call
                lasts: sync ones run in a thread, async ones on this loop, both in a copy of this context. A
                call that such a function makes to a pool does not wait for a place and has no more time than
                this one.
            input_streams: Input that comes in parts: async iterators, iterators (each step in a thread) or
                lists, by the name of the argument under which the work finds an iterator over the same
                parts. They are drawn no faster than the work reads, and closed when it has enough or is over.
                A call with input streams is never run twice.
            trace: The trace the call belongs to: a W3C `traceparent`, or a mapping with it; None for the one
                of `dspex.telemetry.use_trace`. The work finds it by `dspex.telemetry.current_trace`.

        Returns:
            What the operation answered. That of `predict` and `module` has `attempts`, how many workers the
            call was given to, if there was more than one.

        Raises:
            DeadlineExceeded: The time ran out.
            PoolSaturated: The queue is full; nothing was done.
            PoolClosedError: The pool is not open.
            WorkerDiedError: The worker died with the call.
            WorkerStartError: No worker is there and the restart budget is spent.
            WireError: The payload cannot be sent.
            DspexError: Whatever the operation raised, in the classes of `dspex.errors`.
        """
        if input_streams:
            lent = streaming_inputs(input_streams, payload, host_functions, self.spec.timeouts.cancel)
            async with lent as (payload, host_functions):
                return await self.call(
                    op,
                    payload,
                    timeout=timeout,
                    idempotent=False,
                    session=session,
                    host_functions=host_functions,
                    trace=trace,
                )
        call = self._submit(op, payload, timeout, session, host_functions, trace, idempotent)
        try:
            answer = await call.answer  # a call that is answered has been let go of already
            return answer if call.attempts == 1 else _counted(answer, call)
        except BaseException:
            self._let_go(call)
            raise
        finally:
            # The answer holds the exception, which holds this frame, which would hold the call: a circle that
            # keeps the payload until somebody collects it.
            del call

    async def stream(
        self,
        op: str,
        payload: Any,
        *,
        timeout: float | Profile | None = None,
        session: str = "",
        host_functions: Mapping[str, Callable[..., Any]] | None = None,
        input_streams: Mapping[str, Source] | None = None,
        trace: str | Trace | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Run an operation whose answer comes in parts, and yield them as they come.

        Those of `predict` and `module` are `dspex.events`: fields as they are written, messages of progress,
        and at last a `dspex.Prediction`. Those of `function` are what an async generator, or a generator in a
        thread, yields.

        The worker is never more than a few dozen parts ahead of whoever takes them. Close the generator
        (`contextlib.aclosing`) to stop the work early. It is never run twice.

        Args:
            op: As for `call`.
            payload: As for `call`.
            timeout: As for `call`, for the whole.
            session: As for `call`.
            host_functions: As for `call`.
            input_streams: As for `call`.
            trace: As for `call`.

        Raises:
            DspexError: As for `call`; parts that came before have been yielded.
        """
        if input_streams:
            lent = streaming_inputs(input_streams, payload, host_functions, self.spec.timeouts.cancel)
            async with lent as (payload, host_functions):
                parts = self.stream(
                    op, payload, timeout=timeout, session=session, host_functions=host_functions, trace=trace
                )
                async with contextlib.aclosing(parts):
                    async for part in parts:
                        yield part
            return
        call = self._submit(op, payload, timeout, session, host_functions, trace, False, asyncio.Queue())
        items, end = call.items, object()
        assert items is not None  # noqa: S101 - given above
        call.answer.add_done_callback(lambda _: items.put_nowait(end))
        taken = 0
        try:
            while (item := await items.get()) is not end:
                yield event_of(item) if op in _PREDICTIONS else item
                taken += 1
                if taken % (WINDOW // 2) == 0 and call.worker is not None:
                    call.worker.grant(call, WINDOW // 2)
            call.answer.result()
        finally:
            if not call.answer.cancel() and not call.answer.cancelled():
                call.answer.exception()  # who closes the stream early does not ask for it
            self._let_go(call)
            del call  # as in `call`

    async def batch(
        self,
        op: str,
        payloads: Iterable[Any],
        *,
        timeout: float | Profile | None = None,
        idempotent: bool | None = None,
        session: str = "",
    ) -> list[Any]:
        """Run an operation on many payloads, as many at once as the pool has places.

        Args:
            op: As for `call`.
            payloads: One argument for each call.
            timeout: As for `call`, for each of them from the time it is begun.
            idempotent: As for `call`.
            session: As for `call`.

        Returns:
            For each payload its answer, or the `DspexError` it failed with, in the order of the payloads.

        Raises:
            ConfigError: If an argument that all the calls share is wrong; none of them is made.
            PoolClosedError: If the pool is not open; no payload has been drawn.
        """
        self._check_open()
        self._check_call(op, timeout, session, idempotent)
        places = self.spec.max_inflight * self._most(self.spec.workers)
        waiting = enumerate(payloads)
        answers: dict[int, Any] = {}

        async def work(first: tuple[int, Any]) -> None:
            for index, payload in chain((first,), waiting):
                try:
                    answers[index] = await self.call(
                        op, payload, timeout=timeout, idempotent=idempotent, session=session
                    )
                except DspexError as err:
                    # Nobody raises it; its traceback would hold the payload for as long as the error lives.
                    answers[index] = err.with_traceback(None)

        try:
            async with asyncio.TaskGroup() as group:
                for first in islice(waiting, places):
                    group.create_task(work(first))
        except ExceptionGroup as errors:  # of the payloads' iterator: what it raised once, it says no more
            raise errors.exceptions[0] from None
        return [answers[index] for index in range(len(answers))]

    def status(self) -> PoolStatus:
        """What the pool and each worker are doing now."""
        now = self._loop.time() if self._loop else 0.0
        return PoolStatus(
            name=self.name,
            state=self._life.state,
            waiting=len(self._queue),
            deaths=self._supervisor.deaths if self._loop else 0,
            wanted=self._supervisor.size if self._loop else 0,
            backend=self._backend.describe(),
            workers=tuple(
                WorkerStatus(
                    slot=worker.slot,
                    pid=worker.pid,
                    state=worker.life.state,
                    age=now - worker.started,
                    inflight=len(worker.calls),
                    served=worker.served,
                    restarts=worker.restarts,
                    resident=worker.process.resident if worker.process else 0,
                    where=worker.process.where if worker.process else "",
                )
                for worker in sorted(
                    self._supervisor.workers if self._loop else (), key=lambda worker: worker.slot
                )
            ),
        )

    def _submit(
        self,
        op: str,
        payload: Any,
        timeout: float | Profile | None,
        session: str,
        host_functions: Mapping[str, Callable[..., Any]] | None,
        trace: str | Trace | None,
        idempotent: bool | None,
        items: asyncio.Queue[Any] | None = None,
    ) -> Call:
        """Put a call on a worker or in the queue. Whoever submits it must `_let_go` of it."""
        loop = self._check_open()
        seconds = self._check_call(op, timeout, session, idempotent)
        if host_functions and not (
            isinstance(host_functions, Mapping) and all(map(callable, host_functions.values()))
        ):
            raise ConfigError("host calls are functions by their names", code="bad-call")
        outer = outer_call()
        # The call that waits for this one may hold the last place.
        free = self._supervisor.choose(full=outer is not None)
        if free is None:
            if len(self._queue) >= self.spec.queue:
                raise PoolSaturated(
                    f"pool {self.name!r}: {len(self._queue)} calls wait already",
                    hint="slow down, or raise `queue`, `workers` or `max_inflight`",
                )
            if self._supervisor.is_exhausted():
                raise self._supervisor.refusal()
        now = loop.time()
        call = Call(op, payload, asyncio.Future(loop=loop), now + seconds, session, host_functions, items)
        call.idempotent = op in _IDEMPOTENT if idempotent is None else idempotent
        call.trace = current_trace() if trace is None else read_trace(trace)
        if host_functions:
            call.context = copy_context()
        if outer is not None:
            call.deadline = min(call.deadline, outer.deadline)
        self._deadlines.set(call, call.deadline)
        if free is not None and (outer is not None or not self._queue.count):
            self._put(call, free, now)
        else:
            self._wait(call)
        return call

    def _check_call(
        self, op: str, timeout: float | Profile | None, session: str, idempotent: bool | None
    ) -> float:
        """The seconds a call has, once what can be wrong with it, whatever its payload, has been looked at.

        The queue and the worker look these up: what cannot be would come to light among others' calls.
        """
        if not (isinstance(op, str) and isinstance(session, str)):
            raise ConfigError(
                f"an operation and a session are texts: op={op!r}, session={session!r}", code="bad-call"
            )
        if idempotent is not None:
            check_idempotent(idempotent)
        return self.spec.timeouts.call if timeout is None else self._seconds(timeout)

    def _check_open(self) -> asyncio.AbstractEventLoop:
        if self._life.state is not _READY or self._loop is None:
            raise self._not_open()
        self.check_owner()
        if asyncio.get_running_loop() is not self._loop:
            raise PoolClosedError(
                f"pool {self.name!r} belongs to another event loop",
                code="pool-other-loop",
                hint="call it on the loop it was started on, or through the Runtime",
            )
        return self._loop

    # --- for `SyncPool` ---

    @property
    def belongs_elsewhere(self) -> bool:
        """Whether this process is a fork of the one the pool belongs to."""
        return os.getpid() != self._owner

    def check_owner(self) -> None:
        """Refuse to go on in a fork.

        Raises:
            PoolClosedError: If this is one.
        """
        if os.getpid() != self._owner:
            raise PoolClosedError(
                f"pool {self.name!r} belongs to process {self._owner}; this is a fork of it",
                code="pool-forked",
                hint="make a pool after the fork",
            )

    def home(self) -> tuple[asyncio.AbstractEventLoop, int]:
        """The loop the pool was started on, and the thread that runs it.

        Raises:
            PoolClosedError: If it has not been started, or the loop has ended.
        """
        if self._loop is None or self._loop.is_closed():
            raise self._not_open()
        return self._loop, self._thread

    def _seconds(self, timeout: float | str | None) -> float:
        """The seconds that a call's `timeout` says.

        Raises:
            ConfigError: If it says none.
        """
        if timeout is None:
            return self.spec.timeouts.call
        if not isinstance(timeout, str):
            return check_seconds(timeout)
        if timeout in DEADLINES:
            return DEADLINES[timeout]
        try:
            return check_seconds(timeout)
        except ConfigError as err:
            profiles = ", ".join(map(repr, DEADLINES))
            raise ConfigError.from_other(err, hint=f"{err.hint}; or name a profile: {profiles}") from None

    def _put(self, call: Call, worker: Worker, now: float) -> None:
        left = call.deadline - now
        try:
            worker.send(call, max(0.001, left - min(_WORKER_MARGIN, left / 10)))
        except DspexError as err:
            # Made anew: the traceback of this one holds the call, which would hold it.
            call.answer.set_exception(from_dict(err.to_dict()))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as err:  # noqa: BLE001 - whatever it is, it is this call's alone
            call.answer.set_exception(err)

    def _wait(self, call: Call, *, first: bool = False) -> None:
        call.since = asyncio.get_running_loop().time()
        self._queue.push(call, first=first)
        self._watch_queue()

    def _dispatch(self) -> None:
        while self._queue:
            worker = self._supervisor.choose()
            if worker is None:
                return
            self._put(self._queue.pop(), worker, asyncio.get_running_loop().time())

    def _overdue(self, call: Call) -> None:
        if not call.answer.done():
            stage, where = (
                ("queue", "in the queue")
                if call.worker is None
                else ("worker", f"on worker {call.worker.pid}")
            )
            call.answer.set_exception(
                DeadlineExceeded(
                    f"pool {self.name!r}: the call's time ran out {where}",
                    # Of a call that waited nothing has been done.
                    retryable=call.worker is None or call.idempotent,
                    stage=stage,
                    op=call.op,
                )
            )
            # The caller wakes, and `_let_go` sees to the worker.
        elif call.worker is not None:
            # It was told to stop and has not: only the end of its worker frees the place.
            call.worker.kill_for_fault(
                f"a call of {call.op!r} did not stop within {self.spec.timeouts.cancel:g} s"
            )

    def _let_go(self, call: Call) -> None:
        """The caller has stopped waiting, with or without an answer."""
        if call.waiting:
            self._queue.discard(call)
        elif call.worker is not None:
            # Its place stays taken until the worker says that the work has stopped.
            call.worker.cancel(call)
            self._deadlines.set(call, asyncio.get_running_loop().time() + self.spec.timeouts.cancel)
            return
        self._deadlines.discard(call)

    # --- what the supervisor tells (`supervisor.Owner`) ---

    def _freed(self, call: Call) -> None:
        """See `Owner.freed`."""
        self._deadlines.discard(call)
        if self._queue.count:
            self._dispatch()
        elif self.spec.max_workers is not None and self._supervisor.size > self.spec.workers:
            self._watch_idle()

    def _serving(self) -> None:
        """See `Owner.serving`."""
        if self._life.state is State.STARTING:
            self._life.become(State.READY)
        self._dispatch()
        self._watch_queue()

    def _worker_exited(self, worker: Worker, death: WorkerDiedError) -> None:
        """See `Owner.worker_exited`: settle the calls of a worker that is gone."""
        for call in worker.calls.values():
            call.worker = None
            if call.answer.done():
                self._deadlines.discard(call)
            elif self._life.state in (State.STOPPING, State.DEAD):
                call.answer.set_exception(self._closed_error())
            elif worker.killed_for_fault and call.idempotent:
                call.attempts += 1
                why = f"{call.op}: {worker.reason}"
                self._emit(PoolEvent("call.repeated", self.name, worker.pid, why, worker.slot))
                self._wait(call, first=True)
            else:
                # Each caller its own: an exception that is raised twice gathers tracebacks.
                call.answer.set_exception(_told(death, call))
        worker.calls.clear()
        if self._life.state in (State.READY, State.DRAINING):
            self._dispatch()

    def _exhausted(self) -> None:
        """See `Owner.exhausted`."""
        self._refuse_waiting(self._supervisor.refusal())

    # --- how many workers ---

    def _most(self, least: int) -> int:
        return max(least, self.spec.max_workers or least)

    def _watch_queue(self) -> None:
        """See to it that calls which wait too long get another worker."""
        if self._growing is None and self._queue and self._supervisor.size < self._most(self.spec.workers):
            oldest = self._queue.oldest()
            assert oldest is not None  # noqa: S101 - the queue is not empty
            loop = asyncio.get_running_loop()
            # One step at a time: whether it was enough is seen when its worker has begun to take calls.
            self._growing = loop.call_at(max(oldest, loop.time()) + self.spec.scaling.up_after, self._grow)

    def _grow(self) -> None:
        self._growing = None
        if not self._queue or self._life.state is not State.READY:
            return
        if not self._supervisor.starting:
            self._supervisor.resize(self._supervisor.size + 1)
            self._watch_idle()
        self._watch_queue()

    def _watch_idle(self) -> None:
        if self._shrinking is None:
            self._shrinking = asyncio.get_running_loop().call_later(
                self.spec.scaling.down_after, self._shrink
            )

    def _shrink(self) -> None:
        self._shrinking = None
        if self._life.state is State.READY:
            left = self._supervisor.drop_idle(self.spec.workers, self.spec.scaling.down_after)
            if left is not None:
                self._shrinking = asyncio.get_running_loop().call_later(max(left, 0.01), self._shrink)

    # --- telling ---

    def _changed(self, state: State) -> None:
        if state is State.READY:
            self._emit(PoolEvent("pool.ready", self.name))
        elif state is State.DRAINING:
            self._emit(PoolEvent("pool.draining", self.name))
        elif state is State.STOPPING:
            self._emit(PoolEvent("pool.stopping", self.name))
        elif state is State.DEAD:
            self._emit(PoolEvent("pool.dead", self.name))

    def _emit(self, event: PoolEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as err:  # noqa: BLE001 - a listener's mistake must not end a pool
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the listener of pool {self.name!r} failed on {event.name}", "exception": err}
            )

    def _not_open(self) -> PoolClosedError:
        if self._loop is not None and self._loop.is_closed():
            what = "the event loop it was started on has ended"
        elif self._life.state is State.STARTING:
            what = "it has not been started" if self._loop is None else "its first worker is still starting"
        elif self._start_failure:
            return PoolClosedError(
                f"pool {self.name!r} takes no calls: its start failed: {self._start_failure}",
                hint="mend what the start says, and make another pool",
            )
        elif self._life.state is State.DEAD:
            what = "it has been closed"
        else:
            what = "it is being closed"
        return PoolClosedError(
            f"pool {self.name!r} takes no calls: {what}",
            hint="call it inside `async with Pool(...)`, or between `start` and `aclose`",
        )

    def _closed_error(self) -> PoolClosedError:
        return PoolClosedError(f"pool {self.name!r} was closed before the call was done")

    def _refuse_waiting(self, error: WorkerStartError | PoolClosedError) -> None:
        while self._queue:
            call = self._queue.pop()
            if not call.answer.done():
                call.answer.set_exception(from_dict(error.to_dict()))


def _checked(spec: Any) -> PoolSpec:
    if isinstance(spec, PoolSpec):
        return spec
    hint = "write PoolSpec(workers=4, ...)"
    if isinstance(spec, str):
        hint = f"write PoolSpec(name={spec!r}, ...), or PoolSpec.load(path) for a file"
    # Values may be secrets: a pool's settings hold an environment.
    shown = repr(spec) if isinstance(spec, str | int | float) else f"a {type(spec).__name__}"
    raise ConfigError(f"a pool is made of a PoolSpec, not of {shown}"[:200], code="bad-pools", hint=hint)


def _counted(answer: Any, call: Call) -> Any:
    """The answer of a call that was run more than once, with the number where it has room for it."""
    return {**answer, "attempts": call.attempts} if call.op in _PREDICTIONS else answer


def _told(death: WorkerDiedError, call: Call) -> DspexError:
    """A worker's death as the error of one of its calls, which alone says whether it may be made again."""
    said = death.to_dict()
    if call.idempotent:
        said |= {"retryable": True, "hint": "the call was said to be idempotent: make it again"}
    return from_dict(said)
