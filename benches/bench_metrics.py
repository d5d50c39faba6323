"""Scores beside DSPy's, in one run: `python benches/bench_metrics.py`.

Absolute figures wander between machines and runs; what counts is the column of ratios. Both sides' scores are
compared before they are timed.
"""

from __future__ import annotations

import functools
import os
import statistics
import timeit

from dspex import _core, metrics

ANSWER = "The Eiffel Tower, which was built for the World's Fair of 1889, is in Paris."
REFERENCES = ["Paris", "the Eiffel Tower in Paris, France"]
ROUNDS = 15
CALLS = 1000


def main() -> None:
    if _core._debug_build:
        raise SystemExit("build the release extension first: make build")
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    from dspy.evaluate.metrics import EM, F1

    print(f"one answer, two references; medians of {ROUNDS} rounds of {CALLS} calls")
    for name, ours, theirs in (("exact match", metrics.exact_match, EM), ("F1", metrics.f1, F1)):
        for script, answer in (("ASCII", ANSWER), ("accents", ANSWER.replace("Eiffel", "Éiffel"))):
            assert ours(answer, REFERENCES) == theirs(answer, REFERENCES)
            taken: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for times, score in zip(taken, (ours, theirs), strict=True):
                    call = timeit.timeit(functools.partial(score, answer, REFERENCES), number=CALLS)
                    times.append(call / CALLS * 1e6)
            mine, dspy = map(statistics.median, taken)
            print(f"{name:14}{script:10}{mine:8.2f} us   DSPy {dspy:8.2f} us {dspy / mine:8.1f} x")


if __name__ == "__main__":
    main()
