"""What a runtime measures beside its router: the work of workers, and how its pools are."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dspex import _listeners

if TYPE_CHECKING:
    from dspex._core import StageTimes
    from dspex.pool import PoolEvent, PoolStatus

__all__ = ["count_work", "gauges_of", "tell_of_pool"]

_MOST_CALLS: Final = 1_000_000
"""Calls of a model in one reply; more is no worker's number."""

Gauges = list[tuple[str, Sequence[str], float]]


def count_work(times: StageTimes, stages: Sequence[Sequence[Any]], worker: float | None = None) -> None:
    """Count what a worker says that it did for a call, and tell of it if somebody listens.

    Args:
        times: Where it is counted.
        stages: Its stages, as `dspex.worker.stages` writes them.
        worker: The seconds of its work as a whole, where that is known.
    """
    if worker is not None:
        times.add("worker", worker)
    if not stages:
        return
    stages = [row for row in stages if _is_stage(row)]
    for _, _, seconds, count in stages:
        for _ in range(count):
            times.add("lm", seconds / count)
    if stages and _listeners.given:
        from dspex.router._told import note_work

        note_work(stages)


def _is_stage(row: Any) -> bool:
    """Whether it is a stage that is counted here: a worker of another version may send others."""
    if not (isinstance(row, list) and len(row) == 4 and row[0] == "lm"):
        return False
    times = all(isinstance(value, int | float) and value >= 0 for value in row[1:3])
    return times and type(row[3]) is int and 0 < row[3] <= _MOST_CALLS


def gauges_of(pools: Iterable[PoolStatus]) -> Gauges:
    """How pools are, and what telemetry itself has dropped."""
    found: Gauges = []
    for pool in pools:
        states = Counter(worker.state.value for worker in pool.workers)
        found += [("dspex_pool_workers", (pool.name, state), count) for state, count in states.items()]
        found += [
            ("dspex_pool_wanted", (pool.name,), pool.wanted),
            ("dspex_pool_waiting", (pool.name,), pool.waiting),
            ("dspex_pool_deaths", (pool.name,), pool.deaths),
            ("dspex_pool_resident_bytes", (pool.name,), sum(worker.resident for worker in pool.workers)),
        ]
    from dspex.telemetry._handlers import dropped  # most processes never ask

    return [*found, ("dspex_events_dropped", (), dropped()), *_of_caches()]


def _of_caches() -> Gauges:
    """What response caches have answered, where there are any."""
    caches = sys.modules.get("dspex.lm._cache")
    if caches is None:
        return []
    answered, size = caches.lookups()
    rows: Gauges = [("dspex_cache_lookups", (result,), count) for result, count in answered.items()]
    return [*rows, ("dspex_cache_bytes", (), size)]


def tell_of_pool(event: PoolEvent) -> None:
    """Tell of what a pool says has happened."""
    if not _listeners.given:
        return
    from dspex.telemetry._event import make
    from dspex.telemetry._handlers import tell, wanted

    name = f"dspex.{event.name}"
    if wanted(name):
        about: Mapping[str, Any] = {"pool": event.pool, "pid": event.pid, "slot": event.slot}
        tell(make(name, {key: value for key, value in about.items() if value is not None}))
