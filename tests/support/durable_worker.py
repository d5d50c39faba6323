"""A durable run with a step in a worker, in a process that may be killed.

    python -m tests.support.durable_worker STORE EFFECTS begin|resume POINT

As `durable_plan`. At the point `during:worker` the process ends itself when the step's model is asked, so
while the worker waits for it. The worker asks once a call, and the model's server notes that.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from tests.support.durable_plan import KillingStore

import dspex
from dspex.testing import ChatRequest, ModelServer

__all__: list[str] = []


async def main(store_path: str, effects: str, how: str, point: str) -> None:
    """Run it, or go on with it."""

    def note(what: str) -> None:
        with open(effects, "a") as file:  # noqa: ASYNC230, RUF100 - a line, at once
            file.write(f"{what}\n")

    async def first(asked: str) -> str:
        note("first")
        return asked.strip()

    async def last(answer: str, question: str) -> str:
        note("last")
        return f"{question.upper()} {answer}"

    def reply(_: ChatRequest) -> str:
        note("worker")
        if point == "during:worker":
            os.kill(os.getpid(), signal.SIGKILL)
        return "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"

    store = KillingStore(store_path, point)
    pipeline = dspex.pipeline(
        dspex.step(first, outputs="question"),
        dspex.step(dspex.remote("dspy.Predict", "question -> answer"), name="worker"),
        dspex.step(last, outputs="said"),
        store=store,
    )
    async with ModelServer(reply) as server:
        lm = dspex.LM("openai/m", api_base=server.api_base, api_key="none")
        async with dspex.Runtime(lm=lm, pools=1):
            if how == "begin":
                result = await pipeline.arun(asked=" why? ", run_id="r1")
            else:
                result = await pipeline.aresume("r1")
            print(json.dumps(dict(result)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
