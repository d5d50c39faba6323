"""What a runtime counts, as Prometheus reads it, and its report of what failed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import dspex
from dspex._core import Counters, StageTimes, metrics_text
from dspex._core import Router as CoreRouter
from dspex.errors import ConfigError, DspexError, LMRateLimitError, LMServerError, RouteError
from dspex.prediction import Prediction
from dspex.router import AnyOperation, Breaker, Retry
from dspex.router._failures import EXAMPLES, LONGEST, MOST, Failures
from dspex.testing import HttpError, ModelServer, ScriptedLM, no_waiting

BLUE = "[[ ## answer ## ]]\nblue"
QA = dspex.Predict("question -> answer")
LABELS = {
    "target", "outcome", "category", "reason", "result", "state", "stage", "kind", "code", "pool", "le",
}  # fmt: skip


class Scrape:
    """What a scrape says, by the name of the sample and its labels."""

    def __init__(self, text: str) -> None:
        self.samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            assert family.documentation
            assert family.type in ("counter", "gauge", "histogram")
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
        for name, found in self.samples.items():
            keys = [tuple(sorted(labels.items())) for labels, _ in found]
            assert len(set(keys)) == len(keys), f"{name} has a row twice"

    def sum(self, name: str, **labels: str) -> float:
        found = self.samples.get(name, [])
        return sum(value for of, value in found if labels.items() <= of.items())


class Failing:
    """A target of the user's that raises what it is given."""

    name = "own"
    side = "python"
    lacks = ()

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        if self.error is not None:
            raise self.error
        return Prediction.from_completions([{"answer": "own"}])


def test_the_text_is_prometheus_s_and_has_the_labels_of_the_table_and_no_others() -> None:
    with ModelServer(BLUE) as server:
        server.faults.push(HttpError(500, "no"))
        lm = dspex.LM("openai/x", api_base=server.api_base, api_key="none")
        with dspex.Runtime(lm, pools=1) as runtime:
            with pytest.raises(LMServerError):
                QA(question="?")
            for _ in range(3):
                QA(question="?")
            with pytest.raises(RouteError):
                QA.with_options(route="nowhere")(question="?")
            text = runtime.metrics()
        scrape = Scrape(text)
        found = {label for rows in scrape.samples.values() for labels, _ in rows for label in labels}
        assert found <= LABELS
        assert scrape.sum("dspex_attempts_total", target="native", outcome="served") == 3
        assert scrape.sum("dspex_attempts_total", outcome="refused", category="transient") == 1
        assert scrape.sum("dspex_attempts_total") == len(server.requests)
        assert scrape.sum("dspex_attempt_seconds_count", target="native", outcome="served") == 3
        assert scrape.sum("dspex_decisions_total", target="native", reason="preferred") == 4
        assert scrape.sum("dspex_undecided_total", reason="unknown-route") == 1
        assert scrape.sum("dspex_errors_total", target="native", code="lm-server") == 1
        assert scrape.sum("dspex_errors_total", target="", code="unknown-route") == 1
        assert scrape.sum("dspex_stage_seconds_count", target="native", stage="lm") == 4
        assert scrape.sum("dspex_stage_seconds_count", target="native", stage="parse") == 3
        assert scrape.sum("dspex_breaker_state", target="pool:general", state="closed") == 1
        assert scrape.sum("dspex_breaker_state", target="pool:general") == 1
        # The pool has not started.
        assert "dspex_pool_workers" not in scrape.samples


def test_what_targets_lack_is_counted_by_its_code_and_an_explanation_counts_nothing() -> None:
    program = dspex.remote("dspy.ReAct", "question -> answer", tools=[])
    with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(Failing())
        assert program.with_options(route="own")(question="?").answer == "own"
        assert program(question="?").route == "own"
        for route in ("native", "nowhere"):
            with pytest.raises(DspexError):
                program.with_options(route=route)(question="?")
        before = runtime.metrics()
        for route in ("native", "nowhere", "own"):
            runtime.explain(QA.with_options(route=route), question="?")
        assert runtime.metrics() == before
        scrape = Scrape(before)
    assert scrape.sum("dspex_decisions_total", target="own", reason="unable") == 1
    assert scrape.sum("dspex_unable_total", code="module-needs-dspy") == 1
    assert scrape.sum("dspex_unable_total") == 1
    assert scrape.sum("dspex_undecided_total", reason="native-unable") == 1
    assert scrape.sum("dspex_undecided_total", reason="unknown-route") == 1
    assert scrape.sum("dspex_errors_total", target="", code="module-needs-dspy") == 1


