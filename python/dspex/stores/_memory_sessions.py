"""The sessions of `Memory`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
    end_of,
    quota_exceeded,
    session_busy,
    session_exists,
    session_moved,
    session_not_found,
    state_conflict,
)

__all__ = ["MemorySessions"]


@dataclass(slots=True)
class _Session:
    """A session and all that it has."""

    info: SessionInfo
    entries: dict[str, Entry] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)

    def used(self, now: float) -> None:
        info = self.info
        used = max(now, info.used)
        expires = end_of(info.created, used, info.idle_ttl, info.max_age)
        self.info = info._replace(used=used, expires=expires)


class MemorySessions:
    """What `Memory` does as a `SessionStore`."""

    _max: int
    _clock: Callable[[], float]

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._epochs = 0

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
        check_size(new.settings, f"the settings of session {new.session_id}", self._max)
        if self._there(new.session_id) is not None:
            raise session_exists(new.session_id)
        self._check_sessions(new.session_id, "pool", new.pool, most_of_pool)
        if new.user:
            self._check_sessions(new.session_id, "user", new.user, most_of_user)
        now = self._clock()
        epoch = self._epoch()
        expires = end_of(now, now, new.idle_ttl, new.max_age)
        info = SessionInfo(*new, now, now, expires, 0, 0, 0, epoch, owner, now + lease)
        self._sessions[new.session_id] = _Session(info)
        return SessionLease(new.session_id, epoch, now + lease)

    async def claim_session(
        self, session_id: str, *, owner: str, lease: float, take_over: bool | str = False
    ) -> Claimed:
        """See `SessionStore.claim_session`."""
        session = self._there(session_id)
        if session is None:
            raise session_not_found(session_id)
        info, now = session.info, self._clock()
        if info.owner is not None and info.lease_until > now and take_over not in (True, info.owner):
            raise session_busy(session_id, info.owner, info.lease_until - now)
        epoch = self._epoch()
        session.info = info._replace(epoch=epoch, owner=owner, lease_until=now + lease)
        session.used(now)
        granted = SessionLease(session_id, epoch, now + lease)
        return Claimed(session.info, granted, dict(session.entries), list(session.turns))

    async def commit_session(self, lease: SessionLease, changes: Changes, *, seconds: float) -> SessionInfo:
        """See `SessionStore.commit_session`."""
        for key, value in changes.entries.items():
            check_size(value, f"{key!r} of session {lease.session_id}", self._max)
        for value in changes.turns:
            check_size(value, f"a turn of session {lease.session_id}", self._max)
        session, now = self._session_of(lease), self._clock()
        for key, expected in changes.expected.items():
            there = session.entries.get(key)
            version = 0 if there is None else there.version
            if version != expected:
                raise state_conflict(lease.session_id, key, expected, version)
        version = session.info.version + 1
        for key, value in changes.entries.items():
            session.entries.pop(key, None)
            if value is not None:
                session.entries[key] = Entry(version, value)
        last = session.info.turns
        session.turns += [Turn(number, value) for number, value in enumerate(changes.turns, last + 1)]
        session.turns = [turn for turn in session.turns if turn.number > changes.forget_to]
        size = sum(len(entry.value) for entry in session.entries.values())
        size += sum(len(turn.value) for turn in session.turns)
        session.info = session.info._replace(
            version=version, turns=last + len(changes.turns), size=size, lease_until=now + seconds
        )
        session.used(now)
        return session.info

    async def renew_sessions(self, uses: Sequence[Use], seconds: float) -> list[str]:
        """See `SessionStore.renew_sessions`."""
        now, lost = self._clock(), []
        for use in uses:
            session = self._there(use.lease.session_id)
            if session is None or session.info.epoch != use.lease.epoch or session.info.owner is None:
                lost.append(use.lease.session_id)
                continue
            session.info = session.info._replace(lease_until=now + seconds)
            session.used(now - use.idle)
        return lost

    async def release_session(self, lease: SessionLease, *, idle: float = 0.0) -> None:
        """See `SessionStore.release_session`."""
        session = self._there(lease.session_id)
        if session is not None and session.info.epoch == lease.epoch and session.info.owner is not None:
            now = self._clock()
            session.info = session.info._replace(owner=None, lease_until=now)
            session.used(now - idle)

    async def session(self, session_id: str) -> SessionInfo | None:
        """See `SessionStore.session`."""
        session = self._there(session_id)
        return None if session is None else session.info

    async def session_entries(self, session_id: str) -> dict[str, Entry]:
        """See `SessionStore.session_entries`."""
        session = self._there(session_id)
        return {} if session is None else dict(session.entries)

    async def session_turns(self, session_id: str) -> list[Turn]:
        """See `SessionStore.session_turns`."""
        session = self._there(session_id)
        return [] if session is None else list(session.turns)

    async def sessions(
        self, *, pool: str | None = None, user: str | None = None, limit: int = 100
    ) -> list[SessionInfo]:
        """See `SessionStore.sessions`."""
        found = [
            session.info
            for session in self._sessions.values()
            if self._is_alive(session)
            and pool in (None, session.info.pool)
            and user in (None, session.info.user)
        ]
        return sorted(found, key=lambda info: (-info.used, info.session_id))[: max(limit, 0)]

    async def drop_session(self, session_id: str) -> bool:
        """See `SessionStore.drop_session`."""
        there = self._there(session_id) is not None
        self._sessions.pop(session_id, None)
        return there

    async def expire_sessions(self, limit: int = 1000) -> list[str]:
        """See `SessionStore.expire_sessions`."""
        over = [name for name, session in self._sessions.items() if not self._is_alive(session)][:limit]
        for session_id in over:
            del self._sessions[session_id]
        return over

    def _epoch(self) -> int:
        """The next epoch, of whatever is kept here."""
        self._epochs += 1
        return self._epochs

    def _is_alive(self, session: _Session) -> bool:
        return session.info.expires is None or session.info.expires > self._clock()

    def _there(self, session_id: str) -> _Session | None:
        session = self._sessions.get(session_id)
        return session if session is not None and self._is_alive(session) else None

    def _session_of(self, lease: SessionLease) -> _Session:
        session = self._there(lease.session_id)
        if session is None:
            raise session_not_found(lease.session_id)
        if session.info.epoch != lease.epoch or session.info.owner is None:
            raise session_moved(lease.session_id)
        return session

    def _check_sessions(self, session_id: str, quota: str, name: str, most: int | None) -> None:
        alive = filter(self._is_alive, self._sessions.values())
        if most is not None and sum(getattr(each.info, quota) == name for each in alive) >= most:
            raise quota_exceeded(session_id, quota, name, most)
