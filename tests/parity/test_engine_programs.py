"""DSPy's programs over `dspex.dspy.Engine`: requests, results, usage and callbacks are its own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.utils.callback import BaseCallback
from tests.parity.versions import NEWER_THAN_33

import dspex
from dspex.testing import ChatRequest, HttpError, ModelServer, Stall

if not NEWER_THAN_33:
    pytest.skip("DSPy has engines since 3.4", allow_module_level=True)

from dspex.dspy import AsyncEngine, Engine

MODEL = "openai/gpt-4o-mini"  # of which DSPy's catalogue knows that it takes schemas and tools

NATIVE = dspy.ChatAdapter(use_native_function_calling=True)


class Model:
    """What the server says: by a script where there is one, else a value for each field that is asked for."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.asked = 0

    def __call__(self, request: ChatRequest) -> Any:
        self.asked += 1
        if self.script:
            return self.script[min(self.asked, len(self.script)) - 1]
        text = str(request.messages)
        if "response_format" in request.body:
            return json.dumps({"reasoning": "so", "answer": "Paris", "score": 3, "tags": ["a", "b"]})
        names = re.findall(r"\[\[ ## (\w+) ## \]\]", text.rpartition("Respond with the corresponding")[2])
        values = {"reasoning": "so it is", "score": "3", "tags": '["a", "b"]'}
        marks = "".join(f"[[ ## {name} ## ]]\n{values.get(name, 'Paris')}\n\n" for name in names)
        return f"{marks}" if "completed" in names else f"{marks}[[ ## completed ## ]]"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class Sides:
    """A `dspy.LM` over either engine, in front of one server."""

    def __init__(self) -> None:
        self.model = Model()
        self.server = ModelServer(self.model).start()
        self.lm = dspex.LM(MODEL, api_base=self.server.api_base, api_key="k")
        self.engine, self.async_engine = Engine(self.lm), AsyncEngine(self.lm)

    def dspy_lm(self, which: str, **settings: Any) -> dspy.LM:
        settings = {"cache": False, "num_retries": 0, **settings}
        if which == "ours":
            return dspy.LM(MODEL, engine=self.engine, async_engine=self.async_engine, **settings)
        return dspy.LM(MODEL, api_base=self.server.api_base, api_key="k", **settings)

    def both(self, run: Callable[[dspy.LM], Any], script: Any = (), **settings: Any) -> tuple[Any, Any]:
        """What a program comes to over either, with the bodies that it sent."""
        found = []
        for which in ("ours", "theirs"):
            self.model.script, self.model.asked = list(script), 0
            self.server.requests.clear()
            lm = self.dspy_lm(which, **settings)
            try:
                outcome = run(lm)
            except Exception as error:  # noqa: BLE001 - it is compared
                outcome = type(error).__name__, re.sub(r"0x[0-9a-f]+", "", str(error))
            finally:
                lm.close()
            found.append((outcome, [request.raw for request in self.server.requests]))
        return found[0], found[1]

    def close(self) -> None:
        self.engine.close()
        self.server.stop()


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    sides = Sides()
    yield sides
    sides.close()


@pytest.fixture(autouse=True)
def no_script(sides: Sides) -> None:
    """No test answers by the script of the one before."""
    sides.model.script = []
    sides.server.faults.clear()


class Facts(dspy.Signature):
    """Answers with what is known."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    score: int = dspy.OutputField()
    tags: list[Literal["a", "b"]] = dspy.OutputField()


def search(query: str) -> str:
    """Searches."""
    return f"found {query}"


def fields(prediction: Any) -> dict[str, str]:
    return {name: repr(value) for name, value in prediction.items()}


def in_context(lm: dspy.LM, run: Callable[[], Any], **settings: Any) -> Any:
    with dspy.context(lm=lm, **settings):
        return run()


def tool_call(name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"tool_calls": [{"id": "call-1", "type": "function", "function": function}]}


def run_async(lm: dspy.LM, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result, on a loop of its own, whose connections are closed before it ends."""

    async def run() -> Any:
        try:
            return await coroutine
        finally:
            await (lm.aclose() if isinstance(lm.engine, str) else lm.engine.lm.aclose())

    return asyncio.run(run())


