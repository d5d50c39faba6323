"""Values of replies that the core does not read itself: coercions, constants, classes of the user's.

Each function here gives what DSPy gives, and takes time in proportion to the text: what would take more is a
`ReplyError`. The core calls them; importing this module imports pydantic.
"""

from __future__ import annotations

import ast
import enum
import json
import re
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError

from dspex._core import guess_json, guess_steps, repair_json
from dspex._engine.custom_types import is_dspy_type
from dspex._engine.type_adapters import Memo, validator_of
from dspex._release import released
from dspex.errors import ReplyError

if TYPE_CHECKING:
    from dspex._core import Dialect

__all__ = ["DSPY_STEPS", "loads", "read_value"]

DSPY_STEPS = 300_000
"""Steps that a text may take where DSPy's own code makes it whole, in Python: about 30 ms."""

_CONSTANT = re.compile(
    r"""(?:
        [\s,()\[\]{}:+\\-] | \#[^\n]*+ | \.{3} | (?:True|False|None|set)\b
        | (?:0[xXoObB][\da-fA-F_]++ | [\d_.]++(?:[eE][+-]?[\d_]++)?+)[jJ]?+(?!\w)
        | [rRbBuU]{0,2}+(?:
            \'{3}(?:[^\'\\]|\\.|\'(?!\'\'))*+\'{3} | "{3}(?:[^"\\]|\\.|"(?!""))*+"{3}
            | \'(?:[^\'\\\n]|\\.)*+\' | "(?:[^"\\\n]|\\.)*+"
        )
    )*+""",
    re.VERBOSE | re.DOTALL,
)
"""What `ast.literal_eval` may make a value of. Of anything else it makes an error, with a warning for each
place where a word touches a number."""


def loads(text: str) -> tuple[Any, str | None]:
    """What json_repair makes of a text, and the code of what was done to it; None for strict JSON.

    Raises:
        RecursionError: If it nests too deep.
        ValueError: If json_repair fails.
        ReplyError: If it would take too many steps (`reply-too-costly`).
    """
    try:
        return json.loads(text), None
    except ValueError:
        pass
    if repaired := repair_json(text):
        value, cut_off = repaired
        return value, "cut-off" if cut_off else "json"
    return guess_json(text)[0], "json"


def read_value(value: Any, annotation: Any, dialect: Dialect) -> tuple[Any, str | None]:
    """The value of a field as its type, with the code of what was done to a text of broken JSON.

    Raises:
        ValueError: If it is no value of the type.
    """
    done: list[str] = []
    try:
        return _parse_value(value, annotation, dialect, done), done[0] if done else None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except TypeError as error:
        # So a type of DSPy's may refuse a value.
        raise ValueError(f"TypeError: {error}") from error


class _Kind(NamedTuple):
    """What is asked of a type for every value.

    Attributes:
        is_enum: Whether it is an enum.
        choices: The choices of a `Literal`.
        is_optional_text: Whether it is a union with both text and None in it, of which any text is one.
        is_dspy: Whether it is a type of DSPy's.
        holds_dspy: Whether it or one of its arguments is.
    """

    is_enum: bool
    choices: tuple[Any, ...] | None
    is_optional_text: bool
    is_dspy: bool
    holds_dspy: bool

    @classmethod
    def of(cls, annotation: Any) -> _Kind:
        origin, args = get_origin(annotation), get_args(annotation)
        is_dspy = is_dspy_type(annotation)
        return cls(
            is_enum=isinstance(annotation, type) and issubclass(annotation, enum.Enum),
            choices=args if origin is Literal else None,
            is_optional_text=origin in (Union, types.UnionType) and type(None) in args and str in args,
            is_dspy=is_dspy,
            holds_dspy=is_dspy or any(map(is_dspy_type, args)),
        )


_kind_of: Memo[_Kind] = released(Memo(_Kind.of))


def _parse_value(value: Any, annotation: Any, dialect: Dialect, done: list[str]) -> Any:
    if annotation is str:
        return str(value)
    kind = _kind_of(annotation)
    if kind.is_enum:
        return _member(annotation, value)
    if kind.choices is not None:
        args = kind.choices
        if value in args:
            return value
        if isinstance(value, str):
            value = _bare(value)
            if value in args:
                return value
        if not dialect.converts_choices:
            raise ValueError(f"{value!r} is not one of {args!r}")
    if not isinstance(value, str) or kind.is_optional_text:
        return _validated(value, annotation, kind)
    candidate, code = loads(value)
    if candidate == "" and value != "":
        candidate = _constant(value)
    elif code is not None:
        done.append(code)
    try:
        return _validated(candidate, annotation, kind)
    except ValidationError:
        if not kind.is_dspy:
            raise
        try:
            done.clear()
            return _validated(value, annotation, kind)
        except Exception as error:
            if not (dialect.any_error_refuses or isinstance(error, ValidationError)):
                raise
        raise


def _validated(value: Any, annotation: Any, kind: _Kind) -> Any:
    if kind.holds_dspy:
        steps = sum(map(guess_steps, _arguments(value)))
        if steps > DSPY_STEPS:
            raise ReplyError(
                "the broken JSON in the arguments of a tool call would take too many steps to make whole",
                code="reply-too-costly",
                hint="look at the reply, and ask again: no ordinary reply comes near the bound",
            )
    return validator_of(annotation)(value)


def _arguments(value: Any) -> Iterator[str]:
    """The texts in a value that `dspy.ToolCalls` hands to json_repair while pydantic validates it."""
    if isinstance(value, list):
        for item in value:
            yield from _arguments(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str) and name in ("args", "arguments"):
                yield item
            else:
                yield from _arguments(item)


def _constant(text: str) -> Any:
    """What json_repair gives up may still be a Python constant."""
    if not _CONSTANT.fullmatch(text):
        return text
    try:
        return ast.literal_eval(text)
    except MemoryError:  # so Python's parser says that its stack is full
        raise ValueError("it is nested too deep") from None
    except (ValueError, SyntaxError):
        return text


def _member(cls: type[enum.Enum], name_or_value: Any) -> Any:
    for member in cls:
        if member.value == name_or_value:
            return member
    if isinstance(name_or_value, str) and name_or_value in cls.__members__:
        return cls.__members__[name_or_value]
    raise ValueError(f"{name_or_value} is not a valid name or value for the enum {cls.__name__}")


def _bare(text: str) -> str:
    """A choice without the type's name or the quotes around it."""
    text = text.strip()
    if text.startswith(("Literal[", "str[")) and text.endswith("]"):
        text = text[text.find("[") + 1 : -1]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return text
