"""The worker's language models: real `dspy.LM` objects, and a watch on the time spent in them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import LMError

from dspex._settings import MAX_RESPONSE_BYTES
from dspex.errors import ConfigError
from dspex.protocol.secrets import secrets_in
from dspex.wire._msgpack import MessagePack
from dspex.worker.stages import StageRows

__all__ = ["MOST", "LMWatch", "Models"]

MOST: Final[ContextVar[int]] = ContextVar("dspex_most", default=MAX_RESPONSE_BYTES)
"""The most bytes of an answer to the running call of an LM, after it is unpacked; in a stream of a line."""

_MAX_MODELS: Final = 64
"""LM objects kept: each holds a connection pool. Calls with ever new settings must not fill the memory."""


class Models:
    """The LMs of this worker, one object per settings, so that connections are kept.

    Whoever gets an LM gives it back. When there are too many, the least recently used one is dropped, and
    closed when its last user has given it back: its connections are descriptors of this process, and DSPy
    closes none by itself.

    Args:
        default: Settings of the pool's LM, or None: `model` and anything `dspy.LM` takes.
    """

    def __init__(self, default: Mapping[str, Any] | None) -> None:
        self._default = dict(default or {})
        self._made: OrderedDict[bytes, dspy.LM] = OrderedDict()
        self._lent: Counter[int] = Counter()  # by the object's id: it is held as long as it is here
        self._leaving: dict[int, dspy.LM] = {}
        self._closing: set[asyncio.Future[None]] = set()
        self._codec = MessagePack()
        self.secrets: tuple[str, ...] = ()
        self.remember_secrets(self._default)

    def get(self, override: Mapping[str, Any] | None = None) -> dspy.LM:
        """The LM for a call, until `give_back`.

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
            lm = self._made[key] = self._make(settings)
            if len(self._made) > _MAX_MODELS:
                self._let_go(self._made.popitem(last=False)[1])
        else:
            self._made.move_to_end(key)
        self._lent[id(lm)] += 1
        return lm

    def named(self, override: Mapping[str, Any] | None = None) -> bool:
        """Whether the pool or the call names a model."""
        return bool({**self._default, **(override or {})}.get("model"))

    def give_back(self, lm: dspy.LM) -> None:
        """The call that got it is over."""
        number = id(lm)
        self._lent[number] -= 1
        if not self._lent[number]:
            del self._lent[number]
            if number in self._leaving:
                self._close(self._leaving.pop(number))

    def _make(self, settings: Mapping[str, Any]) -> dspy.LM:
        self.remember_secrets(settings)
        if self._default.get("api_base"):
            # DSPy takes an address in these for a gateway that only litellm can speak to, and goes that way,
            # slower and half a second later, although the settings have the address.
            provider = str(settings["model"]).partition("/")[0].upper()
            for name in (f"{provider}_API_BASE", f"{provider}_BASE_URL"):
                os.environ.pop(name, None)
        # dspex decides about retries and caching, in one place for both routes.
        given = {name: value for name, value in settings.items() if value is not None}
        most = given.pop("max_response_bytes", MAX_RESPONSE_BYTES)
        try:
            lm = dspy.LM(**{"cache": False, "num_retries": 0, **given})
        except (TypeError, ValueError) as err:
            raise ConfigError(f"DSPy refuses the LM's settings: {err}", code="bad-lm") from err
        lm.dspex_most = most
        return lm

    def _let_go(self, lm: dspy.LM) -> None:
        if self._lent[id(lm)]:
            self._leaving[id(lm)] = lm
        else:
            del self._lent[id(lm)]
            self._close(lm)

    def _close(self, lm: dspy.LM) -> None:
        aclose = getattr(lm, "aclose", None)  # DSPy has it since 3.4
        if aclose is None:
            return
        closing = asyncio.ensure_future(aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closed)

    def _closed(self, closing: asyncio.Future[None]) -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and (error := closing.exception()) is not None:
            print(f"dspex.worker: an LM could not be closed: {error}", file=sys.stderr)

    def remember_secrets(self, settings: Mapping[str, Any]) -> None:
        """Let what these settings of an LM or of a call hold be in no error that leaves the worker."""
        new = [secret for secret in secrets_in(settings) if secret not in self.secrets]
        if new:
            self.secrets = (*self.secrets[-_MAX_MODELS:], *new)


class LMWatch(BaseCallback):  # type: ignore[misc]  # DSPy has no type hints
    """Measures how long one request is inside the LM client, waiting included.

    Calls that overlap count once: it is the time in which at least one was open. It is one of the callbacks
    of that request's `dspy.context`. Each call is a stage of the request.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.stages = StageRows()
        self._begun = time.perf_counter()
        self._open = 0
        self._asked: dict[str, tuple[Any, float]] = {}
        self._since = 0.0
        self._lock = threading.Lock()  # a program may call its LM from threads

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """DSPy enters an LM."""
        now = time.perf_counter()
        MOST.set(getattr(instance, "dspex_most", MAX_RESPONSE_BYTES))  # a program may have LMs of its own
        self._asked[call_id] = instance, now
        with self._lock:
            if self._open == 0:
                self._since = now
            self._open += 1

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """DSPy leaves an LM, with or without an answer."""
        now = time.perf_counter()
        lm, since = self._asked.pop(call_id, (None, now))
        if isinstance(exception, LMError):
            # DSPy's errors name the model and not the server; whoever reads one wants to know both.
            exception.dspex_lm = lm
        with self._lock:
            self._open -= 1
            self.stages.add("lm", now - self._begun, now - since)
            if self._open == 0:
                self.seconds += now - self._since
