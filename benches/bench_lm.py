"""One LM call over HTTP, and one `Predict`, beside their peers, in one run: `python benches/bench_lm.py`.

The server is a process of its own and answers at once, so what is counted is the client's CPU time per
call: one call after the other, and with 64 in flight. Absolute figures wander between machines and runs;
what counts is the column of ratios. Every peer's answer is checked before it is timed. A peer that is not
installed is left out.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import statistics
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
from served import model_server

import dspex
from dspex import LM
from dspex.lm import LMRequest

MESSAGES = [
    {"role": "system", "content": "Your input fields are:\n1. `question` (str):\n" * 16},
    {"role": "user", "content": "[[ ## question ## ]]\nWhere does the Danube end?\n" * 4},
]
ANSWER = "[[ ## answer ## ]]\nthe Black Sea\n\n[[ ## completed ## ]]"
SIGNATURE = "question -> answer"
QUESTION = "Where does the Danube end? " * 20
KEY = "none"
CALLS = 200
ROUNDS = 5
IN_FLIGHT = 64

Call = Callable[[], Awaitable[str]]


async def contenders(base: str, stack: AsyncExitStack) -> dict[str, Call]:
    url = f"{base}/chat/completions"
    body = {"model": "m", "messages": MESSAGES}

    lm = await stack.enter_async_context(LM("openai/m", api_base=base, api_key=KEY))
    request = LMRequest(MESSAGES)

    async def ours() -> str:
        return (await lm.complete(request)).texts[0]

    session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))

    async def bare() -> str:
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        async with session.post(url, data=data, headers={"Content-Type": "application/json"}) as answer:
            text: str = json.loads(await answer.read())["choices"][0]["message"]["content"]
            return text

    await stack.enter_async_context(dspex.Runtime(lm, pools=0))
    qa = dspex.Predict(SIGNATURE)

    async def predicted() -> str:
        assert (await qa.acall(question=QUESTION)).answer == "the Black Sea"
        return ANSWER

    found: dict[str, Call] = {"dspex.LM": ours, "dspex.Predict": predicted, "aiohttp and json, bare": bare}
    if importlib.util.find_spec("httpx"):
        import httpx

        client = await stack.enter_async_context(httpx.AsyncClient(limits=httpx.Limits(), timeout=60))

        async def through_httpx() -> str:
            text: str = (await client.post(url, json=body)).json()["choices"][0]["message"]["content"]
            return text

        found["httpx"] = through_httpx
    if importlib.util.find_spec("openai"):
        import openai

        sdk = await stack.enter_async_context(openai.AsyncOpenAI(base_url=base, api_key=KEY, max_retries=0))

        async def through_sdk() -> str:
            answer = await sdk.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
            return answer.choices[0].message.content or ""

        found["openai SDK"] = through_sdk
    if importlib.util.find_spec("dspy"):
        import dspy

        theirs = dspy.LM("openai/m", api_base=base, api_key=KEY, cache=False, num_retries=0)
        stack.push_async_callback(theirs.aclose)

        async def through_dspy() -> str:
            return str((await theirs.acall(messages=MESSAGES))[0])

        found["dspy.LM"] = through_dspy
        program = dspy.Predict(SIGNATURE)
        stack.enter_context(dspy.context(lm=theirs, adapter=dspy.ChatAdapter()))

        async def predicted_by_dspy() -> str:
            assert (await program.acall(question=QUESTION)).answer == "the Black Sea"
            return ANSWER

        found["dspy.Predict"] = predicted_by_dspy
    return found


async def sequential(call: Call) -> float:
    begun = time.process_time()
    for _ in range(CALLS):
        await call()
    return (time.process_time() - begun) / CALLS * 1e3


async def concurrent(call: Call) -> float:
    begun = time.process_time()
    left = iter(range(CALLS))

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return (time.process_time() - begun) / CALLS * 1e3


async def compare(base: str) -> None:
    async with AsyncExitStack() as stack:
        calls = await contenders(base, stack)
        for name, call in calls.items():
            assert await call() == ANSWER, name
        print(f"client CPU per call, medians of {ROUNDS} rounds of {CALLS} calls")
        for title, run in (("one after the other", sequential), (f"{IN_FLIGHT} in flight", concurrent)):
            taken: dict[str, list[float]] = {name: [] for name in calls}
            # Rounds take turns, so that a slow moment of the machine falls on all of them.
            for _ in range(ROUNDS):
                for name, call in calls.items():
                    taken[name].append(await run(call))
            ours = statistics.median(taken["dspex.LM"])
            print(f"\n{title}")
            for name, times in sorted(taken.items(), key=lambda item: statistics.median(item[1])):
                median = statistics.median(times)
                print(f"{name:26}{median:8.3f} ms{median / ours:8.2f} x")


def main() -> None:
    # DSPy calls it deprecated to pass messages; it is the call that its own adapters make.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with model_server({"": ANSWER}) as base:
        asyncio.run(compare(base))


if __name__ == "__main__":
    main()
