"""What a call's payload may hold, checked before the work begins.

A shape says of what type a part is, what is inside it, and what must be there. A refusal names the place of
what is wrong, as in `$.tools[0].function`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dspex.errors import ConfigError, did_you_mean

__all__ = ["FUNCTION", "MODULE", "Shape", "check", "refusal"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a part of a payload is.

    Attributes:
        kinds: Its types.
        parts: For a mapping of known parts: these, with their shapes.
        needed: Those of them that must be there; of several in a tuple, exactly one.
        items: For a list, or a mapping of any names: the shape of each item.
        choices: The texts there are, if only some are.
    """

    kinds: tuple[type[Any], ...]
    parts: Mapping[str, Shape] | None = None
    needed: tuple[str | tuple[str, ...], ...] = ()
    items: Shape | None = None
    choices: tuple[str, ...] = field(default=())


_ANY: Final = Shape((object,))
_TEXT: Final = Shape((str,))
_BOOL: Final = Shape((bool,))


def _list(items: Shape = _ANY) -> Shape:
    return Shape((list, tuple), items=items)


def _named(items: Shape = _ANY, *kinds: type) -> Shape:
    """A mapping of any names to such items, or else a value of one of the `kinds`."""
    return Shape((dict, *kinds), items=items)


def _record(*needed: str | tuple[str, ...], **parts: Shape) -> Shape:
    return Shape((dict,), parts=parts, needed=needed)


FUNCTION: Final = Shape(
    (dict,),
    parts={"function": _TEXT, "args": _list(), "kwargs": _named(), "input_streams": _list(_TEXT)},
    needed=("function",),
)
"""A `function` call; see `functions`."""

MODULE: Final = Shape(
    (dict,),
    parts={
        "class": _TEXT,
        "signature": _TEXT,
        "types": _named(_TEXT),
        "bars": _named(_list(_BOOL)),
        "instructions": _TEXT,
        "fields": _named(_named()),
        "defaults": _named(),
        "args": _named(),
        "imports": _named(Shape((str, list, tuple), items=_TEXT)),
        "tools": _list(
            _record(
                ("function", "callback"),
                function=_TEXT,
                callback=_TEXT,
                name=_TEXT,
                desc=_TEXT,
                args=_named(_named()),
            )
        ),
        "state": Shape((dict, str)),
        "inputs": _named(),
        "validated": _BOOL,
        "messages": _list(_record("role", "content", role=_TEXT, content=Shape((str, list)))),
        "demos": _list(_named()),
        "config": _named(),
        "adapter": Shape((str,), choices=("chat", "json", "xml", "baml", "two_step")),
        "extraction_lm": _named(),
        "parsing": Shape((str,), choices=("tolerant", "dspy")),
        "typed": _record(inputs=_list(_TEXT), demos=_list(_list(_TEXT)), outputs=_list(_TEXT)),
        "replies": _list(_TEXT),
        "lm": _named(),
        "stream": _record(fields=_list(_TEXT), status=_TEXT),
        "input_streams": _list(_TEXT),
    },
    needed=("inputs",),
)
"""A `module` or `predict` call; see `modules`."""


def check(payload: Any, shape: Shape) -> None:
    """See to it that a payload has the shape of its operation's. None stands for a part that is not there.

    Raises:
        ConfigError: If it has not, with the place and what is wrong there (`bad-payload`).
    """
    _check(payload, shape, "$")


def refusal(place: str, what: str, hint: str = "") -> ConfigError:
    """The error for a payload with something wrong at a place."""
    return ConfigError(
        f"the worker cannot serve the call: {place} {what}", code="bad-payload", hint=hint, place=place
    )


def _check(value: Any, shape: Shape, place: str) -> None:
    if not isinstance(value, shape.kinds):
        kinds = " or ".join(dict.fromkeys("list" if kind is tuple else kind.__name__ for kind in shape.kinds))
        hint = f"it is of type {kinds}"
        if shape.parts is not None:
            hint += f", with the parts: {', '.join(shape.parts)}"
        raise refusal(place, f"is of type {type(value).__name__}", hint)
    if shape.choices and value not in shape.choices:
        hint = f"{did_you_mean(str(value), shape.choices)}one of: {', '.join(shape.choices)}"
        raise refusal(place, f"is {value!r}", hint)
    if shape.parts is not None:
        _check_parts(dict(value), shape, shape.parts, place)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise refusal(place, f"has the key {name!r}", "its keys are names, of type str")
            if shape.items is not None and shape.items is not _ANY:
                _check(item, shape.items, f"{place}.{name}")
    elif isinstance(value, list | tuple) and shape.items is not None and shape.items is not _ANY:
        for i, item in enumerate(value):
            _check(item, shape.items, f"{place}[{i}]")


def _check_parts(value: dict[Any, Any], shape: Shape, parts: Mapping[str, Shape], place: str) -> None:
    there = f"the parts are: {', '.join(parts)}"
    for name, part in value.items():
        known = parts.get(name) if isinstance(name, str) else None
        if known is None:
            raise refusal(place, f"has a part {name!r}", did_you_mean(str(name), parts) + there)
        if part is not None:
            _check(part, known, f"{place}.{name}")
    for needed in shape.needed:
        names = (needed,) if isinstance(needed, str) else needed
        given = [name for name in names if value.get(name) is not None]
        if not given:
            raise refusal(place, f"has no {_either(names)}", there)
        if len(given) > 1:
            raise refusal(place, f"has {' and '.join(map(repr, given))}", "it has one of them")


def _either(names: Iterable[str]) -> str:
    return " and no ".join(map(repr, names))
