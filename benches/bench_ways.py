"""One DSPy program served in four ways, in one run: `python benches/bench_ways.py`.

The program asks the model twice: it makes a query of a question, then answers from a context. It runs as

- DSPy in the service's process, awaited (`acall`),
- the same with `dspex.dspy.ChatAdapter`, the drop-in,
- real DSPy in two worker processes (`route="python"`),
- the Rust core (`route="native"`).

The model's server is a process of its own. What is counted is the CPU time of the service's process per
program; the time of one program after the other, less that of the same two requests by bare aiohttp; and how
many programs a second finish when 50 are under way and the model takes 100 ms. All four must give the same
answer before anything is timed. Rounds take turns; figures are medians, and what counts is their ratios.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
from served import model_server

import dspex
import dspex.dspy

QUESTION = "Where does the Danube end?"
CONTEXT = ["The Danube rises in the Black Forest.", "It ends in the Black Sea."]
QUERY = "question -> query"
ANSWER = "query, context: list[str] -> answer, confidence: float"
REPLIES = {
    "Black Forest": "[[ ## answer ## ]]\nthe Black Sea\n\n[[ ## confidence ## ]]\n0.9",
    "": "[[ ## query ## ]]\nmouth of the Danube",
}
KEY = "none"
ROUNDS = 5
CALLS = 60
IN_FLIGHT = 50
DELAY_MS = 100

Program = Callable[[], Awaitable[str]]
WAYS = ("DSPy in process", "drop-in adapter", "real DSPy in two workers", "native")


async def ways(base: str, stack: AsyncExitStack) -> dict[str, Program]:
    """The program in each of its ways, against the server at `base`."""
    import dspy

    def in_process(adapter: dspy.Adapter) -> Program:
        lm = dspy.LM("openai/m", api_base=base, api_key=KEY, cache=False, num_retries=0)
        stack.push_async_callback(lm.aclose)
        query, answer = dspy.Predict(QUERY), dspy.Predict(ANSWER)

        async def run() -> str:
            with dspy.context(lm=lm, adapter=adapter):
                asked = await query.acall(question=QUESTION)
                return str((await answer.acall(query=asked.query, context=CONTEXT)).answer)

        return run

    lm = dspex.LM("openai/m", api_base=base, api_key=KEY)
    runtime = await stack.enter_async_context(dspex.Runtime(lm, pools=2))
    await runtime.awarmup()

    def served(route: str) -> Program:
        query, answer = (dspex.Predict(text, runtime=runtime) for text in (QUERY, ANSWER))

        async def run() -> str:
            asked = await query.acall(question=QUESTION, route=route)
            return str((await answer.acall(query=asked.query, context=CONTEXT, route=route)).answer)

        return run

    programs = (
        in_process(dspy.ChatAdapter()),
        in_process(dspex.dspy.ChatAdapter()),
        served("python"),
        served("native"),
    )
    return dict(zip(WAYS, programs, strict=True))


async def bare(base: str, stack: AsyncExitStack) -> Program:
    """The two requests of the program, by an HTTP client alone."""
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    bodies = []
    for text, inputs in (
        (QUERY, {"question": QUESTION}),
        (ANSWER, {"query": "mouth of the Danube", "context": CONTEXT}),
    ):
        messages = dspex.ChatAdapter().format(text, [], inputs)
        bodies.append(json.dumps({"model": "m", "messages": messages}).encode())

    async def run() -> str:
        for body in bodies:
            async with session.post(
                f"{base}/chat/completions", data=body, headers={"Content-Type": "application/json"}
            ) as reply:
                text = str(json.loads(await reply.read())["choices"][0]["message"]["content"])
        return text

    return run


async def serially(run: Program) -> tuple[float, float]:
    """Milliseconds per program, one after the other: CPU of this process, and the clock's."""
    cpu, begun = time.process_time(), time.perf_counter()
    for _ in range(CALLS):
        await run()
    return (time.process_time() - cpu) / CALLS * 1e3, (time.perf_counter() - begun) / CALLS * 1e3


async def at_once(run: Program) -> float:
    """Programs a second, with `IN_FLIGHT` under way."""
    left = iter(range(IN_FLIGHT * 3))

    async def caller() -> None:
        for _ in left:
            await run()

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return IN_FLIGHT * 3 / (time.perf_counter() - begun)


async def compare(quick: str, slow: str) -> None:
    cpu: dict[str, list[float]] = {name: [] for name in WAYS}
    clock: dict[str, list[float]] = {name: [] for name in WAYS}
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    floor = []
    async with AsyncExitStack() as stack:
        programs = await ways(quick, stack)
        for name, run in programs.items():
            assert await run() == "the Black Sea", name
        alone = await bare(quick, stack)
        assert "the Black Sea" in await alone()
        for _ in range(ROUNDS):
            floor.append((await serially(alone))[1])
            for name, run in programs.items():
                used, took = await serially(run)
                cpu[name].append(used)
                clock[name].append(took)
    async with AsyncExitStack() as stack:
        programs = await ways(slow, stack)
        for name, run in programs.items():
            assert await run() == "the Black Sea", name
        for _ in range(ROUNDS):
            for name, run in programs.items():
                rates[name].append(await at_once(run))
    ideal = IN_FLIGHT / (2 * DELAY_MS / 1e3)
    base = statistics.median(floor)
    first = statistics.median(cpu[WAYS[0]])
    print(f"a program of two LM calls, medians of {ROUNDS} rounds; bare HTTP takes {base:.1f} ms\n")
    print(f"{'':26}{'CPU in the service':>20}{'ratio':>8}{'over bare HTTP':>16}{IN_FLIGHT:>8} at once")
    for name in WAYS:
        used, took, rate = (statistics.median(each[name]) for each in (cpu, clock, rates))
        over = f"{took - base:13.2f} ms"
        print(f"{name:26}{used:17.2f} ms{used / first:8.2f}{over}{rate:8.0f} of {ideal:.0f}/s")


def main() -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with model_server(REPLIES) as quick, model_server(REPLIES, delay=DELAY_MS) as slow:
        asyncio.run(compare(quick, slow))


if __name__ == "__main__":
    main()
