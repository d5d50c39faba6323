"""Late calls that are made twice, on a real connection and by real workers: the loser leaves both."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.processes import until

import dspex
from dspex.router import Hedge, Retry
from dspex.testing import ChatRequest, ModelServer

HEDGE = Hedge(after=0.05, at_most=1.0)


class FirstHangs:
    """A model that never answers the first request, and the others at once.

    Attributes:
        asked: Requests.
        left: Requests whose asker has gone.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.left = 0

    async def __call__(self, request: ChatRequest) -> str:
        self.asked += 1
        if self.asked == 1:
            try:
                await asyncio.Event().wait()
            finally:
                self.left += 1
        return f"[[ ## answer ## ]]\n{self.asked}\n\n[[ ## completed ## ]]"


@pytest.mark.parametrize("route", ["native", "python"])
async def test_the_attempt_that_loses_leaves_the_model_and_its_worker(route: str) -> None:
    model = FirstHangs()
    async with ModelServer(model) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
        async with dspex.Runtime(lm, pools=1, hedge=HEDGE) as runtime:
            if route == "python":
                await runtime.awarmup()
            predict = dspex.Predict("question -> answer: int").with_options(idempotent=True, route=route)
            prediction = await predict.acall(question="?")
            await until(lambda: all(row.in_flight == 0 for row in runtime.counts()))
            await until(lambda: model.left == 1)
            counts = {row.name: row for row in runtime.counts()}
            if route == "python":
                workers = runtime.pools()["general"].workers
                await until(lambda: not any(worker.inflight for worker in workers))
    assert (prediction.answer, model.asked) == (2, 2)
    assert "hedge" in prediction.timings
    row = counts["native" if route == "native" else "pool:general"]
    assert (row.served, row.failed, row.cancelled) == (1, 0, 1)


async def test_a_late_native_call_is_answered_by_a_worker_where_that_is_asked_for() -> None:
    model = FirstHangs()
    async with ModelServer(model) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
        hedge = Hedge(after=0.05, at_most=1.0, elsewhere=True)
        async with dspex.Runtime(lm, pools=1, hedge=hedge, retry=Retry()) as runtime:
            await runtime.awarmup()
            predict = dspex.Predict("question -> answer: int").with_options(idempotent=True)
            prediction = await predict.acall(question="?")
    assert (prediction.route, prediction.answer) == ("pool:general", 2)
    assert prediction.route_reason.startswith("native had not answered after 0.0")
