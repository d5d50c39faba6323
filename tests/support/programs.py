"""Programs of a user, for workers to run."""

from __future__ import annotations

from typing import Any

import dspy

from dspex.worker.reverse import call_back, call_back_sync


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
