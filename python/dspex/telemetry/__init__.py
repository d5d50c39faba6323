"""What is known of calls beside their answers: events, and the traces that they belong to.

::

    attach("dspex.call", handler)     hear of what happens
    use_trace(traceparent)            let calls belong to a trace; current_trace() finds it in a worker

The counters are a runtime's: `Runtime.metrics` gives them as text for Prometheus, `Runtime.report` has the
last errors. See `docs/telemetry.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex._lazy import names_of
from dspex.telemetry._trace import Trace, current_trace, use_trace

if TYPE_CHECKING:
    from dspex.telemetry._event import Event
    from dspex.telemetry._handlers import Handle, Handler, attach
    from dspex.telemetry._names import EVENTS

__all__ = ["EVENTS", "Event", "Handle", "Handler", "Trace", "attach", "current_trace", "use_trace"]

_HOMES = {
    "EVENTS": "dspex.telemetry._names",
    "Event": "dspex.telemetry._event",
    "Handle": "dspex.telemetry._handlers",
    "Handler": "dspex.telemetry._handlers",
    "attach": "dspex.telemetry._handlers",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
