"""What a call's payload may hold, checked before the work begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dspex.errors import ConfigError, did_you_mean

__all__ = ["FUNCTION", "MODULE", "check"]

_Shape = Mapping[str, type | tuple[type, ...]]

_MANY: Final = (list, tuple)

FUNCTION: Final[_Shape] = {"function": str, "args": _MANY, "kwargs": dict, "feeds": _MANY}
"""The parts of a `function` call; see `functions`."""

MODULE: Final[_Shape] = {
    "class": str,
    "signature": (str, dict),
    "types": dict,
    "bars": dict,
    "instructions": str,
    "fields": dict,
    "defaults": dict,
    "args": dict,
    "imports": dict,
    "tools": _MANY,
    "state": (dict, str),
    "inputs": dict,
    "demos": _MANY,
    "config": dict,
    "adapter": str,
    "extraction_lm": dict,
    "parsing": str,
    "markers": str,
    "typed": dict,
    "lm": dict,
    "stream": dict,
    "feeds": _MANY,
}
"""The parts of a `module` or `predict` call; see `modules`."""


def check(payload: Any, shape: _Shape, *needed: str) -> None:
    """See to it that a payload has the parts of its operation, each of its type.

    Args:
        payload: What came.
        shape: The parts there may be, with their types. None stands for a part that is not there.
        needed: Parts that must be there.

    Raises:
        ConfigError: If it is none, with the part that is wrong (`bad-payload`).
    """
    if not isinstance(payload, dict):
        raise _refusal(
            f"the payload is of type {type(payload).__name__}", f"it is a mapping of {', '.join(shape)}"
        )
    for name, part in payload.items():
        kind = shape.get(name)
        if kind is None:
            raise _refusal(
                f"the payload has a part {name!r}",
                f"{did_you_mean(str(name), shape)}the parts are: {', '.join(shape)}",
            )
        if part is not None and not isinstance(part, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            raise _refusal(
                f"{name!r} in the payload is of type {type(part).__name__}",
                f"it is of type {' or '.join(one.__name__ for one in kinds)}",
            )
    for name in needed:
        if payload.get(name) is None:
            raise _refusal(f"the payload has no {name!r}", f"the parts are: {', '.join(shape)}")


def _refusal(what: str, hint: str) -> ConfigError:
    return ConfigError(f"the worker cannot serve the call: {what}", code="bad-payload", hint=hint)
