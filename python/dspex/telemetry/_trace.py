"""The trace a call belongs to, as W3C Trace Context carries it between processes.

A trace is a mapping of header names to values: `traceparent`, and where there are any `tracestate` and
`baggage`. The caller gives it by `trace=` or with `use_trace` around the call. The call takes it along to its
worker, where code finds it with `current_trace`, and passes it on to the host functions that it calls.
It is passed on as it is, but where somebody listens to events: then each attempt of a call is a span of its
own in that trace, and the parent of what its worker does (`_spans.py`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Final

from dspex.errors import ConfigError

__all__ = ["CURRENT", "Trace", "current_trace", "read_trace", "use_trace"]

Trace = Mapping[str, str]
"""Headers of one trace, by name."""

CURRENT: Final[ContextVar[Trace | None]] = ContextVar("dspex_trace", default=None)

_NAMES: Final = ("traceparent", "tracestate", "baggage")

_MOST: Final = 8192
"""Characters one header may have: W3C's limit for baggage, which is the largest."""

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, parent id, flags."""


def current_trace() -> Trace | None:
    """The trace that the code which asks belongs to, on either side of a pool; None if it belongs to none."""
    return CURRENT.get()


@contextlib.contextmanager
def use_trace(trace: str | Trace | None) -> Iterator[Trace | None]:
    """Let what runs inside belong to a trace: the calls it makes take it along.

    Args:
        trace: A `traceparent`, or a mapping with it and the other headers; None for no trace.

    Raises:
        ConfigError: If it is not a trace (`bad-trace`).
    """
    read = None if trace is None else read_trace(trace)
    token = CURRENT.set(read)
    try:
        yield read
    finally:
        CURRENT.reset(token)


def read_trace(trace: str | Trace) -> Trace:
    """The headers of `trace`, checked.

    Raises:
        ConfigError: If it has no well-formed `traceparent`, or a header that is none of a trace's.
    """
    if not isinstance(trace, str | Mapping):
        raise ConfigError(
            f"{type(trace).__name__} is no type of a trace", code="bad-trace", hint="give a traceparent"
        )
    headers = {"traceparent": trace} if isinstance(trace, str) else dict(trace)
    parent = headers.get("traceparent")
    if not (isinstance(parent, str) and _TRACEPARENT.fullmatch(parent)):
        raise ConfigError(
            f"{parent!r} is not a traceparent",
            code="bad-trace",
            hint="such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, in lower case",
        )
    for name, value in headers.items():
        if name not in _NAMES or not isinstance(value, str) or len(value) > _MOST:
            raise ConfigError(
                f"a trace has no header {name!r} such as the one given",
                code="bad-trace",
                hint=f"texts of at most {_MOST} characters named {', '.join(_NAMES)}",
            )
    return headers
