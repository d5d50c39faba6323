"""What is measured of a call, and what it costs, in one run: `python benches/bench_telemetry.py`.

The stages of a call beside the same with `time.perf_counter`; one event to one handler; a call of `Predict`
on a model that answers at once, with and without a handler; and a scrape of 200 histograms beside the same
number in the Python package prometheus-client, whose parser reads both texts before anything is timed.
Figures are the best of seven, in microseconds; what counts is their ratios.
"""

from __future__ import annotations

import asyncio
import time
import timeit
from collections.abc import Callable
from typing import Any

import prometheus_client
from prometheus_client.parser import text_string_to_metric_families

import dspex
from dspex._core import Counters, Router, StageTimes, metrics_text
from dspex.errors import LMServerError
from dspex.router._failures import Failures
from dspex.telemetry import attach
from dspex.telemetry._spans import Span
from dspex.testing import ScriptedLM

CALLS = 20_000
TARGETS = 50
HISTOGRAMS = 4 * TARGETS


def best(call: Callable[[], Any], number: int = CALLS) -> float:
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6


def stages_of(times: StageTimes) -> dict[str, float]:
    stages = times.begin()
    stages.mark("render")
    stages.mark("lm")
    stages.mark("parse")
    return stages.seconds()


def plain_stages() -> dict[str, float]:
    begun = time.perf_counter()
    rendered = time.perf_counter()
    answered = time.perf_counter()
    parsed = time.perf_counter()
    return {
        "render": rendered - begun,
        "lm": answered - rendered,
        "parse": parsed - answered,
        "total": parsed - begun,
    }


def ours() -> Callable[[], str]:
    """A scrape of so many targets, each with two histograms of its own and two of its stages."""
    router, stages = Router(), []
    for number in range(TARGETS):
        name = f"pool:{number}"
        router.add(name, "python")
        for outcome in ("served", "failed") * 50:
            router.record(router.decide(name), outcome)
        times = StageTimes()
        for stage in ("lm", "worker") * 50:
            times.add(stage, 0.01)
        stages.append((name, times))
    counters = Counters()
    return lambda: metrics_text(router, stages, counters, [])


def theirs() -> tuple[Callable[[], bytes], Any]:
    registry = prometheus_client.CollectorRegistry()
    histogram = prometheus_client.Histogram(
        "seconds", "How long.", ["target", "what"], registry=registry, buckets=[0.1 * n for n in range(1, 18)]
    )
    for number in range(TARGETS):
        for what in range(4):
            for _ in range(100):
                histogram.labels(f"pool:{number}", str(what)).observe(0.01)
    return lambda: prometheus_client.generate_latest(registry), histogram.labels("pool:0", "0")


def check(scrape: Callable[[], str], other: Callable[[], bytes]) -> None:
    """Both are read, and have as many histograms."""
    for text in (scrape(), other().decode()):
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        assert sum(sample.name.endswith("seconds_count") for sample in samples) == HISTOGRAMS


async def calls(prefix: str | None) -> float:
    """Microseconds of a call, with a handler or none."""
    predict = dspex.Predict("question -> answer")
    async with dspex.Runtime(ScriptedLM("[[ ## answer ## ]]\nblue")):
        handle = None if prefix is None else attach(prefix, lambda event: None)
        figures = []
        for _ in range(7):
            begun = time.perf_counter()
            for _ in range(2_000):
                await predict.acall(question="?")
            figures.append((time.perf_counter() - begun) / 2_000 * 1e6)
        if handle is not None:
            handle.detach()
        return min(figures)


def main() -> None:
    scrape, (generate, child) = ours(), theirs()
    check(scrape, generate)
    times = StageTimes()
    stages = times.begin()
    failures, error = Failures(Counters()), LMServerError("no")
    empty = best(lambda: None)
    span = Span()
    with attach("dspex.stage", lambda event: None):
        event = best(lambda: span.tell_part("dspex.stage.lm", 0.0, 0.0, {"target": "native"}))
    rows = {
        "a stage": best(lambda: stages.mark("lm")) - empty,
        "three stages, and their seconds": best(lambda: stages_of(times)),
        "the same with perf_counter, in no histogram": best(plain_stages),
        "prometheus-client: one observation": best(lambda: child.observe(0.01)),
        "an event to one handler": event,
        "an error, into the report": best(lambda: failures.add("native", error)),
        "a call that nobody listens to": asyncio.run(calls(None)),
        "a call, its end heard": asyncio.run(calls("dspex.call.end")),
        "a call, its five events heard": asyncio.run(calls("dspex")),
        f"a scrape of {HISTOGRAMS} histograms": best(scrape, 20),
        "prometheus-client: the same": best(generate, 5),
    }
    for name, figure in rows.items():
        print(f"{name:46}{figure:10.2f} us")


if __name__ == "__main__":
    main()
