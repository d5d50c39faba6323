"""Answer real questions in three ways, 50 at once, and compare them: DSPy, DSPy in workers, the Rust core.

The same signature runs as `dspy.Predict` in this process, as `dspy.Predict` in two worker processes, one
of which is killed in the middle, and natively. All talk to one model server, a process of its own that
keeps what it is sent, so the demo can check whether all sent the same prompts and made the same of the
replies.

Without a key a stand-in answers, by reading the context it is sent. With `OPENAI_API_KEY` or `--lm` the
server passes each prompt on to a real model, once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dspex
from dspex.errors import ConfigError, DspexError, ReplyError, WorkerDiedError
from dspex.events import TextDelta
from dspex.lm import LMRequest

HERE = Path(__file__).parent
QUESTIONS = HERE.parents[1] / "testdata" / "demo" / "questions.jsonl"
SIGNATURE = "question, context: list[str] -> answer: str, confidence: float"
REAL_MODEL = "openai/gpt-4o-mini"
STAND_IN = "openai/extractive-reader"
AT_ONCE = 50
WORKERS = 2
LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of what the model's process may say at once: all prompts of all questions."""
INTERRUPTED = 130
"""The exit status by which shells know Ctrl-C."""

Fields = dict[str, Any]
Ask = Callable[["Question"], Awaitable[Fields]]


@dataclass(frozen=True)
class Question:
    """One line of the data file."""

    question: str
    context: list[str]
    answer: str


