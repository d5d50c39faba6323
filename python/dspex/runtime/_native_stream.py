"""A reply that is read while the LM writes it, and told to the stream of its module.

::

    LM.stream --deltas--> first generation --> ReplyStream.feed --events--> sink (waits for its reader)
                      +-> the others, kept as text

What comes out is the response that the same call would have had whole. While the sink waits, nothing is read
from the connection, and the server waits too.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from dspex.lm import LMChoice, LMResponse, assemble
from dspex.lm._pieces import pieces_of
from dspex.runtime._replies import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex._core import Plan, ReplyStream
    from dspex.events import LMDelta, ReplyEvent
    from dspex.lm import LanguageModel, LMRequest, TextPiece
    from dspex.router import ReplySink

__all__ = ["StreamedReply", "stream_reply"]


class StreamedReply(NamedTuple):
    """What has been told: the first reply, and the seconds until its first text came."""

    reply: ReplyStream
    first_text: float | None


async def stream_reply(
    lm: LanguageModel, request: LMRequest, plan: Plan, sink: ReplySink
) -> tuple[LMResponse, StreamedReply]:
    """Ask the LM, tell the events of the first generation as it comes, and give the whole answer.

    Raises:
        LMError: As `LanguageModel.stream`.
        DeadlineExceeded: If the request's time ran out, while the LM or the reader was waited for.
        ReplyError: If a validator raises; that the reply cannot be read otherwise shows when it is read.
    """
    deadline = asyncio.get_running_loop().time() + (request.timeout or 0)
    begun = time.perf_counter()
    reply = plan.stream(sink.predictor, sink.turn)
    first_text: float | None = None
    kept: list[LMDelta | TextPiece] = []
    texts: list[str] = []
    usage: Mapping[str, Any] = {}
    waited = 0.0
    cached = False
    async with aclosing(pieces_of(lm, request)) as pieces:
        async for piece in pieces:
            events: list[ReplyEvent] = []
            for delta in piece:
                kept.append(delta)
                if isinstance(delta, tuple):
                    text, index, _ = delta
                else:
                    text, index = delta.text, delta.index
                    waited = delta.waited or waited
                    cached = cached or delta.cached
                    usage = delta.usage or usage
                if not text or index:
                    continue
                texts.append(text)
                if first_text is None:
                    first_text = time.perf_counter() - begun
                try:
                    events += reply.feed(text)
                except Exception:  # of a validator, as below; to look for it with each piece would cost more
                    if events:
                        await sink.put(events, deadline)
                    with reading("".join(texts)):
                        raise
            if events and not sink.put_now(events):
                await sink.put(events, deadline)
    with reading("".join(texts)):
        last = reply.finish()
    if last:
        await sink.put(last, deadline)
    choices = assemble(kept) or (LMChoice(""),)
    response = LMResponse(choices, "", usage, time.perf_counter() - begun, waited, cached)
    return response, StreamedReply(reply, first_text)
