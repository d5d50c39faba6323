"""Shadows with real workers: both ways, what is asked of the model, and that callers notice nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import until

import dspex
from dspex.router import Shadow
from dspex.runtime import Pair, ShadowReport
from dspex.runtime._shadow_store import read_differences
from dspex.testing import ChatRequest, HttpError, ModelServer


class Counting:
    """A model that says how often it has been asked the question."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.server = ModelServer(self._answer)
        self.lm = dspex.LM("openai/local", api_base="http://127.0.0.1:1/v1", api_key="none")

    def _answer(self, request: ChatRequest) -> str:
        self.asked.append(request.prompt)
        return f"[[ ## answer ## ]]\n{len(self.asked)}\n\n[[ ## completed ## ]]"


@pytest.fixture
async def model() -> Any:
    model = Counting()
    async with model.server:
        model.lm = dspex.LM("openai/local", api_base=model.server.api_base, api_key="none")
        yield model


async def reported(runtime: dspex.Runtime, calls: int) -> ShadowReport:
    def done() -> bool:
        report = runtime.shadow_report()
        return report.same + report.different + sum(report.failed.values()) >= calls and not report.in_flight

    await until(done)
    return runtime.shadow_report()


PREDICT = dspex.Predict("question, context: list[str] -> answer: int")
INPUTS: Any = {"question": "How many?", "context": ["one", "two"]}


@pytest.mark.parametrize("strategy", ["prefer-native", "prefer-python"])
async def test_both_sides_write_the_same_messages_and_the_model_is_asked_once(strategy: Any) -> None:
    demos = [{"question": "How many?", "context": ["one"], "answer": 1}]
    async with ModelServer() as server:  # it reads the prompt, and answers as that asks
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
        async with dspex.Runtime(lm, pools=1, strategy=strategy, shadow=1.0) as runtime:
            for adapter in ("chat", "json", "xml"):
                predict = dspex.Predict("question, context: list[str] -> answer: str", adapter=adapter)
                await predict.acall(**INPUTS)
                await predict.acall(**INPUTS, demos=demos)
            report = await reported(runtime, 4)
    assert (report.different, report.failed) == (0, {})
    assert report.same + report.skipped.get("busy", 0) == 6
    assert len(server.requests) == 6


@pytest.mark.parametrize("strategy", ["prefer-native", "prefer-python"])
async def test_an_idempotent_call_is_answered_by_both_and_fields_that_differ_are_reported(
    model: Any, strategy: Any, tmp_path: Path
) -> None:
    file = tmp_path / "differences.jsonl"
    shadow = Shadow(share=1.0, file=file)
    async with dspex.Runtime(model.lm, pools=1, strategy=strategy, shadow=shadow) as runtime:
        prediction = await PREDICT.with_options(idempotent=True).acall(**INPUTS)
        report = await reported(runtime, 1)
        counts = runtime.counts()
    assert prediction.answer == 1
    assert len(model.asked) == 2
    (found,) = report.differences
    assert (found.fields, found.message, found.inputs) == ({"answer": Pair("1", "2")}, None, {})
    assert {found.live, found.other} == {"native", "pool:general"}
    assert found.live == prediction.route
    assert "How many" not in file.read_text()
    assert read_differences(file) == ([found], 0)
    # What a shadow does is no call of the router's.
    assert sum(row.served + row.failed for row in counts) == 1


@pytest.mark.parametrize("strategy", ["prefer-native", "prefer-python"])
async def test_a_dspy_that_writes_other_messages_is_found_out(model: Any, strategy: Any) -> None:
    pool = dspex.PoolSpec(workers=1, preload=["tests.support.other_prompts"])
    shadow = Shadow(share=1.0, inputs=True, width=40)
    async with dspex.Runtime(model.lm, pools=pool, strategy=strategy, shadow=shadow) as runtime:
        prediction = await PREDICT.acall(**INPUTS)
        report = await reported(runtime, 1)
    assert len(model.asked) == 1
    (found,) = report.differences
    message = found.message
    assert message is not None
    assert message.texts is not None
    assert (message.index, message.role) == (1, "user")
    texts = {found.live: message.texts.live, found.other: message.texts.other}
    assert found.live == prediction.route
    assert "Respond with" in texts["native"]
    assert "Answer with" in texts["pool:general"]
    assert found.inputs == {"question": "How many?", "context": "['one', 'two']"}


async def test_rows_of_a_batch_are_run_on_the_other_side_too(model: Any) -> None:
    async with dspex.Runtime(model.lm, pools=1, shadow=Shadow(share=1.0, in_flight=100)) as runtime:
        await runtime.awarmup()
        rows = [{"question": f"How many? {number}", "context": []} for number in range(20)]
        results = await PREDICT.abatch(rows)
        report = await reported(runtime, 20)
    assert [each.route for each in results] == ["native"] * 20
    assert (report.same, report.different, len(model.asked)) == (20, 0, 20)


async def test_a_caller_never_hears_of_a_shadow_that_fails(model: Any) -> None:
    shadow = Shadow(share=1.0, compare="fields", even_if_not_idempotent=True)
    async with dspex.Runtime(model.lm, pools=1, shadow=shadow) as runtime:
        await runtime.awarmup()
        model.server.faults.push(None, HttpError(500, "down"))
        prediction = await PREDICT.acall(**INPUTS)
        report = await reported(runtime, 1)
    assert (prediction.answer, len(prediction.attempts)) == (1, 1)
    assert (report.failed, report.different) == ({"lm-server": 1}, 0)


async def test_a_stream_and_a_model_of_the_call_s_own_are_run_on_the_other_side_too(model: Any) -> None:
    other = Counting()
    async with other.server, dspex.Runtime(model.lm, pools=1, shadow=1.0) as runtime:
        own = dspex.LM("openai/other", api_base=other.server.api_base, api_key="none")
        predict = dspex.Predict("question, context: list[str] -> answer: int").with_options(idempotent=True)
        predict.set_lm(own)
        events = [event async for event in predict.astream(**INPUTS)]
        assert isinstance(events[-1], dspex.Prediction)
        report = await reported(runtime, 1)
    assert (report.different, len(other.asked), model.asked) == (1, 2, [])


async def test_a_runtime_that_closes_ends_its_shadows(model: Any) -> None:
    asked = asyncio.Event()
    go = asyncio.Event()

    async def answer(request: ChatRequest) -> str:
        if asked.is_set():
            await go.wait()
        asked.set()
        return "[[ ## answer ## ]]\n1\n\n[[ ## completed ## ]]"

    async with ModelServer(answer) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
        shadow = Shadow(share=1.0, even_if_not_idempotent=True, compare="fields")
        async with dspex.Runtime(lm, pools=1, shadow=shadow) as runtime:
            await PREDICT.acall(**INPUTS)
            await until(lambda: len(server.requests) == 2)
        report = runtime.shadow_report()
        go.set()
    assert (report.in_flight, report.same, report.different, report.failed) == (0, 0, 0, {})
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "dspex-shadow"]


def test_a_blocking_runtime_has_shadows_too(tmp_path: Path) -> None:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with ModelServer("[[ ## answer ## ]]\n1\n\n[[ ## completed ## ]]") as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="none")
        with dspex.Runtime(lm, pools=1, shadow=1.0) as runtime:
            PREDICT(**INPUTS)
            report = asyncio.run(reported(runtime, 1))
    assert (report.same, report.different) == (1, 0)
