"""Answer real questions on both routes, the Rust core and real DSPy, and compare them.

For every question of the data file the same program runs twice: once natively, once as the real
`dspy.Predict` in a worker process. Both talk to one local server that keeps every request, so it can be
told whether the two sent the same messages and made the same of the reply.

Without a key the server itself answers, by reading the context it is sent. With `OPENAI_API_KEY` or `--lm` it
passes each prompt on to a real model, and gives the same reply to whoever sends the same prompt again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dspex
from dspex.errors import ConfigError, DspexError, LMError, PoolError
from dspex.lm import LMRequest
from dspex.testing import ChatRequest, ModelServer

QUESTIONS = Path(__file__).parents[2] / "testdata" / "demo" / "questions.jsonl"
SIGNATURE = "question, context: list[str] -> answer: str, confidence: float"
REAL_MODEL = "openai/gpt-4o-mini"
ROUTES = ("native", "python")
INTERRUPTED = 130
"""The exit status by which shells know Ctrl-C."""


@dataclass(frozen=True)
class Question:
    """One line of the data file."""

    question: str
    context: list[str]
    answer: str


@dataclass
class Served:
    """What one route made of one question."""

    route: str = ""
    answer: str = ""
    prediction: dspex.Prediction | None = None
    error: str = ""
    sent: list[bytes] = field(default_factory=list)
    seconds: float = 0.0
    lm_seconds: float = 0.0

    @property
    def overhead(self) -> float:
        """Seconds the call took beyond the model's own."""
        return self.seconds - self.lm_seconds


