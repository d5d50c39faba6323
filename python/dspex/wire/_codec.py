"""`Codec`: what turns a value into the bytes of a body, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Codec"]


class Codec(Protocol):
    """One connection's coder and decoder, for one thread at a time.

    Attributes:
        name: What settings and `explain` call it.
        number: What a frame's header calls it.
    """

    @property
    def name(self) -> str: ...

    @property
    def number(self) -> int: ...

    def encode(self, value: Any) -> bytes:
        """The bytes that say `value`.

        Raises:
            WireError: If the value, or something in it, cannot be said (`not-encodable`).
        """
        ...

    def decode(self, body: bytes | memoryview, parts: Sequence[Any] = ()) -> Any:
        """The value that `body` says.

        Args:
            body: The bytes; they are good for the time of the call alone.
            parts: The parts of the frame, if the codec writes any.

        Raises:
            WireError: If the bytes are none of this codec's (`bad-body`).
        """
        ...
