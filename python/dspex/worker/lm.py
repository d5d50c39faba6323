"""The worker's language models: real `dspy.LM` objects, and a watch on the time spent in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import dspy
from dspy.utils.callback import BaseCallback

from dspex.errors import ConfigError
from dspex.wire import MessagePack

__all__ = ["LMWatch", "Models"]

_MAX_MODELS: Final = 64
"""LM objects kept: each holds a connection pool. Calls with ever new settings must not fill the memory."""


class Models:
    """The LMs of this worker, one object per settings, so that connections are kept.

    Args:
        default: Settings of the pool's LM, or None: `model` and anything `dspy.LM` takes.
    """

    def __init__(self, default: Mapping[str, Any] | None) -> None:
        self._default = dict(default or {})
        self._made: dict[bytes, dspy.LM] = {}
        self._codec = MessagePack()
        self.secrets: tuple[str, ...] = ()
        self._remember_secret(self._default)

    def get(self, override: Mapping[str, Any] | None = None) -> dspy.LM:
        """The LM for a call.

        Args:
            override: Settings of this call that differ from the pool's.

        Raises:
            ConfigError: If neither the pool nor the call names a model, or DSPy refuses the settings.
        """
        settings = {**self._default, **(override or {})}
        if not settings.get("model"):
            raise ConfigError(
                "the worker has no language model", code="no-lm", hint="give the pool or the runtime an lm="
            )
        key = self._codec.encode(settings)
        lm = self._made.get(key)
        if lm is None:
            self._remember_secret(settings)
            if len(self._made) >= _MAX_MODELS:
                self._made.pop(next(iter(self._made)))
            # dspex decides about retries and caching, in one place for both routes.
            given = {name: value for name, value in settings.items() if value is not None}
            try:
                lm = dspy.LM(**{"cache": False, "num_retries": 0, **given})
            except (TypeError, ValueError) as err:
                raise ConfigError(f"DSPy refuses the LM's settings: {err}", code="bad-lm") from err
            self._made[key] = lm
        return lm

    def _remember_secret(self, settings: Mapping[str, Any]) -> None:
        key = settings.get("api_key")
        if isinstance(key, str) and len(key) >= 8 and key not in self.secrets:
            self.secrets = (*self.secrets[-_MAX_MODELS:], key)


class LMWatch(BaseCallback):  # type: ignore[misc]  # DSPy has no type hints
    """Measures how long one request is inside the LM client, waiting included.

    Calls that overlap count once: it is the time in which at least one was open. It is one of the callbacks
    of that request's `dspy.context`.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._open = 0
        self._since = 0.0
        self._lock = threading.Lock()  # a program may call its LM from threads

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """DSPy enters an LM."""
        with self._lock:
            if self._open == 0:
                self._since = time.perf_counter()
            self._open += 1

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """DSPy leaves an LM, with or without an answer."""
        with self._lock:
            self._open -= 1
            if self._open == 0:
                self.seconds += time.perf_counter() - self._since
