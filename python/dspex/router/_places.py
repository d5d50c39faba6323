"""`Places`: calls that wait until a target has room for them, first come first served.

::

    begin --> decide --> a place: an ordinary `Call`
                |
              full --> WaitingCall --ask--> queue of its kind --> a call ended somewhere: decide for the first
                                              |  |
                                              |  +--> its wait is over: `targets-full`
                                              +-----> its caller left: its place in the queue is free

The core counts the calls that are under way and refuses one too many. Here is who waits for it to change its
mind: whenever a call ends, or a target comes or goes, the first of each queue is decided anew. Calls that
differ in where they may go wait in queues of their own, so that one which waits for a slow target holds up
nobody who does not; among the first of all queues, who came first is asked first. A new call does not
overtake those that wait for the same.

Calls end on any thread; those that wait do so on event loops. One thread at a time hands places out, without
a lock while it decides; whoever comes meanwhile lets it look once more.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspex._timeouts import without_frames
from dspex.errors import ConfigError, DspexError, TargetsUnavailable
from dspex.router._call import BACKSTOP_SECONDS, Call, runtime_closed

if TYPE_CHECKING:
    from dspex._core import Ticket
    from dspex.prediction import Prediction
    from dspex.router._backstop import Watch
    from dspex.router._limits import Limits
    from dspex.router._operation import AnyOperation
    from dspex.router._router import Entry, Router

__all__ = ["Places", "WaitingCall"]

_FULL = "targets-full"

_Found = tuple["Ticket", "Entry"]
"""Leave to call a target, and that target."""

_Kind = tuple[Any, ...]
"""What decides where a call may go."""


class _Waiter:
    """One call that waits; its future gets leave to call a target, or the error that it is refused with."""

    __slots__ = ("future", "needs", "number", "operation", "unable")

    def __init__(self, number: int, operation: AnyOperation, needs: int, unable: int) -> None:
        self.number = number
        self.operation = operation
        self.needs = needs
        self.unable = unable
        self.future: asyncio.Future[_Found] = asyncio.get_running_loop().create_future()


class Places:
    """The queues of one router.

    Args:
        router: It decides.
        limits: Those of each target that has some.
    """

    def __init__(self, router: Router, limits: Mapping[str, Limits]) -> None:
        self._router = router
        self._limits = limits
        self._most = max(each.queue for each in limits.values())
        self._queues: dict[_Kind, deque[_Waiter]] = {}
        self._waiting = 0
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._handing_out = self._once_more = False

    def begin(self, operation: AnyOperation, timeout: float, needs: int, unable: int) -> Call:
        """Begin an operation where there is room, or have it wait for some.

        Raises:
            DspexError: As `Router.begin`.
        """
        router = self._router
        wait = min(self._wait(operation), timeout)
        if wait and _kind(operation, needs, unable) in self._queues:
            return WaitingCall(self, operation, timeout, needs, unable, wait)
        try:
            ticket, entry = router.decide(operation, needs, unable)
        except DspexError as error:
            if error.code == _FULL and wait:
                return WaitingCall(self, operation, timeout, needs, unable, wait)
            router.undecided(operation, error)
            raise
        call = router.call(operation, timeout, ticket, entry, needs, unable)
        return router.hedged(call, needs, unable)

    @property
    def router(self) -> Router:
        """The router that decides."""
        return self._router

    async def place(
        self, operation: AnyOperation, needs: int, unable: int, wait: float, watch: Watch | None = None
    ) -> _Found:
        """Wait for a place.

        Args:
            operation: The operation.
            needs: What it needs of a target.
            unable: The slots of targets that cannot run it.
            wait: Seconds that it may wait.
            watch: A watch of the running task, if it has one.

        Raises:
            TargetsUnavailable: If there was none in time, or too many wait (`targets-full`), or all that
                could serve the call are left alone by now.
            DspexError: Whatever else the decision comes to.
        """
        waiter, kind = (
            _Waiter(next(self._numbers), operation, needs, unable),
            _kind(operation, needs, unable),
        )
        with self._lock:
            if self._waiting >= self._most:
                raise _no_place(f"{self._waiting:,} calls wait for a place already")
            self._queues.setdefault(kind, deque()).append(waiter)
            self._waiting += 1
        found: _Found | None = None
        own = watch is None
        if watch is None:
            watch = self._router.backstop.begin(wait + BACKSTOP_SECONDS)
        try:
            self.freed()  # one may have become free since the decision
            async with asyncio.timeout(wait):
                found = await waiter.future
            return found
        except TimeoutError as error:
            raise _no_place(f"no place became free within {wait:g} s") from without_frames(error)
        except asyncio.CancelledError as error:
            if watch.ended_it() == "closed":
                raise runtime_closed() from without_frames(error)
            raise
        finally:
            if own:
                watch.end()
            self._leave(kind, waiter)
            future = waiter.future
            if found is None and future.done() and not future.cancelled() and future.exception() is None:
                # It came in the moment in which the caller left.
                self._router.record(future.result()[0], "cancelled", None)
            del waiter, watch, future

    def freed(self) -> None:
        """A call has ended somewhere, or a target has come or gone: those that wait may go."""
        if not self._queues:
            return
        with self._lock:
            if self._handing_out:
                self._once_more = True
                return
            self._handing_out = True
        more = True
        while more:
            try:
                self._hand_out()
            except BaseException:  # a signal's: somebody else goes on, at the next call that ends
                self._handing_out = self._once_more = False
                raise
            with self._lock:
                more, self._once_more = self._once_more, False
                self._handing_out = more

    def _hand_out(self) -> None:
        """Give places to those that wait, in the order in which they came, as many as there are."""
        full: set[_Kind] = set()
        while True:
            with self._lock:
                first = [(queue[0].number, kind) for kind, queue in self._queues.items() if kind not in full]
                kind = min(first, key=lambda each: each[0])[1] if first else None
                waiter = None if kind is None else self._queues[kind][0]
            if kind is None or waiter is None:
                return
            try:
                found = self._router.decide(waiter.operation, waiter.needs, waiter.unable)
            except Exception as error:  # noqa: BLE001 - a strategy of the user's may raise anything
                if getattr(error, "code", "") == _FULL:
                    full.add(kind)
                    continue
                self._leave(kind, waiter)
                self._tell(waiter, None, error)
            else:
                self._leave(kind, waiter)
                self._tell(waiter, found, None)

    def _tell(self, waiter: _Waiter, found: _Found | None, error: Exception | None) -> None:
        loop = waiter.future.get_loop()
        try:
            if asyncio._get_running_loop() is loop:
                self._settle(waiter, found, error)
            else:
                loop.call_soon_threadsafe(self._settle, waiter, found, error)
        except RuntimeError:  # the loop has closed
            if found is not None:
                self._router.record(found[0], "cancelled", None)

    def _settle(self, waiter: _Waiter, found: _Found | None, error: Exception | None) -> None:
        if waiter.future.done():  # its caller has left
            if found is not None:
                self._router.record(found[0], "cancelled", None)
        elif found is not None:
            waiter.future.set_result(found)
        elif error is not None:
            waiter.future.set_exception(error)

    def _leave(self, kind: _Kind, waiter: _Waiter) -> None:
        with self._lock:
            queue = self._queues.get(kind)
            if queue is None:
                return
            try:
                queue.remove(waiter)
            except ValueError:
                return
            self._waiting -= 1
            if not queue:
                del self._queues[kind]

    def _wait(self, operation: AnyOperation) -> float:
        """How long a call may wait for the targets that it may go to."""
        own = self._limits.get(operation.route or "")
        if own is not None:
            return own.wait
        return max(each.wait for each in self._limits.values())


class WaitingCall(Call):
    """A call that waits for a place before it is begun.

    Args:
        places: The queues.
        operation: The operation.
        timeout: Seconds that it may take, the wait included.
        needs: What it needs of a target.
        unable: The slots of targets that cannot run it.
        wait: Seconds that it may wait.
    """

    __slots__ = ("_call", "_longest", "_places", "_waited")

    def __init__(
        self, places: Places, operation: AnyOperation, timeout: float, needs: int, unable: int, wait: float
    ) -> None:
        self._places = places
        self._router = places.router
        self.operation = operation
        self.timeout = timeout
        self._needs = needs
        self._unable = unable
        self._longest = wait
        self._waited = 0.0
        self._call: Call | None = None

    @property
    def ticket(self) -> Ticket:
        """The target that has been chosen, once there is a place."""
        if self._call is None:
            raise _not_asked()
        return self._call.ticket

    def ask_now(self) -> bool:
        """False: it waits."""
        return False

    async def ask(self, watch: Watch | None = None) -> None:
        """Wait for a place and then for the answer; see `Call.ask`.

        Raises:
            TargetsUnavailable: As `Places.place`.
            DspexError: As `Call.ask`.
        """
        begun = time.monotonic()
        needs, unable = self._needs, self._unable
        try:
            ticket, entry = await self._places.place(self.operation, needs, unable, self._longest, watch)
        except DspexError as error:
            self._router.undecided(self.operation, error)
            raise
        self._waited = time.monotonic() - begun
        left = max(0.0, self.timeout - self._waited)
        call = self._router.call(self.operation, left, ticket, entry, needs, unable)
        self._call = self._router.hedged(call, needs, unable)
        await self._call.ask(watch)

    def finish(self) -> Prediction:
        """The prediction; its timings have what the wait took, under `place`."""
        if self._call is None:
            raise _not_asked()
        prediction = self._call.finish()
        prediction.timings["place"] = self._waited
        return prediction

    def abandon(self) -> None:
        """Give the call up: its caller has gone."""
        if self._call is not None:
            self._call.abandon()


def _kind(operation: AnyOperation, needs: int, unable: int) -> _Kind:
    return (operation.route, needs, unable, operation.strategy, operation.prefers)


def _not_asked() -> ConfigError:
    return ConfigError("the call has not been asked", code="bad-call")


def _no_place(what: str) -> TargetsUnavailable:
    return TargetsUnavailable(
        f"all targets that could serve the call are full, and {what}",
        code="targets-full",
        hint="call again in a moment, or allow more with dspex.router.Limits",
    )
