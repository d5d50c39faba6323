"""Functions of the service as parts of a module in a worker: tools, and arguments such as a `reward_fn`.

::

    the service                                       a worker
    describe_tool(f)      --Tool-->                   a dspy.Tool with f's schema; its calls come back
    describe_function(f)  --HostFunction-->           a function with f's source; its calls come back
    tool_calls(f)         <--arguments by name--      of f's types again
    function_calls(f)     <--arguments, marked--      those that were predictions are `dspex.Prediction`s

A tool is described as `dspy.Tool` describes it, so that a prompt says the same of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, get_type_hints

from dspex.errors import ConfigError
from dspex.prediction import Prediction
from dspex.protocol.requests import HostFunction, Tool

__all__ = ["describe_function", "describe_tool", "function_calls", "is_async", "tool_calls"]


def describe_tool(function: Callable[..., Any], *, name: str | None = None) -> Tool:
    """A function of the service, as a tool of a module.

    The LM is shown its docstring and the JSON schema of each argument.

    Args:
        function: The function; give it to the call as well, under the same name, in `host_functions`.
        name: Its name, if not its own.

    Raises:
        ConfigError: If an argument has no type, or one without a JSON schema.
    """
    from pydantic import PydanticUserError, TypeAdapter

    called = name or str(getattr(function, "__name__", type(function).__name__))
    hints = _hints(function, called)
    args: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            _refuse(parameter.name, called, "is not given by its own name", "take each argument by its name")
        try:
            schema = _without_references(TypeAdapter(hints[parameter.name]).json_schema())
        except (KeyError, PydanticUserError):
            _refuse(
                parameter.name,
                called,
                "has no type that JSON can carry",
                "annotate it with str, int, list[...] and the like",
            )
        if parameter.default is not parameter.empty:
            schema["default"] = _as_json(parameter.default)
        args[parameter.name] = schema
    desc = getattr(function, "__doc__", None) or getattr(type(function).__call__, "__doc__", None) or ""
    return Tool(host_function=called, name=called, desc=desc, args=args)


def tool_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """What answers a worker's calls of a tool: the function, with arguments of its own types.

    They come from an LM as JSON, and become what the annotations say, as in `dspy.Tool`.
    """
    hints = {
        name: hint
        for name, hint in _hints(function, "").items()
        if name != "return" and hint is not Any and hint not in (str, int, float, bool)
    }

    def typed(arguments: dict[str, Any]) -> dict[str, Any]:
        from dspex._engine.type_adapters import adapter_of

        return {
            name: adapter_of(hints[name]).validate_python(value) if name in hints else value
            for name, value in arguments.items()
        }

    if not hints:
        return function
    if is_async(function):

        async def answer(**arguments: Any) -> Any:
            return await function(**typed(arguments))

        return answer
    return lambda **arguments: function(**typed(arguments))


def describe_function(function: Callable[..., Any], name: str) -> HostFunction:
    """A function of the service, as an argument of a module's constructor.

    Its source goes along: `dspy.Refine` shows the LM that of its `reward_fn`.

    Args:
        function: The function.
        name: Its name among the call's `host_functions`.
    """
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # of what was typed at a prompt, or is an object, there is none
        source = None
    return HostFunction(host_function=name, source=source)


def function_calls(function: Callable[..., Any]) -> Callable[..., Any]:
    """What answers a worker's calls of such an argument.

    A worker says which arguments were predictions or examples; these are `Prediction`s again.
    """

    def taken(args: Sequence[Any], kwargs: Mapping[str, Any], predictions: Sequence[Any]) -> Any:
        made = [Prediction(value) if at in predictions else value for at, value in enumerate(args)]
        named = {name: Prediction(value) if name in predictions else value for name, value in kwargs.items()}
        return _as_lists(function(*made, **named))

    if not is_async(function):
        return taken

    async def awaited(args: Any, kwargs: Any, predictions: Any) -> Any:
        return _as_lists(await taken(args, kwargs, predictions))

    return awaited


def _as_lists(value: Any) -> Any:
    """An array of numpy's as the lists that cross; anything else as it is."""
    tolist = getattr(value, "tolist", None)
    return value if tolist is None else tolist()


def is_async(function: Any) -> bool:
    """Whether a call of it is to be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _hints(function: Any, called: str) -> dict[str, Any]:
    of = function if inspect.isfunction(function) or inspect.ismethod(function) else function.__call__
    try:
        return get_type_hints(of)
    except NameError as error:
        raise ConfigError(
            f"an annotation of tool {called!r} names what is not there: {error}",
            code="bad-tool",
            hint="define the type at the top of the tool's module",
        ) from error


def _refuse(parameter: str, called: str, what: str, hint: str) -> NoReturn:
    raise ConfigError(f"argument {parameter!r} of tool {called!r} {what}", code="bad-tool", hint=hint)


def _as_json(value: Any) -> Any:
    from decimal import Decimal

    from pydantic_core import PydanticSerializationError, to_jsonable_python

    if isinstance(value, Decimal):
        return float(value)
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        return str(value)


def _without_references(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with each definition where it is used; one that contains itself stays named there."""
    definitions = schema.get("$defs", {})

    def resolved(part: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(part, list):
            return [resolved(item, inside) for item in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).rpartition("/")[2]
        if name in definitions:
            return {"type": "object"} if name in inside else resolved(definitions[name], (*inside, name))
        return {key: resolved(value, inside) for key, value in part.items() if key != "$defs"}

    whole: dict[str, Any] = resolved(schema, ())
    return whole
