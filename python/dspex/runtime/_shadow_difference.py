"""Where two sides differ on a call, and its form as a line of JSON, both ends of it.

Two things are compared. The *messages*, as both sides write them, must be the same to the byte. The *fields*
of all completions must be equal, of the same types; a model that is asked twice may well say something else
the second time, unless its temperature is 0.

A difference holds texts that are cut, around the first place where the two differ. What a user may have
written, the inputs and what differs in messages, is left out unless it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

__all__ = [
    "MessageDifference",
    "Pair",
    "ShadowDifference",
    "fields_that_differ",
    "message_that_differs",
    "text",
]

_BEFORE: Final = 20
"""Characters that are shown before the first difference of two texts."""

_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two values as texts, cut around where they begin to differ.

    Attributes:
        live: What the side gave that answered the caller.
        other: What the other side gave.
    """

    live: str
    other: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDifference:
    """The first message that differs.

    Attributes:
        index: Its place among the messages.
        role: Its role, on the side that answered the caller; empty where that has no such message.
        at: The character from which on it differs; None where it is not a text on both sides.
        lengths: How long it is on each side; -1 where there is none.
        texts: What differs, if that was asked for.
    """

    index: int
    role: str
    at: int | None
    lengths: tuple[int, int]
    texts: Pair | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowDifference:
    """A call on which two sides differ.

    Attributes:
        time: When, in seconds since 1970.
        signature: The call's signature, as text.
        live: The target that answered the caller.
        other: The target that was run beside it.
        message: The first message that differs, if one does.
        fields: The output fields that differ.
        error: The code of the error that the other side raised, if it did.
        inputs: The inputs, as texts, if they were asked for.
    """

    time: float
    signature: str
    live: str
    other: str
    message: MessageDifference | None = None
    fields: Mapping[str, Pair] = field(default_factory=dict)
    error: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    def to_line(self) -> str:
        """The line of a file that stands for it."""
        data: dict[str, Any] = {name: getattr(self, name) for name in ("time", "signature", "live", "other")}
        if self.message is not None:
            message = self.message
            data["message"] = {
                "index": message.index,
                "role": message.role,
                "at": message.at,
                "lengths": list(message.lengths),
                **({} if message.texts is None else {"texts": [message.texts.live, message.texts.other]}),
            }
        if self.fields:
            data["fields"] = {name: [pair.live, pair.other] for name, pair in self.fields.items()}
        if self.error:
            data["error"] = self.error
        if self.inputs:
            data["inputs"] = dict(self.inputs)
        return json.dumps(data, ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """What a line of a file stands for.

        Raises:
            ValueError: If it is none.
        """
        try:
            data = json.loads(line)
            message = data.get("message")
            return cls(
                time=float(data["time"]),
                **{name: str(data[name]) for name in ("signature", "live", "other")},
                message=None if message is None else _message(message),
                fields={str(name): Pair(*map(str, pair)) for name, pair in data.get("fields", {}).items()},
                error=str(data.get("error", "")),
                inputs={str(name): str(value) for name, value in data.get("inputs", {}).items()},
            )
        except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError("the line is no difference") from error


def _message(data: Mapping[str, Any]) -> MessageDifference:
    texts, (live, other) = data.get("texts"), data["lengths"]
    return MessageDifference(
        index=int(data["index"]),
        role=str(data["role"]),
        at=None if data["at"] is None else int(data["at"]),
        lengths=(int(live), int(other)),
        texts=None if texts is None else Pair(*map(str, texts)),
    )


def message_that_differs(
    live: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], width: int, *, texts: bool
) -> MessageDifference | None:
    """The first message that is not the same on both sides; None where all are.

    Args:
        live: The messages of the side that answered the caller.
        other: Those of the other side.
        width: Characters to keep.
        texts: Whether to keep what differs.
    """
    for index in range(max(len(live), len(other))):
        mine = live[index] if index < len(live) else {}
        theirs = other[index] if index < len(other) else {}
        if mine == theirs:
            continue
        one, two = mine.get("content"), theirs.get("content")
        pair = _pair(one, two, width)
        return MessageDifference(
            index=index,
            role=str(mine.get("role", "")),
            at=_first(one, two) if isinstance(one, str) and isinstance(two, str) else None,
            lengths=(_length(mine), _length(theirs)),
            texts=pair if texts else None,
        )
    return None


def fields_that_differ(
    live: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], width: int
) -> dict[str, Pair]:
    """The fields that are not equal in all completions, each with the first values that are not."""
    found: dict[str, Pair] = {}
    for index in range(max(len(live), len(other))):
        mine = live[index] if index < len(live) else {}
        theirs = other[index] if index < len(other) else {}
        for name in dict.fromkeys((*mine, *theirs)):
            one, two = mine.get(name, _NOTHING), theirs.get(name, _NOTHING)
            if name not in found and not _same(one, two):
                found[name] = _pair(one, two, width)
    return found


def text(value: Any, width: int) -> str:
    """A value as a text, cut; a text is itself."""
    whole = _whole(value)
    return whole if len(whole) <= width else f"{whole[:width]}..."


def _same(one: Any, two: Any) -> bool:
    if type(one) is not type(two):
        return False
    try:
        if one == two:
            return True
    except Exception:  # noqa: BLE001, S110 - what `==` of a user's class or of an array raises
        pass
    return _whole(one) == _whole(two)  # a float that is no number equals nothing


def _pair(one: Any, two: Any, width: int) -> Pair:
    whole, other = _whole(one), _whole(two)
    if whole == other:  # of different types
        whole, other = f"{whole} ({type(one).__name__})", f"{other} ({type(two).__name__})"
    start = max(0, _first(whole, other) - _BEFORE)
    return Pair(_cut(whole, start, width), _cut(other, start, width))


def _cut(whole: str, start: int, width: int) -> str:
    before = "..." if start else ""
    after = "..." if len(whole) > start + width else ""
    return f"{before}{whole[start : start + width]}{after}"


def _first(one: str, two: str) -> int:
    """Where two texts begin to differ."""
    low, high = 0, min(len(one), len(two))
    while low < high:  # a comparison of slices is faster than one of characters
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _whole(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)  # of a class of the user's the text alone is kept
    if value is _NOTHING:
        return "(nothing)"
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a `__repr__` of the user's
        return f"a {type(value).__name__}"


def _length(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    return len(content) if isinstance(content, str | list) else -1
