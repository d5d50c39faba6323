"""Replies that a person can read and DSPy refuses.

The core calls these functions when a reply, read as DSPy reads it, lacks a field or has a value that is not
of its type. They say where the text of such a field may be; `near_misses` says what value it has. Everything
done to the reply is listed. What DSPy read stays as it is; what could be read in two ways is not read at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dspex._core import xml_elements, xml_text
from dspex._engine.near_misses import SHOWN, AmbiguousError, near_value
from dspex._engine.xml import XmlReply
from dspex.prediction import Repair

if TYPE_CHECKING:
    from dspex._core import Dialect

__all__ = ["bare", "json_parts", "read_field", "xml_parts"]

_State = Literal["read", "refused", "absent", "missing"]
"""What DSPy makes of a field: it has its value; it has one that is not of its type; it has none and need not,
or must."""

_Field = tuple[str, Any, _State]
_Candidate = tuple[Any, list[Repair]]
_Found = dict[str, list[_Candidate]]


class _Value(NamedTuple):
    """A value that DSPy gives, where it sees the field."""

    value: Any
    code: str | None


def read_field(
    name: str, candidates: Sequence[_Candidate], annotation: Any, dialect: Dialect
) -> tuple[list[Any], list[Repair], str | None]:
    """The value of a field, of the candidates the first that has one.

    Args:
        name: The field.
        candidates: What may be its value, each with what was done to find it.
        annotation: Its type.
        dialect: Whose reading comes first.

    Returns:
        The values, one or none; what was done for it; where there is none, why not, as far as there is more
        to say than that it is none of its type.
    """
    reason: str | None = None
    for text, done in candidates:
        try:
            if isinstance(text, AmbiguousError):
                raise text
            if isinstance(text, _Value):
                value, codes = text.value, [] if text.code is None else [text.code]
            else:
                value, codes = near_value(text, annotation, dialect)
        except ValueError as error:
            reason = reason or (str(error) if isinstance(error, AmbiguousError) else "")
            continue
        return [value], [*done, *(Repair(name, code, str(text)[:SHOWN]) for code in codes)], None
    return [], [], reason


def bare(layout: str, name: str, reply: str) -> list[_Candidate]:
    """A reply without a trace of the layout, which is the value of the only field; nothing for another one.

    With a trace of it, it is a broken reply, not a bare answer.
    """
    traces = {"chat": r"\[\[ ##", "json": r"\{", "xml": r"</?\w+>"}
    text = reply.strip()
    if not text or re.search(traces[layout], reply):
        return []
    return [(text, [Repair(name, "no-marker", text[:SHOWN])])]


# --- JSON ------------------------------------------------------------------------------------------------


def json_parts(reply: str, fields: Sequence[_Field], values: Mapping[str, Any]) -> _Found:
    """The texts between the fields' own keys, of a reply that is no JSON.

    Args:
        reply: The model's reply.
        fields: The output fields, each with its type and its state.
        values: The values of those that DSPy reads.

    Returns:
        Candidates for the fields that DSPy does not read, and for one that DSPy reads together with another
        that must be there.
    """
    if _is_json(reply):
        return {}
    states = {name: state for name, _, state in fields}
    found: _Found = {}
    before: str | None = None
    texts = _between_keys(reply, list(states))
    for name in texts:
        swallowed = before is not None and name in str(values.get(before, ""))
        if states[name] in ("refused", "missing") or (states[name] == "absent" and not swallowed):
            found[name] = texts[name]
        if swallowed and states[name] == "missing" and before is not None and texts[before]:
            found[before] = texts[before]
        before = name
    return found


def _is_json(reply: str) -> bool:
    try:
        json.loads(reply)
    except (ValueError, RecursionError):
        return False
    return True


def _between_keys(reply: str, names: list[str]) -> _Found:
    """The texts between the fields' own keys, which are there once each: what stands between is the value."""
    keys = [m for name in names for m in re.finditer(rf"""(["']){re.escape(name)}\1\s*:""", reply)]
    keys.sort(key=lambda key: key.start())
    if len({_key(key) for key in keys}) < len(keys):
        return {}
    found: _Found = {}
    for key, after in zip_longest(keys, keys[1:]):
        text = reply[key.end() : after.start() if after else len(reply)].strip()
        if after is None:
            text = text.removesuffix("```").rstrip().removesuffix("}").rstrip()
        text = text.removesuffix(",").rstrip()
        found[_key(key)] = []
        if text[:1] == text[-1:] == '"' and len(text) > 1:
            text = text[1:-1]
            if _OTHER_KEY.search(text):
                continue
            text = _unescaped(text)
        elif text[:1] == '"':
            continue
        found[_key(key)].append((text, [Repair(_key(key), "json-keys", (key[0] + text)[:SHOWN])]))
    return found