def test_histograms_are_cumulative_and_their_buckets_end_at_the_count() -> None:
    with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        for _ in range(10):
            QA(question="?")
        scrape = Scrape(runtime.metrics())
    rows = [
        (float(labels["le"]), value)
        for labels, value in scrape.samples["dspex_attempt_seconds_bucket"]
        if labels["outcome"] == "served"
    ]
    assert rows == sorted(rows)
    assert [value for _, value in rows] == sorted(value for _, value in rows)
    assert rows[-1] == (float("inf"), 10.0)
    assert scrape.sum("dspex_attempt_seconds_sum", outcome="served") > 0


def test_each_attempt_of_a_call_that_is_made_again_is_counted_once() -> None:
    with ModelServer(BLUE) as server, no_waiting():
        lm = dspex.LM("openai/x", api_base=server.api_base, api_key="none")
        with dspex.Runtime(lm, retry=Retry(attempts=3)) as runtime:
            for _ in range(3):
                server.faults.push(HttpError(429, "slow down"))
            with pytest.raises(LMRateLimitError):
                QA(question="?")
            scrape, report = Scrape(runtime.metrics()), runtime.report()
        assert len(server.requests) == 3
    assert scrape.sum("dspex_attempts_total") == scrape.sum("dspex_errors_total") == report.total == 3
    assert scrape.sum("dspex_stage_seconds_count", stage="lm") == 3


def test_tokens_are_those_that_the_server_counted_under_whichever_names() -> None:
    class Says(Failing):
        def __init__(self, usage: Any) -> None:
            super().__init__()
            self.usage = usage

        async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
            return Prediction.from_completions([{"answer": "x"}], usage=self.usage)

    target = Says({})
    usages: list[Mapping[str, Any]] = [
        {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
        {"input_tokens": 100, "output_tokens": 30},
        {"prompt_tokens": None, "completion_tokens": "many"},
        {"prompt_tokens": -1},
        {},
    ]
    with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(target)
        for usage in usages:
            target.usage = usage
            QA.with_options(route="own")(question="?")
        scrape = Scrape(runtime.metrics())
    assert scrape.sum("dspex_tokens_total", target="own", kind="input") == 110
    assert scrape.sum("dspex_tokens_total", target="own", kind="output") == 33


def test_every_category_is_counted_and_one_that_is_none_of_ours_counts_as_an_error_alone() -> None:
    class OddError(DspexError):
        code = "odd"
        category = "of-my-own"  # type: ignore[assignment]

    target = Failing(OddError("?"))
    with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(target, breaker=Breaker(minimum=1_000))
        for error in (OddError("?"), ConfigError("?"), RuntimeError("?")):
            target.error = error
            with pytest.raises(type(error)):
                QA.with_options(route="own")(question="?")
        scrape = Scrape(runtime.metrics())
    assert scrape.sum("dspex_attempts_total", target="own", outcome="failed", category="") == 1
    assert scrape.sum("dspex_attempts_total", target="own", outcome="refused", category="operator") == 1
    assert scrape.sum("dspex_attempts_total", target="own", outcome="failed", category="internal") == 1
    assert scrape.sum("dspex_errors_total", target="own", code="unexpected") == 1
    assert scrape.sum("dspex_in_flight") == 0


def test_codes_without_end_are_counted_together_and_the_text_stays_short() -> None:
    counters = Counters()
    for number in range(2_000):
        counters.add("dspex_errors", ["own", f"code-{number}"])
    text = metrics_text(CoreRouter(), [], counters, [])
    scrape = Scrape(text)
    assert len(scrape.samples["dspex_errors_total"]) == 201
    assert scrape.sum("dspex_errors_total", code="_overflow", target="_overflow") == 1_800
    assert scrape.sum("dspex_errors_total") == 2_000
    assert len(text) < 20_000


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "é☃", "", "x" * 1_000])
def test_the_value_of_a_label_is_read_as_it_was_written_or_cut(value: str) -> None:
    counters = Counters()
    counters.add("dspex_errors", ["own", value])
    scrape = Scrape(metrics_text(CoreRouter(), [], counters, []))
    assert scrape.samples["dspex_errors_total"] == [({"target": "own", "code": value[:100]}, 1.0)]


def test_a_metric_or_a_label_that_is_in_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no metric"):
        Counters().add("dspex_errors", ["own"])
    with pytest.raises(ValueError, match="no metric"):
        metrics_text(CoreRouter(), [], Counters(), [("dspex_user_id", ["7"], 1.0)])


