"""`Runtime`: the one object that owns everything that must be closed."""

from dspex._lazy import names_of
from dspex.runtime._default import configure
from dspex.runtime._runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dspex.runtime._shadow_difference import MessageDifference, Pair, ShadowDifference
    from dspex.runtime._shadow_store import ShadowReport

__all__ = ["MessageDifference", "Pair", "Runtime", "ShadowDifference", "ShadowReport", "configure"]

_HOMES = {
    "MessageDifference": "dspex.runtime._shadow_difference",
    "Pair": "dspex.runtime._shadow_difference",
    "ShadowDifference": "dspex.runtime._shadow_difference",
    "ShadowReport": "dspex.runtime._shadow_store",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)
