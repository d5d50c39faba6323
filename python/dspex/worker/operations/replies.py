"""The replies inside one streamed call of a module, told while they come.

::

    call of a predictor, anywhere in the program
        |  its adapter: `Telling`
        v
    Replies.begin --> Reply: the predictor's path, its turn, the fields to tell of
        |               ^
        v               |  send, with each chunk of the answer
    dspy.LM, awaited on the worker's loop

    Reply --chunks--> ReplyStream of the core --events--> EventQueue, which waits for room --> the caller

It is the core that reads a reply, as on the native side: the texts are the values, whatever the chunks, lists
and models grow, and a reply in one piece has the same events. Each call of a predictor has a `Reply` of its
own, which DSPy's LM finds as the `send_stream` of that call alone, so that no two calls mix.

What the core cannot read as it comes is told when the call is over, whole: replies of an adapter without
fields in its text (`two_step`) or of a model that does not stream, types that only DSPy knows.

A predictor is known by itself, or by DSPy's `stage`, which its copies keep: `dspy.BestOfN` calls copies.

A call in a thread asks the LM on the worker's loop, and the thread waits: so a reader that leaves ends it at
once, and closes its connection, where a thread that reads from a socket could not be stopped. Calls of LMs
that have no such form are made in the thread, and told whole.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import dspy
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

from dspex.errors import ConfigError
from dspex.events import Correction, FieldEnd, FieldStart, PartialValue, ReplyEvent, TextDelta
from dspex.protocol.events import part_of, says
from dspex.protocol.values import to_wire
from dspex.worker.operations.results import plain

if TYPE_CHECKING:
    from dspex._core import Plan, ReplyStream
    from dspex._event_queue import EventQueue
    from dspex.protocol.requests import StreamedFields

__all__ = ["Replies", "Reply"]

_VALUE: Final = 2
"""Where the value is in the part that crosses for an event."""


class Replies(BaseCallback):  # type: ignore[misc]  # DSPy has no type hints
    """Hears of all calls of predictors inside one call of a module.

    It is one of the callbacks of that call: they say which predictor an adapter is at work for.

    Args:
        module: The module.
        wanted: The fields to tell of.
        queue: Where their events go.

    Raises:
        ConfigError: If no predictor has such a field (`bad-stream`).
    """

    def __init__(self, module: Any, wanted: StreamedFields, queue: EventQueue) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._queue = queue
        found: list[tuple[str, Any]] = module.named_predictors() if isinstance(module, dspy.Module) else []
        # Kept, so that no other object has their identities meanwhile.
        self._predictors = {id(predictor): (path, predictor) for path, predictor in found}
        self._copies: dict[Any, str] = {}
        for path, predictor in found:
            # Predictors that are copies of each other have one stage, which then says nothing.
            self._copies[predictor.stage] = "" if predictor.stage in self._copies else path
        self._wanted = None if wanted.fields is None else frozenset(wanted.fields)
        if self._wanted and not wanted.inner:
            _check(self._wanted, found)
        self._calling: dict[str, Any] = {}  # predictors by the ids of their calls, until an adapter begins
        self._turns: Counter[str] = Counter()
        self._running: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()

    # -- which predictor is at work ----------------------------------------------------------------

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """DSPy calls a module."""
        if isinstance(instance, dspy.Predict):
            self._calling[call_id] = instance

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A module has answered. A predictor that had an adapter of the program's own is told now."""
        predictor = self._calling.pop(call_id, None)
        if predictor is not None and isinstance(outputs, dspy.Prediction) and not self._queue.ended:
            reply = self._made(predictor, predictor.signature, None)
            self.tell(reply.rest(dict(outputs)))

    def begin(self, signature: Any, plan: Plan | None) -> Reply:
        """What the call tells that begins here.

        Args:
            signature: The call's.
            plan: Reads its reply; None where the core cannot.

        Raises:
            CancelledError: If the reader has left.
        """
        self.check()
        return self._made(self._calling.pop(ACTIVE_CALL_ID.get(), None), signature, plan)

    def _made(self, predictor: Any, signature: Any, plan: Plan | None) -> Reply:
        path = self._path(predictor)
        with self._lock:
            turn = self._turns[path]
            self._turns[path] += 1
        wanted = self._wanted
        fields: list[str] = []
        if not self._queue.ended:
            fields = [
                name
                for name in signature.output_fields
                if wanted is None or name in wanted or f"{path}.{name}" in wanted
            ]
        return Reply(self, path, turn, fields, plan if fields else None)

    def _path(self, predictor: Any) -> str:
        known = self._predictors.get(id(predictor))
        if known is not None:
            return known[0]
        return self._copies.get(getattr(predictor, "stage", None), "")

    # -- what is told --------------------------------------------------------------------------------

    async def put(self, events: Iterable[ReplyEvent]) -> None:
        """Tell events, and wait for room first.

        Raises:
            CancelledError: If the reader has left.
        """
        parts = list(_parts(events))
        if parts and not self._queue.put_now(parts):
            await self._queue.put(parts)

    def tell(self, events: Iterable[ReplyEvent]) -> None:
        """Tell events from synchronous code, which waits for room in a thread, and cannot on the loop.

        Raises:
            CancelledError: If the reader has left.
        """
        told = list(events)
        if not told:
            return
        if threading.get_ident() == self._thread:
            for part in _parts(told):
                self._queue.add(part)
        else:
            self.wait(lambda: self.put(told))

    # -- calls in threads, and readers that leave ------------------------------------------------------

    def check(self) -> None:
        """Raise `CancelledError` if the reader has left."""
        if self._queue.closed:
            raise asyncio.CancelledError("the reader of the stream has left")

    def can_wait(self, lm: Any) -> bool:
        """Whether a call in this thread may have the LM asked on the loop."""
        if threading.get_ident() == self._thread or type(lm) is not dspy.LM:
            return False
        # An engine of the program's own may have a synchronous form alone.
        engine = getattr(lm, "_engine_spec", "auto")
        return isinstance(engine, str) or getattr(lm, "_async_engine_spec", None) is not None

    def wait(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Have the loop do a part of this thread's work, and wait for it.

        Raises:
            CancelledError: If the reader has left.
        """
        running = asyncio.run_coroutine_threadsafe(self._tracked(work), self.loop)
        try:
            return running.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError("the reader of the stream has left") from None
        finally:
            del running  # it holds the exception, which holds this frame

    async def on_loop(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """The same for a task on an event loop of the program's own."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._tracked(work), self.loop))

    async def _tracked(self, work: Callable[[], Awaitable[Any]]) -> Any:
        with self.tracked():
            return await work()

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """End this task if the reader leaves while it is in the block."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only tasks run coroutines here
        is_new = task not in self._running
        self._running.add(task)
        try:
            self.check()
            yield
        finally:
            if is_new:
                self._running.discard(task)

    def leave(self) -> None:
        """The reader leaves: nothing more is told, and the calls that run are ended."""
        self._queue.close()
        for task in [*self._running]:
            task.cancel()


class Reply:
    """What one call of a predictor tells. To DSPy's LM it is where the chunks of its answer go.

    Args:
        replies: Of the call of the module.
        predictor: The predictor's path.
        turn: Which of its calls it is.
        fields: The output fields to tell of.
        plan: Reads the reply; None where the core cannot.
    """

    def __init__(
        self, replies: Replies, predictor: str, turn: int, fields: Sequence[str], plan: Plan | None
    ) -> None:
        self._replies = replies
        self._at = (predictor, turn)
        self.fields = fields
        self._reading: ReplyStream | None = None if plan is None else plan.stream(predictor, turn)
        self._begun: set[str] = set()
        self._told: dict[str, Any] = {}

    @property
    def hears(self) -> bool:
        """Whether the chunks of the answer are read."""
        return self._reading is not None

    async def send(self, chunk: Any) -> None:
        """Take a chunk, and wait until its events have room.

        Of several generations the first is told. What it raises would be taken for an error of the LM: so a
        reply that a validator refuses is no longer read, and whoever reads it whole says why.

        Raises:
            CancelledError: If the reader has left.
        """
        text, is_over = _read(chunk)
        events: list[ReplyEvent] = []
        if text and self._reading is not None:
            try:
                events += self._reading.feed(text)
            except Exception:  # noqa: BLE001 - of a validator
                self._reading = None
        if is_over:
            events += self._finished()
        if events:
            await self._replies.put(self._noted(events))

    def rest(self, row: Mapping[str, Any]) -> list[ReplyEvent]:
        """What the events so far have not told, now that the call has its outputs."""
        events = list(self._noted(self._finished()))
        for name in self.fields:
            if name not in row:
                continue
            value = row[name]
            if name in self._told:
                if not says(self._told[name], value):
                    events.append(Correction(name, value, *self._at))
            elif name in self._begun:
                events.append(Correction(name, value, *self._at))
            else:
                whole = TextDelta if isinstance(value, str) else PartialValue
                events += [
                    FieldStart(name, *self._at),
                    whole(name, value, True, *self._at),
                    FieldEnd(name, True, *self._at),
                ]
        return events

    def _finished(self) -> list[ReplyEvent]:
        """The events that the end of the reply makes certain; none the second time."""
        reading, self._reading = self._reading, None
        if reading is None:
            return []
        try:
            return reading.finish()
        except Exception:  # noqa: BLE001 - of a validator, as in `send`
            return []

    def _noted(self, events: Iterable[ReplyEvent]) -> Iterator[ReplyEvent]:
        """The events of the fields that are wanted."""
        for event in events:
            if event.field not in self.fields:
                continue
            self._begun.add(event.field)
            if isinstance(event, TextDelta):
                self._told[event.field] = self._told.get(event.field, "") + event.text
            elif isinstance(event, Correction) or (isinstance(event, PartialValue) and event.is_last_chunk):
                self._told[event.field] = event.value
            yield event


def _read(chunk: Any) -> tuple[str, bool]:
    """The text that a chunk adds to the first generation, and whether that is over."""
    for choice in getattr(chunk, "choices", None) or ():
        if not getattr(choice, "index", 0):
            text = getattr(getattr(choice, "delta", None), "content", None)
            return text or "", getattr(choice, "finish_reason", None) is not None
    return "", False


def _parts(events: Iterable[ReplyEvent]) -> Iterator[list[Any]]:
    """The events as they cross. One whose value cannot is left out: the call itself may do without it."""
    for event in events:
        part = part_of(event)
        if isinstance(event, PartialValue | Correction):
            try:
                part[_VALUE] = to_wire(plain(event.value))
            except Exception:  # noqa: BLE001, S112 - a serializer of the user's may raise anything
                continue
        yield part


def _check(wanted: Iterable[str], found: Iterable[tuple[str, Any]]) -> None:
    paths = [f"{path}.{name}" for path, predictor in found for name in predictor.signature.output_fields]
    there = {*paths, *(path.rpartition(".")[2] for path in paths)}
    for name in sorted(wanted):
        if name not in there:
            raise ConfigError(
                f"no predictor has an output field {name!r}",
                code="bad-stream",
                hint=f"there are: {', '.join(paths)}",
            )
