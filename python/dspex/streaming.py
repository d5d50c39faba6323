"""Streams of modules: the events they give, and server-sent events for web frameworks.

`program.stream(...)` and `program.astream(...)` give the events; `sse` makes of them what a browser's
`EventSource` reads:

>>> import asyncio
>>> from dspex.streaming import TextDelta, sse
>>> async def events():
...     yield TextDelta("answer", "blue")
>>> async def show():
...     async for part in sse(events()):
...         print(part.decode())
>>> asyncio.run(show())
event: text
data: {"field": "answer", "text": "blue", "is_last_chunk": false, "predictor": "self", "turn": 0}
<BLANKLINE>
<BLANKLINE>
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

from dspex._timeouts import check_seconds
from dspex.errors import DspexError
from dspex.events import (
    Correction,
    FieldEnd,
    FieldStart,
    LMDelta,
    PartialValue,
    Status,
    StepEnded,
    StepEvent,
    StepRestarted,
    StepStarted,
    TextDelta,
)
from dspex.events import Event as _Event
from dspex.events import PipelineEvent as _PipelineEvent
from dspex.events import ReplyEvent as _ReplyEvent
from dspex.prediction import Prediction

__all__ = [
    "Correction",
    "Event",
    "FieldEnd",
    "FieldStart",
    "LMDelta",
    "PartialValue",
    "PipelineEvent",
    "ReplyEvent",
    "Status",
    "StepEnded",
    "StepEvent",
    "StepRestarted",
    "StepStarted",
    "TextDelta",
    "sse",
]

Event = _Event
"""All that a stream may give; where there is a prediction, it is the last."""

PipelineEvent = _PipelineEvent
"""All that a pipeline's stream may give; the last is its result."""

ReplyEvent = _ReplyEvent
"""The events of a reply's fields."""

_NAMES: Final[Mapping[type[Any], str]] = {
    FieldStart: "start",
    TextDelta: "text",
    PartialValue: "value",
    FieldEnd: "end",
    Correction: "correction",
    Status: "status",
    LMDelta: "lm",
    StepStarted: "step-start",
    StepEnded: "step-end",
    StepRestarted: "step-restart",
}
_KEEPALIVE: Final = b": keepalive\n\n"
_log = logging.getLogger("dspex.streaming")


async def sse(events: AsyncIterator[Event], *, keepalive: float | None = None) -> AsyncGenerator[bytes, None]:
    """The events of a stream as server-sent events.

    Each is `event: <name>` with its attributes as JSON in `data:`. The names are `start`, `text`, `value`,
    `end`, `correction`, `status`, at last `prediction` with the output fields. Those of a pipeline are
    `step-start`, `step-end` and `step-restart` as well, and what a step tells has its path as `step`. An
    error of the call becomes `event: error` with its `to_public_dict()`, is logged as `dspex.streaming`, and
    ends the stream; an exception of another kind is raised to the framework after an `event: error` without
    its words.

    A client that leaves makes the framework close this generator, which closes the stream.

    Args:
        events: A module's `astream(...)`, or any other stream of events.
        keepalive: Seconds without an event after which a comment is sent, so that no proxy in between takes
            the connection for dead; None for none.

    Raises:
        ConfigError: If `keepalive` is no number of seconds.

    Example:
        ```python
        events = answer.astream(question=question)
        return StreamingResponse(sse(events, keepalive=15), media_type="text/event-stream")
        ```
    """
    seconds = None if keepalive is None else check_seconds(keepalive, "keepalive")
    pending: asyncio.Task[Any] | None = None
    try:
        while True:
            if seconds is None:
                event = await anext(events, None)
            else:
                # A task: to cancel a generator's step for a comment would end the generator.
                pending = asyncio.ensure_future(_next(events))
                while not (await asyncio.wait([pending], timeout=seconds))[0]:
                    yield _KEEPALIVE
                event, pending = pending.result(), None
            if event is None:
                return
            yield _written(event)
    except DspexError as error:
        _log.error("%s %s", error.code, error)
        yield _message("error", error.to_public_dict())
    except Exception:
        yield _message("error", DspexError("the program failed").to_public_dict())
        raise
    finally:
        if pending is not None and not pending.done():
            pending.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([pending])
        aclose = getattr(events, "aclose", None)
        if aclose is not None:
            await aclose()


async def _next(events: AsyncIterator[Any]) -> Any:
    return await anext(events, None)


def _written(event: Any) -> bytes:
    if isinstance(event, Prediction):
        return _message("prediction", event.to_dict())
    step = {}
    if isinstance(event, StepEvent):
        step, event = {"step": event.step}, event.event
    told = {name: getattr(event, name) for name in event.__match_args__}
    return _message(_NAMES[type(event)], {**step, **told})


def _message(name: str, data: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(data, allow_nan=False)
    except (TypeError, ValueError):  # a model, a date, a number that JSON does not have
        from pydantic_core import to_json  # values that are plain do without

        text = to_json(data, inf_nan_mode="null", fallback=str).decode()
    return f"event: {name}\ndata: {text}\n\n".encode()
