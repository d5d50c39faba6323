"""Replies that a person can read and DSPy refuses.

The core calls `read` when a reply, read as DSPy reads it, lacks a field or has a value that is not of its
type. First the reply is cut again, with an eye for markers that are decorated or stand inside a line; then
each value gets its chances, in a fixed order, and the first that gives a value of the type wins. Everything
done to the reply is listed. What could be read in two ways is not read at all.
"""

from __future__ import annotations

import enum
import html
import json
import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from dspex.adapters.replies import json_object, parse_value, read_value
from dspex.adapters.xml import XmlReply
from dspex.prediction import Repair

if TYPE_CHECKING:
    from dspex._core import Dialect

__all__ = ["read"]


class AmbiguousError(ValueError):
    """A text that could be read in two ways."""


_MARKER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_BEFORE_MARKER = re.compile(r"[\s#>*_`-]*|\s*\d+[.)]\s*[*_`]*")
_SHOWN = 80

_Field = tuple[str, Any]
_Found = dict[str, tuple[Any, list[Repair]]]


def read(
    layout: str, fields: Sequence[_Field], reply: str, dialect: Dialect
) -> tuple[dict[str, Any], list[Repair], tuple[str, str] | None]:
    """Read a reply with tolerance.

    Args:
        layout: The adapter's: `"chat"`, `"json"` or `"xml"`.
        fields: The output fields, each with its type.
        reply: The model's reply.
        dialect: Whose reading comes first.

    Returns:
        The fields that could be read, what was done for them, and a field that is there but has no value of
        its type, with the reason where there is more to say.
    """
    names = [name for name, _ in fields]
    found = {"chat": _cut_chat, "json": _cut_json, "xml": _cut_xml}[layout](reply, names)
    # The texts between the keys of a reply that is no JSON, for the fields that are missing or wrong in it.
    between = _cut_keys(reply, names) if layout == "json" and not _is_json(reply) else {}
    if between.keys() - found.keys():
        # Where a field was found inside another, both are cut anew.
        found = {**found, **between}
    bare = not found and len(fields) == 1 and reply.strip() and not _looks_like_layout(layout, reply)
    if bare:
        name = fields[0][0]
        found = {name: (reply.strip(), [Repair(name, "no-marker", reply.strip()[:_SHOWN])])}
    values: dict[str, Any] = {}
    repairs: list[Repair] = []
    problem = None
    for name, annotation in fields:
        reason: str | None = None
        for text, done in filter(None, (found.get(name), between.get(name))):
            try:
                values[name], codes = _value(text, annotation, dialect)
            except ValueError as error:
                reason = reason or (str(error) if isinstance(error, AmbiguousError) else "")
                continue
            repairs += [repair for repair in done if repair not in repairs]
            repairs += [Repair(name, code, str(text)[:_SHOWN]) for code in codes]
            break
        else:
            # A bare text that is no answer is just that: the field is not there.
            if not bare and problem is None and reason is not None:
                problem = (name, reason)
    return values, repairs, problem


def _looks_like_layout(layout: str, reply: str) -> bool:
    """Whether there is a trace of the layout: then the reply is a broken one, not a bare answer."""
    return {"chat": "[[ ##" in reply, "json": "{" in reply, "xml": re.search(r"</?\w+>", reply) is not None}[
        layout
    ]


# --- cutting ---------------------------------------------------------------------------------------------


def _cut_chat(reply: str, names: list[str]) -> _Found:
    reply = "\n".join(reply.splitlines())
    marks = [m for m in _MARKER.finditer(reply) if m[1] in names or m[1] == "completed"]
    leads = [_is_lead(reply, m) for m in marks]
    led = {m[1] for m, lead in zip(marks, leads, strict=True) if lead}
    counts = {name: sum(m[1] == name for m in marks) for name in names}
    # A marker inside a line may be a mention of the field. It counts where it is the only one of its name.
    heads = [
        (m, lead)
        for m, lead in zip(marks, leads, strict=True)
        if lead or (m[1] not in led and counts.get(m[1]) == 1) or m[1] == "completed"
    ]
    found: _Found = {}
    for at, (head, lead) in enumerate(heads):
        name = head[1]
        if name in found or name == "completed":
            continue
        end = _line_lead(reply, heads[at + 1][0]) if at + 1 < len(heads) else len(reply)
        line, _, below = reply[head.end() : end].partition("\n")
        before = reply[reply.rfind("\n", 0, head.start()) + 1 : head.start()]
        text = f"{_undecorated(before, line)}\n{below}".strip()
        code = "marker-in-line" if not lead else "marker-decorated" if before else None
        done = [] if code is None else [Repair(name, code, (before + head[0] + line)[:_SHOWN])]
        found[name] = (text, done)
    return found


