"""XML that Rust does not read or describe itself: types of the user's, and replies that need a judge.

Each function here gives what DSPy gives: expat reads the reply, the type's JSON schema says which elements
are lists, mappings or text, and pydantic converts what is between the tags.
"""

from __future__ import annotations

import types
import xml.etree.ElementTree as ET
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from dspex._engine.replies import read_value
from dspex._engine.type_adapters import adapter_of, element_schema_of
from dspex.errors import ReplyError

if TYPE_CHECKING:
    from collections.abc import Collection

    from dspex._core import Dialect

__all__ = ["XmlReply", "pattern", "value_of"]

_Elements = list[ET.Element]


def pattern(tag: str, annotation: Any) -> str | None:
    """The elements that a value of the type is made of; None where it is text."""
    if not _is_nested(annotation):
        return None
    schema = element_schema_of(annotation)
    return _pattern(tag, schema, schema.get("$defs", {}), frozenset())


def _is_nested(annotation: Any) -> bool:
    some = [arg for arg in get_args(annotation) if arg is not type(None)]
    if len(some) == 1 and get_origin(annotation) in (Union, types.UnionType):
        annotation = some[0]
    origin, args = get_origin(annotation), get_args(annotation)
    item = args[0] if origin is list and args else annotation
    if isinstance(item, type) and issubclass(item, BaseModel) and item.__module__.startswith("dspy."):
        return False  # a type of DSPy's prints itself
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return origin in (list, dict) or is_typeddict(annotation) or is_model


def _pattern(tag: str, schema: dict[str, Any], definitions: dict[str, Any], seen: frozenset[str]) -> str:
    if ref := schema.get("$ref"):
        name = ref.rsplit("/", 1)[-1]
        if name in seen:
            return f"<{tag}>...</{tag}>"
        return _pattern(tag, definitions[name], definitions, seen | {name})
    if choices := schema.get("anyOf"):
        choice = next((s for s in choices if s.get("type") != "null"), choices[0])
        return _pattern(tag, choice, definitions, seen)
    if schema.get("type") == "array":
        inner = _pattern("item", schema.get("items", {}), definitions, seen)
    else:
        properties = schema.get("properties", {}).items()
        inner = "".join(_pattern(name, child, definitions, seen) for name, child in properties)
    return f"<{tag}>{inner or '...'}</{tag}>"


class XmlReply:
    """A reply, parsed.

    Raises:
        SyntaxError: If it is no XML.
    """

    def __init__(self, reply: str) -> None:
        # The reply is text of a model's: expat expands no external entity, and a document type inside an
        # element is an error, so no entity can be declared at all.
        self._root = ET.fromstring(f"<dspy_root>{reply}</dspy_root>")  # noqa: S314
        self._fields = _children(self._root)

    def nested(self, name: str, but: Collection[str]) -> XmlReply:
        """The same with the elements of that name at the top that are in none of the names `but`."""
        nested = XmlReply("")
        for child in self._root:
            if child.tag not in but and (elements := list(child.iter(name))):
                nested._fields.setdefault(name, []).extend(elements)
        return nested

    def element(self, name: str) -> tuple[int, str, bool] | None:
        """The elements of a field: how many, the text of the first, and whether it has elements inside.

        The text has the tags inside it; it is empty if they are too deep. None if there is no element.
        """
        elements = self._fields.get(name)
        if elements is None:
            return None
        try:
            text = _inner(elements[0]).strip()
        except RecursionError:
            text = ""
        return len(elements), text, len(elements[0]) > 0

    def tree(self, name: str, annotation: Any) -> Any:
        """What a field's elements say before they are converted; None if no list and no mapping."""
        schema = element_schema_of(annotation)
        try:
            value = value_of(self._fields[name], schema, schema.get("$defs", {}))
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, list | dict) else None

    def read(self, name: str, annotation: Any, dialect: Dialect) -> list[tuple[Any, str | None]]:
        """The value of a field, with the code of what was done, in a list; an empty list if there is none.

        Raises:
            ValueError: If it is no value of the type.
        """
        if name not in self._fields:
            return []
        schema = element_schema_of(annotation)
        problem: Exception | None = None
        for candidate in [schema, *schema.get("anyOf", [])]:
            try:
                value = value_of(self._fields[name], candidate, schema.get("$defs", {}))
                try:
                    return [read_value(value, annotation, dialect)]
                except ValidationError:
                    return [(adapter_of(annotation).validate_python(value, by_name=True), None)]
            except ValueError as error:
                problem = error
            except RecursionError:
                problem = ValueError("it is nested too deep")
            except ReplyError:
                raise
            except Exception as error:
                if not dialect.any_error_refuses:
                    raise
                problem = error
        assert problem is not None  # noqa: S101 - the loop ran at least once
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame


def _children(element: ET.Element) -> dict[str, _Elements]:
    children: defaultdict[str, _Elements] = defaultdict(list)
    for child in element:
        children[child.attrib.get("key", child.tag) if child.tag == "entry" else child.tag].append(child)
    return children


def _inner(element: ET.Element) -> str:
    return (element.text or "") + "".join(ET.tostring(child, encoding="unicode") for child in element)


def _text(element: ET.Element) -> str:
    return (element.text or "").strip()


def value_of(elements: _Elements, schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """What elements say, in the shape that the schema asks for; scalars stay text."""
    schema = definitions.get(schema.get("$ref", "").rsplit("/", 1)[-1], schema)
    first = elements[0]
    if choices := schema.get("anyOf"):
        if {"type": "null"} in choices and not list(first) and not _text(first):
            return None
        choices = [choice for choice in choices if choice.get("type") != "null"]
        schema = choices[0]
        if list(first):
            schema = next((choice for choice in choices if choice.get("type") != "string"), schema)
    kind = schema.get("type")
    if kind == "array":
        if len(elements) == 1 and not list(first):
            text = _text(first)
            if not text or text.startswith("["):
                return text or []
        if len(elements) == 1 and (items := _children(first).get("item")):
            elements = items
        return [value_of([element], schema.get("items", {}), definitions) for element in elements]
    if kind == "string" and list(first):
        return _inner(first)
    children = _children(first)
    if not children:
        if kind == "object" and not _text(first):
            return {}
        texts = [_text(element) for element in elements]
        return texts[0] if len(texts) == 1 else texts
    properties = schema.get("properties", {})
    other = schema.get("additionalProperties", {})
    if not isinstance(other, dict):
        other = {}
    return {
        name: value_of(group, properties.get(name, other), definitions) for name, group in children.items()
    }
