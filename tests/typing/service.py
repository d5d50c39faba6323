"""A user's service, as mypy and pyright check it in their strict modes. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dspex
from dspex import (
    LM,
    Completions,
    Pool,
    PoolSpec,
    Predict,
    Prediction,
    Runtime,
    Signature,
    SyncPool,
    router,
    telemetry,
)
from dspex.adapters import ChatAdapter
from dspex.errors import ConfigError, DspexError, LMError, PoolSaturated, ReplyError, WorkerDiedError
from dspex.events import PartialValue
from dspex.lm import Cache, LanguageModel, LMRequest, LMResponse, RequestSettings
from dspex.modules import OptimizerProgress
from dspex.pool import (
    EchoRequest,
    FunctionRequest,
    Limits,
    PoolEvent,
    PredictRequest,
    Recycling,
    Restart,
    Scaling,
    Timeouts,
    load_pools,
)
from dspex.prediction import Repair
from dspex.runtime import Pair, ShadowDifference, ShadowReport
from dspex.testing import ModelServer, ScriptedLM, captured_events

QA = Predict("question, context: list[str] -> answer: str, confidence: float", temperature=0.2, n=3)
TYPED = Predict(Signature("text -> label"), adapter="json", validate="warn", extra_body={"guided": True})

SPEC = PoolSpec(
    name="reports",
    workers=4,
    max_workers=8,
    env={"CUDA_VISIBLE_DEVICES": "0"},
    preload=["json"],
    timeouts=Timeouts(call=20, cancel=0.5),
    limits=Limits(memory=2**30, nice=5, cpus=[0, 1]),
    recycling=Recycling(age=3600, requests=None),
    restart=Restart(max=3, window=60),
    scaling=Scaling(up_after=0.2),
)


def in_stock(item: str) -> int:
    """How many of an item are there."""
    return len(item)


AGENT: dspex.RemoteModule = dspex.remote(
    "dspy.ReAct", "question -> answer", tools=[in_stock, "my_app.tools:search"], max_iters=5, adapter="json"
)
RAG = dspex.program("my_app.rag:RAG", state=Path("rag.json"), runtime=None).with_options(
    timeout=5, route="pool:general", config={"temperature": 0.5}
)


def is_right(example: Any, prediction: Prediction, trace: object = None) -> bool:
    return bool(example.answer == prediction.answer)


def tell(progress: OptimizerProgress) -> None:
    print(progress.metric_calls, progress.best_score)


async def optimised() -> dspex.ChainOfThought:
    optimizer: dspex.RemoteOptimizer = dspex.optimizer(
        "dspy.MIPROv2", metric=is_right, auto="light", prompt_model=LM("openai/x")
    )
    rows = [{"question": "?", "answer": "!"}]
    rag: dspex.RemoteModule = optimizer.compile(RAG, trainset=rows, inputs=["question"], timeout=3600)
    rag.save("rag.json")
    return await optimizer.acompile(
        dspex.ChainOfThought("question -> answer"), trainset=rows, on_progress=tell
    )


async def remote_modules() -> list[str]:
    answer: str = (await AGENT.acall(question="?")).answer
    passages: list[str] = dspex.remote("dspy.ColBERTv2", url="http://host")("query", k=3, simplify=True)
    return [answer, RAG(question="?").answer, *passages]


def settings() -> list[PoolSpec]:
    longer: PoolSpec = SPEC.replace(workers=8, timeouts=SPEC.timeouts.replace(call=600))
    memory: int | None = longer.limits.memory
    name: str = longer.name
    found: dict[str, PoolSpec] = load_pools(Path("service.toml"))
    return [
        longer,
        PoolSpec.optimizer(name=f"{name}-{memory}"),
        PoolSpec.load("a.toml", "b"),
        *found.values(),
    ]


def model() -> LM:
    creative: RequestSettings = {"temperature": 1.0, "seed": 7}
    lm = LM("openai/gpt-4o-mini", api_base="http://127.0.0.1:8000/v1", timeout=30, **creative)
    kept: Cache = Cache("disk", ttl=3600, directory=Path("kept"))
    if kept.stats().memory:
        kept.clear()
    return lm.with_settings(temperature=None, max_tokens=100, cache=kept).with_settings(cache="memory")


def read(prediction: Prediction) -> tuple[str, float]:
    answer: str = prediction.answer
    confidence: float = prediction["confidence"]
    others: Completions = prediction.completions
    repairs: list[Repair] = prediction.repairs
    route: str = prediction.route
    timings: dict[str, float] = prediction.timings
    return f"{answer} {route} {len(others)} {[repair.code for repair in repairs]}", confidence + timings[
        "total"
    ]


def blocking() -> str:
    with Runtime(model(), pools=[SPEC], timeout=60, adapter="chat", parsing="tolerant") as runtime:
        QA.with_options(route="python", timeout=5, idempotent=True)
        first = read(QA(question="Who?", context=["Ada."]))
        runtime.warmup(timeout=30)
        counts: dict[str, int] = {count.name: count.served for count in runtime.counts()}
    dspex.configure("openai/gpt-4o-mini", pools=2, timeout=30, adapter=ChatAdapter(), dialect="3.4").close()
    return f"{first[0]} {counts}"


async def routed() -> list[str]:
    limits: dict[str, router.Limits] = {"native": router.Limits(in_flight=100, wait=1.5)}
    hedge = router.Hedge(after="p95", at_most=0.02, elsewhere=True)
    shadow = router.Shadow(share=0.01, compare="messages", file=Path("differences.jsonl"))
    async with Runtime(model(), pools=2, limits=limits, hedge=hedge, shadow=shadow) as runtime:
        await QA.with_options(idempotent=True).acall(question="Who?", context=["Ada."])
        report: ShadowReport = runtime.shadow_report()
        last: ShadowDifference = report.differences[-1]
        pair: Pair = last.fields["answer"]
        skipped: int = report.skipped.get("busy", 0)
    async with Runtime.from_toml(Path("dspex.toml")) as runtime:
        timeout: float = runtime.timeout
    with Runtime.from_config({"lm": {"model": "openai/x"}}, directory="/etc"):
        pass
    return [pair.live, pair.other, f"{timeout} {skipped}", last.message.role if last.message else ""]


@asynccontextmanager
async def lifespan() -> AsyncGenerator[Runtime]:
    async with ModelServer("[[ ## answer ## ]]\nblue") as server:
        lm = LM("openai/test", api_base=server.api_base, api_key="none")
        async with Runtime(lm, pools=PoolSpec.general(workers=2)) as runtime:
            await runtime.awarmup()
            yield runtime


async def ask(question: str) -> str:
    try:
        prediction = await QA.acall(question=question, context=["Ada wrote it."])
    except ReplyError as error:
        field: str | None = error.field
        return f"{field}: {error.reply}"
    except (LMError, PoolSaturated) as error:
        again: bool = error.retryable
        return f"{error.code} {again} {error.http_status}"
    except DspexError as error:
        public: dict[str, Any] = error.to_public_dict()
        return str(public)
    return read(prediction)[0]


async def pools() -> list[Any]:
    events: list[PoolEvent] = []
    async with Pool(SPEC, lm={"model": "openai/test"}, on_event=events.append) as pool:
        one: Any = await pool.call(FunctionRequest.of("math:sqrt", 2), timeout="interactive")
        parts = [part async for part in pool.stream(PredictRequest.of("q -> a", {"q": "?"}))]
        served: list[int] = [worker.served for worker in pool.status().workers]
        names: set[str] = {event.name for event in events}
    with SyncPool(PoolSpec(workers=1)) as twin:
        try:
            one = twin.call(EchoRequest("there and back"), timeout=5)
        except WorkerDiedError as error:
            one = error.message
    return [one, parts, served, names]


def streamed(texts: list[str]) -> dict[str, Any]:
    stream = ChatAdapter().stream("question -> answer, score: float")
    found: dict[str, Any] = {}
    for text in texts:
        for event in stream.feed(text):
            if isinstance(event, PartialValue):
                found[event.field] = event.value
    return found


class Sends:
    """An asynchronous handler of events that is an object."""

    async def __call__(self, event: telemetry.Event) -> None:
        print(event.name, event.to_dict())


def slow_calls(runtime: Runtime) -> list[str]:
    events: list[telemetry.Event] = []
    with (
        telemetry.attach("dspex.call", events.append) as handle,
        telemetry.attach("dspex", Sends(), buffer=50),
        captured_events("dspex.stage") as stages,
    ):
        QA(question="?", context=[])
    kinds = [kind.code for kind in runtime.report().errors if kind.category == "timeout"]
    print(handle.dropped, stages.names, runtime.metrics())
    return [event.name for event in events if (event.seconds or 0.0) > 1] + kinds


class Echo:
    """A language model of the user's own."""

    async def complete(self, request: LMRequest) -> LMResponse:
        return await ScriptedLM("Ada").complete(request)


not_one: LanguageModel = Echo()  # type: ignore[assignment]  # it lacks `stream` and `aclose`
scripted: LanguageModel = ScriptedLM("Ada")
telemetry.attach("dspex", 7)  # type: ignore[arg-type]
PoolSpec(worker=4)  # type: ignore[call-arg]
PoolSpec(limits=Timeouts())  # type: ignore[arg-type]
SPEC.workers = 5  # type: ignore[misc]
SPEC.replace(wrkers=4)  # type: ignore[call-arg]
Predict("question -> answer", adaptor="json")  # type: ignore[call-arg]
Predict("question -> answer", temperature="hot")  # type: ignore[arg-type]
dspex.configure("openai/x", adaptor="json")  # type: ignore[call-arg]
LM("openai/x", temprature=0.5)  # type: ignore[call-arg]
Runtime("openai/x", pools="4")  # type: ignore[arg-type]
Runtime("openai/x", shadow="all")  # type: ignore[arg-type]
router.Hedge(afer=1)  # type: ignore[call-arg]
print(ConfigError("no", code="x").pth)  # type: ignore[attr-defined]
