"""`StepCache`: outcomes of steps, kept for equal inputs.

The key is what the step is and what it was given (see `_fingerprints.py`), so a step that was changed starts
anew. Only what ended well is kept, as the bytes that a store would have, so nobody changes another's value.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from dspex import wire
from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError
from dspex.pipelines._fingerprints import digest_of, dumped, fingerprint_of
from dspex.pipelines._plan import Node

__all__ = ["StepCache", "cache_of"]

MAX_BYTES: Final = 64 * 1024 * 1024


class StepCache:
    """Keeps outcomes of steps in memory, those used last; one may serve many steps and pipelines.

    Args:
        max_bytes: How much it keeps.
        ttl: Seconds that an outcome is kept; None for as long as there is room.
        clock: Gives the seconds that `ttl` goes by.

    Raises:
        ConfigError: If a limit is none (`bad-cache`, `bad-timeout`).

    Example:
        ```python
        cache = dspex.pipelines.StepCache(ttl=3600)
        dspex.step(search, outputs="docs", cache=cache)
        ```
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        *,
        ttl: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if type(max_bytes) is not int or max_bytes < 1:
            raise ConfigError(
                f"max_bytes must be a whole number from 1, not {shown(max_bytes)}",
                code="bad-cache",
                hint="write StepCache(64 * 1024 * 1024)",
            )
        self._max = max_bytes
        self._ttl = None if ttl is None else check_seconds(ttl, "ttl")
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._fingerprints: WeakKeyDictionary[Node, bytes] = WeakKeyDictionary()

    def key(self, node: Node, inputs: Mapping[str, Any]) -> bytes:
        """What the outcome of this step for these inputs is kept by."""
        fingerprint = self._fingerprints.get(node)
        if fingerprint is None:
            fingerprint = self._fingerprints[node] = fingerprint_of(node).encode()
        return fingerprint + digest_of(inputs, node.path)

    def get(self, key: bytes) -> Mapping[str, Any] | None:
        """The outcome that is kept by the key."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            data, until = found
            if self._clock() >= until:
                self._forget(key)
                return None
            self._kept.move_to_end(key)
        outcome: Mapping[str, Any] = wire.loads(data)
        return outcome

    def put(self, key: bytes, outcome: Mapping[str, Any], path: str = "the step") -> None:
        """Keep an outcome.

        Raises:
            WireError: If it cannot be written (`not-encodable`).
        """
        data = dumped(outcome, path, "gives")
        until = float("inf") if self._ttl is None else self._clock() + self._ttl
        with self._lock:
            if key in self._kept:
                self._forget(key)
            self._kept[key] = data, until
            self._size += len(data) + len(key)
            while self._size > self._max:
                self._forget(next(iter(self._kept)))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def _forget(self, key: bytes) -> None:
        data, _ = self._kept.pop(key)
        self._size -= len(data) + len(key)

    def __repr__(self) -> str:
        return f"StepCache({len(self._kept)} outcomes, {self._size} of {self._max} bytes)"


def cache_of(value: Any) -> StepCache | None:
    """What a step was given as `cache=`.

    Raises:
        ConfigError: If it is none (`bad-cache`, `bad-timeout`).
    """
    if value is False:
        return None
    if value is True:
        return StepCache()
    if isinstance(value, StepCache):
        return value
    if isinstance(value, int | float):
        return StepCache(ttl=value)
    raise ConfigError(
        f"cache must be True, seconds or a StepCache, not {shown(value)}",
        code="bad-cache",
        hint="write cache=True, or cache=3600",
    )
