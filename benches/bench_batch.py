"""A batch beside the bare client, in one run: `python benches/bench_batch.py`.

10,000 rows, 64 at once, of one `dspex.Predict` against a model's server in a process of its own; beside them
the same requests, with the messages made before, by `dspex.LM` alone, by as many callers. Rounds take turns;
figures are medians, and what counts is their ratios. The answers are compared before anything is timed.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable

from served import model_server

import dspex
from dspex.lm import LMRequest

ROWS = 10_000
AT_ONCE = 64
ROUNDS = 8
REPLY = "[[ ## answer ## ]]\nthe Black Sea\n\n[[ ## confidence ## ]]\n0.9"
SIGNATURE = "question, context: list[str] -> answer, confidence: float"
CONTEXT = ["The Danube rises in the Black Forest.", "It ends in the Black Sea."]

Way = Callable[[], int]


def ways(lm: dspex.LM, runtime: dspex.Runtime) -> dict[str, Way]:
    """Each way to do all rows; what it gives is how many answers came."""
    rows = [{"question": f"Where does river {n} end?", "context": CONTEXT} for n in range(ROWS)]
    predict = dspex.Predict(SIGNATURE, runtime=runtime)

    async def bare() -> int:
        adapter = dspex.ChatAdapter()
        requests = [LMRequest(adapter.format(SIGNATURE, [], row), {}, 60.0) for row in rows]
        left, texts = iter(requests), []

        async def caller() -> None:
            texts.extend([(await lm.complete(request)).texts[0] for request in left])

        begun = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        spent.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        return sum(text == REPLY for text in texts)

    spent: list[tuple[float, float]] = []

    def client() -> int:
        return runtime.submit(bare()).result()

    def batch() -> int:
        done = predict.batch(rows, AT_ONCE, progress=False)
        return sum(each.answer == "the Black Sea" for each in done)

    def as_completed() -> int:
        done = predict.batch_as_completed(rows, AT_ONCE, progress=False)
        return sum(each.answer == "the Black Sea" for _, each in done)

    def timed(way: Way) -> Way:
        def run() -> int:
            begun = time.perf_counter(), time.process_time()
            count = way()
            spent.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
            return count

        return run

    figures.append(spent)
    return {"dspex.LM alone": client, "batch": timed(batch), "batch_as_completed": timed(as_completed)}


figures: list[list[tuple[float, float]]] = []


def compare(base: str) -> None:
    lm = dspex.LM("openai/m", api_base=base, api_key="none")
    with dspex.Runtime(lm) as runtime:
        all_ways = ways(lm, runtime)
        clock: dict[str, list[float]] = {name: [] for name in all_ways}
        cpu: dict[str, list[float]] = {name: [] for name in all_ways}
        for name, way in all_ways.items():
            assert way() == ROWS, name
        for number in range(ROUNDS):
            # Every second round goes backwards, so that none always runs after the same other.
            for name, way in list(all_ways.items())[:: -1 if number % 2 else 1]:
                way()
                took, used = figures[0][-1]
                clock[name].append(took)
                cpu[name].append(used)
    base_rate = ROWS / statistics.median(clock["dspex.LM alone"])
    print(f"{ROWS} rows, {AT_ONCE} at once, medians of {ROUNDS} rounds")
    for name in all_ways:
        rate = ROWS / statistics.median(clock[name])
        used = statistics.median(cpu[name]) / ROWS * 1e6
        print(f"{name:22}{rate:8.0f} rows/s{rate / base_rate:7.2f}{used:10.0f} us CPU a row")


def main() -> None:
    with model_server({"": REPLY}) as base:
        compare(base)


if __name__ == "__main__":
    main()