@dataclass
class Found:
    """What one way made of all questions.

    Attributes:
        name: The way.
        fields: The fields of each answer; None where the reply could not be read.
        prompts: The messages that the model was sent, each once.
        seconds: How long all took together.
        cpu: Seconds of processor time of this process.
        died: Calls that were lost with the worker that was killed, and asked again.
    """

    name: str
    fields: list[Fields | None] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)
    seconds: float = 0.0
    cpu: float = 0.0
    died: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        0 if all ways agree on everything, 1 if they do not or a call failed, 2 for wrong arguments, 130 after
        Ctrl-C.
    """
    args = _arguments(argv)
    try:
        questions = _read_questions(args.questions)[: args.limit]
        found, pieces = asyncio.run(_compare(questions, args))
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the model server and the workers are gone", file=sys.stderr)
        return INTERRUPTED
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DspexError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result = _result(questions, found, pieces)
    print(json.dumps(result, ensure_ascii=False, indent=2) if args.json else _verdict(result, args))
    return 0 if result["same_prompts"] and result["same_fields"] else 1


async def _compare(questions: list[Question], args: argparse.Namespace) -> tuple[list[Found], list[str]]:
    say = _say_on(sys.stderr if args.json else sys.stdout)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(_model(args))
        say(f"{len(questions)} questions, {min(AT_ONCE, len(questions))} at once: {SIGNATURE}")
        say(f"the model: {model.about}")
        lm = dspex.LM(model.name, api_base=model.api_base, api_key="local")
        runtime = await stack.enter_async_context(dspex.Runtime(lm, pools=WORKERS))
        await runtime.awarmup()
        predict = dspex.Predict(SIGNATURE)
        native = _on(predict, "native")
        await _warm_up(native, questions[:1], model)  # an unreachable model is reported here, in one line
        found = []
        say(f"\n{'':26}{'all took':>10}{'CPU of this process, per call':>32}")
        for name, ask, kill in (
            ("DSPy in this process", _in_process(model), None),
            ("real DSPy in 2 workers", _on(predict, "python"), _killer(runtime)),
            ("dspex, the Rust core", native, None),
        ):
            found.append(await _ask_all(name, ask, questions, model, kill))
            say(_line(found[-1], len(questions)))
        return found, await _streamed(lm, questions[0])


# --- the three ways -------------------------------------------------------------------------------------


def _in_process(model: Model) -> Ask:
    # LiteLLM and DSPy otherwise look for newer lists of models on the network while they are imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import dspy

    lm = dspy.LM(model.name, api_base=model.api_base, api_key="local", cache=False, num_retries=0)
    # DSPy would ask again, in JSON, when it cannot read a reply; then the ways could not be compared.
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    predict = dspy.Predict(SIGNATURE)

    async def ask(question: Question) -> Fields:
        with dspy.context(lm=lm, adapter=adapter):
            try:
                return dict(await predict.acall(question=question.question, context=question.context))
            except dspy.utils.exceptions.AdapterParseError as error:
                raise ReplyError("DSPy cannot read the reply") from error

    return ask


def _on(predict: dspex.Predict, route: str) -> Ask:
    async def ask(question: Question) -> Fields:
        found = await predict.acall(question=question.question, context=question.context, route=route)
        return dict(found)

    return ask


def _killer(runtime: dspex.Runtime) -> Callable[[], None]:
    def kill() -> None:
        # SIGKILL cannot be prepared for; the pool finds out and starts another worker.
        workers = runtime.pools()["general"].workers
        busiest = max(workers, key=lambda worker: worker.inflight)
        if busiest.pid is not None:
            os.kill(busiest.pid, signal.SIGKILL)

    return kill


async def _ask_all(
    name: str, ask: Ask, questions: list[Question], model: Model, kill: Callable[[], None] | None
) -> Found:
    found = Found(name, [None] * len(questions))
    await _warm_up(ask, questions[:AT_ONCE], model)
    left = iter(range(len(questions)))
    answered = 0

    async def caller() -> None:
        nonlocal answered
        for index in left:
            for _ in range(2):
                try:
                    found.fields[index] = await ask(questions[index])
                except WorkerDiedError:
                    found.died += 1
                    continue  # the call was lost with its worker; another worker takes it
                except ReplyError:
                    pass  # the model's fault, and the same in each way
                break
            answered += 1
            if kill is not None and answered == len(questions) // 4:
                kill()
            _progress(name, answered, len(questions))

    cpu, begun = time.process_time(), time.perf_counter()
    callers = [asyncio.create_task(caller()) for _ in range(min(AT_ONCE, len(questions)))]
    try:
        await asyncio.gather(*callers)
    finally:
        for task in callers:
            task.cancel()
    found.seconds, found.cpu = time.perf_counter() - begun, time.process_time() - cpu
    found.prompts = {json.dumps(messages, ensure_ascii=False) for messages in await model.take()}
    return found


async def _warm_up(ask: Ask, questions: list[Question], model: Model) -> None:
    """Calls that are not counted: the first of each way import what they need and open connections."""
    for result in await asyncio.gather(*map(ask, questions), return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, ReplyError):
            raise result
    await model.take()


async def _streamed(lm: dspex.LM, question: Question) -> list[str]:
    """The first answer again, piece by piece: what is sure of the field while the reply comes in."""
    adapter = dspex.ChatAdapter()
    inputs = {"question": question.question, "context": question.context}
    reading = adapter.stream(SIGNATURE)
    pieces = []
    async with aclosing(lm.stream(LMRequest(adapter.format(SIGNATURE, [], inputs)))) as deltas:
        async for delta in deltas:
            events = [event for event in reading.feed(delta.text.encode()) if isinstance(event, TextDelta)]
            pieces += [event.text for event in events if event.field == "answer" and event.text]
    return pieces


# --- the model, in its process --------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """The process of the model: its address, and what it was sent."""

    name: str
    about: str
    api_base: str
    process: asyncio.subprocess.Process

    async def take(self) -> list[list[Mapping[str, Any]]]:
        """The messages of every request since the last time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        taken: list[list[Mapping[str, Any]]] = json.loads(await self.process.stdout.readline())
        return taken


