"""Reading a prompt the way a model does: what was given, what is wanted, and in which form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.sax.saxutils import escape

__all__ = ["MAX_DEPTH", "Prompt", "Wanted", "message_text", "read_prompt", "write_reply"]

_LISTED = re.compile(r"^\d+\. `(\w+)` \((.*?)\):", re.MULTILINE)
_MARKER = re.compile(r"^\[\[ ## (\w+) ## \]\]\n", re.MULTILINE)
_TAG = re.compile(r"^<(\w+)>\n(.*?)\n</\1>$", re.MULTILINE | re.DOTALL)
_NUMBERED = re.compile(r"^\[\d+\] «(?:««\n)?(.*?)»(?:»»)?$", re.MULTILINE | re.DOTALL)
_NOTE = r"\{%s\}\s+# note: the value you produce (.*)"
_ONE_OF = re.compile(r"must (?:be|exactly match \(no extra characters\)) one of: (.*)")
_SCHEMA = re.compile(r"must adhere to the JSON schema: (\{.*\})")
_LIST_OF_SCALARS = re.compile(r"list\[(bool|float|int|str)\]")
MAX_DEPTH = 12
"""How deep a value is made; a schema may refer to itself."""
_SCALARS = {"bool": "boolean", "float": "number", "int": "integer", "str": "string"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output field: its name and the JSON schema of its value."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a prompt asks for.

    Attributes:
        inputs: Given values by field name, as text or, where the text is a list, as a list of texts.
        wanted: Output fields in order; empty if the prompt is not one of DSPy's.
        form: How the reply is to be written.
    """

    inputs: Mapping[str, str | list[str]]
    wanted: Sequence[Wanted] = ()
    form: Literal["chat", "json", "xml", "plain"] = "plain"


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a chat message, whose content may be a string or a list of blocks."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(block.get("text", "")) for block in content if isinstance(block, Mapping))


def read_prompt(messages: Sequence[Mapping[str, Any]]) -> Prompt:
    """Read DSPy's Chat, JSON or XML prompt; anything else is a plain question."""
    system = "\n".join(message_text(m) for m in messages if m.get("role") in ("system", "developer"))
    user = next((message_text(m) for m in reversed(messages) if m.get("role") == "user"), "")
    _, found, listing = system.partition("Your output fields are:\n")
    outputs = _LISTED.findall(listing.partition("\nAll interactions will be structured")[0])
    task, _, demand = user.rpartition("Respond with ")
    if not found or not outputs or not demand:
        return Prompt({"question": user})
    form: Literal["chat", "json", "xml"] = "chat"
    if demand.startswith("a JSON object"):
        form = "json"
    elif "wrapped in XML tags" in demand:
        form = "xml"
    structure = _unescaped(listing) if form == "json" else listing
    wanted = [Wanted(name, _schema(name, kind, structure)) for name, kind in outputs]
    pairs = _TAG.findall(task) if form == "xml" else _sections(task)
    return Prompt({name: _value(text) for name, text in pairs}, wanted, form)


def _sections(text: str) -> list[tuple[str, str]]:
    _, *rest = _MARKER.split(text)
    return [(name, value.strip()) for name, value in zip(rest[::2], rest[1::2], strict=True)]


def _value(text: str) -> str | list[str]:
    """A list is written as JSON or, in a text field, as numbered items."""
    if text.startswith("["):
        try:
            items = json.loads(text)
        except ValueError:
            items = _NUMBERED.findall(text)
        if isinstance(items, list) and items:
            return [item if isinstance(item, str) else json.dumps(item) for item in items]
    return text


def _unescaped(listing: str) -> str:
    """The JSON prompt shows its notes inside a JSON object; take them out of it."""
    shape = re.search(r"^\{\n.*?^\}$", listing, re.MULTILINE | re.DOTALL)
    try:
        return "\n".join(json.loads(shape[0]).values()) if shape else listing
    except ValueError:
        return listing


def _schema(name: str, kind: str, structure: str) -> Mapping[str, Any]:
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    note = re.search(_NOTE % re.escape(name), structure)
    if note is None:
        # The XML prompt shows only the nesting of a list; the type's name says what it is a list of.
        element = _LIST_OF_SCALARS.fullmatch(kind)
        return {"type": "array", "items": {"type": _SCALARS[element[1]]}} if element else {"type": "string"}
    if choices := _ONE_OF.match(note[1]):
        return {"enum": choices[1].split("; ")}
    if schema := _SCHEMA.match(note[1]):
        try:
            read = json.loads(schema[1])
        except ValueError:
            return {"type": "string"}
        return {**_inlined(read, read.get("$defs", {}), 0)}
    return {"type": "string"}


def _inlined(schema: Any, definitions: Mapping[str, Any], depth: int) -> Any:
    """The schema with its references replaced by what they stand for, as deep as a value will be made."""
    if depth > MAX_DEPTH:
        return {}
    if isinstance(schema, list):
        return [_inlined(item, definitions, depth) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        return _inlined(definitions.get(reference.rpartition("/")[2], {}), definitions, depth + 1)
    return {key: _inlined(value, definitions, depth + 1) for key, value in schema.items() if key != "$defs"}


def write_reply(prompt: Prompt, values: Mapping[str, Any]) -> str:
    """The reply with these values, in the form the prompt asks for."""
    if prompt.form == "json":
        return json.dumps(values, ensure_ascii=False, indent=2)
    if prompt.form == "xml":
        return "\n\n".join(f"<{name}>\n{_xml(value)}\n</{name}>" for name, value in values.items())
    parts = [f"[[ ## {name} ## ]]\n{_text(value)}" for name, value in values.items()]
    return "\n\n".join([*parts, "[[ ## completed ## ]]"])


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def _xml(value: Any) -> str:
    if isinstance(value, list):
        return "".join(f"<item>{_xml(item)}</item>" for item in value)
    if isinstance(value, dict):
        return "".join(f"<{key}>{_xml(item)}</{key}>" for key, item in value.items())
    return escape(str(value))