def by_predict(lm: dspy.LM) -> Any:
    return in_context(lm, lambda: fields(dspy.Predict(Facts)(question="What?")))


def by_chain_of_thought(lm: dspy.LM) -> Any:
    return in_context(lm, lambda: fields(dspy.ChainOfThought(Facts)(question="What?")))


def by_json(lm: dspy.LM) -> Any:
    return in_context(lm, lambda: fields(dspy.Predict(Facts)(question="What?")), adapter=dspy.JSONAdapter())


def by_xml(lm: dspy.LM) -> Any:
    return in_context(lm, lambda: fields(dspy.Predict(Facts)(question="What?")), adapter=dspy.XMLAdapter())


def by_n(lm: dspy.LM) -> Any:
    predictor = dspy.Predict("question -> answer", n=3, temperature=1.0)
    return in_context(lm, lambda: predictor(question="What?").completions.answer)


def by_async(lm: dspy.LM) -> Any:
    async def run() -> Any:
        with dspy.context(lm=lm):
            program = dspy.ChainOfThought(Facts)
            found = await asyncio.gather(*(program.acall(question=str(number)) for number in range(8)))
        return [fields(one) for one in found]

    return run_async(lm, run())


def by_best_of_n(lm: dspy.LM) -> Any:
    program = dspy.BestOfN(dspy.Predict("question -> answer"), N=2, reward_fn=lambda *_: 1.0, threshold=2.0)
    return in_context(lm, lambda: fields(program(question="What?")))


def by_usage(lm: dspy.LM) -> Any:
    def run() -> Any:
        return dspy.ChainOfThought(Facts)(question="What?").get_lm_usage()

    return in_context(lm, run, track_usage=True)


def by_direct_call(lm: dspy.LM) -> Any:
    return lm("hello"), lm(messages=[{"role": "user", "content": "hello"}], temperature=0.5)


def by_history(lm: dspy.LM) -> Any:
    by_predict(lm)
    entry = dict(lm.history[-1])
    return {
        name: entry[name] for name in ("messages", "outputs", "usage", "model", "response_model", "kwargs")
    }


class Told(BaseCallback):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_lm_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        self.told.append(("start", sorted(inputs)))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self.told.append(("end", outputs, type(exception).__name__))

    def on_adapter_parse_end(
        self, call_id: str, outputs: Any, exception: BaseException | None = None
    ) -> None:
        self.told.append(("parsed", repr(outputs)))


def by_callbacks(lm: dspy.LM) -> Any:
    told = Told()
    in_context(lm, lambda: dspy.Predict(Facts)(question="What?"), callbacks=[told])
    return told.told


def by_settings(lm: dspy.LM) -> Any:
    settings = {"temperature": 0.25, "max_tokens": 50, "stop": ["x"], "seed": 3, "logit_bias": {"5": 1}}
    predictor = dspy.Predict("question -> answer", **settings)
    return in_context(lm, lambda: fields(predictor(question="What?")))


def by_threads(lm: dspy.LM) -> Any:
    program = dspy.Predict("question -> answer")
    runner = dspy.Parallel(num_threads=8, disable_progress_bar=True)
    pairs = [(program, {"question": str(number)}) for number in range(24)]
    with dspy.context(lm=lm):
        return [fields(one) for one in runner(pairs)]


PROGRAMS = [
    by_predict,
    by_chain_of_thought,
    by_json,
    by_xml,
    by_n,
    by_async,
    by_best_of_n,
    by_usage,
    by_direct_call,
    by_history,
    by_callbacks,
    by_settings,
    by_threads,
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__[3:])
def test_a_program_comes_to_the_same(sides: Sides, program: Callable[[dspy.LM], Any]) -> None:
    ours, theirs = sides.both(program)
    assert ours[0] == theirs[0]
    assert sorted(ours[1]) == sorted(theirs[1])  # threads and tasks come in any order
    assert ours[1]


