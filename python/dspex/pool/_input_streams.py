"""Iterators of the service that a call's work reads from: input that comes in parts.

::

    source --draws--> [ at most WINDOW parts ] --take--> worker's part of it --next--> the work
      stops when the parts are WINDOW ahead       |
                                                  a call back, one for as many parts as there are

The worker asks for parts when it has none left, and is given what there is, at least one. So a slow work
stops its source, a slow source delays nobody but its work, and many small parts share a round trip. Parts
that cannot be sent together (too large, or one of them has no form on the wire) are asked for again, one by
one, so that the mistake is found at its place. An input stream adds no kind of frame: it is a host call whose
name a user cannot give, and has its deadline, errors and cancellation from there.

A source belongs to its call from the moment it is given: it is closed when the work has enough of it, or at
the end of the call, however that comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dspex._read_ahead import ReadAhead
from dspex._threads import iterate_in_threads
from dspex.errors import ConfigError
from dspex.protocol.input_streams import host_name
from dspex.protocol.requests import Request

if TYPE_CHECKING:
    from dspex.pool._options import CallOptions

__all__ = ["Source", "streaming_inputs"]

Source = AsyncIterable[Any] | Iterable[Any]

R = TypeVar("R", bound=Request)

_WINDOW: Final = 32
"""Parts drawn from a source before the work asks for them."""


@contextlib.asynccontextmanager
async def streaming_inputs(
    request: R, options: CallOptions, patience: float
) -> AsyncGenerator[tuple[R, CallOptions], None]:
    """Give sources to a call that is made inside; gives the request and the options to make it with.

    Args:
        request: What is asked for.
        options: The call's, with the sources by the names of the arguments under which the work finds them.
        patience: Seconds to wait at the end for sources to close; one that takes longer closes behind it.

    Raises:
        ConfigError: If one of them cannot be iterated, or the request has no arguments (`bad-input-stream`).
    """
    sources = options.input_streams
    if not isinstance(sources, Mapping):
        what = "input_streams are iterators by the names of their arguments"
        raise ConfigError(what, code="bad-input-stream")
    reading = request.with_input_streams(list(sources))
    streams = {name: _InputStream(_iterate(name, source)) for name, source in sources.items()}
    takers = {host_name(name): stream.take for name, stream in streams.items()}
    functions = {**(options.host_functions or {}), **takers}
    try:
        yield reading, replace(options, input_streams=None, host_functions=functions, idempotent=False)
    finally:
        closing = [asyncio.ensure_future(stream.close()) for stream in streams.values()]
        _closing.update(closing)
        for task in closing:
            task.add_done_callback(_closing.discard)
        await asyncio.wait(closing, timeout=patience)


_closing: Final[set[asyncio.Future[None]]] = set()
"""Of sources that are being closed: a loop holds its tasks by no more than a weak reference."""


class _InputStream:
    """One source, and what the work was given of it last."""

    def __init__(self, source: AsyncIterator[Any]) -> None:
        self._ahead = ReadAhead(source, _WINDOW)
        self._given: list[Any] = []

    async def take(self, most: int, again: bool = False) -> tuple[list[Any], bool]:
        """Give the parts there are, at least one unless there are no more; and whether there are no more.

        Args:
            most: No more parts than this; 0 closes the stream.
            again: What was given last did not arrive; begin with that.

        Raises:
            Exception: What the source raised, after the parts before it.
        """
        if most == 0:
            await self.close()
            return [], True
        if again:
            self._ahead.give_back(self._given)
        parts = self._given = await self._ahead.take(most)
        return parts, self._ahead.finished

    async def close(self) -> None:
        """Read no more and close the source. Safe to call twice."""
        await self._ahead.close()


def _iterate(name: str, source: Source) -> AsyncIterator[Any]:
    if isinstance(source, AsyncIterable):
        return aiter(source)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return _at_once(source)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes):
        return iterate_in_threads(source)
    raise ConfigError(
        f"the input stream {name!r} is a {type(source).__name__}, which cannot be iterated",
        code="bad-input-stream",
        hint="give an async iterator, an iterator or a list",
    )


async def _at_once(source: Sequence[Any]) -> AsyncGenerator[Any, None]:
    for part in source:
        yield part
