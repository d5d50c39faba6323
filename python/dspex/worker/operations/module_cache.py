"""DSPy modules by what they are made of: made once, and shared by all calls that ask for the same."""

from __future__ import annotations

import os
import types
from collections import OrderedDict
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

import dspy

from dspex._imports import find
from dspex.errors import ConfigError, DspexError
from dspex.protocol.codec import MessagePack
from dspex.protocol.records import to_wire
from dspex.protocol.requests import ModuleRequest, PredictRequest, Tool
from dspex.protocol.signature_form import SignatureForm
from dspex.worker.host import call_host
from dspex.worker.operations.predict import Predict

__all__ = ["Made", "ModuleCache"]

_MAX_MODULES: Final = 1024
"""Modules kept: a signature costs DSPy about a millisecond, a service has few, and memory is bounded."""


class Made(NamedTuple):
    """A module, and the inputs without which it is not called."""

    module: dspy.Module
    required: tuple[str, ...]


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
    return [request.module, request.args, request.imports, tools, request.state, version]


def _make(request: ModuleRequest) -> Made:
    path = request.module
    cls = find(path if ":" in path else path.replace(".", ":", 1))
    if not (isinstance(cls, type) and issubclass(cls, dspy.Module)):
        raise ConfigError(f"{path!r} is not a DSPy module", code="not-a-module")
    cls = Predict if cls is dspy.Predict else cls
    of_dspy = cls.__module__.partition(".")[0] in ("dspy", "dspex")
    signature = None if request.signature is None else request.signature.to_dspy()
    more = dict(request.args)
    if of_dspy and isinstance(more.get("signature"), str):
        # DSPy's parser imports what a text names. What a program of the user's own reads is its business.
        signature = more["signature"] = SignatureForm(more["signature"]).to_dspy()
    for name, found in request.imports.items():
        more[name] = find(found) if isinstance(found, str) else [find(path) for path in found]
    if request.tools is not None:
        more["tools"] = [_tool(tool) for tool in request.tools]
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
    if isinstance(module, dspy.Predict):
        signature = module.signature
    # A program of the user's own may find for itself what its signature asks for.
    return Made(module, _required(signature) if of_dspy and signature is not None else ())


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


def _tool(tool: Tool) -> dspy.Tool:
    if tool.function is not None:
        return dspy.Tool(find(tool.function), name=tool.name, desc=tool.desc)
    assert tool.host_function is not None  # noqa: S101 - one of the two is given, as its reading has seen to
    return _host_tool(tool.host_function, tool)


def _host_tool(host_function: str, tool: Tool) -> dspy.Tool:
    """A tool of a DSPy module that is a function of the service."""

    async def call(**kwargs: Any) -> Any:
        return await call_host(host_function, **kwargs)

    args = dict(tool.args)
    # The arguments come from an LM as JSON and go on as JSON; their types are the function's own business.
    return dspy.Tool(
        call, name=tool.name or host_function, desc=tool.desc, args=args, arg_types=dict.fromkeys(args, Any)
    )
