"""Answers of DSPy modules in parts: what the LM writes, field by field, while it writes it.

::

    SSE --> dspy.LM --> dspy.streamify with a listener per output field --> parts --> the caller
    tools, LM and module calls --> messages of a StatusMessageProvider ------^

The parts are events, as `dspex.protocol.events` writes them: `FieldStart`, `TextDelta` and `FieldEnd` for
each field of each reply, `Status` for the messages, and at last the prediction.

It is DSPy's streaming, its rules included: a reply that comes in one piece has no events of fields, and the
text of a field is the reply's, not yet read as the field's type. A caller who does not take the parts stops
the reading of the LM's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, Final

import anyio
import anyio.to_thread
import dspy
from dspy.streaming import StatusMessageProvider, StreamListener, StreamResponse, streamify
from dspy.streaming.messages import StatusStreamingCallback

from dspex._imports import find
from dspex._read_ahead import ReadAhead
from dspex._threads import settled
from dspex.errors import ConfigError
from dspex.events import FieldEnd, FieldStart, PartialValue, ReplyEvent, Status, TextDelta
from dspex.protocol.events import last_part, part_of
from dspex.protocol.requests import ModuleRequest, PredictRequest, StreamedFields
from dspex.protocol.values import to_wire
from dspex.worker.operations.modules import Modules, is_async

__all__ = ["FieldEvents", "parts_of"]

_AHEAD: Final = 16
"""Chunks read from the LM ahead of the reader, as in DSPy's own stream."""


async def parts_of(
    modules: Modules, request: PredictRequest | ModuleRequest
) -> AsyncGenerator[list[Any], None]:
    """Serve one call in parts; see the module's docstring for what comes out.

    Raises:
        ConfigError: If a field to stream, or the provider of messages, is none.
        DspexError: As `Modules.answer`.
    """
    wanted = request.stream or StreamedFields()
    status = _Status(_provider(wanted.status), lambda text: parts.add(text))
    with modules.ready(request) as run, dspy.track_usage() as usage:
        if not isinstance(run.module, dspy.Module):
            raise _not_a_prediction(run.module)
        settings = {**run.settings, "callbacks": [*run.settings["callbacks"], status]}
        program = _Program(run.module)
        listeners = _listeners(run.module, wanted.fields)
        with dspy.context(**settings):
            source = streamify(program, stream_listeners=listeners, is_async_program=True)
            # Only chunks wait for whoever takes the parts. Messages cannot: DSPy's callbacks are called on
            # the loop, and one that waited there (as DSPy's own does, once it is full) would wait for ever.
            parts = ReadAhead(source(*run.positional, **run.inputs), _AHEAD)
            fields = FieldEvents()
            async with contextlib.aclosing(_each(parts)) as each:
                async for part in each:
                    if isinstance(part, StreamResponse):
                        for event in fields.events(part):
                            yield part_of(event)
                    elif isinstance(part, str):
                        yield part_of(Status(part))
                    elif isinstance(part, dspy.Prediction):
                        for event in fields.left_open():
                            yield part_of(event)
                        yield last_part(run.answer(part, usage))


def _not_a_prediction(module: Any) -> ConfigError:
    return ConfigError(
        f"a stream ends with a prediction, and {type(module).__name__} gives none",
        code="not-a-prediction",
        hint="call it without streaming",
    )


