"""A user's service, as mypy and pyright check it in their strict modes. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dspex
from dspex import LM, Completions, Pool, PoolSpec, Predict, Prediction, Runtime, Signature, SyncPool
from dspex.adapters import ChatAdapter
from dspex.errors import ConfigError, DspexError, LMError, PoolSaturated, ReplyError, WorkerDiedError
from dspex.events import PartialValue
from dspex.lm import LanguageModel, LMRequest, LMResponse, RequestSettings
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
from dspex.testing import ModelServer, ScriptedLM

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
    return lm.with_settings(temperature=None, max_tokens=100)


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


class Echo:
    """A language model of the user's own."""

    async def complete(self, request: LMRequest) -> LMResponse:
        return await ScriptedLM("Ada").complete(request)


not_one: LanguageModel = Echo()  # type: ignore[assignment]  # it lacks `stream` and `aclose`
scripted: LanguageModel = ScriptedLM("Ada")
PoolSpec(worker=4)  # type: ignore[call-arg]
PoolSpec(limits=Timeouts())  # type: ignore[arg-type]
SPEC.workers = 5  # type: ignore[misc]
SPEC.replace(wrkers=4)  # type: ignore[call-arg]
Predict("question -> answer", adaptor="json")  # type: ignore[call-arg]
Predict("question -> answer", temperature="hot")  # type: ignore[arg-type]
dspex.configure("openai/x", adaptor="json")  # type: ignore[call-arg]
LM("openai/x", temprature=0.5)  # type: ignore[call-arg]
Runtime("openai/x", pools="4")  # type: ignore[arg-type]
print(ConfigError("no", code="x").pth)  # type: ignore[attr-defined]
