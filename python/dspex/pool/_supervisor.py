"""The workers of a pool, kept at their number: started, replaced, recycled, scaled.

Each slot is one task that keeps one worker alive. It waits for one of two things, its worker's death or the
wish to replace it, and starts another: after a death as the policy says, for a wish before the old one
drains, so that nothing is lost and nothing waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from dspex.errors import PoolClosedError, WorkerDiedError, WorkerStartError
from dspex.pool._backends.base import Launcher
from dspex.pool._call import Call
from dspex.pool._events import EventName, PoolEvent
from dspex.pool._lifecycle import State
from dspex.pool._policy import GiveUp, Respawn, after_death, due_for_recycling
from dspex.pool._spec import PoolSpec
from dspex.pool._worker import Worker, is_cancelled

__all__ = ["Owner", "Supervisor"]


@dataclass(frozen=True, slots=True)
class Owner:
    """What a supervisor tells the pool: functions of the pool's, none of which is part of its own interface.

    Attributes:
        freed: A call has left its worker.
        serving: A worker has become ready.
        worker_exited: A worker is gone; its calls are still in `worker.calls`.
        exhausted: Nobody serves, and nobody is on the way: the restart budget is spent.
    """

    freed: Callable[[Call], None]
    serving: Callable[[], None]
    worker_exited: Callable[[Worker, WorkerDiedError], None]
    exhausted: Callable[[], None]


@dataclass(eq=False)
class _Slot:
    """A place for one worker."""

    number: int
    task: asyncio.Task[None] = field(init=False)
    worker: Worker | None = None
    starting: Worker | None = None  # the one that is to take its place
    spawned: int = 0
    replace: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""  # it is to be replaced
    renewal: asyncio.Future[None] | None = None  # for whoever waits for the replacement
    backing_off: bool = False

    def wish(self, why: str) -> None:
        """Have the worker replaced."""
        if not self.replace.is_set():
            self.why = why
            self.replace.set()

    def renewed(self, error: WorkerStartError | PoolClosedError | None = None) -> None:
        """Tell whoever waits how the replacement went."""
        self.replace.clear()
        if self.renewal is not None and not self.renewal.done():
            if error is None:
                self.renewal.set_result(None)
            else:
                self.renewal.set_exception(error)
        self.renewal = None


class Supervisor:
    """The workers.

    Args:
        spec: The pool's settings.
        handshake: What every worker is told at the hand-shake.
        launcher: What starts processes.
        owner: The pool.
        emit: Takes events.
    """

    def __init__(
        self,
        spec: PoolSpec,
        handshake: Mapping[str, Any],
        launcher: Launcher,
        owner: Owner,
        emit: Callable[[PoolEvent], None],
    ) -> None:
        self.workers: list[Worker] = []
        """Every worker that is not dead."""
        self.deaths = 0
        """Workers lost since the start, those that were asked to go not counted."""
        self._spec = spec
        self._handshake = handshake
        self._launcher = launcher
        self._owner = owner
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._recent: deque[float] = deque(maxlen=spec.restart.max + 1)
        self._failures_in_a_row = 0
        self._first_cause: WorkerStartError | WorkerDiedError | None = None
        self._slots: list[_Slot] = []
        self._first: asyncio.Future[None] = self._loop.create_future()

    # --- what the pool asks ---

    @property
    def size(self) -> int:
        """How many workers are wanted."""
        return len(self._slots)

    @property
    def starting(self) -> bool:
        """Whether a worker is on its way."""
        return any(worker.life.state is State.STARTING for worker in self.workers)

    async def start(self, size: int) -> None:
        """Begin with `size` workers; returns when the first can serve.

        Raises:
            WorkerStartError: If the first to come to an end came to a bad one: it would again.
            PoolClosedError: If the pool is closed meanwhile.
        """
        self._resize(size)
        await asyncio.shield(self._first)

    def choose(self, *, full: bool = False) -> Worker | None:
        """The worker with the fewest calls, if it has room; with `full`, whether it has or not.

        One with a call that was told to stop and has not is the last resort: it may have to be ended for it.
        """
        best: Worker | None = None
        doubtful: Worker | None = None
        fewest: float = float("inf") if full else self._spec.max_inflight
        least = fewest
        for worker in self.workers:
            if not worker.open:
                continue
            calls = len(worker.calls)
            if worker.stopping:
                if calls < least:
                    doubtful, least = worker, calls
            elif calls < fewest:
                best, fewest = worker, calls
        return doubtful if best is None else best

    def resize(self, size: int) -> None:
        """Want `size` workers from now on. Those beyond it drain, the least busy first."""
        if size != len(self._slots):
            self._resize(size)
            self._tell("pool.resized", reason=str(size))

    async def restart(self) -> None:
        """Replace every worker, one after another, each before it drains.

        Raises:
            WorkerStartError: If a new one does not start; the old ones that are left go on.
            PoolClosedError: If the pool is closed meanwhile.
        """
        for slot in list(self._slots):
            if slot not in self._slots:  # the pool was made smaller meanwhile
                continue
            if slot.renewal is None:
                slot.renewal = self._loop.create_future()
                # Whoever waits may be cancelled, and then nobody asks how it went.
                slot.renewal.add_done_callback(lambda renewal: renewal.exception())
            slot.wish("the pool is restarted")
            await asyncio.shield(slot.renewal)  # others may wait for the same

    def recycle_due(self, worker: Worker) -> None:
        """Replace `worker` if it has served its time."""
        process = worker.process
        if process is None or not worker.open:
            return
        age = self._loop.time() - worker.started
        reason = due_for_recycling(age, worker.served, process.resident, self._spec.recycling)
        if reason is not None:
            for slot in self._slots:
                if slot.worker is worker:
                    slot.wish(reason)

    def drop_idle(self, least: int, patience: float) -> float | None:
        """Let workers go that had nothing to do for `patience` seconds, down to `least` of them.

        Returns:
            Seconds until there may be another, None if there cannot be.
        """
        now = self._loop.time()
        waits = []
        for slot in list(self._slots):
            if len(self._slots) <= least:
                return None
            worker = slot.worker
            if worker is None or not worker.open:
                continue
            if worker.calls or now - worker.idle_since < patience:
                waits.append(patience - (0.0 if worker.calls else now - worker.idle_since))
                continue
            self._remove(slot, "it had nothing to do")
            self._tell("pool.resized", reason=str(len(self._slots)))
        return min(waits, default=None)

    def is_exhausted(self) -> bool:
        """Whether nobody serves and nobody is on the way."""
        return bool(self._slots) and not self.workers and all(slot.backing_off for slot in self._slots)

    def refusal(self) -> WorkerStartError:
        """Why nobody serves."""
        cause = self._first_cause
        assert cause is not None  # noqa: S101 - a supervisor is exhausted only after deaths
        return WorkerStartError.from_other(
            cause,
            message=f"pool {self._spec.name!r} has no worker: {len(self._recent)} died within "
            f"{self._spec.restart.window:g} s, beyond restart.max={self._spec.restart.max}; "
            f"the first because: {cause.message}",
            code="restart-budget",
            hint="cure the first cause; the pool tries again by itself when the window has passed",
        )

    async def close(self, *, force: bool = False) -> None:
        """End every worker; returns when the last is reaped.

        Args:
            force: Without asking them: nobody is left to wait for what they do.
        """
        tasks = [slot.task for slot in self._slots]
        for slot in self._slots:
            slot.renewed(PoolClosedError(f"pool {self._spec.name!r} was closed before it was restarted"))
        self._slots.clear()
        for task in tasks:
            task.cancel()
        if not self._first.done():
            self._first.set_exception(
                PoolClosedError(f"pool {self._spec.name!r} was closed while it started")
            )
            self._first.exception()  # who waits for it may be cancelled
        if tasks:
            await asyncio.wait(tasks)
        ends = [self._loop.create_task(w.end("the pool was closed", force=force)) for w in self.workers]
        if ends:
            await asyncio.wait(ends)
        try:
            await self._launcher.aclose()
        except (Exception, asyncio.CancelledError) as err:  # a backend's; the workers are gone all the same
            if isinstance(err, asyncio.CancelledError) and is_cancelled():
                raise
            self._report("its launcher could not be closed", err)

    # --- slots ---

    def _resize(self, size: int) -> None:
        while len(self._slots) < size:
            taken = {slot.number for slot in self._slots}
            slot = _Slot(next(number for number in count() if number not in taken))
            self._slots.append(slot)
            self._begin(slot)
        while len(self._slots) > size:
            least = min(self._slots, key=lambda slot: len(slot.worker.calls) if slot.worker else -1)
            self._remove(least, "the pool was resized")

    def _remove(self, slot: _Slot, why: str) -> None:
        self._slots.remove(slot)
        slot.task.cancel()
        slot.renewed()
        if slot.worker is not None:
            slot.worker.drain(why)

    def _begin(self, slot: _Slot, fault: WorkerStartError | None = None) -> None:
        slot.task = self._loop.create_task(self._keep(slot, fault))
        slot.task.add_done_callback(partial(self._resume, slot))

    def _resume(self, slot: _Slot, ended: asyncio.Task[None]) -> None:
        """The one place where a slot's task comes to its end: for good only if the slot was taken away.

        What else may have ended it, an exception of whatever class or somebody who cancels all tasks, is a
        failed start, and another task goes on from there.
        """
        error = None if ended.cancelled() else ended.exception()
        if slot not in self._slots:
            return
        what = "its task was cancelled" if error is None else f"{type(error).__name__}: {error}"
        if error is not None:
            self._report(f"the task of place {slot.number} ended", error)
        fault = WorkerStartError(
            f"a worker of pool {self._spec.name!r} could not be kept: {what}",
            code="start-failed",
            reason=what,
            hint="the pool tries again; report it if the exception is one of dspex",
        )
        self._note_failure(slot, fault)
        if slot.starting is not None:
            slot.starting.abandon(f"it did not start: {what}")
            slot.starting = None
        self._begin(slot, fault)

    def _note_failure(self, slot: _Slot, error: WorkerStartError) -> None:
        """Tell whoever waits for the slot's worker that it does not come."""
        if not self._first.done():
            self._first.set_exception(error)
            self._first.exception()  # who waits for it may be cancelled
        if slot.renewal is not None:
            slot.renewed(error)

    async def _keep(self, slot: _Slot, fault: WorkerStartError | None) -> None:
        if fault is not None:
            await self._back_off(slot, fault, served=0)
            if slot.worker is not None:  # the one before may not have come to it
                self._owner.serving()
        while True:
            if slot.worker is None or slot.replace.is_set():
                try:
                    await self._renew(slot)
                except WorkerStartError as err:
                    self._note_failure(slot, err)
                    await self._back_off(slot, err, served=0)
                    continue
            worker = slot.worker
            assert worker is not None  # noqa: S101 - the lines above have seen to it
            death = await self._watch(slot, worker)
            if death is not None:
                self._on_exit(worker, death)
                slot.worker = None
                await self._back_off(slot, death, served=worker.served)

    async def _renew(self, slot: _Slot) -> None:
        """Start a worker for the slot; the one it has drains when the new one is ready."""
        slot.starting = worker = self._spawn(slot)
        await worker.start()
        slot.starting = None
        if not self._first.done():
            self._first.set_result(None)
        old, slot.worker = slot.worker, worker
        if old is not None:
            old.drain(slot.why)
        slot.renewed()
        self._owner.serving()

    async def _watch(self, slot: _Slot, worker: Worker) -> WorkerDiedError | None:
        """Wait until the worker is dead (that is returned) or to be replaced."""
        wish = self._loop.create_task(slot.replace.wait())
        either: list[asyncio.Future[Any]] = [worker.dead, wish]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wish.cancel()
        return worker.dead.result() if worker.dead.done() else None

    async def _back_off(self, slot: _Slot, cause: WorkerStartError | WorkerDiedError, *, served: int) -> None:
        """Wait as long as the policy says before the next start."""
        now = self._loop.time()
        self.deaths += 1
        self._recent.append(now)
        self._failures_in_a_row = 0 if served else self._failures_in_a_row + 1
        if self._failures_in_a_row <= 1:
            self._first_cause = cause
        verdict = after_death(self._recent, self._failures_in_a_row, now, self._spec.restart)
        match verdict:
            case Respawn(after):
                await asyncio.sleep(after)
            case GiveUp(deaths, until):
                slot.backing_off = True
                self._tell("pool.backing_off", reason=f"{deaths} deaths: {cause.message}")
                if self.is_exhausted():
                    try:
                        self._owner.exhausted()
                    except Exception as err:  # noqa: BLE001 - the rest is to come, or this would go round
                        self._report("the calls that wait could not be refused", err)
                try:
                    await asyncio.sleep(until - now)
                finally:
                    slot.backing_off = False

    def _spawn(self, slot: _Slot) -> Worker:
        worker = Worker(
            self._spec, self._handshake, self._launcher, on_free=self._owner.freed, on_beat=self.recycle_due
        )
        worker.slot, worker.restarts = slot.number, slot.spawned
        slot.spawned += 1
        worker.life.watch(partial(self._changed, worker))
        self.workers.append(worker)
        worker.dead.add_done_callback(lambda dead: self._on_exit(worker, dead.result()))
        self._tell("worker.starting", worker)
        return worker

    def _on_exit(self, worker: Worker, death: WorkerDiedError) -> None:
        if (
            worker not in self.workers
        ):  # it has been done: who watched it and who waits for its end both see to it
            return
        self.workers.remove(worker)
        try:
            self._tell("worker.dead", worker, death.message)
        finally:  # whatever a listener does, the callers have their answers
            self._owner.worker_exited(worker, death)

    def _changed(self, worker: Worker, state: State) -> None:
        if state is State.READY:
            self._tell("worker.ready", worker)
        elif state is State.DRAINING:
            self._tell("worker.draining", worker, worker.reason)
        elif state is State.STOPPING:
            self._tell("worker.stopping", worker, worker.reason)

    def _report(self, what: str, error: BaseException) -> None:
        message = f"dspex: pool {self._spec.name!r}: {what}"
        self._loop.call_exception_handler({"message": message, "exception": error})

    def _tell(self, name: EventName, worker: Worker | None = None, reason: str = "") -> None:
        pid, slot = (worker.pid, worker.slot) if worker is not None else (None, None)
        self._emit(PoolEvent(name, self._spec.name, pid, reason, slot))
