"""Chat completions as bytes: a stream, and the answer that its deltas make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from dspex.events import LMDelta, LMToolCallDelta
from dspex.lm._answer import (
    Reject,
    annotations_of,
    kind_of,
    object_of,
    reason_of,
    reasoning_of,
    reject_few,
    string_of,
    text_of,
)
from dspex.lm._protocol import LMChoice, LMToolCall, TextPiece
from dspex.lm._stream_reader import StreamReader

if TYPE_CHECKING:
    from dspex._core import EventReader
    from dspex.lm._server import Server

__all__ = ["ChunkReader", "assemble", "decode_chunk"]


class ChunkReader(StreamReader["str | TextPiece"]):
    """Reads the body of a stream.

    Args:
        limit: The most bytes that one event may have.
        wanted: How many generations were asked for.
        server: Raises what is wrong with the answer.
    """

    def __init__(self, limit: int, wanted: int, server: Server) -> None:
        super().__init__(limit, server)
        self._wanted = wanted
        self._unfinished = set(range(wanted))
        self._missing = set(range(wanted))
        self._is_empty = True

    def end(self) -> None:
        """See `StreamReader`. Some servers leave it out to say that the stream is over."""
        if self._unfinished:
            raise self._server.cut()

    def _events(self, reader: EventReader, chunk: bytes) -> tuple[Sequence[str | TextPiece], bool]:
        return reader.feed_chat(chunk)

    def _read(self, event: str | TextPiece, said: list[LMDelta | TextPiece]) -> None:
        if isinstance(event, tuple):
            if event[0] or event[2] is not None:
                self._seen(*event)
                said.append(event)
        elif event == "[DONE]":
            self._check_whole()
            self.done = True
        else:
            for delta in decode_chunk(event, self._server.reject, self._server.failed_midway):
                if delta.usage:
                    self.usage = delta.usage
                elif _of_a_generation(delta):
                    self._seen(delta.text, delta.index, delta.finish_reason)
                said.append(delta)

    def _seen(self, text: str, index: int, reason: str | None) -> None:
        self._is_empty = False
        self._missing.discard(index)
        if reason is not None:
            self._unfinished.discard(index)
        self.has_text = self.has_text or bool(text)

    def _check_whole(self) -> None:
        if self._is_empty:
            self._server.reject("the stream ended without a choice", code="lm-no-choices")
        if self._missing:
            reject_few(self._wanted, self._wanted - len(self._missing), self._server.reject)


def decode_chunk(
    event: str, reject: Reject, failed: Callable[[Mapping[str, Any]], NoReturn]
) -> Iterator[LMDelta]:
    """The deltas in one event of a stream; `failed` is called with an event that tells of an error."""
    data = object_of(event, reject)
    if data.get("error"):
        failed(data)
    choices = data.get("choices") or ()
    if not isinstance(choices, list | tuple):
        reject(f"the choices of an event are {kind_of(choices)}")
    for choice in choices:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            reject("a choice of the stream has no delta")
        index = choice.get("index", 0)
        text, reason = text_of(delta.get("content")) or "", reason_of(choice)
        logprobs = choice.get("logprobs")
        said = LMDelta(
            text,
            index if isinstance(index, int) else 0,
            reason,
            tool_calls=_call_pieces(delta.get("tool_calls"), reject),
            reasoning=reasoning_of(delta) or "",
            refusal=string_of(delta.get("refusal")) or "",
            logprobs=logprobs if isinstance(logprobs, dict) else None,
            annotations=annotations_of(delta),
            raw=data,
        )
        if _of_a_generation(said):
            yield said
    usage = data.get("usage")
    if isinstance(usage, dict):
        yield LMDelta("", usage=usage, raw=data)
    elif not choices:  # what it says of no generation, such as a filter's findings in the prompt
        yield LMDelta("", raw=data)


def _of_a_generation(delta: LMDelta) -> bool:
    """Whether a delta says anything of a generation; else it is about the answer as a whole."""
    return bool(
        delta.text
        or delta.finish_reason is not None
        or delta.tool_calls
        or delta.reasoning
        or delta.refusal
        or delta.logprobs is not None
        or delta.annotations
    )


def _call_pieces(listed: Any, reject: Reject) -> tuple[LMToolCallDelta, ...]:
    if not listed:
        return ()
    if not isinstance(listed, list) or not all(isinstance(piece, dict) for piece in listed):
        reject("tool_calls in the stream is no list of pieces", code="lm-tool-calls")
    pieces = []
    for place, piece in enumerate(listed):
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        at = piece.get("index")
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # a server that sends the whole of it at once
            arguments = json.dumps(arguments, ensure_ascii=False)
        pieces.append(
            LMToolCallDelta(
                at if type(at) is int else place,
                string_of(piece.get("id")),
                string_of(function.get("name")),
                arguments if isinstance(arguments, str) else "",
            )
        )
    return tuple(pieces)


def assemble(deltas: Iterable[LMDelta | TextPiece]) -> tuple[LMChoice, ...]:
    """The generations that the deltas of a stream make, in the order of their indices.

    A piece of a call that never got a name is left out.
    """
    rows: dict[int, _Row] = {}
    for delta in deltas:
        if isinstance(delta, tuple):
            text, index, reason = delta
            row = rows.setdefault(index, _Row())
            row.text.append(text)
            row.reason = reason or row.reason
            continue
        if (delta.usage or delta.raw) and not _of_a_generation(delta):
            continue
        row = rows.setdefault(delta.index, _Row())
        row.text.append(delta.text)
        row.reasoning.append(delta.reasoning)
        row.reason = delta.finish_reason or row.reason
        row.refusal.append(delta.refusal)
        row.annotations += delta.annotations
        if delta.logprobs is not None:
            row.add_logprobs(delta.logprobs)
        for piece in delta.tool_calls:
            call = row.calls.setdefault(piece.index, _Call())
            call.id = call.id or piece.id
            call.name = call.name or piece.name
            call.arguments.append(piece.arguments)
    return tuple(rows[index].choice() for index in sorted(rows))


class _Call:
    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments: list[str] = []


class _Row:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.reason: str | None = None
        self.calls: dict[int, _Call] = {}
        self.refusal: list[str] = []
        self.annotations: list[Mapping[str, Any]] = []
        self.logprobs: dict[str, Any] | None = None

    def add_logprobs(self, more: Mapping[str, Any]) -> None:
        """Put the tokens of a piece (`content`, `refusal`) behind those before."""
        known = self.logprobs = {} if self.logprobs is None else self.logprobs
        for name, value in more.items():
            old = known.get(name)
            known[name] = (
                [*old, *value] if isinstance(old, list) and isinstance(value, list) else value or old
            )

    def choice(self) -> LMChoice:
        calls = (self.calls[at] for at in sorted(self.calls))
        return LMChoice(
            "".join(self.text),
            self.reason,
            tuple(LMToolCall(c.id, c.name, "".join(c.arguments) or "{}") for c in calls if c.name),
            "".join(self.reasoning) or None,
            "".join(self.refusal) or None,
            self.logprobs,
            tuple(self.annotations),
        )
