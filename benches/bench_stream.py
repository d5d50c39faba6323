"""A reply of a thousand chunks, streamed: `python benches/bench_stream.py`.

The server is a process of its own and answers at once, one word to a chunk. Counted are the client's CPU time
for a whole stream with typed fields, in dspex and by `dspy.streamify` with a listener for each field, and the
time to the first text beside a reader that only has aiohttp. Values are compared before anything is timed.
Rounds take turns; figures are medians, and what counts is their ratio.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import dspy
from served import model_server

import dspex
from dspex.events import TextDelta

WORDS = 980
TEXT = " ".join(f"word{number}" for number in range(WORDS))
REPLY = f'[[ ## answer ## ]]\n{TEXT}\n\n[[ ## tags ## ]]\n["a", "b"]\n\n[[ ## completed ## ]]'
SIGNATURE = "question -> answer: str, tags: list[str]"
QUESTION = "Where does the Danube end?"
ROUNDS = 15

Read = Callable[[], Awaitable[float]]
"""Reads a whole stream and gives the seconds to its first text."""


async def contenders(base: str, stack: AsyncExitStack) -> dict[str, Read]:
    lm = dspex.LM("openai/m", api_base=base, api_key="none")
    await stack.enter_async_context(dspex.Runtime(lm, pools=0))
    qa = dspex.Predict(SIGNATURE)

    async def ours() -> float:
        begun, first, text = time.perf_counter(), 0.0, ""
        async for event in qa.astream(question=QUESTION):
            if isinstance(event, TextDelta):
                first = first or time.perf_counter() - begun
                text += event.text
            elif isinstance(event, dspex.Prediction):
                assert (text, event.tags) == (TEXT, ["a", "b"])
        return first

    session = await stack.enter_async_context(aiohttp.ClientSession())
    asked: list[dict[str, str]] = []

    async def bare() -> float:
        body = {"model": "m", "messages": asked, "stream": True}
        begun, first, text = time.perf_counter(), 0.0, ""
        async with session.post(f"{base}/chat/completions", json=body) as answer:
            async for line in answer.content:
                data = line.removeprefix(b"data: ").strip()
                if data.startswith(b"{"):
                    choices = json.loads(data)["choices"]
                    piece = choices[0]["delta"].get("content") if choices else None
                    if piece:
                        text += piece
                        if not first and "word0" in text:
                            first = time.perf_counter() - begun
        assert text == REPLY
        return first

    theirs = dspy.LM("openai/m", api_base=base, api_key="none", cache=False, num_retries=0)
    stack.push_async_callback(theirs.aclose)
    stack.enter_context(dspy.context(lm=theirs, adapter=dspy.ChatAdapter()))

    async def by_dspy() -> float:
        # A program with listeners streams once, so each stream makes its own, as its users do.
        program = dspy.streamify(
            dspy.Predict(SIGNATURE),
            stream_listeners=[
                dspy.streaming.StreamListener(signature_field_name=name) for name in ("answer", "tags")
            ],
        )
        begun, first, text = time.perf_counter(), 0.0, ""
        async for chunk in program(question=QUESTION):
            if isinstance(chunk, dspy.streaming.StreamResponse) and chunk.signature_field_name == "answer":
                first = first or time.perf_counter() - begun
                text += chunk.chunk
            elif isinstance(chunk, dspy.Prediction):
                assert (text, chunk.tags) == (TEXT, ["a", "b"])
        return first

    asked += dspex.ChatAdapter().compile(qa.signature).render({"question": QUESTION})
    return {"dspex": ours, "aiohttp and json, bare": bare, "dspy.streamify": by_dspy}


async def compare(base: str) -> None:
    async with AsyncExitStack() as stack:
        readers = await contenders(base, stack)
        for read in readers.values():
            await read()
        cpu: dict[str, list[float]] = {name: [] for name in readers}
        first: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(ROUNDS):
            for name, read in readers.items():
                begun = time.process_time()
                first[name].append(await read() * 1e3)
                cpu[name].append((time.process_time() - begun) * 1e3)
        print(f"a stream of {len(REPLY.split())} words, medians of {ROUNDS}")
        print(f"{'':26}{'CPU, ms':>10}{'ratio':>9}{'first text, ms':>17}")
        ours = statistics.median(cpu["dspex"])
        for name, times in sorted(cpu.items(), key=lambda item: statistics.median(item[1])):
            median = statistics.median(times)
            print(f"{name:26}{median:10.2f}{median / ours:7.2f} x{statistics.median(first[name]):17.2f}")


def main() -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with model_server({"": REPLY}) as base:
        asyncio.run(compare(base))


if __name__ == "__main__":
    main()
