"""One call on its way: waiting in the queue, on a worker, or finished."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dspex.errors import DeadlineExceeded, DspexError, WorkerDiedError, from_dict
from dspex.telemetry._trace import Trace

if TYPE_CHECKING:
    from dspex.pool._places import Place
    from dspex.pool._queue import FairQueue
    from dspex.pool._worker import Worker

__all__ = ["END", "Call"]

END: Final = object()
"""What stands behind the last part of an answer that comes in parts."""


@dataclass(slots=True, eq=False)
class Call:
    """A call and where it stands.

    What was asked for is complete when the call is made and does not change:

    Attributes:
        op: The operation.
        payload: Its argument, plain values.
        answer: What the caller waits for. Only `finish` and `abandon` settle it.
        deadline: When its time is over, on the loop's clock.
        session: Whose call it is, for fairness.
        idempotent: Whether it may be run again after its worker was ended for another call's fault: not once
            a part of its answer has come.
        nested: Whether another call waits for it, which may hold the last place.
        host_functions: The service's functions its work may call, by name.
        context: The context it was made in, for its host functions; None if it has none.
        trace: The trace it belongs to.
        items: Where the parts of its answer go, `END` behind the last, if it is to come in parts.
        codec: By which codec it is written; None for the pool's.
        place: Where its session lives; None where any worker will do.
        pinned: Which worker of its session it needs, by the number of `place`; 0 for whichever it lives on.

    Where it stands is changed by the scheduler and the worker that has it:

    Attributes:
        since: When it was made, or began to wait in the queue, on the loop's clock.
        repeats: For each worker that it was taken from, the seconds since it was made or waited, and why.
        waiting: Whether it is in a queue.
        queue: That queue, or the last.
        worker: The worker that has it.
        id: Its id on the wire while a worker has it.
    """

    op: str
    payload: Any
    answer: asyncio.Future[Any]
    deadline: float
    since: float = 0.0
    session: str = ""
    idempotent: bool = False
    nested: bool = False
    host_functions: Mapping[str, Callable[..., Any]] | None = None
    context: Context | None = None
    trace: Trace | None = None
    items: asyncio.Queue[Any] | None = None
    codec: str | None = None
    place: Place | None = None
    pinned: int = 0

    repeats: tuple[tuple[float, str], ...] = field(default=(), init=False)
    waiting: bool = field(default=False, init=False)
    queue: FairQueue | None = field(default=None, init=False)
    worker: Worker | None = field(default=None, init=False)
    id: int = field(default=0, init=False)

    @property
    def finished(self) -> bool:
        """Whether it has its answer, or nobody waits for one."""
        return self.answer.done()

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        """Give the caller the answer: the one place where a call is settled. The first answer counts.

        Args:
            result: What the work came to.
            error: What the call failed with instead.
        """
        if not self.answer.done():
            if error is None:
                self.answer.set_result(result)
            else:
                self.answer.set_exception(self._own(error))
        if self.items is not None:
            self.items.put_nowait(END)

    def abandon(self) -> None:
        """The caller waits no longer, and nobody asks what came of the call."""
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()

    def grant(self, count: int) -> None:
        """Let the worker send `count` more parts of the answer."""
        if self.worker is not None:
            self.worker.grant(self, count)

    def _own(self, error: BaseException) -> BaseException:
        """The error as this call's own, which alone says whether it may be made again.

        It is made anew: one that several callers raise gathers their tracebacks, and a traceback of ours
        holds the call, which would hold it.
        """
        if not isinstance(error, DspexError):
            return error
        described = error.to_dict()
        if self.idempotent and isinstance(error, WorkerDiedError):
            described |= {"retryable": True, "hint": "the call was declared idempotent: make it again"}
        elif self.idempotent and isinstance(error, DeadlineExceeded):
            described["retryable"] = True
        own = from_dict(described)
        own._stages = error._stages
        return own
