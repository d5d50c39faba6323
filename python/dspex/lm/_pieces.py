"""Streams in pieces: what came together over the connection, in one list; see `LanguageModel`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from dspex.events import LMDelta

if TYPE_CHECKING:
    from dspex.lm._protocol import LanguageModel, LMRequest, TextPiece

__all__ = ["deltas_of", "pieces_of", "put_wait"]


async def pieces_of(lm: LanguageModel, request: LMRequest) -> AsyncGenerator[list[LMDelta | TextPiece]]:
    """The stream of any language model in pieces; a model that has none gives each delta by itself."""
    pieces = getattr(lm, "stream_pieces", None)
    if pieces is not None:
        async with aclosing(pieces(request)) as given:
            async for piece in given:
                yield piece
        return
    async with aclosing(lm.stream(request)) as deltas:
        async for delta in deltas:
            yield [delta]


async def deltas_of(pieces: AsyncGenerator[list[LMDelta | TextPiece]]) -> AsyncGenerator[LMDelta]:
    """The deltas of a stream in pieces, one after the other."""
    async with aclosing(pieces):
        async for piece in pieces:
            for item in piece:
                yield LMDelta(*item) if isinstance(item, tuple) else item


def put_wait(piece: list[LMDelta | TextPiece], seconds: float) -> None:
    """Say in the first delta of a stream that its call has waited for so long."""
    first = LMDelta(*piece[0]) if isinstance(piece[0], tuple) else piece[0]
    piece[0] = replace(first, waited=first.waited + seconds)
