"""Which sessions live on which worker, and their calls that wait for it.

::

    no worker --a call of the session is sent--> a worker --it drains or dies--> no worker

A session without a worker gets the one with the fewest sessions, or, where none has room, the first that has.
Its calls go there as its affinity says:

    strict      they wait for that worker, in a queue of its own
    fail_fast   they are refused while that worker has no room
    hint        another worker takes them while that one has no room; the session stays where it is

What a worker has for a session is gone with it. A call that needs it says so (`pinned`), and is refused if
the session lives elsewhere by the time it is sent: nothing was done, and its caller can build up there anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from dspex.errors import WorkerDiedError
from dspex.pool._lifecycle import State
from dspex.pool._queue import FairQueue

if TYPE_CHECKING:
    from dspex.pool._call import Call
    from dspex.pool._worker import Worker

__all__ = ["AFFINITIES", "Affinity", "Place", "Places"]

Affinity = Literal["hint", "strict", "fail_fast"]
"""What becomes of a session's call while its worker has no room; see `Pool.place`."""
AFFINITIES: Final = ("hint", "strict", "fail_fast")

_READY: Final = State.READY


class Place:
    """Where a session's calls go.

    Attributes:
        session: The session's name.
        affinity: What becomes of a call while its worker has no room.
        number: How many workers it has had; a call that is `pinned` names the one that it needs.
    """

    __slots__ = ("affinity", "number", "session", "worker")

    def __init__(self, session: str, affinity: Affinity = "hint") -> None:
        self.session = session
        self.affinity: Affinity = affinity
        self.number = 0
        self.worker: Worker | None = None

    @property
    def pid(self) -> int | None:
        """The process id of its worker; None while it has none."""
        return None if self.worker is None else self.worker.pid

    def __repr__(self) -> str:
        return f"<Place of {self.session!r} on {self.pid}>"


class Places:
    """The sessions of a pool's workers, and their calls that wait for one worker alone.

    Args:
        pool: The pool's name.
        workers: The pool's workers.
    """

    def __init__(self, pool: str, workers: Sequence[Worker]) -> None:
        self._pool = pool
        self._workers = workers
        self._waiting: dict[Worker, FairQueue] = {}
        self.count = 0
        """How many calls wait for one worker alone."""

    def __iter__(self) -> Iterator[Call]:
        return (call for queue in self._waiting.values() for call in queue)

    def find(self, place: Place) -> Worker | None:
        """The worker that a session lives on, which it is given if it has none; None if none is ready."""
        worker = place.worker
        if worker is not None:
            if worker.life.state is _READY:
                return worker
            self.leave(place)
        ready = [worker for worker in self._workers if worker.life.state is _READY]
        if not ready:
            return None
        worker = min(ready, key=lambda each: (each.places, len(each.calls)))
        self.settle(place, worker)
        return worker

    def settle(self, place: Place, worker: Worker) -> None:
        """Let a session live on this worker from now on."""
        if place.worker is not worker:
            self.leave(place)
            place.worker = worker
            place.number += 1
            worker.places += 1

    def leave(self, place: Place) -> None:
        """Let a session live on no worker."""
        worker, place.worker = place.worker, None
        if worker is not None:
            worker.places -= 1

    def check(self, call: Call) -> None:
        """Refuse a call whose worker has gone.

        Raises:
            WorkerDiedError: If it needs what another worker had than the one its session lives on.
        """
        place = call.place
        if place is not None and call.pinned:
            worker = place.worker
            if call.pinned != place.number or worker is None or worker.life.state is not _READY:
                raise self.lost(place)

    def lost(self, place: Place) -> WorkerDiedError:
        """The error of a call whose session has left the worker that it needs."""
        return WorkerDiedError(
            f"pool {self._pool!r} has no worker any more that has what session {place.session!r} needs",
            code="place-lost",
            hint="nothing was done; build up again what the worker had, and make the call again",
            retryable=True,
        )

    def wait(self, call: Call, worker: Worker, *, first: bool = False) -> None:
        """Let a call wait for a worker."""
        queue = self._waiting.get(worker)
        if queue is None:
            queue = self._waiting[worker] = FairQueue()
        queue.push(call, first=first)
        self.count += 1

    def discard(self, call: Call) -> None:
        """Let a call that waits here wait no longer."""
        if call.queue is not None:
            call.queue.discard(call)
            self.count -= 1

    def queues(self) -> list[tuple[Worker, FairQueue]]:
        """The workers for which calls wait, and these."""
        return [(worker, queue) for worker, queue in self._waiting.items() if queue.count]

    def pop(self, queue: FairQueue) -> Call:
        """Take the next call of such a queue."""
        self.count -= 1
        return queue.pop()

    def take_all(self, worker: Worker) -> list[Call]:
        """The calls that wait for a worker, which waits for none any more."""
        queue = self._waiting.pop(worker, None)
        calls = []
        while queue:
            calls.append(self.pop(queue))
        return calls
