"""The workers of a pool, kept at their number: started, replaced, recycled.

Two tasks keep a worker. That of its *slot* is about numbers: it starts a worker, waits until that one is dead
or is to be replaced, and starts the next: after a death as the policy says, for a replacement before the old
one drains, so that nothing is lost and nothing waits. The worker's own, `_live`, is its life from the start
of its process to the last of its calls: what a death leads to stands there in order.

Supervision goes on whatever its tasks end with: each end is heard of (`_slot_ended`, `_life_ended`), and
another task goes on from there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count
from typing import Protocol

from dspex.errors import PoolClosedError, WorkerDiedError, WorkerStartError
from dspex.pool._backends.base import Launcher
from dspex.pool._call import Call
from dspex.pool._deaths import Deaths
from dspex.pool._events import EventName, Events
from dspex.pool._last_words import report
from dspex.pool._lifecycle import State
from dspex.pool._policy import GiveUp, Respawn, due_for_recycling
from dspex.pool._spec import PoolSpec
from dspex.pool._tasks import Outcome, Tasks, is_cancelled
from dspex.pool._worker import Worker
from dspex.protocol.handshake import Handshake

__all__ = ["Supervisor", "SupervisorListener"]


class SupervisorListener(Protocol):
    """What a supervisor tells the scheduler."""

    def call_left(self, call: Call) -> None:
        """A call has left its worker, with its answer."""

    def worker_ready(self) -> None:
        """A worker has become ready."""

    def worker_leaves(self, worker: Worker) -> None:
        """A worker takes no new calls from now on; those it has it finishes."""

    def worker_exited(self, worker: Worker, death: WorkerDiedError) -> None:
        """A worker is gone; its calls are still in `worker.calls`."""

    def no_worker_left(self, error: WorkerStartError) -> None:
        """No worker is running or starting: the restart budget is spent."""


class _SlotState(Enum):
    # A worker is being started for it, or will be after a short delay.
    FILLING = "filling"
    # It has a worker.
    SERVED = "served"
    # The restart budget is spent: nothing is started before the window has passed.
    EXHAUSTED = "exhausted"


@dataclass(eq=False)
class _Slot:
    """A place for one worker."""

    number: int
    task: asyncio.Task[None] = field(init=False)
    state: _SlotState = _SlotState.FILLING
    worker: Worker | None = None
    starting: Worker | None = None  # the one that is to take its place
    spawned: int = 0
    replace: str = ""  # why the worker is to be replaced, if it is
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    renewal: Outcome[None] | None = None  # for whoever waits for the replacement

    def ask_replacement(self, why: str) -> None:
        """Have the worker replaced."""
        if not self.replace:
            self.replace = why
            self.changed.set()

    def leave_start(self, why: str) -> None:
        """Do without the worker that is on its way, if one is.

        One that says it is ready has calls from that moment on, a turn of the loop before it becomes
        `worker`: it finishes them.
        """
        worker, self.starting = self.starting, None
        if worker is None:
            return
        if worker.life.state is State.READY:
            worker.drain(why)
        else:
            worker.order_end(why, force=True)

    def renewed(self, error: BaseException | None = None) -> None:
        """Tell whoever waits how the replacement went."""
        self.replace = ""
        renewal, self.renewal = self.renewal, None
        if renewal is not None:
            if error is None:
                renewal.succeed(None)
            else:
                renewal.fail(error)


class Supervisor:
    """The workers.

    Args:
        spec: The pool's settings.
        handshake: What every worker gets at the handshake.
        launcher: What starts processes.
        listener: The scheduler.
        events: Takes the events of workers.
    """

    def __init__(
        self,
        spec: PoolSpec,
        handshake: Handshake,
        launcher: Launcher,
        listener: SupervisorListener,
        events: Events,
    ) -> None:
        self.workers: list[Worker] = []
        """Every worker that is not dead."""
        self.deaths = Deaths(spec.name, spec.restart)
        self._spec = spec
        self._handshake = handshake
        self._launcher = launcher
        self._listener = listener
        self._events = events
        self._tasks = Tasks()
        self._loop = asyncio.get_running_loop()
        self._slots: list[_Slot] = []
        self._first: Outcome[None] = Outcome()

    # --- how many workers ---

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
        await self._first.wait()

    def resize(self, size: int) -> None:
        """Want `size` workers from now on. Those beyond it drain, the least busy first."""
        if size != len(self._slots):
            self._resize(size)
            self._events.tell("pool.resized", str(size))

    async def restart(self) -> None:
        """Replace every worker, one after another, each before it drains.

        Raises:
            WorkerStartError: If a new one does not start; the old ones that are left go on.
            PoolClosedError: If the pool is closed meanwhile.
        """
        for slot in list(self._slots):
            if slot not in self._slots:  # the pool was made smaller meanwhile
                continue
            if slot.starting is not None and slot.starting.life.state is State.READY:
                await asyncio.sleep(0)  # its slot takes it in this turn of the loop; it is to be replaced too
            renewal = slot.renewal = slot.renewal or Outcome()
            slot.ask_replacement("the pool is restarted")
            await renewal.wait()

    def recycle_due(self, worker: Worker) -> None:
        """Replace `worker` if it is due for recycling."""
        process = worker.process
        if process is None or worker.life.state is not State.READY:
            return
        age = self._loop.time() - worker.born
        reason = due_for_recycling(age, worker.served, process.resident, self._spec.recycling)
        if reason is not None:
            for slot in self._slots:
                if slot.worker is worker:
                    slot.ask_replacement(reason)

    def drop_idle(self, least: int, patience: float) -> float | None:
        """Let workers go that had nothing to do for `patience` seconds, down to `least` of them.

        Returns:
            Seconds until there may be another, None if there cannot be.
        """
        now = self._loop.time()
        waits = []
        ready = [slot for slot in self._slots if slot.worker and slot.worker.life.state is State.READY]
        sessions = [slot.worker.places for slot in ready if slot.worker]
        for slot in ready:
            if len(self._slots) <= least:
                return None
            worker = slot.worker
            if worker is None or worker.places > min(sessions):  # as few sessions as possible have to move
                continue
            if worker.calls or now - worker.idle_since < patience:
                waits.append(patience - (0.0 if worker.calls else now - worker.idle_since))
                continue
            self._remove(slot, "it had nothing to do")
            self._events.tell("pool.resized", str(len(self._slots)))
        return min(waits, default=None)

    def is_exhausted(self) -> bool:
        """Whether no worker is running or starting, and none will be before the restart window has passed."""
        exhausted = all(slot.state is _SlotState.EXHAUSTED for slot in self._slots)
        return bool(self._slots) and not self.workers and exhausted

    async def close(self, *, force: bool = False) -> None:
        """End every worker; returns when the last is reaped. What was cut short is taken up by another call.

        Args:
            force: Without asking them: nobody is left to wait for what they do.
        """
        slots, self._slots = self._slots, []
        for slot in slots:
            self._tasks.stop(slot.task)
            slot.renewed(PoolClosedError(f"pool {self._spec.name!r} was closed before it was restarted"))
        self._first.fail(PoolClosedError(f"pool {self._spec.name!r} was closed while it started"))
        for worker in self.workers:
            starting = worker.life.state is State.STARTING
            worker.order_end("the pool was closed", force=force or starting)
        for worker in list(self.workers):
            await worker.ended.wait()
        await self._tasks.join()
        try:
            await self._launcher.aclose()
        except (Exception, asyncio.CancelledError) as err:  # a backend's; the workers are gone all the same
            if isinstance(err, asyncio.CancelledError) and is_cancelled():
                raise
            self._report("its launcher could not be closed", err)

    # --- a slot ---

    def _resize(self, size: int) -> None:
        while len(self._slots) < size:
            taken = {slot.number for slot in self._slots}
            slot = _Slot(next(number for number in count() if number not in taken))
            self._slots.append(slot)
            self._begin_slot(slot)
        while len(self._slots) > size:
            least = min(self._slots, key=_load)
            self._remove(least, "the pool was resized")

    def _remove(self, slot: _Slot, why: str) -> None:
        self._slots.remove(slot)
        self._tasks.stop(slot.task)
        slot.renewed()
        slot.leave_start(why)
        if slot.worker is not None:
            slot.worker.drain(why)

    def _begin_slot(self, slot: _Slot, fault: WorkerStartError | None = None) -> None:
        slot.state = _SlotState.SERVED if slot.worker is not None else _SlotState.FILLING
        slot.task = self._tasks.start(self._keep(slot, fault), partial(self._slot_ended, slot))

    async def _keep(self, slot: _Slot, fault: WorkerStartError | None) -> None:
        """Keep the slot filled, for ever."""
        if fault is not None:
            await self._back_off(slot, fault, served=0)
            if slot.worker is not None:  # the task before may not have come to it
                self._listener.worker_ready()
        while True:
            if slot.worker is None or slot.replace:
                try:
                    await self._fill(slot)
                except WorkerStartError as err:
                    self._start_failed(slot, err)
                    await self._back_off(slot, err, served=0)
                    continue
            worker = slot.worker
            assert worker is not None  # noqa: S101 - the lines above have seen to it
            while not (worker.ended.known or slot.replace):
                slot.changed.clear()
                await slot.changed.wait()
            if worker.ended.known:
                slot.worker = None
                await self._back_off(slot, worker.ended.result(), served=worker.served)

    async def _fill(self, slot: _Slot) -> None:
        """Start a worker for the slot; the one it has drains when the new one is ready."""
        worker = self._spawn(slot)
        await worker.started.wait()
        slot.starting = None
        old, slot.worker, slot.state = slot.worker, worker, _SlotState.SERVED
        if old is not None:
            old.drain(slot.replace)
        slot.renewed()
        self._listener.worker_ready()
        self._first.succeed(None)  # last: an observer of the event may close the pool before

    async def _back_off(self, slot: _Slot, cause: WorkerStartError | WorkerDiedError, *, served: int) -> None:
        """Wait as long as the policy says before the next start."""
        now = self._loop.time()
        match self.deaths.count(cause, now, served=served):
            case Respawn(after):
                await asyncio.sleep(after)
            case GiveUp(deaths, until):
                slot.state = _SlotState.EXHAUSTED
                self._events.tell("pool.backing_off", f"{deaths} deaths: {cause.message}")
                if self.is_exhausted():
                    try:
                        self._listener.no_worker_left(self.deaths.refusal())
                    except Exception as err:  # noqa: BLE001 - the rest is to come, or this would go round
                        self._report("the calls that wait could not be refused", err)
                await asyncio.sleep(until - now)
        slot.state = _SlotState.SERVED if slot.worker is not None else _SlotState.FILLING

    def _slot_ended(self, slot: _Slot, error: BaseException | None) -> None:
        """A slot's task has ended, though only the removal of its slot is to end it.

        Whatever ended it, an exception of whatever class or somebody who cancels all tasks, is a failed
        start, and another task goes on from there.
        """
        if slot not in self._slots:
            return
        what = "its task was cancelled"
        if error is not None and not isinstance(error, asyncio.CancelledError):
            what = f"{type(error).__name__}: {error}"
            self._report(f"the task of slot {slot.number} ended", error)
        fault = WorkerStartError(
            f"a worker of pool {self._spec.name!r} could not be kept: {what}",
            code="start-failed",
            reason=what,
            hint="the pool tries again; report it if the exception is one of dspex",
        )
        self._start_failed(slot, fault)
        slot.leave_start(f"it did not start: {what}")
        self._begin_slot(slot, fault)

    def _start_failed(self, slot: _Slot, error: WorkerStartError) -> None:
        """Tell whoever waits for the slot's worker that it does not come."""
        self._first.fail(error)
        if slot.renewal is not None:
            slot.renewed(error)

    # --- a worker ---

    def _spawn(self, slot: _Slot) -> Worker:
        worker = slot.starting = Worker(
            self._spec,
            self._handshake,
            self._launcher,
            slot=slot.number,
            restarts=slot.spawned,
            on_free=self._listener.call_left,
            on_beat=self.recycle_due,
        )
        slot.spawned += 1
        worker.life.watch(partial(self._changed, worker))
        self._begin_life(worker)
        self.workers.append(worker)
        self._tell("worker.starting", worker)
        return worker

    def _begin_life(self, worker: Worker) -> None:
        self._tasks.start(self._live(worker), partial(self._life_ended, worker))

    async def _live(self, worker: Worker) -> None:
        """The life of a worker, from its start to what its death leads to."""
        if worker.order is None and not worker.started.known:
            await worker.start()
        await worker.ordered.wait()  # by its own death, the pool, a missing heartbeat, a call that hangs
        death = await worker.bring_down()
        self._on_exit(worker, death)

    def _on_exit(self, worker: Worker, death: WorkerDiedError) -> None:
        """A worker is gone: its calls are settled, and its slot starts another."""
        try:
            if worker in self.workers:
                self.workers.remove(worker)
                self._tell("worker.dead", worker, death.message)
        finally:  # whatever a listener does, the callers have their answers
            try:
                self._listener.worker_exited(worker, death)
            finally:
                worker.conclude(death)
                for slot in self._slots:
                    if slot.worker is worker:
                        slot.changed.set()

    def _life_ended(self, worker: Worker, error: BaseException | None) -> None:
        """A worker's task has ended; if not by coming to its end, the worker is brought to its own."""
        if error is None:
            return
        cancelled = isinstance(error, asyncio.CancelledError)
        if not cancelled:
            self._report(f"the task of worker {worker.pid} ended", error)
        if worker.order is not None and not cancelled:
            self._on_exit(worker, worker.give_up(error))
            return
        try:
            if worker.order is not None:
                worker.hasten()
            elif not worker.started.known:
                worker.fail_start(error)
        finally:
            self._begin_life(worker)

    # --- telling ---

    def _changed(self, worker: Worker, state: State) -> None:
        if state is State.READY:
            self._tell("worker.ready", worker)
        elif state is State.DRAINING:
            self._tell("worker.draining", worker, worker.reason)
            self._listener.worker_leaves(worker)
        elif state is State.STOPPING:
            self._tell("worker.stopping", worker, worker.reason)

    def _report(self, what: str, error: BaseException) -> None:
        report(f"dspex: pool {self._spec.name!r}: {what}", error)

    def _tell(self, name: EventName, worker: Worker, reason: str = "") -> None:
        self._events.tell(name, reason, pid=worker.pid, slot=worker.slot)


def _load(slot: _Slot) -> tuple[int, int]:
    worker = slot.worker
    return (-1, 0) if worker is None else (len(worker.calls), worker.places)