_OTHER_KEY = re.compile(r"""["'] {0,9},\s{0,99}["']?\w[\w -]{0,99}["']? {0,9}:""")
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


# --- XML -------------------------------------------------------------------------------------------------


def xml_parts(reply: str, fields: Sequence[_Field], dialect: Dialect) -> _Found:
    """The elements of the fields that DSPy does not read.

    Args:
        reply: The model's reply.
        fields: The output fields, each with its type and its state.
        dialect: Whose reading comes first.

    Returns:
        Candidates for each field that DSPy does not read and the reply has somewhere.
    """
    try:
        whole = XmlReply(reply)
    except SyntaxError:
        return _between_tags(reply, fields, dialect)
    own = [name for name, _, state in fields if state in ("read", "refused")]
    # Where all that must be there is, the elements of others are what they seem.
    is_nested = not own or any(state == "missing" for _, _, state in fields)
    found: _Found = {}
    for name, annotation, state in fields:
        if state == "refused":
            found[name] = _candidates(whole, name, annotation, [])
        elif state != "read" and is_nested:
            # Nobody else's, unless the field must be there.
            inner = whole.nested(name, but=own if state == "absent" else [])
            if name in inner.names:
                only = inner.count(name) == 1
                found[name] = (
                    _read_or_near(inner, name, annotation, dialect) if only else [_several(inner, name)]
                )
    return found


def _between_tags(reply: str, fields: Sequence[_Field], dialect: Dialect) -> _Found:
    """What is between the fields' own tags, of a reply that is no XML.

    They are there once each at the top, or at least once each anywhere: then all between is the value.
    """
    found: _Found = {}
    elements = xml_elements(reply)
    for name, annotation, _ in fields:
        inside = [text for other, text in elements if other == name] or _between(reply, name)
        if len(inside) > 1:
            found[name] = [(AmbiguousError(f"its tag stands in {len(inside)} places"), [])]
        elif inside:
            try:
                element = XmlReply(f"<{name}>{inside[0]}</{name}>")
            except SyntaxError:
                text = xml_text(inside[0])
                found[name] = [(text, [Repair(name, "xml", text[:SHOWN])])]
            else:
                found[name] = _read_or_near(element, name, annotation, dialect)
    return found


def _between(reply: str, name: str) -> list[str]:
    opened, closed = reply.split(f"<{name}>"), reply.split(f"</{name}>")
    if len(opened) == len(closed) == 2 and len(opened[0]) < len(closed[0]):
        return [closed[0][len(opened[0]) + len(name) + 2 :]]
    return opened[1:] if len(opened) > 2 else []


def _read_or_near(read: XmlReply, name: str, annotation: Any, dialect: Dialect) -> list[_Candidate]:
    """What DSPy reads where it sees the element; what may be near that."""
    done = [Repair(name, "xml", read.text(name)[:SHOWN])]
    try:
        return [(_Value(*value), done) for value in read.read(name, annotation, dialect)]
    except ValueError:
        return _candidates(read, name, annotation, done)


def _candidates(read: XmlReply, name: str, annotation: Any, done: list[Repair]) -> list[_Candidate]:
    """The text of a field's element, and what its elements say before they are converted."""
    text = (read.text(name), done) if read.count(name) == 1 else _several(read, name)
    tree = read.tree(name, annotation)
    if not isinstance(tree, list | dict):
        return [text]
    return [(tree, done), text] if read.has_children(name) else [text, (tree, done)]


def _several(read: XmlReply, name: str) -> _Candidate:
    return AmbiguousError(f"its tag stands in {read.count(name)} places"), []