def _undecorated(before: str, line: str) -> str:
    """The text behind a marker, without what closes the decoration before the marker."""
    line = line.strip()
    if "#" in before:
        line = line.rstrip("#").rstrip()
    if opening := re.search(r"[*_`]+$", before.rstrip()):
        closing = opening[0][::-1]
        if line.startswith(closing):
            line = line.removeprefix(closing).lstrip().removeprefix(":")
        else:
            line = line.removesuffix(closing)
    return line


def _is_lead(reply: str, mark: re.Match[str]) -> bool:
    """Whether a marker leads its line, but for what decorates it."""
    line = reply.rfind("\n", 0, mark.start()) + 1
    return _BEFORE_MARKER.fullmatch(reply, line, mark.start()) is not None


def _line_lead(reply: str, mark: re.Match[str]) -> int:
    """Where the text before a marker ends: before what decorates the marker."""
    line = reply.rfind("\n", 0, mark.start()) + 1
    return line if _is_lead(reply, mark) else mark.start()


def _cut_json(reply: str, names: list[str]) -> _Found:
    found, code = json_object(reply)
    if not isinstance(found, Mapping):
        return {}
    done = [] if code is None else [Repair("", code, reply[:_SHOWN])]
    return {name: (found[name], done) for name in names if name in found}


def _is_json(reply: str) -> bool:
    try:
        json.loads(reply)
    except (ValueError, RecursionError):
        return False
    return True


def _cut_keys(reply: str, names: list[str]) -> _Found:
    """The texts between the fields' own keys, which are there once each: what stands between is the value."""
    keys = [m for name in names for m in re.finditer(rf"""(["']){re.escape(name)}\1\s*:""", reply)]
    keys.sort(key=lambda key: key.start())
    if len({_key(key) for key in keys}) < len(keys):
        return {}
    found: _Found = {}
    for key, after in zip_longest(keys, keys[1:]):
        text = reply[key.end() : after.start() if after else len(reply)].strip()
        if after is None:
            text = re.sub(r"\s*```\s*$", "", text).removesuffix("}").strip()
        text = text.removesuffix(",").strip()
        if text[:1] == text[-1:] == '"' and len(text) > 1:
            text = text[1:-1]
            if _OTHER_KEY.search(text):
                continue
            text = _unescaped(text)
        elif text[:1] == '"':
            continue
        found[_key(key)] = (text, [Repair(_key(key), "json-keys", (key[0] + text)[:_SHOWN])])
    return found


_OTHER_KEY = re.compile(r"""["']\s*,\s*["']?[\w -]+["']?\s*:""")
"""What looks like the end of a text and another key: then nobody knows where the text ends."""


def _key(match: re.Match[str]) -> str:
    return match[0].rstrip(":").rstrip()[1:-1]


def _unescaped(text: str) -> str:
    """The text of a string whose quotes may not be escaped."""
    try:
        value: str = json.loads('"' + re.sub(r'(?<!\\)"', r"\"", text) + '"', strict=False)
    except ValueError:
        return text
    return value


def _cut_xml(reply: str, names: list[str]) -> _Found:
    found: _Found = {}
    top_level = _top_level(reply)
    for name in names:
        # The field's own tags, once each: all between them is its text, whatever that is.
        opened, closed = reply.split(f"<{name}>"), reply.split(f"</{name}>")
        if len(opened) == len(closed) == 2 and len(opened[0]) < len(closed[0]):
            text = closed[0][len(opened[0]) + len(name) + 2 :].strip()
            done = [] if name in top_level else [Repair(name, "xml", text[:_SHOWN])]
            found[name] = (html.unescape(text), done)
    return found


def _top_level(reply: str) -> Collection[str]:
    """The elements that DSPy sees: those of a well-formed reply that are in no other."""
    try:
        return XmlReply(reply).names
    except SyntaxError:
        return ()


# --- values ----------------------------------------------------------------------------------------------


def _value(text: Any, annotation: Any, dialect: Dialect) -> tuple[Any, list[str]]:
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
    if isinstance(text, str):
        for code, candidate in _bare(text):
            try:
                value, more = read_value(candidate, annotation, dialect)
            except ValueError:
                continue
            return value, [code] if more is None else [code, more]
        bare = [text, *(candidate for _, candidate in _bare(text))][-1]
        for code, attempt in _conversions(annotation):
            value = attempt(bare)
            if value is not _NOTHING:
                return value, [code]
    if (item := _item_of(annotation)) is not None:
        return _list(text, annotation, item, dialect, refusal)
    raise refusal


