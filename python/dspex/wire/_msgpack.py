"""MessagePack with a row of `dspex.wire._kinds` for every type that it has no word for.

The packer of the `msgpack` package is in C and walks a value by itself; it asks here only about what it does
not know, so a value of plain words costs nothing more. What it does not know becomes an extension: the row's
number, and the plain form, coded in the same way.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgpack

from dspex.errors import WireError
from dspex.wire._blob import Blob
from dspex.wire._classes import DEFAULT, Classes
from dspex.wire._columns import COLUMNS, Packed
from dspex.wire._kinds import BY_NUMBER, Rows
from dspex.wire._refusal import UNREADABLE, not_encodable
from dspex.wire._shared import Shared
from dspex.wire._subclasses import as_base

__all__ = ["MAX_PARTS", "MessagePack"]

_MAX_NESTED: Final = 32
"""How deep extensions may stand in each other. Each level is a decoder of msgpack's on the C stack, which no
`RecursionError` guards: 200 levels, a body of about a kilobyte, ended the process with SIGSEGV."""

_PICKLED: Final = 61
"""The extension of a value that was pickled."""

_SHARED: Final = 62
"""The extension of a value in shared memory: the number of its first part, and the bytes of the rest."""

_PART: Final = 63
"""The extension that stands for a part of the frame; its body is the part's number, a byte or four."""

MAX_PARTS: Final = 4096
"""Parts a value may have; what more there is stays among its other values."""

_REFUSED: Final = (*UNREADABLE, msgpack.UnpackException)


