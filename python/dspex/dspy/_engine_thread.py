"""The thread on whose event loop the blocking engines of this process make their calls.

One for all of them: it starts with the first call, and ends with the last engine that is closed. An engine
that is never closed leaves it running; it is a daemon, and keeps no process. A fork has the parent's engines
and none of its threads: the first call there starts a thread of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

from dspex._portal import Portal
from dspex.errors import ConfigError
from dspex.lm import LM
from dspex.lm._exchange import aclose_here

__all__ = ["EngineThread", "Lease"]

T = TypeVar("T")

CLOSE_SECONDS: Final = 5.0
"""For the connections of one LM."""
LOOK_SECONDS: Final = 5.0
"""How often a caller who waits looks whether the thread is still there: a call has time limits of its own."""


class EngineThread:
    """The thread, shared by those that hold a lease."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._portal: Portal | None = None
        self._leases = 0
        self._asked: dict[int, weakref.ref[LM]] = {}  # not by the LM: two that are equal are two here

    def take(self) -> Portal:
        """The thread, for one more, until `give_back`."""
        with self._lock:
            if self._portal is None:
                self._portal = Portal("dspex-engine")
            self._leases += 1
            return self._portal

    def give_back(self, portal: Portal, asked: Iterable[LM]) -> None:
        """One fewer; the last one stops the thread, once it has closed the connections of its loop.

        Args:
            portal: The thread that was given.
            asked: The LMs that were asked there. Others may be asking the same until they end too.
        """
        with self._lock:
            if portal is not self._portal:
                return  # a fork's copy of the parent's
            self._leases -= 1
            self._asked = {number: lm for number, lm in self._asked.items() if lm() is not None}
            self._asked |= {id(lm): weakref.ref(lm) for lm in asked}
            if self._leases:
                return
            left, self._asked = self._asked, {}
            self._portal = None
        try:
            for lm in (each() for each in left.values()):
                if lm is not None:
                    portal.run(aclose_here(lm), CLOSE_SECONDS)
        finally:
            portal.close()

    def after_fork(self) -> None:
        """Forget the parent's thread, which this process has not."""
        self._lock = threading.Lock()
        self._portal = None
        self._leases = 0
        self._asked = {}


THREAD: Final = EngineThread()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=THREAD.after_fork)


class Lease:
    """One engine's use of the thread, from its first call until `close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._portal: Portal | None = None

    @property
    def portal(self) -> Portal:
        """The thread, which starts if it is not there."""
        portal = self._portal
        if portal is not None:
            return portal
        with self._lock:
            if self._portal is None:
                self._portal = THREAD.take()
            return self._portal

    @property
    def in_use(self) -> bool:
        """Whether a call was made."""
        return self._portal is not None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the thread.

        Raises:
            ConfigError: If this is that thread, which would wait for itself (`blocking-in-loop`).
            ConnectionError: If the thread has ended meanwhile.
        """
        try:
            portal = self.portal
            if portal.thread_id == threading.get_ident():
                raise ConfigError(
                    "a blocking call here would wait for its own event loop",
                    code="blocking-in-loop",
                    hint="call the engine from another thread, or use dspex.dspy.AsyncEngine",
                )
            future = asyncio.run_coroutine_threadsafe(coroutine, portal.loop)
        except BaseException:
            coroutine.close()
            raise
        try:
            while True:
                try:
                    return future.result(LOOK_SECONDS)
                except concurrent.futures.CancelledError:
                    raise ConnectionError("the engine was closed during the call") from None
                except TimeoutError:
                    if future.done():
                        return future.result(0)
                    if not portal.is_alive:
                        raise ConnectionError("the thread of the engine has ended") from None
        finally:
            future.cancel()  # nothing when it is done; on Ctrl-C it ends the call with its caller
            del future

    def close(self, asked: Iterable[LM]) -> None:
        """Give the thread back; see `EngineThread.give_back`. Safe to call twice."""
        with self._lock:
            portal, self._portal = self._portal, None
        if portal is not None:
            THREAD.give_back(portal, asked)

    def after_fork(self) -> None:
        """Forget the parent's thread."""
        self._lock = threading.Lock()
        self._portal = None
