"""`Redis`: runs and sessions on a server that many machines share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dspex._timeouts import check_seconds
from dspex.stores._redis_runs import RedisRuns
from dspex.stores._redis_sessions import RedisSessions

__all__ = ["Redis"]

MAX_BYTES: Final = 64 * 1024 * 1024
RETENTION_SECONDS: Final = 30 * 24 * 3600.0
ANSWER_SECONDS: Final = 5.0
CONNECTIONS: Final = 32


class Redis(RedisRuns, RedisSessions):
    """A `RunStore` and a `SessionStore` on a Redis server, for many machines. Needs `dspex[redis]`.

    Args:
        url: Where it is: `redis://[user:password@]host:6379/0`, `rediss://...` with TLS, or `unix:///path`.
        prefix: With what the names of all keys begin: letters, digits and `_.:/-`, at most 64.
        timeout: Seconds that a command may take, the way to the server included.
        retention: Seconds after which runs that have ended are forgotten; None for never.
        max_bytes: How large a value may be.
        connections: How many connections a process has at most.
        clock: Gives the seconds since 1970, for tests; otherwise the server's time decides, and its keys
            end by themselves.

    Raises:
        ConfigError: If a setting is none (`bad-store`, `bad-timeout`), or redis-py is not installed
            (`no-redis`).

    Example:
        ```python
        store = dspex.stores.Redis("redis://localhost:6379/0")
        pipeline = dspex.pipeline(search, answer, store=store)
        ```
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "dspex:",
        timeout: float = ANSWER_SECONDS,
        retention: float | None = RETENTION_SECONDS,
        max_bytes: int = MAX_BYTES,
        connections: int = CONNECTIONS,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(
            url, prefix=prefix, timeout=timeout, max_bytes=max_bytes, connections=connections, clock=clock
        )
        self._retention = None if retention is None else check_seconds(retention, "retention")
