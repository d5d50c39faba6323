"""What the engine uses of DSPy's codecs beyond what `dspy.lm15` offers, in one place.

The names are looked up when this is imported: a DSPy that has them no more is told of at once, and not in a
call. (`dspy.lm15` is a package with type hints inside one without any, of which a type checker would take the
latter for empty; so the modules are not imported by a statement.)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from dspex.errors import ConfigError

__all__ = [
    "Event",
    "HttpResponse",
    "Routing",
    "acoalesce",
    "add_headers",
    "amaterialize",
    "atruncate",
    "capabilities",
    "error_of",
    "is_cut_here",
    "lm15",
    "validate",
]


def _found(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        import dspy

        raise ConfigError(
            f"DSPy {dspy.__version__} has no {module}.{name}, which an engine needs",
            code="engine-version",
            hint="install dspy 3.4",
        ) from error


_VENDORED: Final = "dspy._vendor.lm15"

_REQUEST: Final = _found("dspy.lm15", "Request")
lm15: Final[Any] = import_module("dspy.lm15")
"""DSPy's requests, responses, events and errors."""
HttpResponse: Final = _found(f"{_VENDORED}.providers.base", "HttpResponse")
add_headers: Final = _found(f"{_VENDORED}.providers.base", "_attach_error_metadata")
"""Adds what an answer's headers say to an error."""
is_cut_here: Final = _found(f"{_VENDORED}.providers.base", "_client_side_stop")
"""Whether stop sequences are looked for here and not by the server."""
acoalesce: Final = _found(f"{_VENDORED}.result", "acoalesce_stream")
"""Makes one start and one end of those of a server."""
amaterialize: Final = _found(f"{_VENDORED}.result", "amaterialize_response")
"""Makes a response of a stream."""
atruncate: Final = _found(f"{_VENDORED}.result", "atruncate_stream_at_stop")
"""Cuts a stream at a stop sequence."""
validate: Final = _found("dspy.clients.engines.base", "validate_request")
"""Refuses what is no request, or says what is DSPy's own business."""
error_of: Final = _found("dspy.clients.engines.stream_guard", "error_from_event")
"""The error that an event of a stream tells of."""
Routing: Final = _found("dspy.clients.engines.lm15_engine", "LM15Engine")
"""Finds the kind of server that a model's name means."""
capabilities: Final = _found("dspy.clients.capabilities", "capabilities")
"""What a model can do, by DSPy's catalogue."""
Event: Final = _found(f"{_VENDORED}.sse", "SSEEvent")
"""A server-sent event."""
