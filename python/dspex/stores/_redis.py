"""`Redis`: runs and sessions on a server that many machines share.

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
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgpack

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError, DspexError, StoreError
from dspex.stores._outcome import outcome_of
from dspex.stores._redis_scripts import APPLICATION, VERSION, RunScripts, Script, SessionScripts
from dspex.stores._runs import (
    ENDED,
    Lease,
    RunInfo,
    RunStatus,
    StepRow,
    busy,
    check_size,
    exists,
    lost,
    not_found,
    too_many_resumes,
)
from dspex.stores._sessions import (
    Changes,
    Claimed,
    Entry,
    NewSession,
    SessionInfo,
    SessionLease,
    Turn,
    Use,
    quota_exceeded,
    session_busy,
    session_exists,
    session_moved,
    session_not_found,
    state_conflict,
)

__all__ = ["Redis"]

T = TypeVar("T")

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_NAME_BYTES: Final = 1024
"""What an id, a pool, a user or a key may have: they are parts of the names of keys."""
RETENTION_SECONDS: Final = 30 * 24 * 3600.0
ANSWER_SECONDS: Final = 5.0
GRACE_SECONDS: Final = 5.0
"""How long a caller waits beyond the deadline of its command, for the thread to say that it is over."""
PRUNE_EVERY: Final = 60.0
CONNECTIONS: Final = 32
PAGE: Final = 500
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_BEGIN: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'application', ARGV[1], 'version', ARGV[2])
end
"""


