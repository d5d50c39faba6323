"""The parts of a worker's streamed answer, told to the stream of their module.

A worker sends what DSPy streams: the texts of fields as the reply has them, and nothing of a reply that came
in one piece, of several generations, or through an adapter that DSPy does not stream. When the answer is
here, a field of which nothing has come is told as a whole, and one whose value is not its text is corrected.
So whoever listens to the end knows the same values as on the native side.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from dspex.errors import WireError
from dspex.events import Correction, FieldEnd, FieldStart, PartialValue, ReplyEvent, Status, TextDelta
from dspex.protocol.events import answer_of, event_of
from dspex.protocol.requests import StreamedFields

if TYPE_CHECKING:
    from dspex.adapters import Adapter
    from dspex.pool import Pool, PredictRequest
    from dspex.protocol.requests import ModuleAnswer
    from dspex.router import Operation, Sink

__all__ = ["PoolStream"]

_STREAMED: Final = frozenset({"chat", "json", "xml"})
"""Adapters whose replies DSPy streams."""


class PoolStream:
    """Tells the events of one call.

    Args:
        sink: Who is told.
        operation: The call.
        seconds: What is left of its time.
    """

    def __init__(self, sink: Sink, operation: Operation, seconds: float) -> None:
        self._sink = sink
        self._outputs = [name for name in operation.signature.output_fields if name in sink.fields]
        self._config = operation.config
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._told: dict[str, Any] = {}
        self.first_text: float | None = None

    async def answer(
        self, pool: Pool, request: PredictRequest, adapter: Adapter, seconds: float
    ) -> ModuleAnswer:
        """The answer, when its events have been told.

        Raises:
            DspexError: As `Pool.stream`; `DeadlineExceeded` if the reader was waited for too long.
        """
        several = any((self._config.get(name) or 1) != 1 for name in ("n", "num_generations"))
        fields = self._outputs if adapter.layout in _STREAMED and not several else []
        answer: Mapping[str, Any] | None = None
        streamed = replace(request, stream=StreamedFields(fields=fields))
        async with aclosing(pool.parts(streamed, timeout=seconds)) as parts:
            async for part in parts:
                answer = answer_of(part)
                if answer is not None:
                    continue
                event = event_of(part)
                if isinstance(event, ReplyEvent):
                    await self._tell(replace(event, predictor=self._sink.predictor, turn=self._sink.turn))
                elif isinstance(event, Status):
                    await self._sink.put([event], self._deadline)
        if answer is None:
            raise WireError("a streamed answer ended without a prediction", code="bad-body")
        return cast("ModuleAnswer", answer)

    async def _tell(self, event: ReplyEvent) -> None:
        if isinstance(event, TextDelta):
            self._told[event.field] = self._told.get(event.field, "") + event.text
        elif isinstance(event, PartialValue):
            self._told[event.field] = event.value
        if self.first_text is None and isinstance(event, TextDelta | PartialValue):
            self.first_text = time.perf_counter()
        await self._sink.put([event], self._deadline)

    async def finish(self, row: Mapping[str, Any]) -> None:
        """Tell what the events so far did not: whole fields, and other values."""
        at = (self._sink.predictor, self._sink.turn)
        events: list[ReplyEvent] = []
        for name in self._outputs:
            if name not in row:
                continue
            value = row[name]
            if name not in self._told:
                is_text = isinstance(value, str)
                whole = TextDelta(name, value, True, *at) if is_text else PartialValue(name, value, True, *at)
                events += [FieldStart(name, *at), whole, FieldEnd(name, True, *at)]
                if self.first_text is None:
                    self.first_text = time.perf_counter()
            elif not _same(self._told[name], value):
                events.append(Correction(name, value, *at))
        if events:
            await self._sink.put(events, self._deadline)


def _same(told: Any, value: Any) -> bool:
    return type(told) is type(value) and bool(told == value)
