"""The calls of one session, one after the other."""

from __future__ import annotations

import asyncio
from collections import deque

from dspex.errors import DeadlineExceeded, SessionBusy
from dspex.sessions._options import WhenBusy

__all__ = ["Order"]


class Order:
    """Lets one call in at a time, in the order in which they came.

    Args:
        session_id: The session's name, for the error.
        when_busy: What becomes of a call while another is in.
        most: How many may wait.
    """

    __slots__ = ("_most", "_session_id", "_waiting", "_when_busy", "taken")

    def __init__(self, session_id: str, when_busy: WhenBusy, most: int) -> None:
        self._session_id = session_id
        self._when_busy = when_busy
        self._most = most
        self._waiting: deque[asyncio.Future[None]] | None = None  # most sessions never have one
        self.taken = False
        """Whether a call is in."""

    async def enter(self, seconds: float, *, always: bool = False) -> None:
        """Wait for the turn. Whoever got in has to `leave`.

        Args:
            seconds: How long to wait.
            always: However many wait: for who is no call.

        Raises:
            SessionBusy: If another call is in and this one is not to wait, or too many wait.
            DeadlineExceeded: If the turn has not come in time.
        """
        if not self.taken:
            self.taken = True
            return
        if self._when_busy == "fail" and not always:
            raise self._busy("another of its calls runs", 'when_busy="wait" lets calls wait for their turn')
        waiting = self._waiting = self._waiting or deque()
        if len(waiting) >= self._most and not always:
            raise self._busy(
                f"{len(waiting)} of its calls wait already",
                "send its calls one after the other, or raise queue=",
            )
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was this one's turn just now
            else:
                waiting.remove(turn)
            if isinstance(error, TimeoutError) and limit.expired():
                raise DeadlineExceeded(
                    f"session {self._session_id!r}: the turn of a call did not come within {seconds:g} s",
                    hint="see what the call before it waits for; calls made inside of it take no turn",
                    retryable=True,
                    timeout=seconds,
                    stage="session",
                ) from None
            raise

    def leave(self) -> None:
        """Let the next one in."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken = False

    def _busy(self, what: str, hint: str) -> SessionBusy:
        return SessionBusy(f"session {self._session_id!r}: {what}", hint=hint, session_id=self._session_id)