class Redis:
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
        self._retention = None if retention is None else check_seconds(retention, "retention")
        self._max = max_bytes
        self._connections = connections
        self._clock = clock
        self._pruned = 0.0
        self._lock = threading.Lock()
        self._home: _Home | None = None
        _stores.add(self)

    # -- runs ---------------------------------------------------------------------------------------

    async def create_run(
        self, run_id: str, *, pipeline: str, fingerprint: bytes, inputs: bytes, owner: str, lease: float
    ) -> Lease:
        """See `RunStore.create_run`."""
        check_size(inputs, f"the inputs of run {run_id}", self._max)
        if self._retention is not None and time.monotonic() - self._pruned >= PRUNE_EVERY:
            # Before, so that a run whose begin has failed is not there.
            self._pruned = time.monotonic()
            await self.prune_runs(self._retention)
        said = await self._ask(RunScripts.create, _name(run_id), pipeline, fingerprint, inputs, owner, lease)
        if said[0] == b"exists":
            raise exists(run_id)
        return Lease(run_id, int(said[2]), float(said[1]))

    async def claim_run(
        self,
        run_id: str,
        *,
        owner: str,
        lease: float,
        max_resumes: int | None = None,
        take_over: bool | str = False,
    ) -> tuple[RunInfo, Lease]:
        """See `RunStore.claim_run`."""
        most = "" if max_resumes is None else max_resumes
        said = await self._ask(RunScripts.claim, _name(run_id), owner, lease, most, *_take_over(take_over))
        if said[0] == b"busy":
            raise busy(run_id, _text(said[1]), float(said[2]))
        if said[0] == b"resumes":
            raise too_many_resumes(run_id, int(said[1]))
        _check_run(said, run_id)
        info = _run(run_id, said[1])
        return info, Lease(run_id, info.epoch, info.lease_until)

    async def renew_lease(self, lease: Lease, seconds: float) -> Lease:
        """See `RunStore.renew_lease`."""
        said = await self._ask(RunScripts.renew, _name(lease.run_id), lease.epoch, seconds)
        _check_run(said, lease.run_id)
        return lease._replace(until=float(said[1]))

    async def record_steps(self, lease: Lease, rows: Sequence[StepRow]) -> None:
        """See `RunStore.record_steps`."""
        for row in rows:
            check_size(row.outcome, f"what {row.path} gave", self._max)
        values = [value for row in rows for value in row[:-1]]
        _check_run(
            await self._ask(RunScripts.record, _name(lease.run_id), lease.epoch, *values), lease.run_id
        )

    async def steps(self, run_id: str) -> list[StepRow]:
        """See `RunStore.steps`."""
        (_, found) = await self._ask(RunScripts.steps, _name(run_id))
        rows = []
        for path, packed in _pairs(found):
            status, digest, fingerprint, outcome, seconds, at = msgpack.unpackb(packed, raw=True)
            row = (_text(path), _text(status), digest, fingerprint, outcome, float(seconds), float(at))
            rows.append(StepRow(*row))
        return rows

    async def forget_steps(self, lease: Lease, paths: Sequence[str]) -> int:
        """See `RunStore.forget_steps`."""
        said = await self._ask(RunScripts.forget, _name(lease.run_id), lease.epoch, *paths)
        _check_run(said, lease.run_id)
        return int(said[1])

    async def update_run(self, lease: Lease, *, fingerprint: bytes) -> None:
        """See `RunStore.update_run`."""
        said = await self._ask(RunScripts.update, _name(lease.run_id), lease.epoch, fingerprint)
        _check_run(said, lease.run_id)

    async def end_run(self, lease: Lease, status: RunStatus, outcome: bytes | None = None) -> None:
        """See `RunStore.end_run`."""
        check_size(outcome, f"what run {lease.run_id} came to", self._max)
        there = (0, b"") if outcome is None else (1, outcome)
        said = await self._ask(RunScripts.end, _name(lease.run_id), lease.epoch, status, *there)
        _check_run(said, lease.run_id)

    async def release_run(self, lease: Lease) -> None:
        """See `RunStore.release_run`."""
        await self._ask(RunScripts.release, _name(lease.run_id), lease.epoch)

    async def run(self, run_id: str) -> RunInfo | None:
        """See `RunStore.run`."""
        (_, info) = await self._ask(RunScripts.read, _name(run_id))
        return None if info[0] is None else _run(run_id, info)

    async def runs(
        self, *, pipeline: str | None = None, status: RunStatus | None = None, limit: int = 100
    ) -> list[RunInfo]:
        """See `RunStore.runs`."""
        found = await self._pages(RunScripts.page, (pipeline, status), limit)
        return [_run(_text(info[11]), info[:11]) for info in found]

    async def drop_run(self, run_id: str) -> bool:
        """See `RunStore.drop_run`."""
        return bool((await self._ask(RunScripts.drop, _name(run_id)))[1])

    async def prune_runs(self, older_than: float, statuses: Sequence[RunStatus] = ENDED) -> int:
        """See `RunStore.prune_runs`."""
        gone, kept = 0, 0
        while True:
            seen: int
            dropped: int
            (_, seen, dropped) = await self._ask(RunScripts.prune, older_than, kept, *statuses)
            gone, kept = gone + dropped, kept + seen - dropped
            if seen < PAGE:
                return gone

    # -- sessions -----------------------------------------------------------------------------------

    async def create_session(
        self,
        new: NewSession,
        *,
        owner: str,
        lease: float,
        most_of_pool: int | None = None,
        most_of_user: int | None = None,
    ) -> SessionLease:
        """See `SessionStore.create_session`."""
        check_size(new.settings, f"what session {new.session_id} is set to", self._max)
        for name in (new.pool, new.user):
            _bounded(name)
        times = (new.idle_ttl, new.max_age)
        most = (most_of_pool, most_of_user)
        said = await self._ask(
            SessionScripts.create,
            _name(new.session_id),
            new.pool,
            new.user,
            new.settings,
            *("" if each is None else each for each in times),
            owner,
            lease,
            *("" if each is None else each for each in most),
        )
        if said[0] == b"exists":
            raise session_exists(new.session_id)
        if said[0] == b"quota":
            if said[1] == b"pool":
                raise quota_exceeded(new.session_id, "pool", new.pool, most_of_pool or 0)
            raise quota_exceeded(new.session_id, "user", new.user, most_of_user or 0)
        return SessionLease(new.session_id, int(said[2]), float(said[1]))

    async def claim_session(
        self, session_id: str, *, owner: str, lease: float, take_over: bool | str = False
    ) -> Claimed:
        """See `SessionStore.claim_session`."""
        said = await self._ask(SessionScripts.claim, _name(session_id), owner, lease, *_take_over(take_over))
        if said[0] == b"busy":
            raise session_busy(session_id, _text(said[1]), float(said[2]))
        _check_session(said, session_id)
        (_, values, entries, versions, last, turns) = said
        info = _session(values)
        right = SessionLease(session_id, info.epoch, info.lease_until)
        return Claimed(info, right, _entries(entries, versions), _turns(last, turns))

    async def commit_session(self, lease: SessionLease, changes: Changes, *, seconds: float) -> SessionInfo:
        """See `SessionStore.commit_session`."""
        written, removed = [], []
        for key, value in changes.entries.items():
            _bounded(key)
            if value is None:
                removed.append(key)
            else:
                check_size(value, f"{key!r} of session {lease.session_id}", self._max)
                written.append((key, value))
        for turn in changes.turns:
            check_size(turn, f"a turn of session {lease.session_id}", self._max)
        expected = list(changes.expected.items())
        said = await self._ask(
            SessionScripts.commit,
            _name(lease.session_id),
            lease.epoch,
            seconds,
            changes.forget_to,
            *(len(each) for each in (expected, written, removed, changes.turns)),
            *(each for pair in expected for each in pair),
            *(each for pair in written for each in pair),
            *removed,
            *changes.turns,
        )
        if said[0] == b"conflict":
            key = _text(said[1])
            raise state_conflict(lease.session_id, key, changes.expected[key], int(said[2]))
        _check_session(said, lease.session_id)
        return _session(said[1])

    async def renew_sessions(self, uses: Sequence[Use], seconds: float) -> list[str]:
        """See `SessionStore.renew_sessions`."""
        gone: list[str] = []
        for first in range(0, len(uses), PAGE):
            some = uses[first : first + PAGE]
            values = [each for use in some for each in (_name(use.lease[0]), use.lease[1], use.idle)]
            said = await self._ask(SessionScripts.renew, seconds, *values)
            gone += [_text(each) for each in said[1]]
        return gone

    async def release_session(self, lease: SessionLease, *, idle: float = 0.0) -> None:
        """See `SessionStore.release_session`."""
        await self._ask(SessionScripts.release, _name(lease.session_id), lease.epoch, idle)

    async def session(self, session_id: str) -> SessionInfo | None:
        """See `SessionStore.session`."""
        said = await self._ask(SessionScripts.read, _name(session_id))
        return None if said[0] == b"none" else _session(said[1])

    async def session_entries(self, session_id: str) -> dict[str, Entry]:
        """See `SessionStore.session_entries`."""
        said = await self._ask(SessionScripts.entries, _name(session_id))
        return {} if said[0] == b"none" else _entries(*said[1:])

    async def session_turns(self, session_id: str) -> list[Turn]:
        """See `SessionStore.session_turns`."""
        said = await self._ask(SessionScripts.turns, _name(session_id))
        return [] if said[0] == b"none" else _turns(*said[1:])

    async def sessions(
        self, *, pool: str | None = None, user: str | None = None, limit: int = 100
    ) -> list[SessionInfo]:
        """See `SessionStore.sessions`."""
        return [_session(info) for info in await self._pages(SessionScripts.page, (pool, user), limit)]

    async def drop_session(self, session_id: str) -> bool:
        """See `SessionStore.drop_session`."""
        return bool((await self._ask(SessionScripts.drop, _name(session_id)))[1])

    async def expire_sessions(self, limit: int = 1000) -> list[str]:
        """See `SessionStore.expire_sessions`."""
        return [_text(each) for each in (await self._ask(SessionScripts.expire, limit))[1]]

    # -- who does the work --------------------------------------------------------------------------

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
        if cause is not None:
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


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _bounded(name: str) -> str:
    size = len(_data(name))
    if size > MAX_NAME_BYTES:
        raise StoreError(
            f"a name is {size:,} bytes, and a Redis store takes {MAX_NAME_BYTES:,}",
            code="store-too-large",
            hint="give runs, sessions, keys, pools and users short names",
        )
    return name


