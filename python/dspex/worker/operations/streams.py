"""Answers of DSPy modules in parts: what the LM writes, field by field, while it writes it.

::

    the program, in a task or a thread
        |  replies of its predictors: `Replies`     |  tools, LM and module calls: `Messages`
        v  which wait for room                      v  which cannot wait
    EventQueue --take--> parts --> the caller

The parts are events, as `dspex.protocol.events` writes them: those of the fields of each reply, `Status` for
the messages, and at last the prediction, or what else the module gives.

A caller who does not take the parts stops the reading of the LM's answers. One who leaves ends the program: a
task is cancelled, and in a thread the call of a predictor that is under way fails, as does each further one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import dspy

from dspex._event_queue import END, EventQueue
from dspex.errors import ConfigError
from dspex.events import Status
from dspex.protocol.events import last_part, part_of
from dspex.protocol.requests import ModuleRequest, PredictRequest, StreamedFields
from dspex.worker.operations.modules import Modules, Run
from dspex.worker.operations.replies import Replies
from dspex.worker.operations.status import Messages, provider_at
from dspex.worker.operations.telling import telling

__all__ = ["parts_of"]


async def parts_of(
    modules: Modules, request: PredictRequest | ModuleRequest
) -> AsyncGenerator[list[Any], None]:
    """Serve one call in parts; see the module's docstring for what comes out.

    Raises:
        ConfigError: If a field to stream, or the provider of messages, is none (`bad-stream`); if the module
            gives no prediction, and that is not in order (`not-a-prediction`).
        DspexError: As `Modules.answer`.
    """
    wanted = request.stream or StreamedFields()
    queue = EventQueue()
    with modules.ready(request) as run:
        if not (wanted.inner or isinstance(run.module, dspy.Module)):
            raise _not_a_prediction(run.module)
        replies = Replies(run.module, wanted, queue)
        status = Messages(provider_at(wanted.status), lambda text: queue.add(part_of(Status(text))))
        settings = {
            **run.settings,
            "adapter": telling(run.settings["adapter"], request.adapter, replies),
            "callbacks": [*run.settings["callbacks"], replies, status],
        }
        program = asyncio.create_task(_told(run, settings, queue, inner=wanted.inner))
        try:
            while (part := await queue.take()) is not END:
                yield part
        finally:
            if not program.done():
                replies.leave()
                program.cancel()
                await asyncio.wait([program])


async def _told(run: Run, settings: Mapping[str, Any], queue: EventQueue, *, inner: bool) -> None:
    """Call the module; its answer, or what it raises, is the end of the queue."""
    try:
        with dspy.context(**settings), dspy.track_usage() as usage:
            result = await run.call()
        if not (inner or isinstance(result, dspy.Prediction)):
            raise _not_a_prediction(run.module)
        answer = last_part(run.answer(result, usage))
    except BaseException as error:  # noqa: BLE001 - whatever it is, whoever takes the parts hears of it
        queue.end(error=error)
    else:
        queue.end(answer)


def _not_a_prediction(module: Any) -> ConfigError:
    return ConfigError(
        f"a stream ends with a prediction, and {type(module).__name__} gives none",
        code="not-a-prediction",
        hint="call it without streaming",
    )
