"""Values that still grow, of types that only Python knows, and all that grow in XML.

A value is reported in plain lists, dicts and texts, guided by the JSON schema of its type: a text that is a
choice, a date or anything else with a form when it is whole, one that is just text as far as it has come. So
of two values reported one after the other the first is a beginning of the second.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from dspex._engine.type_adapters import adapter_of, element_schema_of
from dspex._engine.xml import value_of

__all__ = ["of_json", "of_xml"]

_TAG = re.compile(r"<(?:!--.*?--|!\[CDATA\[.*?\]\]|\?.*?\?|/?[^<>]*?/?)>", re.DOTALL)
_FORMS = ("enum", "const", "format", "pattern")

_DEEPEST = 100
"""Elements that may be open in a value that is reported before it is whole: to walk through more each time it
has grown would cost the square of its length."""

_Schema = Mapping[str, Any]


def of_json(value: Any, annotation: Any) -> list[Any]:
    """A value that ends in a text which is still growing; what may be reported of it, in a list, or none."""
    schema = adapter_of(annotation).json_schema()
    return _trimmed(value, schema, schema.get("$defs", {}))


def of_xml(inside: str, annotation: Any) -> list[Any]:
    """What may be reported of a value of which `inside` is the beginning, in a list, or none."""
    schema = element_schema_of(annotation)
    definitions = schema.get("$defs", {})
    text = _sure(inside, schema, definitions)
    if text is None:
        return []
    try:
        root = ET.fromstring(f"<value>{text}</value>")  # noqa: S314 - see `XmlReply`
    except ET.ParseError:
        return []
    some = [choice for choice in _choices(schema, definitions) if choice.get("type") != "null"]
    if not len(root) or not some:
        return []
    return [_typed(value_of([root], dict(some[0]), definitions), some[0], definitions)]


def _trimmed(value: Any, schema: _Schema, definitions: _Schema) -> list[Any]:
    """The value without the text at its very end, if that is one that may only be reported whole."""
    if isinstance(value, str):
        return [value] if _grows(schema, definitions) else []
    if isinstance(value, list) and value:
        inner = _step(schema, definitions, len(value) - 1)
        return [value[:-1] + _trimmed(value[-1], inner, definitions)]
    if isinstance(value, dict) and value:
        name, last = value.popitem()
        rest = _trimmed(last, _step(schema, definitions, name), definitions)
        return [{**value, name: rest[0]} if rest else value]
    return [value]


class _Open:
    """An element that is open."""

    def __init__(self, name: str, start: int, end: int, schema: _Schema) -> None:
        self.name, self.start, self.end, self.schema = name, start, end, schema
        self.has_children = False


def _sure(inside: str, schema: _Schema, definitions: _Schema) -> str | None:
    """`inside` with all closed, and without what is not sure in the element that is open last."""
    opened: list[_Open] = []
    for tag in _TAG.finditer(inside):
        text = tag[0]
        if text.startswith(("<!", "<?")):
            continue
        if text.startswith("</"):
            if not opened or opened.pop().name != text[2:-1].strip():
                return None
            continue
        if opened:
            opened[-1].has_children = True
        if not text.endswith("/>"):
            if not (words := text[1:-1].split(None, 1)):
                return None
            name, *attributes = words
            key = re.search(r'key="([^"]*)"', attributes[0]) if attributes else None
            outside = opened[-1].schema if opened else schema
            inner = _step(outside, definitions, key[1] if key else name, is_tag=True)
            opened.append(_Open(name, tag.start(), tag.end(), inner))
            if len(opened) > _DEEPEST:
                return None
    for at, element in enumerate(opened):
        is_text = _grows(element.schema, definitions)
        # A number, a choice, one of which nothing has come, or text with tags, reported as it stands.
        doubtful = (
            is_text and element.schema
            if element.has_children
            else not is_text or not inside[element.end :].strip()
        )
        if doubtful:
            inside, opened = inside[: element.start], opened[:at]
            break
    if inside.rfind("&") > inside.rfind(";"):
        inside = inside[: inside.rfind("&")]
    return inside + "".join(f"</{element.name}>" for element in reversed(opened))


def _step(schema: _Schema, definitions: _Schema, key: str | int, *, is_tag: bool = False) -> _Schema:
    """The schema of what is inside, by its name or place."""
    for choice in _choices(schema, definitions):
        if choice.get("type") == "array":
            if is_tag and key != "item":
                continue
            prefix = choice.get("prefixItems", ())
            found = prefix[key] if isinstance(key, int) and key < len(prefix) else choice.get("items", {})
        elif "properties" in choice or choice.get("type") == "object":
            found = choice.get("properties", {}).get(key, choice.get("additionalProperties", {}))
        else:
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _grows(schema: _Schema, definitions: _Schema) -> bool:
    """Whether a text of this schema may be reported before it is whole."""
    if not schema:
        return True
    choices = [choice for choice in _choices(schema, definitions) if choice.get("type") != "null"]
    return bool(choices) and all(
        choice.get("type", "string") == "string" and not any(form in choice for form in _FORMS)
        for choice in choices
    )


def _choices(schema: _Schema, definitions: _Schema) -> list[_Schema]:
    schema = definitions.get(schema.get("$ref", "").rsplit("/", 1)[-1], schema)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return [found for choice in choices for found in _choices(choice, definitions)]
    return [schema]


def _typed(value: Any, schema: _Schema, definitions: _Schema) -> Any:
    """The value with its texts as numbers and constants where the schema has such."""
    if isinstance(value, list):
        return [_typed(item, _step(schema, definitions, at), definitions) for at, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            key: _typed(item, _step(schema, definitions, key), definitions) for key, item in value.items()
        }
    kinds = {choice.get("type") for choice in _choices(schema, definitions)}
    if isinstance(value, str) and kinds & {"integer", "number", "boolean"} and "string" not in kinds:
        try:
            return json.loads(value.lower() if "boolean" in kinds else value)
        except ValueError:
            return value
    return value
