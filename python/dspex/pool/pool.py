"""`Pool`: the queue, the slots, and who gets which call.

::

    call() --> queue --> worker with the fewest calls --> answer
                 ^             |  dies
                 |             v
                 +-- its slot starts another (policy.after_death)

Everything here runs on one event loop, the one `start` was awaited on, so there is nothing to lock. Each
slot is one task that keeps one worker alive; nothing polls.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Self

from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    PoolClosedError,
    PoolSaturated,
    WireError,
    WorkerDiedError,
    WorkerStartError,
    from_dict,
)
from dspex.pool.call import Call, FairQueue
from dspex.pool.launch import make_hello, make_launcher
from dspex.pool.lifecycle import Lifecycle, State
from dspex.pool.policy import Respawn, RestartPolicy, after_death
from dspex.pool.process import Launcher
from dspex.pool.spec import PoolSpec
from dspex.pool.worker import Worker
from dspex.worker.deadlines import Deadlines

__all__ = ["DEADLINES", "Pool", "PoolStatus", "WorkerStatus"]

Profile = Literal["interactive", "batch", "optimizer"]

DEADLINES: Final[Mapping[str, float]] = {"interactive": 30.0, "batch": 600.0, "optimizer": 86_400.0}
"""Seconds a call has, by the name of what it is for: a person waits, nobody waits, a job runs."""

_IDEMPOTENT: Final = frozenset({"echo", "predict"})
"""Operations that may be run again without harm, when the caller does not say."""

_WORKER_MARGIN: Final = 0.05
"""Seconds, at most, by which the worker's limit fires before the caller's, to be the one that explains."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker now: `age` in seconds, `resident` in bytes, `served` and `inflight` in calls."""

    pid: int | None
    state: State
    age: float
    inflight: int
    served: int
    resident: int


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool now: `waiting` counts the queue, `deaths` workers lost since the start."""

    name: str
    state: State
    waiting: int
    deaths: int
    workers: tuple[WorkerStatus, ...]


class Pool:
    """Worker processes of one kind, kept alive, with a queue in front.

    Args:
        spec: The settings.
        lm: Settings of the workers' language model: `model`, `api_base`, `api_key` and anything `dspy.LM`
            takes. They reach the workers over the socket; the key is never shown.

    Use it as ``async with Pool(spec) as pool``, or await `start` and `aclose`. It belongs to the event
    loop it was started on, and to the process.
    """

    def __init__(self, spec: PoolSpec | None = None, *, lm: Mapping[str, Any] | None = None) -> None:
        self.spec = spec or PoolSpec()
        self._hello = {**make_hello(self.spec), "lm": dict(lm) if lm else None}
        self._launcher: Launcher
        self._deadlines: Deadlines[Call]
        self._life = Lifecycle()
        self._queue = FairQueue()
        self._workers: list[Worker] = []  # every one that is not dead
        self._slots: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner = os.getpid()
        self._policy = RestartPolicy(self.spec.max_restarts, self.spec.restart_window)
        self._deaths: deque[float] = deque(maxlen=self.spec.max_restarts + 1)
        self._barren = 0
        self._lost = 0
        self._first_cause: WorkerStartError | WorkerDiedError | None = None
        self._resting = 0  # slots that wait for the restart window to pass
        self._ready = asyncio.Event()
        self._closing: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.spec.name!r} {self._life.state.value} workers={len(self._workers)}>"

    @property
    def name(self) -> str:
        """The pool's name."""
        return self.spec.name

    @property
    def state(self) -> State:
        """Where the pool is in its life."""
        return self._life.state

    # --- opening and closing ---

    async def start(self) -> None:
        """Start the workers; returns when one can serve. The others follow by themselves.

        Raises:
            WorkerStartError: If none came up within the restart budget; the first failure is told.
            PoolClosedError: If the pool has been started before.
            ConfigError: On a system that has no Unix sockets.
        """
        if sys.platform == "win32":
            raise ConfigError(
                "worker pools need Unix sockets and signals", code="no-pools-here", hint="use route='native'"
            )
        if self._loop is not None or self._life.state is not State.STARTING:
            raise PoolClosedError(
                f"pool {self.name!r} has been started or closed before", code="pool-restarted"
            )
        self._loop = asyncio.get_running_loop()
        self._launcher = make_launcher(self.spec)
        self._deadlines = Deadlines(self._loop, self._overdue)
        self._slots = [self._loop.create_task(self._keep()) for _ in range(self.spec.workers)]
        try:
            await self._ready.wait()
        except asyncio.CancelledError:
            await self.aclose(timeout=0)
            raise
        if self._life.state is State.STARTING:
            cause = self._refusal()
            await self.aclose(timeout=0)
            raise cause

    async def aclose(self, *, timeout: float | None = None) -> None:
        """Finish the calls in flight, refuse new ones, and end the workers. Safe to await twice.

        Args:
            timeout: Seconds the calls have; None for the pool's `stop_timeout`. What is left then fails
                with `PoolClosedError`.
        """
        if self._life.state in (State.STARTING, State.READY):
            finish = self.spec.stop_timeout if timeout is None else timeout
            ready = self._life.state is State.READY
            self._life.become(State.DRAINING if ready else State.STOPPING)
            self._closing = asyncio.ensure_future(self._close(finish))
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, finish: float) -> None:
        answers = [call.answer for worker in self._workers for call in worker.calls.values()]
        answers += [call.answer for call in self._queue]
        if answers and finish > 0:
            await asyncio.wait(answers, timeout=finish)
        if self._life.state is State.DRAINING:
            self._life.become(State.STOPPING)
        for slot in self._slots:
            slot.cancel()
        await asyncio.gather(*self._slots, return_exceptions=True)
        await asyncio.gather(
            *(worker.end("the pool was closed", force=False) for worker in list(self._workers))
        )
        self._refuse_waiting(self._closed_error())
        if self._loop is not None:
            await self._launcher.aclose()
        self._life.become(State.DEAD)

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
    ) -> Any:
        """Run an operation on one of the workers.

        Args:
            op: The operation's name, such as `"predict"`.
            payload: Its argument: plain values (see `dspex.wire`).
            timeout: Seconds from now until the answer, waiting in the queue included; or a profile of
                `DEADLINES`; None for the pool's `call_timeout`.
            idempotent: Whether the call may be run again when its worker is ended for another call's fault.
                None leaves it to the operation.
            session: Whose call it is: sessions take turns in the queue.

        Returns:
            What the operation answered.

        Raises:
            DeadlineExceeded: The time ran out.
            PoolSaturated: The queue is full; nothing was done.
            PoolClosedError: The pool is not open.
            WorkerDiedError: The worker died with the call.
            WorkerStartError: No worker is there and the restart budget is spent.
            WireError: The payload cannot be sent.
            DspexError: Whatever the operation raised, in the classes of `dspex.errors`.
        """
        loop = self._check_open()
        seconds = self._seconds(timeout)
        free = self._choose()
        if free is None:
            if len(self._queue) >= self.spec.queue:
                raise PoolSaturated(
                    f"pool {self.name!r}: {len(self._queue)} calls wait already",
                    hint="slow down, or raise `queue`, `workers` or `max_inflight`",
                )
            if self._refusing():
                raise self._refusal()
        if idempotent is None:
            idempotent = op in _IDEMPOTENT
        answer: asyncio.Future[Any] = loop.create_future()
        call = Call(op, payload, answer, loop.time() + seconds, session, idempotent)
        self._deadlines.set(call, call.deadline)
        if free is not None and not self._queue:
            self._put(call, free)
        else:
            self._queue.push(call)
        try:
            return await answer
        finally:
            self._let_go(call)

    def status(self) -> PoolStatus:
        """What the pool and each worker are doing now."""
        now = self._loop.time() if self._loop else 0.0
        return PoolStatus(
            name=self.name,
            state=self._life.state,
            waiting=len(self._queue),
            deaths=self._lost,
            workers=tuple(
                WorkerStatus(
                    pid=worker.pid,
                    state=worker.life.state,
                    age=now - worker.started,
                    inflight=len(worker.calls),
                    served=worker.served,
                    resident=worker.process.resident if worker.process else 0,
                )
                for worker in self._workers
            ),
        )

    def _check_open(self) -> asyncio.AbstractEventLoop:
        if self._life.state is not State.READY or self._loop is None:
            raise PoolClosedError(
                f"pool {self.name!r} is not open: it is {self._life.state.value}",
                hint="call it between `await pool.start()` and `await pool.aclose()`",
            )
        if os.getpid() != self._owner:
            raise PoolClosedError(
                f"pool {self.name!r} belongs to process {self._owner}; this is a fork of it",
                code="pool-forked",
                hint="make a pool after the fork",
            )
        if asyncio.get_running_loop() is not self._loop:
            raise PoolClosedError(
                f"pool {self.name!r} belongs to another event loop",
                code="pool-other-loop",
                hint="call it on the loop it was started on, or through the Runtime",
            )
        return self._loop

    def _seconds(self, timeout: float | str | None) -> float:
        if timeout is None:
            return self.spec.call_timeout
        if isinstance(timeout, str):
            if timeout not in DEADLINES:
                raise ConfigError(
                    f"no deadline is called {timeout!r}",
                    code="bad-timeout",
                    hint=f"one of: {', '.join(DEADLINES)}",
                )
            return DEADLINES[timeout]
        if not (timeout > 0 and math.isfinite(timeout)):
            raise ConfigError(
                f"a timeout is a number of seconds above 0, not {timeout!r}", code="bad-timeout"
            )
        return timeout

    def _choose(self) -> Worker | None:
        """The worker with the fewest calls, if it has room."""
        best: Worker | None = None
        fewest = self.spec.max_inflight
        for worker in self._workers:
            if worker.open and len(worker.calls) < fewest:
                best, fewest = worker, len(worker.calls)
        return best

    def _put(self, call: Call, worker: Worker) -> None:
        left = call.deadline - asyncio.get_running_loop().time()
        try:
            worker.send(call, max(0.001, left - min(_WORKER_MARGIN, left / 10)))
        except WireError as err:
            call.answer.set_exception(err)

    def _dispatch(self) -> None:
        while self._queue:
            worker = self._choose()
            if worker is None:
                return
            self._put(self._queue.pop(), worker)

    def _overdue(self, call: Call) -> None:
        if not call.answer.done():
            where = "in the queue" if call.worker is None else f"on worker {call.worker.pid}"
            call.answer.set_exception(
                DeadlineExceeded(
                    f"pool {self.name!r}: the call's time ran out {where}", where="pool", op=call.op
                )
            )
            # The caller wakes, and `_let_go` sees to the worker.
        elif call.worker is not None:
            # It was told to stop and has not: only the end of its worker frees the place.
            call.worker.condemn(f"a call of {call.op!r} did not stop within {self.spec.cancel_grace:g} s")

    def _let_go(self, call: Call) -> None:
        """The caller has stopped waiting, with or without an answer."""
        if call.waiting:
            self._queue.discard(call)
        elif call.worker is not None:
            # Its place stays taken until the worker says that the work has stopped.
            call.worker.cancel(call)
            self._deadlines.set(call, asyncio.get_running_loop().time() + self.spec.cancel_grace)
            return
        self._deadlines.discard(call)

    def _freed(self, call: Call) -> None:
        self._deadlines.discard(call)
        if self._queue:
            self._dispatch()

    # --- supervision ---

    async def _keep(self) -> None:
        """Keep one worker alive, for as long as the pool is."""
        loop = asyncio.get_running_loop()
        while True:
            worker = Worker(self.spec, self._hello, self._launcher, on_free=self._freed)
            self._workers.append(worker)
            worker.dead.add_done_callback(partial(self._buried, worker))
            cause: WorkerStartError | WorkerDiedError
            try:
                await worker.start()
            except WorkerStartError as err:
                cause = err
            else:
                self._serving()
                cause = await asyncio.shield(worker.dead)
            self._barren = 0 if worker.served else self._barren + 1
            if self._barren <= 1:
                self._first_cause = cause
            self._lost += 1
            now = loop.time()
            self._deaths.append(now)
            if self._life.state is State.STARTING:
                self._ready.set()  # `start` tells the cause: a first start that fails will fail again
                return
            verdict = after_death(self._deaths, self._barren, now, self._policy)
            if isinstance(verdict, Respawn):
                await asyncio.sleep(verdict.after)
                continue
            self._resting += 1
            if self._refusing():
                self._refuse_waiting(self._refusal())
            await asyncio.sleep(verdict.until - now)
            self._resting -= 1

    def _serving(self) -> None:
        if self._life.state is State.STARTING:
            self._life.become(State.READY)
            self._ready.set()
        self._dispatch()

    def _buried(self, worker: Worker, dead: asyncio.Future[WorkerDiedError]) -> None:
        """A worker is gone: settle its calls."""
        self._workers.remove(worker)
        death = dead.result()
        for call in worker.calls.values():
            call.worker = None
            if call.answer.done():
                self._deadlines.discard(call)
            elif self._life.state in (State.STOPPING, State.DEAD):
                call.answer.set_exception(self._closed_error())
            elif worker.condemned and call.idempotent:
                self._queue.push(call, first=True)
            else:
                # Each caller its own: an exception that is raised twice gathers tracebacks.
                call.answer.set_exception(from_dict(death.to_dict()))
        worker.calls.clear()
        self._dispatch()

    def _refusing(self) -> bool:
        """Whether nobody can serve and nobody is on the way."""
        return self._resting > 0 and self._resting == len(self._slots) and not self._workers

    def _refusal(self) -> WorkerStartError:
        cause = self._first_cause
        assert cause is not None  # noqa: S101 - a slot rests, or failed to start, only after a death
        if isinstance(cause, WorkerStartError) and not self._resting:
            return cause
        return WorkerStartError(
            f"pool {self.name!r} has no worker: {len(self._deaths)} died within "
            f"{self.spec.restart_window:g} s, beyond max_restarts={self.spec.max_restarts}; "
            f"the first because: {cause.message}",
            code="restart-budget",
            hint="cure the first cause; the pool tries again by itself when the window has passed",
            **cause.details,
        )

    def _closed_error(self) -> PoolClosedError:
        return PoolClosedError(f"pool {self.name!r} was closed before the call was done")

    def _refuse_waiting(self, error: WorkerStartError | PoolClosedError) -> None:
        while self._queue:
            call = self._queue.pop()
            if not call.answer.done():
                call.answer.set_exception(from_dict(error.to_dict()))
