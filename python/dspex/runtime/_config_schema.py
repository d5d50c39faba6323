"""The configuration as a JSON schema, for editors that complete and check TOML; `dspex config schema`.

It is made of the classes that the sections are read by: their names, types and docstrings. It says less than
the reader, which also knows bounds and what goes together; whatever the reader takes fits it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from dspex.adapters._adapter import ADAPTERS
from dspex.adapters._remote import WORKER_ADAPTERS
from dspex.dialects import KNOWN
from dspex.lm import LM, TLS, Cache, Deployment, LMGroup, RateLimit
from dspex.lm._codec import ModelType
from dspex.lm._group import GroupStrategy
from dspex.router import Breaker, Limits, Strategy
from dspex.runtime._config import VALUES
from dspex.runtime._config_lm import OF_A_DEPLOYMENT
from dspex.runtime._config_values import may_be_off

__all__ = ["config_schema"]

_REFERENCE: Final = {
    "type": "object",
    "properties": {"env": {"type": "string", "description": "the environment variable that has the value"}},
    "required": ["env"],
    "additionalProperties": False,
}
_TEXT: Final = {"anyOf": [{"type": "string"}, _REFERENCE]}
_SECONDS: Final = {"type": "number", "exclusiveMinimum": 0}

_SIMPLE: Final[Mapping[Any, Mapping[str, Any]]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
}


def config_schema() -> dict[str, Any]:
    """The schema of a whole configuration."""
    from dspex.pool import PoolSpec
    from dspex.pool._toml import PRESETS

    pool = _section(PoolSpec, skip=("name",))
    pool["properties"] |= {
        "preset": {"enum": [*PRESETS], "description": "What the settings that are left out are."},
        "env": {"type": "object", "additionalProperties": _TEXT},
    }
    named = {**pool, "properties": {**pool["properties"], "name": {"type": "string"}}}
    properties: dict[str, Any] = {
        "runtime": _runtime(),
        "lm": _lm(),
        "pools": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "array", "items": named}]},
        "pool": {"type": "object", "additionalProperties": pool},
        "limits": {
            "anyOf": [
                _section(Limits, needed=("in_flight",)),
                {"type": "object", "additionalProperties": _section(Limits, needed=("in_flight",))},
            ]
        },
    }
    for name, (kind, needed) in VALUES.items():
        properties[name] = {"anyOf": [{"const": False}, _section(kind, needed=[*needed])]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A dspex runtime",
        "type": "object",
        "properties": properties,
        "required": ["lm"],
        "additionalProperties": False,
    }


def _runtime() -> dict[str, Any]:
    return _object(
        {
            "timeout": {**_SECONDS, "description": "Seconds a call may take unless it says otherwise."},
            "adapter": {
                "enum": [*ADAPTERS, *WORKER_ADAPTERS],
                "description": "How prompts are laid out and replies read.",
            },
            "parsing": {"enum": ["tolerant", "dspy"], "description": "How replies are read."},
            "dialect": {"enum": [*KNOWN], "description": "The version of DSPy whose prompts are written."},
            "strategy": {"enum": [*get_args(Strategy)], "description": "Which side a call goes to."},
        }
    )


_TIMEOUTS = (
    "timeout",
    "connect_timeout",
    "first_byte_timeout",
    "first_text_timeout",
    "chunk_timeout",
    "stream_timeout",
)


def _lm() -> dict[str, Any]:
    told = _told(LM)
    one = {
        "model": {"type": "string", "description": told["model"]},
        "model_type": {"enum": [*get_args(ModelType)], "description": told["model_type"]},
        "api_base": {**_TEXT, "description": told["api_base"]},
        "api_key": {**_REFERENCE, "description": told["api_key"]},
        **{name: {**_SECONDS, "description": told[name]} for name in _TIMEOUTS},
        "max_response_bytes": {"type": "integer", "description": told["max_response_bytes"]},
        "limits": {**_section(RateLimit), "description": _sentence(RateLimit)},
        "proxy": {**_REFERENCE, "description": told["proxy"]},
        "tls": {**_section(TLS), "description": _sentence(TLS)},
        "cache": {
            "anyOf": [{"type": "boolean"}, {"enum": ["off", "memory", "disk"]}, _section(Cache)],
            "description": _sentence(Cache),
        },
    }
    own = _section(Deployment)["properties"]
    deployment = {
        "type": "object",
        "properties": {**one, **{name: own[name] for name in OF_A_DEPLOYMENT}},
        "required": ["model"],
    }
    of_group = _told(LMGroup)
    group = {
        "deployments": {"type": "array", "items": deployment, "minItems": 1},
        "name": {"type": "string", "description": of_group["name"]},
        "strategy": {"enum": [*get_args(GroupStrategy)], "description": of_group["strategy"]},
        "wait": {"type": "boolean", "description": of_group["wait"]},
        "breaker": {"anyOf": [{"const": False}, _section(Breaker)], "description": of_group["breaker"]},
    }
    return {
        "description": "A model, with settings of its requests, or several deployments as one.",
        "anyOf": [
            {"type": "object", "properties": {**one, "deployments": False}, "required": ["model"]},
            _object(group, ["deployments"]),
        ],
    }


def _section(kind: type[Any], *, skip: Sequence[str] = (), needed: Sequence[str] = ()) -> dict[str, Any]:
    """The schema of a class of settings."""
    hints, told, off = get_type_hints(kind), _told(kind), may_be_off(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        if field.name not in skip:
            what = {"description": told[field.name]} if field.name in told else {}
            value = _type(hints[field.name])
            if field.name in off:
                value = {"anyOf": [{"const": False}, value]}
            properties[field.name] = {**value, **what}
    return _object(properties, needed)


def _object(properties: dict[str, Any], needed: Sequence[str] = ()) -> dict[str, Any]:
    required = {"required": [*needed]} if needed else {}
    return {"type": "object", "properties": properties, **required, "additionalProperties": False}


def _type(hint: Any) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if hint in _SIMPLE:
        return dict(_SIMPLE[hint])
    if origin is Literal:
        return {"enum": [*args]}
    if origin in (Union, types.UnionType):
        kinds = [_type(arg) for arg in args if arg is not type(None)]
        kinds = [each for index, each in enumerate(kinds) if each not in kinds[:index]]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _type(args[1])}
    if origin is Sequence:
        return {"type": "array", "items": _type(args[0])}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return {**_section(hint), "description": _sentence(hint)}
    return {"type": "string"}  # a path


def _sentence(kind: type[Any]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _told(kind: type[Any]) -> dict[str, str]:
    """What the docstring says of each attribute, or argument."""
    text = inspect.cleandoc(kind.__doc__ or "")
    block = re.search(r"^(?:Attributes|Args):\n((?:(?: {4}.*)?\n)*)", text + "\n", re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): ((?:.|\n {8})*)", block[1] if block else "", re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}
