"""Calls that a cache answers, beside DSPy's, in one run: `python benches/bench_cache.py`.

`Predict` with no examples and with 16, the answer in memory and on disk, blocking on one thread, awaited one
after the other, and awaited with 64 in flight. Before anything is timed it is seen to that both give the
same, that the server was asked once for it, and that another rollout asks again. For an answer on disk the
memory is emptied before each call, which is not timed. Rounds take turns; figures are medians in microseconds
a call. At last what the parts of a hit cost.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import dspex
from dspex._core import cache_key
from dspex.lm import Cache, LMRequest, Prompt
from dspex.testing import ModelServer

ROUNDS = 7
CALLS = 2_000
IN_FLIGHT = 64
SIGNATURE = "question, context: list[str] -> answer, confidence: float"
REPLY = "[[ ## answer ## ]]\nthe Black Sea\n\n[[ ## confidence ## ]]\n0.9\n\n[[ ## completed ## ]]"
CONTEXT = ["The Danube rises in the Black Forest.", "It ends in the Black Sea."]
INPUTS: dict[str, Any] = {"question": "Where does the Danube end?", "context": CONTEXT}
OTHERS = [{**INPUTS, "question": f"Where does river {n} rise?"} for n in range(IN_FLIGHT)]
DEMOS = [
    {**INPUTS, "question": f"Where does river {n} end?", "answer": "a lake", "confidence": 0.5}
    for n in range(16)
]

Forget = Callable[[], None]


class Side:
    """One side: its `Predict`, and how its memory is emptied."""

    def __init__(self, name: str, predict: Any, forget: Forget, calls: int) -> None:
        self.name = name
        self.predict = predict
        self.forget = forget
        self.calls = calls

    def blocking(self) -> float:
        begun = time.perf_counter()
        for _ in range(self.calls):
            self.predict(**INPUTS)
        return (time.perf_counter() - begun) / self.calls * 1e6

    def blocking_from_disk(self) -> float:
        took = []
        for _ in range(self.calls // 10):
            self.forget()
            begun = time.perf_counter()
            self.predict(**INPUTS)
            took.append(time.perf_counter() - begun)
        return statistics.median(took) * 1e6

    async def awaited(self) -> float:
        begun = time.perf_counter()
        for _ in range(self.calls):
            await self.predict.acall(**INPUTS)
        return (time.perf_counter() - begun) / self.calls * 1e6

    async def awaited_from_disk(self) -> float:
        took = []
        for _ in range(self.calls // 10):
            self.forget()
            begun = time.perf_counter()
            await self.predict.acall(**INPUTS)
            took.append(time.perf_counter() - begun)
        return statistics.median(took) * 1e6

    async def at_once_from_disk(self) -> float:
        """Many different answers at once, none of them in memory."""
        took = []
        for _ in range(max(1, self.calls // IN_FLIGHT // 4)):
            self.forget()
            begun = time.perf_counter()
            await asyncio.gather(*(self.predict.acall(**asked) for asked in OTHERS))
            took.append((time.perf_counter() - begun) / IN_FLIGHT)
        return statistics.median(took) * 1e6


def of_dspy(base: str, directory: Path, demos: int) -> Side:
    import dspy

    dspy.configure_cache(enable_disk_cache=True, enable_memory_cache=True, disk_cache_dir=str(directory))
    dspy.configure(lm=dspy.LM("openai/m", api_base=base, api_key="none", num_retries=0))
    predict = dspy.Predict(SIGNATURE)
    predict.demos = [dspy.Example(**demo) for demo in DEMOS[:demos]]
    return Side("dspy", predict, lambda: dspy.cache.reset_memory_cache(), CALLS // 20)


def of_dspex(cache: Cache, demos: int) -> Side:
    return Side("dspex", dspex.Predict(SIGNATURE, demos=DEMOS[:demos]), cache._state.memory.clear, CALLS)


def check(side: Side, server: ModelServer) -> None:
    before = len(server.requests)
    for _ in range(3):
        made = side.predict(**INPUTS)
        assert (made.answer, made.confidence) == ("the Black Sea", 0.9), side.name
    assert len(server.requests) == before + 1, side.name
    side.predict(**INPUTS, config={"rollout_id": 10_000, "temperature": 0.5})
    assert len(server.requests) == before + 2, side.name


def blocking(server: ModelServer, directory: Path, figures: dict[str, dict[str, list[float]]]) -> None:
    cache = Cache("disk", directory=directory / "ours")
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key="none", cache=cache)
    with dspex.Runtime(lm, pools=0):
        for demos in (0, 16):
            sides = [of_dspex(cache, demos), of_dspy(server.api_base, directory / f"theirs{demos}", demos)]
            for side in sides:
                check(side, server)
            flush(cache)
            for _ in range(ROUNDS):
                for side in sides:
                    add(figures, f"blocking, in memory, {demos} demos", side.name, side.blocking())
                    add(figures, f"blocking, on disk, {demos} demos", side.name, side.blocking_from_disk())


async def on_the_loop(
    server: ModelServer, directory: Path, figures: dict[str, dict[str, list[float]]]
) -> None:
    cache = Cache("disk", directory=directory / "ours")
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key="none", cache=cache)
    async with dspex.Runtime(lm, pools=0):
        sides = [of_dspex(cache, 0), of_dspy(server.api_base, directory / "theirs", 0)]
        for side in sides:
            await side.awaited_from_disk()
            await side.at_once_from_disk()
        flush(cache)
        asked = len(server.requests)
        for _ in range(ROUNDS):
            for side in sides:
                ways: dict[str, Callable[[], Awaitable[float]]] = {
                    "awaited, in memory": side.awaited,
                    "awaited, on disk": side.awaited_from_disk,
                    f"awaited, on disk, {IN_FLIGHT} at once": side.at_once_from_disk,
                }
                for name, way in ways.items():
                    add(figures, name, side.name, await way())
        assert len(server.requests) == asked
        parts(lm, cache)


def flush(cache: Cache) -> None:
    assert cache._state.disk is not None
    assert cache._state.disk.flush(30)


def add(figures: dict[str, dict[str, list[float]]], case: str, side: str, took: float) -> None:
    figures.setdefault(case, {}).setdefault(side, []).append(took)


def parts(lm: dspex.LM, cache: Cache) -> None:
    """What a hit is made of, on the prompt of the call without examples."""
    plan = dspex.ChatAdapter().compile(dspex.Signature(SIGNATURE))
    body = plan.body(INPUTS, [])
    assert isinstance(body, bytes)
    request = LMRequest(Prompt(body))
    key = lm._key(request, lm.settings)
    live = cache._state
    live.keep(key, dspex.lm.LMResponse((dspex.lm.LMChoice(REPLY, "stop"),), "m"))
    flush(cache)
    disk = live.disk
    assert disk is not None
    rows: dict[str, Callable[[], object]] = {
        "the body and its key": lambda: lm._key(request, lm.settings),
        f"the key alone, of {len(body):,} bytes": lambda: cache_key(b"scope", body),
        "the look into memory and the response": lambda: live.from_memory(key),
        "the look into the file": lambda: disk.read(key),
    }
    print()
    for name, part in rows.items():
        assert part() is not None, name
        took = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            for _ in range(CALLS):
                part()
            took.append((time.perf_counter() - begun) / CALLS * 1e6)
        print(f"{name:44}{statistics.median(took):10.2f}")


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    figures: dict[str, dict[str, list[float]]] = {}
    with ModelServer(answer=REPLY) as server, tempfile.TemporaryDirectory() as directory:
        blocking(server, Path(directory, "blocking"), figures)
        asyncio.run(on_the_loop(server, Path(directory, "loop"), figures))
    title = f"microseconds a call, medians of {ROUNDS} rounds"
    print(f"\n{title:44}{'dspex':>10}{'dspy':>10}{'ratio':>8}")
    for case, sides in figures.items():
        ours, theirs = (statistics.median(sides[name]) for name in ("dspex", "dspy"))
        print(f"{case:44}{ours:10.1f}{theirs:10.1f}{theirs / ours:8.1f}")


if __name__ == "__main__":
    main()
