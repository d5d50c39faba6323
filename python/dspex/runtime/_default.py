"""The process's default runtime."""

from __future__ import annotations

import atexit
from typing import Any

from dspex.router import set_default
from dspex.runtime._runtime import Runtime

__all__ = ["configure"]

_configured: Runtime | None = None


def configure(lm: Any = None, **settings: Any) -> Runtime:
    """Make and open the runtime that modules use where no other is current.

    It closes when the process ends, or when `configure` is called again. Calls in flight on the runtime
    before are cancelled, so configure once, at the start.

    Args:
        lm: The language model; see `Runtime`.
        **settings: The other arguments of `Runtime`.

    Returns:
        The runtime, open.

    Raises:
        ConfigError: If a setting is wrong; the runtime before stays in place then.
    """
    global _configured
    runtime = Runtime(lm, **settings)
    runtime.open()
    if _configured is None:
        atexit.register(_close)
    before, _configured = _configured, runtime
    set_default(runtime)
    if before is not None:
        before.close()
    return runtime


def _close() -> None:
    global _configured
    runtime, _configured = _configured, None
    set_default(None)
    if runtime is not None:
        runtime.close()
