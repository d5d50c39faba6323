"""How a frame's body is coded: as MessagePack. The header says so by a number; there is no other codec yet.

MessagePack alone would turn tuples into lists and refuse what JSON has no word for. The extension types
below keep the standard library's value types what they were. A class is never named on the wire, so
decoding creates plain values and nothing else.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgpack

from dspex.errors import WireError

__all__ = ["MSGPACK", "MessagePack"]

MSGPACK: Final = 1

_MAX_NESTED: Final = 32
"""How deep extensions may stand in each other. Each level is a decoder of msgpack's on the C stack, which no
`RecursionError` guards: 200 levels, a body of about a kilobyte, ended the process with SIGSEGV."""


# One row per type that MessagePack has no word for: its number on the wire, how it becomes plain, and back.
# Numbers are for ever. A row's plain form is itself coded, so that a tuple of tuples works.
_EXTENSIONS: Final[tuple[tuple[int, type, Callable[[Any], Any], Callable[[Any], Any]], ...]] = (
    (1, int, str, int),  # only those beyond 64 bits come here; int() bounds the digits by itself
    (2, tuple, list, tuple),
    (3, set, list, set),
    (4, frozenset, list, frozenset),
    (5, dt.datetime, lambda v: [v.isoformat(), v.fold], lambda p: _with_fold(dt.datetime, p)),
    (6, dt.date, dt.date.isoformat, dt.date.fromisoformat),
    (7, dt.time, lambda v: [v.isoformat(), v.fold], lambda p: _with_fold(dt.time, p)),
    (8, dt.timedelta, lambda v: [v.days, v.seconds, v.microseconds], lambda p: dt.timedelta(*p)),
    (9, Decimal, str, Decimal),
    (10, UUID, lambda v: v.bytes, lambda p: UUID(bytes=bytes(memoryview(p)))),  # UUID only asserts the type
)
_BY_TYPE: Final = {kind: (number, to_plain) for number, kind, to_plain, _ in _EXTENSIONS}
_BY_NUMBER: Final = {number: from_plain for number, _, _, from_plain in _EXTENSIONS}


def _with_fold(kind: Any, plain: Any) -> Any:
    text, fold = plain
    return kind.fromisoformat(text).replace(fold=fold)


class MessagePack:
    """MessagePack, with the value types of the standard library. For one connection and one thread."""

    number = MSGPACK

    def __init__(self, depth: int = 0) -> None:
        # strict_types sends tuples and subclasses to `_to_extension`. Lone surrogates are legal in a str
        # and do arrive in LM replies ("\\ud83d" cut in half), so they must survive.
        self._packer = msgpack.Packer(
            default=partial(self._to_extension, depth), strict_types=True, unicode_errors="surrogatepass"
        )

    def encode(self, value: Any) -> bytes:
        """The body that says `value`.

        Raises:
            WireError: If the value, or something in it, cannot be said (`not-encodable`).
        """
        try:
            packed: bytes = self._packer.pack(value)
        except Exception as err:
            # Mostly a type that is not plain; but a mapping of the caller's may raise whatever it likes.
            place, culprit = _culprit(value)
            raise WireError(
                f"a value of type {type(culprit).__qualname__} at {place} cannot cross to a worker: {err}",
                code="not-encodable",
                hint="send plain values: str, numbers, bytes, list, tuple, dict, set, date and time types",
                place=place,
            ) from err
        return packed

    def decode(self, body: bytes | memoryview) -> Any:
        """The value that `body` says.

        Raises:
            WireError: If the body is not MessagePack (`bad-body`).
        """
        return self._decode(body, _OUTERMOST)

    @staticmethod
    def _decode(body: bytes | memoryview, from_extension: Callable[[int, bytes], Any]) -> Any:
        try:
            return msgpack.unpackb(
                body,
                ext_hook=from_extension,
                strict_map_key=False,
                unicode_errors="surrogatepass",
            )
        except (
            ValueError,
            TypeError,
            ArithmeticError,
            RecursionError,
            MemoryError,
            msgpack.UnpackException,
        ) as err:
            raise WireError(
                f"the body is not MessagePack: {err or type(err).__name__}", code="bad-body"
            ) from err

    @staticmethod
    def _to_extension(depth: int, value: Any) -> Any:
        row = _BY_TYPE.get(type(value))
        if row is not None:
            if depth == _MAX_NESTED:
                raise ValueError(f"more than {_MAX_NESTED} tuples or sets in each other")
            number, to_plain = row
            # A fresh packer: the one that asked is in the middle of its own value.
            return msgpack.ExtType(number, MessagePack(depth + 1)._packer.pack(to_plain(value)))
        # A subclass travels as what it is a kind of: an IntEnum as a number, a defaultdict as a dict.
        # The type's own conversion: `str(x)` of a str enum is its name, not its text.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, bytes):
            return bytes(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, list | tuple):
            return list(value)
        raise TypeError("no plain value stands for it")


def _from_extension(depth: int, number: int, body: bytes) -> Any:
    if depth == _MAX_NESTED:
        raise ValueError(f"more than {_MAX_NESTED} extensions in each other")
    from_plain = _BY_NUMBER.get(number)
    if from_plain is None:
        raise ValueError(f"no extension has the number {number}")
    return from_plain(MessagePack._decode(body, partial(_from_extension, depth + 1)))


_OUTERMOST: Final = partial(_from_extension, 0)  # made once: most bodies have no extension at all


def _culprit(value: Any, place: str = "$", depth: int = 0) -> tuple[str, Any]:
    """Where in `value` the first thing sits that cannot be encoded, looking only as deep as is readable."""
    items: list[tuple[str, Any]] = []
    try:
        if isinstance(value, Mapping):
            items = [(f"{place}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            items = [(f"{place}[{index}]", item) for index, item in enumerate(value)]
    except Exception:  # noqa: BLE001 - it is the one, then
        return place, value
    if depth < 32:
        for where, item in items:
            try:
                MessagePack()._packer.pack(item)
            except Exception:  # noqa: BLE001 - as above
                return _culprit(item, where, depth + 1)
    return place, value
