"""Three model servers of which the first goes wrong and gets well again, while calls of a group go on.

::

    well --calls--> wrong --calls--> well --calls, until the first server answers again-->

What the callers, the servers and the group's counts say of it is compared by whoever runs it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from dspex import LM
from dspex.errors import DspexError, LMRateLimitError, LMServerError
from dspex.lm import LMGroup, LMRequest
from dspex.router import Breaker
from dspex.testing import ChatRequest, Cut, Fault, ModelServer, Stall

__all__ = ["BREAKER", "WRONGS", "Report", "Servers", "Wrong", "servers"]

LM_SECONDS = 0.5
"""The time-out of each deployment; a server that stalls costs a call that much."""
DEADLINE = 100.0
"""What was slow is forgotten slowly by the strategy `fastest`."""
BREAKER = Breaker(minimum=5, window_calls=20, open_for=0.2, open_at_most=1.0, probes=1)


@dataclass(frozen=True)
class Wrong:
    """What the first server does while it is wrong.

    Attributes:
        error: What it answers with, if it answers.
        fault: What it does to each request otherwise.
        at_once: Whether one such answer is enough for it to be left alone.
        stream: Whether the calls are streams.
    """

    error: Callable[[], Exception] | None = None
    fault: Fault | None = None
    at_once: bool = False
    stream: bool = False


WRONGS = {
    "refuses with Retry-After": Wrong(
        lambda: LMRateLimitError("slow", status=429, retry_after=1), at_once=True
    ),
    "refuses without Retry-After": Wrong(lambda: LMRateLimitError("slow", status=429), at_once=True),
    "has no room": Wrong(lambda: LMServerError("full", status=503), at_once=True),
    "fails": Wrong(lambda: LMServerError("oops", status=500)),
    "is slow": Wrong(fault=Stall()),
    "cuts answers": Wrong(fault=Cut("middle")),
    "cuts connections": Wrong(fault=Cut()),
    "cuts streams before their first piece": Wrong(fault=Cut(), stream=True),
    "refuses streams": Wrong(lambda: LMRateLimitError("slow", status=429), at_once=True, stream=True),
}


@dataclass
class Report:
    """What happened.

    Attributes:
        answered: Calls that were answered.
        errors: What callers got instead.
        to_first: Requests that the first server got in each phase: well, wrong, well again.
    """

    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    to_first: list[int] = field(default_factory=list)


class Servers:
    """The servers and the group that asks them.

    Args:
        three: The servers.
        strategy: The group's.
    """

    def __init__(self, three: list[ModelServer], strategy: Any) -> None:
        self.three = three
        self.wrong: Wrong | None = None
        lms = [
            LM("openai/m", api_base=server.api_base, api_key="k", timeout=LM_SECONDS * (1 if not n else 60))
            for n, server in enumerate(three)
        ]
        self.group: LMGroup = LM.group(lms, strategy=strategy, breaker=BREAKER)

    async def run(self, wrong: Wrong, calls: int, at_once: int, per_second: float | None = None) -> Report:
        """Go through the three phases with so many calls in each of the first two."""
        report = Report()
        first = self.three[0]
        seen = [0]

        def phase_ends() -> None:
            report.to_first.append(len(first.requests) - seen[0])
            seen[0] = len(first.requests)

        await self._calls(report, wrong, calls, at_once, per_second)
        phase_ends()
        self.wrong = wrong
        if wrong.fault is not None:
            first.faults.push(*[wrong.fault] * (calls * 4))
        await self._calls(report, wrong, calls, at_once, per_second)
        phase_ends()
        self.wrong = None
        first.faults.clear()
        served = self.group.counts()[0].served
        async with asyncio.timeout(DEADLINE):
            while self.group.counts()[0].served < served + 5:
                await self._calls(report, wrong, at_once, at_once, per_second)
        phase_ends()
        return report

    async def _calls(
        self, report: Report, wrong: Wrong, calls: int, at_once: int, per_second: float | None
    ) -> None:
        left = iter(range(calls))
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def caller() -> None:
            for number in left:
                if per_second is not None:
                    await asyncio.sleep(began + number / per_second - loop.time())
                await self._call(report, wrong)

        await asyncio.gather(*(caller() for _ in range(at_once)))

    async def _call(self, report: Report, wrong: Wrong) -> None:
        request = LMRequest([{"role": "user", "content": "say it"}], timeout=30.0)
        try:
            if wrong.stream:
                async with aclosing(self.group.stream(request)) as deltas:
                    text = "".join([delta.text async for delta in deltas])
            else:
                text = (await self.group.complete(request)).texts[0]
        except DspexError as error:
            report.errors[f"{type(error).__name__} [{error.code}] {error.message}"] += 1
        else:
            report.answered += text == "it is said"

    def answer(self, request: ChatRequest) -> str:
        """What the first server says."""
        if self.wrong is not None and self.wrong.error is not None:
            raise self.wrong.error()
        return "it is said"


@asynccontextmanager
async def servers(strategy: str = "weighted") -> AsyncGenerator[Servers]:
    """Three servers, and a group of them."""
    held: list[Servers] = []

    def answer(request: ChatRequest) -> str:
        return held[0].answer(request)

    async with (
        ModelServer(answer) as first,
        ModelServer("it is said") as second,
        ModelServer("it is said") as third,
    ):
        held.append(Servers([first, second, third], strategy))
        async with held[0].group:
            yield held[0]
