"""Values of replies that Rust does not read itself: broken JSON, coercions, classes of the user's.

Each function here gives what DSPy gives. The core calls them; importing this module imports pydantic and
json_repair.
"""

from __future__ import annotations

import ast
import enum
import json
import re
import types
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import json_repair
from pydantic import ValidationError

from dspex._core import repair_json
from dspex.adapters.foreign import is_dspy_type
from dspex.adapters.validation import adapter_of

if TYPE_CHECKING:
    from dspex._core import Dialect

__all__ = ["in_braces", "json_object", "loads", "read_value"]

_BRACE = re.compile(r"[{}]")


def json_object(reply: str) -> tuple[Any, str | None]:
    """The JSON object in a reply, and what was done to find it.

    Anything else than a dict if there is none, or one that nests too deep.
    """
    try:
        found, done = loads(reply)
        if not isinstance(found, dict) and (braced := in_braces(reply)):
            found, done = loads(braced)[0], "json"
    except (RecursionError, ValueError):  # the latter is how json_repair says it
        return None, None
    return found, done


def in_braces(text: str) -> str | None:
    """From the first brace that is closed again to where it is closed.

    DSPy looks for it with a recursive pattern, whose time grows with the square of the braces left open.
    """
    opened: list[int] = []
    first: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            start = opened.pop()
            if first is None or start < first[0]:
                first = start, brace.end()
            if not opened:
                break
    return text[first[0] : first[1]] if first else None


def loads(text: str) -> tuple[Any, str | None]:
    """What json_repair makes of a text, and the code of what was done to it; None for strict JSON."""
    try:
        return json.loads(text), None
    except ValueError:
        pass
    if repaired := repair_json(text):
        value, cut_off = repaired
        return value, "cut-off" if cut_off else "json"
    return json_repair.loads(text, skip_json_loads=True), "json"


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


def _parse_value(value: Any, annotation: Any, dialect: Dialect, done: list[str]) -> Any:
    if annotation is str:
        return str(value)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _member(annotation, value)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        if value in args:
            return value
        if isinstance(value, str):
            value = _bare(value)
            if value in args:
                return value
        if not dialect.converts_choices:
            raise ValueError(f"{value!r} is not one of {args!r}")
    if not isinstance(value, str):
        return adapter_of(annotation).validate_python(value)
    if origin in (Union, types.UnionType) and type(None) in args and str in args:
        return adapter_of(annotation).validate_python(value)
    candidate, code = loads(value)
    if candidate == "" and value != "":
        # What json_repair gives up may still be a Python constant.
        try:
            candidate = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            candidate = value
    elif code is not None:
        done.append(code)
    try:
        return adapter_of(annotation).validate_python(candidate)
    except ValidationError:
        if not is_dspy_type(annotation):
            raise
        try:
            done.clear()
            return adapter_of(annotation).validate_python(value)
        except Exception as error:
            if not (dialect.any_error_refuses or isinstance(error, ValidationError)):
                raise
        raise


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
