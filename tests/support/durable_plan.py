"""A plan with steps of all kinds, and a process that runs it and may be killed at any boundary.

    python -m tests.support.durable_plan STORE EFFECTS RUN_ID begin|resume POINT

`EFFECTS` is a file to which every call of a step adds a line, outside of the store. `POINT` is `before:PATH`
or `after:PATH`: the process ends itself by SIGKILL when the row of that step is about to be written, or has
been; `*` is any step. It prints the result as JSON, or the code of the error.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import dspex
from dspex.pipelines import Pipeline, StepContext
from dspex.router import Retry
from dspex.stores import Lease, SQLite, StepRow
from dspex.testing import ScriptedLM

__all__ = ["EXPECTED", "PATHS", "KillingStore", "make"]

EFFECTS = "effects.txt"

PATHS = (
    "query",
    "gather/docs",
    "gather/facts",
    "gather/sync",
    "gather/reduce",
    "gate/condition",
    "gate/then/size",
    "notes[0]/note",
    "notes[1]/note",
    "notes[2]/note",
    "refine[0]/x",
    "refine[0]/until",
    "refine[1]/x",
    "refine[1]/until",
    "inner/a",
    "inner/b",
    "steady/fallback",
    "shaky",
)
"""All rows of an undisturbed run."""

EXPECTED = {
    "size": "many",
    "note": ["ada: doc 0", "ada: doc 1", "ada: doc 2"],
    "x": 2,
    "b": "QUESTION!",
    "found": "found elsewhere",
    "done": "yes",
}


def make(effects: str) -> Pipeline:
    """The plan; every function notes that it was called."""

    def note(ctx: StepContext) -> None:
        with open(effects, "a") as file:  # noqa: ASYNC230, RUF100 - a line, at once
            file.write(f"{ctx.path}\n")

    async def docs(query: str, ctx: StepContext) -> list[str]:
        note(ctx)
        return [f"doc {number}" for number in range(3)]

    async def facts(query: str, ctx: StepContext) -> set[str]:
        note(ctx)
        await asyncio.sleep(0)
        return {query, "b", "c"}

    def sync(query: str, ctx: StepContext) -> int:
        note(ctx)
        return len(query)

    async def join(docs: list[str], facts: set[str], sync: int, ctx: StepContext) -> list[str]:
        note(ctx)
        return docs

    async def many(ctx: StepContext) -> str:
        note(ctx)
        return "many"

    async def few(ctx: StepContext) -> str:
        note(ctx)
        return "few"

    async def one(doc: str, query: str, ctx: StepContext) -> str:
        note(ctx)
        return f"{query}: {doc}"

    async def grow(x: int, ctx: StepContext) -> int:
        note(ctx)
        return x + 1

    async def upper(question: str, ctx: StepContext) -> str:
        note(ctx)
        return question.upper()

    async def shout(a: str, ctx: StepContext) -> str:
        note(ctx)
        return f"{a}!"

    async def fails(query: str) -> str:
        raise ConnectionError

    async def elsewhere(query: str, ctx: StepContext) -> str:
        note(ctx)
        return "found elsewhere"

    async def shaky(found: str, ctx: StepContext) -> str:
        if ctx.attempt == 1:
            raise ConnectionError
        note(ctx)
        return "yes"

    by_size = dspex.branch(
        "docs|length > 2", dspex.step(many, outputs="size"), dspex.step(few, outputs="size")
    )
    grown = dspex.loop(dspex.step(grow, outputs="x"), until=lambda x: x >= 2, at_most=5)
    inner = dspex.pipeline(
        dspex.step(upper, outputs="a"), dspex.step(shout, outputs="b"), name="inner", outputs=["b"]
    )
    return dspex.pipeline(
        dspex.Predict("question -> query"),
        dspex.step(
            dspex.parallel(docs=docs, facts=facts, sync=sync, reduce=join), name="gather", outputs="docs"
        ),
        dspex.step(by_size, name="gate"),
        dspex.step(dspex.map(dspex.step(one, outputs="note"), over="docs", item="doc"), name="notes"),
        dspex.step(grown, name="refine"),
        inner,
        dspex.step(fails, name="steady", outputs="found", fallback=dspex.step(elsewhere, outputs="found")),
        dspex.step(shaky, name="shaky", outputs="done", retry=Retry(attempts=2, first_wait=0.001)),
        inputs={"question": str, "x": int},
        outputs=list(EXPECTED),
    )


class KillingStore(SQLite):
    """Ends its process when the row of a step is about to be written, or has been."""

    def __init__(self, path: str, point: str) -> None:
        super().__init__(path)
        self._when, _, self._path_of_step = point.partition(":")

    async def record_steps(self, lease: Lease, rows: Sequence[StepRow]) -> None:
        """See `RunStore.record_steps`."""
        hit = any(self._path_of_step in (row.path, "*") for row in rows)
        if hit and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await super().record_steps(lease, rows)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(store_path: str, effects: str, run_id: str, how: str, point: str) -> None:
    """Run it, or go on with it."""

    def reply(_: Any) -> str:
        with open(effects, "a") as file:
            file.write("query\n")
        return "[[ ## query ## ]]\nada\n\n[[ ## completed ## ]]"

    store = KillingStore(store_path, point)
    pipeline = make(effects).with_options(store=store)
    async with dspex.Runtime(lm=ScriptedLM(reply)):
        try:
            if how == "begin":
                result = await pipeline.arun(question="question", x=0, run_id=run_id)
            else:
                result = await pipeline.aresume(run_id, max_resumes=None)
        except dspex.DspexError as error:
            print(json.dumps({"error": error.code}))
        else:
            print(json.dumps(dict(result)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
