"""How an LM answers from a cache, and asks through it.

::

    now      memory, disk; with an event loop only what is found without waiting
    answer   memory, disk, a call under way, at last the LM itself, whose answer is kept
    pieces   memory, disk, at last the LM's own stream, whose answer is kept when it has come to its end

A stream does not wait for a call under way, whose answer comes in one piece, and no call waits for a stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from dspex.errors import DeadlineExceeded
from dspex.events import LMDelta
from dspex.lm._cache_entry import deltas_of, fresh
from dspex.lm._chunks import assemble
from dspex.lm._protocol import LMRequest, LMResponse

if TYPE_CHECKING:
    from dspex.lm._cache import Cache
    from dspex.lm._client import LM
    from dspex.lm._protocol import TextPiece

__all__ = ["answer", "now", "pieces"]

_PAST: Final[Mapping[str, Any]] = {"cache": "off"}
"""Settings of a request that has been looked for already."""


def now(cache: Cache, key: bytes) -> LMResponse | None:
    """What is there already; None where it has to be waited for."""
    live = cache._state
    found = live.from_memory(key)
    if found is None and live.disk is not None:
        found = live.from_disk(key) if asyncio._get_running_loop() is None else live.glance(key)
    return found


async def answer(lm: LM, cache: Cache, key: bytes, request: LMRequest) -> LMResponse:
    """The answer to a request.

    Raises:
        LMError: As `LM.complete`, or as it raised it for the same request.
        DeadlineExceeded: If `request.timeout` ran out.
    """
    live = cache._state
    found = live.from_memory(key)
    if found is not None:
        return found
    begun = time.monotonic()
    left = request.timeout

    async def ask() -> LMResponse:
        # What led before may have been answered between the look into memory and this call's turn.
        found = live.from_memory(key) or await live.afrom_disk(key)
        if found is not None:
            return found
        live.count("misses")
        response = await _asked(lm, request, begun)
        live.keep(key, response)
        return response

    wait = lm.timeout if left is None else min(left, lm.timeout)
    response, joined = await live.flights.answer(key, ask, wait)
    if response is None:
        if left is not None and left <= lm.timeout:
            raise DeadlineExceeded(
                f"the caller's {left:g} s ran out while the same request to {lm.model} was under way",
                hint="give the call more time, or ask for fewer tokens",
                retryable=True,
                stage="lm",
                model=lm.model,
                timeout=left,
            )
        # The one that leads has had all the time that the LM grants one, and is about to end.
        live.count("misses")
        return await _asked(lm, request, begun)
    if not joined:
        return response
    live.count("joined")
    return LMResponse(fresh(response.choices), response.model, {}, time.monotonic() - begun, 0.0, True)


async def _asked(lm: LM, request: LMRequest, begun: float) -> LMResponse:
    return await lm.complete(_past(request, begun))


def _past(request: LMRequest, begun: float) -> LMRequest:
    left = request.timeout
    if left is not None:
        left -= time.monotonic() - begun
    return LMRequest(request.messages, {**request.settings, **_PAST}, left)


async def pieces(
    lm: LM, cache: Cache, key: bytes, request: LMRequest
) -> AsyncGenerator[list[LMDelta | TextPiece]]:
    """The answer to a request, as it comes; that of a hit in one piece.

    Raises:
        LMError: As `LM.stream`.
        DeadlineExceeded: If `request.timeout` ran out.
    """
    live = cache._state
    begun = time.monotonic()
    found = live.from_memory(key) or await live.afrom_disk(key)
    if found is not None:
        yield list(deltas_of(found))
        return
    kept: list[LMDelta | TextPiece] = []
    usage: Mapping[str, Any] = {}
    live.count("misses")
    async with aclosing(lm.stream_pieces(_past(request, begun))) as given:
        async for piece in given:
            kept += piece
            usage = next((each.usage for each in piece if isinstance(each, LMDelta) and each.usage), usage)
            yield piece
    choices = assemble(kept)
    wanted = request.settings.get("logprobs") or lm.settings.get("logprobs")
    # What a server leaves out of its streams would be missing from a whole answer too.
    if choices and not (wanted and any(choice.logprobs is None for choice in choices)):
        live.keep(key, LMResponse(choices, lm.model.partition("/")[2], usage))
