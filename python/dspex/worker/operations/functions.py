"""The operation `function`: a plain function of the service's own code; see `FunctionRequest`."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dspex._imports import find
from dspex._threads import settled
from dspex.errors import ConfigError, InputError
from dspex.protocol.requests import FunctionRequest
from dspex.worker.input_streams import input_streams_of

__all__ = ["call_function", "in_thread", "refuse_arguments"]


async def call_function(threads: ThreadPoolExecutor, request: FunctionRequest) -> Any:
    """Serve one `function` call.

    Raises:
        ConfigError: If nothing is where the path says, or it cannot be called.
        InputError: If the function takes no such arguments.
    """
    function, is_async, is_generator = _known(request.function)
    args, kwargs = request.args, request.kwargs
    if request.input_streams:
        kwargs = {**kwargs, **input_streams_of(request.input_streams)}
    try:
        if is_async:
            result = function(*args, **kwargs)
            return result if is_generator else await result
        if is_generator:
            return _iterate(threads, function(*args, **kwargs))
        return await in_thread(threads, functools.partial(function, *args, **kwargs))
    except TypeError as error:
        refuse_arguments(function, args, kwargs, "$", error)
        raise


def refuse_arguments(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], place: str, error: TypeError
) -> None:
    """Say so if a call failed because the function takes no such arguments. Asked afterwards, it is free.

    Raises:
        InputError: If it did.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of a function in C nobody knows
    try:
        signature.bind(*args, **kwargs)
    except TypeError as wrong:
        raise InputError(
            f"{getattr(function, '__qualname__', function)} takes no such arguments: {wrong}",
            code="arguments",
            hint=f"it is called with what is in {place}, and takes {signature}",
        ) from error


@functools.cache
def _known(path: str) -> tuple[Callable[..., Any], bool, bool]:
    """The function, whether it is async, whether a generator: asking costs more than a small call."""
    function = find(path)
    if not callable(function):
        raise ConfigError(f"{path!r} is a {type(function).__name__}, no function", code="bad-import-path")
    async_generator = inspect.isasyncgenfunction(function)
    is_async = async_generator or inspect.iscoroutinefunction(function)
    return function, is_async, async_generator or inspect.isgeneratorfunction(function)


async def _iterate(
    threads: ThreadPoolExecutor, items: Generator[Any, None, None]
) -> AsyncGenerator[Any, None]:
    """What a generator yields, each step taken in a thread."""
    end = object()
    try:
        while (item := await in_thread(threads, functools.partial(next, items, end))) is not end:
            yield item
    finally:
        items.close()


async def in_thread(threads: ThreadPoolExecutor, call: Callable[[], Any]) -> Any:
    """Run `call` in a thread and wait for it, whatever happens.

    A thread cannot be stopped. To say "cancelled" while it runs on would give its place away and let
    threads pile up; so the wait goes on, and the pool, whose patience has an end, ends the worker.
    """
    running = threads.submit(contextvars.copy_context().run, settled, call)
    done = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not running.cancel() and not running.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError:
                continue  # a second cancellation changes nothing
        if done.done() and not done.cancelled():
            done.exception()  # nobody asks for it any more
        raise
