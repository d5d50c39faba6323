"""`Limiter`: calls of an LM wait here for their turn, as the core says whose it is.

::

    enter --> the core grants it --> Turn --> its block ends: the core hears what the call took
      |                               ^
      +--> waits, in the core's line -+       woken by a call that is done, or by the timer of the next one
             +--> its time is over, or its caller leaves: out of the line

The core (`rust/core/src/router/limiter.rs`) reckons and keeps the line; nothing here decides. Of the calls
that wait only the one whose turn is next has a timer, on its own event loop; whatever changes the line sets
it anew. A call that is granted in the moment in which its caller leaves gives the grant back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from contextvars import Context
from typing import Any, Self

from dspex._core import Limiter as _CoreLimiter
from dspex._waiting import waiting
from dspex.errors import LMError, LMRateLimitError
from dspex.lm._rate_limit import RateLimit

__all__ = ["Limiter", "Turn"]

_BITS = 0xFFFF_FFFF_FFFF_FFFF


class Turn:
    """Leave to make a call, which is given back when the block ends that makes it.

    Args:
        limiter: Whose; None where nothing is limited.
        call: The core's name of the call.
        generations: How many answers it asks for.
        waited: Seconds that the turn took to come.

    Attributes:
        usage: The tokens that the call took, as the server counted them; whoever makes the call sets it.
    """

    __slots__ = ("_call", "_generations", "_limiter", "usage", "waited")

    def __init__(
        self, limiter: Limiter | None = None, call: int = 0, generations: int = 1, waited: float = 0.0
    ) -> None:
        self._limiter = limiter
        self._call = call
        self._generations = generations
        self.waited = waited
        self.usage: Mapping[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._limiter is None:
            return
        prompt, answer = _count(self.usage, "prompt_tokens"), _count(self.usage, "completion_tokens")
        total = _count(self.usage, "total_tokens")
        if total is None and (prompt is not None or answer is not None):
            total = (prompt or 0.0) + (answer or 0.0)
        if total is None and isinstance(error, LMError) and error.status is not None:
            total = 0.0  # the server refused it; what any other has taken that broke off nobody knows
        self._limiter.done(self._call, total, None if answer is None else answer / self._generations)


class _Place:
    """A call that waits: True is its turn, False the end of its time."""

    __slots__ = ("caller", "loop", "turn")

    def __init__(self, caller: int, loop: asyncio.AbstractEventLoop) -> None:
        self.caller = caller
        self.loop = loop
        self.turn: asyncio.Future[bool] = loop.create_future()

    def tell(self, granted: bool) -> None:
        if not self.turn.done():
            self.turn.set_result(granted)


class Limiter:
    """The limits of one LM, and the calls that wait for their turn, of any thread and event loop.

    Args:
        limits: The limits.
        model: The model, for errors.
    """

    def __init__(self, limits: RateLimit, model: str) -> None:
        self._limits = limits
        self._model = model
        self._core = _CoreLimiter(
            limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency, limits.burst
        )
        self._lock = threading.RLock()  # a wake-up may grant a call whose loop is no more, and look again
        self._waiting: dict[int, _Place] = {}
        self._timer: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None

    def is_busy(self) -> bool:
        """Whether an ordinary call would have to wait."""
        return self._core.is_busy()

    async def enter(self, size: int, generations: int, settings: Mapping[str, Any], seconds: float) -> Turn:
        """Wait for the call's turn.

        Args:
            size: Bytes of its body.
            generations: How many answers it asks for.
            settings: Those of the request: `max_tokens` bounds what is expected, and calls of each `user` go
                in turn with those of the others.
            seconds: How long it may wait.

        Raises:
            LMRateLimitError: If its turn would come later, or did not come (`lm-limit`).
        """
        user = settings.get("user") or settings.get("safety_identifier")
        caller = hash(user) & _BITS if isinstance(user, str) else 0
        most = settings.get("max_completion_tokens") or settings.get("max_tokens")
        longest = most if type(most) is int and most > 0 else None
        place: _Place | None = None
        with self._lock:
            call, granted, least = self._core.ask(caller, size, generations, longest, seconds)
            if call is not None and not granted:
                place = self._waiting[call] = _Place(caller, asyncio.get_running_loop())
                self._look()
        if call is None:
            raise self._too_late(seconds, least)
        if place is None:
            return Turn(self, call, generations)
        wait = waiting.get()
        if wait is not asyncio.sleep:  # a test, which takes the waiting out
            await self._pass(caller, call, least)
            return Turn(self, call, generations)
        began = time.perf_counter()
        timer = place.loop.call_later(seconds, place.tell, False, context=Context())
        try:
            await place.turn
        except BaseException:
            self._leave(caller, call, made=False)
            raise
        finally:
            timer.cancel()
        left = self._leave(caller, call, made=True)
        if left is not None:
            raise self._too_late(seconds, left)
        return Turn(self, call, generations, time.perf_counter() - began)

    def done(self, call: int, tokens: float | None, answer: float | None) -> None:
        """A call is over, with the tokens that it took and those of one answer, where they are known."""
        self._core.done(call, tokens, answer)
        if self._waiting:
            with self._lock:
                self._look()

    # --- inner workings -------------------------------------------------------------------------------

    def _leave(self, caller: int, call: int, *, made: bool) -> float | None:
        """The call stops waiting; gives how long its turn would have taken, or None where it has come."""
        with self._lock:
            waits = self._waiting.pop(call, None) is not None
            left = self._core.withdraw(caller, call) if waits else None
            if not waits and not made:
                self._core.give_back(call)
            if waits or not made:
                self._look()
        return left

    async def _pass(self, caller: int, call: int, seconds: float) -> None:
        with self._lock:
            if self._waiting.pop(call, None) is not None:
                self._core.let_pass(caller, call)
        try:
            await waiting.get()(seconds)
        except BaseException:
            with self._lock:
                self._core.give_back(call)
                self._look()
            raise

    def _look(self) -> None:
        """Let those go whose turn it is, and set the timer of the next. To be called with the lock."""
        while True:
            granted, following = self._core.turns()
            lost = [call for call in granted if not self._tell(self._waiting.pop(call))]
            for call in lost:
                self._core.give_back(call)
            if not lost:
                break
        self._set_timer(following)

    def _tell(self, place: _Place) -> bool:
        """Tell a call that its turn has come; False if its event loop is no more."""
        try:
            if place.loop is asyncio._get_running_loop():
                place.tell(True)
            else:
                place.loop.call_soon_threadsafe(place.tell, True)
        except RuntimeError:
            return False
        return True

    def _set_timer(self, following: tuple[int, float] | None) -> None:
        here = asyncio._get_running_loop()
        self._disarm(here)
        if following is None:
            return
        call, seconds = following
        place = self._waiting[call]
        if place.loop is here:
            self._arm(place.loop, seconds)
            return
        try:
            place.loop.call_soon_threadsafe(self._arm, place.loop, seconds)
        except RuntimeError:  # its loop is no more, and so is the call
            del self._waiting[call]
            self._core.withdraw(place.caller, call)
            self._look()

    def _arm(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        with self._lock:
            self._disarm(loop)
            # In a context of its own: that of the call which happens to be here may hold anything.
            self._timer = loop, loop.call_later(seconds, self._due, context=Context())

    def _disarm(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if self._timer is not None and self._timer[0] is loop:
            self._timer[1].cancel()  # one of another loop is let run: all it does is to look once more
            self._timer = None

    def _due(self) -> None:
        with self._lock:
            self._look()

    def _too_late(self, seconds: float, after: float) -> LMRateLimitError:
        when = f"; its turn would come in {after:.1f} s" if after > 0 else ""
        return LMRateLimitError(
            f"the limits of {self._model} leave no turn within the {seconds:g} s that the call has{when}",
            code="lm-limit",
            hint="call again later, give the call more time, or look at limits= of the LM",
            model=self._model,
            retry_after=after if after > 0 else None,
        )


def _count(usage: Mapping[str, Any], name: str) -> float | None:
    value = usage.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
        return float(value)
    return None