class MessagePack:
    """The codec of one connection, for one thread at a time.

    Args:
        classes: The classes that may be named.
        pickle: Whether what has no row is pickled, and what was pickled is read. Reading a pickle runs
            whatever code it names: it is for a pool whose user has said so, and for nothing that is stored.
    """

    name = "msgpack"
    number = 1

    def __init__(self, classes: Classes = DEFAULT, *, pickle: bool = False) -> None:
        self._classes = classes
        self._pickle = pickle
        self._rows = Rows(classes)
        # One packer for each depth: the one that asks about a value is in the middle of its own.
        self._packers: list[Any] = []
        self._packer = self._packer_at(0)
        self._outermost = partial(self._from_extension, 0, ())  # made once: most bodies have no extension
        self._parts: list[Blob] | None = None
        self._floor = 0

    def encode(self, value: Any) -> bytes:
        """The bytes that say `value`.

        Raises:
            WireError: If the value, or something in it, cannot be said (`not-encodable`).
        """
        try:
            packed: bytes = self._packer.pack(value)
        except Exception as err:
            # Mostly a type that has no row; but a mapping of the caller's may raise whatever it likes.
            raise self.refusal(value, err) from err
        return packed

    def encode_in_parts(self, value: Any, floor: int) -> tuple[bytes, list[Blob]]:
        """The bytes that say `value` but for its large blobs, and these.

        Args:
            value: What is to cross.
            floor: Bytes from which a blob is a part of its own.

        Raises:
            WireError: As `encode` does.
        """
        parts: list[Blob] = []
        self._parts, self._floor = parts, floor
        try:
            return self._packer.pack(value), parts
        except Exception as err:
            raise self.refusal(value, err) from err
        finally:
            self._parts = None

    def leave_out(self, floor: int) -> tuple[Callable[[Any], bytes], list[Blob]]:
        """What `encode_in_parts` does, for a connection: with nothing around the packer but its caller.

        Args:
            floor: Bytes from which a blob is a part of its own.

        Returns:
            What packs a value, and the list that has its parts afterwards. Its caller empties that, and has
            an error said by `refusal`. This codec encodes nothing else from now on.
        """
        self._parts, self._floor = [], floor
        return self._packer.pack, self._parts

    def refusal(self, value: Any, error: Exception) -> WireError:
        """What is to be raised for a value that the packer did not take."""
        return not_encodable(value, error, self._packer.pack)

    def decode(self, body: bytes | memoryview, parts: Sequence[Any] = ()) -> Any:
        """The value that `body` says.

        Args:
            body: The bytes.
            parts: The parts that came with it, each a buffer that is good for as long as somebody holds it.

        Raises:
            WireError: If the body is not MessagePack, or says what there cannot be (`bad-body`).
        """
        try:  # not by `_decode`: every frame of a pool comes by here
            return msgpack.unpackb(
                body,
                ext_hook=partial(self._from_extension, 0, parts) if parts else self._outermost,
                strict_map_key=False,
                unicode_errors="surrogatepass",
            )
        except _REFUSED as err:
            raise _unreadable(err) from err

    @staticmethod
    def _decode(body: bytes | memoryview, from_extension: Callable[[int, bytes], Any]) -> Any:
        try:
            return msgpack.unpackb(
                body, ext_hook=from_extension, strict_map_key=False, unicode_errors="surrogatepass"
            )
        except _REFUSED as err:
            raise _unreadable(err) from err

    # --- out ---

    def _packer_at(self, depth: int) -> Any:
        if depth == len(self._packers):
            # strict_types sends tuples and subclasses to `_to_extension`. Lone surrogates are legal in a str
            # and do arrive in LM replies ("\\ud83d" cut in half), so they must survive.
            self._packers.append(
                msgpack.Packer(
                    default=partial(self._to_extension, depth),
                    strict_types=True,
                    unicode_errors="surrogatepass",
                )
            )
        return self._packers[depth]

    def _to_extension(self, depth: int, value: Any) -> Any:
        row = self._rows[type(value)]
        if row is not None:
            return self._extension(depth, row.kind.number, row.to_plain(value, self._classes))
        if type(value) is Blob:
            return self._blob(value)
        if type(value) is Shared:
            return self._shared(depth, value)
        if type(value) is Packed:
            return self._extension(depth, value.column.kind.number, value.plain)
        return self._pickled(value) if self._pickle else as_base(value)

    def _extension(self, depth: int, number: int, plain: Any) -> Any:
        if depth == _MAX_NESTED:
            raise ValueError(f"more than {_MAX_NESTED} tuples, sets or objects in each other")
        return msgpack.ExtType(number, self._packer_at(depth + 1).pack(plain))

    def _blob(self, blob: Blob) -> Any:
        parts = self._parts
        if parts is None or blob.size < self._floor or len(parts) == MAX_PARTS:
            return blob.buffer()
        parts.append(blob)
        return msgpack.ExtType(_PART, (len(parts) - 1).to_bytes(4, "big"))

    def _shared(self, depth: int, value: Shared) -> Any:
        parts = self._parts
        main, blobs = value.parts()
        if parts is None or len(parts) + len(blobs) > MAX_PARTS:
            return value.get()  # which goes as any other value does
        parts += blobs
        return self._extension(depth, _SHARED, [len(parts) - len(blobs), main])

    @staticmethod
    def _pickled(value: Any) -> Any:
        try:
            return as_base(value)
        except TypeError:
            return msgpack.ExtType(_PICKLED, pickle.dumps(value, 5))

    # --- in ---

    def _from_extension(self, depth: int, parts: Sequence[Any], number: int, body: bytes) -> Any:
        if number == _PART:
            return _part(parts, body)
        if number == _PICKLED:
            if not self._pickle:
                raise ValueError("it has a pickle, and none is read here")
            return _unpickled(body)
        if depth == _MAX_NESTED:
            raise ValueError(f"more than {_MAX_NESTED} extensions in each other")
        plain = self._decode(body, partial(self._from_extension, depth + 1, parts))
        row = BY_NUMBER.get(number)
        if row is not None:
            return row.from_plain(plain, self._classes)
        if number == _SHARED:
            first, main = plain
            return self._decode(main, partial(self._from_extension, depth + 1, parts[int(first) :]))
        column = COLUMNS.get(number)
        if column is None:
            raise ValueError(f"no extension has the number {number}")
        return column.from_plain(plain)


def _unreadable(error: Exception) -> WireError:
    return WireError(f"the body is not MessagePack: {error or type(error).__name__}", code="bad-body")


def _unpickled(body: bytes) -> Any:
    try:
        return pickle.loads(body)  # noqa: S301 - the pool's user has turned it on
    except Exception as err:
        raise ValueError(f"a pickle that cannot be read: {type(err).__name__}: {err}") from err


def _part(parts: Sequence[Any], body: bytes) -> Any:
    number = int.from_bytes(body, "big")
    if len(body) != 4 or number >= len(parts):
        raise ValueError("the frame has no such part")
    return parts[number]
