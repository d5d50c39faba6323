"""A pool that dies and comes back while calls come in at a steady pace: what callers and the breaker see.

Three phases, each of which lasts until something has happened, not for a time::

    well      the pool answers its part of the calls
    dying     every worker is killed as soon as it is there; the breaker opens, the native side takes all
    back      nobody is killed; probes close the breaker, and the pool answers its part again
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import dspex
from dspex.errors import DspexError
from dspex.pool import Restart, State
from dspex.router import Breaker
from dspex.testing import ChatRequest, ModelServer

__all__ = ["Outage", "Told", "broken"]

BREAKER = Breaker(failure_rate=0.5, minimum=5, window=5, open_for=0.2, open_at_most=0.5, probes=3)
POOL = "pool:general"
MOST_AT_ONCE = 200
"""Calls under way; on a machine that is slower than the pace, the pace gives way."""


def answer_of(request: ChatRequest) -> str:
    """The number in the question, so that an answer that went to the wrong caller is seen."""
    number = request.prompt.split("number ")[1].split("\n")[0]
    return f"[[ ## answer ## ]]\n{number}\n\n[[ ## completed ## ]]"


@dataclass
class Told:
    """What has been seen.

    Attributes:
        by: Calls answered, by phase and route.
        errors: What callers got instead.
        wrong: Answers that were another call's.
        changes: The breaker's states before and after, in their order.
        killed: Workers.
        calls: All calls.
        asked: What the model's server was asked.
        seconds: From the first call to the end of the last.
        counts: The router's, at the end.
    """

    by: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    changes: list[tuple[str, str]] = field(default_factory=list)
    killed: int = 0
    calls: int = 0
    asked: int = 0
    seconds: float = 0.0
    counts: list[dspex.router.TargetCounts] = field(default_factory=list)


def broken(told: Told) -> list[str]:
    """The promises that were broken."""
    found = [f"{count} calls ended with {error}" for error, count in told.errors.items()]
    if told.wrong:
        found.append(f"{told.wrong} answers were another call's")
    if told.changes[0] != ("closed", "open") or told.changes[-1] != ("half-open", "closed"):
        found.append(f"the breaker's changes: {told.changes}")
    if any(one[1] != other[0] for one, other in itertools.pairwise(told.changes)):
        found.append(f"the breaker's changes are not in order: {told.changes}")
    if sum(told.by.values()) + sum(told.errors.values()) != told.calls:
        found.append("a call was lost")
    if any(row.in_flight for row in told.counts):
        found.append("a call is under way that nobody waits for")
    if sum(row.served for row in told.counts) != sum(told.by.values()):
        found.append("the router has counted other answers than callers had")
    if not told.by["back", POOL]:
        found.append("the pool did not come back")
    if told.asked < told.calls - sum(told.errors.values()):
        found.append("an answer came from nowhere")
    return found


class Outage(logging.Handler):
    """One run.

    Args:
        pace: Calls a second.
        python: Every how manyth call prefers the pool.
        enough: Calls of the pool's that make a phase complete.
    """

    def __init__(self, *, pace: float, python: int, enough: int) -> None:
        super().__init__()
        self._pace = pace
        self._python = python
        self._enough = enough
        self._phase = "well"
        self._over = False
        self._begun: set[asyncio.Task[None]] = set()
        self.told = Told()

    def emit(self, record: logging.LogRecord) -> None:
        """Note a change of the breaker's."""
        message = record.getMessage()
        if message.startswith(f"the breaker of {POOL} is "):
            after, before = message.removeprefix(f"the breaker of {POOL} is ").split("; it was ")
            self.told.changes.append((before, after))

    async def run(self, *, seconds: float) -> Told:
        """Go through the three phases.

        Raises:
            TimeoutError: If one of them does not end in so many seconds.
        """
        log = logging.getLogger("dspex.router")
        log.addHandler(self)
        level = log.level
        log.setLevel(logging.INFO)
        try:
            async with ModelServer(answer_of) as server:
                lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
                pool = dspex.PoolSpec(workers=2, restart=Restart(max=3, window=1.0))
                async with dspex.Runtime(lm, pools=pool, breaker=BREAKER, timeout=30) as runtime:
                    await runtime.awarmup()
                    await self._phases(runtime, seconds)
                    self.told.counts = runtime.counts()
                self.told.asked = len(server.requests)
        finally:
            log.setLevel(level)
            log.removeHandler(self)
        return self.told

    async def _phases(self, runtime: dspex.Runtime, seconds: float) -> None:
        by, changes, begun = self.told.by, self.told.changes, time.perf_counter()
        callers = asyncio.create_task(self._callers(runtime))
        killer: asyncio.Task[None] | None = None
        try:
            await self._until(lambda: by["well", POOL] >= self._enough, callers, seconds)
            self._phase = "dying"
            killer = asyncio.create_task(self._kill(runtime))
            await self._until(lambda: ("closed", "open") in changes, callers, seconds)
            before = by["dying", "native"]
            await self._until(lambda: by["dying", "native"] >= before + self._enough, callers, seconds)
            killer.cancel()
            self._phase = "back"
            await self._until(lambda: changes[-1] == ("half-open", "closed"), callers, seconds)
            before = by["back", POOL]
            await self._until(lambda: by["back", POOL] >= before + self._enough, callers, seconds)
        finally:
            self._over = True
            if killer is not None:
                killer.cancel()
            await callers
            await asyncio.gather(*self._begun)
            self.told.seconds = time.perf_counter() - begun

    async def _until(
        self, condition: Callable[[], bool], callers: asyncio.Task[None], seconds: float
    ) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                if callers.done():
                    callers.result()
                await asyncio.sleep(0.005)

    async def _callers(self, runtime: dspex.Runtime) -> None:
        """Begin calls at the pace, whether or not those before have ended."""
        loop = asyncio.get_running_loop()
        predict = dspex.Predict("question -> answer").with_options(idempotent=True)
        native, python = (
            predict.with_options(strategy=strategy) for strategy in ("prefer-native", "prefer-python")
        )
        begun = loop.time()
        while not self._over:
            due = int((loop.time() - begun) * self._pace)
            while self.told.calls < due and len(self._begun) < MOST_AT_ONCE:
                number = self.told.calls
                self.told.calls += 1
                task = asyncio.create_task(self._call(native if number % self._python else python, number))
                self._begun.add(task)
                task.add_done_callback(self._begun.discard)
            if self.told.calls < due:  # the machine is slower: what it has missed is not made good
                begun = loop.time() - self.told.calls / self._pace
            await asyncio.sleep(0.002)

    async def _call(self, predict: dspex.Predict, number: int) -> None:
        try:
            prediction = await predict.acall(question=f"number {number}")
        except DspexError as error:
            self.told.errors[
                f"{self._phase}: {type(error).__name__} [{error.code}]: {error.message}"[:200]
            ] += 1
            return
        self.told.by[self._phase, prediction.route] += 1
        self.told.wrong += prediction.answer != str(number)

    async def _kill(self, runtime: dspex.Runtime) -> None:
        """Kill each worker as soon as it is there."""
        while True:
            status = runtime.pools().get("general")
            for worker in () if status is None else status.workers:
                if worker.state is State.READY and worker.pid:
                    with suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
                        self.told.killed += 1
            await asyncio.sleep(0.01)
