"""`Runtime`: the one object that owns everything that must be closed."""

from dspex.runtime._default import configure
from dspex.runtime._runtime import Runtime

__all__ = ["Runtime", "configure"]
