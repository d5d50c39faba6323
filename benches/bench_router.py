"""The router's decision beside routers and breakers in Python, in one run: `python benches/bench_router.py`.

Each row is one call's way through: choose one of three targets, count it, keep a breaker and a histogram, say
how it ended. Beside it: the same in plain Python, a dict of counters under a lock with a breaker of a deque;
and the breakers of purgatory and pybreaker, which keep no histogram and choose nothing. Before anything is
timed, ours and the plain one are made to open. Figures are the best of seven, in microseconds; what counts is
their ratios.
"""

from __future__ import annotations

import asyncio
import threading
import time
import timeit
from collections import deque
from collections.abc import Callable
from typing import Any

import purgatory
import pybreaker

from dspex._core import Router
from dspex.errors import TargetsUnavailable
from dspex.router import Breaker

CALLS = 20_000
THREADS = 8
NAMES = (("native", "native"), ("pool:general", "python"), ("pool:optimizer", "python"))


class PlainRouter:
    """What one would write in an afternoon."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.targets = {
            name: {
                "side": side,
                "in_flight": 0,
                "served": 0,
                "failed": 0,
                "seconds": [0] * 64,
                "last": deque(maxlen=20),
            }
            for name, side in NAMES
        }

    def decide(self) -> tuple[str, float]:
        with self.lock:
            for name, target in self.targets.items():
                last: Any = target["last"]
                if len(last) < 20 or sum(last) < 10:
                    target["in_flight"] += 1  # type: ignore[operator]
                    return name, time.monotonic()
        raise RuntimeError("all are open")

    def record(self, name: str, begun: float, failed: bool) -> None:
        took = time.monotonic() - begun
        with self.lock:
            target: Any = self.targets[name]
            target["in_flight"] -= 1
            target["failed" if failed else "served"] += 1
            target["seconds"][min(63, int(took * 1e6).bit_length())] += 1
            target["last"].append(failed)


def best(call: Callable[[], Any]) -> float:
    return min(timeit.repeat(call, number=CALLS, repeat=7)) / CALLS * 1e6


def ours(strategy: str = "prefer-native") -> Router:
    router = Router(strategy)
    for name, side in NAMES:
        router.add(name, side, breaker=Breaker().as_values())
    return router


def refused(router: Router) -> None:
    try:
        router.decide()
    except TargetsUnavailable:
        return
    raise AssertionError


def check() -> None:
    """Each opens when half of twenty calls fail."""
    router = ours()
    for _ in range(20):
        router.record(router.decide("native"), "failed")
    assert router.counts()[0][-1] == "open"
    assert router.decide().name == "pool:general"
    plain = PlainRouter()
    for _ in range(20):
        plain.record(*plain.decide(), failed=True)
    assert plain.decide()[0] == "pool:general"


async def of_purgatory() -> float:
    factory = purgatory.AsyncCircuitBreakerFactory()
    breaker = await factory.get_breaker("x")
    figures = []
    for _ in range(7):
        begun = time.perf_counter()
        for _ in range(CALLS):
            async with breaker:
                pass
        figures.append((time.perf_counter() - begun) / CALLS * 1e6)
    return min(figures)


def from_threads(call: Callable[[], Any]) -> float:
    def run() -> None:
        for _ in range(CALLS):
            call()

    figures = []
    for _ in range(3):
        threads = [threading.Thread(target=run) for _ in range(THREADS)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        figures.append((time.perf_counter() - begun) / CALLS / THREADS * 1e6)
    return min(figures)


def main() -> None:
    check()
    preferring, fastest, plain, closed = ours(), ours("fastest"), PlainRouter(), ours()
    for slot in range(len(NAMES)):
        closed.force(slot, "open")
    breaker = pybreaker.CircuitBreaker()

    def decided(router: Router) -> Callable[[], Any]:
        return lambda: router.record(router.decide(), "served")

    rows = {
        "dspex: decide and record": best(decided(preferring)),
        "dspex: the same, the faster of two": best(decided(fastest)),
        f"dspex: the same from {THREADS} threads": from_threads(decided(preferring)),
        "dspex: a call that is refused": best(lambda: refused(closed)),
        "plain Python: decide and record": best(lambda: plain.record(*plain.decide(), failed=False)),
        "pybreaker: a call": best(lambda: breaker.call(int)),
        "purgatory: async with": asyncio.run(of_purgatory()),
    }
    for name, figure in rows.items():
        print(f"{name:40}{figure:8.2f} us")


if __name__ == "__main__":
    main()
