"""Which worker gets which call, and for how long.

::

    submit --> queue --> worker with the fewest calls --> call.finish
                 ^             |
                 |             v  dies
                 +------ worker_exited

Everything here runs on the pool's event loop, so there is nothing to lock, and nothing polls. The supervisor
keeps the workers and reports on them (`SupervisorListener`).
"""

from __future__ import annotations

import asyncio
from typing import Final

from dspex.errors import (
    DeadlineExceeded,
    DspexError,
    PoolClosedError,
    PoolSaturated,
    WorkerDiedError,
    WorkerStartError,
)
from dspex.pool._backends.base import Launcher
from dspex.pool._call import Call
from dspex.pool._events import Events
from dspex.pool._lifecycle import Lifecycle, State
from dspex.pool._places import Places
from dspex.pool._queue import FairQueue
from dspex.pool._scaling import Autoscaler
from dspex.pool._spec import PoolSpec
from dspex.pool._supervisor import Supervisor
from dspex.pool._worker import Worker
from dspex.protocol.deadlines import Deadlines
from dspex.protocol.handshake import Handshake

__all__ = ["Scheduler"]

_READY: Final = State.READY  # an enum's member costs a look-up, and this is asked for with every call

_WORKER_MARGIN: Final = 0.05
"""Seconds, at most, by which the worker's limit fires before the caller's, to be the one that explains."""


_LEAST: Final = 0.001
"""Seconds that a worker is given at least: it says better than we do that there was no time."""


