"""Several generations as DSPy's own engine asks for them: a request for each, one after the other.

The whole has the caller's time, each request the LM's. The first failure is the call's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from dspex.events import LMDelta
from dspex.lm._protocol import LanguageModel, LMRequest, LMResponse, TextPiece

__all__ = ["complete_each", "pieces_of_each"]


async def complete_each(lm: LanguageModel, request: LMRequest, count: int) -> LMResponse:
    """The answers to so many requests as one, with their tokens together."""
    ask = _Asking(request)
    answers = [await lm.complete(ask.next()) for _ in range(count)]
    usage: dict[str, Any] = {}
    for answer in answers:
        usage = _added(usage, answer.usage)
    return replace(
        answers[0],
        choices=tuple(choice for answer in answers for choice in answer.choices),
        usage=usage,
        seconds=sum(answer.seconds for answer in answers),
        waited=sum(answer.waited for answer in answers),
    )


async def pieces_of_each(
    lm: LanguageModel, request: LMRequest, count: int
) -> AsyncGenerator[list[LMDelta | TextPiece]]:
    """The answers to so many requests, one behind the other, and at last their tokens together."""
    ask = _Asking(request)
    usage: dict[str, Any] = {}
    for index in range(count):
        async with aclosing(lm.stream(ask.next())) as deltas:
            async for delta in deltas:
                if delta.usage:
                    usage = _added(usage, delta.usage)
                else:
                    yield [replace(delta, index=index)]
    if usage:
        yield [LMDelta("", usage=usage)]


class _Asking:
    """Makes the requests for one generation each, with what is left of the caller's time."""

    def __init__(self, request: LMRequest) -> None:
        self._request = replace(request, settings={**request.settings, "n": 1})
        self._now = asyncio.get_running_loop().time
        self._until = None if request.timeout is None else self._now() + request.timeout

    def next(self) -> LMRequest:
        if self._until is None:
            return self._request
        return replace(self._request, timeout=self._until - self._now())


def _added(total: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Two counts of tokens together, details included; what is no number is the newer one's."""
    summed = dict(total)
    for name, value in more.items():
        old = summed.get(name)
        if isinstance(value, Mapping):
            summed[name] = _added(old if isinstance(old, Mapping) else {}, value)
        elif _is_number(value) and _is_number(old):
            summed[name] = old + value
        elif value is not None or name not in summed:
            summed[name] = value
    return summed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
