"""The calls of a pool that wait for a place."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from dspex.pool._call import Call

__all__ = ["FairQueue"]

_FEW: Final = 32
"""Discarded calls that are not worth a sweep."""


class FairQueue:
    """Calls that wait: first come first served within a session, by turns between sessions."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, deque[Call]] = OrderedDict()
        self._discarded = 0  # that are still among a session's
        self.count = 0
        """How many wait: `len` of the queue, for those who ask with every call."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Call]:
        return (call for waiting in self._sessions.values() for call in waiting if call.waiting)

    def push(self, call: Call, *, first: bool = False) -> None:
        """Let `call` wait; `first` puts one that has waited before in front of its session's others."""
        waiting = self._sessions.setdefault(call.session, deque())
        if first:
            waiting.appendleft(call)
        else:
            waiting.append(call)
        call.waiting = True
        call.queue = self
        self.count += 1

    def pop(self) -> Call:
        """Take the call whose turn it is.

        Raises:
            IndexError: If none waits.
        """
        while self._sessions:
            session, waiting = next(iter(self._sessions.items()))
            call = waiting.popleft()
            if not waiting:
                del self._sessions[session]
            if call.waiting:
                if waiting:
                    self._sessions.move_to_end(session)
                call.waiting = False
                self.count -= 1
                return call
            self._discarded -= 1
        raise IndexError("no call waits")

    def peek(self) -> Call:
        """The call whose turn it is, which stays.

        Raises:
            IndexError: If none waits.
        """
        while self._sessions:
            session, waiting = next(iter(self._sessions.items()))
            if waiting[0].waiting:
                return waiting[0]
            waiting.popleft()
            self._discarded -= 1
            if not waiting:
                del self._sessions[session]
        raise IndexError("no call waits")

    def oldest(self) -> float | None:
        """Since when the call waits that waits longest, None if none waits."""
        firsts = (
            next((call.since for call in calls if call.waiting), None) for calls in self._sessions.values()
        )
        return min((since for since in firsts if since is not None), default=None)

    def discard(self, call: Call) -> None:
        """Let `call` wait no longer. It is only marked, and taken out when its turn comes or many are."""
        if call.waiting:
            call.waiting = False
            self.count -= 1
            self._discarded += 1
            # Their turn may be far off, and their payloads large; each sweep halves what is there, at least.
            if not self.count or self._discarded > max(self.count, _FEW):
                self._sweep()

    def _sweep(self) -> None:
        sessions = self._sessions.items()
        left = ((session, deque(call for call in calls if call.waiting)) for session, calls in sessions)
        self._sessions = OrderedDict((session, calls) for session, calls in left if calls)
        self._discarded = 0