class Scheduler:
    """The queue of a pool, its deadlines, and the workers that serve them.

    Args:
        spec: The pool's settings.
        handshake: What every worker gets at the handshake.
        launcher: What starts processes.
        life: The pool's; the first worker that is ready makes it READY.
        events: Takes the pool's events.
    """

    def __init__(
        self,
        spec: PoolSpec,
        handshake: Handshake,
        launcher: Launcher,
        life: Lifecycle,
        events: Events,
    ) -> None:
        self._spec = spec
        self._scales = spec.max_workers is not None  # asked with every call
        self._life = life
        self._events = events
        self.loop = asyncio.get_running_loop()
        self._deadlines: Deadlines[Call] = Deadlines(self.loop, self._overdue)
        self.queue = FairQueue()
        self.supervisor = Supervisor(spec, handshake, launcher, self, events)
        self.scaler = Autoscaler(spec, life, self.queue, self.supervisor)
        self._workers = self.supervisor.workers
        self.places = Places(spec.name, self._workers)

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self.queue) + self.places.count

    def use(self, spec: PoolSpec) -> None:
        """Have as many workers as these settings say from now on."""
        self._spec = spec
        self.scaler.use(spec)
        self.supervisor.resize(spec.workers)

    # --- what the pool asks ---

    def submit(self, call: Call) -> None:
        """Put a call on a worker or in the queue. Whoever submits it must `let_go` of it.

        A nested call does not wait for a place: the one that waits for it may hold the last.

        Raises:
            PoolSaturated: If the queue is full, or its session's worker has no room and it is not to wait.
            WorkerStartError: If there is no worker, and none on its way.
            WorkerDiedError: If it needs what a worker had that has gone (`place-lost`).
        """
        if call.place is not None:
            self._submit_placed(call)
            return
        worker = self._choose(call.nested)
        if worker is None:
            self._check_room()
        self._deadlines.set(call, call.deadline)
        if worker is not None and (call.nested or not self.queue.count):
            self._send(call, worker, call.since)  # it was made just now
        else:
            self._wait(call)

    def _check_room(self) -> None:
        if self.waiting >= self._spec.queue:
            raise PoolSaturated(
                f"pool {self._spec.name!r}: {self.waiting} calls wait already",
                hint="slow down, or raise `queue`, `workers` or `max_inflight`",
            )
        if self.supervisor.is_exhausted():
            raise self.supervisor.deaths.refusal()

    def _submit_placed(self, call: Call) -> None:
        """Put a session's call on its worker, or where it waits for it."""
        place = call.place
        assert place is not None  # noqa: S101 - whose call it is
        self.places.check(call)
        worker = self.places.find(place)
        if worker is not None and not call.nested and not self._has_room(worker):
            if place.affinity == "fail_fast":
                raise PoolSaturated(
                    f"pool {self._spec.name!r}: worker {worker.pid} of session {place.session!r} has no room",
                    code="worker-busy",
                    hint='try again, or use affinity="strict", which waits',
                )
            other = None if call.pinned or place.affinity == "strict" else self._choose()
            if other is None:
                self._check_room()
                self._deadlines.set(call, call.deadline)
                self._wait(call)
                return
            worker = other
        if worker is None:
            self._check_room()
        self._deadlines.set(call, call.deadline)
        if worker is None:
            self._wait(call)
        else:
            self._send(call, worker, call.since)

    def _has_room(self, worker: Worker) -> bool:
        return len(worker.calls) < self._spec.max_inflight

    def let_go(self, call: Call) -> None:
        """The caller has stopped waiting, with or without an answer."""
        if call.waiting:
            if call.queue is self.queue:
                self.queue.discard(call)
            else:
                self.places.discard(call)
        elif call.worker is not None:
            # Its place stays taken until the worker says that the work has stopped.
            call.worker.cancel(call)
            self._deadlines.set(call, self.loop.time() + self._spec.timeouts.cancel)
            return
        self._deadlines.discard(call)

    async def finish_calls(self, seconds: float) -> None:
        """Wait until every call that is here has its answer, but no longer than this."""
        answers = [call.answer for worker in self._workers for call in worker.calls.values()]
        answers += [call.answer for call in (*self.queue, *self.places)]
        if answers and seconds > 0:
            await asyncio.wait(answers, timeout=seconds)

    async def close(self, *, force: bool) -> None:
        """End the workers and refuse the calls that are left. What was cut short is taken up again.

        Args:
            force: Without asking the workers: nobody is left to wait for what they do.
        """
        self.scaler.stop()
        await self.supervisor.close(force=force)
        self._refuse_waiting(self._closed())

    # --- what the supervisor tells: see `SupervisorListener` ---

    def call_left(self, call: Call) -> None:
        """Give the place that a call has left to the next."""
        self._deadlines.discard(call)
        if self.queue.count or self.places.count:
            self._dispatch()
        elif self._scales:
            self.scaler.nothing_waits()

    def worker_ready(self) -> None:
        """Give waiting calls to the new worker."""
        if self._life.state is State.STARTING:
            self._life.become(State.READY)
        self._dispatch()
        self.scaler.calls_wait()

    def worker_leaves(self, worker: Worker) -> None:
        """Let the calls that wait for a worker alone go where their sessions live from now on."""
        for call in self.places.take_all(worker):
            place = call.place
            assert place is not None  # noqa: S101 - or it would wait elsewhere
            if call.pinned:
                call.finish(error=self.places.lost(place))
                continue
            new = self.places.find(place)
            if new is not None and self._has_room(new):
                self._send(call, new, self.loop.time())
            else:
                self._wait(call)

    def worker_exited(self, worker: Worker, death: WorkerDiedError) -> None:
        """Settle the calls of a worker that is gone: each fails with it, or waits for another worker."""
        self.worker_leaves(worker)
        for number in list(worker.calls):
            call = worker.calls.pop(number)
            call.worker = None
            if call.finished:
                self._deadlines.discard(call)
            elif self._life.state in (State.STOPPING, State.DEAD):
                call.finish(error=self._closed())
            elif call.idempotent and not call.pinned and worker.order is not None and worker.order.fault:
                call.repeats += ((self.loop.time() - call.since, worker.reason),)
                why = f"{call.op}: {worker.reason}"
                self._events.tell("call.repeated", why, pid=worker.pid, slot=worker.slot)
                self._wait(call, first=True)
            else:
                call.finish(error=death)
        if self._life.state in (State.READY, State.DRAINING):
            self._dispatch()

    def no_worker_left(self, error: WorkerStartError) -> None:
        """Refuse the calls that wait."""
        self._refuse_waiting(error)

    # --- who gets which call ---

    def _choose(self, full: bool = False) -> Worker | None:
        """The worker with the fewest calls, if it has room; with `full`, whether it has or not.

        One with a call that was cancelled and has not stopped is the last resort: it may have to be ended
        for it.
        """
        best: Worker | None = None
        doubtful: Worker | None = None
        fewest: float = float("inf") if full else self._spec.max_inflight
        least = fewest
        for worker in self._workers:
            if worker.life.state is not _READY:
                continue
            calls = len(worker.calls)
            if worker.cancelled:
                if calls < least:
                    doubtful, least = worker, calls
            elif calls < fewest:
                best, fewest = worker, calls
        return doubtful if best is None else best

    def _send(self, call: Call, worker: Worker, now: float) -> None:
        left = call.deadline - now
        # A tenth of the time, but no more than the margin; written out, for it is done with every call.
        limit = left - _WORKER_MARGIN if left > 10 * _WORKER_MARGIN else left * 0.9
        try:
            worker.send(call, limit if limit > _LEAST else _LEAST)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as err:  # noqa: BLE001 - whatever it is, it is this call's alone
            call.finish(error=err)

    def _wait(self, call: Call, *, first: bool = False) -> None:
        call.since = self.loop.time()
        place = call.place
        if place is not None and (call.pinned or place.affinity == "strict"):
            worker = self.places.find(place)
            if worker is not None:
                self.places.wait(call, worker, first=first)
                return
        self.queue.push(call, first=first)
        self.scaler.calls_wait()

    def _dispatch(self) -> None:
        if self.places.count:
            self._dispatch_placed()
        while self.queue:
            worker = self._choose()
            if worker is None:
                return
            call = self.queue.pop()
            if call.place is not None and call.place.worker is None:
                self.places.settle(call.place, worker)
            self._send(call, worker, self.loop.time())

    def _dispatch_placed(self) -> None:
        """Give workers with room the calls that wait for them, in turn with those that wait for any."""
        for worker, queue in self.places.queues():
            while queue.count and self._has_room(worker) and worker.life.state is _READY:
                if self.queue.count and self.queue.peek().since < queue.peek().since:
                    call = self.queue.pop()
                else:
                    call = self.places.pop(queue)
                self._send(call, worker, self.loop.time())

    def _overdue(self, call: Call) -> None:
        worker = call.worker
        if not call.finished:
            error = DeadlineExceeded(
                f"pool {self._spec.name!r}: the call's time ran out "
                + ("in the queue" if worker is None else f"on worker {worker.pid}"),
                retryable=worker is None,  # of a call that waited nothing has been done
                stage="queue" if worker is None else "worker",
                op=call.op,
            )
            call.finish(error=error)  # the caller wakes, and `let_go` sees to the worker
        elif worker is not None:
            # It was cancelled and has not stopped: only the end of its worker frees the place.
            why = f"a call of {call.op!r} did not stop within {self._spec.timeouts.cancel:g} s"
            worker.order_end(why, force=True, fault=True)

    def _refuse_waiting(self, error: DspexError) -> None:
        while self.queue:
            self.queue.pop().finish(error=error)
        for worker in list(self._workers):
            for call in self.places.take_all(worker):
                call.finish(error=error)

    def _closed(self) -> PoolClosedError:
        return PoolClosedError(f"pool {self._spec.name!r} was closed before the call was done")
