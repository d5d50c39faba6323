"""The load of a compiled program, beside DSPy's load of its state: `python benches/bench_load.py`.

A program of three predictors, one with a model in its signature, with 40 demos in all. What is timed ends
when the program is ready to call: `dspex.load(path)`, and a new DSPy program with `load(path)`. Rounds take
turns; figures are medians. A third row is `dspex.load` in a process that has imported nothing, with its
imports. Before anything is timed, both programs send the same messages for the same inputs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dspy
import pydantic

import dspex
from dspex.testing import ModelServer

ROUNDS = 50
DEMOS = 20
REPLY = (
    "[[ ## reasoning ## ]]\nr\n\n[[ ## query ## ]]\nq\n\n[[ ## answer ## ]]\nblue\n\n"
    '[[ ## sources ## ]]\n[{"title": "T", "page": 1}]'
)
TEXT = "The Danube rises in the Black Forest and ends in the Black Sea, after 2,850 kilometres. " * 3


class Source(pydantic.BaseModel):
    """Where an answer comes from."""

    title: str
    page: int = pydantic.Field(ge=1, description="the page")


class RAG(dspy.Module):
    """A program as users write it."""

    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.ChainOfThought("question -> query")
        self.answer = dspy.ChainOfThought(
            dspy.Signature(
                "question, query, context: list[str] -> answer, sources: list[Source]",
                custom_types={"Source": Source},
            )
        )
        self.check = dspy.Predict("question, draft -> answer")

    def forward(self, question: Any) -> Any:
        query = self.draft(question=question).query
        made = self.answer(question=question, query=query, context=["c"])
        return self.check(question=question, draft=made.answer)


def compiled() -> RAG:
    program = RAG()
    program.draft.predict.demos = [
        dspy.Example(question=f"{n} {TEXT}", reasoning=TEXT, query="q") for n in range(DEMOS)
    ]
    program.answer.predict.demos = [
        dspy.Example(
            question=f"{n} {TEXT}", query="q", context=[TEXT], reasoning=TEXT, answer="a",
            sources=[{"title": "T", "page": n + 1}],
        )
        for n in range(DEMOS)
    ]  # fmt: skip
    return program


def check(path: Path, state: Path) -> None:
    """Both programs send the same messages."""
    with ModelServer(lambda asked: REPLY) as server:
        lm = dspy.LM("openai/m", api_base=server.api_base, api_key="k", cache=False)
        theirs = RAG()
        theirs.load(state)
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            theirs(question="Where does it end?")
        sent = [request.messages for request in server.requests]
        server.requests.clear()
        with dspex.Runtime(dspex.LM("openai/m", api_base=server.api_base, api_key="k")):
            dspex.load(path)(question="Where does it end?")
        assert [request.messages for request in server.requests] == sent
        assert len(sent) == 3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, state = Path(folder) / "rag.dspex.json", Path(folder) / "rag.json"
        program = compiled()
        program.save(state)
        dspex.export(dspex.from_dspy(program), path)
        check(path, state)

        def ours() -> None:
            dspex.load(path)

        def theirs() -> None:
            RAG().load(state)

        took: dict[str, list[float]] = {"dspex.load": [], "DSPy, made and loaded": []}
        for _ in range(ROUNDS):
            for name, way in zip(took, (ours, theirs), strict=True):
                begun = time.perf_counter()
                way()
                took[name].append(time.perf_counter() - begun)
        code = (
            "import time; begun = time.perf_counter(); import dspex; "
            f"dspex.load({str(path)!r}); print(time.perf_counter() - begun)"
        )
        cold = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
        took["dspex.load in a new process, with imports"] = cold
        print(f"{2 * DEMOS} demos, {path.stat().st_size:,} bytes, medians of {ROUNDS} rounds")
        for name, seconds in took.items():
            print(f"{name:44}{statistics.median(seconds) * 1e3:8.2f} ms")


if __name__ == "__main__":
    main()
