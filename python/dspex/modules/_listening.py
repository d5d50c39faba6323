"""What a program that is streamed leaves in its `Scope`, and what each call inside finds there.

::

    stream --makes--> Listener, in the Scope of the program's call
                          |  sink_of(predictor), by each call of a predictor, wherever it runs
                          v
                      CallSink, in the call's Operation: its path, its turn, the fields to tell of
                          |  put
                          v
                      EventQueue --> the stream's reader

The call of a module that a worker runs has a `RemoteSink`, which puts the events of the predictors in there
under the module's own path.

A reader that leaves closes the queue and cancels the calls that are running. That is what ends a `forward` in
a thread, which cannot be stopped otherwise: its call raises `CancelledError`, and so does each further one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspex._event_queue import EventQueue
from dspex.errors import ConfigError, DeadlineExceeded
from dspex.events import Status
from dspex.modules._tree import ModuleNode, predictors_of, remotes_of

if TYPE_CHECKING:
    from dspex.events import ReplyEvent
    from dspex.modules._predict import Predict
    from dspex.modules._remote import RemoteModule
    from dspex.signature import Signature

__all__ = ["CallSink", "Listener", "RemoteSink", "cancel"]


class Listener:
    """Hears of all calls inside one call of a program.

    Args:
        module: The program.
        wanted: The fields to tell of, by name or by path and name; None for all.
        queue: Where what it hears goes; None for one of its own.

    Raises:
        ConfigError: If no predictor has such a field (`bad-stream`).
    """

    def __init__(
        self, module: ModuleNode, wanted: Sequence[str] | None, queue: EventQueue | None = None
    ) -> None:
        found: list[tuple[str, Predict]] = predictors_of(module, frozen=True)
        # Kept, so that no other object has their identities meanwhile.
        self._predictors = {id(predictor): (path, predictor) for path, predictor in found}
        for path, predictor in found:  # a program may call its predictors by `with_options`
            self._predictors.setdefault(id(predictor.origin), (path, predictor))
        remotes: list[tuple[str, RemoteModule]] = remotes_of(module)
        self._remotes = {id(remote): (path, remote) for path, remote in remotes}
        for path, remote in remotes:
            self._remotes.setdefault(id(remote.origin), (path, remote))
        self._wanted = None if wanted is None else frozenset(wanted)
        self._turns: Counter[str] = Counter()
        self._running: set[asyncio.Task[Any]] = set()
        self._lock = threading.RLock()  # as in `EventQueue`
        self.queue = EventQueue() if queue is None else queue
        if self._wanted is not None:
            _check(self._wanted, found, [path for path, _ in remotes])

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
        turn = self.next_turn(path)
        outputs, wanted = frozenset(signature.output_fields), self._wanted
        if wanted is not None:
            outputs = frozenset(name for name in outputs if name in wanted or f"{path}.{name}" in wanted)
        return CallSink(self, path, turn, outputs)

    def sink_of_remote(self, module: RemoteModule) -> RemoteSink | None:
        """The same for a call of a module that a worker runs."""
        self.check()
        if self.queue.ended:
            return None
        known = self._remotes.get(id(module)) or self._remotes.get(id(module.origin))
        path = known[0] if known is not None else ""
        wanted, is_whole = self._wanted, path == "self"
        if wanted is not None and not is_whole:
            inside = [name.removeprefix(f"{path}.") for name in wanted if name.startswith(f"{path}.")]
            wanted = frozenset([*inside, *(name for name in wanted if "." not in name)])
        return RemoteSink(self, path, None if wanted is None else sorted(wanted), inner=not is_whole)

    def next_turn(self, path: str) -> int:
        """Which call of a predictor it is that begins now."""
        with self._lock:
            turn = self._turns[path]
            self._turns[path] += 1
        return turn

    async def put(self, events: Sequence[ReplyEvent | Status], deadline: float) -> None:
        """See `dspex.router.Sink.put`."""
        if self.queue.put_now(events):
            return
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                await self.queue.put(events)
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


class _Sink:
    """What both kinds of sinks have; see `dspex.router.Sink`."""

    __slots__ = ("_listener", "told")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.told = False

    def attach(self, task: asyncio.Task[Any]) -> None:
        """See `dspex.router.Sink`."""
        self._listener.attach(task)

    def check(self) -> None:
        """See `dspex.router.Sink`."""
        self._listener.check()

    async def _put(self, events: Sequence[ReplyEvent | Status], deadline: float) -> None:
        if events:
            self.told = True
            await self._listener.put(events, deadline)


class CallSink(_Sink):
    """What one call of a predictor tells; see `dspex.router.ReplySink`."""

    __slots__ = ("fields", "predictor", "turn")

    def __init__(self, listener: Listener, predictor: str, turn: int, fields: frozenset[str]) -> None:
        super().__init__(listener)
        self.predictor = predictor
        self.turn = turn
        self.fields = fields

    def put_now(self, events: Sequence[ReplyEvent]) -> bool:
        """See `dspex.router.ReplySink`."""
        wanted = [event for event in events if event.field in self.fields]
        if not wanted:
            return True
        self.told = True
        return self._listener.queue.put_now(wanted)

    async def put(self, events: Sequence[ReplyEvent | Status], deadline: float) -> None:
        """See `dspex.router.Sink`."""
        wanted = [event for event in events if isinstance(event, Status) or event.field in self.fields]
        await self._put(wanted, deadline)


class RemoteSink(_Sink):
    """What one call of a module tells that a worker runs; see `dspex.router.ModuleSink`.

    Its events say where in that module they are from. The module may be a part of a program, and be called
    more than once: so the path in front of theirs and the turn in the stream are put in here.
    """

    __slots__ = ("_path", "_places", "fields", "inner")

    def __init__(self, listener: Listener, path: str, fields: Sequence[str] | None, *, inner: bool) -> None:
        super().__init__(listener)
        self._path = path
        self._places: dict[tuple[str, int], tuple[str, int]] = {}
        self.fields = fields
        self.inner = inner

    async def put(self, events: Sequence[ReplyEvent | Status], deadline: float) -> None:
        """See `dspex.router.Sink`."""
        placed = [event if isinstance(event, Status) else self._placed(event) for event in events]
        await self._put(placed, deadline)

    def _placed(self, event: ReplyEvent) -> ReplyEvent:
        there = event.predictor, event.turn
        here = self._places.get(there)
        if here is None:
            path = _joined(self._path, event.predictor)
            here = self._places[there] = path, self._listener.next_turn(path)
        return event if here == there else replace(event, predictor=here[0], turn=here[1])


def _joined(path: str, inside: str) -> str:
    """The path of a predictor in a module that has a path itself; `""` is that of one outside."""
    if path == "self" or not (path and inside):
        return inside if path else ""
    return path if inside == "self" else f"{path}.{inside}"


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


def _check(wanted: frozenset[str], found: Iterable[tuple[str, Predict]], remotes: Sequence[str]) -> None:
    """Refuse a field that no predictor has; of those in a worker, the worker says it."""
    paths = [f"{path}.{name}" for path, predictor in found for name in predictor.signature.output_fields]
    there = {*paths, *(path.rpartition(".")[2] for path in paths)}
    for name in sorted(wanted - there):
        if any(path == "self" or "." not in name or name.startswith(f"{path}.") for path in remotes):
            continue
        raise ConfigError(
            f"no predictor has an output field {name!r}",
            code="bad-stream",
            hint=f"there are: {', '.join(paths)}",
        )
