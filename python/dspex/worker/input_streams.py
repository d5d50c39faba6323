"""The worker's end of an input stream: an iterator whose parts come from the service, as the work takes them.

See `dspex.pool._input_streams` for the other end and the drawing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final, Self

from dspex.errors import WireError
from dspex.protocol.input_streams import host_name
from dspex.worker.host import call_host, call_host_sync

__all__ = ["InputStream", "input_streams_of"]

_MOST: Final = 64
"""Parts asked for at once: enough that the way there and back is shared, few enough to hold."""


def input_streams_of(names: Iterable[str]) -> dict[str, InputStream]:
    """The arguments of a request that are input streams."""
    return {name: InputStream(name) for name in names}


class InputStream(AsyncIterator[Any], Iterator[Any]):
    """Parts from the service: `async for` in async work, `for` in work that runs in a thread.

    It is for one reader. It ends where the service's iterator does; what that raised is raised here, as far
    as it is of `dspex.errors`, else as `RemoteError`. The service's iterator is closed with the call, or
    sooner by `aclose` or `close`.

    Args:
        name: The stream's name.
    """

    def __init__(self, name: str) -> None:
        self._host_name = host_name(name)
        self._parts: deque[Any] = deque()
        self._ended = False
        self._most = _MOST

    async def __anext__(self) -> Any:
        if not self._parts and not self._ended:
            try:
                self._took(await call_host(self._host_name, self._most))
            except WireError:
                if self._most == 1:
                    raise
                self._most = 1
                self._took(await call_host(self._host_name, 1, True))
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.popleft()

    def __next__(self) -> Any:
        if not self._parts and not self._ended:
            try:
                self._took(call_host_sync(self._host_name, self._most))
            except WireError:
                if self._most == 1:
                    raise
                self._most = 1
                self._took(call_host_sync(self._host_name, 1, True))
        if not self._parts:
            raise StopIteration
        return self._parts.popleft()

    async def aclose(self) -> None:
        """Want no more; the service closes its iterator."""
        if not self._ended:
            self._took(await call_host(self._host_name, 0))
        self._parts.clear()

    def close(self) -> None:
        """The same from a thread."""
        if not self._ended:
            self._took(call_host_sync(self._host_name, 0))
        self._parts.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _took(self, answer: tuple[list[Any], bool]) -> None:
        parts, self._ended = answer
        self._parts.extend(parts)
