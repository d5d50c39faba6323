"""Stop sequences for servers that do not know them: an answer is read as a stream, and left at the first.

DSPy's own engine does the same. What the server counts comes with the end of a stream, so an answer that was
cut has no usage. Whether the server goes on writing, and charging, when its connection closes is its own.

Text that may be the beginning of a stop sequence waits, in the pieces in which it came, for the text behind
it; what comes in between waits with it, so that the order stays.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from dspex import _lm_failures as failures
from dspex.errors import ConfigError, LMTimeoutError
from dspex.events import LMDelta
from dspex.lm._answer import check_says_something
from dspex.lm._chunks import assemble
from dspex.lm._protocol import LMRequest, LMResponse, TextPiece

if TYPE_CHECKING:
    from dspex.lm._answer import Reject
    from dspex.lm._client import LM

__all__ = ["complete_cut", "pieces_cut", "stops_of"]


def stops_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The sequences at which an answer shall end.

    Raises:
        ConfigError: If they are none (`lm-setting`).
    """
    given = settings.get("stop") or ()
    stops = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Sequence) else (None,)
    if not all(isinstance(stop, str) for stop in stops):
        raise ConfigError(
            f"stop must be a text or a list of texts, not of type {type(given).__name__}", code="lm-setting"
        )
    return tuple(stop for stop in stops if stop)


async def complete_cut(lm: LM, request: LMRequest, stops: tuple[str, ...], reject: Reject) -> LMResponse:
    """The answer to a request for one generation, cut at the first stop sequence.

    The LM's `timeout` is for the whole of it, as for every answer that is no stream to its caller.
    """
    started = time.perf_counter()
    pieces: list[LMDelta | TextPiece] = []
    usage: Mapping[str, Any] = {}
    raw: Mapping[str, Any] = {}
    limit, is_late = asyncio.timeout(lm.timeout), False
    try:
        async with limit, aclosing(pieces_cut(lm, request, stops)) as given:
            async for piece in given:
                pieces += piece
    except TimeoutError:
        is_late = limit.expired()
        if not is_late:
            raise
    finally:
        del limit  # it holds the task, and by that what the task has raised
    if is_late:
        late = failures.from_failure(failures.TIMEOUT, base=lm.api_base, model=lm.model)
        late.timeout = lm.timeout
        if isinstance(late, LMTimeoutError):
            late.stage = "total"
        raise late
    waited = 0.0
    for each in pieces:
        if isinstance(each, LMDelta):
            waited += each.waited
            if each.usage:
                usage, raw = each.usage, each.raw
    (choice,) = assemble(pieces) or (_nothing(reject),)
    ended = choice.finish_reason == "stop"
    text = choice.text if choice.text or (ended and not choice.refusal) else None
    check_says_something(text, choice.tool_calls, choice.refusal, choice.finish_reason, reject)
    model = raw.get("model")
    return LMResponse(
        (choice,),
        model if isinstance(model, str) and model else lm.model.partition("/")[2],
        usage,
        time.perf_counter() - started - waited,
        waited,
        raw=raw,
    )


def _nothing(reject: Reject) -> NoReturn:
    reject("the stream ended without a choice", code="lm-no-choices")


async def pieces_cut(
    lm: LM, request: LMRequest, stops: tuple[str, ...]
) -> AsyncGenerator[list[LMDelta | TextPiece]]:
    """The stream that answers a request for one generation, up to the first stop sequence."""
    cutter = _Cutter(stops)
    asked = LMRequest(request.messages, {**request.settings, "stop": None}, request.timeout)
    async with aclosing(lm.stream_pieces(asked)) as given:
        async for piece in given:
            passed: list[LMDelta | TextPiece] = []
            for each in piece:
                passed += cutter.feed(each)
                if cutter.is_done:
                    break
            if passed:
                yield passed
            if cutter.is_done:
                return
    if rest := cutter.rest():
        yield rest


class _Cutter:
    """Cuts the text of one generation.

    Attributes:
        is_done: Whether it has come to a stop sequence.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.is_done = False
        self._stops = stops
        self._kept: deque[LMDelta | TextPiece] = deque()

    def feed(self, piece: LMDelta | TextPiece) -> list[LMDelta | TextPiece]:
        """What can be passed on, now that this has come."""
        self._kept.append(piece)
        if _text(piece):
            text = "".join(map(_text, self._kept))
            at = min((found for stop in self._stops if (found := text.find(stop)) >= 0), default=None)
            if at is not None:
                self.is_done = True
                return [*self._taken(at, cut=True), ("", 0, "stop")]
            return self._taken(len(text) - self._beginning(text))
        if _reason(piece) is not None:  # nothing can come that would complete a sequence
            return self.rest()
        return self.rest() if not any(map(_text, self._kept)) else []

    def rest(self) -> list[LMDelta | TextPiece]:
        """What has waited."""
        rest = list(self._kept)
        self._kept.clear()
        return rest

    def _beginning(self, text: str) -> int:
        """How many characters at the end of the text may begin a stop sequence."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        return next(
            (
                size
                for size in range(longest, 0, -1)
                if any(stop.startswith(text[-size:]) for stop in self._stops)
            ),
            0,
        )

    def _taken(self, count: int, *, cut: bool = False) -> list[LMDelta | TextPiece]:
        """The pieces within so many characters; with `cut` one may be cut itself."""
        taken: list[LMDelta | TextPiece] = []
        while self._kept and len(_text(self._kept[0])) <= count:
            count -= len(_text(self._kept[0]))
            taken.append(self._kept.popleft())
        if cut and count and self._kept:
            taken.append(_shortened(self._kept[0], count))
        return taken


def _text(piece: LMDelta | TextPiece) -> str:
    return piece[0] if isinstance(piece, tuple) else piece.text


def _reason(piece: LMDelta | TextPiece) -> str | None:
    return piece[2] if isinstance(piece, tuple) else piece.finish_reason


def _shortened(piece: LMDelta | TextPiece, count: int) -> LMDelta | TextPiece:
    """A piece with so many characters of its text, and those probabilities that are of whole tokens."""
    if isinstance(piece, tuple):
        return piece[0][:count], piece[1], None
    tokens: list[Any] = []
    left = count
    for token in (piece.logprobs or {}).get("content") or ():
        left -= len(str(token.get("token")))
        if left < 0:
            break
        tokens.append(token)
    return replace(piece, text=piece.text[:count], logprobs={"content": tokens} if tokens else None, raw={})
