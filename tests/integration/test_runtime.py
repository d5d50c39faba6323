"""Both routes end to end: a real server, real DSPy in a real worker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal, Optional

import pytest
from tests.parity.versions import NEWER_THAN_33
from tests.support.processes import children, until

import dspex
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    DspexError,
    InputError,
    LMAuthError,
    LMConnectionError,
    LMRateLimitError,
    LMResponseError,
    LMServerError,
    ReplyError,
    RouteError,
    WorkerDiedError,
)
from dspex.signature import InputField, OutputField
from dspex.testing import Cut, Fault, HttpError, MalformedJSON, ModelServer, Stall

SIGNATURE = "question, context: list[str] -> answer: str, confidence: float"
INPUTS = {
    "question": "Where does the Danube rise?",
    "context": ["The Danube rises in the Black Forest.", "Ulm «lies» on the Danube."],
}


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def runtime(server: ModelServer) -> Iterator[dspex.Runtime]:
    lm = dspex.LM("openai/local", api_base=server.api_base, temperature=0.0)
    before = children()
    with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
        yield runtime
    assert children() == before


@pytest.fixture
def qa(runtime: dspex.Runtime) -> dspex.Predict:
    return dspex.Predict(SIGNATURE, runtime=runtime)


def both(server: ModelServer, module: dspex.Predict, **inputs: object) -> Any:
    """The two predictions and the two request bodies of one call made both ways."""
    server.requests.clear()
    predictions = [module(**inputs, route=route) for route in ("native", "python")]
    return predictions, [request.body for request in server.requests]


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        (SIGNATURE, INPUTS),
        ("text -> label: Literal['good', 'bad'], sure: bool", {"text": "A bad day, is it?"}),
        ("n: int, words: dict[str, int] -> total: int, rest: list[str]", {"n": 3, "words": {"a": 1, "é": 2}}),
        ("note: Optional[str] -> summary: Optional[str]", {"note": None}),
    ],
)
def test_both_routes_send_the_same_request_and_return_the_same_fields(
    runtime: Any, server: Any, signature: Any, inputs: Any
) -> None:
    module = dspex.Predict(signature, runtime=runtime)

    (native, python), (ours, theirs) = both(server, module, **inputs)

    assert ours == theirs
    assert native == python
    assert (native.route, python.route) == ("native", "pool:general")
    assert native.usage == python.usage


class Described(dspex.Signature):
    """Judge the text, in one word."""

    text: str = InputField(desc="what they wrote", max_length=80)
    stars: int = InputField(default=3, ge=1)
    verdict: Literal["good", "bad"] = OutputField(desc="how it is meant")


def test_descriptions_constraints_and_defaults_reach_both_routes_alike(runtime: Any, server: Any) -> None:
    module = dspex.Predict(Described, runtime=runtime)

    (native, python), (ours, theirs) = both(server, module, text="A bad day.")

    assert ours == theirs
    assert native == python
    system = ours["messages"][0]["content"]
    assert "what they wrote\nConstraints: maximum length: 80" in system
    assert "Judge the text, in one word." in system


class Bars(dspex.Signature):
    """Count."""

    text: str | None = InputField()
    more: list[int | None] | dict[str, int | str] | None = InputField(default=None)
    plain: Optional[Literal["a", "b"]] = InputField(default=None)  # noqa: UP045
    count: int | None = OutputField()


def test_unions_with_and_without_bars_reach_both_routes_alike(runtime: Any, server: Any) -> None:
    module = dspex.Predict(Bars, runtime=runtime)

    (native, python), (ours, theirs) = both(server, module, text="one two")

    assert ours == theirs
    assert native == python
    name = "Union" if NEWER_THAN_33 else "UnionType"
    assert f"`count` ({name}[int, NoneType])" in ours["messages"][0]["content"]


def test_demos_and_settings_reach_both_routes_alike(server: Any, qa: Any) -> None:
    demos = [
        {**INPUTS, "answer": "in the Black Forest", "confidence": 0.9},
        {"question": "half a demo", "answer": "yes"},
    ]

    (native, python), (ours, theirs) = both(server, qa, **INPUTS, demos=demos, config={"seed": 7})

    assert ours == theirs
    assert ours["seed"] == 7
    assert len(ours["messages"]) == 6
    assert native == python


def test_several_generations_are_one_request_natively_and_one_each_from_dspy(server: Any, qa: Any) -> None:
    """A deliberate difference; see docs/dspy_differences.md."""
    (native, python), (ours, *theirs) = both(server, qa, **INPUTS, config={"n": 2})

    assert ours["n"] == 2
    assert ours["temperature"] == 0.7
    once = {name: value for name, value in ours.items() if name != "n"}
    # DSPy 3.3 asks once too.
    assert theirs == ([once, once] if NEWER_THAN_33 else [ours])
    assert native.completions == python.completions
    assert len(native.completions) == 2


def test_a_worker_says_how_long_the_lm_took_and_how_long_itself(qa: Any) -> None:
    timings = qa(**INPUTS, route="python").timings

    assert set(timings) == {"lm", "worker", "total"}
    assert 0 < timings["lm"] <= timings["worker"] <= timings["total"]


FAULTS: list[tuple[Fault, type[DspexError]]] = [
    (HttpError(401, "bad key"), LMAuthError),
    (HttpError(429, "slow down"), LMRateLimitError),
    (HttpError(500, "oops"), LMServerError),
    (MalformedJSON(), LMResponseError),
    (Cut(), LMConnectionError),
]


@pytest.mark.parametrize("route", ["native", "python"])
@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_fault_of_the_server_is_the_same_error_on_both_routes_and_the_next_call_works(
    server: Any, qa: Any, fault: Any, error: Any, route: Any
) -> None:
    server.requests.clear()
    server.faults.push(fault)

    with pytest.raises(DspexError) as caught:
        qa(**INPUTS, route=route)

    assert type(caught.value) is error
    assert len(server.requests) == 1, "a call is not repeated behind its caller's back"
    assert qa(**INPUTS, route=route).answer


@pytest.mark.parametrize("route", ["native", "python"])
def test_a_stalled_server_ends_in_the_call_s_deadline(server: Any, qa: Any, route: Any) -> None:
    qa(**INPUTS, route=route)
    server.faults.push(Stall())

    with pytest.raises(DeadlineExceeded):
        qa(**INPUTS, route=route, timeout=0.5)

    assert qa(**INPUTS, route=route).answer


@pytest.mark.parametrize("route", ["native", "python"])
def test_a_reply_that_cannot_be_read_is_one_error_with_the_reply_and_no_second_call(route: Any) -> None:
    with ModelServer(answer="[[ ## answer ## ]]\nAda\n\n[[ ## confidence ## ]]\nvery") as server:
        lm = dspex.LM("openai/local", api_base=server.api_base)
        with dspex.Runtime(lm, pools=1), pytest.raises(ReplyError) as caught:
            dspex.Predict(SIGNATURE)(**INPUTS, route=route)

    assert caught.value.reply.startswith("[[ ## answer ## ]]\nAda")
    assert len(server.requests) == 1


def test_no_worker_starts_before_it_is_needed(server: Any) -> None:
    before = children()
    with dspex.Runtime(dspex.LM("openai/local", api_base=server.api_base)) as runtime:
        dspex.Predict(SIGNATURE)(**INPUTS)
        assert children() == before
        assert runtime.pools() == {}
        runtime.warmup()
        assert len(children()) > len(before)
        assert set(runtime.pools()) == {"general"}
    assert children() == before


async def test_a_worker_s_death_fails_its_call_by_name_and_the_next_call_works() -> None:
    before = children()
    async with ModelServer(faults=[Stall()]) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base)
        async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
            qa = dspex.Predict(SIGNATURE)
            call = asyncio.create_task(qa.acall(**INPUTS, route="python"))
            await until(lambda: server.requests, seconds=30.0)
            (worker,) = runtime.pools()["general"].workers
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)

            with pytest.raises(WorkerDiedError, match="SIGKILL"):
                await call
            assert (await qa.acall(**INPUTS, route="python")).answer
    assert children() == before


async def test_concurrent_calls_share_one_worker() -> None:
    async with ModelServer(delay=0.5) as server:  # longer than it takes to send them all
        lm = dspex.LM("openai/local", api_base=server.api_base)
        async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
            qa = dspex.Predict(SIGNATURE)
            calls = [asyncio.create_task(qa.acall(**INPUTS, route="python")) for _ in range(20)]
            await until(lambda: runtime.counts()[1].in_flight == 20)
            predictions = await asyncio.gather(*calls)

    assert len({prediction.answer for prediction in predictions}) == 1


def test_a_model_that_only_dspy_speaks_to_is_asked_by_a_worker_and_the_prediction_says_why(
    server: Any,
) -> None:
    server.requests.clear()
    lm = dspex.LM("nvidia_nim/local", api_base=server.api_base, api_key="sk-very-secret", temperature=0.5)
    with dspex.Runtime(lm, pools=1) as runtime:
        prediction = dspex.Predict(SIGNATURE)(**INPUTS)
        with pytest.raises(RouteError) as caught:
            dspex.Predict(SIGNATURE)(**INPUTS, route="native")
        assert runtime.counts()[1].served == 1

    assert prediction.route == "pool:general"
    assert "only DSPy speaks to 'nvidia_nim'" in prediction.route_reason
    assert caught.value.code == "lm-needs-dspy"
    (request,) = server.requests
    assert (request.body["model"], request.body["temperature"]) == ("local", 0.5)


class Anthropic(BaseHTTPRequestHandler):
    """A server that speaks Anthropic's protocol, and remembers whose key it was asked with."""

    keys: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.keys.append(self.headers["x-api-key"])
        text = "[[ ## answer ## ]]\nAda\n\n[[ ## completed ## ]]"
        answer = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"],
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }  # fmt: skip
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests' output is theirs."""


