"""Policies for values that contain field markers, for adapters and templates alike, and the warning.

The warning never shows the value: it came from somebody else, and may be secret.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, get_args

from dspex.errors import ConfigError

__all__ = ["Markers", "check", "report"]

Markers = Literal["dspy", "warn", "escape", "reject"]
"""What becomes of a value that holds a field marker, and so could pass for the prompt's own structure.

`"warn"` writes it as it is and logs a warning, without the value; `"escape"` writes it so that it is no
marker any more; `"reject"` raises an `InputError`; `"dspy"` writes it as it is and does not look.
"""


def check(markers: Any) -> None:
    """Make sure that there is such a policy.

    Raises:
        ConfigError: If there is none.
    """
    if markers not in get_args(Markers):
        raise ConfigError(
            f"markers={markers!r} is not known",
            code="markers",
            hint=f"use {' or '.join(map(repr, get_args(Markers)))}",
        )


def report(field: str | None, count: int) -> None:
    """Log that a value holds markers: that of a field, or one for a template."""
    log = logging.getLogger("dspex.template" if field is None else "dspex.adapters")
    whose = "a value for a template" if field is None else f"the value of `{field}`"
    what = "a field marker" if count == 1 else f"{count} field markers"
    log.warning("%s holds %s; a model may take it for the prompt's own structure", whose, what)