def test_the_json_adapter_asks_for_its_schema(sides: Sides) -> None:
    (outcome, bodies), _ = sides.both(by_json)
    assert outcome["score"] == "3"
    assert json.loads(bodies[0])["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_react_program_calls_its_tools_natively(sides: Sides, asynchronous: bool) -> None:
    script = [
        tool_call("search", query="x"),
        tool_call("submit", answer="Paris"),
        tool_call("submit", answer="B"),
    ]

    def run(lm: dspy.LM) -> Any:
        program = dspy.ReActV2("question -> answer", tools=[search])
        if not asynchronous:
            return in_context(lm, lambda: program(question="What?").answer, adapter=NATIVE)

        async def go() -> Any:
            with dspy.context(lm=lm, adapter=NATIVE):
                return (await program.acall(question="What?")).answer

        return run_async(lm, go())

    ours, theirs = sides.both(run, script)
    assert ours == theirs
    assert "tools" in json.loads(ours[1][0])
    assert ours[0] == "Paris"


def test_a_predictor_gets_its_native_tool_calls(sides: Sides) -> None:
    signature = dspy.Signature("question: str, tools: list[dspy.Tool] -> calls: dspy.ToolCalls")

    def run(lm: dspy.LM) -> Any:
        made = dspy.Predict(signature)
        return in_context(
            lm, lambda: repr(made(question="What?", tools=[dspy.Tool(search)]).calls), adapter=NATIVE
        )

    ours, theirs = sides.both(run, [tool_call("search", query="y")])
    assert ours == theirs
    assert "search" in ours[0]


@pytest.mark.parametrize("kind", ["chat", "json"])
@pytest.mark.parametrize("is_sync", [False, True], ids=["async-program", "sync-program"])
def test_a_streamed_program_gives_the_same_pieces(sides: Sides, is_sync: bool, kind: str) -> None:
    adapter = dspy.ChatAdapter() if kind == "chat" else dspy.JSONAdapter()

    def run(lm: dspy.LM) -> Any:
        async def go() -> Any:
            listeners = [dspy.streaming.StreamListener(name) for name in ("reasoning", "answer")]
            program = dspy.streamify(
                dspy.ChainOfThought("question -> answer"),
                stream_listeners=listeners,
                is_async_program=not is_sync,
            )
            with dspy.context(lm=lm, adapter=adapter):
                return [piece async for piece in program(question="What?")]

        pieces = run_async(lm, go())
        assert len(pieces) > 2
        return [
            fields(piece)
            if isinstance(piece, dspy.Prediction)
            else (piece.signature_field_name, piece.chunk, piece.is_last_chunk)
            for piece in pieces
        ]

    ours, theirs = sides.both(run)
    assert ours == theirs
    assert b'"stream":true' in ours[1][0]


def test_a_stream_without_listeners_gives_the_same_chunks(sides: Sides) -> None:
    def run(lm: dspy.LM) -> Any:
        async def go() -> Any:
            program = dspy.streamify(dspy.Predict("question -> answer"))
            with dspy.context(lm=lm):
                return [piece async for piece in program(question="What?")]

        return [
            [dict(choice["delta"]) for choice in piece["choices"]]
            for piece in run_async(lm, go())
            if not isinstance(piece, dspy.Prediction)
        ]

    ours, theirs = sides.both(run)
    assert ours == theirs
    assert len(ours[0]) > 2


class TwoSteps(dspy.Module):
    """Two predictors, of whose fields some have one name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.Predict("question -> answer")
        self.second = dspy.ChainOfThought("question, answer -> verdict")

    def forward(self, question: str) -> Any:
        return self.second(question=question, answer=self.first(question=question).answer)


def test_a_program_of_two_predictors_streams_both(sides: Sides) -> None:
    def run(lm: dspy.LM) -> Any:
        program = TwoSteps()
        listeners = [
            dspy.streaming.StreamListener("answer"),
            dspy.streaming.StreamListener("verdict"),
            dspy.streaming.StreamListener("reasoning"),
        ]
        streamed = dspy.streamify(program, stream_listeners=listeners, async_streaming=False)
        with dspy.context(lm=lm):
            pieces = list(streamed(question="What?"))
        return [
            fields(piece)
            if isinstance(piece, dspy.Prediction)
            else (piece.predict_name, piece.signature_field_name, piece.chunk)
            for piece in pieces
        ]

    ours, theirs = sides.both(run)
    assert ours == theirs
    assert {piece[0] for piece in ours[0][:-1]} == {"first", "second.predict"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "said",
    [
        {"content": "yes", "reasoning_content": "because"},
        tool_call("search", query="x"),
        {"content": "yes", **tool_call("search", query="x")},
    ],
    ids=["reasoning", "tool-call", "text-and-tool-call"],
)
def test_a_direct_call_gives_the_same_output(sides: Sides, said: Any) -> None:
    ours, theirs = sides.both(lambda lm: repr(lm("hello")), [said])
    assert ours == theirs


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("model", ["openai/gpt-5-mini", "openai/o3-mini"])
def test_a_reasoning_model_is_asked_the_same(sides: Sides, model: str) -> None:
    sides.server.requests.clear()
    with Engine(sides.lm) as engine:
        dspy.LM(model, engine=engine, cache=False, temperature=1.0, max_tokens=20000)("hello")
    own = {"api_base": sides.server.api_base, "api_key": "k"}
    lm = dspy.LM(model, cache=False, temperature=1.0, max_tokens=20000, **own)
    lm("hello")
    lm.close()
    ours, theirs = sides.server.requests
    assert ours.raw == theirs.raw


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rollouts_pass_the_cache_and_stay_out_of_the_body(sides: Sides) -> None:
    lm = sides.dspy_lm("ours", cache=True, temperature=0.7)
    sides.server.requests.clear()
    for rollout in (1, 2, 2, None, None):
        lm(f"hello {id(lm)}", rollout_id=rollout)
    assert len(sides.server.requests) == 3
    assert all("rollout_id" not in request.body for request in sides.server.requests)


@pytest.mark.parametrize("count", [1, 3])
def test_the_same_errors_are_tried_again_as_often(sides: Sides, count: int) -> None:
    def run(lm: dspy.LM) -> Any:
        sides.server.faults.push(*[HttpError(503, retry_after=0)] * count)
        return by_predict(lm)

    ours, theirs = sides.both(run, num_retries=2)
    sides.server.faults.clear()
    assert ours == theirs
    assert len(ours[1]) == min(count + 1, 3)


def test_a_saved_program_brings_its_engine(sides: Sides, tmp_path: Path) -> None:
    program = dspy.ChainOfThought("question -> answer")
    program.set_lm(sides.dspy_lm("ours"))
    program.save(tmp_path / "program.json")
    text = (tmp_path / "program.json").read_text()
    assert "dspex.dspy:Engine" in text
    assert '"k"' not in text

    again = dspy.ChainOfThought("question -> answer")
    with pytest.raises(ValueError, match="allow_unsafe_lm_state"):
        again.load(tmp_path / "program.json")
    again.load(tmp_path / "program.json", allow_unsafe_lm_state=True)

    lm = again.predict.lm if hasattr(again.predict, "lm") else again.lm
    assert isinstance(lm.engine, Engine)
    assert lm.engine.lm is lm._async_engine_spec.lm  # as it was before: one LM for both, with its limits
    before = len(sides.server.requests)
    assert again(question="What?").answer == "Paris"
    assert len(sides.server.requests) == before + 1
    lm.engine.close()
    asyncio.run(lm._async_engine_spec.aclose())


def test_a_copied_program_shares_the_engine(sides: Sides) -> None:
    lm = sides.dspy_lm("ours")
    copied = lm.copy(temperature=0.5)
    assert copied.engine is lm.engine
    assert in_context(copied, lambda: dspy.Predict("question -> answer")(question="x").answer) == "Paris"


def test_dspys_cache_answers_without_the_engine(sides: Sides) -> None:
    lm = sides.dspy_lm("ours", cache=True)
    question = f"What is {id(lm)}?"
    answers = [
        in_context(lm, lambda: dspy.Predict("question -> answer")(question=question).answer) for _ in range(3)
    ]
    assert answers == ["Paris"] * 3
    assert sum(question in request.raw.decode() for request in sides.server.requests) == 1


def test_a_pydantic_answer_is_the_same(sides: Sides) -> None:
    class Place(pydantic.BaseModel):
        name: str
        size: int

    signature = dspy.Signature("question -> place", custom_types={"Place": Place}).with_updated_fields(
        "place", type_=Place
    )

    def run(lm: dspy.LM) -> Any:
        made = dspy.Predict(signature)
        return in_context(lm, lambda: made(question="x").place.model_dump(), adapter=dspy.JSONAdapter())

    ours, theirs = sides.both(run, ['{"place": {"name": "Paris", "size": 3}}'])
    assert ours == theirs
    assert ours[0] == {"name": "Paris", "size": 3}


async def test_a_cancelled_program_leaves_the_connection_free(sides: Sides) -> None:
    sides.server.requests.clear()
    sides.server.faults.push(Stall())
    with dspy.context(lm=sides.dspy_lm("ours")):
        call = asyncio.create_task(dspy.Predict("question -> answer").acall(question="What?"))
        while not sides.server.requests:
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await dspy.Predict("question -> answer").acall(question="What?")).answer == "Paris"
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    await sides.lm.aclose()


async def test_a_streamed_program_that_is_given_up_leaves_nothing(sides: Sides) -> None:
    sides.server.requests.clear()
    sides.server.faults.push(Stall("middle"))
    listeners = [dspy.streaming.StreamListener("answer")]
    program = dspy.streamify(
        dspy.Predict("question -> answer"), stream_listeners=listeners, is_async_program=True
    )

    async def read() -> None:
        with dspy.context(lm=sides.dspy_lm("ours")):
            async with aclosing(program(question="What?")) as pieces:
                async for _ in pieces:
                    pass

    reading = asyncio.create_task(read())
    while not sides.server.requests:
        await asyncio.sleep(0.005)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    while sides.server.requests[0].seconds is None:  # the server sees that nobody reads any more
        await asyncio.sleep(0.005)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    await sides.lm.aclose()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_server_that_is_too_slow_is_dspys_timeout(sides: Sides, asynchronous: bool) -> None:
    lm = dspex.LM(MODEL, api_base=sides.server.api_base, api_key="k", timeout=0.2)
    engine = Engine(lm)
    slow = dspy.LM(MODEL, engine=engine, async_engine=AsyncEngine(lm), cache=False, num_retries=1)
    predict = dspy.Predict("question -> answer")
    sides.server.requests.clear()
    sides.server.faults.push(Stall(), Stall())

    async def ask() -> Any:
        with dspy.context(lm=slow):
            return await predict.acall(question="What?")

    def call() -> Any:
        return run_async(slow, ask()) if asynchronous else in_context(slow, lambda: predict(question="What?"))

    with pytest.raises(dspy.LMTimeoutError) as caught:
        call()
    assert "lm-timeout" in str(caught.value)
    assert len(sides.server.requests) == 2  # tried again once, as DSPy was told to
    engine.close()


def test_a_retry_waits_as_long_as_the_server_asks(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("dspy.clients.execution.time.sleep", waited.append)
    sides.server.faults.push(HttpError(429, retry_after=37), HttpError(503, retry_after=11))
    assert by_predict(sides.dspy_lm("ours", num_retries=3))["answer"] == "'Paris'"
    assert waited == [37, 11]
