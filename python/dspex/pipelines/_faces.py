"""`Face`: what a module or a function takes and gives, as its signature says, and on what it runs.

::

    Predict, ChainOfThought, remote, ...    the fields of its signature
    a pipeline                              its inputs and outputs
    a function, a module of one's own       its parameters; of what it returns, the annotation:
                                            a TypedDict, a dataclass, a named tuple or a pydantic model gives
                                            its fields, None gives none, anything else one value without a
                                            name, which `outputs="docs"` or the key of a branch names

What a `ChainOfThought` reasons is there afterwards as a field of that name, but it is an aside: nobody has to
use it, and it is in no other step's way.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

from dspex.errors import PipelineError
from dspex.modules import BestOfN, ChainOfThought, Module, MultiChainComparison, ReActV2, RemoteModule
from dspex.pipelines._types import UNKNOWN
from dspex.signature import Signature

__all__ = ["CONTEXT", "Face", "Takes", "face_of"]

CONTEXT: Final = "ctx"
"""The parameter of a function that is given its `StepContext`."""

How = Literal["module", "async", "thread", "inline"]
"""On what it runs: a module by its `acall`; a function on the loop, in a thread, or on the loop at once."""


class Takes(NamedTuple):
    """One input.

    Attributes:
        kind: Its type.
        required: Whether it must be there.
        strict: Whether a value of another type is refused when it runs.
    """

    kind: Any = UNKNOWN
    required: bool = True
    strict: bool = True


class Face(NamedTuple):
    """What something that runs takes and gives.

    Attributes:
        name: What it is called.
        how: On what it runs.
        inputs: What it takes, by name.
        outputs: What it gives, by name; None where it returns one value without a name.
        value: The type of that value.
        asides: Names of outputs that need not be used.
        attributes: Whether its outputs are attributes of what it returns, and not its items.
        context: Whether it takes its `StepContext`.
        open: Whether it takes inputs of any other name too.
        is_module: Whether it is a module.
    """

    name: str
    how: How
    inputs: Mapping[str, Takes]
    outputs: Mapping[str, Any] | None
    value: Any = UNKNOWN
    asides: frozenset[str] = frozenset()
    attributes: bool = False
    context: bool = False
    open: bool = False
    is_module: bool = False


def face_of(target: Any, *, thread: bool | None) -> Face:
    """What it takes and gives.

    Args:
        target: A module or a function.
        thread: Whether a function that is not `async` runs in a thread; None for the default.

    Raises:
        PipelineError: If it cannot be called by names (`bad-step`).
    """
    if isinstance(target, Module):
        return _module(target)
    return _function(target, thread)


# -- modules ----------------------------------------------------------------------------------------


def _module(module: Module) -> Face:
    if isinstance(module, BestOfN):
        return _module(module.module)
    own: Face | None = getattr(module, "face", None)  # a pipeline's
    if own is not None:
        return own
    signature, asides = _signature(module)
    name = type(module).__name__
    if signature is None:
        forward = getattr(module, "aforward", None) or getattr(module, "forward", None)
        if isinstance(module, RemoteModule) or forward is None:
            return Face(name, "module", {}, None, open=True, is_module=True)
        return _called(forward, name, "module")._replace(is_module=True)
    strict = getattr(getattr(module, "predict", module), "validate", "strict") == "strict"
    inputs = {
        field.name: Takes(field.annotation, not (field.has_default or field.optional), strict)
        for field in signature.input_fields.values()
    }
    if isinstance(module, MultiChainComparison):
        inputs = {name: takes for name, takes in inputs.items() if not name.startswith("reasoning_attempt_")}
        inputs["completions"] = Takes()
    outputs = {field.name: field.annotation for field in signature.output_fields.values()}
    for aside in asides:
        outputs.setdefault(aside, str)
    return Face(name, "module", inputs, outputs, asides=frozenset(asides), is_module=True)


def _signature(module: Module) -> tuple[Signature | None, tuple[str, ...]]:
    """The fields of a module, and those of its outputs that are asides."""
    if isinstance(module, ChainOfThought):
        signature = module.predict.signature
        return signature, (next(iter(signature.output_fields)),)
    if isinstance(module, MultiChainComparison):
        return module.predict.signature, ("rationale",)
    if isinstance(module, RemoteModule):
        known = {"ChainOfThought": ("reasoning",), "MultiChainComparison": ("rationale",)}
        return module.signature, known.get(module.remote_parts.request.module.rpartition(".")[2], ())
    if isinstance(module, ReActV2):
        return module.signature, ("history", "termination_reason")
    own = getattr(module, "signature", None)
    return (own if isinstance(own, Signature) else None), ()


# -- functions --------------------------------------------------------------------------------------


def _function(function: Callable[..., Any], thread: bool | None) -> Face:
    name = getattr(function, "__name__", None) or type(function).__name__
    if name == "<lambda>":
        name = "function"
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    is_async = inspect.iscoroutinefunction(_bare(called))
    how: How = "async" if is_async else "inline" if thread is False else "thread"
    return _called(function, name, how)


def _bare(function: Any) -> Any:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    return function


def _called(function: Callable[..., Any], name: str, how: How) -> Face:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise PipelineError(
            f"{name} does not say what it takes",
            code="bad-step",
            hint="wrap it in a function with named parameters",
            step=name,
        ) from None
    hints = _hints(function)
    inputs: dict[str, Takes] = {}
    context = is_open = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise PipelineError(
                f"{name} takes {parameter.name!r} by position, and steps are given fields by name",
                code="bad-step",
                hint="wrap it in a function with named parameters",
                step=name,
            )
        elif parameter.name == CONTEXT:
            context = True
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            kind = hints.get(parameter.name, UNKNOWN)
            inputs[parameter.name] = Takes(kind, parameter.default is parameter.empty, strict=False)
    outputs, attributes = _returned(hints.get("return", UNKNOWN))
    value = hints.get("return", UNKNOWN)
    return Face(name, how, inputs, outputs, value, attributes=attributes, context=context, open=is_open)


def _hints(function: Any) -> dict[str, Any]:
    called = _bare(function)
    if not inspect.isroutine(called) and not inspect.isclass(called):
        called = type(called).__call__
    return _resolved(called, getattr(called, "__globals__", {}))


def _returned(kind: Any) -> tuple[Mapping[str, Any] | None, bool]:
    """The fields of what a function returns, and whether they are attributes."""
    if kind is type(None):
        return {}, False
    if not isinstance(kind, type):
        return None, False
    if typing.is_typeddict(kind):
        return _kinds(kind, list(kind.__annotations__)), False
    if dataclasses.is_dataclass(kind):
        return _kinds(kind, [field.name for field in dataclasses.fields(kind)]), True
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _kinds(kind, list(kind._fields)), True
    fields = getattr(kind, "model_fields", None)  # pydantic's
    if isinstance(fields, Mapping):
        return {name: field.annotation for name, field in fields.items()}, True
    return None, False


def _kinds(cls: type, names: list[str]) -> dict[str, Any]:
    hints = _resolved(cls, vars(sys.modules.get(cls.__module__, cls)))
    return {name: hints.get(name, UNKNOWN) for name in names}


def _resolved(thing: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """The types that it declares; one whose name is not there, or not yet, is left out."""
    try:
        return typing.get_type_hints(thing)
    except Exception:  # noqa: BLE001 - whatever the evaluation of an annotation raises
        found = {}
        for name, kind in getattr(thing, "__annotations__", {}).items():
            alone = type("alone", (), {"__annotations__": {name: kind}})
            with suppress(Exception):
                found.update(typing.get_type_hints(alone, globalns=dict(names)))
        return found
