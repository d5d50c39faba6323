"""A value that is nearly one of its type: each chance it gets, in a fixed order, and what was done.

First as DSPy reads it. Then a text without its fence and decoration, and as the choice, boolean or number
that it is in other words. Then what stands inside a list, a mapping or a model: each text that pydantic
refuses. Last a list that was cut off, or that is the one item. What could be two values is none.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from dspex._engine.replies import in_braces, loads, read_value
from dspex._engine.type_adapters import adapter_of

if TYPE_CHECKING:
    from dspex._core import Dialect

__all__ = ["SHOWN", "AmbiguousError", "near_value"]

SHOWN = 80
"""Characters of a reply that a repair or a reason shows."""


class AmbiguousError(ValueError):
    """A text that could be read in two ways."""


def near_value(text: Any, annotation: Any, dialect: Dialect) -> tuple[Any, list[str]]:
    """The value, and the codes of what was done to get it.

    Raises:
        ValueError: If there is none, or more than one.
    """
    try:
        value, code = read_value(text, annotation, dialect)
    except ValueError as error:
        refusal = error
    else:
        return value, [] if code is None else [code]
    try:
        return _nearer(text, annotation, dialect, refusal) or _raise(refusal)
    finally:
        del refusal  # its traceback holds this frame: a circle, and the call with all it was given in it


def _raise(error: ValueError) -> NoReturn:
    try:
        raise error
    finally:
        del error


def _nearer(
    text: Any, annotation: Any, dialect: Dialect, refusal: ValueError
) -> tuple[Any, list[str]] | None:
    """The same for a text that was refused as it stands; None where it is to stay so."""
    if isinstance(text, str):
        for code, candidate in _bare(text):
            try:
                value, more = read_value(candidate, annotation, dialect)
            except ValueError:
                continue
            return value, [code] if more is None else [code, more]
        if (converted := _converted(text, annotation)) is not None:
            code, value = converted
            return value, [code]
    if isinstance(refusal, ValidationError) and (mended := _mended(text, annotation, dialect, refusal)):
        return mended
    if (item := _item_of(annotation)) is not None:
        return _list(text, annotation, item, dialect)
    return None


# --- what stands inside ------------------------------------------------------------------------------------


def _mended(
    value: Any, annotation: Any, dialect: Dialect, refusal: ValidationError
) -> tuple[Any, list[str]] | None:
    """The value with all that pydantic refused inside it converted; None if that is not all that is wrong.

    Raises:
        AmbiguousError: If something inside could be read in two ways.
    """
    codes: list[str] = []
    if isinstance(value, str):
        value, code = loads(value)
        if code == "cut-off":
            return None  # its last item may be half of another
        if code is not None:
            codes.append(code)
    if not isinstance(value, (list, dict)):
        return None
    places: set[tuple[str, ...]] = set()
    for error in refusal.errors(include_url=False, include_input=False, include_context=False):
        place = tuple(map(str, error["loc"]))
        places.update(place[:length] for length in range(len(place) + 1))
    try:
        value = _Mender(places, codes).mend(value, annotation, ())
        return read_value(value, annotation, dialect)[0], codes
    except AmbiguousError:
        raise
    except (ValueError, TypeError, RecursionError):  # keys need not be hashable once they are mended
        return None


@dataclasses.dataclass
class _Mender:
    """Converts the texts where pydantic named a place, or one inside, and keeps the codes of what it did."""

    places: set[tuple[str, ...]]
    codes: list[str]

    def mend(self, value: Any, annotation: Any, place: tuple[str, ...]) -> Any:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self.mend(value, args[0], place)
        if origin in (Union, types.UnionType):
            some = [arg for arg in args if arg is not type(None)]
            return self.mend(value, some[0], place) if len(some) == 1 else value
        if isinstance(value, list) and isinstance(origin, type) and issubclass(origin, Collection):
            kinds = args if origin is tuple and args[-1:] != (...,) else args[:1] * len(value)
            kinds = (*kinds, *[Any] * (len(value) - len(kinds)))
            return [
                self.mend(item, kind, (*place, str(at)))
                for at, (item, kind) in enumerate(zip(value, kinds, strict=False))
            ]
        if isinstance(value, dict):
            if isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
                keys = [self.mend(key, args[0], (*place, str(key), "[key]")) for key in value]
                if len({adapter_of(args[0]).validate_python(key) for key in keys}) < len(keys):
                    raise AmbiguousError("two of its keys are one")
                mended = [self.mend(item, args[1], (*place, str(key))) for key, item in value.items()]
                return dict(zip(keys, mended, strict=True))
            parts = _parts(annotation)
            return {
                key: self.mend(item, parts.get(key, Any), (*place, str(key))) for key, item in value.items()
            }
        return self._leaf(value, annotation, place)

    def _leaf(self, value: Any, annotation: Any, place: tuple[str, ...]) -> Any:
        if not isinstance(value, str) or place not in self.places:
            return value
        candidates = [candidate for _, candidate in _bare(value)]
        for candidate in candidates:
            try:
                adapter_of(annotation).validate_python(candidate)
            except ValidationError:
                continue
            self._did("decoration")
            return candidate
        converted = _converted(value, annotation)
        if converted is None:
            return value
        code, value = converted
        self._did(code)
        return value

    def _did(self, code: str) -> None:
        if code not in self.codes:
            self.codes.append(code)


def _parts(annotation: Any) -> dict[str, Any]:
    """The types of what a model, a dataclass or a typed dict has, by the names they have in a reply."""
    if is_typeddict(annotation) or dataclasses.is_dataclass(annotation):
        return typing.get_type_hints(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {field.alias or name: field.annotation for name, field in fields}
    return {}


# --- lists -------------------------------------------------------------------------------------------------


def _item_of(annotation: Any) -> Any:
    """The type of a list's items; None for what is no list."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        lists = [arg for arg in args if arg is not type(None)]
        return _item_of(lists[0]) if len(lists) == 1 else None
    return args[0] if origin is list and args else None


