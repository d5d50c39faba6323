"""A group in the place of a language model: both routes of a runtime, streams, saved programs, callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.lm import RateLimit
from dspex.testing import Cut, HttpError, ModelServer

REPLY = "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"


@pytest.fixture
def servers() -> Iterator[list[ModelServer]]:
    with ModelServer(REPLY) as first, ModelServer(REPLY) as second:
        yield [first, second]


def group_of(servers: list[ModelServer], **settings: Any) -> dspex.lm.LMGroup:
    lms = [dspex.LM("openai/m", api_base=server.api_base, api_key="k") for server in servers]
    return dspex.LM.group(lms, strategy="ordered", **settings)


def test_calls_go_over_natively_and_a_worker_asks_the_first_deployment(servers: Any) -> None:
    group = group_of(servers)
    qa = dspex.Predict("question -> answer")
    with dspex.Runtime(group, pools=dspex.PoolSpec(workers=1)):
        servers[0].faults.push(HttpError(500), HttpError(500))
        assert [qa(question=str(number)).answer for number in range(2)] == ["blue", "blue"]
        assert [len(server.requests) for server in servers] == [2, 2]
        answered = qa.with_options(route="python")(question="w")
        assert (answered.answer, answered.route) == ("blue", "pool:general")
        assert [len(server.requests) for server in servers] == [3, 2]
        servers[0].faults.push(HttpError(500))
        with pytest.raises(dspex.errors.LMServerError):  # it has no other to ask
            qa.with_options(route="python")(question="x")
    assert [sum(row[2:6]) for row in group.counts()] == [2, 2], "a worker's calls do not count"


def test_a_module_s_own_group_is_asked_and_closed_with_the_runtime(servers: Any) -> None:
    group = group_of(servers)
    with dspex.Runtime("openai/other", pools=0):
        qa = dspex.Predict("question -> answer", lm=group)
        assert qa(question="q").answer == "blue"
        rows = qa.batch([{"question": str(number)} for number in range(20)])
        assert [row.answer for row in rows] == ["blue"] * 20
    assert [sum(row[2:6]) for row in group.counts()] == [21, 0]


async def test_a_stream_of_a_module_goes_over_before_its_first_event(servers: Any) -> None:
    servers[0].faults.push(Cut())
    group = group_of(servers)
    async with dspex.Runtime(group):
        events = [event async for event in dspex.Predict("question -> answer").astream(question="q")]
    last = events[-1]
    assert isinstance(last, dspex.Prediction)
    assert last.answer == "blue"
    assert [len(server.requests) for server in servers] == [1, 1]


async def test_usage_of_streams_corrects_the_limits_of_a_deployment(servers: Any) -> None:
    limits = RateLimit(tokens_per_minute=3_000, burst=1)
    lm = dspex.LM("openai/m", api_base=servers[0].api_base, api_key="k", limits=limits, max_tokens=2_000)
    async with dspex.Runtime(dspex.LM.group([lm])):
        qa = dspex.Predict("question -> answer")
        for _ in range(3):
            last = [event async for event in qa.astream(question="q")][-1]
            assert isinstance(last, dspex.Prediction)
            assert "limit" not in last.timings


def test_a_saved_program_names_the_model_of_the_first_deployment(servers: Any, tmp_path: Path) -> None:
    group = group_of(servers, name="fast")
    qa = dspex.Predict("question -> answer", lm=group)
    state = qa.dump_state()
    assert state["lm"]["model"] == "openai/m"
    assert "api_key" not in state["lm"]


class Heard(dspex.callbacks.BaseCallback):
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.asked.append(instance)


def test_callbacks_are_the_group_s_and_hear_of_a_call_once(servers: Any) -> None:
    heard = Heard()
    group = group_of(servers, callbacks=[heard])
    servers[0].faults.push(HttpError(503))
    with dspex.Runtime(group):
        assert dspex.Predict("question -> answer")(question="q").answer == "blue"
    assert heard.asked == [group]
