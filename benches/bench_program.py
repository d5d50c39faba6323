"""One program on a model that answers at once, in DSPy and in dspex: `python benches/bench_program.py`.

The program is two `Predict`s and a `ChainOfThought`, plain Python around them, awaited; the model is an
object of this process on both sides. What is counted is the CPU time of a call of the program, so of three
calls of the model, with prompts laid out and replies read. The answers are compared before anything is timed.
Rounds take turns; figures are medians, and what counts is their ratio.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import time
import warnings
from collections.abc import AsyncGenerator
from typing import Any

import dspex
from dspex.events import LMDelta
from dspex.lm import LMChoice, LMRequest, LMResponse

ROUNDS = 7
CALLS = 200
DEMOS = (0, 16)
QUESTION = "Where does the Danube end?"
VALUES = {
    "query": "mouth of the Danube",
    "reasoning": "Its mouth is its end.",
    "draft": "In the Black Sea.",
    "answer": "the Black Sea",
    "confidence": "0.9",
}


def reply(messages: Any) -> str:
    """The fields that the last message asks for."""
    asked = messages[-1]["content"].rpartition("Respond with")[2]
    names = [name for name in re.findall(r"## (\w+) ##", asked) if name != "completed"]
    return "\n\n".join(f"[[ ## {name} ## ]]\n{VALUES[name]}" for name in names)


class Instant:
    """A language model of dspex's that answers at once."""

    model = "instant"

    async def complete(self, request: LMRequest) -> LMResponse:
        return LMResponse((LMChoice(reply(request.messages), "stop"),), self.model, {}, 0.0)

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        yield LMDelta(reply(request.messages))

    async def aclose(self) -> None:
        pass


def program(lib: Any, demos: int) -> Any:
    """The same program of either library."""

    class Program(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = lib.Predict("question -> query")
            self.draft = lib.ChainOfThought("question, query -> draft")
            self.answer = lib.Predict("question, draft -> answer, confidence: float")
            for predictor in self.predictors():
                names = [*predictor.signature.input_fields, *predictor.signature.output_fields]
                predictor.demos = [dict.fromkeys(names, "0.5")] * demos

        async def aforward(self, question: str) -> Any:
            query = (await self.query.acall(question=question)).query
            draft = (await self.draft.acall(question=question, query=query)).draft
            return await self.answer.acall(question=question, draft=draft)

    return Program()


def dspy_model() -> Any:
    """A language model of DSPy's that answers at once."""
    import dspy
    from openai.types.chat import ChatCompletion

    class Model(dspy.BaseLM):
        def __init__(self) -> None:
            super().__init__(model="instant", cache=False)

        async def aforward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
            message = {"role": "assistant", "content": reply(messages)}
            return ChatCompletion.model_construct(
                id="1",
                object="chat.completion",
                created=0,
                model="instant",
                choices=[_construct({"index": 0, "finish_reason": "stop", "message": _construct(message)})],
                usage=_construct({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
            )

    return Model()


class _Plain(dict[str, Any]):
    """Attributes and items, as the SDK's objects have them."""

    __getattr__ = dict.__getitem__


def _construct(values: dict[str, Any]) -> Any:
    return _Plain(values)


async def timed(program: Any) -> float:
    begun = time.process_time()
    for _ in range(CALLS):
        await program.acall(question=QUESTION)
    return (time.process_time() - begun) / CALLS * 1e6


async def compare() -> None:
    import dspy

    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    with dspy.context(lm=dspy_model(), adapter=adapter):
        async with dspex.Runtime(Instant()):
            print(f"CPU of a program of three calls, medians of {ROUNDS} rounds of {CALLS}")
            for demos in DEMOS:
                theirs, ours = program(dspy, demos), program(dspex, demos)
                found = [await each.acall(question=QUESTION) for each in (theirs, ours)]
                assert (
                    found[0].toDict() == found[1].toDict() == {"answer": "the Black Sea", "confidence": 0.9}
                )
                taken: dict[str, list[float]] = {"DSPy": [], "dspex": []}
                for _ in range(ROUNDS):
                    taken["DSPy"].append(await timed(theirs))
                    taken["dspex"].append(await timed(ours))
                slow, quick = (statistics.median(times) for times in taken.values())
                print(f"{demos:3} demos: DSPy {slow:8.0f} us, dspex {quick:7.0f} us, {slow / quick:5.1f} x")


def main() -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of DSPy's old interface for models
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    asyncio.run(compare())


if __name__ == "__main__":
    main()
