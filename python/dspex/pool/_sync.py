"""`SyncPool`: a `Pool` for code that has no event loop, with the same names.

::

    your threads --call()--> crossing --> event loop, on a thread of its own --> Pool --> workers
                                          (or the loop on which somebody else has started the Pool)

A call blocks its own thread and no other, and may be made from any but one that runs an event loop, which it
would stop: there it is refused (but for a notebook's cells). Whoever is interrupted while waiting (Ctrl-C)
cancels the call, as a cancelled task does. A pool that nobody closes is closed when the process ends, and is
gone even if it ends without a chance to: see the three watchdogs in `dspex.worker.parent_watch`.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, Final, Self, TypeVar, Unpack

from dspex._portal import CROSSING_SECONDS, Portal, cross, refuse_blocking, wait
from dspex._timeouts import check_seconds
from dspex.errors import ConfigError, DspexError, PoolClosedError
from dspex.pool._backends.base import Backend
from dspex.pool._calls import SyncPoolCalls
from dspex.pool._events import PoolEvent
from dspex.pool._lifecycle import State
from dspex.pool._options import CallKeywords
from dspex.pool._pool import Pool
from dspex.pool._profiles import Profile, seconds_of
from dspex.pool._spec import PoolSpec
from dspex.pool._status import PoolStatus
from dspex.protocol.requests import Request

__all__ = ["SyncPool"]

T = TypeVar("T")

_END: Final = object()

_KILL_SECONDS: Final = 15.0
"""What ending a process that is stuck in the kernel may take beyond the ladder."""


class SyncPool(SyncPoolCalls):
    """Worker processes behind blocking calls: `Pool` for scripts, threads and synchronous services.

    Args:
        spec: The settings.
        lm: Settings of the workers' language model, as for `Pool`.
        on_event: Called with every `PoolEvent`, on the pool's own thread.
        backend: Where the workers run, as for `Pool`.

    Use it as ``with SyncPool(spec) as pool``, or call `start` and `close`. All methods may be called from
    any thread, many at once.

    Example:
        ```python
        with dspex.SyncPool(dspex.PoolSpec(workers=2)) as pool:
            pool.with_options(timeout=5).echo("there and back")
        ```
    """

    def __init__(
        self,
        spec: PoolSpec | None = None,
        *,
        lm: Mapping[str, Any] | None = None,
        on_event: Callable[[PoolEvent], None] | None = None,
        backend: Backend | None = None,
    ) -> None:
        self._pool = Pool(spec, lm=lm, on_event=on_event, backend=backend)
        self._portal: Portal | None = None
        self._view = False

    @classmethod
    def of(cls, pool: Pool) -> Self:
        """A view of a pool that has been started on somebody's event loop, for that process's other threads.

        It does not own the pool: `close` is refused, `with` leaves it open.
        """
        view = cls.__new__(cls)
        view._pool, view._portal, view._view = pool, None, True
        return view

    def __repr__(self) -> str:
        return f"<SyncPool {self.name!r} {self.state.value}>"

    @property
    def spec(self) -> PoolSpec:
        """The settings."""
        return self._pool.spec

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._pool.name

    @property
    def state(self) -> State:
        """Where the pool is in its life."""
        return self._pool.state

    @property
    def versions(self) -> dict[str, str]:
        """What the workers run; see `Pool.versions`."""
        return self._pool.versions

    # --- opening and closing ---

    def start(self) -> None:
        """Start the workers; returns when one can serve. See `Pool.start` for what it raises."""
        self._refuse_view("start")
        refuse_blocking(0, "`async with dspex.Pool(...)`")
        if self._portal is not None or self._pool.state is not State.STARTING:
            raise PoolClosedError(
                f"pool {self.name!r} has been started or closed before", code="pool-restarted"
            )
        self._portal = portal = Portal(f"dspex-pool-{self.name}")
        try:
            starting = cross(self._pool.start(), portal.loop, self._closed)
            wait(starting, self.spec.timeouts.start + _KILL_SECONDS + CROSSING_SECONDS, self._closed)
        except BaseException:
            self._shut(0)
            raise
        _open_pools.add(self)

    def close(self, *, timeout: float | None = None) -> None:
        """Finish the calls in flight, refuse new ones, and end the workers. Safe to call twice.

        Args:
            timeout: Seconds the calls have; None for the pool's `timeouts.stop`.

        Raises:
            ConfigError: If this is a view of a pool, or an event loop runs on this thread.
        """
        self._refuse_view("close")
        if self._pool._residence.is_elsewhere:  # in a fork, neither the workers nor the thread are ours
            return
        if self._portal is None:  # nothing runs; from now on it is closed for good
            self._portal = Portal(f"dspex-pool-{self.name}")
        refuse_blocking(self._portal.thread_id, "`await asyncio.to_thread(pool.close)`")
        self._shut(self.spec.timeouts.stop if timeout is None else check_seconds(timeout, zero=True))

    def _shut(self, finish: float, *, force: bool = False) -> None:
        portal = self._portal
        assert portal is not None  # noqa: S101 - both callers have seen to it
        _open_pools.discard(self)
        bound = finish + 3 * self.spec.timeouts.stop + _KILL_SECONDS
        try:
            if not portal.loop.is_closed():
                closing = self._pool._shut_down(finish, force=force)
                wait(cross(closing, portal.loop, self._closed), bound, self._closed)
        finally:
            portal.close()

    def __enter__(self) -> Self:
        if not self._view:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._view:
            self.close()

    # --- what a pool does: see `SyncPoolCalls` ---

    def call(self, request: Request, **options: Unpack[CallKeywords]) -> Any:
        seconds = self._seconds(options.get("timeout"))
        return self._cross(self._pool.call(request, **options), "call", seconds)

    def stream(self, request: Request, **options: Unpack[CallKeywords]) -> Generator[Any, None, None]:
        seconds = self._seconds(options.get("timeout"))
        parts = self._pool.stream(request, **options)
        try:
            while (part := self._cross(_next(parts), "stream", seconds)) is not _END:
                yield part
        finally:
            with contextlib.suppress(PoolClosedError):  # closed before its stream: nothing is left to end
                self._cross(_close(parts), "stream", seconds)

    def batch(self, requests: Iterable[Request], **options: Unpack[CallKeywords]) -> list[Any]:
        return self._cross(self._pool.batch(requests, **options), "batch", None)

    def status(self) -> PoolStatus:
        """What the pool and each worker are doing now."""

        async def status() -> PoolStatus:
            return self._pool.status()

        return self._cross(status(), "status", 0)

    def resize(self, workers: int) -> None:
        """Want this many workers from now on; see `Pool.resize`."""

        async def resize() -> None:
            self._pool.resize(workers)

        self._cross(resize(), "resize", 0)

    def restart(self) -> None:
        """Replace the workers one by one and lose no call; see `Pool.restart`."""
        self._cross(self._pool.restart(), "restart", None)

    # --- the crossing ---

    def _seconds(self, timeout: float | Profile | None) -> float:
        return self.spec.timeouts.call if timeout is None else seconds_of(timeout)

    def _cross(self, coroutine: Coroutine[Any, Any, T], twin: str, seconds: float | None) -> T:
        try:
            residence = self._pool._residence
            residence.check_process()
            loop = residence.loop
            if loop is None or loop.is_closed():
                raise self._pool._not_open()
            refuse_blocking(residence.thread, f"`await pool.{twin}(...)` with the `dspex.Pool` itself")
        except DspexError:
            coroutine.close()
            raise
        patience = None if seconds is None else seconds + CROSSING_SECONDS
        return wait(cross(coroutine, loop, self._closed), patience, self._closed)

    def _closed(self) -> PoolClosedError:
        return PoolClosedError(f"pool {self.name!r} is not open: its event loop has ended")

    def _refuse_view(self, what: str) -> None:
        if self._view:
            raise ConfigError(
                f"this is a view of pool {self.name!r}, which is another's to {what}",
                code="pool-view",
                hint="await the pool's own method on the loop it was started on",
            )


async def _next(parts: AsyncGenerator[Any, None]) -> Any:
    return await anext(parts, _END)


async def _close(parts: AsyncGenerator[Any, None]) -> None:
    await parts.aclose()


_open_pools: Final[set[SyncPool]] = set()


@atexit.register
def _close_all() -> None:
    """A pool that is created in a script ends with it."""
    for pool in list(_open_pools):
        if not pool._pool._residence.is_elsewhere:  # a fork ends without them
            with contextlib.suppress(DspexError):
                pool._shut(0, force=True)