async def test_metrics_are_had_from_any_loop_by_the_awaitable_twin() -> None:
    async with dspex.Runtime(ScriptedLM(BLUE)) as closed:
        pass
    assert "dspex_in_flight" in await closed.ametrics()
    async with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        assert runtime.metrics() == await runtime.ametrics()
        text = await asyncio.to_thread(lambda: asyncio.run(runtime.ametrics()))
        assert Scrape(text).sum("dspex_in_flight", target="native") == 0


def test_stages_add_up_to_the_total_and_are_counted_each() -> None:
    times = StageTimes()
    stages = times.begin()
    render = stages.mark("render")
    stages.put("lm", 2.0)
    parse = stages.mark("parse")
    seconds = stages.seconds()
    assert list(seconds) == ["render", "lm", "parse", "total"]
    assert (seconds["render"], seconds["lm"], seconds["parse"]) == (render, 2.0, parse)
    assert seconds["total"] == pytest.approx(render + 2.0 + parse)
    scrape = Scrape(metrics_text(CoreRouter(), [("t", times)], Counters(), []))
    counts = {labels["stage"]: value for labels, value in scrape.samples["dspex_stage_seconds_count"]}
    assert counts == {"render": 1, "lm": 1, "parse": 1}
    with pytest.raises(ValueError, match="no such stage"):
        stages.mark("dream")


# --- the report ---


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_the_report_has_each_kind_of_error_its_number_and_its_last_ones() -> None:
    with ModelServer(BLUE) as server:
        lm = dspex.LM("openai/x", api_base=server.api_base, api_key="a-very-own-key")
        with dspex.Runtime(lm) as runtime:
            assert str(runtime.report()) == "no errors"
            for _ in range(2):
                server.faults.push(HttpError(500, "the key a-very-own-key is no good"))
                with pytest.raises(LMServerError):
                    QA(question="?")
            with pytest.raises(RouteError):
                QA.with_options(route="nowhere")(question="?")
        report = runtime.report()
    assert report.total == 3
    first, second = report.errors
    assert (first.target, first.error, first.code, first.count) == ("native", "LMServerError", "lm-server", 2)
    assert (second.target, second.code, second.category) == ("", "unknown-route", "caller")
    assert "is no good" in first.last[-1].message
    assert "a-very-own-key" not in str(report) + repr(report)
    assert "LMServerError[lm-server]" in str(report)


@pytest.mark.parametrize(
    "message",
    [
        "Incorrect API key provided: sk-proj-abcdefghijklmnop",
        "Authorization: Bearer abcd.efgh",
        "could not reach http://admin:hunter2hunter2@host/v1",
        "AKIAABCDEFGHIJKLMNOP was refused",
        "own-secret-of-the-model",
    ],
)
def test_a_message_is_kept_without_what_looks_like_a_secret(message: str) -> None:
    failures = Failures(Counters(), lambda: ["own-secret-of-the-model"])
    failures.add("own", DspexError(message))
    (kind,) = failures.report().errors
    (example,) = kind.last
    assert "***" in example.message
    for secret in ("abcdefgh", "abcd.efgh", "hunter2", "ABCDEFGH", "own-secret"):
        assert secret not in example.message


def test_the_report_is_bounded_whatever_is_raised() -> None:
    failures = Failures(Counters(), clock=Clock())
    for number in range(MOST * 3):
        for _ in range(2):
            failures.add("own", DspexError("x" * 100_000, code=f"code-{number}"))
    report = failures.report()
    assert report.total == MOST * 6
    assert len(report.errors) == MOST + 1
    rest = next(kind for kind in report.errors if kind.code == "_overflow")
    assert rest.count == MOST * 4
    assert report.errors[0] is rest
    assert all(len(kind.last) <= EXAMPLES for kind in report.errors)
    assert {len(example.message) for kind in report.errors for example in kind.last} == {LONGEST}


def test_of_a_storm_of_one_kind_all_are_counted_and_few_are_read() -> None:
    times = iter([n / 1_000 for n in range(1_000)])
    failures = Failures(Counters(), clock=lambda: next(times))
    for number in range(1_000):
        failures.add("own", DspexError(f"number {number}"))
    (kind,) = failures.report().errors
    assert kind.count == 1_000
    read = [example.time for example in kind.last]
    assert len(read) == EXAMPLES
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(read))
    assert read[-1] > 0.85


def test_an_error_that_another_target_made_good_is_in_the_report() -> None:
    target = Failing(dspex.errors.WorkerStartError("no"))
    with dspex.Runtime(ScriptedLM(BLUE), strategy="prefer-python") as runtime:
        runtime.add_target(target)
        assert QA(question="?").answer == "blue"
        found = Counter((kind.target, kind.code) for kind in runtime.report().errors)
    assert found == {("own", "worker-start"): 1}
