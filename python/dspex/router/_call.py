"""`Call`: one operation on its way through a router.

::

    Router.begin    a target is chosen, and has begun: nothing has been waited for
         |
       ask  <------------------------+    waits; alone of the three it needs an event loop
         | error: does it go on? ----+    to another target, or the same one again (`_outcomes.py`)
         v
      finish                              the prediction

Whoever has a call asks and finishes it, or gives it up by `abandon`: until then it counts as under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dspex import _listeners
from dspex._breaker import log_change
from dspex._timeouts import without_frames
from dspex._waiting import waiting
from dspex.errors import ConfigError, DeadlineExceeded, DspexError, RouteError, TargetsUnavailable
from dspex.prediction import Attempt, Prediction, seconds_of
from dspex.router._outcomes import may_be_made_again, may_go_elsewhere

if TYPE_CHECKING:
    from dspex._core import Ticket
    from dspex.router._backstop import Watch
    from dspex.router._operation import AnyOperation
    from dspex.router._router import Entry, Router

__all__ = ["BACKSTOP_SECONDS", "Call", "runtime_closed"]

BACKSTOP_SECONDS: Final = 0.5
"""How much longer than its own limit a target may take before the router ends it. A target's error says
where the time went, so it gets the chance to fire first."""


class Call:
    """One operation on its way; made by `Router.begin`.

    Args:
        router: The router.
        operation: The operation.
        timeout: Seconds that it may take.
        ticket: Leave to call the target that has been chosen.
        entry: That target.
        needs: What the operation needs of a target.
        unable: The slots of targets that cannot run it.

    Raises:
        DspexError: What the target raised at once.
    """

    __slots__ = (
        "_answer",
        "_failed",
        "_needs",
        "_open",
        "_router",
        "_seconds",
        "_steps",
        "_ticket",
        "_unable",
        "operation",
        "timeout",
    )

    def __init__(
        self,
        router: Router,
        operation: AnyOperation,
        timeout: float,
        ticket: Ticket,
        entry: Entry,
        needs: int,
        unable: int,
    ) -> None:
        self._router = router
        self.operation = operation
        self.timeout = timeout
        self._ticket = ticket
        self._needs = needs
        self._unable = unable
        self._failed: list[Attempt] | None = None
        self._open: DspexError | None = None
        self._answer: Any = None
        try:
            self._steps = entry.begin(operation, timeout)
        except BaseException as error:
            router.failed(ticket, error)
            raise

    @property
    def ticket(self) -> Ticket:
        """The target that has been chosen last."""
        return self._ticket

    def watched(self, earlier: Watch | None = None) -> Watch:
        """A watch for the running task, which looks after this call from now on; for `ask`.

        Whoever has it ends it.

        Args:
            earlier: That of the task's call before, which is the one where it has not ended that call.
        """
        backstop = self._router.backstop
        if earlier is not None:
            if earlier.fired is None:
                earlier.prolong(self.timeout + BACKSTOP_SECONDS)
                return earlier
            earlier.end()
        return backstop.begin(self.timeout + BACKSTOP_SECONDS)

    def ask_now(self) -> bool:
        """Do without waiting what `ask` does; False where that cannot be: it is then to be asked by `ask`.

        Raises:
            DspexError: As `ask`.
        """
        error: BaseException | None = None
        try:
            begun = time.perf_counter()
            self._answer = self._steps.ask_now()
            self._seconds = time.perf_counter() - begun
        except BaseException as raised:
            error = self._steps.error(raised) if isinstance(raised, DspexError) else raised
            self._router.failed(self._ticket, error)
            if isinstance(error, DspexError) and self._goes_on(error):
                self._open = error
                return False
            if error is raised:
                raise
            raise error from raised
        finally:
            del error  # it holds this frame
        return self._answer is not None

    async def ask(self, watch: Watch | None = None) -> None:
        """Wait for the answer, if need be of another target or another time.

        Args:
            watch: A watch of the running task that `watched` has given to an earlier call of it; a task that
                makes one call after the other needs no new one for each.

        Raises:
            DeadlineExceeded: If the time ran out.
            ConfigError: If the router's calls were ended meanwhile (`runtime-closed`).
            DspexError: Whatever the target raised; where there were attempts before it, with a note for each,
                and they are its `earlier`.
        """
        if self._open is not None:  # by `ask_now`
            await self._recover()
            return
        backstop = self._router.backstop
        own = watch is None
        if watch is None:
            watch = backstop.begin(self.timeout + BACKSTOP_SECONDS)
        error: BaseException | None = None
        try:
            begun = time.perf_counter()
            self._answer = await self._steps.ask()
            self._seconds = time.perf_counter() - begun
        except BaseException as raised:
            error = self._ended(raised, watch, self.timeout)
            if not (isinstance(error, DspexError) and self._goes_on(error)):
                if error is raised:
                    raise
                raise error from raised
            self._open = error
        finally:
            if own:
                watch.end()
            else:
                watch.rest()
            # It holds the task, which holds its exception, which holds this frame and the operation: a
            # circle that keeps the inputs until somebody collects it.
            del watch, error
        if self._open is not None:
            await self._recover()

    def finish(self) -> Prediction:
        """The prediction of a call that has been asked.

        Raises:
            DspexError: If the answer cannot be used.
        """
        ticket, router = self._ticket, self._router
        try:
            prediction = self._steps.finish(self._answer, self._seconds)
        except BaseException as error:
            router.failed(ticket, error)
            if self._failed is not None and isinstance(error, DspexError):
                _tell_of(self._failed, error)
            raise
        # What its steps took: between them it may have waited for others of its batch, or for a thread.
        seconds = seconds_of(prediction)
        change = router.core.record(ticket, "served", None, seconds, None, prediction.usage)
        if change is not None:
            log_change(*change)
        if router.places is not None:
            router.places.freed()
        prediction.route = ticket.name
        if ticket.lacking or self._unable or self._failed is not None:
            self._explain(prediction)
        if router.answered is not None:
            router.answered(self.operation, prediction)
        return prediction

    def abandon(self) -> None:
        """Give the call up: its caller has gone."""
        self._router.record(self._ticket, "cancelled", None)

    # -- inside -----------------------------------------------------------------------------------

    async def _attempt(self, timeout: float) -> None:
        """Wait for the answer of the target that has been chosen, and no longer than may be."""
        backstop = self._router.backstop
        watch = backstop.begin(timeout + BACKSTOP_SECONDS)
        error: BaseException | None = None
        try:
            begun = time.perf_counter()
            self._answer = await self._steps.ask()
            self._seconds = time.perf_counter() - begun
        except BaseException as raised:
            error = self._ended(raised, watch, timeout)
            if error is raised:
                raise
            raise error from raised
        finally:
            watch.end()
            del watch, error  # as in `ask`

    def _ended(self, raised: BaseException, watch: Watch, timeout: float) -> BaseException:
        """What an attempt has ended with: what was raised, or what it stands for."""
        router, ticket, why = self._router, self._ticket, watch.ended_it()
        if isinstance(raised, GeneratorExit):  # nobody goes on with the coroutine
            router.record(ticket, "cancelled", None)
            return raised
        if not isinstance(raised, asyncio.CancelledError):
            error = self._steps.error(raised) if isinstance(raised, DspexError) else raised
            router.failed(ticket, error)
            return error
        if why is None:
            router.record(ticket, "cancelled", None)
            return raised
        without_frames(raised)
        if why == "closed":
            router.record(ticket, "cancelled", None)
            return runtime_closed()
        late = DeadlineExceeded(
            f"{ticket.name} gave no answer within {timeout:g} s and did not end by itself",
            hint="allow more time with `timeout=`, or look at what the target is doing",
            retryable=self.operation.idempotent,
            timeout=timeout,
            stage=ticket.name,
        )
        router.failed(ticket, late)
        return late

    def _goes_on(self, error: DspexError) -> bool:
        operation = self.operation
        return may_go_elsewhere(error, operation) or (
            self._router.retry is not None and may_be_made_again(error, operation)
        )

    async def _recover(self) -> None:
        """Let another target try, or this one another time, until one answers.

        Raises:
            DspexError: What the last attempt raised, with a note for each before it.
        """
        error, self._open = self._open, None
        assert error is not None  # noqa: S101 - there is nothing to recover from otherwise
        # The first attempt has had no clock of its own; the core's has run since the decision.
        begun = time.monotonic()
        first = self._ticket.seconds()
        ends = begun + self.timeout - first
        failed = [Attempt(self._ticket.name, first, error)]
        tried, rounds = 1 << self._ticket.slot, 1
        try:
            while True:
                found = self._elsewhere(error, tried)
                if found is None:
                    wait = self._wait(error, rounds, ends)
                    if wait is None:
                        raise error
                    if _listeners.given:
                        from dspex.router._told import retry  # as in `Router.begin`

                        retry(self._ticket.name, wait, rounds)
                    await waiting.get()(wait)
                    try:
                        found = self._router.decide(self.operation, self._needs, self._unable, again=True)
                        tried = 0
                    except TargetsUnavailable:  # all are left alone by now; what the last one said says more
                        raise error from None
                    rounds += 1
                ticket, entry = found
                self._ticket = ticket
                tried |= 1 << ticket.slot
                left = max(0.0, ends - time.monotonic())
                try:
                    self._steps = entry.begin(self.operation, left)
                    await self._attempt(left)
                except BaseException as another:
                    self._router.failed(ticket, another)  # nothing where the attempt has said so
                    if not isinstance(another, DspexError):
                        raise
                    _tell_of(failed, another)
                    failed.append(Attempt(ticket.name, ticket.seconds(), another))
                    error = another
                    continue
                _without_frames(failed)
                self._failed = failed
                return
        finally:
            del error, failed  # each holds its frames, and one of these is this

    def _elsewhere(self, error: DspexError, tried: int) -> tuple[Ticket, Entry] | None:
        if not may_go_elsewhere(error, self.operation):
            return None
        try:
            return self._router.decide_among_the_rest(self.operation, self._needs, self._unable, tried)
        except (RouteError, TargetsUnavailable):
            return None

    def _wait(self, error: DspexError, rounds: int, ends: float) -> float | None:
        """Seconds until the call is made again; None where it is not."""
        retry = self._router.retry
        if retry is None or rounds >= retry.attempts or not may_be_made_again(error, self.operation):
            return None
        import random  # few calls come here

        wait = retry.wait(rounds, getattr(error, "retry_after", None), random.random())  # noqa: S311
        if time.monotonic() + wait >= ends or not self._router.core.take_retry(self._ticket):
            return None
        return wait

    def _explain(self, prediction: Prediction) -> None:
        """Say why it is this target, and which there were before."""
        name, failed = self._ticket.name, self._failed
        if failed is not None:
            last = prediction.attempts
            if len(last) == 1:  # else it has been given to several workers, which the pool has timed
                last = [Attempt(name, self._ticket.seconds(), None)]
            prediction.attempts = [*failed, *last]
        if self.operation.route is None:
            why = self._router.why_not_first(self._ticket, self.operation, self._needs, self._unable)
            prediction.route_reason = why or _reason(name, failed or ())


def _tell_of(failed: Sequence[Attempt], error: DspexError) -> None:
    """Let the error of an attempt tell of those before it."""
    for attempt in failed:
        assert attempt.error is not None  # noqa: S101 - they have failed
        error.add_note(f"before that, {attempt.target}: {_shown(attempt.error)}")
    _without_frames(failed)
    error.earlier = tuple(failed)


def _without_frames(failed: Sequence[Attempt]) -> None:
    for attempt in failed:
        if attempt.error is not None:
            without_frames(attempt.error)


def _shown(error: DspexError) -> str:
    return f"{type(error).__name__}: {error.message}"


def _reason(name: str, failed: Sequence[Attempt]) -> str:
    """Why a call went to this target: what others before it had raised."""
    others = [each for each in failed if each.target != name and each.error is not None]
    return "; ".join(f"{each.target}: {each.error.message}" for each in others if each.error is not None)


def runtime_closed() -> ConfigError:
    """The error of a call whose runtime has closed."""
    return ConfigError(
        "this runtime is not open", code="runtime-closed", hint="use it inside `with` or `async with`"
    )
