"""Replies that a person can read and DSPy refuses.

The core calls `read` when a reply, read as DSPy reads it, lacks a field or has a value that is not of its
type. First the reply is cut again, with an eye for markers that are decorated or stand inside a line; then
each value gets its chances, which `near_misses` has. Everything done to the reply is listed. What could be
read in two ways is not read at all.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from dspex.adapters.near_misses import SHOWN, AmbiguousError, near_value
from dspex.adapters.replies import json_object
from dspex.adapters.xml import XmlReply
from dspex.prediction import Repair

if TYPE_CHECKING:
    from dspex._core import Dialect

__all__ = ["read"]

_MARKER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_BEFORE_MARKER = re.compile(r"[\s#>*_`-]*|\s*\d+[.)]\s*[*_`]*")

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
    other: _Found = {}
    if layout == "json" and not _is_json(reply):
        # The texts between the keys, for the fields that are missing or wrong in what was repaired.
        other = _cut_keys(reply, names)
        if other.keys() - found.keys():
            # Where a field was found inside another, both are cut anew.
            found = {**found, **other}
    elif layout == "xml":
        other = _trees(reply, fields)
    bare = not found and len(fields) == 1 and reply.strip() and not _looks_like_layout(layout, reply)
    if bare:
        name = fields[0][0]
        found = {name: (reply.strip(), [Repair(name, "no-marker", reply.strip()[:SHOWN])])}
    values: dict[str, Any] = {}
    repairs: list[Repair] = []
    problem = None
    for name, annotation in fields:
        reason: str | None = None
        for text, done in filter(None, (found.get(name), other.get(name))):
            try:
                if isinstance(text, AmbiguousError):
                    raise text
                values[name], codes = near_value(text, annotation, dialect)
            except ValueError as error:
                reason = reason or (str(error) if isinstance(error, AmbiguousError) else "")
                continue
            repairs += [repair for repair in done if repair not in repairs]
            repairs += [Repair(name, code, str(text)[:SHOWN]) for code in codes]
            break
        else:
            # A bare text that is no answer is no field's, unless it could be two answers.
            if problem is None and reason is not None and (reason or not bare):
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
        done = [] if code is None else [Repair(name, code, (before + head[0] + line)[:SHOWN])]
        found[name] = (text, done)
    for name, count in counts.items():
        if count > 1 and name not in found:
            found[name] = (AmbiguousError(f"its marker stands in {count} lines, and begins none of them"), [])
    return found


def _undecorated(before: str, line: str) -> str:
    """The text behind a marker, without what closes the decoration before the marker."""
    line = line.strip()
    if "#" in before:
        line = line.rstrip("#").rstrip()
    if opening := re.search(r"[*_`]+$", before.rstrip()):
        closing = opening[0][::-1]
        behind = line.removeprefix(":")
        if behind.startswith(closing):
            rest = behind.removeprefix(closing).lstrip()
            line = rest.removeprefix(":") if behind == line else rest
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
    done = [] if code is None else [Repair("", code, reply[:SHOWN])]
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
        found[_key(key)] = (text, [Repair(_key(key), "json-keys", (key[0] + text)[:SHOWN])])
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
            done = [] if name in top_level else [Repair(name, "xml", text[:SHOWN])]
            found[name] = (html.unescape(text), done)
        elif len(opened) > 2:
            found[name] = (AmbiguousError(f"its tag stands in {len(opened) - 1} places"), [])
    return found


def _trees(reply: str, fields: Sequence[_Field]) -> _Found:
    """The fields of a well-formed reply that are made of elements."""
    try:
        read = XmlReply(reply)
    except SyntaxError:
        return {}
    trees = ((name, read.tree(name, annotation)) for name, annotation in fields if name in read.names)
    return {name: (tree, []) for name, tree in trees if isinstance(tree, list | dict)}


def _top_level(reply: str) -> Collection[str]:
    """The elements that DSPy sees: those of a well-formed reply that are in no other."""
    try:
        return XmlReply(reply).names
    except SyntaxError:
        return ()
