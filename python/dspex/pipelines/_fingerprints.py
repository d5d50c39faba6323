"""What a step is, and what it was given, each as a short text: by them finished steps are known again.

A fingerprint changes when the step would do something else: another signature, instructions, demos or
settings of a module; another source of a function. It says nothing of what a function calls, of the model's
version or of files: who changes those and wants them run again resumes with `from_step=`, or clears the
cache.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from dspex import wire
from dspex.errors import DspexError, WireError
from dspex.modules import Module
from dspex.pipelines._conditions import Condition
from dspex.pipelines._paths import nodes_at
from dspex.pipelines._plan import Choice, Each, Inner, Leaf, Node, Plan

__all__ = ["digest_of", "fingerprint_of", "fingerprints_of"]


def digest_of(values: Mapping[str, Any], path: str) -> bytes:
    """The digest of inputs, by which a step that was given the same is known.

    Raises:
        WireError: If one cannot be written (`not-encodable`).
    """
    return hashlib.blake2b(dumped(values, path, "is given"), digest_size=16).digest()


def dumped(values: Mapping[str, Any], path: str, verb: str) -> bytes:
    """The values of a step as bytes to keep.

    Raises:
        WireError: If one cannot be written: the step, the field and the type (`not-encodable`).
    """
    try:
        return wire.dumps(dict(values))
    except WireError as error:
        raise WireError(
            f"{path} {verb} what cannot be kept: {error.message}",
            code=error.code,
            hint=error.hint or "let the step give plain data, or leave store= and cache= out",
        ) from error


def fingerprints_of(plan: Plan) -> dict[str, str]:
    """The fingerprint of every step, by its path in the plan."""
    return {path: fingerprint_of(node) for node, path in nodes_at(plan.block)}


def fingerprint_of(node: Node) -> str:
    """What a step does, in 16 hexadecimal digits; of one with steps inside, what it does with them."""
    does = node.does
    what: Any
    if isinstance(does, Leaf):
        what = ["leaf", _target(does.target), does.value, list(does.fields)]
    elif isinstance(does, Inner):
        what = [does.kind, None if does.reduce is None else _target(does.reduce.target)]
    elif isinstance(does, Choice):
        what = ["branch", _condition(does.condition), does.otherwise is None]
    elif isinstance(does, Each):
        what = ["map", does.item]
    else:
        what = ["loop", _condition(does.until), does.at_most]
    what.append([[take.name, list(take.parts)] for take in node.takes])
    return hashlib.blake2b(repr(what).encode("utf-8", "replace"), digest_size=8).hexdigest()


def _condition(condition: Condition) -> Any:
    return condition.text if condition.is_expression else _target(condition.function)


def _target(target: Any) -> Any:
    if isinstance(target, functools.partial):
        return ["partial", _target(target.func), repr(target.args), repr(target.keywords)]
    if isinstance(target, Module):
        return _module(target)
    if not inspect.isroutine(target):
        return ["object", _name(type(target)), _source(type(target))]
    return ["function", _name(target), _source(target)]


def _module(module: Module) -> Any:
    name = _name(type(module))
    parts: Any = getattr(module, "remote_parts", None)
    if parts is not None:
        return ["remote", repr(parts.request)]
    signatures = [
        (path, predictor.signature.text, predictor.config, str(predictor.adapter))
        for path, predictor in module.named_predictors()
    ]
    own = [] if type(module).__module__.startswith("dspex.") else [_source(type(module))]
    try:
        state = module.dump_state()
    except DspexError:  # a demo that has no JSON
        state = {path: repr(predictor.demos) for path, predictor in module.named_predictors()}
    return ["module", name, repr(signatures), repr(state), own]


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed in, or made by a program
        code = getattr(thing, "__code__", None)
        return "" if code is None else repr((code.co_code, code.co_consts, code.co_names))
