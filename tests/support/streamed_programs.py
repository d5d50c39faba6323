"""Programs of a user whose streams tests read, for workers to run."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import dspy
import pydantic


class Place(pydantic.BaseModel):
    name: str
    people: int = 0


@dataclasses.dataclass
class Spot:
    name: str
    people: int = 0


class Answer(dspy.Module):
    """Drafts, and polishes twice."""

    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.ChainOfThought("question -> draft")
        self.steps = [dspy.Predict("draft -> answer")]

    def forward(self, question: str) -> dspy.Prediction:
        draft = self.draft(question=question).draft
        first = self.steps[0](draft=draft).answer
        return dspy.Prediction(answer=self.steps[0](draft=first).answer, draft=draft)


class AsyncAnswer(Answer):
    async def aforward(self, question: str) -> dspy.Prediction:
        draft = (await self.draft.acall(question=question)).draft
        first = (await self.steps[0].acall(draft=draft)).answer
        return dspy.Prediction(answer=(await self.steps[0].acall(draft=first)).answer, draft=draft)


class Typed(dspy.Module):
    """Values that are no texts."""

    def __init__(self) -> None:
        super().__init__()
        signature = dspy.Signature(
            {"question": (str, dspy.InputField()), "place": (Place, dspy.OutputField())}
        )
        self.find = dspy.Predict(signature.append("tags", dspy.OutputField(), list[str]))

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.find.acall(question=question)


class SideBySide(dspy.Module):
    """Asks one predictor many questions at once: on the loop, in threads of DSPy's, on a loop of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.ask = dspy.Predict("question -> answer")

    def forward(self, questions: list[str]) -> dspy.Prediction:
        if self.how == "threads":
            run = dspy.Parallel(num_threads=4, disable_progress_bar=True)
            given = [dspy.Example(question=text).with_inputs("question") for text in questions]
            found = run([(self.ask, example) for example in given])
        else:
            found = asyncio.run(self._gathered(questions))
        return dspy.Prediction(answers=[one.answer for one in found])

    async def _gathered(self, questions: list[str]) -> Any:
        return await asyncio.gather(*(self.ask.acall(question=text) for text in questions))


class AsyncSideBySide(SideBySide):
    async def aforward(self, questions: list[str]) -> dspy.Prediction:
        if self.how == "threads of the loop":
            asked = (asyncio.to_thread(self.ask, question=text) for text in questions)
            return dspy.Prediction(answers=[one.answer for one in await asyncio.gather(*asked)])
        return dspy.Prediction(answers=[one.answer for one in await self._gathered(questions)])


class Unusual(dspy.Module):
    """Asks in a way that DSPy's streams do not know."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        if self.how == "own adapter":
            with dspy.context(adapter=dspy.JSONAdapter()):
                return await self.ask.acall(question=question)
        if self.how == "own model":
            with dspy.context(lm=dspy.utils.DummyLM([{"answer": "blue and green"}])):
                return await self.ask.acall(question=question)
        if self.how == "blocking":
            return self.ask(question=question)
        if self.how == "thread":
            return await asyncio.to_thread(self.ask, question=question)
        if self.how == "thread, own model":
            with dspy.context(lm=dspy.utils.DummyLM([{"answer": "blue and green"}])):
                return await asyncio.to_thread(self.ask, question=question)
        if self.how == "copy":
            return await self.ask.deepcopy().acall(question=question)
        assert self.how == "new"
        return await dspy.Predict("question -> answer").acall(question=question)


class Breaks(dspy.Module):
    """Raises when one of its predictors has answered."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        self.ask(question=question)
        raise LookupError("no such city")


class Asks(dspy.Module):
    """Asks again and again, whatever comes of it, and notes in a file how that went."""

    def __init__(self, file: str, tries: int = 3) -> None:
        super().__init__()
        self.file = file
        self.tries = tries
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        for _ in range(self.tries):
            try:
                self.ask(question=question)
                self._note("asked")
            except Exception as error:  # noqa: BLE001 - as a stubborn program does
                self._note(type(error).__name__)
            except BaseException as error:
                self._note(type(error).__name__)
                raise
        return dspy.Prediction(answer="")

    def _note(self, text: str) -> None:
        with open(self.file, "a") as file:
            file.write(text + "\n")


class AsyncAsks(Asks):
    async def aforward(self, question: str) -> dspy.Prediction:
        for _ in range(self.tries):
            found = await self.ask.acall(question=question)
            self._note("asked")
        return found


class Leaves(dspy.Module):
    """Answers while a task of its own still asks."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.later = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        left.append(asyncio.ensure_future(self.later.acall(question="later")))
        return await self.ask.acall(question=question)


left: list[Any] = []


async def what_was_left() -> str:
    return str((await left.pop()).answer)


async def tasks() -> int:
    """How many tasks run in this worker."""
    return len(asyncio.all_tasks())