def _name(name: str) -> str:
    """A name that is part of a key's.

    Raises:
        StoreError: If it is empty (`store-bad-name`) or too long (`store-too-large`).
    """
    if not name:
        raise StoreError(
            "a name is empty", code="store-bad-name", hint="give every run, session and key a name"
        )
    return _bounded(name)


def _take_over(take_over: bool | str) -> tuple[str, str]:
    if isinstance(take_over, str):
        return "from", take_over
    return ("any" if take_over else ""), ""


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _check_run(said: Sequence[Any], run_id: str) -> None:
    if said[0] == b"none":
        raise not_found(run_id)
    if said[0] == b"lost":
        raise lost(run_id)


def _check_session(said: Sequence[Any], session_id: str) -> None:
    if said[0] == b"none":
        raise session_not_found(session_id)
    if said[0] == b"moved":
        raise session_moved(session_id)


def _run(run_id: str, values: Sequence[bytes]) -> RunInfo:
    (pipeline, status, fingerprint, inputs, outcome, created, updated, epoch, resumes, owner, until) = values
    return RunInfo(
        run_id,
        _text(pipeline),
        _text(status),  # type: ignore[arg-type]
        fingerprint,
        inputs,
        outcome,
        float(created),
        float(updated),
        int(epoch),
        int(resumes),
        None if owner is None else _text(owner),
        float(until),
    )


def _session(values: Sequence[bytes]) -> SessionInfo:
    (
        pool,
        user,
        settings,
        idle,
        age,
        created,
        used,
        expires,
        version,
        size,
        epoch,
        owner,
        until,
        turns,
        name,
    ) = values
    return SessionInfo(
        _text(name),
        _text(pool),
        _text(user),
        settings,
        float(idle) if idle else None,
        float(age) if age else None,
        float(created),
        float(used),
        float(expires) if expires else None,
        int(version),
        int(turns),
        int(size),
        int(epoch),
        None if owner is None else _text(owner),
        float(until),
    )


def _entries(entries: Sequence[bytes], versions: Sequence[bytes]) -> dict[str, Entry]:
    numbers = dict(_pairs(versions))
    return {_text(key): Entry(int(numbers[key]), value) for key, value in _pairs(entries)}


def _turns(last: bytes, turns: Sequence[bytes]) -> list[Turn]:
    first = int(last) - len(turns) + 1
    return [Turn(first + index, value) for index, value in enumerate(turns)]


# -- forks ------------------------------------------------------------------------------------------

_stores: weakref.WeakSet[Redis] = weakref.WeakSet()
_abandoned: list[_Home] = []


def _after_fork_in_child() -> None:
    for store in list(_stores):  # the thread did not come along
        store._lock = threading.Lock()
        if store._home is not None:  # its sockets are the parent's: kept, so that nothing closes or uses them
            _abandoned.append(store._home)
            store._home = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
