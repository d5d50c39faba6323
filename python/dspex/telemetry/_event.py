"""`Event`: one thing that has happened."""

from __future__ import annotations

import time as _time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["Event", "make"]

Value = str | int | float | bool | None


class Event(NamedTuple):
    """One thing that has happened: a value that never changes.

    It never holds what a call was given or gave, a key, or the words of an error, which may quote both: of
    errors there are the class, the code and the category.

    Attributes:
        name: What happened; `dspex.telemetry.EVENTS` is the list.
        time: When, in seconds since 1970: the end of what took time.
        seconds: How long it took; None of what takes no time.
        trace_id: The trace, 32 hexadecimal digits; empty where it belongs to none.
        span_id: Its own id, 16 digits; empty of what takes no time.
        parent_id: The id of what it is a part of; empty if there is nothing.
        attributes: What else is known: `target`, `outcome`, `code`, ...; texts, numbers, booleans.
    """

    name: str
    time: float
    seconds: float | None = None
    trace_id: str = ""
    span_id: str = ""
    parent_id: str = ""
    attributes: Mapping[str, Value] = MappingProxyType({})

    def to_dict(self) -> dict[str, Any]:
        """The event as plain data, for JSON."""
        return {**self._asdict(), "attributes": dict(self.attributes)}


def make(name: str, attributes: dict[str, Value], seconds: float | None = None, trace_id: str = "") -> Event:
    """An event of now that is no span; `attributes` belongs to it from here on."""
    return Event(name, _time.time(), seconds, trace_id, "", "", MappingProxyType(attributes))
