"""`dspex.dspy.Engine` and `AsyncEngine`: faults, limits, groups, capabilities, and how they live and end."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import multiprocessing
import os
import pickle
import re
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from tests.parity.versions import NEWER_THAN_33

import dspex
from dspex.errors import ConfigError, DspexError, LMConnectionError
from dspex.events import LMDelta
from dspex.lm import Deployment, LMChoice, LMResponse, LMToolCall, RateLimit
from dspex.router import Breaker
from dspex.testing import (
    Cut,
    EmptyChoices,
    HttpError,
    MalformedJSON,
    ModelServer,
    ScriptedLM,
    Stall,
    WrongContentType,
)

if not NEWER_THAN_33:
    pytest.skip("DSPy has engines since 3.4", allow_module_level=True)

from dspy import lm15

from dspex.dspy import AsyncEngine, Engine, _engine_lm15

SECRET = "sk-0123456789abcdef"
WAIT = 20.0


def asked(model: str = "openai/m", text: str = "hi") -> Any:
    return lm15.Request(model=model, messages=(lm15.Message.user(text),))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer("yes, it is so and not otherwise") as server:
        yield server


def _pools(lm: Any) -> Any:
    return list(lm._transport._pools.values())


def in_use(lm: dspex.LM) -> int:
    """Connections with a call on them."""
    return sum(len(pool._used) for pool in _pools(lm))


def until(true: Callable[[], bool]) -> None:
    """Wait for a condition, which has to hold before long."""
    ends = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < ends, "it never became true"
        time.sleep(0.002)


# --- the fault table --------------------------------------------------------------------------------------

TABLE: list[tuple[str, dict[str, Any], Any, tuple[str, str]]] = [
    # fault, settings of the LM, what is pushed, and the class for a whole answer and for a stream
    ("401", {}, HttpError(401), ("AuthError", "AuthError")),
    ("402", {}, HttpError(402), ("BillingError", "BillingError")),
    ("404", {}, HttpError(404), ("InvalidRequestError", "InvalidRequestError")),
    (
        "no-such-model",
        {},
        HttpError(404, "The model does not exist", "model_not_found"),
        ("UnsupportedModelError", "UnsupportedModelError"),
    ),
    (
        "too-long",
        {},
        HttpError(400, "maximum context length", "context_length_exceeded"),
        ("ContextLengthError", "ContextLengthError"),
    ),
    ("429", {}, HttpError(429, retry_after=7), ("RateLimitError", "RateLimitError")),
    ("500", {}, HttpError(500), ("ServerError", "ServerError")),
    ("503", {}, HttpError(503, retry_after=7), ("ServerError", "ServerError")),
    ("cut-at-once", {}, Cut(), ("TransportError", "TransportError")),
    ("cut-midway", {}, Cut("middle"), ("TransportError", "TransportError")),
    ("malformed", {}, MalformedJSON(), ("ProviderError", "ProviderError")),
    ("no-choices", {}, EmptyChoices(), ("", "")),  # DSPy takes it for an answer without text
    ("web-page", {}, WrongContentType(), ("ProviderError", "StreamAssemblyError")),
    ("too-large", {"max_response_bytes": 20}, None, ("ProviderError", "ProviderError")),
    ("slow", {"timeout": 0.2}, Stall(), ("TimeoutError", "TimeoutError")),
    ("stalls-midway", {"timeout": 0.2}, Stall("middle"), ("TimeoutError", "TimeoutError")),
]


class Asked:
    """One way to ask."""

    def __init__(self, lm: dspex.LM, *, streamed: bool, asynchronous: bool) -> None:
        self.lm = lm
        self.streamed = streamed
        self.engine: Any = (AsyncEngine if asynchronous else Engine)(lm)
        self.asynchronous = asynchronous

    def __call__(self) -> Any:
        if self.asynchronous:
            return asyncio.run(self._ask())
        return list(self.engine.stream(asked())) if self.streamed else self.engine.complete(asked())

    async def _ask(self) -> Any:
        try:
            if self.streamed:
                return [event async for event in self.engine.stream(asked())]
            return await self.engine.complete(asked())
        finally:
            assert len(asyncio.all_tasks()) == 1
            await self.lm.aclose()

    def close(self) -> None:
        if self.asynchronous:
            asyncio.run(self.engine.aclose())
        else:
            self.engine.close()


WAYS = [(False, False), (True, False), (False, True), (True, True)]
WAY_NAMES = ["whole", "streamed", "async-whole", "async-streamed"]


@pytest.mark.parametrize(("streamed", "asynchronous"), WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize(("name", "settings", "fault", "classes"), TABLE, ids=[row[0] for row in TABLE])
def test_a_fault_is_an_error_of_dspys_and_leaves_nothing(
    server: ModelServer,
    name: str,
    settings: Any,
    fault: Any,
    classes: tuple[str, str],
    streamed: bool,
    asynchronous: bool,
) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key=SECRET, **settings)
    ask = Asked(lm, streamed=streamed, asynchronous=asynchronous)
    server.faults.push(fault)
    expected = classes[streamed]
    try:
        if not expected:
            assert ask()
        else:
            with pytest.raises(getattr(lm15, expected)) as caught:
                ask()
            error = caught.value
            assert type(error).__name__ == expected
            assert SECRET not in f"{error} {error!r} {error.__cause__!r}"
            assert isinstance(error.__cause__, DspexError)
            if getattr(fault, "retry_after", None):
                assert error.retry_after == fault.retry_after
                assert error.status == fault.status
            del error, caught
        until(lambda: in_use(lm) == 0)  # the last bytes of a whole stream are not waited for
        if "max_response_bytes" not in settings:
            assert ask()  # it works as before
    finally:
        ask.close()


@pytest.mark.parametrize(("streamed", "asynchronous"), WAYS, ids=WAY_NAMES)
def test_a_server_that_is_down_is_a_transport_error(streamed: bool, asynchronous: bool) -> None:
    with ModelServer() as gone:
        base = gone.api_base
    ask = Asked(dspex.LM("openai/m", api_base=base), streamed=streamed, asynchronous=asynchronous)
    with pytest.raises(lm15.TransportError, match="lm-unreachable"):
        ask()
    ask.close()


def test_no_key_is_what_it_is_to_dspy() -> None:
    engine = Engine("openai/m", api_base="http://server.invalid/v1")
    with pytest.raises(lm15.NotConfiguredError) as caught:
        engine.complete(asked())
    engine.close()
    assert caught.value.env_keys == ("OPENAI_API_KEY",)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_key_that_rotates_and_the_fields_of_the_lm_are_sent(server: ModelServer, streamed: bool) -> None:
    keys = iter(["first", "second"])
    lm = dspex.LM(
        "openai/m", api_base=server.api_base, api_key=lambda: next(keys), extra_headers={"X-Team": "a"}
    )
    with Engine(lm) as engine:
        for _ in range(2):
            list(engine.stream(asked())) if streamed else engine.complete(asked())
    assert next(keys, None) is None
    assert [request.headers["x-team"] for request in server.requests[-2:]] == ["a", "a"]


@pytest.mark.parametrize("name", ["ServerError", "RateLimitError", "TimeoutError", "TransportError"])
def test_what_may_be_tried_again_is_so_to_dspy(name: str) -> None:
    from dspy.clients.errors import wrap_error
    from dspy.utils.exceptions import is_retryable_lm_error

    assert is_retryable_lm_error(wrap_error(getattr(lm15, name)("x"), model="m"))


@pytest.mark.parametrize(
    "reply",
    [
        HttpError(401, f"wrong key {SECRET}", SECRET),
        HttpError(500, f"said {SECRET}"),
        WrongContentType("application/json", json.dumps({"error": {"message": SECRET, "code": SECRET}})),
        WrongContentType("text/html", f"{SECRET} is no JSON"),
    ],
    ids=["401", "500", "error-in-200", "no-json"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("key", [SECRET, lambda: SECRET], ids=["key", "function"])
def test_a_server_that_repeats_the_key_does_not_show_it(
    server: ModelServer, reply: Any, streamed: bool, key: Any
) -> None:
    server.faults.push(reply)
    with Engine("openai/m", api_base=server.api_base, api_key=key) as engine:
        try:
            list(engine.stream(asked())) if streamed else engine.complete(asked())
        except lm15.LM15Error as error:
            shown: BaseException | None = error
            while shown is not None:
                assert SECRET not in f"{shown} {shown!r} {vars(shown)}"
                shown = shown.__cause__ or shown.__context__
        else:
            pytest.fail("it was taken for an answer")


def test_errors_hold_nothing_when_they_are_let_go(server: ModelServer) -> None:
    gc.collect()
    gc.disable()
    try:
        with Engine("openai/m", api_base=server.api_base) as engine:
            for fault in (HttpError(500), MalformedJSON(), Cut("middle"), WrongContentType()):
                for ask in (engine.complete, lambda request: list(engine.stream(request))):
                    server.faults.push(fault)
                    request = asked()
                    held = weakref.ref(_Held())
                    caught = None
                    try:
                        ask(request)
                    except lm15.LM15Error as error:
                        error.held = _Held()
                        held = weakref.ref(error.held)
                        caught = type(error)
                    assert caught is not None
                    assert held() is None, (
                        fault
                    )  # no cycle keeps the error, and with it the frames of the call
    finally:
        gc.enable()


class _Held:
    pass


# --- giving up --------------------------------------------------------------------------------------------


async def test_a_cancelled_call_leaves_its_connection(server: ModelServer) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base)
    engine = AsyncEngine(lm)
    server.faults.push(Stall())
    call = asyncio.create_task(engine.complete(asked()))
    while not server.requests:
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert in_use(lm) == 0
    assert (await engine.complete(asked())).text
    await lm.aclose()


def test_a_stream_that_is_given_up_early_is_over_when_it_is_closed(server: ModelServer) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base)
    with Engine(lm) as engine:
        server.faults.push(Stall("middle"))
        stream = engine.stream(asked())
        assert next(stream).type == "start"
        stream.close()  # type: ignore[attr-defined]
        assert in_use(lm) == 0
        assert engine.complete(asked()).text


async def test_an_async_stream_that_is_given_up_early_is_over_when_it_is_closed(server: ModelServer) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base)
    engine = AsyncEngine(lm)
    server.faults.push(Stall("middle"))
    stream = engine.stream(asked())
    assert (await anext(stream)).type == "start"
    await stream.aclose()  # type: ignore[attr-defined]
    assert in_use(lm) == 0
    await lm.aclose()


def test_closing_ends_what_still_waits(server: ModelServer) -> None:
    engine = Engine("openai/m", api_base=server.api_base)
    server.faults.push(Stall())
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(engine.complete, asked())
        until(lambda: bool(server.requests))
        engine.close()
        with pytest.raises(lm15.TransportError):
            call.result(WAIT)
    with pytest.raises(lm15.ConfigurationError, match="closed"):
        engine.complete(asked())
    with pytest.raises(lm15.ConfigurationError, match="closed"):
        list(engine.stream(asked()))
    engine.close()  # twice is harmless


def test_the_thread_ends_with_the_last_engine(server: ModelServer) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "dspex-engine"]

    assert threads() == []
    one, two = (Engine("openai/m", api_base=server.api_base) for _ in range(2))
    assert threads() == []  # it starts with the first call
    one.complete(asked())
    two.complete(asked())
    assert len(threads()) == 1
    one.close()
    assert two.complete(asked()).text
    two.close()
    assert threads() == []


def test_an_engine_that_is_closed_is_held_by_nobody(server: ModelServer) -> None:
    with Engine("openai/m", api_base=server.api_base) as other:
        other.complete(asked())
        lm = dspex.LM("openai/m", api_base=server.api_base)
        engine = Engine(lm)
        engine.complete(asked())
        engine.close()
        asyncio.run(lm.aclose())
        held = weakref.ref(engine), weakref.ref(lm)
        del engine, lm
        gc.collect()
        assert [each() for each in held] == [None, None]


def test_many_threads_share_one_engine(server: ModelServer) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base)
    with Engine(lm) as engine, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: engine.complete(asked(text=str(number))).text, range(200)))
        streams = list(threads.map(lambda number: len(list(engine.stream(asked()))), range(50)))
    assert set(answers) == {"yes, it is so and not otherwise"}
    assert len(set(streams)) == 1
    assert len(server.requests) == 250


def test_a_blocking_call_on_the_engines_own_thread_is_refused(server: ModelServer) -> None:
    with Engine("openai/m", api_base=server.api_base) as engine:
        engine.complete(asked())

        async def inside() -> None:
            engine.complete(asked())

        portal = engine._lease.portal
        with pytest.raises(lm15.ConfigurationError, match="blocking-in-loop"):
            portal.run(inside(), WAIT)


def _ask_in_fork(engine: Any, answers: Any) -> None:
    try:
        answers.put((engine.complete(asked()).text, len(list(engine.stream(asked())))))
        engine.close()
    except BaseException as error:  # noqa: BLE001 - the parent compares it
        answers.put(repr(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_both_sides_of_a_fork_work(server: ModelServer) -> None:
    with Engine("openai/m", api_base=server.api_base, limits=RateLimit(concurrency=4)) as engine:
        before = engine.complete(asked()).text, len(list(engine.stream(asked())))
        context = multiprocessing.get_context("fork")
        answers = context.SimpleQueue()
        child = context.Process(target=_ask_in_fork, args=(engine, answers), daemon=True)
        child.start()
        child.join(WAIT)
        assert child.exitcode == 0
        assert answers.get() == before
        assert (engine.complete(asked()).text, len(list(engine.stream(asked())))) == before


# --- limits, groups, other language models ----------------------------------------------------------------


def test_both_engines_share_the_limits_of_their_lm(server: ModelServer) -> None:
    limits = RateLimit(requests_per_minute=1, burst=1.0)
    lm = dspex.LM("openai/m", api_base=server.api_base, timeout=5, limits=limits)

    async def other() -> None:
        with pytest.raises(lm15.RateLimitError, match="lm-limit") as caught:
            await AsyncEngine(lm).complete(asked())
        assert caught.value.retry_after == pytest.approx(60, abs=10)

    with Engine(lm) as engine:
        engine.complete(asked())
        asyncio.run(other())
        with pytest.raises(lm15.RateLimitError, match="lm-limit"):
            list(engine.stream(asked()))
    assert len(server.requests) == 1


def test_a_stream_gives_its_place_back(server: ModelServer) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base, timeout=0.2, limits=RateLimit(concurrency=1))
    with Engine(lm) as engine:
        server.faults.push(Stall("middle"))
        stream = engine.stream(asked())
        next(stream)
        assert lm.is_busy()
        stream.close()  # type: ignore[attr-defined]
        assert not lm.is_busy()
        server.faults.push(Stall())
        with pytest.raises(lm15.TimeoutError):
            engine.complete(asked())
        assert not lm.is_busy()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_limit_counts_the_tokens_that_the_answer_says(streamed: bool) -> None:
    limits = RateLimit(tokens_per_minute=1000, burst=1.0)
    with ModelServer("word " * 2000) as server:
        lm = dspex.LM("openai/m", api_base=server.api_base, timeout=5, limits=limits)
        with Engine(lm) as engine:
            assert list(engine.stream(asked())) if streamed else engine.complete(asked())
            with pytest.raises(lm15.RateLimitError, match="lm-limit"):
                engine.complete(asked())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_group_goes_on_to_the_next_deployment(server: ModelServer, streamed: bool) -> None:
    with ModelServer("from the other") as other:
        group = dspex.LM.group(
            [
                Deployment(dspex.LM("openai/first", api_base=server.api_base, api_key="k"), name="first"),
                Deployment(dspex.LM("hosted_vllm/second", api_base=other.api_base), name="second"),
            ],
            strategy="ordered",
            breaker=Breaker(minimum=1, open_for=60.0),
        )
        server.faults.push(HttpError(503, retry_after=30))
        with Engine(group) as engine:
            for _ in range(2):
                if streamed:
                    text = "".join(
                        event.delta.text for event in engine.stream(asked()) if event.type == "delta"
                    )
                else:
                    text = engine.complete(asked()).text
                assert text == "from the other"
            counts = {row.name: (row.served, row.failed) for row in group.counts()}
        assert counts == {"first": (0, 1), "second": (2, 0)}
        assert len(server.requests) == 1  # it is left alone after that
        assert [request.body["model"] for request in other.requests] == ["second"] * 2


def test_a_group_without_room_says_when_to_come_again(server: ModelServer) -> None:
    group = dspex.LM.group([dspex.LM("openai/m", api_base=server.api_base)])
    server.faults.push(HttpError(429, retry_after=30))
    with Engine(group) as engine:
        for _ in range(2):
            with pytest.raises(lm15.ServerError) as caught:
                engine.complete(asked())
            assert caught.value.retry_after == pytest.approx(30, abs=5)
    assert len(server.requests) == 1


def test_a_mistake_in_a_request_is_not_the_deployments(server: ModelServer) -> None:
    group = dspex.LM.group([dspex.LM("openai/m", api_base=server.api_base)])
    config = lm15.Config(top_k=3)
    request = lm15.Request(model="openai/m", messages=(lm15.Message.user("hi"),), config=config)
    with Engine(group) as engine:
        try:
            engine.complete(request)
        except lm15.UnsupportedFeatureError:
            assert group.counts()[0].refused == 1
        assert group.counts()[0].failed == 0


def test_any_language_model_can_be_asked() -> None:
    lm = ScriptedLM("from a script")
    with Engine(lm) as engine:
        assert engine.complete(asked()).text == "from a script"
        events = list(engine.stream(asked()))
    assert [events[0].type, events[-1].type] == ["start", "end"]
    assert "".join(event.delta.text for event in events[1:-1]) == "from a script"
    assert all(event.type == "delta" for event in events[1:-1])
    assert lm.requests[0].messages == [{"role": "user", "content": "hi"}]


def _noted(events: Iterator[Any], into: list[Any]) -> Iterator[Any]:
    """Keeps what came before an error."""
    for event in events:
        into.append(event)
        yield from ()


class Everything:
    """A language model that says everything there is to say."""

    async def complete(self, request: Any) -> LMResponse:
        choice = LMChoice(
            "text",
            "tool_calls",
            (LMToolCall("c-1", "search", '{"query": "x"}'),),
            "thought",
            None,
            {"content": [{"token": "text", "logprob": -1.0, "bytes": None, "top_logprobs": []}]},
        )
        return LMResponse((choice,), "m-1", {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})

    async def stream(self, request: Any) -> AsyncGenerator[LMDelta]:
        yield LMDelta("te", reasoning="thought")
        yield LMDelta("xt")
        yield LMDelta("", usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
        raise LMConnectionError("it broke")

    async def aclose(self) -> None:
        pass


def test_nothing_that_a_language_model_says_is_lost() -> None:
    with Engine(Everything()) as engine:
        response = engine.complete(asked())
        events: list[Any] = []
        with pytest.raises(lm15.TransportError, match="it broke"):
            events.extend(_noted(engine.stream(asked()), events))
    assert [part.text for part in response.message.parts if part.type == "text"] == ["text"]
    assert [(call.id, call.name, call.input) for call in response.tool_calls] == [
        ("c-1", "search", {"query": "x"})
    ]
    assert response.finish_reason == "tool_call"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 2)
    assert response.model == "m-1"
    assert "thought" in repr(response.message.parts)
    assert response.logprobs[0].token == "text"
    assert [event.type for event in events] == ["start", "delta", "delta", "delta"]


def test_a_model_of_another_provider_is_refused(server: ModelServer) -> None:
    with Engine("openai/m", api_base=server.api_base) as engine:
        with pytest.raises(lm15.ConfigurationError, match="engine-model"):
            engine.complete(asked("groq/m"))
        engine.complete(asked("openai/other"))
    assert [request.body["model"] for request in server.requests] == ["other"]


def test_a_provider_that_only_dspy_speaks_to_is_refused() -> None:
    engine = Engine("anthropic/claude")
    with pytest.raises(lm15.ConfigurationError, match="lm-needs-dspy"):
        engine.complete(asked("anthropic/claude"))
    engine.close()


# --- what it is -------------------------------------------------------------------------------------------


def test_it_says_what_dspys_own_engine_says_of_the_model() -> None:
    for model in (
        "openai/gpt-4o-mini",
        "openai/o3-mini",
        "openai/unheard-of",
        "groq/llama-3.3-70b-versatile",
    ):
        theirs = dspy.LM(model, engine="lm15", api_key="k")
        ours = Engine(model, api_base="http://localhost:1/v1")
        assert ours.supports_function_calling == theirs.supports_function_calling
        assert ours.supports_reasoning == theirs.supports_reasoning
        assert ours.supports_response_schema == theirs.supports_response_schema
        assert ours.supported_params == theirs.supported_params


def test_its_owner_knows_better() -> None:
    base = "http://localhost:1/v1"
    engine = Engine(
        "openai/mine", api_base=base, function_calling=True, response_schema=True, reasoning=False
    )
    lm = dspy.LM("openai/mine", engine=engine)
    assert (lm.supports_function_calling, lm.supports_response_schema, lm.supports_reasoning) == (
        True,
        True,
        False,
    )
    assert {"response_format", "tools", "tool_choice"} <= lm.supported_params
    assert "response_format" not in Engine("openai/mine", api_base=base).supported_params
    off = Engine("openai/gpt-4o-mini", api_base=base, response_schema=False)
    assert "response_format" not in off.supported_params


def test_a_group_can_do_what_all_of_it_can() -> None:
    base = "http://localhost:1/v1"
    able, unable = (dspex.LM(name, api_base=base) for name in ("openai/gpt-4o-mini", "openai/mine"))
    assert Engine(dspex.LM.group([able])).supports_response_schema
    assert not Engine(dspex.LM.group([able, unable])).supports_response_schema


@pytest.mark.parametrize("make", [Engine, AsyncEngine])
def test_it_is_saved_without_a_secret(make: Any, server: ModelServer) -> None:
    engine = make(
        "openai/m",
        api_base="https://server.test/v1",
        api_key=SECRET,
        proxy=f"http://me:{SECRET}@proxy.test:80",
        temperature=0.5,
        extra_body={"api_key": SECRET},
        limits=RateLimit(concurrency=3),
        response_schema=True,
    )
    state = engine.dump_state()
    assert SECRET not in json.dumps(state)
    assert SECRET not in repr(engine)

    again = make.load_state(json.loads(json.dumps(state)))
    assert type(again) is make
    assert again.supports_response_schema
    assert again.lm.settings == {"temperature": 0.5}
    assert again.lm.limits == RateLimit(concurrency=3)
    assert again.lm.api_base == "https://server.test/v1"
    assert make.load_state(state).lm is again.lm


def test_the_cache_of_the_lm_is_not_asked(server: ModelServer) -> None:
    lm = dspex.LM("openai/m", api_base=server.api_base, cache="memory")
    with Engine(lm) as engine:
        answers = {engine.complete(asked()).text for _ in range(2)}
        again = Engine.load_state(json.loads(json.dumps(engine.dump_state())))
        again.close()
    assert len(server.requests) == 2
    assert len(answers) == 1


def test_a_group_is_saved() -> None:
    base = "http://localhost:1/v1"
    group = dspex.LM.group(
        [Deployment(dspex.LM("openai/a", api_base=base), weight=2.0, concurrency=3, name="a"), "openai/b"],
        strategy="ordered",
        breaker=Breaker(minimum=7),
        wait=True,
    )
    state = json.loads(json.dumps(Engine(group).dump_state()))
    again: Any = Engine.load_state(state).lm
    assert repr(again) == repr(group)
    assert again._breaker == Breaker(minimum=7)
    assert again.wait


def test_what_cannot_be_saved_says_so() -> None:
    with pytest.raises(ConfigError, match="cannot be saved") as caught:
        Engine(ScriptedLM("x")).dump_state()
    assert caught.value.code == "lm-unsaved"
    transport = dspex.lm.NativeTransport()
    lm = dspex.LM("openai/m", api_base="http://localhost:1/v1", transport=transport)
    with pytest.raises(ConfigError, match="transport"):
        Engine(lm).dump_state()
    for junk in ({}, {"lm": 5}, {"lm": {"api_base": "http://localhost:1/v1"}}, 5):
        with pytest.raises(ConfigError):
            Engine.load_state(junk)  # type: ignore[arg-type]


def test_a_copy_is_the_same_engine_and_a_pickle_an_equal_one() -> None:
    engine = Engine(
        "openai/m", api_base="http://localhost:1/v1", api_key=SECRET, api="responses", reasoning=True
    )
    assert copy.copy(engine) is copy.deepcopy(engine) is engine
    written = pickle.dumps(engine)
    assert SECRET.encode() not in written
    again = pickle.loads(written)
    assert again.dump_state() == engine.dump_state()


@pytest.mark.parametrize(
    ("arguments", "settings", "match"),
    [
        (("openai/m",), {"api": "text"}, "api must be"),
        (("openai/m",), {"reasoning": 1}, "reasoning must be"),
        ((ScriptedLM("x"),), {"temperature": 1.0}, "temperature"),
        ((None,), {}, "needs a language model"),
        (("m",), {}, "not a model"),
    ],
)
def test_wrong_settings_are_refused_at_once(arguments: Any, settings: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Engine(*arguments, **settings)


def test_a_dspy_without_engines_is_named_at_once() -> None:
    with pytest.raises(
        ConfigError, match=re.escape(f"DSPy {dspy.__version__} has no dspy.clients.nothing.x")
    ) as caught:
        _engine_lm15._found("dspy.clients.nothing", "x")
    assert caught.value.code == "engine-version"


def test_dspy_takes_them_for_engines() -> None:
    lm = dspex.LM("openai/m", api_base="http://localhost:1/v1")
    assert dspy.LM("openai/m", engine=Engine(lm), async_engine=AsyncEngine(lm)).engine.lm is lm
    with pytest.raises(TypeError, match="coroutine"):
        dspy.LM("openai/m", engine=AsyncEngine(lm))
    with pytest.raises(ValueError, match="api_key"):
        dspy.LM("openai/m", engine=Engine(lm), api_key="k")


def test_an_lm_of_an_engine_asks_for_one_generation(server: ModelServer) -> None:
    engine = Engine("openai/m", api_base=server.api_base, n=2)
    with pytest.raises(lm15.ConfigurationError, match="engine-setting"):
        engine.complete(asked())
    engine.close()
