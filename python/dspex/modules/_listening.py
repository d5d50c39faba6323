"""What a program that is streamed leaves in its `Scope`, and what each call inside finds there.

::

    stream --makes--> Listener, in the Scope of the program's call
                          |  sink_of(predictor), by each call of a predictor, wherever it runs
                          v
                      CallSink, in the call's Operation: its path, its turn, the fields to tell of
                          |  put
                          v
                      EventQueue --> the stream's reader

A reader that leaves closes the queue and cancels the calls that are running. That is what ends a `forward` in
a thread, which cannot be stopped otherwise: its call raises `CancelledError`, and so does each further one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dspex.errors import ConfigError, DeadlineExceeded
from dspex.events import Status
from dspex.modules._event_queue import EventQueue
from dspex.modules._tree import ModuleNode, predictors_of

if TYPE_CHECKING:
    from dspex.events import ReplyEvent
    from dspex.modules._predict import Predict
    from dspex.signature import Signature

__all__ = ["CallSink", "Listener", "cancel"]


class Listener:
    """Hears of all calls inside one call of a program.

    Args:
        module: The program.
        wanted: The fields to tell of, by name or by path and name; None for all.

    Raises:
        ConfigError: If no predictor has such a field (`bad-stream`).
    """

    def __init__(self, module: ModuleNode, wanted: Sequence[str] | None) -> None:
        found: list[tuple[str, Predict]] = predictors_of(module)
        # Kept, so that no other object has their identities meanwhile.
        self._predictors = {id(predictor): (path, predictor) for path, predictor in found}
        for path, predictor in found:  # a program may call its predictors by `with_options`
            self._predictors.setdefault(id(predictor.origin), (path, predictor))
        self._wanted = None if wanted is None else frozenset(wanted)
        self._turns: Counter[str] = Counter()
        self._running: set[asyncio.Task[Any]] = set()
        self._lock = threading.RLock()  # as in `EventQueue`
        self.queue = EventQueue()
        if self._wanted is not None:
            _check(self._wanted, found)

    def sink_of(self, predictor: Predict, signature: Signature) -> CallSink | None:
        """What a call of the predictor tells; None where the program has ended and nobody listens.

        Raises:
            CancelledError: If the reader has left.
        """
        self.check()
        if self.queue.ended:
            return None
        known = self._predictors.get(id(predictor)) or self._predictors.get(id(predictor.origin))
        path = known[0] if known is not None else ""
        with self._lock:
            turn = self._turns[path]
            self._turns[path] += 1
        outputs, wanted = frozenset(signature.output_fields), self._wanted
        if wanted is not None:
            outputs = frozenset(name for name in outputs if name in wanted or f"{path}.{name}" in wanted)
        return CallSink(self, path, turn, outputs)

    def check(self) -> None:
        """Raise `CancelledError` if the reader has left."""
        if self.queue.closed:
            raise asyncio.CancelledError("the reader of the stream has left")

    def attach(self, task: asyncio.Task[Any]) -> None:
        """See `dspex.router.Sink.attach`."""
        with self._lock:
            if self.queue.closed:
                task.cancel()
                return
            self._running.add(task)
        task.add_done_callback(self._detach)

    def _detach(self, task: asyncio.Task[Any]) -> None:
        with self._lock:
            self._running.discard(task)

    def close(self) -> None:
        """The reader leaves. Safe to call twice, and from anywhere."""
        self.queue.close()
        with self._lock:
            running, self._running = self._running, set()
        cancel(running)


class CallSink:
    """What one call of a predictor tells; see `dspex.router.Sink`."""

    __slots__ = ("_listener", "fields", "predictor", "turn")

    def __init__(self, listener: Listener, predictor: str, turn: int, fields: frozenset[str]) -> None:
        self._listener = listener
        self.predictor = predictor
        self.turn = turn
        self.fields = fields

    def attach(self, task: asyncio.Task[Any]) -> None:
        """See `dspex.router.Sink`."""
        self._listener.attach(task)

    def check(self) -> None:
        """See `dspex.router.Sink`."""
        self._listener.check()

    async def put(self, events: Sequence[ReplyEvent | Status], deadline: float) -> None:
        """See `dspex.router.Sink`."""
        wanted = [event for event in events if isinstance(event, Status) or event.field in self.fields]
        queue = self._listener.queue
        if not wanted or queue.put_now(wanted):
            return
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                await queue.put(wanted)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded(
                "the call's time ran out while its stream waited for the reader",
                hint="read the events as they come, or give the call more time with timeout=",
                stage="reader",
            ) from None
        finally:
            del limit  # it holds the task and by that the exception: see `Router.dispatch`


def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks of whatever loops, from anywhere."""
    here = asyncio._get_running_loop()
    for task in tasks:
        loop = task.get_loop()
        if loop is here:
            task.cancel()
        else:
            with suppress(RuntimeError):  # its loop has ended, and the task with it
                loop.call_soon_threadsafe(task.cancel)


def _check(wanted: frozenset[str], found: Iterable[tuple[str, Predict]]) -> None:
    paths = [f"{path}.{name}" for path, predictor in found for name in predictor.signature.output_fields]
    there = {*paths, *(path.rpartition(".")[2] for path in paths)}
    for name in sorted(wanted - there):
        raise ConfigError(
            f"no predictor has an output field {name!r}",
            code="bad-stream",
            hint=f"there are: {', '.join(paths)}",
        )
