"""Values that hold field markers: what is said about them.

Never the value itself: it came from somebody else, and may be secret.
"""

from __future__ import annotations

import logging

__all__ = ["report"]

_log = logging.getLogger("dspex.adapters")


def report(field: str, count: int) -> None:
    """Log that a value holds markers."""
    what = "a field marker" if count == 1 else f"{count} field markers"
    _log.warning(
        "the value of `%s` holds %s; a model may take it for the prompt's own structure", field, what
    )
