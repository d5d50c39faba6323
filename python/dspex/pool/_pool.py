"""`Pool`: worker processes of one kind, as users hold them.

::

    Pool --> Scheduler: queue, deadlines, who gets which call --> Call, finished once
                |  ^
                v  | ready, exited, a call has left
             Supervisor: slots, restarts, recycling --> Worker: one process, its socket and its calls

A pool lives on one event loop, the one `start` was awaited on, and in one process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from contextvars import copy_context
from itertools import chain, islice
from typing import Any, Final, Self

from dspex._settings import check_idempotent
from dspex._timeouts import check_seconds
from dspex.errors import ConfigError, DspexError, PoolClosedError
from dspex.pool._backends.base import Backend
from dspex.pool._backends.local import LocalProcesses, make_handshake
from dspex.pool._call import END, Call
from dspex.pool._events import EventName, Events, PoolEvent
from dspex.pool._host_calls import outer_call
from dspex.pool._input_streams import Source, streaming_inputs
from dspex.pool._lifecycle import Lifecycle, State
from dspex.pool._loop_end import LoopEnd
from dspex.pool._profiles import Profile, seconds_of
from dspex.pool._residence import Residence
from dspex.pool._scheduler import Scheduler
from dspex.pool._spec import PoolSpec
from dspex.pool._status import PoolStatus
from dspex.pool._tasks import Outcome, Tasks
from dspex.pool._worker import WINDOW
from dspex.protocol.events import event_of
from dspex.telemetry._trace import Trace, current_trace, read_trace

__all__ = ["Pool"]

_IDEMPOTENT: Final = frozenset({"echo"})
"""Operations that may be run again without harm, when the caller does not say. `predict` is none: to ask an
LM twice costs twice, and only the caller knows what a second answer does."""

_PREDICTIONS: Final = frozenset({"predict", "module"})
"""Operations whose answer is a mapping that tells how it came about."""

_READY: Final = State.READY  # an enum's member costs a look-up, and this is asked for with every call

_TOLD: Final[Mapping[State, EventName]] = {
    State.READY: "pool.ready",
    State.DRAINING: "pool.draining",
    State.STOPPING: "pool.stopping",
    State.DEAD: "pool.dead",
}


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
        self._events = Events(self.spec.name, on_event)
        self._life = Lifecycle()
        self._life.watch(lambda state: self._events.tell(_TOLD[state]))
        self._residence = Residence(self.spec.name)
        self._scheduler: Scheduler | None = None  # from its start on
        self._tasks: Tasks
        self._loop_end: LoopEnd
        self._closed: Outcome[None] = Outcome()
        self._start_failure = ""  # why there was never a worker

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
        workers = self._scheduler.supervisor.workers if self._scheduler else ()
        ready = next((worker.versions for worker in workers if worker.versions), None)
        return {name: str(ready[name]) for name in ("python", "dspy", "dspex")} if ready else {}

    # --- opening and closing ---

    async def start(self) -> None:
        """Start the workers; returns when one can serve. The others follow by themselves.

        Raises:
            WorkerStartError: If none came up within the restart budget; the first failure is told.
            PoolClosedError: If the pool has been started before.
            ConfigError: If the backend cannot give what the settings say; on Windows, always.
        """
        if self._scheduler is not None or self._life.state is not State.STARTING:
            raise PoolClosedError(
                f"pool {self.name!r} has been started or closed before"
                + (f": its start failed: {self._start_failure}" if self._start_failure else ""),
                code="pool-restarted",
            )
        launcher = self._backend.launcher(self.spec)
        self._residence.move_in()
        self._tasks = Tasks()
        self._loop_end = LoopEnd(self._leave)
        self._scheduler = Scheduler(self.spec, self._handshake, launcher, self._life, self._events)
        try:
            await self._loop_end.watch()
            await self._scheduler.supervisor.start(self.spec.workers)
            self._check_open()  # it may have been closed in the turn in which its first worker was ready
        except BaseException as err:
            if isinstance(err, DspexError) and not isinstance(err, PoolClosedError):
                self._start_failure = err.message
            await self.aclose(timeout=0)
            raise

    async def aclose(self, *, timeout: float | None = None) -> None:
        """Finish the calls in flight, refuse new ones, and end the workers. Safe to await twice.

        Args:
            timeout: Seconds the calls have; None for the pool's `timeouts.stop`. What is left then fails
                with `PoolClosedError`.
        """
        if self._residence.is_elsewhere:  # in a fork, the workers are not ours to end
            return
        await self._shut_down(
            self.spec.timeouts.stop if timeout is None else check_seconds(timeout, zero=True)
        )

    async def _leave(self) -> None:
        """The loop ends. A pool that is open by then could never be closed: its workers would stay, idle."""
        await self._shut_down(0, force=True)

    async def _shut_down(self, seconds: float, *, force: bool = False) -> None:
        """See `aclose`; with `force`, without asking the workers: nobody waits for what they do."""
        if self._life.state in (State.STARTING, State.READY):
            ready = self._life.state is State.READY
            self._life.become(State.DRAINING if ready else State.STOPPING)
            if self._scheduler is None:
                self._life.become(State.DEAD)
                self._closed.succeed(None)
            else:
                self._begin_closing(self._scheduler, seconds, force)
        await self._closed.wait()

    def _begin_closing(self, scheduler: Scheduler, seconds: float, force: bool) -> None:
        def ended(error: BaseException | None) -> None:
            if error is None:
                self._closed.succeed(None)
            elif isinstance(error, asyncio.CancelledError):
                # Whoever cancels all tasks, as a loop does that ends, does not keep the workers alive by it.
                self._begin_closing(scheduler, 0, force=True)
            else:
                self._closed.fail(error)

        self._tasks.start(self._close(scheduler, seconds, force), ended)

    async def _close(self, scheduler: Scheduler, seconds: float, force: bool) -> None:
        await scheduler.finish_calls(seconds)
        if self._life.state is State.DRAINING:
            self._life.become(State.STOPPING)
        await scheduler.close(force=force)
        await self._loop_end.dismiss()
        self._life.become(State.DEAD)

    def resize(self, workers: int) -> None:
        """Want this many workers from now on; those there are too many of finish their calls first.

        It is also the number autoscaling does not go below.

        Raises:
            ConfigError: If it is not a number of workers.
            PoolClosedError: If the pool is not open.
        """
        scheduler = self._check_open()
        most = self.spec.max_workers
        spec = self.spec.replace(workers=workers, max_workers=None)
        self.spec = spec if most is None else spec.replace(max_workers=max(workers, most))
        scheduler.use(self.spec)

    async def restart(self) -> None:
        """Replace the workers one by one, each by a new one that is ready before it goes. No call is lost.

        Raises:
            WorkerStartError: If a new one does not start. The old ones that are left go on.
            PoolClosedError: If the pool is not open, or is closed meanwhile.
        """
        await self._check_open().supervisor.restart()

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
            streams = streaming_inputs(input_streams, payload, host_functions, self.spec.timeouts.cancel)
            async with streams as (payload, host_functions):
                return await self.call(
                    op,
                    payload,
                    timeout=timeout,
                    idempotent=False,
                    session=session,
                    host_functions=host_functions,
                    trace=trace,
                )
        scheduler = self._check_open()
        call = self._make_call(op, payload, timeout, session, host_functions, trace, idempotent)
        scheduler.submit(call)
        try:
            answer = await call.answer  # a call that is answered has been let go of already
            return answer if call.attempts == 1 else _counted(answer, call)
        except BaseException:
            scheduler.let_go(call)
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
            streams = streaming_inputs(input_streams, payload, host_functions, self.spec.timeouts.cancel)
            async with streams as (payload, host_functions):
                parts = self.stream(
                    op, payload, timeout=timeout, session=session, host_functions=host_functions, trace=trace
                )
                async with aclosing(parts):
                    async for part in parts:
                        yield part
            return
        scheduler = self._check_open()
        items: asyncio.Queue[Any] = asyncio.Queue()
        call = self._make_call(op, payload, timeout, session, host_functions, trace, False, items)
        scheduler.submit(call)
        taken = 0
        try:
            while (item := await items.get()) is not END:
                yield event_of(item) if op in _PREDICTIONS else item
                taken += 1
                if taken % (WINDOW // 2) == 0:
                    call.grant(WINDOW // 2)
            call.answer.result()
        finally:
            call.abandon()
            scheduler.let_go(call)
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
        scheduler = self._check_open()
        self._check_call(op, timeout, session, idempotent)
        places = self.spec.max_inflight * scheduler.scaler.most
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
        except ExceptionGroup as errors:  # of the payloads' iterator, which raised: the first of them is it
            raise errors.exceptions[0] from None
        return [answers[index] for index in range(len(answers))]

    def status(self) -> PoolStatus:
        """What the pool and each worker are doing now."""
        scheduler = self._scheduler
        workers = scheduler.supervisor.workers if scheduler else ()
        return PoolStatus(
            name=self.name,
            state=self._life.state,
            waiting=len(scheduler.queue) if scheduler else 0,
            deaths=scheduler.supervisor.deaths.total if scheduler else 0,
            wanted=scheduler.supervisor.size if scheduler else 0,
            workers=tuple(worker.status() for worker in sorted(workers, key=lambda worker: worker.slot)),
            backend=self._backend.describe(),
        )

    # --- a call ---

    def _make_call(
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
        """A call as its caller says it: the one place where one is made."""
        seconds = self._check_call(op, timeout, session, idempotent)
        if host_functions and not (
            isinstance(host_functions, Mapping) and all(map(callable, host_functions.values()))
        ):
            raise ConfigError("host calls are functions by their names", code="bad-call")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        outer = outer_call()
        return Call(
            op=op,
            payload=payload,
            answer=loop.create_future(),
            deadline=deadline if outer is None else min(deadline, outer.deadline),
            session=session,
            idempotent=op in _IDEMPOTENT if idempotent is None else idempotent,
            nested=outer is not None,
            host_functions=host_functions,
            context=copy_context() if host_functions else None,
            trace=current_trace() if trace is None else read_trace(trace),
            items=items,
        )

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
        return self.spec.timeouts.call if timeout is None else seconds_of(timeout)

    # --- whether it can be used ---

    def _check_open(self) -> Scheduler:
        """What serves the calls of an open pool.

        Raises:
            PoolClosedError: If it is not open, or not here.
        """
        if self._life.state is not _READY or self._scheduler is None:
            raise self._not_open()
        self._residence.check()
        return self._scheduler

    def _not_open(self) -> PoolClosedError:
        if self._residence.has_ended:
            what = "the event loop it was started on has ended"
        elif self._life.state is State.STARTING:
            what = (
                "it has not been started" if self._scheduler is None else "its first worker is still starting"
            )
        elif self._start_failure:
            return PoolClosedError(
                f"pool {self.name!r} takes no calls: its start failed: {self._start_failure}",
                hint="cure what made the start fail, and make another pool",
            )
        elif self._life.state is State.DEAD:
            what = "it has been closed"
        else:
            what = "it is being closed"
        return PoolClosedError(
            f"pool {self.name!r} takes no calls: {what}",
            hint="call it inside `async with Pool(...)`, or between `start` and `aclose`",
        )


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
