"""Other processes that use a store: they say lines, wait for one, and are killed."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from pathlib import Path
from typing import Final

__all__ = ["Child"]

LINE_SECONDS: Final = 60.0


class Child:
    """A process of `python -m dspex.testing.stores`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, suite: type, place: Path, what: str, *arguments: str) -> Child:
        """Start one that makes its store as `suite` says.

        Args:
            suite: A class at the top of a module.
            place: Of the store.
            what: Its work, by the names of `__main__.py`.
            *arguments: Of the work.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dspex.testing.stores"),
            *(f"{suite.__module__}:{suite.__qualname__}", inspect.getfile(suite), str(place), what),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return cls(process)

    async def line(self) -> str:
        """The next line that it says; empty at its end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LINE_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()

    async def expect(self, line: str) -> None:
        """Read on until it says this line."""
        while (said := await self.line()) != line:
            if not said:
                raise AssertionError(f"a process of the test ended and had not said {line!r}; see its errors")

    async def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        await self._process.stdin.drain()

    async def rest(self) -> list[str]:
        """All lines up to its end."""
        lines = []
        while said := await self.line():
            lines.append(said)
        async with asyncio.timeout(LINE_SECONDS):
            await self._process.wait()
        return lines

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.returncode is not None

    async def kill(self) -> list[str]:
        """Kill it with no farewell; returns the lines that it had said and nobody had read."""
        self._process.kill()
        return await self.rest()

    async def killed(self, before: int, at: int | None = None) -> int:
        """Kill a writer; returns the number of the last write that was acknowledged to it.

        Args:
            before: What is returned if none was.
            at: Kill it as soon as it says that the write of this number was acknowledged; None for now.
        """
        if at is not None:
            await self.expect(f"={at}")
        said = [line for line in await self.kill() if line.startswith("=")]
        return int(said[-1][1:]) if said else before if at is None else at

    async def end(self) -> None:
        """Have it gone, whatever it is at."""
        if self._process.returncode is None:
            await self.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
