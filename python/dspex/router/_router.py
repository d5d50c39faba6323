"""`Router`: the Rust router with the targets it chooses between.

The core chooses (`rust/core/src/router`), counts, and keeps calls from a target whose breaker is open. What
an operation needs that a target lacks is a set of bits, made once for each adapter and each model, so that
the core knows who is able without a question to anybody. Targets come and go while calls are under way: a
decision for one that has just been removed is made again. The way of a call after the decision is `_call.py`;
what an error means for a target, and whether the call goes on, is one table: `_outcomes.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from dspex import _listeners
from dspex._breaker import Breaker, log_change
from dspex._core import Counters, StageTimes, Ticket, metrics_text
from dspex._core import Router as _CoreRouter
from dspex._needs import CODES, bits_of, codes_of
from dspex._timeouts import shown
from dspex.errors import ConfigError, DspexError, RouteError, TargetsUnavailable
from dspex.prediction import Prediction
from dspex.router._backstop import Backstop
from dspex.router._call import Call
from dspex.router._operation import AnyOperation
from dspex.router._outcomes import outcome_of
from dspex.router._strategy import BreakerState, Candidate, OrderOfTargets, Strategy
from dspex.router._target import SteppedTarget, Steps, Target, Whole

if TYPE_CHECKING:
    from dspex.router._failures import Failures
    from dspex.router._hedge import Hedge
    from dspex.router._hedged import Hedges
    from dspex.router._limits import GivenLimits, Limits
    from dspex.router._places import Places
    from dspex.router._retry import Retry

__all__ = ["Explanation", "Router", "Standing", "TargetCounts"]

_UNDECIDED: Final = frozenset({"unknown-route", "no-target", "targets-failing", "targets-full"})
"""Codes by which the core says that there is no target; for all others there was one that was unable."""

_told: ModuleType | None = None
"""What tells of calls, once somebody has listened."""


class TargetCounts(NamedTuple):
    """What one target has done since the router was made.

    Attributes:
        name: Its name.
        in_flight: Calls that are under way there.
        served: Calls that ended with an answer.
        failed: Calls that ended with an error, its own or somebody else's.
        cancelled: Calls whose caller went away.
        state: The state of its breaker; `closed` where it has none.
    """

    name: str
    in_flight: int
    served: int
    failed: int
    cancelled: int
    state: BreakerState


class Standing(NamedTuple):
    """What a call would find at one target.

    Attributes:
        target: Its name.
        standing: `"ready"`; or why it could not go there: `"elsewhere"` (the call asks for another),
            `"unable"`, `"breaker"` or `"full"`.
        code: Where it is unable, the code of the reason.
        reason: The reason in words.
    """

    target: str
    standing: str
    code: str = ""
    reason: str = ""


class Explanation(NamedTuple):
    """What would become of a call that is not made.

    Attributes:
        target: The target that it would go to; None where there is none.
        targets: All targets, in the order in which they would be considered, those last that could not serve
            it.
        error: What the call would raise where there is no target.
    """

    target: str | None
    targets: tuple[Standing, ...]
    error: DspexError | None = None


class Entry(NamedTuple):
    """A registered target, how its work begins, and what it says of operations."""

    slot: int
    target: Target
    side: str
    lacks: int
    begin: Callable[[AnyOperation, float], Steps]
    unable: Callable[[AnyOperation], DspexError | None] | None


class Router:
    """Sends each operation to one of the targets and keeps count.

    Args:
        targets: In order of preference among those of one side.
        strategy: In which order they are considered.
        breaker: Keeps calls from a python target that fails; None for none. What runs natively has none: it
            fails as its model does.
        retry: How often a call that failed is made again; None for never.
        limits: How many calls may be under way at targets, and how long others wait for a place.
        hedge: After which time a call is made a second time, beside the first; None for never.
        adapter_needs: What the adapter needs of a target where an operation brings none; see `dspex._needs`.
        model_needs: The same of the language model.
        clock: What gives the seconds by which breakers and budgets go, in the place of the monotonic clock.

    Attributes:
        core: Decides and counts.
        retry: As given.
        backstop: Ends calls that overstay their time.
        secrets: Gives the texts that no report of errors may show.
        places: Who waits for a place where targets have limits; None where none has.
        answered: Who hears of each answered call, before its caller does, and neither waits nor raises.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        strategy: Strategy | OrderOfTargets = "prefer-native",
        breaker: Breaker | None = None,
        retry: Retry | None = None,
        limits: GivenLimits = None,
        hedge: Hedge | None = None,
        adapter_needs: int = 0,
        model_needs: int = 0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        own = None if isinstance(strategy, str) else strategy
        self.core = _CoreRouter(strategy if isinstance(strategy, str) else "prefer-native", clock=clock)
        self.retry = retry
        self.backstop = Backstop()
        self._counters = Counters()
        self.secrets: Callable[[], Iterable[str]] = tuple
        self.answered: Callable[[AnyOperation, Prediction], None] | None = None
        self._order = own
        self._breaker = breaker
        self._adapter_needs = adapter_needs
        self._model_needs = model_needs
        self._entries: dict[int, Entry] = {}  # by the core's number for the target
        self._asks: tuple[Entry, ...] = ()  # those that are asked about each operation
        self._lock = threading.Lock()
        self._limit_of_each: Limits | None = None
        self._limits: dict[str, Limits] = {}
        self._hedges: Hedges | None = None
        self.places: Places | None = None
        # Most routers have neither limits nor hedges, and do without the code for them.
        if limits is not None:
            from dspex.router._limits import Limits, limits_by_target

            self._limits = limits_by_target(limits, [target.name for target in targets])
            self._limit_of_each = limits if isinstance(limits, Limits) else None
        if hedge is not None:
            from dspex.router._hedged import Hedges

            self._hedges = Hedges(self, hedge)
        for target in targets:
            self.add(target)
        if self._limits:
            from dspex.router._places import Places

            self.places = Places(self, self._limits)

    @cached_property
    def failures(self) -> Failures:
        """The errors of attempts, and of calls for which there was no target."""
        from dspex.router._failures import Failures

        return Failures(self._counters, lambda: self.secrets())

    # -- the registry -----------------------------------------------------------------------------

    def add(
        self,
        target: Target,
        *,
        weight: float = 1.0,
        in_flight: int | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """Register a target, last among those of its side; calls may go there from now on.

        Args:
            target: The target; see `Target` for what it may say of itself.
            weight: Its part of the calls where they are shared out by weight.
            in_flight: How many calls may be under way there; None for any number.
            breaker: Its breaker; by default the router's where it is of the python side.

        Raises:
            ConfigError: If it is no target, or a setting is none (`bad-routing`); if another has its name
                (`target-name`), or there are 64 (`too-many-targets`).
        """
        side, lacks = _checked(target, weight, in_flight)
        if self._limit_of_each is not None and in_flight is None:
            self._limits[target.name] = self._limit_of_each
        if in_flight is None and target.name in self._limits:
            in_flight = self._limits[target.name].in_flight
        if breaker is None and side == "python":
            breaker = self._breaker
        budget = None if self.retry is None else (self.retry.share, self.retry.per_second)
        begin: Callable[[AnyOperation, float], Steps] = (
            target.steps if isinstance(target, SteppedTarget) else partial(Whole, target)
        )
        with self._lock:
            slot = self.core.add(
                target.name,
                side,
                breaker=None if breaker is None else breaker.as_values(),
                budget=budget,
                limit=in_flight,
                weight=weight,
                lacks=lacks,
            )
            unable = getattr(target, "unable", None)
            entry = Entry(slot, target, side, lacks, begin, unable)
            self._entries = {**self._entries, self.core.number(slot): entry}
            self._look_who_asks()

    def remove(self, name: str) -> Target:
        """Take a target out; calls that are under way there go on.

        Raises:
            ConfigError: If there is none of that name (`target-name`).
        """
        with self._lock:
            for number, entry in self._entries.items():
                if entry.target.name == name:
                    self.core.remove(entry.slot)
                    self._entries = {key: each for key, each in self._entries.items() if key != number}
                    self._look_who_asks()
                    return entry.target
        raise self._no_target(name)

    def force_breaker(self, name: str, state: Literal["open", "closed", "auto"]) -> None:
        """Open or close the breaker of a target by hand, or let it decide again.

        Raises:
            ConfigError: If there is no such target (`target-name`), it has no breaker, or there is no such
                state (`bad-routing`).
        """
        if state not in ("open", "closed", "auto"):
            raise _bad(
                f'a breaker is forced "open" or "closed", or left to itself by "auto", not {shown(state)}'
            )
        for entry in self._entries.values():
            if entry.target.name == name:
                if not self.core.has_breaker(entry.slot):
                    raise _bad(f"{name} has no breaker")
                change = self.core.force(entry.slot, state)
                if change is not None:
                    log_change(*change)
                return
        raise self._no_target(name)

    def _no_target(self, name: str) -> ConfigError:
        return ConfigError(
            f"there is no target {shown(name)}",
            code="target-name",
            hint=f"there are {', '.join(entry.target.name for entry in self._entries.values())}",
        )

    def _look_who_asks(self) -> None:
        """The core knows what a target lacks; one that has `unable` alone is asked about each call."""
        entries = self._entries.values()
        self._asks = tuple(
            each for each in entries if each.unable is not None and not hasattr(each.target, "lacks")
        )
        if self.places is not None:
            self.places.freed()

    # -- calls ------------------------------------------------------------------------------------

    async def dispatch(self, operation: AnyOperation, timeout: float) -> Prediction:
        """Run the operation on the target that fits it, within `timeout` seconds.

        Raises:
            RouteError: If no target can serve the call as it was asked for; where the native side cannot, the
                error says why.
            TargetsUnavailable: If all that can are kept away by their breakers.
            DeadlineExceeded: If the time ran out.
            DspexError: Whatever the target raised. Where another had been tried before it, a note says what
                that one raised.
        """
        call = self.begin(operation, timeout)
        await call.ask()
        return call.finish()

    def begin(self, operation: AnyOperation, timeout: float) -> Call:
        """Choose the target of an operation and begin it there, without waiting for anything.

        Raises:
            RouteError: As `dispatch`.
            TargetsUnavailable: As `dispatch`.
            DspexError: What the target raised at once.
        """
        needs = operation.needs
        if operation.adapter is None:
            needs |= self._adapter_needs
        if operation.lm is None:
            needs |= self._model_needs
        unable = self._unable(operation) if self._asks else 0
        if self.places is not None:
            return self.places.begin(operation, timeout, needs, unable)
        try:
            ticket, entry = self.decide(operation, needs, unable)
        except DspexError as error:
            self.undecided(operation, error)
            raise
        if self._hedges is None and not _listeners.given:
            return Call(self, operation, timeout, ticket, entry, needs, unable)
        return self.hedged(self.call(operation, timeout, ticket, entry, needs, unable), needs, unable)

    def call(
        self,
        operation: AnyOperation,
        timeout: float,
        ticket: Ticket,
        entry: Entry,
        needs: int,
        unable: int,
    ) -> Call:
        """The call of a ticket; one that is told of where somebody listens."""
        made: type[Call] = _telling().ToldCall if _listeners.given else Call
        return made(self, operation, timeout, ticket, entry, needs, unable)

    def hedged(self, call: Call, needs: int, unable: int) -> Call:
        """The call, which is made a second time if it is late, where that may be."""
        return call if self._hedges is None else self._hedges.of(call, needs, unable)

    def undecided(self, operation: AnyOperation, error: DspexError) -> None:
        """There was no target for a call."""
        self.failures.add("", error)
        if error.code != "bad-routing":  # a mistake of the user's strategy
            self.core.count_undecided(error.code if error.code in _UNDECIDED else "native-unable")
        if _listeners.given:
            _telling().undecided(operation, error)

    def decide(
        self, operation: AnyOperation, needs: int, unable: int, *, again: bool = False
    ) -> tuple[Ticket, Entry]:
        """Leave to call the target that serves the operation; it counts as under way there until `record`.

        Args:
            operation: The operation.
            needs: What it needs of a target.
            unable: The slots of targets that have said that they cannot run it.
            again: Whether it is made again after it failed.

        Raises:
            RouteError: As `dispatch`.
            TargetsUnavailable: As `dispatch`.
        """
        while True:
            try:
                if self._order is None and operation.strategy is None and operation.prefers is None:
                    ticket = (
                        self.core.decide(operation.route, needs)
                        if not unable and not again
                        else self.core.decide(operation.route, needs, unable, again=again)
                    )
                else:
                    ticket = self._decide(operation, needs, unable, again=again)
            except RouteError as error:
                if error.code == "unknown-route":
                    raise
                # "It cannot" is not as good as why it cannot.
                why = self._why_unable(operation)
                if why is None:
                    raise
                try:
                    raise why from error
                finally:
                    del why  # or it would hold itself, by the frame in its traceback, and the operation
            if (entry := self._entry_of(ticket)) is not None:
                return ticket, entry

    def decide_among_the_rest(
        self, operation: AnyOperation, needs: int, unable: int, tried: int
    ) -> tuple[Ticket, Entry]:
        """The next target for a call without a route of its own that these slots have failed at.

        Raises:
            RouteError: If there is none.
            TargetsUnavailable: If all are kept away by their breakers, or full.
        """
        while True:
            ticket = self._decide(operation, needs, unable, tried=tried)
            if (entry := self._entry_of(ticket)) is not None:
                return ticket, entry

    def _unable(self, operation: AnyOperation) -> int:
        """The slots of those that say of this operation that they cannot run it."""
        slots = 0
        for entry in self._asks:
            if entry.unable is not None and entry.unable(operation) is not None:
                slots |= 1 << entry.slot
        return slots

    def _entry_of(self, ticket: Ticket) -> Entry | None:
        """The target of a ticket; None where it was removed in this moment, and another is to be found."""
        entry = self._entries.get(ticket.number)
        if entry is None:
            self.core.record(ticket, "cancelled")
        elif ticket.change is not None:
            log_change(*ticket.change)
        return entry

    def _decide(
        self, operation: AnyOperation, needs: int, unable: int, *, tried: int = 0, again: bool = False
    ) -> Ticket:
        """The decision for an operation with a preference or an order of its own, or by a user's strategy."""
        route, prefers = operation.route, operation.prefers
        preferred = next((each for each in self._entries.values() if each.target.name == prefers), None)
        if route is None and preferred is not None and not tried >> preferred.slot & 1:
            with suppress(TargetsUnavailable):
                return self.core.decide(prefers, needs, unable, again=again)
        own = operation.strategy or self._order
        if own is None or isinstance(own, str):
            return self.core.decide(route, needs, unable, tried, again, own)
        if route is not None:
            return self.core.decide(route, needs, unable, again=again)
        return self._in_order(own, operation, needs, unable, tried=tried, again=again)

    def _in_order(
        self,
        order: OrderOfTargets,
        operation: AnyOperation,
        needs: int,
        unable: int,
        *,
        tried: int,
        again: bool,
    ) -> Ticket:
        """The first target that has room, in the order that the user's strategy gives."""
        able = {name for name, standing, _ in self._standings(None, needs, unable) if standing != "unable"}
        over = {each.target.name for each in self._entries.values() if tried >> each.slot & 1}
        candidates = [each for each in self._candidates() if each.name in able - over]
        refused: TargetsUnavailable | None = None
        try:
            for name in order.order(operation, candidates) if candidates else ():
                if name in over:
                    continue
                if name not in able:
                    raise ConfigError(
                        f"a strategy gave {shown(name)}, which is none of the targets that it was given",
                        code="bad-routing",
                        hint="give names of candidates",
                    )
                try:
                    return self.core.decide(name, needs, unable, again=again)
                except TargetsUnavailable as error:
                    refused = refused or error
            if refused is not None:
                raise refused
            if candidates:
                raise RouteError(
                    "the strategy gave no target for this call",
                    code="no-target",
                    hint="give at least one name",
                )
        finally:
            del refused
        return self.core.decide(None, needs, unable, tried, again)

    def record(
        self, ticket: Ticket, outcome: str, retry_after: float | None, seconds: float | None = None
    ) -> None:
        """Say how the call of a ticket ended; what is said first counts."""
        if _listeners.given and outcome == "cancelled":
            _telling().cancelled(ticket)
        change = self.core.record(ticket, outcome, retry_after, seconds)
        if change is not None:
            log_change(*change)
        if self.places is not None:
            self.places.freed()

    def failed(self, ticket: Ticket, error: BaseException) -> None:
        """The call of a ticket ended with an error."""
        if ticket.recorded:
            return
        self.failures.add(ticket.name, error)
        if _listeners.given:
            _telling().failed(ticket, error)
        category, retry_after = getattr(error, "category", "internal"), getattr(error, "retry_after", None)
        change = self.core.record(ticket, outcome_of(error), retry_after, None, category)
        if change is not None:
            log_change(*change)
        if self.places is not None:
            self.places.freed()

    # -- what is said of it -----------------------------------------------------------------------

    def explain(self, operation: AnyOperation) -> Explanation:
        """What would become of the operation now, and why; nothing is done.

        Where the strategy leaves something to chance, another call may go elsewhere.
        """
        needs = operation.needs
        needs |= self._adapter_needs if operation.adapter is None else 0
        needs |= self._model_needs if operation.lm is None else 0
        unable = self._unable(operation)
        found = self._standings(operation, needs, unable)
        told = tuple(self._told(*each, operation) for each in found)
        target = next((each.target for each in told if each.standing == "ready"), None)
        if target is not None:
            return Explanation(target, told)
        try:
            ticket, _ = self.decide(operation, needs, unable)
        except DspexError as error:
            return Explanation(None, told, error.with_traceback(None))
        self.record(ticket, "cancelled", None)  # a place has become free since
        return Explanation(ticket.name, told)

    def _standings(
        self, operation: AnyOperation | None, needs: int, unable: int
    ) -> list[tuple[str, str, int]]:
        """Name, standing and what it lacks of each target, in the order in which they would be considered."""
        by_slot = {entry.slot: entry for entry in self._entries.values()}
        route = None if operation is None else operation.route
        own = None if operation is None else operation.strategy or self._order
        strategy = own if isinstance(own, str) else None
        rows = self.core.explain(route, needs, unable, strategy)
        found = [
            (by_slot[slot].target.name, standing, bits) for slot, standing, bits in rows if slot in by_slot
        ]
        if operation is None or route is not None:
            return found
        first: list[str] = []
        if own is not None and not isinstance(own, str):
            able = {name for name, standing, _ in found if standing not in ("unable", "elsewhere")}
            candidates = [each for each in self._candidates() if each.name in able]
            first = list(own.order(operation, candidates)) if candidates else []
        if operation.prefers is not None:
            first = [operation.prefers, *first]
        ranks = {name: rank for rank, name in reversed(list(enumerate(first)))}
        return sorted(found, key=lambda each: ranks.get(each[0], len(ranks)))

    def _told(self, name: str, standing: str, bits: int, operation: AnyOperation) -> Standing:
        if standing != "unable":
            return Standing(name, standing)
        why = self._refusal(name, operation)
        code = next(iter(codes_of(bits)), "" if why is None else why.code)
        return Standing(name, standing, code, "" if why is None else why.message)

    def why_not_first(self, ticket: Ticket, operation: AnyOperation, needs: int, unable: int) -> str:
        """Why a target that comes before the ticket's could not run the operation; empty where none does."""
        entry = self._entries.get(ticket.number)
        if ticket.reason != "unable" and (entry is None or entry.side != "python"):
            return ""
        for other in self._entries.values():
            if (other.lacks & needs or unable >> other.slot & 1) and other.side != (
                "" if entry is None else entry.side
            ):
                why = None if other.unable is None else other.unable(operation)
                return "" if why is None else why.message
        return ""

    def _why_unable(self, operation: AnyOperation) -> DspexError | None:
        """Why the first target that cannot run the operation cannot, as the error to raise.

        One that the call may go to comes first; where there is none, the others tell what is missing.
        """
        entries = self._entries.values()
        for entry in sorted(
            entries, key=lambda each: operation.route not in (None, each.side, each.target.name)
        ):
            why = None if entry.unable is None else entry.unable(operation)
            if why is not None:
                return why
        return None

    def _refusal(self, name: str, operation: AnyOperation) -> DspexError | None:
        for entry in self._entries.values():
            if entry.target.name == name and entry.unable is not None:
                return entry.unable(operation)
        return None

    def _candidates(self) -> list[Candidate]:
        medians = {}
        sides = {}
        for entry in self._entries.values():
            quantiles = self.core.quantiles(entry.slot, [0.5])
            medians[entry.target.name] = None if quantiles is None else quantiles[0]
            sides[entry.target.name] = entry.side
        return [
            Candidate(each.name, sides[each.name], each.in_flight, each.state, medians[each.name])
            for each in self.counts()
            if each.name in sides
        ]

    def metrics(
        self,
        stages: Sequence[tuple[str, StageTimes]],
        gauges: Sequence[tuple[str, Sequence[str], float]],
    ) -> str:
        """All that is counted, in Prometheus' text format.

        Args:
            stages: The times of each target's stages, by its name.
            gauges: Numbers that others know: the metric, the values of its labels, the number.
        """
        lacked = self.core.lacked()
        unable = [("dspex_unable", (code,), lacked[bit.bit_length() - 1]) for code, bit in CODES.items()]
        return metrics_text(self.core, stages, self._counters, [*gauges, *unable])

    def counts(self) -> list[TargetCounts]:
        """What each target has done, in order of registration."""
        return [
            TargetCounts(name, in_flight, served, failed + refused, cancelled, cast("BreakerState", state))
            for _, name, in_flight, served, failed, refused, cancelled, state in self.core.counts()
        ]


def _checked(target: Any, weight: Any, in_flight: Any) -> tuple[str, int]:
    """The side of a target and what it lacks.

    Raises:
        ConfigError: If it is no target, or a setting is none (`bad-routing`).
    """
    name, side = getattr(target, "name", None), getattr(target, "side", "python")
    if not (isinstance(name, str) and name and callable(getattr(target, "run", None))):
        raise _bad(f"a target has a name and a method `run`, and {shown(target)} has not")
    if side not in ("native", "python"):
        raise _bad(f'the side of a target is "native" or "python", not {shown(side)}')
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise _bad(f"weight must be a number from 0, not {shown(weight)}")
    if in_flight is not None and (type(in_flight) is not int or in_flight < 1):
        raise _bad(f"in_flight must be a count from 1, not {shown(in_flight)}")
    return side, bits_of(getattr(target, "lacks", ()))


def _bad(message: str) -> ConfigError:
    return ConfigError(message, code="bad-routing", hint="see dspex.router.Target")


def _telling() -> ModuleType:
    """What tells of calls: most processes have nobody who listens."""
    global _told
    if _told is None:
        from dspex.router import _told as found

        _told = found
    return _told
