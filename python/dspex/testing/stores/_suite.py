"""What the tests of stores have in common: how a store is made, and how a test runs.

Every test is a method that pytest calls with a directory, and that runs a coroutine on a loop of its own. The
coroutine gets a `Stage`, which makes stores and other processes, and ends them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import pytest

from dspex.testing.stores._children import Child

__all__ = ["Clock", "Stage", "StoreSuite", "scenario"]

S = TypeVar("S")

TEST_SECONDS: Final = 120.0
"""How long a test may take; the machine may have much else to do."""
CLOSE_SECONDS: Final = 30.0

_LACKS: Final = {
    "many_processes": "no other process can open this store",
    "survives_kill": "what this store has does not outlive its process",
    "limits": "this store takes values of any size",
    "older_versions": "there is no older version of this store",
}


class StoreSuite:
    """What the suites of stores have in common. Derive from them, and say how your store is made.

    The class must be one that other processes can import: at the top of its module, not in a function.

    Attributes:
        many_processes: Whether other processes can open the same place; without, no races are tried.
        survives_kill: Whether what was acknowledged is there after a process was killed.
        limits: Whether the store has a `max_bytes`, above which it refuses a value.
        older_versions: Names of earlier versions of the store whose work it goes on with; see `write_older`.
    """

    many_processes: bool = True
    survives_kill: bool = True
    limits: bool = True
    older_versions: Sequence[str] = ()

    def make(
        self, place: Path, clock: Callable[[], float] | None = None, max_bytes: int | None = None
    ) -> Any:
        """Make a store; the tests close it. Other processes call this too, with `place` alone.

        Args:
            place: An empty directory that is one test's alone; or, for a store that keeps no files, a name
                that is. Stores that are made of the same place share what they keep.
            clock: Gives the seconds since 1970 that the store is to go by; None for its own.
            max_bytes: How large a value may be; None for what it has by default.
        """
        raise NotImplementedError(f"{type(self).__name__} says how its store is made: def make(...)")

    def write_older(self, place: Path, version: str) -> None:
        """Write what an earlier version of the store left.

        That is a run that was begun at 1,000,000 s by `create_run("r1", pipeline="qa", fingerprint=b"{}",
        inputs=b"in", owner="one", lease=30.0)`, and then the row `StepRow("a", "ok", b"d", b"f", b"out",
        0.5)`.

        Args:
            place: As that of `make`.
            version: One of `older_versions`.
        """
        raise NotImplementedError(f"{type(self).__name__} says what version {version} wrote")


class Clock:
    """The seconds since 1970, as a test says."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Stage(Generic[S]):
    """What one test works with.

    Attributes:
        clock: The clock of its stores.
        place: Where they are.
        store: A store of the test's.
    """

    def __init__(self, suite: StoreSuite, place: Path) -> None:
        self.suite = suite
        self.place = place
        self.clock = Clock()
        self._stores: list[Any] = []
        self._children: list[Child] = []
        self.store: S = self.make()

    def make(self, max_bytes: int | None = None) -> S:
        """Another store of the same place."""
        made = self.suite.make(self.place, clock=self.clock, max_bytes=max_bytes)
        self._stores.append(made)
        store: S = made
        return store

    def own_clock(self) -> S:
        """Another store of the same place that goes by its own clock, as those of other processes do."""
        made = self.suite.make(self.place)
        self._stores.append(made)
        store: S = made
        return store

    def reader(self) -> S:
        """A store that sees what is written, and that waits for nothing of the first if there can be two."""
        return self.make() if self.suite.many_processes else self.store

    def older(self) -> Iterator[S]:
        """A store of what each earlier version wrote."""
        for number, version in enumerate(self.suite.older_versions):
            place = self.place / f"older{number}"
            place.mkdir()
            self.suite.write_older(place, version)
            made = self.suite.make(place, clock=self.clock)
            self._stores.append(made)
            yield made

    async def child(self, what: str, *arguments: str) -> Child:
        """Another process that has opened the place, and waits for `go` with its work."""
        child = await Child.start(type(self.suite), self.place, what, *arguments)
        self._children.append(child)
        await child.expect("ready")
        return child

    async def children(self, count: int, what: str, *arguments: str) -> list[Child]:
        """So many of them; each is given a name of its own besides."""
        starting = (self.child(what, *arguments, f"p{number}") for number in range(count))
        return list(await asyncio.gather(*starting))

    async def close(self) -> None:
        """End the processes and close the stores."""
        for child in self._children:
            await child.end()
        for store in self._stores:
            await store.close()


def scenario(*needs: str) -> Callable[[Callable[[Any, Stage[S]], Awaitable[None]]], Callable[..., None]]:
    """Make a test of a coroutine function.

    Args:
        *needs: What the store must be able to do; one that cannot skips it.
    """

    def of(play: Callable[[Any, Stage[S]], Awaitable[None]]) -> Callable[..., None]:
        def test(self: StoreSuite, tmp_path: Path) -> None:
            for need in needs:
                if not getattr(self, need):
                    pytest.skip(_LACKS[need])
            asyncio.run(_played(self, play, tmp_path))

        # Not `functools.wraps`: pytest would ask for the arguments of what is wrapped.
        test.__name__ = getattr(play, "__name__", "test")
        test.__qualname__ = getattr(play, "__qualname__", "test")
        test.__doc__, test.__module__ = play.__doc__, play.__module__
        return test

    return of


async def _played(suite: StoreSuite, play: Callable[[Any, Stage[S]], Awaitable[None]], place: Path) -> None:
    stage: Stage[S] = Stage(suite, place)
    try:
        async with asyncio.timeout(TEST_SECONDS):
            await play(suite, stage)
    finally:
        async with asyncio.timeout(CLOSE_SECONDS):
            await stage.close()
