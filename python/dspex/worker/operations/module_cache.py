"""DSPy modules by what they are made of: made once, and shared by all calls that ask for the same."""

from __future__ import annotations

import os
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

import dspy

from dspex._imports import find
from dspex.errors import ConfigError, DspexError
from dspex.protocol.records import to_wire
from dspex.protocol.requests import HostFunction, ModuleRequest, PredictRequest, Tool
from dspex.protocol.signature_form import SignatureForm
from dspex.wire._msgpack import MessagePack
from dspex.worker.operations.host_functions import MAKING, function_of, tool_of
from dspex.worker.operations.predict import Predict

__all__ = ["Made", "ModuleCache", "arguments_of", "class_at", "made_of"]

_MAX_MODULES: Final = 1024
"""Modules kept: a signature costs DSPy about a millisecond, a service has few, and memory is bounded."""


class Made(NamedTuple):
    """A module, or a retriever, which DSPy has outside of its modules.

    Attributes:
        module: It.
        required: The inputs without which it is not called.
        signature: What it was made with or has itself, if anything.
    """

    module: Any
    required: tuple[str, ...]
    signature: Any


class ModuleCache:
    """The modules made so far; the one that was not asked for longest goes when there are too many."""

    def __init__(self) -> None:
        self._made: OrderedDict[bytes, Made] = OrderedDict()
        self._codec = MessagePack()

    def get(self, request: PredictRequest | ModuleRequest) -> Made:
        """The module that a request asks for.

        Raises:
            SignatureError: If the signature cannot be read.
            ConfigError: If the class is unknown, or refuses what it is made with; or a state cannot be read.
        """
        module = request if isinstance(request, ModuleRequest) else None
        key = self._codec.encode([_parts(request.signature), None if module is None else _content(module)])
        made = self._made.get(key)
        if made is not None:
            self._made.move_to_end(key)
            return made
        made = self._made[key] = _make(module or ModuleRequest(inputs={}, signature=request.signature))
        if len(self._made) > _MAX_MODULES:
            self._made.popitem(last=False)
        return made


def _parts(form: SignatureForm | None) -> list[Any] | None:
    if form is None:
        return None
    return [form.text, form.instructions, form.fields, form.types, form.unions, form.defaults]


def _content(request: ModuleRequest) -> list[Any]:
    tools = None if request.tools is None else [to_wire(tool) for tool in request.tools]
    version = _version(request.state) if isinstance(request.state, str) else None
    functions = {name: to_wire(function) for name, function in request.functions.items()}
    modules = {name: [_parts(part.signature), *_content(part)] for name, part in request.modules.items()}
    parts = [request.module, request.args, request.imports, tools, request.state, version]
    return [*parts, functions, modules] if functions or modules else parts


def made_of(request: ModuleRequest) -> Made:
    """A module of its own for whoever changes it, and calls it as DSPy does.

    Raises:
        SignatureError: If the signature cannot be read.
        ConfigError: As for `ModuleCache.get`.
    """
    return _make(request, inside=True)


def arguments_of(
    request: ModuleRequest, function: Callable[[HostFunction], Any] = function_of
) -> dict[str, Any]:
    """The arguments of a class, apart from signature and tools, as what it takes.

    Args:
        request: What the object is made of.
        function: Makes an argument of a function of the service.

    Raises:
        ConfigError: If one cannot be imported or made.
    """
    more = dict(request.args)
    for name, found in request.imports.items():
        more[name] = find(found) if isinstance(found, str) else [find(path) for path in found]
    more.update({name: function(given) for name, given in request.functions.items()})
    more.update({name: made_of(part).module for name, part in request.modules.items()})
    return more


def _make(request: ModuleRequest, *, inside: bool = False) -> Made:
    """What a request asks for; `inside` another module, whose calls of it are none of ours."""
    path = request.module
    cls = _module_at(path)
    if cls is dspy.Predict and not inside:
        cls = Predict
    of_dspy = cls.__module__.partition(".")[0] in ("dspy", "dspex")
    signature = None if request.signature is None else request.signature.to_dspy()
    more = arguments_of(request)
    if of_dspy and isinstance(request.args.get("signature"), str):
        # DSPy's parser imports what a text names. What a program of the user's own reads is its business.
        signature = more["signature"] = SignatureForm(request.args["signature"]).to_dspy()
    if request.tools is not None:
        more["tools"] = [_tool(tool, cls) for tool in request.tools]
    making = MAKING.set(path)
    try:
        module = cls(**more) if signature is None or "signature" in more else cls(signature, **more)
        if isinstance(request.state, str):
            module.load(request.state)
        elif request.state is not None:
            module.load_state(request.state)
    except DspexError:
        raise
    except Exception as err:
        raise ConfigError(
            f"{path} refuses what it was made with: {type(err).__name__}: {err}", code="bad-module"
        ) from err
    finally:
        MAKING.reset(making)
    if isinstance(module, dspy.Predict):
        signature = module.signature
    # A program of the user's own may find for itself what its signature asks for.
    required = _required(signature) if of_dspy and signature is not None else ()
    return Made(module, required, signature)


def class_at(path: str) -> Any:
    """What a path names, `"dspy.ReAct"` or `"my_app.rag:RAG"`.

    Raises:
        ConfigError: If nothing is there (`bad-import-path`).
    """
    return find(path if ":" in path else path.replace(".", ":", 1))


def _module_at(path: str) -> Any:
    """The class that a path names: of modules, or of objects that are called, as DSPy's retrievers are.

    Raises:
        ConfigError: If nothing is there (`bad-import-path`), or something else (`not-a-module`).
    """
    cls = class_at(path)
    called = isinstance(cls, type) and any("__call__" in vars(base) for base in cls.__mro__)
    if not called:
        raise ConfigError(f"{path!r} is not a DSPy module", code="not-a-module")
    return cls


def _version(path: str) -> list[int]:
    """What changes when a file of saved state does.

    Raises:
        ConfigError: If it is none that can be loaded: DSPy would unpickle other files than JSON.
    """
    if not path.endswith(".json"):
        raise ConfigError(
            f"saved state is read from a .json file, not from {path!r}",
            code="bad-state",
            hint='save it with `program.save("program.json")`',
        )
    try:
        found = os.stat(path)
    except OSError as err:
        raise ConfigError(f"saved state cannot be read: {err}", code="bad-state") from err
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def _required(signature: Any) -> tuple[str, ...]:
    """The inputs that DSPy says are missing where they are."""
    fields = signature.input_fields.items()
    return tuple(name for name, info in fields if info.is_required() and not _allows_none(info.annotation))


def _allows_none(annotation: Any) -> bool:
    args = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return any(map(_allows_none, args))
    return annotation in (None, type(None))


def _tool(tool: Tool, cls: type[Any]) -> dspy.Tool:
    if tool.function is not None:
        return dspy.Tool(find(tool.function), name=tool.name, desc=tool.desc)
    assert tool.host_function is not None  # noqa: S101 - one of the two is given, as its reading has seen to
    if issubclass(cls, getattr(dspy, "CodeAct", ())):
        raise ConfigError(
            f"dspy.CodeAct runs its tools in its interpreter, and {tool.name!r} lives in the service",
            code="bad-tool",
            hint='name a function that the worker can import: tools=["my_app.tools:search"]',
        )
    return tool_of(tool, tool.host_function)
