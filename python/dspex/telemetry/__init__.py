"""What is known of a call beside its answer. So far: the trace it belongs to."""

from __future__ import annotations

from dspex.telemetry._trace import Trace, current_trace, use_trace

__all__ = ["Trace", "current_trace", "use_trace"]
