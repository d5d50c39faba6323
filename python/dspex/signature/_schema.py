"""JSON schemas of a call's inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, Field, create_model

from dspex import _core
from dspex.signature._fields import annotated

__all__ = ["object_schema"]


def object_schema(title: str, fields: Iterable[_core.Field]) -> dict[str, Any]:
    """The JSON schema of an object with these fields and no others, as pydantic writes it.

    Args:
        title: The schema's title.
        fields: Its properties; descriptions are those of the fields.
    """
    members: dict[str, Any] = {}
    for field in fields:
        settings = {} if field._details is None else dict(field._details.settings)
        if not field._is_plain[0]:
            settings["description"] = field.desc
        members[field.name] = (annotated(field), Field(**settings))
    # Names such as `schema` or `model_x` are pydantic's own to warn about, and fine in a schema.
    config = ConfigDict(extra="forbid", protected_namespaces=())
    schema: dict[str, Any] = create_model(title, __config__=config, **members).model_json_schema()
    return schema
