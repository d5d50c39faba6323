"""JSON, for workers in other languages, for logs and for people.

What JSON has a word for is written as it is. Everything else is an object of two members, `{"$": "tuple",
"v": [1, 2]}`: the name of a row of `dspex.wire._kinds`, and the row's plain form, written in the same way.
Four names stand for what MessagePack has words for and JSON has not:

- `bytes`: their base64, padded;
- `float`: `"nan"`, `"inf"` or `"-inf"`, since no JSON has these as numbers;
- `text`: a text with half a surrogate pair in it, as the base64 of its UTF-8. As an escape it would be legal,
  but readers refuse it, replace it, or join it to its neighbour;
- `dict`: a list of pairs, for a dict with a key that is no text, or is `"$"`.

So an object with the member `"$"` is never a dict of somebody's.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from dspex.errors import WireError
from dspex.wire._blob import Blob
from dspex.wire._classes import DEFAULT, Classes
from dspex.wire._kinds import BY_NAME, Rows
from dspex.wire._refusal import UNREADABLE, not_encodable
from dspex.wire._shared import Shared
from dspex.wire._subclasses import as_base

__all__ = ["Json"]

_MAX_NESTED: Final = 200
"""How deep what is written may be nested: each level is a frame of Python's stack, which has a thousand."""

_TAG: Final = "$"
_VALUE: Final = "v"

_LEAST: Final = -(2**63)
_MOST: Final = 2**64 - 1
"""Numbers beyond have a row: other languages would round them, or stop. MessagePack ends there too."""

_to_text: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


class Json:
    """The codec of one connection.

    Args:
        classes: The classes that may be named.
    """

    name = "json"
    number = 2

    def __init__(self, classes: Classes = DEFAULT) -> None:
        self._classes = classes
        self._rows = Rows(classes)
        self._from_text = json.JSONDecoder(
            object_pairs_hook=partial(_from_pairs, classes), parse_constant=_refuse_constant
        ).decode

    def encode(self, value: Any) -> bytes:
        """The bytes that say `value`: JSON in UTF-8, without white space.

        Raises:
            WireError: If the value, or something in it, cannot be said (`not-encodable`).
        """
        try:
            return self._say(value)
        except Exception as err:
            raise not_encodable(value, err, self._say) from err

    def decode(self, body: bytes | memoryview, parts: Sequence[Any] = ()) -> Any:
        """The value that `body` says.

        Args:
            body: The bytes.
            parts: None: JSON has no word for them.

        Raises:
            WireError: If the body is not JSON, or says what there cannot be (`bad-body`).
        """
        try:
            return self._from_text(str(body, "utf-8"))
        except UNREADABLE as err:
            raise WireError(f"the body is not JSON: {err or type(err).__name__}", code="bad-body") from err

    def _say(self, value: Any) -> bytes:
        return _to_text(self._plain(value, _MAX_NESTED)).encode()

    def _plain(self, value: Any, left: int) -> Any:
        """The value in JSON's words.

        Args:
            value: It.
            left: Levels that it may have.
        """
        kind = type(value)
        if kind is str:
            return value if value.isascii() or _is_whole(value) else _tagged("text", _base64_of_text(value))
        if kind is bool or value is None:
            return value
        if kind is int:
            return value if _LEAST <= value <= _MOST else self._row(value, left)
        if kind is float:
            return value if math.isfinite(value) else _tagged("float", repr(value))
        if not left:
            raise ValueError(f"it is nested more than {_MAX_NESTED} levels deep")
        left -= 1
        if kind is list:
            return [self._plain(item, left) for item in value]
        if kind is dict:
            if all(type(key) is str and key != _TAG and (key.isascii() or _is_whole(key)) for key in value):
                return {key: self._plain(item, left) for key, item in value.items()}
            pairs = [[self._plain(key, left), self._plain(item, left)] for key, item in value.items()]
            return _tagged("dict", pairs)
        if kind is bytes or kind is bytearray or kind is memoryview:
            return _tagged("bytes", _base64(value))
        if kind is Shared:
            return self._plain(value.get(), left)
        if kind is Blob:
            return _tagged("bytes", _base64(value.buffer()))
        return self._row(value, left)

    def _row(self, value: Any, left: int) -> Any:
        row = self._rows[type(value)]
        if row is None:
            return self._plain(as_base(value), left)
        return _tagged(row.kind.name, self._plain(row.to_plain(value, self._classes), left))


def _tagged(name: str, plain: Any) -> dict[str, Any]:
    return {_TAG: name, _VALUE: plain}


def _is_whole(text: str) -> bool:
    """Whether a text has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base64(data: Any) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _base64_of_text(text: str) -> str:
    return _base64(text.encode(errors="surrogatepass"))


# --- in ---


def _from_pairs(classes: Classes, pairs: list[tuple[str, Any]]) -> Any:
    """What an object says, once what is in it has been read."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has two members of one name")
    if _TAG not in members:
        return members
    name = members[_TAG]
    if len(members) != 2 or _VALUE not in members or not isinstance(name, str):
        raise ValueError('an object with the member "$" has one more, "v", and "$" is a text')
    plain = members[_VALUE]
    read = _WORDS.get(name)
    if read is not None:
        return read(plain)
    row = BY_NAME.get(name)
    if row is None:
        raise ValueError(f"no type has the name {name[:60]!r}")
    return row.from_plain(plain, classes)


def _bytes(plain: Any) -> bytes:
    return binascii.a2b_base64(_text(plain), strict_mode=True)


def _float(plain: Any) -> float:
    if plain not in ("nan", "inf", "-inf"):
        raise ValueError("a float that JSON cannot say is nan, inf or -inf")
    return float(plain)


def _dict(plain: Any) -> dict[Any, Any]:
    made = {key: value for key, value in plain}  # noqa: C416 - `dict` takes what is not pairs too
    if type(plain) is not list or len(made) != len(plain):
        raise ValueError("a dict is a list of pairs, each with a key of its own")
    return made


def _text(plain: Any) -> str:
    if type(plain) is not str:
        raise TypeError(f"base64 is a text, not a {type(plain).__name__}")
    return plain


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


_WORDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "bytes": _bytes,
    "float": _float,
    "text": lambda plain: _bytes(plain).decode(errors="surrogatepass"),
    "dict": _dict,
}
