"""Whatever goes wrong on the other side, a caller's call stays as it was, and the report says what it was."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.processes import until

import dspex
from dspex.pool import Restart
from dspex.router import Breaker, Shadow
from dspex.testing import ChatRequest, ModelServer

PREDICT = dspex.Predict("question -> answer: int").with_options(idempotent=True)
SHADOW = Shadow(share=1.0, compare="fields", timeout=20)


class Model:
    """Answers the first call of each question; what becomes of the second one is the test's."""

    def __init__(self, second: Any) -> None:
        self.asked = 0
        self.second = second

    async def __call__(self, request: ChatRequest) -> Any:
        self.asked += 1
        if self.asked % 2:
            return "[[ ## answer ## ]]\n1\n\n[[ ## completed ## ]]"
        if callable(self.second):
            return await self.second(request)
        return self.second


async def never(request: ChatRequest) -> str:
    await asyncio.Event().wait()
    return ""


def kill(runtime: dspex.Runtime) -> None:
    for worker in runtime.pools()["general"].workers:
        if worker.pid is not None:
            os.kill(worker.pid, signal.SIGKILL)


FAULTS: list[tuple[str, Any, dict[str, Any], Callable[[dspex.Runtime], None] | None, dict[str, int], str]] = [
    ("its reply cannot be read", "junk", {}, None, {}, "reply-missing-fields"),
    ("its reply is empty", "", {}, None, {}, "reply-empty"),
    ("its model is slow", never, {"timeout": 0.2}, None, {"deadline-exceeded": 1}, ""),
    ("its worker dies", never, {}, kill, {"worker-died": 1}, ""),
]


@pytest.mark.parametrize(
    ("second", "settings", "then", "failed", "error"),
    [row[1:] for row in FAULTS],
    ids=[row[0] for row in FAULTS],
)
async def test_a_fault_of_the_other_side_is_the_report_s_alone(
    second: Any, settings: Any, then: Any, failed: dict[str, int], error: str
) -> None:
    model = Model(second)
    async with ModelServer(model) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
        shadow = Shadow(share=1.0, **{"compare": "fields", "timeout": 20, **settings})
        async with dspex.Runtime(lm, pools=1, shadow=shadow, breaker=Breaker(minimum=1)) as runtime:
            await runtime.awarmup()
            prediction = await PREDICT.acall(question="?")
            if then is not None:
                await until(lambda: model.asked == 2)
                then(runtime)
            await until(lambda: not runtime.shadow_report().in_flight)
            report = runtime.shadow_report()
            counts = runtime.counts()
    assert (prediction.answer, prediction.route, len(prediction.attempts)) == (1, "native", 1)
    assert report.failed == failed
    assert [each.error for each in report.differences] == [error] * bool(error)
    # Nothing of it is the router's: no call is counted, and no breaker opens.
    assert [(row.served, row.failed, row.state) for row in counts] == [(1, 0, "closed"), (0, 0, "closed")]


async def test_a_pool_that_cannot_start_is_the_report_s_alone() -> None:
    async with ModelServer(Model("unused")) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
        pool = dspex.PoolSpec(workers=1, preload=["tests.support.broken_start"], restart=Restart(max=0))
        async with dspex.Runtime(lm, pools=pool, shadow=SHADOW) as runtime:
            prediction = await PREDICT.acall(question="?")
            await until(lambda: not runtime.shadow_report().in_flight)
            report = runtime.shadow_report()
    assert prediction.answer == 1
    assert report.same == report.different == 0
    assert sum(report.failed.values()) == 1


async def test_a_shadow_that_is_slow_takes_only_its_own_places() -> None:
    model = Model(never)
    async with ModelServer(model) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
        shadow = Shadow(share=1.0, compare="fields", in_flight=1)
        async with dspex.Runtime(lm, pools=1, shadow=shadow) as runtime:
            await runtime.awarmup()
            await PREDICT.acall(question="?")
            await until(lambda: model.asked == 2)
            model.second = "[[ ## answer ## ]]\n1\n\n[[ ## completed ## ]]"
            for _ in range(5):
                await PREDICT.acall(question="?")
            report = runtime.shadow_report()
    assert (report.in_flight, report.skipped) == (1, {"busy": 5})
