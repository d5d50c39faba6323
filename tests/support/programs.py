"""Programs of a user, for workers to run."""

from __future__ import annotations

from typing import Any

import dspy

from dspex.errors import DspexError
from dspex.telemetry import current_trace, use_trace
from dspex.worker.reverse import call_back, call_back_sync, time_left


class TwoSteps(dspy.Module):
    """Sync only: runs in a thread of the worker."""

    def __init__(self, tone: str = "plain") -> None:
        super().__init__()
        self.tone = tone
        self.draft = dspy.Predict("question -> draft")
        self.polish = dspy.Predict("draft, tone -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.draft(question=question).draft
        return dspy.Prediction(answer=self.polish(draft=draft, tone=self.tone).answer, draft=draft)


class NoPrediction(dspy.Module):
    def forward(self) -> str:
        return "just text"


def look_up(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def ask_back(name: str, *args: Any, **kwargs: Any) -> Any:
    return await call_back(name, *args, **kwargs)


def ask_back_from_a_thread(name: str, *args: Any) -> Any:
    return call_back_sync(name, *args)


async def ask_back_many(name: str, count: int) -> list[Any]:
    import asyncio

    return list(await asyncio.gather(*(call_back(name, number) for number in range(count))))


def time_and_trace() -> tuple[float | None, Any]:
    return time_left(), current_trace()


async def ask_back_in_a_trace(name: str, trace: str | None) -> Any:
    with use_trace(trace):
        return await call_back(name)


def ask_back_and_tell(name: str, path: str) -> None:
    """Wait in a thread for the service; write down how that ended."""
    try:
        call_back_sync(name)
    except Exception as err:
        with open(path, "w") as file:
            file.write(str(err))
        raise


async def leave_a_question_behind(name: str) -> None:
    """Answer the call while a task of its work still asks."""
    import asyncio

    _left.append(asyncio.ensure_future(call_back(name)))
    await asyncio.sleep(0)


async def what_was_left() -> str:
    try:
        return str(await _left.pop())
    except DspexError as err:
        return str(err)


_left: list[Any] = []


async def stream_trace() -> Any:
    yield current_trace()