@asynccontextmanager
async def _model(args: argparse.Namespace) -> AsyncIterator[Model]:
    real = args.lm or (REAL_MODEL if os.environ.get("OPENAI_API_KEY") or args.api_base else None)
    command = [sys.executable, str(HERE / "model.py")]
    about = "a local stand-in, which picks words out of the context and takes 0.1 s"
    if real is not None:
        upstream = dspex.LM(real, api_base=args.api_base)  # a wrong name or address is reported here
        about = f"{real} at {upstream.api_base}, asked once for each prompt"
        await upstream.aclose()
        command += ["--lm", real, *(["--api-base", args.api_base] if args.api_base else [])]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE)
    try:
        # The process has the key; everything here talks to the process, whatever the environment says.
        for name in ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
            os.environ.pop(name, None)
        assert process.stdout is not None
        api_base = (await process.stdout.readline()).decode().strip()
        yield Model(real or STAND_IN, about, api_base, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


# --- what is printed ------------------------------------------------------------------------------------


def _say_on(stream: Any) -> Callable[[str], None]:
    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    return say


def _progress(name: str, answered: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\r" if answered < total else "\r\033[K"
        print(f"{name}: {answered} of {total}", end=end, file=sys.stderr, flush=True)


def _line(found: Found, total: int) -> str:
    line = f"{found.name:26}{found.seconds:8.2f} s{found.cpu / total * 1e3:29.2f} ms"
    if found.died:
        line += f"   a worker was killed: its {found.died} calls failed at once, and were made again"
    return line


def _result(questions: list[Question], found: list[Found], pieces: list[str]) -> dict[str, Any]:
    """Everything the demo found out, as plain data."""
    first = found[0]
    differ = {
        question.question
        for index, question in enumerate(questions)
        if any(way.fields[index] != first.fields[index] for way in found)
    }
    return {
        "questions": len(questions),
        "same_prompts": all(way.prompts == first.prompts for way in found) and len(first.prompts) > 0,
        "same_fields": not differ,
        "different": sorted(differ),
        "ways": {
            way.name: {
                "seconds": round(way.seconds, 3),
                "cpu_ms_per_call": round(way.cpu / len(questions) * 1e3, 3),
                "read": sum(fields is not None for fields in way.fields),
                "as_expected": sum(map(_right, questions, way.fields)),
                "died": way.died,
            }
            for way in found
        },
        "answers": [
            {"question": question.question, "expected": question.answer, "fields": found[-1].fields[index]}
            for index, question in enumerate(questions)
        ],
        "streamed": pieces,
    }


def _verdict(result: dict[str, Any], args: argparse.Namespace) -> str:
    total = result["questions"]
    prompts = "the same prompts, byte for byte" if result["same_prompts"] else "DIFFERENT PROMPTS"
    fields = (
        "returned the same fields"
        if result["same_fields"]
        else f"returned DIFFERENT FIELDS for: {', '.join(result['different'])}"
    )
    right = next(reversed(result["ways"].values()))["as_expected"]
    lines = [
        "",
        f"all three sent the model {prompts}, and {fields}",
        f"the model's answer is the expected one for {right} of {total} questions, in each of the ways",
        f"a reply streamed, natively: {' | '.join(result['streamed'])}",
    ]
    if args.details:
        lines += ["", *(_detail(answer) for answer in result["answers"])]
    return "\n".join(lines)


def _detail(answer: dict[str, Any]) -> str:
    found = (answer["fields"] or {"answer": "(could not be read)"})["answer"]
    return f"{_cut(answer['question'], 50):52}{_cut(found, 28):30}{_cut(answer['expected'], 28)}"


def _right(question: Question, fields: Fields | None) -> bool:
    """Whether the answer is the expected one, but for capitals and an article."""
    return fields is not None and _plain(fields["answer"]) == _plain(question.answer)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _plain(text: str) -> str:
    words = text.lower().strip(" .").split()
    return " ".join(words[1:] if words[:1] in (["the"], ["a"], ["an"]) else words)


# --- what is given --------------------------------------------------------------------------------------


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="demo", description=summary)
    parser.add_argument("--lm", metavar="openai/NAME", help=f"a real model (with a key alone: {REAL_MODEL})")
    parser.add_argument("--api-base", metavar="URL", help="its server's address, up to and including /v1")
    parser.add_argument("--limit", type=_count, metavar="N", help="answer only the first N questions")
    parser.add_argument("--questions", type=Path, default=QUESTIONS, metavar="FILE", help="another data file")
    parser.add_argument("--details", action="store_true", help="a line for each question as well")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, the table to stderr")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of questions")
    return number


def _read_questions(path: Path) -> list[Question]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the questions cannot be read: {error}", code="questions") from error
    questions = []
    for number, line in enumerate(lines, 1):
        try:
            questions.append(Question(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}, line {number}: not a question",
                code="questions",
                hint='each line is {"question": "...", "context": ["...", ...], "answer": "..."}',
            ) from error
    if not questions:
        raise ConfigError(f"{path} holds no questions", code="questions")
    return questions


if __name__ == "__main__":
    sys.exit(main())
