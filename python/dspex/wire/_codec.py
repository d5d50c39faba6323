"""`Codec`: what turns a value into the bytes of a body, and back; and the codecs there are.

dspex has two for whole bodies, MessagePack and JSON; Arrow is how a body writes tables. A user's own joins
them by `register`, in the service and, by a module of the pool's `preload`, in its workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from dspex.errors import ConfigError
from dspex.wire._classes import Classes

__all__ = ["NUMBERS", "Codec", "make_codecs", "names", "register"]


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


_FIRST_OF_USERS: Final = 16
_LAST: Final = 255

_MAKERS: Final[dict[str, tuple[int, Callable[[Classes], Codec]]]] = {}
"""The codecs of users, by their names: their numbers, and what makes one for a connection."""

NUMBERS: Final = {1, 2}
"""What a frame's header may call a codec in this process."""


def register(name: str, number: int, make: Callable[[Classes], Codec]) -> None:
    """Have a codec of one's own, for pools with `PoolSpec(codec=name)`.

    The service registers it before it opens the pool, and a module in the pool's `preload` in the workers.

    Args:
        name: What settings call it.
        number: What a frame's header calls it, from 16 to 255.
        make: Makes one for a connection, which allows the classes it is given.

    Raises:
        ConfigError: If the name or the number is taken by another codec, or out of range (`bad-codec`).
    """
    if name in ("msgpack", "json", "auto") or not name.isidentifier():
        raise ConfigError(f"a codec of one's own is not called {name!r}", code="bad-codec")
    if not _FIRST_OF_USERS <= number <= _LAST:
        raise ConfigError(
            f"the number {number} is none of a user's codec", code="bad-codec", hint="take one from 16 to 255"
        )
    taken = next((other for other, (used, _) in _MAKERS.items() if used == number and other != name), None)
    if taken is not None or _MAKERS.get(name, (number, make))[0] != number:
        raise ConfigError(
            f"the number {number} is that of the codec {taken or name!r}, or it has another", code="bad-codec"
        )
    _MAKERS[name] = (number, make)
    NUMBERS.add(number)


def names() -> tuple[str, ...]:
    """The names of the codecs that are registered."""
    return tuple(_MAKERS)


def make_codecs(classes: Classes) -> dict[int, Codec]:
    """One of each registered codec, by number."""
    return {number: make(classes) for number, make in _MAKERS.values()}
