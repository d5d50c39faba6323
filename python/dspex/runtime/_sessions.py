"""A runtime's part in its sessions: its loop, its pools, and their keeper, which begins with the first."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dspex._portal import CROSSING_SECONDS, cross, refuse_blocking, wait
from dspex.errors import ConfigError, did_you_mean
from dspex.router import use
from dspex.router._call import runtime_closed
from dspex.sessions._keeper import Keeper
from dspex.sessions._opening import SessionOpening
from dspex.sessions._options import SessionOptions, SessionSettings
from dspex.stores import SessionStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex.pool import Pool
    from dspex.runtime._pool_target import PoolTarget
    from dspex.runtime._runtime import Runtime
    from dspex.sessions._session import Session

__all__ = ["RuntimeSessions", "settings_of"]

T = TypeVar("T")

_BLOCKING_SECONDS: Final = 24 * 3600.0
"""A blocking session's call has the limits of what it calls; this is only an end to waiting for ever."""


def settings_of(given: Any) -> SessionSettings:
    """The settings that a runtime was given for its sessions.

    Raises:
        ConfigError: If they are none (`bad-session`).
    """
    if isinstance(given, SessionSettings):
        return given
    if given is None or isinstance(given, str | os.PathLike | SessionStore):
        return SessionSettings(store=given)
    raise ConfigError(
        f"sessions={type(given).__name__} is none of the forms it has",
        code="bad-session",
        hint="give a path, a store, or dspex.sessions.SessionSettings(store=...)",
    )


class RuntimeSessions:
    """The sessions of a runtime; see `dspex.sessions._keeper.Host`.

    Args:
        runtime: The runtime.
        settings: How they are kept.
        pools: Its pools.
    """

    def __init__(self, runtime: Runtime, settings: SessionSettings, pools: list[PoolTarget]) -> None:
        self._runtime = runtime
        self._settings = settings
        self._pools = pools
        self.keeper: Keeper | None = None

    def opening(
        self, session_id: str | None, options: Mapping[str, Any], *, create: bool, take_over: bool
    ) -> SessionOpening:
        """See `Runtime.session`."""
        chosen = SessionOptions(**options)
        if self._pools:
            self._target(chosen.pool)
        if session_id is not None and (not isinstance(session_id, str) or not 0 < len(session_id) <= 256):
            raise ConfigError("the id of a session is a text of 1 to 256 characters", code="bad-session")

        async def opened() -> Session:
            keeper = self._keeper()
            if session_id is None:
                return await keeper.begin(chosen, None)
            if create:
                return await keeper.begin_or_resume(chosen, session_id)
            return await keeper.resume(session_id, take_over=take_over)

        async def opened_at_home() -> Session:
            return await self.at_home(opened())

        return SessionOpening(opened_at_home, self.blocking)

    def _keeper(self) -> Keeper:
        if self.keeper is None:
            self.keeper = Keeper(self._settings, self)
        return self.keeper

    @property
    def timeout(self) -> float:
        """Seconds that a call has."""
        return self._runtime.timeout

    async def pool_of(self, name: str) -> Pool:
        """The pool of this name, started if need be."""
        return await self._target(name).open(self._runtime.timeout)

    def in_use(self) -> AbstractContextManager[None]:
        """Have modules find this runtime."""
        return use(self._runtime)

    async def at_home(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await something on the runtime's loop."""
        try:
            home = self._runtime._open_home()
        except ConfigError:
            coroutine.close()
            raise
        if asyncio.get_running_loop() is home:
            return await coroutine
        return await asyncio.wrap_future(cross(coroutine, home, runtime_closed))

    def blocking(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for something on the runtime's loop, in a thread without one."""
        try:
            home = self._runtime._open_home()
            refuse_blocking(self._runtime._home_thread, "`async with runtime.session(...)`")
        except ConfigError:
            coroutine.close()
            raise
        seconds = _BLOCKING_SECONDS + CROSSING_SECONDS
        return wait(cross(coroutine, home, runtime_closed), seconds, runtime_closed)

    def _target(self, name: str) -> PoolTarget:
        for target in self._pools:
            if target.spec.name == name:
                return target
        known = [target.spec.name for target in self._pools]
        raise ConfigError(
            f"this runtime has no pool {name!r}",
            code="no-pool",
            hint=did_you_mean(name, known) + (f"it has {', '.join(known)}" if known else "give it pools=..."),
        )

    async def aclose(self) -> None:
        """Give all sessions up."""
        if self.keeper is not None:
            await self.keeper.aclose()
