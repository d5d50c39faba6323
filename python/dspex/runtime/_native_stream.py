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
from dspex.runtime._replies import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex._core import Plan, ReplyStream
    from dspex.events import LMDelta
    from dspex.lm import LanguageModel, LMRequest
    from dspex.router import Sink

__all__ = ["Told", "stream_reply"]


class Told(NamedTuple):
    """What has been told: the first reply, and when its first text came, by `time.perf_counter`."""

    reply: ReplyStream
    first_text: float | None


async def stream_reply(
    lm: LanguageModel, request: LMRequest, plan: Plan, sink: Sink
) -> tuple[LMResponse, Told]:
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
    kept: list[LMDelta] = []
    texts: list[str] = []
    usage: Mapping[str, Any] = {}
    async with aclosing(lm.stream(request)) as deltas:
        async for delta in deltas:
            kept.append(delta)
            if delta.usage:
                usage = delta.usage
            text = delta.text
            if not text or delta.index:
                continue
            texts.append(text)
            if first_text is None:
                first_text = time.perf_counter()
            try:
                events = reply.feed(text)
            except Exception:  # of a validator, as below; to look for it with each piece would cost more
                with reading("".join(texts)):
                    raise
            if events:
                await sink.put(events, deadline)
    with reading("".join(texts)):
        events = reply.finish()
    if events:
        await sink.put(events, deadline)
    choices = assemble(kept) or (LMChoice(""),)
    return LMResponse(choices, "", usage, time.perf_counter() - begun), Told(reply, first_text)
