"""The ids of what takes time: a call, its attempts, their stages.

::

    the caller's span, if it gave a trace
      call                      dspex.call.end
        attempt                 dspex.attempt.end     the parent that `current_trace` says in a worker
          stage                 dspex.stage.worker
            stage               dspex.stage.lm

Ids are made only while somebody listens: else a trace goes through dspex as the caller gave it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dspex.telemetry._event import Event, Value
from dspex.telemetry._handlers import tell, wanted
from dspex.telemetry._trace import CURRENT, Trace

__all__ = ["Span", "new_id"]

# One of our own: whoever seeds the interpreter's would get the same ids again, and other numbers than before.
_random: Final = random.Random()  # noqa: S311 - ids are no secrets
if hasattr(os, "register_at_fork"):  # or a fork would go on with the same ids
    os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """A new id of a span."""
    return f"{_random.getrandbits(64) | 1:016x}"


class Span:
    """Something that takes time and has begun.

    Attributes:
        trace_id: Its trace.
        span_id: Its id.
        parent_id: What it is a part of.
        began: When it began, by `time.perf_counter`.
    """

    __slots__ = ("_flags", "_headers", "began", "parent_id", "span_id", "trace_id")
    _flags: str
    trace_id: str
    parent_id: str
    span_id: str

    def __init__(self, whole: Span | None = None) -> None:
        """A part of another, or of what the current trace says that there is, or else a trace of its own."""
        headers = CURRENT.get() if whole is None else whole._headers
        self._headers: Trace = headers or {}
        if whole is not None:
            self.trace_id, self.parent_id, self._flags = whole.trace_id, whole.span_id, whole._flags
        elif headers is None:
            self.trace_id, self.parent_id, self._flags = f"{_random.getrandbits(128) | 1:032x}", "", "01"
        else:
            # The version may have more parts behind these four.
            _, self.trace_id, self.parent_id, self._flags, *_ = headers["traceparent"].split("-")
        self.span_id = new_id()
        self.began = time.perf_counter()

    def trace(self) -> Mapping[str, str]:
        """The trace for what is done inside it."""
        return {**self._headers, "traceparent": f"00-{self.trace_id}-{self.span_id}-{self._flags}"}

    def end(self, name: str, attributes: dict[str, Value]) -> None:
        """It ends now: tell of it."""
        if wanted(name):
            seconds = time.perf_counter() - self.began
            told = MappingProxyType(attributes)
            tell(Event(name, time.time(), seconds, self.trace_id, self.span_id, self.parent_id, told))

    def tell_part(
        self, name: str, ended: float, seconds: float, attributes: dict[str, Value], parent: str = ""
    ) -> str:
        """Tell of a part of it that has ended.

        Args:
            name: What it was.
            ended: When it ended, in seconds since 1970.
            seconds: How long it took.
            attributes: What else is known.
            parent: The part that it is a part of; empty if of the whole.

        Returns:
            Its id.
        """
        part = new_id()
        if wanted(name):
            within = parent or self.span_id
            tell(Event(name, ended, seconds, self.trace_id, part, within, MappingProxyType(attributes)))
        return part
