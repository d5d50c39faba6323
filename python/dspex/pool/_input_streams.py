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
from collections import deque
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

from dspex.errors import ConfigError
from dspex.pool._host_calls import in_host_thread
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
    """Lend sources to a call that is made inside; gives the request and the options to make it with.

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
    """One source, and the parts drawn from it that the work has not asked for yet."""

    def __init__(self, source: AsyncIterator[Any]) -> None:
        self._source = source
        self._parts: deque[Any] = deque()
        self._given: list[Any] = []  # at the last asking: it may not have arrived
        self._room = asyncio.Semaphore(_WINDOW)
        self._changed = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None
        self._drawing: asyncio.Task[None] | None = None

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
            self._parts.extendleft(reversed(self._given))
        if self._drawing is None and not self._ended:
            self._drawing = asyncio.create_task(self._draw())  # not before somebody wants something
        while not (self._parts or self._ended):
            self._changed.clear()
            await self._changed.wait()
        parts = self._given = [self._parts.popleft() for _ in range(min(most, len(self._parts)))]
        if not again:
            for _ in parts:
                self._room.release()
        if not parts and self._error is not None:
            raise self._error
        return parts, self._ended and not self._parts and self._error is None

    async def close(self) -> None:
        """Draw no more and close the source. Safe to call twice."""
        self._ended = True
        self._changed.set()
        if self._drawing is not None:
            self._drawing.cancel()
            await asyncio.wait([self._drawing])
        # Both hold this stream, the one by its traceback, the other by the call that its context knows of.
        self._error = self._drawing = None
        aclose = getattr(self._source, "aclose", None)
        if aclose is not None:
            # What a source does when it is closed is its own affair: the call has its answer already.
            with contextlib.suppress(Exception):
                await aclose()

    async def _draw(self) -> None:
        try:
            while True:
                await self._room.acquire()
                self._parts.append(await anext(self._source))
                self._changed.set()
        except StopAsyncIteration:
            pass
        except Exception as err:  # noqa: BLE001 - whatever it is, the work hears of it
            self._error = err
        finally:
            self._ended = True
            self._changed.set()


def _iterate(name: str, source: Source) -> AsyncIterator[Any]:
    if isinstance(source, AsyncIterable):
        return aiter(source)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return _at_once(source)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes):
        return _in_threads(source)
    raise ConfigError(
        f"the input stream {name!r} is a {type(source).__name__}, which cannot be iterated",
        code="bad-input-stream",
        hint="give an async iterator, an iterator or a list",
    )


async def _at_once(source: Sequence[Any]) -> AsyncGenerator[Any, None]:
    for part in source:
        yield part


async def _in_threads(source: Iterable[Any]) -> AsyncGenerator[Any, None]:
    """Each step in a thread: it may block, as reading a file does."""
    iterator = iter(source)
    end = object()
    step: asyncio.Future[Any] | None = None
    try:
        while True:
            step = asyncio.ensure_future(in_host_thread(next, iterator, end))
            part = await asyncio.shield(step)
            if part is end:
                return
            yield part
    finally:
        if step is not None and not step.done():
            await asyncio.wait([step])  # what a thread is in cannot be closed under it
        close = getattr(iterator, "close", None)
        if close is not None:
            await in_host_thread(close)
