"""What a remote module is made of: the arguments of a constructor, sorted by how each reaches a worker.

::

    plain values                        args       as they are
    an import path, or a class          imports    the worker imports it
    a function of the service           functions  its calls come back while a call of the module lasts
    another remote module               modules    made in the worker of its own parts
    tools=[...]                         tools      functions of the service, or import paths

Everything is looked at here, when the module is made, and nothing in it changes afterwards.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from dspex._imports import path_of
from dspex.errors import ConfigError, WireError
from dspex.protocol.host_functions import describe_function, describe_tool, function_calls, tool_calls
from dspex.protocol.requests import HostFunction, ModuleRequest, Tool
from dspex.protocol.signature_form import SignatureForm
from dspex.wire._msgpack import MessagePack

if TYPE_CHECKING:
    from dspex.signature import Signature

__all__ = ["ARGUMENT", "RemoteParts", "check_plain", "inside", "parts_of"]

T = TypeVar("T", Tool, HostFunction)

ARGUMENT: Final = "argument:"
"""What the names of functions begin with that are arguments: no tool has such a name."""


class RemoteParts(NamedTuple):
    """What a module is made of.

    Attributes:
        request: As a pool is asked for it, without inputs.
        functions: The functions of the service in it, by the names that the request has for them.
        signature: The signature it is made with, if it is made with one.
    """

    request: ModuleRequest
    functions: Mapping[str, Callable[..., Any]]
    signature: Signature | None


def parts_of(
    module: Any,
    signature: Signature | None,
    args: Mapping[str, Any],
    *,
    tools: Any,
    imports: Any,
    state: Any,
    calls: Callable[[Callable[..., Any]], Callable[..., Any]] = function_calls,
) -> RemoteParts:
    """The parts that `dspex.remote` was given; `calls` makes of a function what answers a worker's calls.

    Raises:
        ConfigError: If a worker could not make the module of them: `bad-import-path`, `bad-tool`,
            `bad-state` or `module-argument`.
    """
    path = _path(module)
    functions: dict[str, Callable[..., Any]] = {}
    plain: dict[str, Any] = {}
    named = _imports(imports)
    described, modules = {}, {}
    for name, value in args.items():
        parts = getattr(value, "remote_parts", None)
        if isinstance(parts, RemoteParts):
            modules[name], inner = inside(name, parts)
            functions |= inner
        elif isinstance(value, type):
            named[name] = path_of(value)
        elif inspect.isroutine(value) or isinstance(value, partial):
            described[name] = describe_function(value, ARGUMENT + name)
            functions[ARGUMENT + name] = calls(value)
        else:
            plain[name] = value
    check_plain(path, plain)
    asked, called = _tools(tools)
    request = ModuleRequest(
        module=path,
        inputs={},
        signature=None if signature is None else SignatureForm.of(signature),
        args=plain,
        imports=named,
        functions=described,
        modules=modules,
        tools=asked,
        state=_state(state),
    )
    return RemoteParts(request, {**functions, **called}, signature)


def _path(module: Any) -> str:
    path = path_of(module)
    if not all(part.isidentifier() for part in path.replace(":", ".", 1).split(".")) or "." not in (
        path.replace(":", ".", 1)
    ):
        raise ConfigError(
            f"{path!r} is not the path of a class",
            code="bad-import-path",
            hint=f'write "dspy.{path}" or "my_app.rag:{path}"'
            if path.isidentifier()
            else 'write "dspy.ReAct" or "my_app.rag:RAG"',
        )
    return path


def _imports(imports: Any) -> dict[str, Any]:
    if imports is None:
        return {}
    if not isinstance(imports, Mapping):
        raise ConfigError(
            f"imports must map arguments to import paths, not be a {type(imports).__name__}",
            code="bad-import-path",
            hint='write imports={"reward_fn": "my_app.score:short"}',
        )
    return {
        name: [path_of(each) for each in found] if isinstance(found, list | tuple) else path_of(found)
        for name, found in imports.items()
    }


def inside(argument: str, parts: RemoteParts) -> tuple[ModuleRequest, dict[str, Callable[..., Any]]]:
    """A part of something larger, such as an argument: its functions get names of their own among all."""
    functions = {f"{argument}.{name}": function for name, function in parts.functions.items()}
    return _moved(parts.request, argument), functions


def _moved(request: ModuleRequest, argument: str) -> ModuleRequest:
    """The same module, whose functions have names that begin with an argument's."""

    def moved(part: T) -> T:
        name = getattr(part, "host_function", None)
        return part if name is None else replace(part, host_function=f"{argument}.{name}")

    return replace(
        request,
        tools=None if request.tools is None else [moved(tool) for tool in request.tools],
        functions={name: moved(function) for name, function in request.functions.items()},
        modules={name: _moved(module, argument) for name, module in request.modules.items()},
    )


