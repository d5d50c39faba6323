"""Programs of a user, for workers to run."""

from __future__ import annotations

from typing import Any

import dspy

from dspex.errors import DspexError
from dspex.telemetry import current_trace, use_trace
from dspex.worker.host import call_host, call_host_sync, time_left


class TwoSteps(dspy.Module):
    """Sync only: runs in a thread of the worker."""

    def __init__(self, tone: str = "plain") -> None:
        super().__init__()
        self.tone = tone
        self.draft = dspy.Predict("question -> draft")
        self.polish = dspy.Predict("draft, tone -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.draft(question=question).draft
        return dspy.Prediction(answer=self.polish(draft=draft, tone=self.tone).answer, draft=draft)


class NoPrediction(dspy.Module):
    def forward(self) -> str:
        return "just text"


def look_up(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def ask_back(name: str, *args: Any, **kwargs: Any) -> Any:
    return await call_host(name, *args, **kwargs)


def ask_back_from_a_thread(name: str, *args: Any) -> Any:
    return call_host_sync(name, *args)


async def ask_back_many(name: str, count: int) -> list[Any]:
    import asyncio

    return list(await asyncio.gather(*(call_host(name, number) for number in range(count))))


def time_and_trace() -> tuple[float | None, Any]:
    return time_left(), current_trace()


async def ask_back_in_a_trace(name: str, trace: str | None) -> Any:
    with use_trace(trace):
        return await call_host(name)


def ask_back_and_tell(name: str, path: str) -> None:
    """Wait in a thread for the service; write down how that ended."""
    try:
        call_host_sync(name)
    except Exception as err:
        with open(path, "w") as file:
            file.write(str(err))
        raise


async def leave_a_question_behind(name: str) -> None:
    """Answer the call while a task of its work still asks."""
    import asyncio

    _left.append(asyncio.ensure_future(call_host(name)))
    await asyncio.sleep(0)


async def what_was_left() -> str:
    try:
        return str(await _left.pop())
    except DspexError as err:
        return str(err)


_left: list[Any] = []


async def stream_trace() -> Any:
    yield current_trace()


class Telling(dspy.Module):
    """Tells the service when its LM has said everything."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        prediction = await self.answer.acall(question=question)
        await call_host("lm_is_done")
        return prediction


class ManyTools(dspy.Module):
    """Uses many tools in one turn of the loop, then asks."""

    def __init__(self) -> None:
        super().__init__()
        self.tool = dspy.Tool(look_up)
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        for number in range(100):
            await self.tool.acall(city=f"town {number}")
        return await self.answer.acall(question=question)


class Messages(dspy.streaming.StatusMessageProvider):
    """What a user tells of a call's progress."""

    def lm_start_status_message(self, instance: Any, inputs: dict[str, Any]) -> str:
        return "asking"

    def lm_end_status_message(self, outputs: Any) -> str:
        return "answered"

    def module_start_status_message(self, instance: Any, inputs: dict[str, Any]) -> str:
        return f"running {type(instance).__name__}"


qa = dspy.ChainOfThought("question -> answer")
"""A module that others are made of, by its path."""


def one_word(args: dict[str, Any], prediction: dspy.Prediction) -> float:
    """The reward of BestOfN and Refine."""
    return 1.0 if len(prediction.answer.split()) == 1 else 0.0


class Both(dspy.Module):
    """Asks two questions side by side, with `dspy.Parallel`."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, first: str, second: str) -> dspy.Prediction:
        pairs = [(self.ask, dspy.Example(question=text).with_inputs("question")) for text in (first, second)]
        run = dspy.Parallel(num_threads=2, disable_progress_bar=True)
        one, other = run(pairs)
        return dspy.Prediction(answer=f"{one.answer} and {other.answer}")


class Optimize(dspy.Module):
    """A job for an optimizer: its metric and its progress live in the service. Gives the state it found."""

    def forward(self, questions: list[dict[str, str]]) -> dspy.Prediction:
        examples = [dspy.Example(**question).with_inputs("question") for question in questions]

        def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
            return bool(call_host_sync("metric", example.answer, prediction.answer))

        program = dspy.Predict("question -> answer")
        optimizer = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2, max_labeled_demos=0)
        program = optimizer.compile(program, trainset=examples)
        call_host_sync("progress", len(program.demos))
        evaluate = dspy.Evaluate(devset=examples, metric=metric, num_threads=4, display_progress=False)
        return dspy.Prediction(
            score=float(evaluate(program).score), state=program.dump_state(), left=time_left()
        )


class AddsAPredictor(dspy.teleprompt.Teleprompter):  # type: ignore[misc,unused-ignore]
    """An optimizer of a user's, whose outcome is more than a state."""

    def compile(self, student: Any, *, trainset: Any) -> Any:
        made = student.deepcopy()
        made.more = dspy.Predict("answer -> more")
        return made


class ImportsLate(dspy.teleprompt.Teleprompter):  # type: ignore[misc,unused-ignore]
    """An optimizer that finds out late what is not installed."""

    def compile(self, student: Any, *, trainset: Any) -> Any:
        import no_such_package.at_all  # type: ignore[import-not-found,unused-ignore]

        return no_such_package


class AsyncAnswer(dspy.Module):
    """Async only, with one predictor; fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.fails = fails
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        if self.fails:
            raise LookupError(self.fails)
        return await self.answer.acall(question=question)


class UsesTool(dspy.Module):
    """Calls the tool it is given, from synchronous or asynchronous code, and tells how that went."""

    def __init__(self, tools: list[dspy.Tool]) -> None:
        super().__init__()
        (self.tool,) = tools

    def forward(self, **arguments: Any) -> dspy.Prediction:
        try:
            return dspy.Prediction(gave=self.tool(**arguments), raised="")
        except Exception as error:  # noqa: BLE001 - it is what is told
            return dspy.Prediction(gave=None, raised=f"{type(error).__name__}: {error}")


class UsesToolAsync(UsesTool):
    async def aforward(self, **arguments: Any) -> dspy.Prediction:
        try:
            return dspy.Prediction(gave=await self.tool.acall(**arguments), raised="")
        except Exception as error:  # noqa: BLE001 - it is what is told
            return dspy.Prediction(gave=None, raised=f"{type(error).__name__}: {error}")


class Gives:
    """What is called like a retriever and gives a value of a kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, query: str = "", k: int = 2) -> Any:
        made: dict[str, Any] = {
            "list": [f"{query} {number}" for number in range(k)],
            "examples": [dspy.Example(passage=query).with_inputs("passage")],
            "nothing": None,
            "prediction": dspy.Prediction(passages=[query], indices=[k]),
            "model": dspy.Code(code=query),
            "object": object(),
        }
        return made[self.kind]


def die() -> None:
    """End the worker in the middle of a call."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


class Dies(dspy.Module):
    def forward(self, question: str) -> None:
        die()


class Waits(dspy.Module):
    async def aforward(self, question: str) -> None:
        import asyncio

        await asyncio.Event().wait()


def embed(texts: list[str]) -> Any:
    """Vectors of letter counts."""
    import numpy  # type: ignore[import-not-found,unused-ignore]

    return numpy.array([[float(text.count(letter)) for letter in "abcde"] for text in texts])


def examples() -> list[dspy.Example]:
    return [dspy.Example(q=text, a=text.upper()).with_inputs("q") for text in ("aaa", "bbb", "ccc")]


trainset = examples()


class Wraps(dspy.Module):
    """Another module inside, and a function that judges what that gives."""

    def __init__(self, module: Any, judge: Any = None) -> None:
        super().__init__()
        self.module = module
        self.judge = judge

    def forward(self, **inputs: Any) -> dspy.Prediction:
        prediction = self.module(**inputs)
        if self.judge is None:
            return prediction
        return dspy.Prediction(
            judged=self.judge(inputs, prediction, example=dspy.Example(a=1)), gave=prediction.toDict()
        )


class Traced(dspy.Module):
    """Says which trace it belongs to."""

    def forward(self, question: str) -> dspy.Prediction:
        trace = current_trace()
        return dspy.Prediction(traceparent=trace and trace["traceparent"])


class AsksOften(dspy.Module):
    """Asks its model so many times."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, times: int) -> dspy.Prediction:
        for number in range(times):
            answer = self.ask(question=str(number))
        return answer