@dataclass
class Row:
    """One question, answered by each route."""

    question: Question
    served: dict[str, Served]

    def right(self, route: str) -> bool:
        """Whether the route's answer is the expected one, but for capitals and an article."""
        return _plain(self.served[route].answer) == _plain(self.question.answer)

    @property
    def same_messages(self) -> bool:
        """Whether both routes sent the same messages, once."""
        native, python = (self.served[route].sent for route in ROUTES)
        return native == python and len(native) == 1

    @property
    def same_fields(self) -> bool:
        """Whether both routes returned the same fields, or none."""
        native, python = (self.served[route].prediction for route in ROUTES)
        return native == python


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Returns:
        0 if both routes agree on everything, 1 if they do not or a call failed, 2 for wrong arguments, 130
        after Ctrl-C.
    """
    args = _arguments(argv)
    try:
        questions = _read_questions(args.questions)[: args.limit]
        rows = asyncio.run(_compare(questions, args, _say_on(sys.stderr if args.json else sys.stdout)))
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the server and the worker are gone", file=sys.stderr)
        return INTERRUPTED
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DspexError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result = _result(rows)
    print(json.dumps(result, ensure_ascii=False, indent=2) if args.json else _summary(result))
    return 0 if result["same_messages"] and result["same_fields"] else 1


async def _compare(
    questions: list[Question], args: argparse.Namespace, say: Callable[[str], None]
) -> list[Row]:
    async with _model(args, say) as (server, model):
        say(f"starting a worker with DSPy {version('dspy')}")
        lm = dspex.LM(model, api_base=server.api_base, api_key="local")
        async with dspex.Runtime(lm=lm, pools=1) as runtime:
            await runtime.awarmup()
            predict = dspex.Predict(SIGNATURE)
            say(f"answering {len(questions)} questions on each route: {SIGNATURE}\n")
            say(_columns("", "question", "answer", "expected", "served by, overhead"))
            rows = []
            for number, question in enumerate(questions, 1):
                row = Row(question, {route: await _ask(predict, question, route, server) for route in ROUTES})
                rows.append(row)
                say(_line(number, len(questions), row))
            return rows


@asynccontextmanager
async def _model(
    args: argparse.Namespace, say: Callable[[str], None]
) -> AsyncIterator[tuple[ModelServer, str]]:
    """The server both routes talk to, and the name of the model behind it."""
    key = os.environ.pop("OPENAI_API_KEY", None)
    real = args.lm or (REAL_MODEL if key or args.api_base else None)
    if real is None:
        with ModelServer() as server:
            say(f"a local model server at {server.api_base}; it reads its answers out of the prompt")
            yield server, "openai/extractive-reader"
        return
    upstream = dspex.LM(real, api_base=args.api_base, api_key=key)
    # What both routes are to talk to is the server here, whatever the environment says.
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        os.environ.pop(name, None)
    with ModelServer(_Forward(upstream)) as server:
        say(f"the model {real} at {upstream.api_base}, recorded by a local server at {server.api_base}")
        try:
            yield server, real
        finally:
            await upstream.aclose()


class _Forward:
    """Passes a prompt on to a real model, each just once.

    A model answers the same prompt differently from time to time. What is compared here are the two routes,
    not two moods of the model: whoever sends the same request gets the same reply.
    """

    def __init__(self, upstream: dspex.LM) -> None:
        self._upstream = upstream
        self._replies: dict[str, str] = {}

    async def __call__(self, request: ChatRequest) -> str:
        key = json.dumps(request.body, sort_keys=True)
        if key not in self._replies:
            response = await self._upstream.complete(LMRequest(request.messages, request.settings))
            self._replies[key] = response.texts[0]
        return self._replies[key]


async def _ask(predict: dspex.Predict, question: Question, route: str, server: ModelServer) -> Served:
    served = Served()
    before = len(server.requests)
    started = time.perf_counter()
    try:
        prediction = await predict.acall(question=question.question, context=question.context, route=route)
    except (LMError, PoolError):
        raise  # the next question would fare no better
    except DspexError as error:
        served.error = str(error).partition("\n")[0]
    else:
        served.prediction = prediction
        served.answer = prediction.answer
        served.route = prediction.route
    served.seconds = time.perf_counter() - started
    for request in server.requests[before:]:
        served.sent.append(json.dumps(request.messages, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        served.lm_seconds += request.seconds or 0.0
    return served


# --- what is printed ------------------------------------------------------------------------------------


def _say_on(stream: Any) -> Callable[[str], None]:
    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    return say


def _line(number: int, total: int, row: Row) -> str:
    native, python = (row.served[route] for route in ROUTES)
    width = len(str(total))
    head = f"{number:{width}}/{total}"
    times = "  ".join(f"{served.route} {served.overhead * 1000:.1f} ms" for served in (native, python))
    line = _columns(head, row.question.question, native.answer or native.error, row.question.answer, times)
    if not row.right("native"):
        line += "  not as expected"
    if not row.same_messages:
        line += "  DIFFERENT MESSAGES"
    if not row.same_fields:
        line += f"  DIFFERENT FIELDS: python says {python.answer or python.error!r}"
    return line


def _columns(number: str, question: str, answer: str, expected: str, overhead: str) -> str:
    return f"{number:6}{_cut(question, 36):38}{_cut(answer, 22):24}{_cut(expected, 22):24}{overhead}"


def _result(rows: list[Row]) -> dict[str, Any]:
    """Everything the demo found out, as plain data; times in milliseconds."""
    return {
        "questions": len(rows),
        "same_messages": all(row.same_messages for row in rows),
        "same_fields": all(row.same_fields for row in rows),
        "different": [row.question.question for row in rows if not (row.same_messages and row.same_fields)],
        "routes": {route: _route_result(rows, route) for route in ROUTES},
        "answers": [
            {
                "question": row.question.question,
                "expected": row.question.answer,
                **{route: row.served[route].answer for route in ROUTES},
                "confidence": row.served["native"].prediction and row.served["native"].prediction.confidence,
            }
            for row in rows
        ],
    }


def _route_result(rows: list[Row], route: str) -> dict[str, Any]:
    served = [row.served[route] for row in rows]
    overheads = sorted(each.overhead * 1000 for each in served)
    return {
        "served_by": sorted({each.route for each in served if each.route}),
        "as_expected": sum(row.right(route) for row in rows),
        "failed": sum(each.prediction is None for each in served),
        "overhead_ms": {
            "median": round(statistics.median(overheads), 3),
            "p95": round(overheads[max(0, -(-len(overheads) * 95 // 100) - 1)], 3),
        },
        "lm_ms": {"median": round(statistics.median(each.lm_seconds * 1000 for each in served), 3)},
    }


def _summary(result: dict[str, Any]) -> str:
    def yes(agree: bool) -> str:
        return "yes, for every question" if agree else f"NO, look at {', '.join(result['different'])}"

    lines = [
        "",
        f"{'route':8}{'served by':16}{'as expected':16}{'overhead per call: median':28}{'p95':12}",
    ]
    for route, found in result["routes"].items():
        right = f"{found['as_expected']} of {result['questions']}"
        median, p95 = found["overhead_ms"]["median"], found["overhead_ms"]["p95"]
        lines.append(
            f"{route:8}{', '.join(found['served_by']):16}{right:16}{median:<.2f} ms{'':20}{p95:.2f} ms"
        )
    return "\n".join(
        [
            *lines,
            "overhead is everything but the model's own time: prompt, HTTP, worker, parsing",
            "",
            f"both routes sent the same messages, byte for byte: {yes(result['same_messages'])}",
            f"both routes returned the same fields: {yes(result['same_fields'])}",
        ]
    )


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
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON, the progress to stderr"
    )
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
