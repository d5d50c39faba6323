"""A thread with an event loop of its own, for callers who have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Portal"]

T = TypeVar("T")

START_SECONDS = 10.0
STOP_SECONDS = 10.0


class Portal:
    """Runs an event loop in a daemon thread until `close`.

    Guarantees: `loop` is running once the constructor returns; after `close` every task the loop had is
    finished or cancelled, so no future handed out by `asyncio.run_coroutine_threadsafe` stays unsettled.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        started = threading.Event()
        self.loop.call_soon(started.set)
        self._thread.start()
        if not started.wait(START_SECONDS):
            raise RuntimeError(f"the thread {name} did not start within {START_SECONDS:g} s")

    @property
    def thread_id(self) -> int:
        """The identity of the thread, as `threading.get_ident` says it there."""
        return self._thread.ident or 0

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            pending = asyncio.all_tasks(self.loop)
            for task in pending:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run the coroutine on the loop and wait for its result, at most `timeout` seconds.

        Raises:
            TimeoutError: If there is none by then; the coroutine is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout)
        finally:
            future.cancel()  # nothing when it is done

    def close(self) -> None:
        """Stop the loop and wait for the thread. Closing twice is harmless."""
        if not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(STOP_SECONDS)
