"""A codec of a user's own: JSON, squeezed. Importing this module registers it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from dspex import wire
from dspex.errors import WireError
from dspex.wire._json import Json


class Squeezed:
    """JSON in the bytes of zlib."""

    name = "squeezed"
    number = 77

    def __init__(self, classes: wire.Classes) -> None:
        self._json = Json(classes)

    def encode(self, value: Any) -> bytes:
        return zlib.compress(self._json.encode(value))

    def decode(self, body: bytes | memoryview, parts: Sequence[Any] = ()) -> Any:
        try:
            return self._json.decode(zlib.decompress(body))
        except zlib.error as err:
            raise WireError(f"the body is not squeezed: {err}", code="bad-body") from err


wire.register(Squeezed.name, Squeezed.number, Squeezed)
