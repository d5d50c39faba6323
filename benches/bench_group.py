"""A group of three deployments beside LiteLLM's Router, in one run: `python benches/bench_group.py`.

The server is a process of its own and answers at once, so what is counted is the client's CPU time per call:
one call after the other, and with 64 in flight. Beside both groups stands the client that each is made of,
called directly: the difference is what the choice of a deployment, its breaker and its counts cost. Before
anything is timed both groups answer rightly, and both answer although one of their deployments refuses.
Absolute figures wander between machines and runs; what counts is the column of ratios. LiteLLM is one of the
`peers`; where it is not installed, its rows are left out.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import os
import statistics
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from served import model_server

from dspex import LM
from dspex.lm import LMRequest, RateLimit
from dspex.testing import HttpError, ModelServer

MESSAGES = [
    {"role": "system", "content": "Your input fields are:\n1. `question` (str):\n" * 16},
    {"role": "user", "content": "[[ ## question ## ]]\nWhere does the Danube end?\n" * 4},
]
ANSWER = "[[ ## answer ## ]]\nthe Black Sea\n\n[[ ## completed ## ]]"
CALLS = 200
ROUNDS = 5
IN_FLIGHT = 64
OURS = "dspex: a group of three"

Call = Callable[[], Awaitable[str]]


async def ours(bases: list[str], stack: AsyncExitStack) -> dict[str, Call]:
    request = LMRequest(MESSAGES, timeout=60)

    def asking(lm: Any) -> Call:
        async def ask() -> str:
            return str((await lm.complete(request)).texts[0])

        return ask

    def lms(**settings: Any) -> list[LM]:
        return [LM(f"openai/m{n}", api_base=base, api_key="k", **settings) for n, base in enumerate(bases)]

    limits = RateLimit(requests_per_minute=1e9, tokens_per_minute=1e12, concurrency=1000)
    group, limited = LM.group(lms()), LM.group(lms(limits=limits))
    alone = lms()[0]
    for lm in (group, limited, alone):
        stack.push_async_callback(lm.aclose)
    return {
        OURS: asking(group),
        "dspex: the same, with rate limits": asking(limited),
        "dspex.LM, one server": asking(alone),
    }


async def theirs(bases: list[str]) -> dict[str, Call]:
    import litellm
    from litellm.router import Router

    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    logging.getLogger("LiteLLM Router").setLevel(logging.CRITICAL)
    settings = [{"model": f"openai/m{n}", "api_base": base, "api_key": "k"} for n, base in enumerate(bases)]
    router = Router(
        model_list=[{"model_name": "m", "litellm_params": one} for one in settings],
        num_retries=2,
        retry_after=0,
    )

    async def routed() -> str:
        answer: Any = await router.acompletion(model="m", messages=MESSAGES, timeout=60)
        return str(answer.choices[0].message.content)

    async def alone() -> str:
        answer: Any = await litellm.acompletion(messages=MESSAGES, timeout=60, num_retries=0, **settings[0])
        return str(answer.choices[0].message.content)

    return {"litellm.Router of three": routed, "litellm.acompletion, one server": alone}


async def contenders(bases: list[str], stack: AsyncExitStack) -> dict[str, Call]:
    found = await ours(bases, stack)
    if importlib.util.find_spec("litellm"):
        found |= await theirs(bases)
    return found


async def check() -> None:
    """All answer rightly, and the groups answer although one of their servers refuses half of its calls."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(ModelServer(lambda asked: ANSWER)) for _ in range(3)]
        calls = await contenders([server.api_base for server in servers], stack)
        for name, call in calls.items():
            assert await call() == ANSWER, name
            if "three" not in name:
                continue
            servers[0].requests.clear()
            servers[0].faults.push(*(HttpError(429, "slow down", retry_after=1) for _ in range(3)))
            assert [await call() for _ in range(20)] == [ANSWER] * 20, name
            assert any(request.status == 429 for request in servers[0].requests), name
            servers[0].faults.clear()


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
    await check()
    async with AsyncExitStack() as stack:
        calls = await contenders([base] * 3, stack)
        for name, call in calls.items():
            assert await call() == ANSWER, name
        print(f"client CPU per call, medians of {ROUNDS} rounds of {CALLS} calls")
        for title, run in (("one after the other", sequential), (f"{IN_FLIGHT} in flight", concurrent)):
            taken: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(ROUNDS):
                for name, call in calls.items():
                    gc.collect()
                    # What the one before has left in the caches is paid for before the time counts.
                    await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))
                    taken[name].append(await run(call))
            own = statistics.median(taken[OURS])
            print(f"\n{title}")
            for name, times in sorted(taken.items(), key=lambda item: statistics.median(item[1])):
                median = statistics.median(times)
                print(f"{name:36}{median:8.3f} ms{median / own:8.2f} x")


def main() -> None:
    warnings.filterwarnings("ignore")
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    with model_server({"": ANSWER}) as base:
        asyncio.run(compare(base))


if __name__ == "__main__":
    main()
