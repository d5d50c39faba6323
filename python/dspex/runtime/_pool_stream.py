"""The parts of a worker's streamed answer, told to the stream of their module.

::

    worker: replies, read as they come --events--> PoolStream --> sink, which waits for its reader
            the call's answer ------------------------------------> the prediction

The events of a program's predictors go on as they came, with plain values. Those of a `Predict` are the
call's own: they get its path and turn, and where the type of a field is a class of the service's, its value
is made again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from dspex.errors import WireError
from dspex.events import Correction, FieldEnd, FieldStart, PartialValue, ReplyEvent, Status, TextDelta
from dspex.protocol.events import answer_of, event_of, says
from dspex.protocol.requests import StreamedFields
from dspex.protocol.values import from_wire
from dspex.router import ModuleOperation, Operation
from dspex.runtime._pool_request import types_of

if TYPE_CHECKING:
    from dspex.pool import ModuleRequest, Pool, PredictRequest
    from dspex.protocol.requests import ModuleAnswer
    from dspex.router import AnyOperation, ModuleSink, ReplySink, Sink

__all__ = ["PoolStream", "stream_of"]


class PoolStream:
    """Tells the events of one call of a program.

    Args:
        sink: Who is told.
        fields: Of which fields.
        seconds: What is left of the call's time.
    """

    def __init__(self, sink: Sink, fields: StreamedFields, seconds: float) -> None:
        self._sink = sink
        self._fields = fields
        self._deadline = asyncio.get_running_loop().time() + seconds
        self.first_text: float | None = None

    async def answer(
        self, pool: Pool, request: PredictRequest | ModuleRequest, **options: Any
    ) -> ModuleAnswer:
        """The answer, when its events have been told.

        Args:
            pool: What is asked.
            request: For what.
            **options: As for `Pool.stream`.

        Raises:
            DspexError: As `Pool.stream`; `DeadlineExceeded` if the reader was waited for too long.
        """
        answer: Mapping[str, Any] | None = None
        async with aclosing(pool.parts(replace(request, stream=self._fields), **options)) as parts:
            async for part in parts:
                answer = answer_of(part)
                if answer is None:
                    await self._tell(event_of(part))
        if answer is None:
            raise WireError("a streamed answer ended without a prediction", code="bad-body")
        return cast("ModuleAnswer", answer)

    async def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The call has its answer: tell what the events so far did not."""

    async def _tell(self, event: Any) -> None:
        if isinstance(event, ReplyEvent):
            event = self._here(event)
            if self.first_text is None and isinstance(event, TextDelta | PartialValue):
                self.first_text = time.perf_counter()
        elif not isinstance(event, Status):
            return
        await self._sink.put([event], self._deadline)

    def _here(self, event: ReplyEvent) -> ReplyEvent:
        """A worker's event as the reader of the stream sees it."""
        return event


class _PredictStream(PoolStream):
    """Tells the events of one call of a `Predict`."""

    def __init__(self, sink: ReplySink, operation: Operation, seconds: float) -> None:
        super().__init__(sink, StreamedFields(fields=sorted(sink.fields)), seconds)
        self._at = sink.predictor, sink.turn
        self._outputs = [name for name in operation.signature.output_fields if name in sink.fields]
        self._types = types_of(operation.signature).custom_outputs
        self._told: dict[str, Any] = {}

    async def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """See `PoolStream.finish`: the worker knows the values of fields as its own classes have them."""
        row: Mapping[str, Any] = rows[0] if rows else {}
        events: list[ReplyEvent] = []
        for name in self._outputs:
            if name not in row:
                continue
            value = row[name]
            if name not in self._told:
                whole = TextDelta if isinstance(value, str) else PartialValue
                events += [
                    FieldStart(name, *self._at),
                    whole(name, value, True, *self._at),
                    FieldEnd(name, True, *self._at),
                ]
            elif not says(self._told[name], value):
                events.append(Correction(name, value, *self._at))
        if events:
            await self._sink.put(events, self._deadline)

    def _here(self, event: ReplyEvent) -> ReplyEvent:
        if isinstance(event, TextDelta):
            self._told[event.field] = self._told.get(event.field, "") + event.text
        elif isinstance(event, PartialValue | Correction):
            value, is_whole = event.value, isinstance(event, Correction) or event.is_last_chunk
            if is_whole and event.field in self._types:
                try:
                    value = from_wire(value, self._types[event.field])
                except Exception:  # noqa: BLE001 - a validator of the user's; the prediction is made without it
                    is_whole = False
                else:
                    event = replace(event, value=value)
            if is_whole:
                self._told[event.field] = value
        if (event.predictor, event.turn) == self._at:
            return event
        return replace(event, predictor=self._at[0], turn=self._at[1])


def stream_of(operation: AnyOperation, seconds: float) -> PoolStream | None:
    """What tells of an operation while it runs in a worker; None where nobody listens."""
    if isinstance(operation, Operation):
        sink = operation.sink
        return _PredictStream(sink, operation, seconds) if sink is not None and sink.fields else None
    if not isinstance(operation, ModuleOperation) or operation.sink is None:
        return None
    # Also without fields: a streamed call ends at once when its reader leaves.
    inside: ModuleSink = operation.sink
    return PoolStream(inside, StreamedFields(fields=inside.fields, inner=inside.inner), seconds)
