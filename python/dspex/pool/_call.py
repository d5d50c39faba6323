"""One call on its way: waiting in the queue, on a worker, or answered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dspex.telemetry._trace import Trace

if TYPE_CHECKING:
    from dspex.pool._worker import Worker

__all__ = ["Call", "FairQueue"]


@dataclass(slots=True, eq=False)
class Call:
    """A call and where it stands.

    Attributes:
        op: The operation.
        payload: Its argument, plain values.
        answer: What the caller waits for.
        deadline: When its time is over, on the loop's clock.
        session: Whose call it is, for fairness.
        host_functions: The service's functions its work may call, by name.
        context: The context it was made in, for its host_functions; None if it has none.
        trace: The trace it belongs to.
        idempotent: Whether it may be run again after its worker was ended for another call's fault.
        attempts: How many workers it has been given to, one that it waits for included.
        items: Where the parts of its answer go, if it is to come in parts.
        waiting: Whether it is in the queue.
        since: When it began to wait, on the loop's clock.
        worker: The worker that has it.
        id: Its id on the wire while a worker has it.
    """

    op: str
    payload: Any
    answer: asyncio.Future[Any]
    deadline: float
    session: str
    host_functions: Mapping[str, Callable[..., Any]] | None = None
    items: asyncio.Queue[Any] | None = None
    context: Context | None = None
    trace: Trace | None = None
    idempotent: bool = False
    attempts: int = 1
    waiting: bool = False
    since: float = 0.0
    worker: Worker | None = None
    id: int = 0


_FEW: Final = 32
"""Discarded calls that are not worth a sweep."""


class FairQueue:
    """Calls that wait: first come first served within a session, by turns between sessions."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, deque[Call]] = OrderedDict()
        self._discarded = 0  # that are in a session's line still
        self.count = 0
        """How many wait: `len` of the queue, for those who ask with every call."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Call]:
        return (call for waiting in self._sessions.values() for call in waiting if call.waiting)

    def push(self, call: Call, *, first: bool = False) -> None:
        """Let `call` wait; `first` puts one that has waited before in front of its session's others."""
        waiting = self._sessions.setdefault(call.session, deque())
        if first:
            waiting.appendleft(call)
        else:
            waiting.append(call)
        call.waiting = True
        self.count += 1

    def pop(self) -> Call:
        """Take the call whose turn it is.

        Raises:
            IndexError: If none waits.
        """
        while self._sessions:
            session, waiting = next(iter(self._sessions.items()))
            call = waiting.popleft()
            if not waiting:
                del self._sessions[session]
            if call.waiting:
                if waiting:
                    self._sessions.move_to_end(session)
                call.waiting = False
                self.count -= 1
                return call
            self._discarded -= 1
        raise IndexError("no call waits")

    def oldest(self) -> float | None:
        """Since when the call waits that waits longest, None if none waits."""
        firsts = (
            next((call.since for call in calls if call.waiting), None) for calls in self._sessions.values()
        )
        return min((since for since in firsts if since is not None), default=None)

    def discard(self, call: Call) -> None:
        """Let `call` wait no longer. It is only marked, and taken out when its turn comes or many are."""
        if call.waiting:
            call.waiting = False
            self.count -= 1
            self._discarded += 1
            # Their turn may be far off, and their payloads large; each sweep halves what is there, at least.
            if not self.count or self._discarded > max(self.count, _FEW):
                self._sweep()

    def _sweep(self) -> None:
        lines = self._sessions.items()
        left = ((session, deque(call for call in line if call.waiting)) for session, line in lines)
        self._sessions = OrderedDict((session, line) for session, line in left if line)
        self._discarded = 0
