"""Events and metrics over the border of processes, and beside what the model's server saw."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support import programs, streamed_programs
from tests.support.models import Said

import dspex
from dspex.errors import DspexError, LMServerError, RemoteError, WorkerDiedError
from dspex.pool import Recycling
from dspex.telemetry import Event, attach, use_trace
from dspex.testing import HttpError, ModelServer, captured_events

BLUE = "[[ ## answer ## ]]\nblue"
QA = dspex.Predict("question -> answer")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def totals(text: str) -> Callable[..., float]:
    """What a scrape says: the sum of the rows of a sample that have these labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(name: str, **labels: str) -> float:
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    return total


@pytest.fixture(autouse=True)
def current(runtime: dspex.Runtime, said: Said) -> None:
    said.reply, said.answer = BLUE, None
    runtime.warmup()  # or the events of the first call would be those of the pool's start too


def test_what_a_worker_did_is_a_part_of_the_attempt_that_asked_it(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = "[[ ## draft ## ]]\nd\n\n[[ ## answer ## ]]\nblue"
    program = dspex.program(programs.TwoSteps, runtime=runtime)
    with captured_events() as events:
        program(question="sky?")
    names = ["dspex.stage.worker", "dspex.stage.lm", "dspex.stage.lm", "dspex.attempt.end", "dspex.call.end"]
    assert events.names == names
    worker, first, second, attempt, call = events
    assert [event.parent_id for event in (worker, first, second, attempt)] == [
        attempt.span_id,
        worker.span_id,
        worker.span_id,
        call.span_id,
    ]
    assert {event.trace_id for event in events} == {call.trace_id}
    assert call.attributes["operation"] == "module"
    assert attempt.attributes["target"] == "pool:general"
    assert first.time <= second.time <= worker.time
    assert (first.seconds or 0) + (second.seconds or 0) <= (worker.seconds or 0) <= (attempt.seconds or 0)


def test_the_worker_s_code_finds_the_span_of_its_attempt(runtime: dspex.Runtime) -> None:
    program = dspex.program(programs.Traced, runtime=runtime)
    with use_trace(PARENT):
        assert program(question="?").traceparent == PARENT
        with captured_events() as events:
            found = program(question="?").traceparent
    assert program(question="?").traceparent is None
    (attempt,) = events.named("dspex.attempt")
    (call,) = events.named("dspex.call")
    assert found == f"00-{PARENT.split('-')[1]}-{attempt.span_id}-01"
    assert call.parent_id == PARENT.split("-")[2]


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_worker_did_before_it_raised_comes_back_with_the_error(
    runtime: dspex.Runtime, streamed: bool
) -> None:
    program = dspex.program(streamed_programs.Breaks, runtime=runtime)
    call = (lambda: list(program.stream(question="?"))) if streamed else (lambda: program(question="?"))
    with captured_events() as events, pytest.raises(RemoteError):
        call()
    assert events.names == ["dspex.stage.worker", "dspex.stage.lm", "dspex.attempt.error", "dspex.call.error"]
    assert events[-1].attributes["streamed"] is streamed
    assert "no such city" not in repr(list(events))


def test_a_streamed_call_of_a_worker_tells_its_stages(runtime: dspex.Runtime) -> None:
    ask = dspex.Predict("question -> answer", runtime=runtime).with_options(route="python")
    with captured_events("dspex.stage") as events:
        list(ask.stream(question="?"))
    assert events.names == ["dspex.stage.worker", "dspex.stage.lm"]


def test_a_program_that_asks_without_end_sends_so_many_rows_and_counts_the_rest(
    runtime: dspex.Runtime, said: Said
) -> None:
    program = dspex.program(programs.AsksOften, runtime=runtime)
    before = totals(runtime.metrics())("dspex_stage_seconds_count", target="pool:general", stage="lm")
    with captured_events("dspex.stage.lm") as events:
        program(times=100)
    after = totals(runtime.metrics())("dspex_stage_seconds_count", target="pool:general", stage="lm")
    assert after - before == 100
    assert len(events) == 64
    assert events[-1].attributes["count"] == 37


async def test_counters_are_what_the_model_s_server_saw_under_concurrency_and_recycling() -> None:
    """Faults, retries by nobody, both routes at once, and workers that are replaced after five calls."""
    spec = dspex.PoolSpec(workers=2, recycling=Recycling(requests=5))
    with ModelServer(BLUE) as server:
        for n in range(60):
            if n % 4 == 0:
                server.faults.push(HttpError(500 if n % 8 else 429, "no"))
            else:
                server.faults.push(None)
        lm = dspex.LM("openai/x", api_base=server.api_base, api_key="none")
        async with dspex.Runtime(lm, pools=spec, breaker=None) as runtime:
            outcomes: Counter[str] = Counter()
            tokens: dict[str, list[int]] = {"input": [], "output": []}

            async def ask(number: int) -> None:
                route = "python" if number % 3 == 0 else "native"
                try:
                    usage = (await QA.with_options(route=route).acall(question=str(number))).usage
                    tokens["input"].append(usage["prompt_tokens"])
                    tokens["output"].append(usage["completion_tokens"])
                    outcomes[f"{route} served"] += 1
                except DspexError as error:
                    outcomes[f"{route} {error.code}"] += 1

            replaced, ready = asyncio.Event(), list[Event]()

            def count(event: Event) -> None:
                ready.append(event)
                if len(ready) > 2:
                    replaced.set()

            with attach("dspex.worker.ready", count):
                await asyncio.gather(*(ask(number) for number in range(45)))
                await asyncio.wait_for(replaced.wait(), 60)
                await asyncio.gather(*(ask(number) for number in range(45, 90)))
            total = totals(await runtime.ametrics())
            errors = runtime.report()
        served = sum(count for name, count in outcomes.items() if name.endswith("served"))
        assert len(server.requests) == 90
        assert total("dspex_stage_seconds_count", stage="lm") == 90
        assert total("dspex_stage_seconds_count", stage="lm", target="pool:general") == 30
        assert total("dspex_attempts_total") == 90
        assert total("dspex_attempts_total", outcome="served") == served
        assert total("dspex_attempts_total", target="native", outcome="served") == outcomes["native served"]
        assert total("dspex_attempts_total", outcome="refused", category="transient") == 90 - served
        assert errors.total == 90 - served == 15
        assert total("dspex_errors_total") == 15
        assert total("dspex_tokens_total", kind="input") == sum(tokens["input"])
        assert total("dspex_tokens_total", kind="output") == sum(tokens["output"])


async def test_a_pool_s_life_is_told_in_its_order_and_a_death_is_counted() -> None:
    with ModelServer(BLUE) as server, captured_events() as events:
        lm = dspex.LM("openai/x", api_base=server.api_base, api_key="none")
        async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
            await QA.with_options(route="python").acall(question="?")
            with pytest.raises(WorkerDiedError):
                await dspex.program(programs.Dies).acall(question="?")
            await QA.with_options(route="python").acall(question="?")
            total = totals(await runtime.ametrics())
    assert total("dspex_pool_deaths_total", pool="general") == 1
    assert total("dspex_pool_workers", pool="general", state="ready") == 1
    assert total("dspex_pool_wanted", pool="general") == 1
    assert total("dspex_pool_waiting", pool="general") == 0
    story = [name for name in events.names if name.startswith(("dspex.worker", "dspex.pool"))]
    began = ["starting", "ready", "stopping", "dead", "starting", "ready"]
    assert [name for name in story if name.startswith("dspex.worker")][:6] == [
        f"dspex.worker.{state}" for state in began
    ]
    assert [name for name in story if name.startswith("dspex.pool")] == [
        f"dspex.pool.{state}" for state in ("ready", "draining", "stopping", "dead")
    ]
    died = next(event for event in events.named("dspex.attempt.error"))
    assert died.attributes["code"] == "worker-died"
    assert {event.attributes["pool"] for event in events.named("dspex.pool")} == {"general"}


def test_a_native_error_and_one_of_a_worker_are_reported_alike(runtime: dspex.Runtime, said: Said) -> None:
    before = runtime.report().total
    for route in ("native", "python"):
        said.server.faults.push(HttpError(500, "no"))
        with pytest.raises(LMServerError):
            dspex.Predict("question -> answer", runtime=runtime).with_options(route=route)(question="?")
    report = runtime.report()
    assert report.total == before + 2
    found = {
        kind.target: (kind.error, kind.code, kind.category)
        for kind in report.errors
        if kind.code == "lm-server"
    }
    assert found == dict.fromkeys(("native", "pool:general"), ("LMServerError", "lm-server", "transient"))