def _tools(tools: Any) -> tuple[Sequence[Tool] | None, dict[str, Callable[..., Any]]]:
    if tools is None:
        return None, {}
    if isinstance(tools, str | bytes | Mapping) or not hasattr(tools, "__iter__"):
        raise ConfigError(
            f"tools must be a list of functions, not a {type(tools).__name__}",
            code="bad-tool",
            hint="write tools=[search, look_up]",
        )
    described: list[Tool] = []
    functions: dict[str, Callable[..., Any]] = {}
    names: set[str] = set()
    for given in tools:
        tool, function = _tool(given)
        called = tool.name or str(tool.function).rpartition(":")[2].rpartition(".")[2]
        if called in names:
            raise ConfigError(
                f"two tools have the name {called!r}", code="bad-tool", hint="rename one of them"
            )
        names.add(called)
        described.append(tool)
        if function is not None:
            functions[called] = function
    return described, functions


def _tool(given: Any) -> tuple[Tool, Callable[..., Any] | None]:
    if isinstance(given, str):
        return Tool(function=given), None
    if isinstance(given, Tool) and given.function is not None:
        return given, None
    function = getattr(given, "func", None)
    if function is not None and isinstance(getattr(given, "args", None), Mapping):  # a dspy.Tool
        name = str(given.name)
        described = Tool(host_function=name, name=name, desc=given.desc or "", args=given.args)
        return described, tool_calls(function)
    if isinstance(given, Tool | type) or not callable(given):
        raise ConfigError(
            f"a tool is a function or the path of one, not {given!r}"[:200],
            code="bad-tool",
            hint='write tools=[search], or tools=["my_app.tools:search"] for one that the worker has',
        )
    return describe_tool(given), tool_calls(given)


def check_plain(path: str, args: Mapping[str, Any]) -> None:
    """Refuse arguments that the wire does not carry.

    Raises:
        ConfigError: If one is (`module-argument`).
    """
    codec = MessagePack()
    for name, value in args.items():
        try:
            codec.encode(value)
        except WireError as error:
            hint = (
                f'define it at the top of a module and name it: imports={{"{name}": "my_app.parts:{name}"}}'
            )
            if hasattr(value, "named_predictors"):
                kind = type(value).__name__
                hint = f'write {name}=dspex.remote("dspy.{kind}", ...), or {hint}'
            raise ConfigError(
                f"the argument {name!r} of {path} cannot go to a worker: {error.message}",
                code="module-argument",
                hint=hint,
            ) from error


def _state(state: Any) -> Mapping[str, Any] | str | None:
    if state is None or isinstance(state, Mapping):
        return state
    if not isinstance(state, str | os.PathLike):
        raise _bad_state(f"a state is a mapping or the path of a file, not a {type(state).__name__}")
    path = os.fspath(state)
    if not (isinstance(path, str) and path.endswith(".json")):
        raise _bad_state(f"saved state is read from a .json file, not from {path!r}")
    return os.path.abspath(path)


def _bad_state(message: str) -> ConfigError:
    return ConfigError(message, code="bad-state", hint='save it with `program.save("program.json")`')
