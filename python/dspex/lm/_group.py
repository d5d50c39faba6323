"""`LMGroup`: several deployments of a model behind one name.

::

    complete, stream  -->  core Router: which deployment?  -->  its LM
                             ^                                   |
                             +---- how it went: counts, breaker, cool-down, latency

The choice is that of the core's router (`rust/core/src/router`), which chooses between the targets of a
runtime too: each deployment has its breaker, its limit and its counts there. What an error means for a
deployment is one table, `_deployment_errors.py`; the way of one call through them is `_group_call.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

from dspex._breaker import GROUP_BREAKER, Breaker
from dspex._callbacks import callbacks_of
from dspex._core import Router, Ticket
from dspex._timeouts import shown
from dspex.errors import ConfigError, RouteError, TargetsUnavailable
from dspex.lm._deployment import Deployment, DeploymentCounts, deployment_of, name_of
from dspex.lm._group_call import GroupCall
from dspex.lm._line import Line
from dspex.lm._protocol import LanguageModel, LMRequest, LMResponse

if TYPE_CHECKING:
    from dspex.events import LMDelta
    from dspex.lm._protocol import TextPiece

__all__ = ["GroupStrategy", "LMGroup", "Member"]

_log = logging.getLogger("dspex.lm")

GroupStrategy = Literal["weighted", "ordered", "fastest"]
"""Which deployment a call goes to; see `docs/deployments.md`."""

_STRATEGIES: Final[Mapping[str, str]] = {
    "weighted": "weighted",
    "ordered": "prefer-native",
    "fastest": "fastest",
}
"""The core's words for them. All deployments are of one side, so that the order of that side is all there
is."""


class Member:
    """A deployment as its group has it.

    Attributes:
        name: Its name.
        lm: Its language model.
        deployment: What it was made of.
        slot: Its slot in the core's router.
        calls: Calls under way there.
        said: What it said when it failed last; empty if it never did.
    """

    __slots__ = ("calls", "deployment", "lm", "name", "said", "slot")

    def __init__(self, name: str, lm: LanguageModel, deployment: Deployment, slot: int) -> None:
        self.name = name
        self.lm = lm
        self.deployment = deployment
        self.slot = slot
        self.calls = 0
        self.said = ""


class LMGroup:
    """Several deployments of a model, or several models, that are called as one; made by `dspex.LM.group`.

    It is a `LanguageModel` itself, for a runtime or a module. A call goes to one deployment and, where that
    fails in a way that says nothing about the call, on to the next, as long as the call's time lasts: a
    stream only before its first piece. A deployment that fails is left alone for a while and then tried
    again.

    It may be shared by threads and event loops. A copy is the same group; a pickle makes a new one of the
    same deployments.

    Args:
        deployments: Its deployments: names of models, `dspex.LM`s, other language models, or `Deployment`s.
        name: What errors and logs call it; by default the model of the first deployment.
        strategy: `"weighted"`: by chance, in proportion to the weights. `"ordered"`: the first that takes
            calls, so that the others are what it falls back to. `"fastest"`: of two by chance the one that is
            expected to answer sooner.
        breaker: When a deployment that fails is left alone; None for never, which leaves the waits that
            servers ask for unheeded too.
        wait: Whether a call waits, within its time, while no deployment takes calls, instead of failing at
            once.
        callbacks: Who hears of the calls that modules make of it natively, as for `dspex.LM`; those of the
            deployments' own are not told.
        clock: What gives the seconds by which breakers go, in the place of the monotonic clock.

    Raises:
        ConfigError: If a setting is wrong (`bad-group`).
        RouteError: If only DSPy speaks to a deployment's provider (`lm-needs-dspy`).
    """

    takes_json: Final = True
    """Whether it wants messages as JSON where it can have them so; deployments that do not get a list."""

    def __init__(
        self,
        deployments: Iterable[str | LanguageModel | Deployment],
        *,
        name: str | None = None,
        strategy: GroupStrategy = "weighted",
        breaker: Breaker | None = GROUP_BREAKER,
        wait: bool = False,
        callbacks: Sequence[Any] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if strategy not in _STRATEGIES:
            raise _bad(f"the strategy of a group is one of {', '.join(_STRATEGIES)}, not {shown(strategy)}")
        if isinstance(deployments, str | Deployment) or not isinstance(deployments, Iterable):
            raise _bad(f"a group is made of a list of deployments, not of {shown(deployments)}")
        if not (breaker is None or isinstance(breaker, Breaker)):
            raise _bad(f"the breaker of a group must be a Breaker, not {shown(breaker)}")
        self._name = name
        self._strategy = strategy
        self._breaker = breaker
        self._wait = bool(wait)
        self._callbacks = callbacks_of(callbacks)
        self._core = Router(_STRATEGIES[strategy], clock=clock)
        self._lock = threading.Lock()
        self._members: dict[int, Member] = {}
        self._removed: list[Member] = []
        self._settings: dict[str, Any] = {}
        self._limited: list[tuple[int, Callable[[], bool]]] = []
        self.line: Final = Line()
        for deployment in deployments:
            self.add(deployment)
        if not self._members:
            raise _bad("a group needs a deployment")

    # --- what a language model has --------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What errors and logs call it."""
        return self._name or self.model

    @property
    def model(self) -> str:
        """The model of its first deployment, which stands for all of them where one is wanted."""
        first = next(iter(self._members.values()), None)
        return str(getattr(first.lm, "model", first.name)) if first is not None else "an empty group"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in which all deployments agree; a copy."""
        return dict(self._settings)

    @property
    def callbacks(self) -> Sequence[Any]:
        """Who hears of its calls."""
        return self._callbacks

    @property
    def supports_function_calling(self) -> bool:
        """Whether every deployment takes native calls of tools."""
        return all(getattr(member.lm, "supports_function_calling", True) for member in self._all())

    @property
    def settings_for_worker(self) -> Callable[[], dict[str, Any]]:
        """Gives the settings of the `dspy.LM` in a worker: those of the first deployment that has any.

        A `dspy.LM` has one address. What runs in a worker asks that deployment alone: it neither goes on to
        another, nor counts here.

        Raises:
            AttributeError: If no deployment has any, as a language model of this process alone has none.
        """
        self._for_worker()
        return lambda: cast("dict[str, Any]", self._for_worker().settings_for_worker())

    @property
    def key_for_worker(self) -> Callable[[], Awaitable[str]] | None:
        """Asks for the key of that deployment, where a function gives it."""
        source: Callable[[], Awaitable[str]] | None = getattr(self._for_worker(), "key_for_worker", None)
        return source

    def _for_worker(self) -> Any:
        for member in self._all():
            if hasattr(member.lm, "settings_for_worker"):
                return member.lm
        raise AttributeError("no deployment of the group can be asked by a worker")

    def refusal(self) -> RouteError | None:
        """None: each deployment can be asked by this process, or it would not be one."""
        return None

    async def complete(self, request: LMRequest) -> LMResponse:
        """Ask a deployment and wait for the whole answer.

        Raises:
            LMError: What the last deployment raised, with a note for each before it.
            LMUnavailable: If no deployment takes calls; its `retry_after` says when the first is tried again.
            DeadlineExceeded: If `request.timeout` ran out.
            ConfigError: If a message or a setting is nothing JSON can carry.
        """
        call = GroupCall(self, request)
        while True:
            lm, asked = await call.enter()
            try:
                response = await lm.complete(asked)
            except BaseException as error:
                if not call.failed(error):
                    raise
            else:
                call.served()
                return replace(response, waited=response.waited + call.waited) if call.waited else response

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        """Ask a deployment and yield the answer as it comes.

        Raises:
            LMError: As `complete`, and between two pieces what the deployment raised.
            DeadlineExceeded: If `request.timeout` ran out.
        """
        from dspex.lm._pieces import deltas_of  # it needs the events, which many programs do not

        async with aclosing(deltas_of(self.stream_pieces(request))) as deltas:
            async for delta in deltas:
                yield delta

    async def stream_pieces(self, request: LMRequest) -> AsyncGenerator[list[LMDelta | TextPiece]]:
        """`stream` as it comes over the connection; see `LanguageModel`. Raises what `stream` raises."""
        from dspex.lm._pieces import pieces_of, put_wait  # as in `stream`

        call = GroupCall(self, request)
        while True:
            lm, asked = await call.enter()
            told = False
            try:
                async with aclosing(pieces_of(lm, asked)) as pieces:
                    async for piece in pieces:
                        if not told and call.waited:
                            put_wait(piece, call.waited)
                        told = True
                        yield piece
            except BaseException as error:
                if not call.failed(error, told=told):
                    raise
            else:
                call.served()
                return

    async def warmup(self) -> None:
        """Have a connection to the server of each deployment ready, where there is one to be had.

        Raises:
            LMError: If there is none to any of them.
        """
        warmups = [warmup() for member in self._all() if (warmup := getattr(member.lm, "warmup", None))]
        results = await asyncio.gather(*warmups, return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed and len(failed) == len(results):
            raise failed[0]

    def forget(self, request: LMRequest) -> None:
        """Let no deployment give an answer to this request again that it has kept; see `LM.forget`."""
        for member in self._all():
            forget = getattr(member.lm, "forget", None)
            if forget is not None:
                forget(request)

    async def aclose(self) -> None:
        """Close the connections of all deployments. The group stays usable: a later call opens new ones."""
        with self._lock:
            removed, self._removed = self._removed, []
        await _close([*self._all(), *removed])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # --- deployments ----------------------------------------------------------------------------------

    def counts(self) -> list[DeploymentCounts]:
        """What each deployment has done, in the order in which they were added."""
        rows: dict[int, Any] = {row[0]: row[1:] for row in self._core.counts()}
        return [DeploymentCounts(*rows[slot]) for slot in list(self._members) if slot in rows]

    def add(self, deployment: str | LanguageModel | Deployment) -> str:
        """Add a deployment, for the calls from now on.

        Returns:
            Its name.

        Raises:
            ConfigError: If it is none, its name is taken (`bad-group`), or there are 64 (`too-many-targets`).
            RouteError: If only DSPy speaks to its provider (`lm-needs-dspy`).
        """
        made, lm = deployment_of(deployment)
        if lm is self:
            raise _bad("a group cannot be a deployment of itself")
        breaker = None if self._breaker is None else self._breaker.as_values(at_once=True)
        with self._lock:
            name = name_of(made, lm, frozenset(member.name for member in self._members.values()))
            # The core keeps two names for its sides; all deployments are native.
            slot = self._core.add(
                name, "native", breaker=breaker, limit=made.concurrency, weight=float(made.weight)
            )
            self._have({**self._members, slot: Member(name, lm, made, slot)})
        self.line.wake()
        return name

    async def remove(self, name: str) -> None:
        """Take a deployment away: calls that are under way there go on, and no other goes there.

        Its connections are closed when its calls have ended: now, with the next `remove`, or with the group.

        Raises:
            ConfigError: If there is none of that name (`bad-group`).
        """
        with self._lock:
            member = next((member for member in self._members.values() if member.name == name), None)
            if member is None:
                known = ", ".join(member.name for member in self._members.values())
                raise _bad(f"there is no deployment {shown(name)}; there are: {known}")
            self._core.remove(member.slot)
            self._have({slot: other for slot, other in self._members.items() if other is not member})
            self._removed.append(member)
            used = {id(other.lm) for other in self._members.values()}  # one LM may be two deployments
            idle = [member for member in self._removed if not member.calls and id(member.lm) not in used]
            self._removed = [member for member in self._removed if member.calls]
        await _close(idle)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {
            "name": self._name,
            "strategy": self._strategy,
            "breaker": self._breaker,
            "wait": self._wait,
        }
        return _rebuild, ([member.deployment for member in self._all()], settings)

    def __repr__(self) -> str:
        names = ", ".join(repr(member.name) for member in self._all())
        return f"LMGroup({self.name!r}, strategy={self._strategy!r}, deployments=[{names}])"

    # --- what a call of the group needs ---------------------------------------------------------------

    @property
    def wait(self) -> bool:
        """Whether calls wait for a deployment."""
        return self._wait

    @property
    def has_breaker(self) -> bool:
        """Whether deployments are left alone."""
        return self._breaker is not None

    @property
    def has_line(self) -> bool:
        """Whether calls are waiting already, which come first."""
        return self._wait and len(self.line) > 0

    def decide(self, tried: int) -> tuple[Ticket, Member]:
        """The deployment for a call, which counts as under way there until `record`.

        Args:
            tried: The slots of those that have been asked.

        Raises:
            TargetsUnavailable: If all others are left alone or full.
            RouteError: If there are no others.
        """
        with self._lock:
            ticket = self._choose(tried)
            member = self._members[ticket.slot]
            member.calls += 1
        if ticket.change is not None:
            _log_change(*ticket.change, member.said)
        return ticket, member

    def record(self, member: Member, ticket: Ticket, outcome: str, cool: float | None) -> None:
        """How a call ended; with the seconds for which the deployment is to be left alone, if it is."""
        with self._lock:
            member.calls -= 1
        change = self._core.record(ticket, outcome, cool)
        if change is not None:
            _log_change(*change, member.said)
        if self._wait:
            self.line.wake()

    def said(self) -> Iterator[tuple[str, str]]:
        """What each deployment said when it failed last, with its name."""
        for member in self._all():
            yield member.name, member.said or "as many calls are under way as may be"

    def _choose(self, tried: int) -> Ticket:
        busy = 0
        for bit, is_busy in self._limited:
            if is_busy():
                busy |= bit
        if busy:  # their own rate limits would let the call wait; the others come first
            try:
                return self._core.decide(unable=busy, tried=tried)
            except (RouteError, TargetsUnavailable):
                pass
        return self._core.decide(tried=tried)

    def _have(self, members: dict[int, Member]) -> None:
        self._members = members
        self._settings = _shared_settings(members.values())
        self._limited = [
            (1 << slot, cast("Any", member.lm).is_busy)
            for slot, member in members.items()
            if getattr(member.lm, "limits", None) is not None
        ]

    def _all(self) -> list[Member]:
        return list(self._members.values())


def _shared_settings(members: Iterable[Member]) -> dict[str, Any]:
    first, *others = [getattr(member.lm, "settings", {}) for member in members] or [{}]
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }


async def _close(members: Iterable[Member]) -> None:
    results = await asyncio.gather(*(member.lm.aclose() for member in members), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _rebuild(deployments: list[Deployment], settings: dict[str, Any]) -> LMGroup:
    return LMGroup(deployments, **settings)


def _log_change(name: str, before: str, after: str, said: str) -> None:
    """Write down that a deployment's breaker has changed, with what the deployment said when it opened."""
    level, why = (
        logging.INFO if after == "closed" else logging.WARNING,
        f": {said}" if after == "open" else "",
    )
    _log.log(level, "the breaker of the deployment %s is %s; it was %s%s", name, after, before, why)


def _bad(message: str) -> ConfigError:
    return ConfigError(message, code="bad-group", hint="see dspex.LM.group")
