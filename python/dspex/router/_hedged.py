"""Calls that are made a second time while the first is under way, and which of the two answers.

::

    first.ask ----------------------------------------------> answered, or failed
        |  has taken `after`; share and budget allow it
        +--> second.ask --------------------> answered: the first is cancelled, and the other way round
                                   both failed: what the first raised

Each of the two is a `Call` of its own: it is counted at its target, and the one that is cancelled counts as a
call whose caller has left, for nothing. A second one that cannot be begun (no target has room, the budget is
spent) is not: a hedge never makes a call fail. Where the first fails before its time, nothing is hedged.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from dspex._timeouts import without_frames
from dspex.errors import DspexError, RouteError, TargetsUnavailable
from dspex.router._call import Call, runtime_closed

if TYPE_CHECKING:
    from dspex._core import Ticket
    from dspex.prediction import Prediction
    from dspex.router._backstop import Watch
    from dspex.router._hedge import Hedge
    from dspex.router._operation import AnyOperation
    from dspex.router._router import Entry, Router

__all__ = ["HedgedCall", "Hedges"]

_ANSWERS: Final = 30
"""Answers of a target, before a quantile of its times means anything."""

_CALLS: Final = 50
"""Calls after which the quantile is looked at anew."""

_MOST_SAVED: Final = 10.0
"""Second attempts that may have been saved up."""


class Hedges:
    """The hedging of one router: what it has learned, and what it has spent.

    Args:
        router: It decides.
        hedge: The settings.
    """

    def __init__(self, router: Router, hedge: Hedge) -> None:
        self._router = router
        self._hedge = hedge
        self._learned: dict[int, tuple[int, float | None]] = {}  # by a target's number: calls left, seconds
        self._saved = 1.0
        self._losing: set[asyncio.Task[None]] = set()

    @property
    def router(self) -> Router:
        """The router that decides."""
        return self._router

    def of(self, call: Call, needs: int, unable: int) -> Call:
        """The call, which is made a second time if it is late, where it may be."""
        operation = call.operation
        if not operation.idempotent or operation.sink is not None:
            return call
        self._saved = min(_MOST_SAVED, self._saved + self._hedge.at_most)
        return HedgedCall(self, call, needs, unable)

    def after(self, ticket: Ticket) -> float | None:
        """Seconds that the call of a ticket may take before it is late; None where nobody knows."""
        if isinstance(self._hedge.after, int | float):
            return self._hedge.after
        left, seconds = self._learned.get(ticket.number, (0, None))
        if not left:
            left, seconds = _CALLS, self._quantile(ticket)
        self._learned[ticket.number] = left - 1 if seconds is not None else 0, seconds
        return seconds

    def second(self, first: Call, timeout: float, needs: int, unable: int) -> Call | None:
        """The second attempt; None where there is none."""
        if self._saved < 1.0:
            return None
        router, operation = self._router, first.operation
        try:
            found = self._elsewhere(operation, first.ticket, needs, unable)
            ticket, entry = found or router.decide(operation, needs, unable, again=True)
            if router.retry is not None and not router.core.take_retry(first.ticket):
                router.record(ticket, "cancelled", None)
                return None
            call = router.call(operation, timeout, ticket, entry, needs, unable)
        except DspexError:  # of the first one the caller hears; of this one nobody has to
            return None
        self._saved -= 1.0
        return call

    def let_go(self, call: Call, task: asyncio.Task[None]) -> None:
        """End the attempt that has lost; nobody waits for its end."""

        def ended(task: asyncio.Task[None]) -> None:
            self._losing.discard(task)
            if not task.cancelled():
                task.exception()  # nobody else looks at it
            call.abandon()

        self._losing.add(task)
        task.add_done_callback(ended)
        task.cancel()

    def _elsewhere(
        self, operation: AnyOperation, first: Ticket, needs: int, unable: int
    ) -> tuple[Ticket, Entry] | None:
        if not self._hedge.elsewhere or operation.route is not None:
            return None
        try:
            return self._router.decide_among_the_rest(operation, needs, unable, 1 << first.slot)
        except (RouteError, TargetsUnavailable):
            return None

    def _quantile(self, ticket: Ticket) -> float | None:
        share, core = self._hedge.quantile, self._router.core
        served = next((row[3] for row in core.counts() if row[0] == ticket.slot), 0)
        if share is None or served < _ANSWERS:
            return None
        try:
            found = core.quantiles(ticket.slot, [share])
        except IndexError:  # the target has been removed
            return None
        return None if found is None else found[0]


class HedgedCall(Call):
    """A call that is made a second time if it is late.

    Args:
        hedges: What may be done.
        first: The call as it has been begun.
        needs: What its operation needs of a target.
        unable: The slots of targets that cannot run it.
    """

    __slots__ = ("_first", "_hedges", "_late", "_winner")

    def __init__(self, hedges: Hedges, first: Call, needs: int, unable: int) -> None:
        self._hedges = hedges
        self._router = hedges.router
        self._first = self._winner = first
        self._needs = needs
        self._unable = unable
        self._late: float | None = None
        self.operation = first.operation
        self.timeout = first.timeout

    @property
    def ticket(self) -> Ticket:
        """That of the attempt that has answered, or of the first."""
        return self._winner.ticket

    def ask_now(self) -> bool:
        """As `Call.ask_now`: what is there at once is not late."""
        return self._first.ask_now()

    async def ask(self, watch: Watch | None = None) -> None:
        """Wait for the answer of the first attempt, or of the second if that comes sooner.

        Args:
            watch: As in `Call.ask`.

        Raises:
            DspexError: What the first attempt raised, where none has an answer.
        """
        first = self._first
        after = self._hedges.after(first.ticket)
        if after is None or after >= self.timeout:
            await first.ask(watch)
            return
        begun = time.monotonic()
        tasks = {asyncio.create_task(first.ask()): first}
        try:
            await asyncio.wait(tasks, timeout=after)
            left = self.timeout - (time.monotonic() - begun)
            second = None
            if not any(task.done() for task in tasks):
                second = self._hedges.second(first, left, self._needs, self._unable)
            if second is not None:
                tasks[asyncio.create_task(second.ask())] = second
                self._late = time.monotonic() - begun
            error = await self._first_answer(tasks)
        except BaseException as raised:
            for task, call in tasks.items():
                self._hedges.let_go(call, task)
            if watch is not None and watch.ended_it() == "closed":
                raise runtime_closed() from without_frames(raised)
            raise
        try:
            if error is not None:
                raise error
        finally:
            del error, tasks  # the frames of the error are these

    async def _first_answer(self, tasks: dict[asyncio.Task[None], Call]) -> BaseException | None:
        """Wait for one that has an answer, and end the other; what the first raised if none has."""
        errors: dict[Call, BaseException] = {}
        running = set(tasks)
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: tasks[task] is not self._first):
                call = tasks[task]
                error = asyncio.CancelledError() if task.cancelled() else task.exception()
                if error is not None:
                    errors[call] = error
                    continue
                self._winner = call
                for other, losing in tasks.items():
                    if losing is not call and losing not in errors:
                        self._hedges.let_go(losing, other)
                return None
        return errors.get(self._first)

    def finish(self) -> Prediction:
        """The prediction of the attempt that has answered.

        Where there were two, its timings have the seconds after which the second began, under `hedge`.
        """
        prediction = self._winner.finish()
        if self._late is not None:
            prediction.timings["hedge"] = self._late
            if self._winner is not self._first:
                name = self._first.ticket.name
                prediction.route_reason = f"{name} had not answered after {self._late:.3g} s"
        return prediction

    def abandon(self) -> None:
        """Give the call up: its caller has gone."""
        self._first.abandon()
        self._winner.abandon()