def _item_of(annotation: Any) -> Any:
    """The type of a list's items; None for what is no list."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        lists = [arg for arg in args if arg is not type(None)]
        return _item_of(lists[0]) if len(lists) == 1 else None
    return args[0] if origin is list and args else None


_SEPARATOR = re.compile(r"[,;|\n]| and | or |^[-*•]\s", re.IGNORECASE)
_NO_ITEM = frozenset({"", "none", "null", "nothing", "empty", "n/a", "na", "-", "[]"})


def _list(
    value: Any, annotation: Any, item: Any, dialect: Dialect, refusal: ValueError
) -> tuple[list[Any], list[str]]:
    """A list that was cut off inside an item, or the one item that stands where a list should.

    Raises:
        ValueError: If it is neither, or could be several items.
    """
    if not isinstance(value, str):
        if value is None or isinstance(value, list) or item is str:
            raise refusal
        return _one_item(value, item, dialect)
    if value.lstrip().startswith("["):
        whole = _whole_items(value.lstrip())
        if whole is None:
            raise refusal
        if whole == "]":
            raise AmbiguousError("it is cut off in its first item")
        return parse_value(whole, annotation, dialect), ["cut-off"]
    if value.strip().casefold() in _NO_ITEM or value.lstrip().startswith("{"):
        raise refusal
    if _SEPARATOR.search(value.strip()):
        raise AmbiguousError(f"{value[:_SHOWN]!r} may be one item or several")
    return _one_item(value, item, dialect)


def _one_item(value: Any, item: Any, dialect: Dialect) -> tuple[list[Any], list[str]]:
    only, codes = _value(value, item, dialect)
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


def _bare(text: str) -> Iterator[tuple[str, str]]:
    """The text without a fence, and without what decorates it."""
    fence = re.fullmatch(r"```[^\n`]*\n?(.*?)\n?```", text.strip(), re.DOTALL)
    if fence:
        text = fence[1].strip()
        yield "fence", text
    bare = text.strip()
    while True:
        before = bare
        for mark in ("**", "__", "`", '"', "'", "*", "_"):
            if len(bare) > 2 * len(mark) and bare.startswith(mark) and bare.endswith(mark):
                bare = bare[len(mark) : -len(mark)].strip()
        # A full stop ends a sentence, not a number.
        bare = re.sub(r"(?<=[^\W\d])[.!]$", "", bare)
        bare = re.sub(r"(?<=\d)\.$", "", bare)
        if bare == before:
            break
    if bare != text:
        yield "decoration", bare


_NOTHING = object()
_Attempt = Callable[[str], Any]


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


def _by_case(text: str, choices: Iterable[tuple[str, Any]]) -> Any:
    hits = [value for name, value in choices if name.casefold() == text.casefold()]
    different = list({id(hit): hit for hit in hits}.values())
    if len(different) > 1:
        raise AmbiguousError(f"{text!r} may be {' or '.join(map(repr, different))}")
    return hits[0] if hits else _NOTHING


_NUMBER = re.compile(
    r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*(%|[^\W\d_]+|[^\W\d_]+/[^\W\d_]+|°[CF]?|[€$£])?"
)
_SCALES = frozenset(
    {
        "k",
        "m",
        "b",
        "g",
        "t",
        "mn",
        "bn",
        "tn",
        "mln",
        "bln",
        "trln",
        "mil",
        "mio",
        "mrd",
        "tsd",
        "lakh",
        "lakhs",
        "crore",
        "crores",
    }
    | {
        "dozen",
        "dozens",
        "hundred",
        "hundreds",
        "thousand",
        "thousands",
        "million",
        "millions",
        "milliard",
        "milliards",
    }
    | {"billion", "billions", "trillion", "trillions", "quadrillion", "quadrillions"}
    | {
        "half",
        "halves",
        "third",
        "thirds",
        "quarter",
        "quarters",
        "tenth",
        "tenths",
        "hundredth",
        "hundredths",
        "thousandth",
        "thousandths",
    }
    | {"percent", "percentage", "pct", "permille", "ppm", "ppb", "bp", "bps", "pp", "point", "points"}
)
"""Words that may change the number before them; a unit does not."""


def _number(text: str, kind: type[int] | type[float]) -> Any:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _NOTHING
    digits, unit = match[1].replace(",", ""), match[2]
    if unit == "%" and kind is float:
        return float(digits) / 100
    if unit is not None and (unit == "%" or unit.partition("/")[0].casefold() in _SCALES):
        raise AmbiguousError(f"{text!r} may be {digits} or a multiple of it")
    if kind is int and "." in digits:
        return _NOTHING
    return kind(digits)
