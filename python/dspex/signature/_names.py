"""Names in a signature's text that the core does not know, and the names of types in prompts.

A name is looked up among the names of `typing`, in the caller's frame, and then among a short list of
modules. No other module is ever imported because a text says so.
"""

from __future__ import annotations

import enum
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from dspex._core import type_source
from dspex.errors import SignatureError

__all__ = [
    "MODULES",
    "display_name",
    "find",
    "has_lone_surrogate",
    "import_problem",
    "names_of",
    "only_given",
    "problem",
    "similar",
    "subscripted",
    "without_notes",
]

MODULES = frozenset(
    {
        "collections",
        "datetime",
        "decimal",
        "dspy",
        "enum",
        "fractions",
        "pathlib",
        "pydantic",
        "typing",
        "uuid",
    }
)
"""Modules whose types a text may name, as in `datetime.date`."""

_TYPES = (type, typing._GenericAlias, types.GenericAlias, typing._SpecialForm, types.UnionType)  # type: ignore[attr-defined]
"""What DSPy takes for the type of a field."""

_LONGEST = 64
"""Characters of a name that one looks for others like it."""

_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


_FRAMES: ContextVar[bool] = ContextVar("dspex_names_in_frames", default=True)
_FOUND: ContextVar[frozenset[str]] = ContextVar("dspex_modules_found", default=MODULES)


@contextmanager
def only_given(*, dspy: bool = True) -> Iterator[None]:
    """Let no text mean what the code around happens to have under its names: it comes from elsewhere.

    Args:
        dspy: Whether it may name a type of DSPy's, which imports DSPy.
    """
    token = _FRAMES.set(False)
    found = _FOUND.set(MODULES if dspy else MODULES - {"dspy"})
    try:
        yield
    finally:
        _FRAMES.reset(token)
        _FOUND.reset(found)


def find(name: str) -> Any:
    """What a name stands for where the signature is made; `...` if it is unknown."""
    if name in typing.__all__:
        return getattr(typing, name)
    for namespace in _namespaces(name):
        if name in namespace:
            return namespace[name]
    return import_module(name) if name in _FOUND.get() else ...


def similar(name: str, given: dict[str, Any] | None) -> str | None:
    """A name of a type that is known where the signature is made and looks like this one.

    Args:
        name: The unknown name.
        given: The caller's `types=`.
    """
    if len(name) > _LONGEST:
        return None
    import difflib  # a mistake can wait for it

    names = [*(given or {}), *typing.__all__, *MODULES]
    for namespace in _namespaces(name):
        names += [key for key, value in list(namespace.items()) if isinstance(value, type)]
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return found[0] if found else None


