"""`RedisServer`: a server that many machines share, and who asks it.

::

    caller's loop --job--> one thread of the process, with a loop and connections --script--> server
                  <------- outcome, also for one that was cancelled meanwhile <-----------------

Connections belong to a loop, and programs have several, one after the other or at once: so they live on a
loop of the store's own, in a thread that starts with the first job and ends with `close()`. A forked child
leaves thread and connections to its parent and opens its own.

Every method is one script, so that it happens whole or not at all, by the server's time. Nothing is sent
twice by itself: after a lost connection nobody knows whether a write has happened.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError, DspexError, StoreError
from dspex.stores._outcome import outcome_of
from dspex.stores._redis_scripts import APPLICATION, VERSION, Script

__all__ = ["PAGE", "RedisServer", "bounded", "name_of", "pairs", "take_over_of", "text_of"]

T = TypeVar("T")

MAX_NAME_BYTES: Final = 1024
"""What an id, a pool, a user or a key may have: they are parts of the names of keys."""
GRACE_SECONDS: Final = 5.0
"""How long a caller waits beyond the deadline of its command, for the thread to say that it is over."""
PAGE: Final = 500
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_BEGIN: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'application', ARGV[1], 'version', ARGV[2])
end
"""


class RedisServer:
    """What the store's runs and sessions share: connections, scripts, and errors in the words of stores."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout: float,
        max_bytes: int,
        connections: int,
        clock: Callable[[], float] | None,
    ) -> None:
        self._redis = _import_redis()
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ConfigError(
                f"prefix must be 1 to 64 letters, digits and any of _.:/-, not {shown(prefix)}",
                code="bad-store",
                hint='write prefix="dspex:"',
            )
        self._url = url
        try:
            where = self._redis.asyncio.connection.parse_url(url)
        except Exception:  # noqa: BLE001 - what it says has the URL, and so perhaps a password
            raise ConfigError(
                "the URL of a Redis store cannot be read",
                code="bad-store",
                hint='write Redis("redis://host:6379/0")',
            ) from None
        self._where = str(where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', 6379)}")
        self._prefix = prefix
        self._timeout = check_seconds(timeout, "timeout")
        self._max = max_bytes
        self._connections = connections
        self._clock = clock
        self._lock = threading.Lock()
        self._home: _Home | None = None
        _stores.add(self)

    async def close(self) -> None:
        """See `RunStore.close`: what was asked is waited for, then the connections are closed."""
        with self._lock:
            home, self._home = self._home, None
        if home is not None:
            await asyncio.to_thread(home.end, self._timeout + GRACE_SECONDS)

    async def _pages(self, script: Script, wanted: Sequence[str | None], limit: int) -> list[Any]:
        """What fits of an index, read a page at a time, so that the server is held by none for long."""
        conditions = [each for want in wanted for each in ("" if want is None else 1, want or "")]
        found: list[Any] = []
        first = 0
        while len(found) < limit:
            (_, seen, more) = await self._ask(script, *conditions, first, limit - len(found))
            found += more
            first += PAGE
            if seen < PAGE:
                break
        return found

    async def _ask(self, script: Script, *values: str | bytes | float) -> Any:
        """Run a script, and return when it has happened or has not."""
        now = "" if self._clock is None else self._clock()
        data = [_data(value) for value in (self._prefix, now, *values)]
        with self._lock:
            if self._home is None:
                self._home = _Home(self._connect)
            job = self._home.start(self._answer(self._home, script, data))
        return await outcome_of(job, self._timeout + GRACE_SECONDS, self._no_answer)

    def _connect(self) -> Any:
        pool = self._redis.asyncio.BlockingConnectionPool.from_url(
            self._url,
            protocol=2,
            max_connections=self._connections,
            timeout=self._timeout,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            retry=self._redis.asyncio.retry.Retry(self._redis.backoff.NoBackoff(), 0),
        )
        return self._redis.asyncio.Redis.from_pool(pool)

    async def _answer(self, home: _Home, script: Script, data: Sequence[bytes]) -> Any:
        async with self._in_our_words():
            said = await self._run_script(home.client, script, data)
            if said[0] == b"schema":
                await self._begin(home.client, said[1], said[2])
                said = await self._run_script(home.client, script, data)
            return said

    async def _run_script(self, client: Any, script: Script, data: Sequence[bytes]) -> Any:
        try:
            return await client.evalsha(script.sha, 0, *data)
        except self._redis.exceptions.NoScriptError:  # a server that is new, or was started anew
            return await client.eval(script.source, 0, *data)

    async def _begin(self, client: Any, application: bytes | None, version: bytes | None) -> None:
        """Say that the keys of the prefix are ours, unless they are not.

        Raises:
            StoreError: If they are another program's (`store-not-ours`) or of a newer version
                (`store-newer-schema`).
        """
        schema = f"{self._prefix}schema"
        if application is None and version is None:
            found = [key async for key in client.scan_iter(match=f"{self._prefix}*", count=1000)]
            if not found:
                await client.eval(_BEGIN, 1, schema, APPLICATION, VERSION)
                return
            application, version = await client.hmget(schema, "application", "version")
            if (application, version) == (APPLICATION, b"%d" % VERSION):
                return  # another process began meanwhile
        if (
            application == APPLICATION
            and version is not None
            and version.isdigit()
            and int(version) > VERSION
        ):
            raise StoreError(
                f"the data at {self._where} are of version {int(version)}, and this one reads {VERSION}",
                code="store-newer-schema",
                hint="use the dspex that wrote them, or a newer one",
            )
        raise self._not_ours()

    def _not_ours(self) -> StoreError:
        return StoreError(
            f"{self._where} has keys of another program's under {self._prefix!r}",
            code="store-not-ours",
            hint="give the store another prefix; they were left as they are",
        )

    def _no_answer(self) -> StoreError:
        return StoreError(
            f"{self._where} gave no answer within {self._timeout:g} s",
            code="store-unreachable",
            hint="whether a write has happened is not known; look at the server and the way to it",
            retryable=True,
        )

    @asynccontextmanager
    async def _in_our_words(self) -> AsyncIterator[None]:
        """Within the deadline, and with errors that have no secret of the URL."""
        kinds = self._redis.exceptions
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except DspexError:
            raise
        except (TimeoutError, kinds.TimeoutError):
            raise self._no_answer() from None
        except Exception as error:  # noqa: BLE001 - every caller is told, in the words of stores
            raise self._said(error) from None

    def _said(self, error: Exception) -> StoreError:
        """What went wrong, by the first word of what the server says."""
        kinds, where = self._redis.exceptions, self._where
        text = str(error)
        refusals = (kinds.AuthenticationError, kinds.NoPermissionError)
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, refusals):
            cause = cause.__cause__ or cause.__context__  # one of a connection's set-up is within another
        if cause is not None or text.startswith(
            ("The user executing", "ACL failure")
        ):  # of a command in a script
            return StoreError(
                f"{where} refuses the user of the URL",
                hint="look at its user and password, and at what the server lets that user do",
            )
        if isinstance(error, kinds.BusyLoadingError):
            return StoreError(
                f"{where} is loading its data", code="store-unreachable", hint="try again", retryable=True
            )
        if isinstance(error, kinds.ReadOnlyError) or "MISCONF" in text:
            return StoreError(
                f"{where} takes no writes",
                code="store-readonly",
                hint="it is a replica, or cannot write to its disk: give the primary's URL, or look there",
            )
        if isinstance(error, kinds.OutOfMemoryError):
            return StoreError(
                f"{where} has no memory left",
                code="store-full",
                hint="raise its maxmemory, or let sessions and runs end sooner",
            )
        if "WRONGTYPE" in text:
            return self._not_ours()
        if text.startswith("BUSY"):
            return StoreError(
                f"{where} is busy with a script",
                code="store-locked",
                hint="another client holds the server; try again",
                retryable=True,
            )
        if isinstance(error, (kinds.ConnectionError, OSError)):
            return StoreError(
                f"{where} cannot be reached: {type(error).__name__}",
                code="store-unreachable",
                hint="look whether the server runs; whether a write has happened is not known",
                retryable=True,
            )
        return StoreError(
            f"{where} could not be used: {type(error).__name__}", hint="look at the server and its log"
        )

    def __repr__(self) -> str:
        return f"Redis({self._where!r}, prefix={self._prefix!r})"


class _Home:
    """A thread with a loop, and the connections that live there."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.client = connect()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run_loop, args=(self._loop,), name="dspex-redis-store", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, _stop, self._loop)

    def start(self, job: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(job, self._loop)

    def end(self, seconds: float) -> None:
        """Wait for what was asked, close the connections and end the thread."""
        try:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(seconds)
        finally:
            _stop(self._loop)
            self._thread.join(seconds)

    async def _end(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if rest:
            await asyncio.wait(rest)
        await self.client.connection_pool.disconnect()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(loop.stop)


# -- what is sent and what comes ------------------------------------------------------------------------


def _import_redis() -> Any:
    try:
        import redis
        import redis.asyncio
        import redis.asyncio.retry
        import redis.backoff
    except ImportError as err:
        raise ConfigError(
            "a Redis store needs redis-py", code="no-redis", hint="`pip install 'dspex[redis]'`"
        ) from err
    return redis


def _data(value: str | bytes | float) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else repr(value).encode()


def text_of(data: bytes) -> str:
    """A text that the server has as bytes."""
    return data.decode("utf-8", "surrogatepass")


def bounded(name: str) -> str:
    """A name that is kept.

    Raises:
        StoreError: If it is too long (`store-too-large`).
    """
    size = len(_data(name))
    if size > MAX_NAME_BYTES:
        raise StoreError(
            f"a name is {size:,} bytes, and a Redis store takes {MAX_NAME_BYTES:,}",
            code="store-too-large",
            hint="give runs, sessions, keys, pools and users short names",
        )
    return name


def name_of(name: str) -> str:
    """A name that is part of a key's.

    Raises:
        StoreError: If it is empty (`store-bad-name`) or too long (`store-too-large`).
    """
    if not name:
        raise StoreError(
            "a name is empty", code="store-bad-name", hint="give every run, session and key a name"
        )
    return bounded(name)


def take_over_of(take_over: bool | str) -> tuple[str, str]:
    """From whom a lease may be taken over, as scripts have it: from anybody, from one owner, from nobody."""
    if isinstance(take_over, str):
        return "from", take_over
    return ("any" if take_over else ""), ""


def pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """A hash as the server says it: names and values in turn."""
    return zip(flat[::2], flat[1::2], strict=True)


# -- forks ------------------------------------------------------------------------------------------

_stores: weakref.WeakSet[RedisServer] = weakref.WeakSet()
_abandoned: list[_Home] = []


def _after_fork_in_child() -> None:
    for store in list(_stores):  # the thread did not come along
        store._lock = threading.Lock()
        if store._home is not None:  # its sockets are the parent's: kept, so that nothing closes or uses them
            _abandoned.append(store._home)
            store._home = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
