"""A user's pipelines, as mypy and pyright check them in their strict modes. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_never, assert_type

import dspex
from dspex import Module, Pipeline
from dspex.events import PipelineEvent
from dspex.modules import AsyncModuleStream, ModuleStream
from dspex.pipelines import RunResult
from dspex.streaming import Event, StepEnded, StepEvent, StepRestarted, StepStarted, TextDelta, sse


async def search(query: str) -> list[str]:
    return [query]


QA: Pipeline = dspex.pipeline(
    dspex.Predict("question -> query"),
    dspex.step(search, outputs="docs", retry=3),
    dspex.Predict("question, docs: list[str] -> answer"),
    outputs=["answer"],
)


def told(event: PipelineEvent) -> str:
    """Every event that there is."""
    match event:
        case StepStarted(step=path) | StepRestarted(step=path):
            return path
        case StepEvent(step=path, event=TextDelta(text=text)):
            return f"{path}: {text}"
        case StepEvent():
            return ""
        case StepEnded():
            assert_type(event.seconds, float)
            return event.status
        case dspex.Prediction():
            return str(event.answer)
        case _:
            assert_never(event)


def streamed() -> list[str]:
    stream: ModuleStream[PipelineEvent] = QA.with_options(stream_fields=["answer"]).stream(question="?")
    as_any_iterator: Iterator[PipelineEvent] = stream
    of_any_module: ModuleStream = stream
    with of_any_module, stream as events:
        for event in events:
            assert_type(event, PipelineEvent)
            if isinstance(event, StepEnded):
                return [event.step, *map(told, as_any_iterator)]
    return []


async def over_http() -> AsyncIterator[bytes]:
    stream: AsyncModuleStream[PipelineEvent] = QA.astream(question="?")
    async with stream as events:
        async for event in events:
            assert_type(event, PipelineEvent)
            if isinstance(event, StepStarted):
                break
    async for frame in sse(QA.astream(question="?"), keepalive=15):
        yield frame


async def of_any_module(module: Module) -> str:
    """A pipeline is a module, so any module's stream may have the events of steps."""
    async for event in module.astream(question="?"):
        assert_type(event, Event)
        if isinstance(event, StepEnded):
            return event.step
    return ""


async def ran() -> list[str]:
    result: RunResult = await QA.arun(question="?", run_id="r1")
    again: RunResult = await QA.aresume("r1", from_step="answer")
    return [result.run_id, *[f"{step.path} {step.status}" for step in again.steps]]