@pytest.mark.parametrize(("asked", "route"), [("native", "native"), ("python", "pool:general")])
def test_anthropic_is_asked_in_its_own_protocol_with_the_key_that_was_given(asked: Any, route: str) -> None:
    Anthropic.keys.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Anthropic) as anthropic:
        thread = threading.Thread(target=anthropic.serve_forever)
        thread.start()
        try:
            lm = dspex.LM(
                "anthropic/claude-x", api_base=f"http://127.0.0.1:{anthropic.server_port}", api_key="sk-ant-k"
            )
            with dspex.Runtime(lm, pools=1):
                prediction = dspex.Predict("question -> answer")(question="Who?", route=asked)
        finally:
            anthropic.shutdown()
            thread.join()

    assert (prediction.answer, prediction.route) == ("Ada", route)
    assert Anthropic.keys == ["sk-ant-k"]


@pytest.mark.skipif(not NEWER_THAN_33, reason="DSPy 3.3 asks through LiteLLM, with a body of its own")
@pytest.mark.parametrize(("asked", "route"), [("native", "native"), ("python", "pool:general")])
@pytest.mark.parametrize("adapter", [dspex.ChatAdapter(), dspex.JSONAdapter()], ids=["chat", "json"])
def test_responses_are_asked_for_on_both_routes_with_the_same_bytes(
    asked: Any, route: str, adapter: dspex.adapters.Adapter
) -> None:
    with ModelServer() as server:
        lm = dspex.LM(
            "openai/gpt-4o-mini",
            model_type="responses",
            api_base=server.api_base,
            api_key="k",
            temperature=0.5,
        )
        with dspex.Runtime(lm, pools=1, adapter=adapter):
            predict = dspex.Predict(SIGNATURE)
            prediction = predict(**INPUTS, route=asked)
            native = predict(**INPUTS, route="native")

    assert (prediction.route, prediction.answer) == (route, native.answer)
    assert prediction.usage["total_tokens"] == native.usage["total_tokens"] > 0
    assert {request.path for request in server.requests} == {"/v1/responses"}
    first, second = server.requests
    assert first.raw == second.raw


@pytest.mark.parametrize("route", ["native", "python"])
def test_a_missing_key_names_its_variable_on_both_routes(monkeypatch: pytest.MonkeyPatch, route: Any) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with dspex.Runtime("openai/gpt-4o-mini"), pytest.raises(LMAuthError, match="OPENAI_API_KEY"):
        dspex.Predict(SIGNATURE)(**INPUTS, route=route)


def test_wrong_input_is_refused_before_a_worker_sees_it(qa: Any, server: Any) -> None:
    server.requests.clear()
    with pytest.raises(InputError):
        qa(question="no context", route="python")
    with pytest.raises(ConfigError):
        qa(**INPUTS, route="python", timeout=-1)
    assert server.requests == []
