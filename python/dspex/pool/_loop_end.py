"""How a pool hears that its event loop ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["LoopEnd"]


class LoopEnd:
    """Has something done at the end of the running loop.

    asyncio tells nobody that a loop ends. It does close the asynchronous generators that have been begun on
    it (`loop.shutdown_asyncgens`, as `asyncio.run` sees to), after it has cancelled the tasks and while it
    still runs. So one generator is begun here, which never yields a second time.

    Args:
        leave: What is to be done.
    """

    def __init__(self, leave: Callable[[], Awaitable[None]]) -> None:
        self._leave: Callable[[], Awaitable[None]] | None = leave
        self._generator = self._wait()

    async def _wait(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            leave, self._leave = self._leave, None
            if leave is not None:
                await leave()

    async def watch(self) -> None:
        """Begin to wait for the end."""
        await anext(self._generator)

    async def dismiss(self) -> None:
        """Wait no longer; while the loop's end is being heard of, it changes nothing."""
        if self._leave is not None:
            self._leave = None
            await self._generator.aclose()
