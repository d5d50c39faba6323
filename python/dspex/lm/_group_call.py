"""`GroupCall`: one call's way through the deployments of a group.

::

    enter --> ask --> answered: served
      ^        |
      |        v
      |      error --> may another deployment try, and is one left?  yes --> enter
      |        |
      |        +-----> had all of them no room, and may the call wait?  yes --> wait in line --> enter
      |        v
      |      raised, with a note for each deployment before it; `LMUnavailable` where none had room
      |
    none takes calls: wait in line, or `LMUnavailable` at once

Each deployment is asked once, or once more after the call has waited for it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dspex.errors import DspexError, LMUnavailable, RouteError, TargetsUnavailable
from dspex.lm._deployment_errors import meaning_of
from dspex.lm._prompt import Prompt

if TYPE_CHECKING:
    from dspex._core import Ticket
    from dspex.lm._group import LMGroup, Member
    from dspex.lm._protocol import LanguageModel, LMRequest

__all__ = ["GroupCall"]

LONGEST_WAIT = 120.0
"""Seconds that a call waits whose caller set no time."""


class _Failure(NamedTuple):
    """What a deployment before raised: words, not the exception, which holds its frames."""

    name: str
    said: str
    no_room: bool
    left_alone: bool
    retry_after: float | None


class GroupCall:
    """One call.

    Args:
        group: The group.
        request: The call.

    Attributes:
        waited: Seconds that it has waited for a deployment.
    """

    __slots__ = (
        "_began",
        "_ends",
        "_failures",
        "_group",
        "_member",
        "_request",
        "_ticket",
        "_tried",
        "waited",
    )

    def __init__(self, group: LMGroup, request: LMRequest) -> None:
        self._group = group
        self._request = request
        self._failures: list[_Failure] = []
        self._tried = 0
        self._ticket: Ticket | None = None
        self._member: Member
        self._began = 0.0
        self._ends = None if request.timeout is None else time.monotonic() + request.timeout
        self.waited = 0.0

    async def enter(self) -> tuple[LanguageModel, LMRequest]:
        """The language model to ask now, and what to ask it.

        Raises:
            LMUnavailable: If there is none, or none before the call's time is over.
        """
        if self._ticket is None and (self._group.has_line or not self._decide()):
            await self._wait()
        request, lm = self._request, self._member.lm
        self._began = time.monotonic()
        if (self._failures or self.waited) and self._ends is not None:
            request = replace(request, timeout=self._ends - self._began)
        if isinstance(request.messages, Prompt) and getattr(lm, "takes_json", False) is not True:
            request = replace(request, messages=request.messages.messages)
        return lm, request

    def served(self) -> None:
        """The deployment has answered."""
        self._record("served", None)

    def failed(self, error: BaseException, *, told: bool = False) -> bool:
        """The deployment has raised; whether the call goes on, by `enter`.

        Args:
            error: What it raised.
            told: Whether a part of the answer has been given to the caller.

        Raises:
            LMUnavailable: If none of the deployments has room.
        """
        meaning = meaning_of(error, had_time=self._had_time())
        member = self._member
        if meaning.outcome == "failed":
            member.said = getattr(error, "message", type(error).__name__)
        self._record(meaning.outcome, meaning.cool)
        if not isinstance(error, DspexError):
            return False
        if meaning.goes_on and not told and (self._ends is None or time.monotonic() < self._ends):
            retry_after = getattr(error, "retry_after", None)
            cools = meaning.cool is not None and self._group.has_breaker
            failure = _Failure(member.name, error.message, meaning.no_room, cools, retry_after)
            self._failures.append(failure)
            try:
                self._take()
            except (RouteError, TargetsUnavailable) as none:
                if all(failure.no_room for failure in self._failures):
                    # One that is not left alone now would be asked again at once, and again.
                    if self._group.wait and all(failure.left_alone for failure in self._failures):
                        self._tried = 0
                        return True
                    raise self._unavailable(getattr(none, "retry_after", None)) from error
                self._failures.pop()
            else:
                return True
        for failure in self._failures:
            error.add_note(f"before that, {failure.name}: {failure.said}")
        return False

    # --- inner workings -------------------------------------------------------------------------------

    def _had_time(self) -> bool:
        timeout = self._request.timeout
        return timeout is None or self._ends is None or self._ends - self._began >= timeout / 2

    def _record(self, outcome: str, cool: float | None) -> None:
        ticket, self._ticket = self._ticket, None
        assert ticket is not None  # noqa: S101 - whoever records has entered
        self._group.record(self._member, ticket, outcome, cool)

    def _take(self) -> None:
        self._ticket, self._member = self._group.decide(self._tried)
        self._tried |= 1 << self._ticket.slot

    def _decide(self) -> bool:
        """Whether there is a deployment now; where there is none, whether the call waits for one.

        Raises:
            LMUnavailable: If there is none, and the group's calls do not wait.
        """
        try:
            self._take()
        except (RouteError, TargetsUnavailable) as none:
            if self._group.wait:
                return False
            raise self._unavailable(getattr(none, "retry_after", None)) from None
        return True

    async def _wait(self) -> None:
        group, began = self._group, time.monotonic()
        ends = began + LONGEST_WAIT if self._ends is None else self._ends
        with group.line.place() as place:
            while True:
                after: float | None = None
                if group.line.is_first(place):
                    try:
                        self._take()
                        break
                    except (RouteError, TargetsUnavailable) as none:
                        after = getattr(none, "retry_after", None)
                left = ends - time.monotonic()
                if left <= 0:
                    raise self._unavailable(after)
                await place.changed(left if after is None else min(after, left))
        self.waited += time.monotonic() - began

    def _unavailable(self, after: float | None) -> LMUnavailable:
        times = [after, *(failure.retry_after for failure in self._failures)]
        least = min((seconds for seconds in times if seconds is not None), default=None)
        said = "; ".join(f"{name}: {words}" for name, words in self._group.said()) or "it has none"
        return LMUnavailable(
            f"no deployment of {self._group.name} takes calls now: {said}",
            hint="call again in a moment" if least is None else f"call again in {least:.1f} s",
            model=self._group.name,
            retry_after=least,
        )
