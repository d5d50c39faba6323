"""The operation `function`: a plain function of the service's own code; see `FunctionRequest`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dspex._imports import find
from dspex._threads import in_thread, iterate_in_threads
from dspex.errors import ConfigError, InputError
from dspex.protocol.requests import FunctionRequest
from dspex.worker.input_streams import input_streams_of

__all__ = ["call_function", "refuse_arguments"]


async def call_function(request: FunctionRequest) -> Any:
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
            return iterate_in_threads(function(*args, **kwargs))
        return await in_thread(functools.partial(function, *args, **kwargs))
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
