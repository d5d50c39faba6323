"""An answer as a cache keeps it, and as a hit gives it back.

::

    LMResponse --written--> JSON --read--> Kept --hit--> LMResponse(cached=True)
               --deltas <--------------------+

In memory there is a `Kept`, whose parts all hits share, as none can be changed. An answer with parts that can
be, such as log-probabilities, is kept as JSON there too, and read anew for each hit. The server's own words,
`raw`, are not kept: they are those of one request.

Only a whole answer is kept: each of its generations has ended in a way that is known to be an end, and says
something. What was cut off, refused or filtered is none. Nor is what cannot be written and read again to the
same: it is tried when it is kept, so that no hit differs from its first answer.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final, NamedTuple

from dspex.events import LMDelta, LMToolCallDelta
from dspex.lm._protocol import LMChoice, LMResponse, LMToolCall

__all__ = ["Kept", "deltas_of", "fresh", "hit_of", "kept_of", "read", "shared", "size_of", "written"]

_ENDS: Final = frozenset(
    {
        "completed", "end_turn", "eos", "eos_token", "function_call", "stop", "stop_sequence", "tool_calls",
        "tool_use",
    }
)  # fmt: skip
"""Reasons to end of an answer that is whole, in the words of several servers. Some give none at all."""

_CHOICE: Final = {field.name: field.default for field in fields(LMChoice) if field.name != "raw"}
_CALL: Final = {field.name: field.default for field in fields(LMToolCall)}
_NEEDED: Final = ("text",)
_OBJECT: Final = 150
"""Bytes of an object that holds a few others, roughly."""


class Kept(NamedTuple):
    """What an answer says, without what it took.

    Attributes:
        choices: The generations.
        model: The model that answered.
    """

    choices: tuple[LMChoice, ...]
    model: str


def is_whole(choice: LMChoice) -> bool:
    """Whether a generation may be given to others."""
    reason = choice.finish_reason
    ended = reason is None or reason.lower() in _ENDS
    return ended and not choice.refusal and bool(choice.text or choice.tool_calls)


def written(response: LMResponse) -> bytes | None:
    """An answer as JSON; None for one that is not kept."""
    if not all(map(is_whole, response.choices)):
        return None
    data = {
        "choices": [_plain(choice, _CHOICE) for choice in response.choices],
        "model": response.model,
        "usage": dict(response.usage),
    }
    try:
        raw = _dump(data)
        kept = read(raw)
    except (TypeError, ValueError, RecursionError):
        return None
    return raw if kept is not None and kept == (response.choices, response.model) else None


def read(raw: bytes) -> Kept | None:
    """The answer in a JSON; None if it is none that this version understands."""
    try:
        data = json.loads(raw)
        choices = tuple(_choice(each) for each in data["choices"])
        model = data["model"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return Kept(choices, model) if choices and isinstance(model, str) else None


def kept_of(raw: bytes) -> Kept | bytes | None:
    """What is kept in memory of a JSON; None if it is none."""
    kept = read(raw)
    return raw if kept is not None and not shared(kept.choices) else kept


def shared(choices: tuple[LMChoice, ...]) -> bool:
    """Whether several callers may have these generations: nothing in them can be changed."""
    return all(
        isinstance(value := getattr(choice, name), str | int | float | None)
        or value == ()
        or (name == "tool_calls" and isinstance(value, tuple))
        for choice in choices
        for name in _CHOICE
    )


def fresh(choices: tuple[LMChoice, ...]) -> tuple[LMChoice, ...]:
    """Generations for one more caller, of which no other has a part that can be changed."""
    return tuple(
        LMChoice(
            choice.text,
            choice.finish_reason,
            choice.tool_calls,
            choice.reasoning,
            choice.refusal,
            choice.logprobs and copy.deepcopy(choice.logprobs),
            choice.annotations and copy.deepcopy(choice.annotations),
        )
        for choice in choices
    )


def size_of(kept: Kept | bytes) -> int:
    """About how many bytes of memory it takes."""
    if isinstance(kept, bytes):
        return sys.getsizeof(kept)
    size = _OBJECT * (1 + len(kept.choices))
    for choice in kept.choices:
        texts = [getattr(choice, name) for name in _CHOICE if name != "tool_calls"]
        for call in choice.tool_calls:
            size += _OBJECT
            texts += [call.id, call.name, call.arguments]
        # A text takes up to four bytes a character, by the widest one in it.
        size += sum(sys.getsizeof(text) for text in texts if isinstance(text, str))
    return size


def hit_of(kept: Kept | bytes, seconds: float = 0.0) -> LMResponse | None:
    """The answer of a hit. It has taken no tokens, and so has no usage."""
    if isinstance(kept, bytes):
        found = read(kept)
        if found is None:
            return None
        kept = found
    return LMResponse(fresh(kept.choices), kept.model, {}, seconds, 0.0, True)


def deltas_of(response: LMResponse) -> Iterator[LMDelta]:
    """A hit as a stream tells it: of each generation its thoughts, its text, its calls, its end."""
    first = True
    for index, choice in enumerate(response.choices):
        if choice.reasoning:
            yield LMDelta("", index, reasoning=choice.reasoning, cached=first)
            first = False
        if choice.text:
            yield LMDelta(choice.text, index, cached=first)
            first = False
        if choice.tool_calls:
            calls = enumerate(choice.tool_calls)
            pieces = tuple(LMToolCallDelta(at, call.id, call.name, call.arguments) for at, call in calls)
            yield LMDelta("", index, tool_calls=pieces, cached=first)
            first = False
        if choice.annotations or choice.logprobs is not None:
            yield LMDelta("", index, annotations=choice.annotations, logprobs=choice.logprobs, cached=first)
            first = False
        yield LMDelta("", index, choice.finish_reason or "stop")


def _plain(value: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that are not what they are anyway."""
    plain = {name: getattr(value, name) for name in names}
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_plain(call, _CALL) for call in plain["tool_calls"]]
    return {name: given for name, given in plain.items() if name in _NEEDED or given != names[name]}


def _choice(data: Any) -> LMChoice:
    known = _known(data, _CHOICE)
    calls = tuple(LMToolCall(**_known(call, _CALL)) for call in known.get("tool_calls", ()))
    return LMChoice(**{**known, "tool_calls": calls, "annotations": tuple(known.get("annotations", ()))})


def _known(data: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(data, dict) or not data.keys() <= names.keys():
        raise ValueError("another version has written this")
    return data


def _dump(data: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
