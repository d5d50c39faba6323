"""`RuntimeReports`: what a runtime tells of itself, to programs and to whoever looks after it.

Counts, metrics and errors come from the router, and can be had from any thread, also when the runtime is
closed. The state of the pools is asked for on the runtime's home loop.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dspex._portal import CROSSING_SECONDS, cross, refuse_blocking, wait
from dspex.errors import ConfigError
from dspex.router._call import runtime_closed

if TYPE_CHECKING:
    from dspex.pool import PoolStatus
    from dspex.router import Report, Router, TargetCounts
    from dspex.runtime._native_target import NativeTarget
    from dspex.runtime._pool_target import PoolTarget
    from dspex.runtime._shadow_runs import ShadowRuns
    from dspex.runtime._shadow_store import ShadowReport

__all__ = ["RuntimeReports"]


class RuntimeReports(ABC):
    """The part of `Runtime` that changes nothing."""

    _router: Router
    _native: NativeTarget
    _pools: list[PoolTarget]
    _shadow: ShadowRuns | None
    _home_thread: int

    @property
    @abstractmethod
    def _is_open(self) -> bool: ...

    @abstractmethod
    def _open_home(self) -> asyncio.AbstractEventLoop: ...

    def counts(self) -> list[TargetCounts]:
        """What each target has served so far, and what it has in flight."""
        return self._router.counts()

    def metrics(self) -> str:
        """What is counted of calls, targets, breakers, stages, tokens and pools, for Prometheus to read.

        The text is in Prometheus' format 0.0.4; `docs/telemetry.md` lists the metrics.

        Raises:
            ConfigError: If an event loop runs on this thread that is not the runtime's: use `ametrics` there.
        """
        return self._metrics(self.pools())

    async def ametrics(self) -> str:
        """The awaitable twin of `metrics`, from any event loop."""
        return self._metrics(await self.apools())

    def report(self) -> Report:
        """The errors of attempts since the runtime was made: kinds, numbers, and the last ones of each.

        What failed on one target and was then served by another is in it too. It can be had from any thread,
        also when the runtime is closed.
        """
        return self._router.failures.report()

    def shadow_report(self) -> ShadowReport:
        """What has come of the calls that were run on the other side too.

        Raises:
            ConfigError: If the runtime was made without `shadow=` (`no-shadow`).
        """
        if self._shadow is None:
            raise ConfigError(
                "this runtime runs no calls on the other side too",
                code="no-shadow",
                hint="make it with shadow=0.01, or with a dspex.router.Shadow",
            )
        return self._shadow.report()

    def pools(self) -> dict[str, PoolStatus]:
        """The state of every pool that has started, by name; see `dspex.pool.PoolStatus`.

        Raises:
            ConfigError: If an event loop runs on this thread that is not the runtime's: use `apools` there.
        """
        if not self._is_open:
            return {}
        home = self._open_home()
        if asyncio._get_running_loop() is home:
            return self._statuses()
        refuse_blocking(self._home_thread, "`await apools()`")
        return wait(cross(self.apools(), home, runtime_closed), CROSSING_SECONDS, runtime_closed)

    async def apools(self) -> dict[str, PoolStatus]:
        """The awaitable twin of `pools`, from any event loop."""
        if not self._is_open:
            return {}
        home = self._open_home()
        if asyncio.get_running_loop() is home:
            return self._statuses()
        return await asyncio.wrap_future(cross(self.apools(), home, runtime_closed))

    def _statuses(self) -> dict[str, PoolStatus]:
        running = ((target.spec.name, target.pool) for target in self._pools)
        return {name: pool.status() for name, pool in running if pool is not None}

    def _metrics(self, pools: Mapping[str, PoolStatus]) -> str:
        from dspex.runtime._telemetry import gauges_of  # most processes never ask

        targets: list[NativeTarget | PoolTarget] = [self._native, *self._pools]
        times = [(target.name, target.stages) for target in targets]
        return self._router.metrics(times, gauges_of(pools.values()))
