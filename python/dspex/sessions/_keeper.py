"""A runtime's sessions: made, taken up, kept, parked and ended.

Everything here runs on the runtime's event loop. One task tends to all sessions: it renews their leases in
one write, parks those that nobody calls, and removes what is over its time.

The runtime is one owner: two runtimes of a process are two. Whoever has died on this machine is known to be
gone, and its sessions are taken over at once; those of a machine that is out of sight when their leases end.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakValueDictionary

from dspex.errors import (
    DspexError,
    SessionBusy,
    SessionExists,
    SessionMoved,
    SessionNotFound,
    StateConflict,
    StoreError,
)
from dspex.protocol.handles import HandleRequest
from dspex.sessions._core import Core
from dspex.sessions._events import SessionEvent, tell
from dspex.sessions._handles import would_lose
from dspex.sessions._options import SessionOptions, SessionSettings
from dspex.sessions._session import Session
from dspex.sessions._values import Values
from dspex.stores import Changes, Claimed, NewSession, Use
from dspex.stores._owner import is_gone, owner_here
from dspex.stores._sessions import session_moved, session_not_found

__all__ = ["Host", "Keeper"]

T = TypeVar("T")

_SHORTEST: Final = 0.05
_LONGEST: Final = 30.0
"""Seconds between two looks at the sessions."""
_CLOSE_SECONDS: Final = 10.0

_log = logging.getLogger("dspex.sessions")


class Host(Protocol):
    """What a runtime is for its sessions."""

    @property
    def timeout(self) -> float:
        """Seconds that a call has."""
        ...

    async def pool_of(self, name: str) -> Any:
        """The pool of this name, which is started if it is not running.

        Raises:
            ConfigError: If there is none.
        """
        ...

    def in_use(self) -> AbstractContextManager[None]:
        """Have modules find this runtime."""
        ...

    async def at_home(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await something on the runtime's loop."""
        ...


