"""Questions answered by a pipeline that is killed in the middle and goes on where it was.

Retrieval in two ways side by side, an answer, a check, and another try with more to read where the check
fails. Every finished step is a row in a SQLite file. A process runs the pipeline for some of the demo's
questions; when a few are answered it is ended by SIGKILL. Another one goes on with the same runs, and what
was finished is not asked again: the model's server, which neither of them is, counts the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reader import find

import dspex
from dspex.stores import SQLite
from dspex.testing import ChatRequest, ModelServer, read_prompt_and_answer

QUESTIONS = Path(__file__).parents[2] / "testdata" / "demo" / "questions.jsonl"
SECONDS = 0.05
"""What an answer of the stand-in takes."""
KILLED_AFTER = 5
"""Answers after which the first process is ended."""
DEADLINE = 60.0

CASES = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
PASSAGES = sorted({passage for case in CASES for passage in case["context"]})
_SMALL = {"and", "did", "does", "for", "from", "how", "the", "was", "were", "what", "when", "who"}


def words(text: str) -> set[str]:
    """The words of a text that say something."""
    return {word.lower() for word in re.findall(r"\w{3,}", text)} - _SMALL


def names(text: str) -> set[str]:
    """The words of a text that are written with a capital, save the first."""
    return set(re.findall(r"(?<=\s)[A-Z]\w+", text))


def best(scores: Sequence[float], count: int) -> list[str]:
    """The passages with the highest scores."""
    order = sorted(range(len(PASSAGES)), key=lambda number: (-scores[number], number))
    return [PASSAGES[number] for number in order[:count] if scores[number] > 0]


async def by_words(question: str, width: int) -> list[str]:
    """Passages that share words with the question."""
    asked = words(question)
    return best([len(asked & words(passage)) for passage in PASSAGES], width)


async def by_names(question: str, width: int) -> list[str]:
    """Passages that share names with it."""
    asked = names(question)
    return best([len(asked & names(passage)) for passage in PASSAGES], width)


async def merged(words: list[str], names: list[str]) -> list[str]:
    """Both, each passage once."""
    return list(dict.fromkeys(names + words))


async def check(answer: str, context: list[str], confidence: float) -> bool:
    """Whether the answer is in what was read, and the model thinks so too."""
    return confidence >= 0.5 and any(answer in passage for passage in context)


async def wider(width: int) -> int:
    """Read twice as much the next time."""
    return 2 * width


attempt = (
    dspex.step(dspex.parallel(words=by_words, names=by_names, reduce=merged), name="read", outputs="context")
    | dspex.Predict("question, context: list[str] -> answer: str, confidence: float")
    | dspex.step(check, outputs="ok")
    | dspex.step(wider, outputs="width")
)
pipeline = dspex.pipeline(
    dspex.loop(attempt, until="ok", at_most=3),
    inputs={"question": str, "width": int},
    outputs=["answer", "confidence"],
    name="demo",
)


async def work(api_base: str, path: str, count: int) -> None:
    """Run the pipeline for the questions; or go on with it, for those that were begun before."""
    rows = [{"question": case["question"], "width": 2} for case in CASES[:count]]
    lm = dspex.LM("openai/extractive-reader", api_base=api_base, api_key="none")
    store = SQLite(path)
    async with dspex.Runtime(lm=lm):
        batch = pipeline.with_options(store=store, run_id="demo")
        async for number, outcome in batch.abatch_as_completed(rows, concurrency=2, progress=False):
            said = repr(outcome) if isinstance(outcome, Exception) else outcome.answer
            print(json.dumps([number, said]), flush=True)
        last = await pipeline.arun(**rows[0])
        print(json.dumps(["profile", str(pipeline.profile()), last.answer]), flush=True)
    await store.close()


async def child(api_base: str, path: str, count: int, kill_after: int | None) -> tuple[dict[int, str], str]:
    """The answers of a process that runs the pipeline, and what it says of its time; killed after so many."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        *("--work", api_base, "--store", path, "--limit", str(count)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    answers: dict[int, str] = {}
    profile = ""
    try:
        async with asyncio.timeout(DEADLINE):
            async for line in process.stdout:
                what, said, *_ = json.loads(line)
                if what == "profile":
                    profile = said
                    continue
                answers[what] = said
                if kill_after is not None and len(answers) >= kill_after:
                    break
    finally:
        if process.returncode is None and kill_after is not None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    return answers, profile


def read(request: ChatRequest) -> str:
    """The stand-in's reply, found in the prompt itself."""
    return read_prompt_and_answer(request.messages, find)


async def show(count: int) -> int:
    """Run it, kill it, go on with it; returns the exit status."""
    print(pipeline.to_mermaid())
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "runs.sqlite3")
        async with ModelServer(read, delay=SECONDS) as server:
            first, _ = await child(server.api_base, path, count, KILLED_AFTER)
            asked = len(server.requests)
            print(f"\nkilled after {len(first)} of {count} answers; the model had been asked {asked} times")

            store = SQLite(path)
            rows = [row for run in await store.runs(limit=count) for row in await store.steps(run.run_id)]
            await store.close()
            print(f"the store has {len(rows)} finished steps")

            answers, profile = await child(server.api_base, path, count, None)
            again = len(server.requests) - asked
            print(f"the second process asked {again} times, and has all {len(answers)} answers\n")
    right = 0
    for number, case in enumerate(CASES[:count]):
        said = answers.get(number, "-")
        right += said == case["answer"]
        print(f"{'=' if said == case['answer'] else ' '} {case['question'][:60]:60}  {said}")
    print(f"\n{right} of {count} right\n\n{profile}")
    kept = all(answers.get(number) == said for number, said in first.items())
    if not kept or len(answers) < count:
        print("the second process has not gone on where the first one was", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="how many questions (20)")
    parser.add_argument("--work", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    given = parser.parse_args()
    count = min(given.limit, len(CASES))
    if given.work:
        asyncio.run(work(given.work, given.store, count))
        return 0
    return asyncio.run(show(count))


if __name__ == "__main__":
    sys.exit(main())