def _namespaces(name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The names around the code that makes the signature, local ones first; none if they do not count."""
    if not _FRAMES.get():
        return {}, {}
    frame = sys._getframe(2)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).split(".")[0] == "dspex":
        frame = frame.f_back
    # Up to 3.11 a comprehension has a frame of its own, in which the names around it are missing.
    while frame.f_back is not None and frame.f_code.co_name in _COMPREHENSIONS and name not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals, frame.f_globals


class Problem(NamedTuple):
    """Why an annotation cannot be a field's type."""

    is_type: bool
    """Whether it is a type at all."""
    message: str
    hint: str = "use a type that pydantic can validate"


def problem(annotation: Any) -> Problem | None:
    """Why an annotation cannot be a field's type; None where it can."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError
    from pydantic_core import SchemaError

    if not isinstance(annotation, _TYPES):
        return Problem(False, f"it is a value of class {type(annotation).__name__}, not a type")
    try:
        adapter = TypeAdapter(annotation)
    except RecursionError:
        return Problem(True, "it is nested too deep", "give the parts in the middle a class of their own")
    except (PydanticUserError, SchemaError, TypeError, ValueError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        return Problem(True, f"pydantic cannot validate it: {reason[0].split('. ')[0]}")
    return _code_in(adapter.core_schema)


_IMPORTERS = frozenset(
    {
        "builtins.__import__",
        "builtins.eval",
        "builtins.exec",
        "importlib.import_module",
        "pkgutil.resolve_name",
        "pydantic._internal._validators.import_string",
    }
)
"""Functions that make code of a text: what `pydantic.ImportString` validates with, and others like it."""


def import_problem(annotation: Any) -> Problem | None:
    """Why a type with its notes may not be a field's: a text that a model wrote would be imported or run.

    Notes that do not fit their type are no problem here: they validate nothing.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError
    from pydantic_core import SchemaError

    try:
        adapter = TypeAdapter(annotation)
    except (PydanticUserError, SchemaError, TypeError, ValueError, RecursionError):
        return None
    return _code_in(adapter.core_schema)


def _code_in(schema: Any) -> Problem | None:
    """Looks at all parts: the items of a list, the fields of a model, the metadata of `Annotated`."""
    waiting, seen = [schema], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        # Of a model whose build is put off it is a mapping that makes itself when it is looked at.
        if type(part) is dict or isinstance(part, Mapping):
            function = part.get("function")
            if function is not None and _qualified(function) in _IMPORTERS:
                return Problem(
                    True,
                    f"it would make code of a text that a model wrote ({function.__name__})",
                    "take the text as a str, and look it up in a table of what may be meant",
                )
            waiting += (inner for key, inner in part.items() if key not in _ABOUT and type(inner) is not str)
        elif isinstance(part, (list, tuple)):
            waiting += part
    return None


_ABOUT = frozenset({"cls", "config", "metadata", "ref", "serialization"})
"""Keys of a schema that say nothing of how a value is read."""


def _qualified(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


def has_lone_surrogate(text: str) -> bool:
    """Whether a text holds half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def without_notes(annotation: Any) -> Any:
    """The type in `Annotated`, as pydantic takes it for a field's."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def names_of(annotation: Any) -> tuple[str, str | None, str]:
    """The name of a type in prompts, in prompts that name `|` unions differently, and in a signature's text.

    The second is None where it is the first.
    """
    name, pipe_name = display_name(annotation), display_name(annotation, pipe="UnionType")
    source = _source_name(annotation)
    if any(map(has_lone_surrogate, (name, pipe_name, source))):
        raise SignatureError(
            f"the type {annotation!r} holds half of a surrogate pair, which is not a character",
            code="lone-surrogate",
            hint="write the character itself",
        )
    return name, None if pipe_name == name else pipe_name, source


def _source_name(annotation: Any) -> str:
    if annotation is ... or isinstance(annotation, enum.Enum):
        return "..." if annotation is ... else value_source(annotation)
    args = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return f"Annotated[{type_source(args[0])}, {', '.join(map(note_source, args[1:]))}]"
    if args and not any(isinstance(arg, list) for arg in args):
        alias = getattr(annotation, "_name", None)
        base = f"typing.{alias}" if alias else _source_name(get_origin(annotation))
        return f"{base}[{', '.join(map(type_source, args))}]"
    made = subscripted(annotation)
    if made is not None:
        return f"{_source_name(made[0])}[{', '.join(map(_argument_source, made[1]))}]"
    if isinstance(annotation, type) and not args:
        known = annotation.__module__.split(".")[0] in MODULES
        return f"{annotation.__module__}.{annotation.__qualname__}" if known else str(annotation.__name__)
    return str(annotation)


def _argument_source(argument: Any) -> str:
    return repr(argument) if isinstance(argument, str) else type_source(argument)


def subscripted(annotation: Any) -> tuple[type, tuple[Any, ...]] | None:
    """The class and the arguments of which Python made a class: `Page[Person]`, `dspy.Code["sql"]`.

    None where the class has a name of its own.
    """
    generic = getattr(annotation, "__pydantic_generic_metadata__", None)
    if generic and generic["origin"] is not None:
        return generic["origin"], tuple(generic["args"])
    code = getattr(sys.modules.get("dspy"), "Code", None)
    if code is not None and isinstance(annotation, type) and not get_args(annotation):
        base = annotation.__mro__[1] if len(annotation.__mro__) > 1 else None
        language = annotation.__dict__.get("language")
        made = annotation.__module__ == code.__module__ and annotation is not code
        if made and isinstance(base, type) and issubclass(base, code) and isinstance(language, str):
            return base, (language,)
    return None


def note_source(note: Any) -> str:
    """Code for what stands beside a type in `Annotated`."""
    from pydantic.fields import FieldInfo

    from dspex.signature._fields import Details

    if not isinstance(note, FieldInfo):
        return value_source(note)
    details = Details.of(note, {})
    return f"Field({arguments_source({} if details is None else details.settings)})"


def arguments_source(arguments: dict[str, Any]) -> str:
    """Code for the keyword arguments of a call."""
    return ", ".join(f"{name}={value_source(value)}" for name, value in arguments.items())


def value_source(value: Any) -> str:
    """Code for a value: its `repr`, or its name where that is no code."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, type | types.FunctionType):
        return value.__qualname__
    return repr(value)


def display_name(annotation: Any, pipe: str = "Union") -> str:
    """The name of a type as DSPy's prompts show it; `pipe` is what a union written with a bar is called."""
    origin = get_origin(annotation)
    if origin is None:
        name = getattr(annotation, "__name__", None)
        if name == "Reasoning" and annotation.__module__ == "dspy.adapters.types.reasoning":
            return "str"  # to a model it is text like any other
        return str(annotation) if name is None else str(name)
    quote = origin is Literal
    args = (
        _quoted(arg) if quote and isinstance(arg, str) else display_name(arg, pipe)
        for arg in get_args(annotation)
    )
    # From Python 3.14 on the bar makes a `Union` too.
    has_bars = origin is types.UnionType and sys.version_info < (3, 14)
    base = pipe if has_bars else display_name(origin)
    return f"{base}[{', '.join(args)}]"


def _quoted(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    return "'" + text.replace("'", "\\'") + "'"
