"""What one call costs, on a model that answers at once: `python benches/bench_call.py`.

A call of `Predict`, with no examples and with 16: awaited on the runtime's event loop, blocking from a thread
that has none, and blocking where the model has to be waited for on the loop; beside it DSPy's `acall`. Then
where the time of an awaited call goes: the native target by itself, the same through the router, and the
whole. The answers are compared before anything is timed. Rounds take turns; figures are medians in
microseconds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import dspex
from dspex.events import LMDelta
from dspex.lm import LMChoice, LMRequest, LMResponse

ROUNDS = 9
CALLS = 2_000
SIGNATURE = "question, context: list[str] -> answer, confidence: float"
REPLY = "[[ ## answer ## ]]\nthe Black Sea\n\n[[ ## confidence ## ]]\n0.9"
CONTEXT = ["The Danube rises in the Black Forest.", "It ends in the Black Sea."]
INPUTS: dict[str, Any] = {"question": "Where does the Danube end?", "context": CONTEXT}
DEMOS = [
    {**INPUTS, "question": f"Where does river {n} end?", "answer": "a lake", "confidence": 0.5}
    for n in range(16)
]


class Instant:
    """A language model that answers at once, and says so if it is asked without waiting."""

    model = "instant"

    def __init__(self, *, now: bool = True) -> None:
        self._response = LMResponse((LMChoice(REPLY, "stop"),), self.model, {"total_tokens": 9})
        if now:
            self.complete_now = lambda _: self._response

    async def complete(self, request: LMRequest) -> LMResponse:
        return self._response

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        yield LMDelta(REPLY)

    async def aclose(self) -> None:
        pass


def of_dspy() -> Any:
    """DSPy's `Predict` with a model of the same kind."""
    import dspy
    from openai.types.chat import ChatCompletion

    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REPLY}}
    response = ChatCompletion.model_validate(
        {"id": "", "object": "chat.completion", "created": 0, "model": "instant", "choices": [choice]}
    )

    class Model(dspy.BaseLM):
        async def aforward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
            return response

    dspy.configure(lm=Model(model="instant", cache=False))
    return dspy.Predict(SIGNATURE)


async def awaited(call: Callable[[], Awaitable[Any]], calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - begun) / calls * 1e6


def blocking(call: Callable[[], Any], calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begun) / calls * 1e6


def show(name: str, figures: dict[int, list[float]]) -> None:
    print(f"{name:48}" + "".join(f"{statistics.median(each):10.1f}" for each in figures.values()))


async def on_the_loop() -> None:
    """What is awaited, with DSPy beside it."""
    figures: dict[str, dict[int, list[float]]] = {}
    async with dspex.Runtime(Instant(), pools=0) as runtime:
        theirs = of_dspy()
        native, router = NativeAlone(runtime), runtime._router
        for demos in (0, 16):
            predict = dspex.Predict(SIGNATURE, demos=DEMOS[:demos])
            theirs.demos = DEMOS[:demos]
            operation = predict.operation(**INPUTS)
            ways: dict[str, tuple[Callable[[], Awaitable[Any]], int]] = {
                "the native target alone": (lambda o=operation: native.run(o), CALLS),
                "the same through the router": (lambda o=operation: router.dispatch(o, 60.0), CALLS),
                "Predict.acall": (lambda p=predict: p.acall(**INPUTS), CALLS),
                "dspy.Predict.acall": (lambda: theirs.acall(**INPUTS), CALLS // 40),
            }
            for name, (way, _) in ways.items():
                assert (await way()).answer == "the Black Sea", name
            for _ in range(ROUNDS):
                for name, (way, calls) in ways.items():
                    figures.setdefault(name, {}).setdefault(demos, []).append(await awaited(way, calls))
    for name, rounds in figures.items():
        show(name, rounds)


class NativeAlone:
    """The native target, without a router."""

    def __init__(self, runtime: dspex.Runtime) -> None:
        from dspex.runtime._native_target import NativeTarget

        self._target = NativeTarget(runtime.lm, runtime.adapter, runtime.dialect)

    def run(self, operation: Any) -> Awaitable[Any]:
        return self._target.run(operation, 60.0)


def from_a_thread() -> None:
    """What blocks."""
    for name, now in (("Predict, blocking", True), ("Predict, blocking, the model being waited for", False)):
        figures: dict[int, list[float]] = {0: [], 16: []}
        with dspex.Runtime(Instant(now=now), pools=0):
            predicts = {demos: dspex.Predict(SIGNATURE, demos=DEMOS[:demos]) for demos in figures}
            for demos, predict in predicts.items():
                assert predict(**INPUTS).answer == "the Black Sea", demos
            for _ in range(ROUNDS):
                for demos, predict in predicts.items():
                    figures[demos].append(blocking(lambda p=predict: p(**INPUTS), CALLS))
        show(name, figures)


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    print(f"{'microseconds a call, medians of ' + str(ROUNDS) + ' rounds':48}{'bare':>10}{'16 demos':>10}")
    asyncio.run(on_the_loop())
    from_a_thread()


if __name__ == "__main__":
    main()
