"""A user's programs, as mypy and pyright check them in their strict modes. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import dspex
from dspex import (
    BestOfN,
    ChainOfThought,
    Module,
    MultiChainComparison,
    Parallel,
    Predict,
    Prediction,
    ReActV2,
    majority,
)
from dspex.errors import BatchError
from dspex.modules import AsyncModuleStream, ModuleStream
from dspex.streaming import FieldEnd, FieldStart, PartialValue, TextDelta, sse


class Answer(dspex.Signature):
    """Answer from the context."""

    question: str = dspex.InputField()
    context: list[str] = dspex.InputField(desc="passages", max_length=5)
    answer: str = dspex.OutputField()


class RAG(Module):
    """A program of three modules."""

    def __init__(self, search: Callable[[str], list[str]]) -> None:
        self.search = search
        self.query = ChainOfThought(
            "question -> query", temperature=0.5, demos=[{"question": "?", "query": "!"}]
        )
        self.steps = [Predict(Answer), Predict(Answer, adapter="json", validate="off")]

    def forward(self, question: str) -> Prediction:
        passages = self.search(self.query(question=question).query)
        made = [step(question=question, context=passages) for step in self.steps]
        return Prediction(answer=majority(made).answer, context=passages)

    async def aforward(self, question: str) -> Prediction:
        query: str = (await self.query.acall(question=question)).query
        return await self.steps[0].acall(question=question, context=self.search(query))


def search(query: str) -> list[str]:
    """Passages for a query."""
    return [query]


def reward(inputs: dict[str, Any], made: Prediction) -> float:
    return float(len(made.answer) < inputs["limit"])


def served(rag: RAG) -> list[str]:
    answer: str = rag(question="?").answer
    short: RAG = rag.with_options(timeout=5, route="native")
    rows = [{"question": "?"}, {"question": "!"}]
    many: list[Any] = short.batch(rows, 8, errors="return", max_errors=3, timeout=60, progress=False)
    try:
        ended = [outcome for _, outcome in rag.batch_as_completed(rows)]
    except BatchError as error:
        ended = [error.failed]
    pairs: list[Any] = Parallel(num_threads=4)([(rag, rows[0])])
    best = BestOfN(rag.query, N=3, reward_fn=reward, threshold=1.0)(question="?", limit=3)
    compared = MultiChainComparison("question -> answer", M=2)(best.completions, question="?")
    agent = ReActV2("question -> answer", [search], max_iters=3)(question="?")
    return [answer, compared.answer, agent.answer, *map(str, (*many, *ended, *pairs))]


def streamed(rag: RAG) -> str:
    stream: ModuleStream = rag.with_options(stream_fields=["query.query"]).stream(question="?")
    text = ""
    with stream:
        for event in stream:
            match event:
                case TextDelta(field=field, text=piece, predictor=path, turn=turn):
                    text += f"{path}[{turn}].{field}: {piece}"
                case PartialValue(value=value):
                    text += str(value)
                case FieldStart() | FieldEnd():
                    pass
                case Prediction():
                    text += event.answer
                case _:
                    pass
    return text


async def over_http(rag: RAG) -> AsyncIterator[bytes]:
    events: AsyncModuleStream = rag.astream(question="?")
    async with events:
        async for frame in sse(events, keepalive=15):
            yield frame


async def rows(rag: RAG) -> list[Any]:
    async def source() -> AsyncIterator[Mapping[str, Any]]:
        yield {"question": "?"}

    done: list[Any] = await rag.abatch(source(), concurrency=4)
    async with aclosing(rag.abatch_as_completed(source())) as outcomes:
        done += [outcome async for _, outcome in outcomes]
    return done


async def evaluated(rag: RAG, folder: Path) -> float:
    def metric(example: Any, prediction: Any) -> bool:
        return bool(example.answer == prediction.answer)

    found: dspex.Evaluation = rag.evaluate([{"question": "?"}], metric, 8, inputs=["question"], max_errors=3)
    again = await rag.aevaluate([{"question": "?"}], dspex.metrics.answer_exact_match, failure_score=-1.0)
    rows: list[dspex.EvaluatedRow] = found.failures
    found.show(limit=None)
    found.to_csv(folder / "found.csv")
    print(found.table(rows), [row.error for row in again.errors])
    return again.score


def compiled(folder: Path) -> Module:
    rag = RAG(search).load(folder / "rag.json")
    state: dict[str, Any] = rag.dump_state()
    copy: RAG = rag.deepcopy().load_state(state, lm=True)
    copy.set_lm("openai/gpt-4o-mini")
    copy.save(folder / "copy.json")
    for path, predictor in copy.named_predictors():
        texts: str = predictor.signature.text
        print(path, texts, len(predictor.demos))
    dspex.export(rag.query, folder / "query.dspex.json", adapter="json", dialect="3.4")
    loaded: Module = dspex.load(folder / "query.dspex.json")
    native: Module = dspex.from_dspy(object())
    return loaded if loaded.predictors() else native
