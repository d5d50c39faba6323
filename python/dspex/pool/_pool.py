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
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from contextvars import copy_context
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Final, Self, Unpack

from dspex._timeouts import check_seconds
from dspex.errors import ConfigError, DspexError, PoolClosedError
from dspex.pool._backends.base import Backend
from dspex.pool._backends.local import LocalProcesses, make_handshake
from dspex.pool._call import END, Call
from dspex.pool._calls import PoolCalls
from dspex.pool._events import EventName, Events, PoolEvent
from dspex.pool._host_calls import outer_call
from dspex.pool._input_streams import streaming_inputs
from dspex.pool._lifecycle import Lifecycle, State
from dspex.pool._loop_end import LoopEnd
from dspex.pool._options import DEFAULT_OPTIONS, CallKeywords, CallOptions
from dspex.pool._places import AFFINITIES, Affinity, Place
from dspex.pool._profiles import seconds_of
from dspex.pool._residence import Residence
from dspex.pool._scheduler import Scheduler
from dspex.pool._spec import PoolSpec
from dspex.pool._status import PoolStatus
from dspex.pool._tasks import Outcome, Tasks
from dspex.pool._worker import WINDOW
from dspex.protocol.events import answer_of, event_of, last_part
from dspex.protocol.requests import Request
from dspex.telemetry._trace import current_trace, read_trace

__all__ = ["Pool"]

_PREDICTIONS: Final = frozenset({"predict", "module"})
"""Operations whose answer is a mapping that tells how it came about."""

_READY: Final = State.READY  # an enum's member costs a look-up, and this is asked for with every call

_TOLD: Final[Mapping[State, EventName]] = {
    State.READY: "pool.ready",
    State.DRAINING: "pool.draining",
    State.STOPPING: "pool.stopping",
    State.DEAD: "pool.dead",
}

_log = logging.getLogger("dspex.pool")


