"""`SessionStore`: what a store of sessions does, and the values that go in and out.

A session has entries (a key, a version and a value), turns of a history (a number and a value), and one
owner at a time: the host that has the `SessionLease` with the newest epoch. Every write says its lease, and
the store compares the epoch in the same transaction, so a host that was away while another took over writes
nothing.

A session ends by itself: `idle_ttl` seconds after it was last used, and `max_age` seconds after it was made.
The store's clock decides, and a session whose time is over is gone for every method from that moment on, with
all that it had, though its rows may be removed later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from dspex.errors import (
    SessionBusy,
    SessionExists,
    SessionMoved,
    SessionNotFound,
    SessionQuotaExceeded,
    StateConflict,
)

__all__ = [
    "Changes",
    "Claimed",
    "Entry",
    "NewSession",
    "SessionInfo",
    "SessionLease",
    "SessionStore",
    "Turn",
    "Use",
    "end_of",
    "quota_exceeded",
    "session_busy",
    "session_exists",
    "session_moved",
    "session_not_found",
    "state_conflict",
]


class SessionLease(NamedTuple):
    """The right to write a session.

    Attributes:
        session_id: The session.
        epoch: Which owner of the session it is. A later one has a larger number, also if the session was
            dropped and another was made of the name meanwhile.
        until: When it ends if it is not renewed, by the store's clock, in seconds since 1970.
    """

    session_id: str
    epoch: int
    until: float


class NewSession(NamedTuple):
    """A session that is to be.

    Attributes:
        session_id: Its name.
        pool: The pool whose workers it lives with.
        user: For whom it is: quotas count by this; empty for nobody.
        settings: What its maker wants to find again, as `dspex.wire.dumps` has it.
        idle_ttl: Seconds after its last use when it ends; None for never.
        max_age: Seconds after it was made when it ends; None for never.
    """

    session_id: str
    pool: str = ""
    user: str = ""
    settings: bytes = b""
    idle_ttl: float | None = None
    max_age: float | None = None


class SessionInfo(NamedTuple):
    """A session.

    Attributes:
        session_id: Its name.
        pool: The pool whose workers it lives with.
        user: For whom it is.
        settings: What its maker wants to find again.
        idle_ttl: Seconds after its last use when it ends.
        max_age: Seconds after it was made when it ends.
        created: When it was made, by the store's clock, in seconds since 1970.
        used: When it was last used.
        expires: When it ends, unless it is used before; None for never.
        version: How many commits it has had; an entry's version is that of the commit that wrote it.
        turns: How many turns its history has had: the number of the last.
        size: Bytes of its entries and turns.
        epoch: The number of its last owner; see `SessionLease`.
        owner: Which host has it; None for none.
        lease_until: When the owner's lease ends.
    """

    session_id: str
    pool: str
    user: str
    settings: bytes
    idle_ttl: float | None
    max_age: float | None
    created: float
    used: float
    expires: float | None
    version: int
    turns: int
    size: int
    epoch: int
    owner: str | None
    lease_until: float


class Entry(NamedTuple):
    """A value under a key.

    Attributes:
        version: The session's version with the commit that wrote it.
        value: Its bytes.
    """

    version: int
    value: bytes


class Turn(NamedTuple):
    """A turn of the history.

    Attributes:
        number: Counted from 1, without a gap but where the oldest were forgotten.
        value: Its bytes.
    """

    number: int
    value: bytes


class Changes(NamedTuple):
    """What a commit writes: all of it or nothing.

    Attributes:
        entries: Values by key; None removes what is there.
        expected: The version an entry must have, by key: 0 where there must be none.
        turns: What is appended to the history, in this order.
        forget_to: Turns up to this number are forgotten.
    """

    entries: Mapping[str, bytes | None] = {}
    expected: Mapping[str, int] = {}
    turns: Sequence[bytes] = ()
    forget_to: int = 0


class Use(NamedTuple):
    """That a host still has a session.

    Attributes:
        lease: Its lease.
        idle: Seconds since the session was last used.
    """

    lease: SessionLease
    idle: float


class Claimed(NamedTuple):
    """A session as its new owner gets it.

    Attributes:
        info: The session, with the new owner.
        lease: The right to write it.
        entries: All values by key.
        turns: The history, the oldest first.
    """

    info: SessionInfo
    lease: SessionLease
    entries: dict[str, Entry]
    turns: list[Turn]


def end_of(created: float, used: float, idle_ttl: float | None, max_age: float | None) -> float | None:
    """When a session ends, unless it is used before; None for never."""
    ends = [
        start + seconds for start, seconds in ((used, idle_ttl), (created, max_age)) if seconds is not None
    ]
    return min(ends, default=None)


@runtime_checkable
class SessionStore(Protocol):
    """Keeps sessions. Every method may raise a `StoreError` of the store's own, besides what it says.

    A write whose caller is cancelled has happened or has not happened when the cancellation arrives: a store
    waits for the outcome first.
    """

    async def create_session(
        self,
        new: NewSession,
        *,
        owner: str,
        lease: float,
        most_of_pool: int | None = None,
        most_of_user: int | None = None,
    ) -> SessionLease:
        """Make a session, with the caller as its owner for `lease` seconds.

        Args:
            new: The session.
            owner: Which host the caller is.
            lease: For how many seconds.
            most_of_pool: How many sessions its pool may have, this one included; None for any number.
            most_of_user: How many sessions its user may have, this one included; a session for nobody counts
                for none.

        Raises:
            SessionExists: If there is one of the name.
            SessionQuotaExceeded: If there would be too many. Those whose time is over do not count.
        """
        ...

    async def claim_session(
        self, session_id: str, *, owner: str, lease: float, take_over: bool | str = False
    ) -> Claimed:
        """Become the owner of a session, in one step that two cannot do at once. It counts as a use.

        Args:
            session_id: The session.
            owner: Which host the caller is.
            lease: For how many seconds.
            take_over: Whether to become it although another's lease lasts; or the one owner to take it over
                from, which is known to be gone.

        Raises:
            SessionNotFound: If there is no such session, or its time is over.
            SessionBusy: If another's lease lasts.
        """
        ...

    async def commit_session(self, lease: SessionLease, changes: Changes, *, seconds: float) -> SessionInfo:
        """Write changes, all or none of them. It counts as a use, and keeps the session for `seconds` more.

        Returns:
            The session afterwards; its `version` is that of every entry that was written.

        Raises:
            SessionMoved: If another has become its owner, or it was given up.
            SessionNotFound: If it is gone.
            StateConflict: If an entry has another version than was expected.
            StoreError: If a value is too large (`store-too-large`).
        """
        ...

    async def renew_sessions(self, uses: Sequence[Use], seconds: float) -> list[str]:
        """Keep sessions for so many seconds from now, and say when each was last used.

        Returns:
            Those that are the caller's no longer, or gone.
        """
        ...

    async def release_session(self, lease: SessionLease, *, idle: float = 0.0) -> None:
        """Give a session up, so that any host may have it; of one that is another's by now, nothing.

        Args:
            lease: The caller's.
            idle: Seconds since it was last used.
        """
        ...

    async def session(self, session_id: str) -> SessionInfo | None:
        """A session; None if there is no such, or its time is over."""
        ...

    async def session_entries(self, session_id: str) -> dict[str, Entry]:
        """Its values by key, whoever owns it."""
        ...

    async def session_turns(self, session_id: str) -> list[Turn]:
        """Its history, the oldest turn first, whoever owns it."""
        ...

    async def sessions(
        self, *, pool: str | None = None, user: str | None = None, limit: int = 100
    ) -> list[SessionInfo]:
        """Sessions, those that were used last first."""
        ...

    async def drop_session(self, session_id: str) -> bool:
        """Forget a session with all that it has, whoever owns it; returns whether there was one."""
        ...

    async def expire_sessions(self, limit: int = 1000) -> list[str]:
        """Remove what sessions have left whose time is over, at most so many; returns which they were."""
        ...

    async def close(self) -> None:
        """Let go of what the store holds. It can be used again."""
        ...


# -- errors, in one wording -------------------------------------------------------------------------


def session_exists(session_id: str) -> SessionExists:
    """The error for a name that is taken."""
    return SessionExists(
        f"there is a session {session_id!r} already",
        hint="resume it by its id, or give the new one another",
        session_id=session_id,
    )


def session_not_found(session_id: str) -> SessionNotFound:
    """The error for a session that is not there."""
    return SessionNotFound(
        f"there is no session {session_id!r}",
        hint="it has been closed, or its idle_ttl or max_age is over; begin a new one",
        session_id=session_id,
    )


def session_busy(session_id: str, owner: str | None, seconds: float) -> SessionBusy:
    """The error for a session that another host has."""
    who = (owner or "another").partition(" ")[0]
    return SessionBusy(
        f"session {session_id!r} is with {who}, whose lease lasts {seconds:.1f} s more",
        hint="send its calls there, try again later, or take_over=True if that host is gone",
        session_id=session_id,
        seconds=seconds,
        owner=owner or "",
    )


def session_moved(session_id: str) -> SessionMoved:
    """The error for a host that has lost a session."""
    return SessionMoved(
        f"session {session_id!r} is with another host by now",
        hint="nothing was written; send its calls there, or resume it by its id",
        session_id=session_id,
    )


def state_conflict(session_id: str, key: str, expected: int, version: int) -> StateConflict:
    """The error for an entry that was written in between."""
    return StateConflict(
        f"{key!r} of session {session_id!r} has version {version}, and {expected} was expected",
        hint="read it again and decide anew, or use `await s.state.update(key, function)`",
        session_id=session_id,
        key=key,
        expected=expected,
        version=version,
    )


def quota_exceeded(session_id: str, quota: str, name: str, most: int) -> SessionQuotaExceeded:
    """The error for one session too many.

    Args:
        session_id: The session that was to be.
        quota: Whose quota it is: `"pool"` or `"user"`.
        name: Of that.
        most: How many it may have.
    """
    return SessionQuotaExceeded(
        f"{quota} {name!r} has {most:,} sessions, as many as it may have",
        hint="close some, let them end sooner by idle_ttl=, or raise the quota",
        session_id=session_id,
        quota=quota,
        most=most,
    )
