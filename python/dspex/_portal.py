"""A thread with an event loop of its own, for callers who have none, and the way there and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

from dspex.errors import ConfigError, DeadlineExceeded, DspexError

__all__ = ["CROSSING_SECONDS", "Portal", "cross", "refuse_blocking", "run_alone", "wait"]

T = TypeVar("T")

START_SECONDS = 10.0
STOP_SECONDS = 10.0
CROSSING_SECONDS = 5.0
"""What a caller on another thread grants beyond the call's own limits before it stops waiting."""


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

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

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
            del future  # as in `wait`

    def close(self) -> None:
        """Stop the loop and wait for the thread. Closing twice is harmless."""
        if not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(STOP_SECONDS)


def cross(
    coroutine: Coroutine[Any, Any, T],
    home: asyncio.AbstractEventLoop,
    closed: Callable[[], DspexError],
) -> concurrent.futures.Future[T]:
    """Schedule the coroutine on the loop `home` from elsewhere, within the caller's context.

    Args:
        coroutine: What is to run there.
        home: The loop.
        closed: Makes the error to raise if that loop is closed.
    """
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, home)
    except RuntimeError:  # the loop closed since the caller looked
        coroutine.close()
        raise closed() from None


def wait(future: concurrent.futures.Future[T], seconds: float | None, closed: Callable[[], DspexError]) -> T:
    """Wait for what runs on another loop, at most `seconds`; a caller that is interrupted ends it.

    Raises:
        DeadlineExceeded: If it gave no answer: something blocks its loop.
    """
    try:
        return future.result(seconds)
    except concurrent.futures.CancelledError:
        raise closed() from None
    except TimeoutError:
        if future.done():
            raise
        raise DeadlineExceeded(
            f"the event loop gave no answer within {seconds:g} s",
            hint="something blocks the loop that this lives on",
            timeout=seconds,
            stage="loop",
        ) from None
    finally:
        future.cancel()  # nothing when it is done; on Ctrl-C it ends the call with its caller
        del future  # it holds the exception, which holds this frame: see `Pool.call`


def run_alone(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop of its own: on this thread, or on another where this has a loop."""
    if asyncio._get_running_loop() is None:
        return asyncio.run(coroutine)
    context = copy_context()
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="dspex-alone") as thread:
        return thread.submit(context.run, asyncio.run, coroutine).result()


def refuse_blocking(home_thread: int, instead: str) -> None:
    """Refuse a call that would stop an event loop: the one it waits for, or the one of this thread.

    A cell of a notebook runs on the thread of the kernel's loop, and whoever runs it waits for it anyway, so
    there only the first kind is refused.

    Args:
        home_thread: The thread of the loop that the call would wait for; 0 if there is none.
        instead: What to write in the call's place.

    Raises:
        ConfigError: If it would stop one (`blocking-in-loop`).
    """
    here = threading.get_ident() == home_thread
    # The way the loops themselves ask: `get_running_loop` raises where there is none, and that costs more
    # than the rest of the crossing.
    if not here and (asyncio._get_running_loop() is None or _is_notebook_cell()):
        return
    why = "wait for its own event loop" if here else "stop the event loop that runs on this thread"
    hint = f"write {instead}"
    if here and _is_notebook_cell():
        hint += ", or open it by `with` and not by `async with`, so that it lives on a thread of its own"
    raise ConfigError(f"a blocking call here would {why}", code="blocking-in-loop", hint=hint)


def _is_notebook_cell() -> bool:
    """Whether this is the thread on which a Jupyter kernel runs its cells. IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    get_shell = getattr(ipython, "get_ipython", None)
    shell = get_shell() if get_shell is not None else None
    if getattr(shell, "kernel", None) is None:  # none, or IPython in a terminal
        return False
    thread = threading.current_thread()
    # Subshells run cells beside the main one, each on a thread of the kernel's own kind.
    return thread is threading.main_thread() or type(thread).__module__.partition(".")[0] == "ipykernel"