_SEPARATOR = re.compile(r"[,;|\n]| and | or |^[-*•]\s", re.IGNORECASE)
_NO_ITEM = frozenset({"", "none", "null", "nothing", "empty", "n/a", "na", "-", "[]"})


def _list(value: Any, annotation: Any, item: Any, dialect: Dialect) -> tuple[list[Any], list[str]] | None:
    """A list that was cut off inside an item, or the one item that stands where a list should.

    Returns:
        None if it is neither.

    Raises:
        ValueError: If it could be several items, or one that is no value of its type.
    """
    if not isinstance(value, str):
        if value is None or isinstance(value, list) or item is str:
            return None
        return _one_item(value, item, dialect)
    value = value.strip()
    if value.startswith("["):
        whole = _whole_items(value)
        if whole is None:
            return None
        if whole == "]":
            raise AmbiguousError("it is cut off in its first item")
        whole_value, codes = near_value(whole, annotation, dialect)
        return whole_value, ["cut-off", *codes]
    if value.startswith("{") and item is not str and in_braces(value) == value:
        return _one_item(loads(value)[0], item, dialect)
    if value.casefold() in _NO_ITEM or value.startswith("{"):
        return None
    if _SEPARATOR.search(value):
        raise AmbiguousError(f"{_shown(value)} may be one item or several")
    return _one_item(value, item, dialect)


def _one_item(value: Any, item: Any, dialect: Dialect) -> tuple[list[Any], list[str]]:
    only, codes = near_value(value, item, dialect)
    return [only], ["one-item", *codes]


def _whole_items(text: str) -> str | None:
    """A list that is cut off inside an item, without that item; None for any other list."""
    depth, end, quoted, escaped = 0, 0, False, False
    for at, char in enumerate(text):
        if quoted:
            quoted, escaped = escaped or char != '"', char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
            if depth == 0:
                return None
        elif char == "," and depth == 1:
            end = at
    return text[:end] + "]"


# --- texts -------------------------------------------------------------------------------------------------