class Keeper:
    """The sessions of one runtime.

    Args:
        settings: How they are kept.
        host: The runtime.
    """

    def __init__(self, settings: SessionSettings, host: Host) -> None:
        self.host = host
        self.settings = settings
        self.store = settings.open_store()
        self._is_ours = self.store is not settings.store
        self._values = Values(settings.classes, settings.value_bytes)
        self._owner = owner_here(secrets.token_hex(4))
        self._loop = asyncio.get_running_loop()
        self._active: dict[str, Core] = {}
        self._taking: dict[str, asyncio.Task[Core]] = {}
        self._faces: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._tending: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._shortest_ttl = float("inf")  # of all sessions so far: a long call has to count as a use

    def __len__(self) -> int:
        return len(self._active)

    # -- beginning ----------------------------------------------------------------------------------

    async def begin(self, options: SessionOptions, session_id: str | None) -> Session:
        """Make a session.

        Raises:
            SessionExists: If there is one of the name.
            SessionQuotaExceeded: If its pool or user has as many as it may have.
        """
        name = secrets.token_urlsafe(16) if session_id is None else session_id
        new = NewSession(name, options.pool, options.user, options.kept(), options.idle_ttl, options.max_age)
        lease = await self.store.create_session(
            new,
            owner=self._owner,
            lease=self.settings.lease,
            most_of_pool=self.settings.most_of_pool,
            most_of_user=self.settings.most_of_user,
        )
        core = Core(lease, options, {}, [], version=0, last_turn=0, age=0.0, now=self._loop.time())
        self._keep(core)
        tell("created", name, pool=options.pool)
        return self._face(core)

    async def resume(self, session_id: str, *, take_over: bool = False) -> Session:
        """Take a session up.

        Raises:
            SessionNotFound: If there is none, or its time is over.
            SessionBusy: If another host has it.
        """
        core = self._active.get(session_id)
        if core is not None and core.gone is None and not core.doubtful:  # and is it still ours?
            await self._renew([core])
        return self._face(await self.active(session_id, take_over=take_over))

    async def begin_or_resume(self, options: SessionOptions, session_id: str) -> Session:
        """Take a session up, or make it if there is none."""
        for _ in range(3):  # another host may do the same
            with suppress(SessionNotFound):
                return await self.resume(session_id)
            with suppress(SessionExists):
                return await self.begin(options, session_id)
        return await self.resume(session_id)

    def _face(self, core: Core) -> Session:
        face = self._faces.get(core.session_id)
        if face is None:
            face = Session(core.session_id, core.options, self, core, self._values)
            self._faces[core.session_id] = face
        face._core = core
        return face

    def _keep(self, core: Core) -> None:
        self._active[core.session_id] = core
        if core.options.idle_ttl is not None:
            self._shortest_ttl = min(self._shortest_ttl, core.options.idle_ttl)
        if self._tending is None or self._tending.done():
            self._tending = asyncio.create_task(self._tend())

    # -- having -------------------------------------------------------------------------------------

    async def active(self, session_id: str, *, take_over: bool = False) -> Core:
        """What this runtime has of a session, which it takes up if it has it not.

        Raises:
            SessionNotFound: If there is none, or its time is over.
            SessionBusy: If another host has it.
        """
        while True:
            core = self._active.get(session_id)
            if core is None or core.doubtful:
                taking = self._taking.get(session_id)
                if taking is None:
                    taking = asyncio.create_task(self._take(session_id, take_over))
                    self._taking[session_id] = taking
                    taking.add_done_callback(partial(self._took, session_id))
                return await asyncio.shield(taking)
            if core.gone is not None:  # it is being parked, and is taken up again after that
                await core.gone.wait()
                continue
            if core.ends_in(self._loop.time()) <= 0 and not core.order.taken:
                await self._expire(core)
                raise session_not_found(session_id)
            return core

    def _took(self, session_id: str, taking: asyncio.Task[Core]) -> None:
        self._taking.pop(session_id, None)
        if not taking.cancelled():
            taking.exception()  # whoever waited for it may have gone away

    async def _take(self, session_id: str, take_over: bool) -> Core:
        before = self._active.get(session_id)
        claimed = await self._claimed(session_id, take_over)
        info = claimed.info
        options = SessionOptions.restored(
            info.settings,
            pool=info.pool,
            user=info.user,
            idle_ttl=info.idle_ttl,
            max_age=info.max_age,
        )
        if before is not None:  # of which it was not known whether a write had happened
            before.lease, before.entries, before.turns = claimed.lease, claimed.entries, claimed.turns
            before.version, before.last_turn, before.doubtful = info.version, info.turns, False
            before.live.clear()  # an object may be ahead of what was kept
            return before
        core = Core(
            claimed.lease,
            options,
            claimed.entries,
            claimed.turns,
            version=info.version,
            last_turn=info.turns,
            age=info.used - info.created,
            now=self._loop.time(),
        )
        self._keep(core)
        tell("resumed", session_id, pool=options.pool)
        return core

    async def _claimed(self, session_id: str, take_over: bool | str) -> Claimed:
        """Become the owner; at once where the one before is known to be gone, or is this runtime."""
        try:
            return await self.store.claim_session(
                session_id, owner=self._owner, lease=self.settings.lease, take_over=take_over or self._owner
            )
        except SessionBusy as error:
            if not is_gone(error.owner):
                raise
            gone = error.owner
        return await self.store.claim_session(
            session_id, owner=self._owner, lease=self.settings.lease, take_over=gone
        )

    async def commit(self, core: Core, changes: Changes) -> int:
        """Write changes; gives the version of what was written.

        Raises:
            StateConflict: If an entry has another version.
            SessionMoved: If another host has taken the session.
            SessionNotFound: If the session is gone.
            StoreError: If it could not be written, or whether it was is not known.
        """
        try:
            info = await self.store.commit_session(core.lease, changes, seconds=self.settings.lease)
        except StateConflict:
            raise
        except (SessionMoved, SessionNotFound) as error:
            if core.gone is not None:  # it was being parked, here
                raise
            self._lose(core, "lost" if isinstance(error, SessionMoved) else "expired")
            raise
        except BaseException:
            core.doubtful = True  # it may have been written: what is there is read before it is used again
            raise
        core.written(changes, info.version)
        self.used(core)
        return info.version

    def used(self, core: Core) -> None:
        """The session is used now."""
        core.used = self._loop.time()

    # -- tending ------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        while self._active:
            await asyncio.sleep(self._interval())
            try:
                await self.tend()
            except DspexError as error:  # the store may be there again next time
                _log.warning("sessions could not be kept: %s", error)
            except Exception:  # noqa: BLE001 - whatever a store of the user's raises, leases have to go on
                _log.exception("sessions could not be kept")

    def _interval(self) -> float:
        limits = [self.settings.lease / 3, self._shortest_ttl / 3, _LONGEST]
        if self.settings.park_after is not None:
            limits.append(self.settings.park_after / 4)
        return max(_SHORTEST, min(limits))

    async def tend(self) -> None:
        """Renew the leases, park what nobody calls, and remove what is over its time."""
        now = self._loop.time()
        for core in list(self._active.values()):
            if core.order.taken or core.gone is not None:
                continue
            if core.ends_in(now) <= 0:
                await self._expire(core)
            elif self._may_park(core, now):
                await self._park(core)
        await self._renew([core for core in self._active.values() if core.gone is None])
        for session_id in await self.store.expire_sessions():
            tell("expired", session_id)

    async def _renew(self, cores: Sequence[Core]) -> None:
        """Keep sessions, and forget those that are not this host's any more."""
        now = self._loop.time()
        uses = [Use(core.lease, 0.0 if core.order.taken else now - core.used) for core in cores]
        for session_id in await self.store.renew_sessions(uses, self.settings.lease):
            core = self._active.get(session_id)
            if core is not None and core.gone is None:
                there = await self.store.session(session_id)
                if there is None or there.epoch != core.lease.epoch:
                    self._lose(core, "expired" if there is None else "lost")

    def _may_park(self, core: Core, now: float) -> bool:
        after = self.settings.park_after
        if after is None or now - core.used < after:
            return False
        return not would_lose(core, self._values)

    async def park(self, session_id: str) -> None:
        """Give a session up, if this runtime has it, as soon as no call of it runs."""
        core = self._active.get(session_id)
        if core is None or core.gone is not None:
            return
        await core.order.enter(self.host.timeout, always=True)
        try:
            if self._active.get(session_id) is core and core.gone is None:
                await self._park(core)
        finally:
            core.order.leave()

    async def _park(self, core: Core) -> None:
        core.state, core.gone = "releasing", asyncio.Event()
        try:
            await self._leave_worker(core)
            await self.store.release_session(core.lease, idle=self._loop.time() - core.used)
            tell("parked", core.session_id)
        finally:
            self._forget(core)

    async def _expire(self, core: Core) -> None:
        core.state, core.gone = "releasing", asyncio.Event()
        try:
            await self._leave_worker(core)
            # The store's clock decides whether it is over, and whoever removes it tells of it.
            await self.store.release_session(core.lease, idle=self._loop.time() - core.used)
        finally:
            self._forget(core)

    async def end(self, session_id: str) -> None:
        """End a session for good.

        Raises:
            SessionNotFound: If there is none.
            SessionBusy: If another host has it.
        """
        while True:
            core = await self.active(session_id)
            await core.order.enter(self.host.timeout, always=True)
            if core.state == "active":
                break
            core.order.leave()  # it was parked meanwhile
        try:
            if await self.store.renew_sessions([Use(core.lease, 0.0)], 1.0):
                raise session_moved(session_id)
            core.state, core.gone = "releasing", asyncio.Event()
            await self._leave_worker(core)
            await self.store.drop_session(session_id)
            tell("ended", session_id)
        finally:
            self._forget(core)
            core.order.leave()

    def _lose(self, core: Core, event: SessionEvent) -> None:
        """Another host has the session, or it is gone: nothing of it is left here."""
        tell(event, core.session_id)
        self._forget(core)
        if core.place is not None:  # its objects are of no use to anybody
            task = asyncio.create_task(self._leave_worker(core))
            self._leaving.add(task)
            task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("a session's objects could not be dropped: %s", error)

    def _forget(self, core: Core) -> None:
        core.state = "gone"
        if self._active.get(core.session_id) is core:
            del self._active[core.session_id]
        if core.gone is not None:
            core.gone.set()

    async def _leave_worker(self, core: Core) -> None:
        """Let a session live on no worker, and drop its objects there."""
        place, core.place = core.place, None
        live, core.live = core.live, {}
        if place is None or place.worker is None:
            return
        pool = await self.host.pool_of(core.options.pool)
        if live:
            request = HandleRequest(do="end", session=core.tag)
            with suppress(DspexError):  # a worker that is gone has none of them
                await pool.call(request, place=place, pinned=place.number, timeout=_CLOSE_SECONDS)
        pool.leave(place)

    async def aclose(self) -> None:
        """Give all sessions up; other hosts may have them from now on."""
        tasks = [*self._leaving, *self._taking.values()]
        if self._tending is not None:
            tasks.append(self._tending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cores = list(self._active.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                for core in cores:
                    with suppress(StoreError):
                        idle = self._loop.time() - core.used
                        await self.store.release_session(core.lease, idle=idle)
                    self._forget(core)
        if self._is_ours:
            await self.store.close()
