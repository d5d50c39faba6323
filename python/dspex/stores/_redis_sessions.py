"""`RedisSessions`: sessions on a Redis server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dspex.stores._redis_scripts import SessionScripts
from dspex.stores._redis_server import PAGE, RedisServer, bounded, name_of, pairs, take_over_of, text_of
from dspex.stores._runs import check_size
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

__all__ = ["RedisSessions"]


class RedisSessions(RedisServer):
    """A `SessionStore` on a server."""

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
            bounded(name)
        times = (new.idle_ttl, new.max_age)
        most = (most_of_pool, most_of_user)
        said = await self._ask(
            SessionScripts.create,
            name_of(new.session_id),
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
        said = await self._ask(
            SessionScripts.claim, name_of(session_id), owner, lease, *take_over_of(take_over)
        )
        if said[0] == b"busy":
            raise session_busy(session_id, text_of(said[1]), float(said[2]))
        _check_session(said, session_id)
        (_, values, entries, versions, last, turns) = said
        info = _session(values)
        right = SessionLease(session_id, info.epoch, info.lease_until)
        return Claimed(info, right, _entries(entries, versions), _turns(last, turns))

    async def commit_session(self, lease: SessionLease, changes: Changes, *, seconds: float) -> SessionInfo:
        """See `SessionStore.commit_session`."""
        written, removed = [], []
        for key, value in changes.entries.items():
            bounded(key)
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
            name_of(lease.session_id),
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
            key = text_of(said[1])
            raise state_conflict(lease.session_id, key, changes.expected[key], int(said[2]))
        _check_session(said, lease.session_id)
        return _session(said[1])

    async def renew_sessions(self, uses: Sequence[Use], seconds: float) -> list[str]:
        """See `SessionStore.renew_sessions`."""
        gone: list[str] = []
        for first in range(0, len(uses), PAGE):
            some = uses[first : first + PAGE]
            values = [each for use in some for each in (name_of(use.lease[0]), use.lease[1], use.idle)]
            said = await self._ask(SessionScripts.renew, seconds, *values)
            gone += [text_of(each) for each in said[1]]
        return gone

    async def release_session(self, lease: SessionLease, *, idle: float = 0.0) -> None:
        """See `SessionStore.release_session`."""
        await self._ask(SessionScripts.release, name_of(lease.session_id), lease.epoch, idle)

    async def session(self, session_id: str) -> SessionInfo | None:
        """See `SessionStore.session`."""
        said = await self._ask(SessionScripts.read, name_of(session_id))
        return None if said[0] == b"none" else _session(said[1])

    async def session_entries(self, session_id: str) -> dict[str, Entry]:
        """See `SessionStore.session_entries`."""
        said = await self._ask(SessionScripts.entries, name_of(session_id))
        return {} if said[0] == b"none" else _entries(*said[1:])

    async def session_turns(self, session_id: str) -> list[Turn]:
        """See `SessionStore.session_turns`."""
        said = await self._ask(SessionScripts.turns, name_of(session_id))
        return [] if said[0] == b"none" else _turns(*said[1:])

    async def sessions(
        self, *, pool: str | None = None, user: str | None = None, limit: int = 100
    ) -> list[SessionInfo]:
        """See `SessionStore.sessions`."""
        return [_session(info) for info in await self._pages(SessionScripts.page, (pool, user), limit)]

    async def drop_session(self, session_id: str) -> bool:
        """See `SessionStore.drop_session`."""
        return bool((await self._ask(SessionScripts.drop, name_of(session_id)))[1])

    async def expire_sessions(self, limit: int = 1000) -> list[str]:
        """See `SessionStore.expire_sessions`."""
        return [text_of(each) for each in (await self._ask(SessionScripts.expire, limit))[1]]


def _check_session(said: Sequence[Any], session_id: str) -> None:
    if said[0] == b"none":
        raise session_not_found(session_id)
    if said[0] == b"moved":
        raise session_moved(session_id)


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
        text_of(name),
        text_of(pool),
        text_of(user),
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
        None if owner is None else text_of(owner),
        float(until),
    )


def _entries(entries: Sequence[bytes], versions: Sequence[bytes]) -> dict[str, Entry]:
    numbers = dict(pairs(versions))
    return {text_of(key): Entry(int(numbers[key]), value) for key, value in pairs(entries)}


def _turns(last: bytes, turns: Sequence[bytes]) -> list[Turn]:
    first = int(last) - len(turns) + 1
    return [Turn(first + index, value) for index, value in enumerate(turns)]