def _bare(text: str) -> Iterator[tuple[str, str]]:
    """The text without a fence, and without what decorates it."""
    # Possessive, or the time would grow with the square of a line that no fence closes.
    fence = re.fullmatch(r"```[^\n`]*+\n?+(.*?)\n?```", text.strip(), re.DOTALL)
    if fence:
        text = fence[1].strip()
        yield "fence", text
    start, end = _stripped(text, 0, len(text))
    while True:
        before = start, end
        for mark in ("**", "__", "`", '"', "'", "*", "_"):
            size = len(mark)
            if (
                end - start > 2 * size
                and text.startswith(mark, start, end)
                and text.endswith(mark, start, end)
            ):
                start, end = _stripped(text, start + size, end - size)
        # A full stop ends a sentence, not a number.
        if end - start > 1 and text[end - 1] in ".!" and _LETTER.match(text[end - 2]):
            end -= 1
        if end - start > 1 and text[end - 1] == "." and text[end - 2].isdecimal():
            end -= 1
        if before == (start, end):
            break
    if (start, end) != (0, len(text)):
        yield "decoration", text[start:end]


_LETTER = re.compile(r"[^\W\d]")


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Where the part of a text begins and ends that has no white space around it; nothing is copied."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


_NOTHING = object()
_Attempt = Callable[[str], Any]


def _converted(text: str, annotation: Any) -> tuple[str, Any] | None:
    """What a text is as a value of the type, with the code of what was done; None if it is none.

    Raises:
        AmbiguousError: If it could be more than one.
    """
    bare = [text, *(candidate for _, candidate in _bare(text))][-1]
    for code, attempt in _conversions(annotation):
        value = attempt(bare)
        if value is not _NOTHING:
            return code, value
    return None


def _conversions(annotation: Any) -> Iterator[tuple[str, _Attempt]]:
    """What may be made of a text, for a type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        some = [arg for arg in args if arg is not type(None)]
        if len(some) == 1:
            yield from _conversions(some[0])
    elif origin is Literal:
        names = [(str(arg), arg) for arg in args]
        yield "case", lambda text: _by_case(text, names)
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        # One member's value may be another's name, but for the case.
        members = [(str(member.value), member) for member in annotation]
        members += annotation.__members__.items()
        yield "case", lambda text: _by_case(text, members)
    elif annotation is bool:
        yield "case", lambda text: _by_case(text, _BOOLEANS)
    elif annotation is int or annotation is float:
        yield "number", lambda text: _number(text, annotation)


_BOOLEANS = [("true", True), ("false", False), ("yes", True), ("no", False)]


def _by_case(text: str, choices: Sequence[tuple[str, Any]]) -> Any:
    def different(named: Callable[[str], Any]) -> list[Any]:
        hits = {id(value): value for name, value in choices if named(name.casefold())}
        return list(hits.values())

    folded = text.casefold()
    same = different(lambda name: name == folded)
    if len(same) == 1:
        return same[0]
    if len(some := same or different(lambda name: _holds(folded, name))) > 1:
        raise AmbiguousError(f"{_shown(text)} may be {' or '.join(map(repr, some))}")
    return _NOTHING


def _holds(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


_NUMBER = re.compile(
    r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*(%|[^\W\d_]+|[^\W\d_]+/[^\W\d_]+|°[CF]?|[€$£])?"
)
_SCALES = frozenset(
    """
    k m b g t mn bn tn mln bln trln mil mio mrd tsd lakh lakhs crore crores dozen dozens hundred hundreds
    thousand thousands million millions milliard milliards billion billions trillion trillions quadrillion
    quadrillions half halves third thirds quarter quarters tenth tenths hundredth hundredths thousandth
    thousandths percent percentage pct permille ppm ppb bp bps pp point points
    """.split()  # noqa: SIM905 - one word on a line is no list to read
)
"""Words that may change the number before them; a unit does not."""


def _number(text: str, kind: type[int] | type[float]) -> Any:
    match = _NUMBER.fullmatch(text)
    if match is None:
        if len(set(re.findall(r"\d+(?:\.\d+)?", text))) > 1:
            raise AmbiguousError(f"{_shown(text)} may be one number or several")
        return _NOTHING
    digits, unit = match[1].replace(",", ""), match[2]
    if unit == "%" and kind is float:
        return float(digits) / 100
    if unit is not None and (unit == "%" or unit.partition("/")[0].casefold() in _SCALES):
        raise AmbiguousError(f"{_shown(text)} may be {digits} or a multiple of it")
    if kind is int and "." in digits:
        return _NOTHING
    return kind(digits)