class Pool(PoolCalls):
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
        self._handshake = replace(make_handshake(self.spec), lm=dict(lm or {}))
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
        """What the workers run: `python`, `dspy`, `dspex`; empty before one is ready.

        Of workers in another language, `worker` is what they call themselves.
        """
        workers = self._scheduler.supervisor.workers if self._scheduler else ()
        greeting = next((worker.greeting for worker in workers if worker.greeting), None)
        return {} if greeting is None else greeting.versions

    # --- opening and closing ---

    async def start(self) -> None:
        """Start the workers; returns when one can serve. The others follow by themselves.

        Raises:
            WorkerStartError: If none came up within the restart budget; it describes the first failure.
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
        if self.spec.pickle:
            _log.warning("pool %r takes pickles: its workers can run code in this process", self.name)
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

    def call(self, request: Request, **options: Unpack[CallKeywords]) -> Coroutine[Any, Any, Any]:
        return self._answer(request, CallOptions(**options) if options else DEFAULT_OPTIONS)

    async def _answer(self, request: Request, options: CallOptions) -> Any:
        if options.input_streams:
            async with streaming_inputs(request, options, self.spec.timeouts.cancel) as (reading, given):
                return await self._answer(reading, given)
        scheduler = self._check_open()
        call = self._make_call(scheduler, request, options)
        scheduler.submit(call)
        try:
            answer = await call.answer  # a call that is answered has been let go of already
            return _counted(answer, call) if call.repeats else answer
        except BaseException:
            scheduler.let_go(call)
            raise
        finally:
            # The answer holds the exception, which holds this frame, which would hold the call: a circle that
            # keeps the payload until somebody collects it.
            del call

    async def stream(self, request: Request, **options: Unpack[CallKeywords]) -> AsyncGenerator[Any, None]:
        is_module = getattr(request, "operation", None) in _PREDICTIONS
        async with aclosing(self.parts(request, **options)) as parts:
            async for part in parts:
                yield event_of(part) if is_module else part

    async def parts(self, request: Request, **options: Unpack[CallKeywords]) -> AsyncGenerator[Any, None]:
        """What `stream` makes its events of, as it came: for a runtime, which reads the answer itself."""
        given = CallOptions(**options)
        async with AsyncExitStack() as stack:
            if given.input_streams:
                streams = streaming_inputs(request, given, self.spec.timeouts.cancel)
                request, given = await stack.enter_async_context(streams)
            parts = await stack.enter_async_context(aclosing(self._parts(request, given)))
            async for part in parts:
                yield part

    async def _parts(self, request: Request, options: CallOptions) -> AsyncGenerator[Any, None]:
        scheduler = self._check_open()
        items: asyncio.Queue[Any] = asyncio.Queue()
        call = self._make_call(scheduler, request, options, items)
        scheduler.submit(call)
        taken = 0
        try:
            while (item := await items.get()) is not END:
                if call.repeats and (answer := answer_of(item)) is not None:
                    item = last_part(_counted(answer, call))
                yield item
                taken += 1
                if taken % (WINDOW // 2) == 0:
                    call.grant(WINDOW // 2)
            call.answer.result()
        finally:
            call.abandon()
            scheduler.let_go(call)
            del call  # as in `_answer`

    async def batch(self, requests: Iterable[Request], **options: Unpack[CallKeywords]) -> list[Any]:
        scheduler = self._check_open()
        given = CallOptions(**options)
        self._check_options(given)
        if given.input_streams:
            raise ConfigError("the calls of a batch cannot share input streams", code="bad-call")
        places = self.spec.max_inflight * scheduler.scaler.most
        waiting = enumerate(requests)
        answers: dict[int, Any] = {}

        async def work(first: tuple[int, Request]) -> None:
            for index, request in chain((first,), waiting):
                try:
                    answers[index] = await self._answer(request, given)
                except DspexError as err:
                    # Nobody raises it; its traceback would hold the payload for as long as the error lives.
                    answers[index] = err.with_traceback(None)

        try:
            async with asyncio.TaskGroup() as group:
                for first in islice(waiting, places):
                    group.create_task(work(first))
        except ExceptionGroup as errors:  # of the requests' iterator, which raised: the first of them is it
            raise errors.exceptions[0] from None
        return [answers[index] for index in range(len(answers))]

    def place(self, session: str, affinity: Affinity = "hint") -> Place:
        """A place for a session, whose calls go to one worker: `call(request, place=place)`.

        It gets the worker with the fewest sessions when its first call is sent, and another if that one dies,
        is replaced or is not needed any more.

        Args:
            session: The session's name.
            affinity: What becomes of a call while the session's worker has no room: `"hint"`: another worker
                takes it; `"strict"`: it waits; `"fail_fast"`: it is refused (`worker-busy`).

        Raises:
            ConfigError: If there is no such affinity (`bad-call`).
        """
        if affinity not in AFFINITIES:
            raise ConfigError(
                f"there is no affinity {affinity!r}", code="bad-call", hint=f"use {', '.join(AFFINITIES)}"
            )
        return Place(session, affinity)

    def leave(self, place: Place) -> None:
        """Give up a session's place; a later call with it gets another."""
        if self._scheduler is not None:
            self._scheduler.places.leave(place)

    def status(self) -> PoolStatus:
        """What the pool and each worker are doing now."""
        scheduler = self._scheduler
        workers = scheduler.supervisor.workers if scheduler else ()
        return PoolStatus(
            name=self.name,
            state=self._life.state,
            waiting=scheduler.waiting if scheduler else 0,
            deaths=scheduler.supervisor.deaths.total if scheduler else 0,
            wanted=scheduler.supervisor.size if scheduler else 0,
            workers=tuple(worker.status() for worker in sorted(workers, key=lambda worker: worker.slot)),
            backend=self._backend.describe(),
            pickle=self.spec.pickle,
        )

    # --- a call ---

    def _make_call(
        self,
        scheduler: Scheduler,
        request: Request,
        options: CallOptions,
        items: asyncio.Queue[Any] | None = None,
    ) -> Call:
        """A call as its caller says it: the one place where one is made."""
        seconds = self.spec.timeouts.call if options is DEFAULT_OPTIONS else self._check_options(options)
        operation = getattr(request, "operation", None)
        if not isinstance(operation, str):
            raise _no_request(request)
        loop = scheduler.loop
        now = loop.time()
        deadline = now + seconds
        outer = outer_call()
        functions, trace = options.host_functions, options.trace
        place = options.place
        return Call(  # by position: so many names would cost a tenth of the whole call
            operation,
            request.to_wire(),
            loop.create_future(),
            deadline if outer is None else min(deadline, outer.deadline),
            now,
            options.session if place is None else place.session,
            request.idempotent if options.idempotent is None else options.idempotent,
            outer is not None,
            functions,
            copy_context() if functions else None,
            current_trace() if trace is None else read_trace(trace),
            items,
            options.codec,
            place,
            options.pinned,
        )

    def _check_options(self, options: CallOptions) -> float:
        """The seconds a call has, once its options have been looked at."""
        options.check()
        return self.spec.timeouts.call if options.timeout is None else seconds_of(options.timeout)

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


def _no_request(given: Any) -> ConfigError:
    return ConfigError(
        f"a pool is given a request, not a {type(given).__name__}",
        code="bad-call",
        hint="use pool.run(function, ...), pool.predict(signature, inputs) or pool.module(class, inputs)",
    )


def _counted(answer: Any, call: Call) -> Any:
    """The answer of a call that was run more than once, which says so where it has room for it."""
    if call.op not in _PREDICTIONS:
        return answer
    return {**answer, "attempts": 1 + len(call.repeats), "repeats": list(call.repeats)}
