"""Functions of the service as DSPy sees them: tools, and arguments such as a `reward_fn`.

One function serves synchronous and asynchronous code: on the worker's loop it gives an awaitable, which
`dspy.Tool.acall` awaits; in a thread it waits. What the service's function raised is raised here: as itself
where it is an exception of Python's own, else as the `DspexError` that crossed. Its frames stay in the
service: DSPy writes tracebacks into prompts.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
import linecache
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

import dspy

from dspex.errors import ConfigError, RemoteError
from dspex.protocol.requests import HostFunction, Tool
from dspex.worker.host import call_host, call_host_sync
from dspex.worker.operations.results import plain

__all__ = ["MAKING", "called", "function_of", "tool_of"]

MAKING: ContextVar[str] = ContextVar("dspex_making", default="")
"""The path of the class whose constructor runs here, on the worker's loop, where nothing can wait."""


def tool_of(tool: Tool, host_function: str) -> dspy.Tool:
    """A tool of a DSPy module that is a function of the service."""

    def call(**kwargs: Any) -> Any:
        return called(host_function, **kwargs)

    args = dict(tool.args)
    if all(map(str.isidentifier, args)):
        # RLM lets code call its tools by position, and asks the function for the names.
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
                for name, default in sorted(_defaults(args), key=lambda pair: pair[1] is not _NEEDED)
            ]
        )
    call.__name__ = call.__qualname__ = tool.name or host_function
    # The arguments come from an LM as JSON and go on as JSON; the service makes them of the function's types.
    return dspy.Tool(call, name=call.__name__, desc=tool.desc, args=args, arg_types=dict.fromkeys(args, Any))


def function_of(function: HostFunction) -> Callable[..., Any]:
    """An argument of a module's constructor that is a function of the service."""

    def call(*args: Any, **kwargs: Any) -> Any:
        given = [*enumerate(args), *kwargs.items()]
        predictions = [at for at, value in given if isinstance(value, dspy.Example)]
        return called(function.host_function, [*map(plain, args)], plain(kwargs), predictions)

    if function.source is not None:
        call.__wrapped__ = _with_source(function.source)  # type: ignore[attr-defined]
    return call


_NEEDED: Final = inspect.Parameter.empty


def _defaults(args: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    return ((name, schema.get("default", _NEEDED)) for name, schema in args.items())


def called(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """What the function of the service gives: at once in a thread, an awaitable on the worker's loop."""
    if making := MAKING.get():
        argument = name.rpartition(":")[2]
        raise ConfigError(
            f"{making} calls {argument!r} while it is made, and that function lives in the service",
            code="no-host-call",
            hint="define it where the worker can import it, and name it: "
            f'imports={{"{argument}": "my_app.parts:{argument}"}}',
        )
    if asyncio._get_running_loop() is not None:
        return _as_itself(call_host(name, *args, **kwargs))
    try:
        return call_host_sync(name, *args, **kwargs)
    except RemoteError as error:
        raise _raised(error) from None


async def _as_itself(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except RemoteError as error:
        raise _raised(error) from None


def _raised(error: RemoteError) -> Exception:
    """What the function raised, where Python itself has the class."""
    cls = getattr(builtins, error.type, None)
    if isinstance(cls, type) and issubclass(cls, Exception):
        try:
            return cls(error.message.removeprefix(f"{error.type}: "))
        except TypeError:  # UnicodeDecodeError takes more than a text
            pass
    return RemoteError(error.message, code=error.code, type=error.type)


def _with_source(source: str) -> Callable[..., Any]:
    """What `inspect.unwrap` comes to, of which `inspect.getsource` gives this source. Nobody calls it."""

    def stub() -> None:
        pass

    name = f"<a function of the service, {zlib.crc32(source.encode()):08x}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    stub.__code__ = stub.__code__.replace(co_filename=name, co_firstlineno=1)
    return stub
