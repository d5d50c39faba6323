"""Work that is not async, in threads: what the service's side and a worker's have in common.

There is always another thread. A bound could only deadlock: as many pieces of work as there are threads, each
of which waits in its thread for something that needs one more, would wait for ever. What may be in flight is
bounded already, by `max_inflight` of a pool.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Final, TypeVar

__all__ = ["MANY", "in_thread", "iterate_in_threads", "settled", "start_in_thread"]

T = TypeVar("T")

MANY: Final = 100_000
"""Threads there may be: more than can be in flight."""

_executor: ThreadPoolExecutor | None = None


def start_in_thread(call: Callable[[], T]) -> Future[T]:
    """Run `call` in a thread, in a copy of this context, for whoever asks the future."""
    return _threads().submit(copy_context().run, settled, call)


async def in_thread(
    call: Callable[[], T], *, abandon: bool = False, on_cancel: Callable[[], object] | None = None
) -> T:
    """Run `call` in a thread, in a copy of this context, and wait for it.

    A thread cannot be stopped. So a cancelled caller waits on until the work has ended: to go on would give
    its place away while it runs, and let threads pile up.

    Args:
        call: The work. A `StopIteration` that it raises becomes a `RuntimeError`.
        abandon: A cancelled caller goes on at once instead, and nobody asks how the work ends.
        on_cancel: Called when the caller is cancelled, so that the work can be told to end.
    """
    running = start_in_thread(call)
    done: asyncio.Future[T] = asyncio.wrap_future(running)
    try:
        if abandon:
            return await done
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        if abandon:
            raise
        if on_cancel is not None:
            on_cancel()
        while not running.cancel() and not running.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError:
                continue  # cancelled again: it changes nothing
        if done.done() and not done.cancelled():
            done.exception()  # nobody asks for it any more
        raise
    finally:
        del running, done  # they hold what the call raised, whose frames hold this one


async def iterate_in_threads(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """Yield what an iterable has, each step taken in a thread: it may block, as reading a file does."""
    iterator = iter(items)
    end = object()
    try:
        while (item := await in_thread(partial(next, iterator, end))) is not end:
            yield item
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            await in_thread(close)


def settled(call: Callable[[], T]) -> T:
    """Run `call`; a `StopIteration` of its own becomes an error that a future can hold.

    A future refuses to hold one, and whoever waits for that future would wait for ever.

    Raises:
        RuntimeError: In place of the `StopIteration`.
    """
    try:
        return call()
    except StopIteration as err:
        raise RuntimeError(f"the function raised StopIteration({err.value!r})") from err


def _threads() -> ThreadPoolExecutor:
    global _executor  # one per process, for its life; idle threads are used again
    if _executor is None:
        _executor = ThreadPoolExecutor(max_workers=MANY, thread_name_prefix="dspex-work")
    return _executor


def _after_fork_in_child() -> None:
    global _executor  # the threads did not come along
    _executor = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
