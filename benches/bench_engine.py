"""`dspy.LM` over dspex's engine beside the same over DSPy's own: `python benches/bench_engine.py`.

The server is a process of its own and answers at once; what is counted is the CPU time per call of this
process, one after the other and with 64 in flight: `acall` on one event loop, blocking calls from 64 threads,
a stream of 300 pieces, and the engine alone. Most of a call is DSPy's own, whichever engine it has. Every
answer is checked before it is timed.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import dspy
from dspy import lm15
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine
from served import model_server

import dspex
from dspex.dspy import AsyncEngine, Engine

QUESTION = "Where does the Danube end? " * 40
ANSWER = "the Black Sea " * 100
CALLS = 128
ROUNDS = 5
IN_FLIGHT = 64


def asked() -> Any:
    return lm15.Request(model="openai/m", messages=(lm15.Message.user(QUESTION),))


class Side:
    """One engine, alone and under a `dspy.LM`."""

    def __init__(self, name: str, sync: Any, asynchronous: Any, lm: dspy.LM) -> None:
        self.name = name
        self.sync = sync
        self.asynchronous = asynchronous
        self.lm = lm


def in_threads(call: Callable[[], Any], at_once: int) -> None:
    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(lambda _: call(), range(CALLS)))


async def on_loop(call: Callable[[], Coroutine[Any, Any, Any]], at_once: int) -> None:
    left = iter(range(CALLS))

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(caller() for _ in range(at_once)))


def measured(runner: asyncio.Runner, side: Side, kind: str, at_once: int) -> float:
    """Milliseconds of CPU per call."""

    async def streamed() -> None:
        async for _ in side.asynchronous.stream(asked()):
            pass

    begun = time.process_time()
    if kind == "dspy.LM, acall":
        runner.run(on_loop(lambda: side.lm.acall(QUESTION), at_once))
    elif kind == "dspy.LM, threads":
        in_threads(lambda: side.lm(QUESTION), at_once)
    elif kind == "engine, async":
        runner.run(on_loop(lambda: side.asynchronous.complete(asked()), at_once))
    elif kind == "engine, threads":
        in_threads(lambda: side.sync.complete(asked()), at_once)
    else:
        runner.run(on_loop(streamed, at_once))
    return (time.process_time() - begun) / CALLS * 1e3


KINDS = ("engine, async", "engine, threads", "engine, a stream", "dspy.LM, acall", "dspy.LM, threads")


def compare(base: str) -> None:
    lm = dspex.LM("openai/m", api_base=base, api_key="none")
    config = {"api_keys": {"openai-chat": "none"}, "base_urls": {"openai-chat": base}}
    sync, asynchronous = Engine(lm), AsyncEngine(lm)
    settings = {"cache": False, "num_retries": 0}
    sides = [
        Side(
            "dspex",
            sync,
            asynchronous,
            dspy.LM("openai/m", engine=sync, async_engine=asynchronous, **settings),
        ),
        Side(
            "dspy's own",
            LM15Engine(lm15.RouterConfig(**config)),
            AsyncLM15Engine(lm15.RouterConfig(**config)),
            dspy.LM("openai/m", api_base=base, api_key="none", **settings),
        ),
    ]
    with asyncio.Runner() as runner, dspy.context(disable_history=True):
        for side in sides:
            assert side.lm(QUESTION) == [ANSWER]
            assert runner.run(side.lm.acall(QUESTION)) == [ANSWER]
        print(f"client CPU per call, medians of {ROUNDS} rounds of {CALLS} calls")
        for at_once in (1, IN_FLIGHT):
            print(f"\n{at_once} in flight")
            for kind in KINDS:
                # Rounds take turns, so that a slow moment of the machine falls on both.
                rounds = [[measured(runner, side, kind, at_once) for side in sides] for _ in range(ROUNDS)]
                ours, theirs = (statistics.median(times) for times in zip(*rounds, strict=True))
                print(f"{kind:20}dspex {ours:7.3f} ms   dspy's own {theirs:7.3f} ms   {ours / theirs:5.2f} x")
        runner.run(lm.aclose())
        runner.run(sides[1].asynchronous.aclose())
        runner.run(sides[1].lm.aclose())
    sync.close()
    sides[1].sync.close()


def main() -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    with model_server({"": ANSWER}) as base:
        compare(base)


if __name__ == "__main__":
    main()
