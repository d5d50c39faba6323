"""`ToldCall`: a call that is told of; see `dspex.telemetry`.

A call that begins while somebody listens is one of these; all others are a plain `Call`, and pay one check of
a flag for that. Everything is told when it has ended: the stages of an attempt, the attempt, the call::

    begin --> ask --> finish ----------------> stages, dspex.attempt.end, dspex.call.end
               |----> raised for good -------> stages, dspex.attempt.error, dspex.call.error
               |----> another attempt -------> stages, dspex.attempt.error (dspex.call.retry), and on
               +----> abandoned -------------> dspex.attempt.cancelled, dspex.call.cancelled

While a target is asked, the span of the attempt is the current trace, and goes with the request to a worker;
what the worker did is in its answer, and is told here as a part of the attempt. The router tells how attempts
fail, as it alone knows what an error means; it finds the call in the context.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final

from dspex.errors import DspexError
from dspex.router._call import Call
from dspex.router._operation import AnyOperation
from dspex.router._outcomes import outcome_of
from dspex.router._worker_operations import ModuleOperation, OptimizeOperation
from dspex.telemetry._handlers import wanted
from dspex.telemetry._spans import Span
from dspex.telemetry._trace import CURRENT

if TYPE_CHECKING:
    from types import TracebackType

    from dspex._core import Ticket
    from dspex.prediction import Prediction
    from dspex.router._backstop import Watch
    from dspex.router._router import Entry, Router

__all__ = ["ToldCall", "cancelled", "failed", "note_work", "retry", "undecided"]

Work = Sequence[Sequence[Any]]
"""Stages in a worker: for each its name, when it ended, its seconds, and how many of them it stands for."""

_STAGES: Final = ("render", "lm", "parse")
_TOKENS: Final = (
    ("input_tokens", ("prompt_tokens", "input_tokens")),
    ("output_tokens", ("completion_tokens", "output_tokens")),
)

_here: ContextVar[_Told | None] = ContextVar("dspex_told", default=None)
"""The call whose steps run here."""


class _Told:
    """A call's span, that of the attempt which is under way, and what its steps and its worker say they did.

    Each step of the call runs inside it: the router finds it there, and what a step raises is what the call
    has ended with.
    """

    __slots__ = ("_token", "about", "attempt", "attempts", "over", "span", "steps", "target", "work")

    def __init__(self, operation: AnyOperation) -> None:
        self.span = Span()
        self.about: dict[str, Any] = {
            "operation": _kind_of(operation),
            "streamed": operation.sink is not None,
        }
        self.attempts = 0
        self.target = ""
        self.over = False
        self.steps: object = None
        self.begin_attempt()

    def __enter__(self) -> None:
        self._token = _here.set(self)

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        _reset(_here, self._token)
        self.steps = None
        if error is not None:
            left = isinstance(error, asyncio.CancelledError | GeneratorExit)
            self.end(None if left else error)

    def begin_attempt(self) -> None:
        """A target begins."""
        self.attempt = Span(self.span)
        self.work: Work = ()

    def end_attempt(self, ticket: Ticket, error: BaseException | None) -> None:
        """The target has failed, or has been left."""
        self.attempts += 1
        self.target = ticket.name
        spent = getattr(self.steps, "spent", None)
        if self.work:
            _tell_work(self.attempt, self.work, ticket.name)
        elif spent is not None:
            _tell_stages(self.attempt, spent(), ticket.name)
        _end(self.attempt, "attempt", error, {"target": ticket.name, "reason": ticket.reason})

    def serve(self, ticket: Ticket, prediction: Prediction) -> None:
        """The call has its prediction."""
        name, timings = ticket.name, prediction.timings
        if self.work:
            _tell_work(self.attempt, self.work, name, timings.get("worker"))
        else:
            _tell_stages(self.attempt, timings, name)
        if wanted("dspex.attempt.end"):
            about: dict[str, Any] = {"target": name, "reason": ticket.reason, "outcome": "served"}
            self.attempt.end("dspex.attempt.end", about)
        if wanted("dspex.call.end"):
            self.span.end("dspex.call.end", {**self.about, **_about(prediction)})
        self.over = True

    def end(self, error: BaseException | None) -> None:
        """The call has failed, or has been left."""
        if not self.over:
            self.over = True
            about = {**self.about, "target": self.target, "attempts": self.attempts}
            _end(self.span, "call", error, about)


class ToldCall(Call):
    """A call that is told of."""

    __slots__ = ("_told",)

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
        self._told = told = _Told(operation)
        with told:
            super().__init__(router, operation, timeout, ticket, entry, needs, unable)

    def ask_now(self) -> bool:
        """See `Call.ask_now`."""
        with self._told:
            self._told.steps = self._steps
            return super().ask_now()

    async def ask(self, watch: Watch | None = None) -> None:
        """See `Call.ask`."""
        token = CURRENT.set(self._told.attempt.trace())
        try:
            with self._told:
                self._told.steps = self._steps
                await super().ask(watch)
        finally:
            _reset(CURRENT, token)

    async def _attempt(self, timeout: float) -> None:
        # The first attempt is a part of `ask`; this is another one.
        self._told.begin_attempt()
        self._told.steps = self._steps
        CURRENT.set(self._told.attempt.trace())  # `ask` takes it back
        await super()._attempt(timeout)

    def finish(self) -> Prediction:
        """See `Call.finish`."""
        with self._told:
            self._told.steps = self._steps
            prediction = super().finish()
        self._told.serve(self._ticket, prediction)
        return prediction

    def abandon(self) -> None:
        """See `Call.abandon`."""
        with self._told:
            super().abandon()
        self._told.end(None)


def _reset(variable: ContextVar[Any], token: Token[Any]) -> None:
    # A coroutine that nobody finishes is closed by whoever collects it, in a context where it was never set.
    with suppress(ValueError):
        variable.reset(token)


def failed(ticket: Ticket, error: BaseException) -> None:
    """The attempt of a ticket has failed, which has not been said before."""
    if (told := _here.get()) is not None:  # none for a call that began before anybody listened
        told.end_attempt(ticket, error)


def cancelled(ticket: Ticket) -> None:
    """The attempt of a ticket is given up, if it has not ended before."""
    if (told := _here.get()) is not None and not ticket.recorded:
        told.end_attempt(ticket, None)


def undecided(operation: AnyOperation, error: BaseException) -> None:
    """There was no target for a call."""
    _Told(operation).end(error)


def note_work(stages: Work) -> None:
    """What the worker of the attempt that runs here says that it did."""
    if (told := _here.get()) is not None:
        told.work = stages


def retry(target: str, wait: float, attempts: int) -> None:
    """A call waits before it is made again."""
    told = _here.get()
    if told is not None and wanted("dspex.call.retry"):
        told.span.tell_part("dspex.call.retry", time.time(), wait, {"target": target, "attempts": attempts})


def _about(prediction: Prediction) -> dict[str, Any]:
    usage: Mapping[str, Any] = prediction.usage
    found = {"outcome": "served", "target": prediction.route, "attempts": len(prediction.attempts)}
    for name, keys in _TOKENS:
        for key in keys:
            count = usage.get(key)
            if isinstance(count, int):
                found[name] = count
                break
    if prediction.repairs:
        found["repairs"] = len(prediction.repairs)
    return found


def _end(span: Span, what: str, error: BaseException | None, about: dict[str, Any]) -> None:
    """Tell of the end of what has not served anybody; None where it was left."""
    if error is None:
        span.end(f"dspex.{what}.cancelled", {**about, "outcome": "cancelled"})
        return
    code = error.code if isinstance(error, DspexError) else "unexpected"
    category = error.category if isinstance(error, DspexError) else "internal"
    told = {"error": type(error).__name__, "code": code, "category": category}
    span.end(f"dspex.{what}.error", {**about, "outcome": outcome_of(error), **told})


def _tell_stages(span: Span, timings: Mapping[str, float], target: str) -> None:
    """The stages of an attempt in this process, the last of which ends now."""
    found = [(stage, timings[stage]) for stage in _STAGES if stage in timings]
    ended = time.time() - sum(seconds for _, seconds in found)
    for stage, seconds in found:
        ended += seconds
        span.tell_part(f"dspex.stage.{stage}", ended, seconds, {"target": target})


def _tell_work(span: Span, stages: Work, target: str, seconds: float | None = None) -> None:
    """What a worker did. Its clock is its own: when it began is not known here, only that it is over."""
    now = time.time()
    whole = max(row[1] for row in stages) if seconds is None else seconds
    worker = span.tell_part("dspex.stage.worker", now, whole, {"target": target})
    for name, ended, took, count in stages:
        about: dict[str, Any] = {"target": target}
        if count > 1:
            about["count"] = count
        span.tell_part(f"dspex.stage.{name}", now - whole + ended, took, about, worker)


def _kind_of(operation: AnyOperation) -> str:
    if isinstance(operation, ModuleOperation):
        return "module"
    return "optimize" if isinstance(operation, OptimizeOperation) else "predict"
