"""How values become bytes: for workers, for state that is stored, for checkpoints.

::

    dumps(value), loads(data)     bytes to keep, which later versions read
    explain(value)                what of a value is written how, and why
    register(name, ...)           a codec of one's own
    share(value)                  a value in shared memory, for many calls
    Classes(["my_app.models"])    whose enums, dataclasses, models and named tuples may be named

Ordinary values are MessagePack. Arrays, tables and long lists of numbers or of like rows inside them are
written as columns of bytes, which large ones share with the other process instead of crossing. What survives,
and how, is in docs/wire.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex._lazy import names_of
from dspex.wire._classes import Classes

if TYPE_CHECKING:
    from dspex.wire._codec import Codec, register
    from dspex.wire._explain import Choice, Explanation, explain
    from dspex.wire._shared import Shared, share
    from dspex.wire._stored import dumps, loads

__all__ = [
    "Choice",
    "Classes",
    "Codec",
    "Explanation",
    "Shared",
    "dumps",
    "explain",
    "loads",
    "register",
    "share",
]

_HOMES = {
    "Choice": "dspex.wire._explain",
    "Codec": "dspex.wire._codec",
    "Explanation": "dspex.wire._explain",
    "Shared": "dspex.wire._shared",
    "dumps": "dspex.wire._stored",
    "explain": "dspex.wire._explain",
    "loads": "dspex.wire._stored",
    "register": "dspex.wire._codec",
    "share": "dspex.wire._shared",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
