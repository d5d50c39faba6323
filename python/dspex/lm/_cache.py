"""`Cache`: answers of language models that are given again to who asks the same.

::

    LM.complete, LM.stream --key--> memory --hit--> the answer, in the caller's thread
                                      | miss
                                      v
                                    disk, if there is one --hit--> into memory, the answer
                                      | miss
                                      v
                                    Flights: the first asks the server, the others wait for it
                                      | answer
                                      v
                                    into memory, and by a thread onto the disk

The memory is the core's (`rust/core/src/cache`), what it holds is `_cache_entry.py`'s, the file
`_cache_disk.py`'s, calls at once `_cache_flights.py`'s; how an LM uses it is `_cached.py`. Nothing in here
fails a call: what cannot be read is a miss, what cannot be written is left out.

After a fork each side has what was in memory, and opens the file anew.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, Self
from weakref import WeakSet, finalize

from dspex._core import ResponseCache
from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError
from dspex.lm._cache_entry import Kept, hit_of, kept_of, size_of, written
from dspex.lm._cache_flights import Flights

if TYPE_CHECKING:
    from dspex.lm._cache_disk import Disk
    from dspex.lm._protocol import LMResponse

__all__ = ["Cache", "CacheStats", "cache_of", "lookups"]

_LEAST_BYTES: Final = 1024 * 1024
_MOST_BYTES: Final = 2**50
CLEAR_SECONDS: Final = 10.0


class CacheStats(NamedTuple):
    """What a cache has done in this process, and what it has in memory.

    Attributes:
        memory: Requests that it answered from memory.
        disk: Requests that it answered from disk.
        joined: Requests that were answered by the same one, which was under way.
        misses: Requests for which the server was asked.
        entries: Answers in memory.
        bytes: Bytes that they take.
        evicted: Answers that left the memory because others needed the room.
    """

    memory: int
    disk: int
    joined: int
    misses: int
    entries: int
    bytes: int
    evicted: int


@dataclass(frozen=True)
class Cache:
    """Answers that are kept, and given again to who asks the same server the same.

    For `dspex.LM(..., cache=...)`.

    A value that may be shared by LMs, threads and event loops; all that share it have the same answers. An
    LM's `cache="memory"` or `cache="disk"` is one that all such LMs of the process share. See
    `docs/caching.md`.

    Attributes:
        store: `"memory"`, or `"disk"` for a file that outlives the process, with memory in front of it.
        max_bytes: The most memory that answers take; those that were longest unused go first.
        max_disk_bytes: The most that the file takes.
        ttl: Seconds after which an answer is no longer given; None for ever.
        directory: Where the file is; by default `DSPEX_CACHE_DIR`, else `dspex` in the user's directory for
            caches. Several processes may have the same.

    Raises:
        ConfigError: If a value is none (`bad-cache`).

    Example:
        ```python
        cache = dspex.lm.Cache("disk", ttl=86400, directory="/var/cache/qa")
        lm = dspex.LM("openai/gpt-4o-mini", cache=cache)
        ```
    """

    store: Literal["memory", "disk"] = "memory"
    _: KW_ONLY
    max_bytes: int = 128 * 1024 * 1024
    max_disk_bytes: int = 1024 * 1024 * 1024
    ttl: float | None = None
    directory: str | os.PathLike[str] | None = None

    is_cache: ClassVar = True

    def __post_init__(self) -> None:
        if self.store not in ("memory", "disk"):
            raise _bad(f'store must be "memory" or "disk", not {shown(self.store)}')
        for name in ("max_bytes", "max_disk_bytes"):
            value = getattr(self, name)
            if type(value) is not int or not _LEAST_BYTES <= value <= _MOST_BYTES:
                raise _bad(f"{name} must be a number of bytes from {_LEAST_BYTES:,}, not {shown(value)}")
        if self.ttl is not None:
            try:
                check_seconds(self.ttl, "ttl")
            except ConfigError as error:
                raise _bad(error.message) from None
        if self.directory is not None and (
            not isinstance(self.directory, str | os.PathLike) or not os.fspath(self.directory)
        ):
            raise _bad(f"directory must be a path, not {shown(self.directory)}")
        object.__setattr__(self, "_live", _Live(self))

    @property
    def _state(self) -> _Live:
        live: _Live = self.__dict__["_live"]
        return live

    def stats(self) -> CacheStats:
        """What it has done in this process, and what it has in memory."""
        live = self._state
        memory, evicted, entries, size = live.memory.info()
        counts = live.counts
        return CacheStats(memory, counts["disk"], counts["joined"], counts["misses"], entries, size, evicted)

    def clear(self) -> None:
        """Forget all answers, those on disk for all processes too. Where there is a file, it waits for it."""
        live = self._state
        live.memory.clear()
        if live.disk is not None:
            live.disk.clear(CLEAR_SECONDS)

    async def aclear(self) -> None:
        """The awaitable twin of `clear`."""
        import asyncio

        await asyncio.to_thread(self.clear)

    def close(self) -> None:
        """Write what is still to be written and close the file; it is opened again when it is needed.

        That happens by itself when the process ends.
        """
        if self._state.disk is not None:
            self._state.disk.close()

    async def aclose(self) -> None:
        """The awaitable twin of `close`."""
        import asyncio

        await asyncio.to_thread(self.close)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _made, (values,)


class _Live:
    """What a cache holds in this process."""

    def __init__(self, cache: Cache) -> None:
        self.memory = ResponseCache(cache.max_bytes)
        self.ttl = cache.ttl
        self.counts: Counter[str] = Counter()
        self.disk: Disk | None = None
        if cache.store == "disk":
            from dspex.lm._cache_disk import Disk
            from dspex.lm._cache_file import default_directory

            given = cache.directory
            directory = default_directory() if given is None else Path(given).absolute()
            self.disk = Disk(directory, cache.max_disk_bytes)
            finalize(self, self.disk.close)
        self._begin()
        _all.add(self)
        finalize(self, _gone_too, self.memory, self.counts).atexit = False

    def _begin(self) -> None:
        self.flights: Flights[LMResponse] = Flights()
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        """Count a request that the memory has not answered; the core counts the others."""
        with self._lock:
            self.counts[what] += 1

    def from_memory(self, key: bytes) -> LMResponse | None:
        """The answer in memory."""
        kept: Kept | bytes | None = self.memory.get(key)
        return None if kept is None else hit_of(kept)

    def from_disk(self, key: bytes) -> LMResponse | None:
        """The answer on disk, for a thread that has no event loop."""
        if self.disk is None:
            return None
        return self._taken(key, self.disk.read(key))

    def glance(self, key: bytes) -> LMResponse | None:
        """The answer on disk, for a thread with an event loop, if it is found without waiting."""
        if self.disk is None:
            return None
        found = self.disk.glance(key)
        return self._taken(key, found if isinstance(found, tuple) else None)

    async def afrom_disk(self, key: bytes) -> LMResponse | None:
        """The answer on disk."""
        if self.disk is None:
            return None
        return self._taken(key, await self.disk.aread(key))

    def _taken(self, key: bytes, found: tuple[bytes, float | None] | None) -> LMResponse | None:
        if found is None:
            return None
        raw, left = found
        kept = kept_of(raw)
        if kept is None:
            return None
        if self.ttl is not None:  # who wrote it may have given it longer
            left = self.ttl if left is None else min(left, self.ttl)
        self.count("disk")
        self.memory.put(key, kept, size_of(kept), left)
        return hit_of(kept)

    def keep(self, key: bytes, response: LMResponse) -> None:
        """Keep an answer, if it is one to be kept."""
        raw = written(response)
        if raw is None:
            return
        kept = kept_of(raw)
        if kept is None:
            return
        self.memory.put(key, kept, size_of(kept), self.ttl)
        if self.disk is not None:
            self.disk.put(key, raw, self.ttl)

    def forget(self, key: bytes) -> None:
        """Do not give this answer again."""
        self.memory.forget(key)
        if self.disk is not None:
            self.disk.forget(key)


_all: Final[WeakSet[_Live]] = WeakSet()
_shared: Final[dict[str, Cache]] = {}
_shared_lock = threading.Lock()
_gone: Final[Counter[str]] = Counter()
_gone_lock = threading.RLock()  # whoever holds it may be the one who is made to collect a cache


def cache_of(given: Any, own: Cache | None = None) -> Cache | None:
    """The cache that a setting says; None for none.

    Args:
        given: `"off"`, `"memory"`, `"disk"`, a `Cache`, False for none, True for the LM's own or else memory.
        own: That of the LM, where a call says it.

    Raises:
        ConfigError: If it says none (`bad-cache`).
    """
    if given is None or given is False or given == "off":
        return None
    if isinstance(given, Cache):
        return given
    if given is True:
        given = "memory" if own is None else own.store
    if given not in ("memory", "disk"):
        raise _bad(f'cache must be "off", "memory", "disk" or a Cache, not {shown(given)}')
    if own is not None and own.store == given:
        return own
    with _shared_lock:
        found = _shared.get(given)
        if found is None:
            found = _shared[given] = Cache(given)
    return found


def lookups() -> tuple[dict[str, int], int]:
    """What all caches of the process have answered, by where from, and the memory that they take."""
    with _gone_lock:
        totals = Counter(_gone)
    size = 0
    for live in list(_all):
        size += live.memory.info()[3]
        totals.update(_answered(live.memory, live.counts))
    return dict(totals), size


def _answered(memory: ResponseCache, counts: Counter[str]) -> dict[str, int]:
    return {"memory": memory.info()[0], **{name: counts[name] for name in ("disk", "joined", "misses")}}


def _gone_too(memory: ResponseCache, counts: Counter[str]) -> None:
    """Remember what a cache has answered that is no more: a counter only grows."""
    with _gone_lock:
        _gone.update(_answered(memory, counts))


def _made(values: dict[str, Any]) -> Cache:
    return Cache(**values)


def _bad(message: str) -> ConfigError:
    return ConfigError(message, code="bad-cache", hint="see dspex.lm.Cache")


def _after_fork_in_child() -> None:
    global _shared_lock, _gone_lock
    _shared_lock, _gone_lock = threading.Lock(), threading.RLock()
    for live in list(_all):
        live._begin()  # calls under way, and whoever held a lock, are the parent's


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