class FieldEvents:
    """Turns DSPy's chunks, which do not mark where a field or a reply begins or ends, into events.

    A predictor's turn is over when a field of it begins that has begun in that turn already.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], None] = {}
        self._turns: dict[str, int] = {}
        self._begun: dict[str, set[str]] = {}  # by predictor, in its turn

    def events(self, chunk: StreamResponse) -> Iterator[ReplyEvent]:
        """The events of a chunk."""
        field, predictor, is_last = chunk.signature_field_name, chunk.predict_name, chunk.is_last_chunk
        if begins := (predictor, field) not in self._open:
            self._open[predictor, field] = None
            self._begin(predictor, field)
        turn = self._turns[predictor]
        if begins:
            yield FieldStart(field, predictor, turn)
        if isinstance(chunk.chunk, str):
            yield TextDelta(field, chunk.chunk, is_last, predictor, turn)
        else:  # types of DSPy's that stream have values in their chunks
            yield PartialValue(field, to_wire(chunk.chunk), is_last, predictor, turn)
        if is_last:
            del self._open[predictor, field]
            yield FieldEnd(field, True, predictor, turn)

    def _begin(self, predictor: str, field: str) -> None:
        begun = self._begun.setdefault(predictor, set())
        self._turns.setdefault(predictor, 0)
        if field in begun:
            begun.clear()
            self._turns[predictor] += 1
        begun.add(field)

    def left_open(self) -> Iterator[FieldEnd]:
        """The ends of fields of which DSPy gave no last chunk."""
        for predictor, field in self._open:
            yield FieldEnd(field, False, predictor, self._turns[predictor])


async def _each(parts: ReadAhead[Any]) -> AsyncGenerator[Any, None]:
    failure: Exception | None = None
    try:
        while taken := await parts.take():
            yield taken[0]
    except ExceptionGroup as group:
        failure = _alone(group)
    finally:
        await parts.close()
    if failure is not None:
        raise failure  # here, where no other is being handled, so that its own causes stay


def _alone(group: ExceptionGroup[Exception]) -> Exception:
    """What the program raised, without the group of tasks that DSPy 3.3 puts around it."""
    is_of_tasks = group.message.startswith("unhandled errors in a TaskGroup") and len(group.exceptions) == 1
    return group.exceptions[0] if is_of_tasks else group


class _Program:
    """A module as one that has an async form, and that gives a prediction: DSPy waits for one for ever.

    The thread of one that has only a `forward` is one of anyio's: DSPy's sync streaming finds its way back to
    the loop from no other. As `in_thread` does, it is waited for to the end.
    """

    def __init__(self, module: dspy.Module) -> None:
        self._module = module
        self.named_predictors = module.named_predictors

    async def acall(self, *args: Any, **inputs: Any) -> Any:
        """Call it.

        Raises:
            ConfigError: If it gave no prediction (`not-a-prediction`).
        """
        if is_async(self._module):
            result = await self._module.acall(*args, **inputs)
        else:
            call = functools.partial(settled, functools.partial(self._module, *args, **inputs))
            result = await anyio.to_thread.run_sync(call, limiter=anyio.CapacityLimiter(1))
        if not isinstance(result, dspy.Prediction):
            raise _not_a_prediction(self._module)
        return result


class _Status(StatusStreamingCallback):  # type: ignore[misc]  # DSPy has no type hints
    """Sends the messages of a provider on; by its class, `streamify` sees that it need not add its own."""

    def __init__(self, provider: StatusMessageProvider, send: Callable[[str], None]) -> None:
        super().__init__(provider)
        self._loop = asyncio.get_running_loop()
        self._put = send

    def _send(self, text: str | None) -> None:
        if text:
            self._loop.call_soon_threadsafe(self._put, str(text))

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        if instance.name != "finish":
            self._send(self.status_message_provider.tool_start_status_message(instance, inputs))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        if outputs != "Completed.":
            self._send(self.status_message_provider.tool_end_status_message(outputs))

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._send(self.status_message_provider.lm_start_status_message(instance, inputs))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self._send(self.status_message_provider.lm_end_status_message(outputs))

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._send(self.status_message_provider.module_start_status_message(instance, inputs))

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self._send(self.status_message_provider.module_end_status_message(outputs))


def _provider(path: str | None) -> StatusMessageProvider:
    if path is None:
        return StatusMessageProvider()
    provider = find(path)
    provider = provider() if isinstance(provider, type) else provider
    if not isinstance(provider, StatusMessageProvider):
        raise ConfigError(f"{path!r} is not a dspy.streaming.StatusMessageProvider", code="bad-stream")
    return provider


def _listeners(module: dspy.Module, wanted: Sequence[str] | None) -> list[StreamListener]:
    """A listener for each field to stream; fresh ones, since each keeps where it is in a reply."""
    there = {
        f"{name}.{field}": (name, predictor, field)
        for name, predictor in module.named_predictors()
        for field in predictor.signature.output_fields
    }
    paths = list(there) if wanted is None else [path for want in wanted for path in _paths(want, list(there))]
    return [
        # A predictor in a loop, as ReAct's, streams each of its replies.
        StreamListener(field, predict=predictor, predict_name=name, allow_reuse=True)
        for name, predictor, field in (there[path] for path in dict.fromkeys(paths))
    ]


def _paths(wanted: str, there: list[str]) -> list[str]:
    paths = [path for path in there if path == wanted or path.rpartition(".")[2] == wanted]
    if not paths:
        raise ConfigError(
            f"no predictor has an output field {wanted!r}",
            code="bad-stream",
            hint=f"there are: {', '.join(there)}",
        )
    return paths
