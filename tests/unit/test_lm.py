"""The LM client against a server that answers, fails and breaks in every way we know."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NoReturn

import aiohttp
import json_repair
import pytest
from aiohttp import web
from tests.support.processes import until

from dspex import LM, errors
from dspex import _lm_failures as failures
from dspex._lm_failures import from_status, retry_after, server_message
from dspex._portal import Portal
from dspex.events import LMDelta, LMToolCallDelta
from dspex.lm import LanguageModel, LMChoice, LMRequest, LMToolCall, NativeTransport, assemble
from dspex.lm._chunks import decode_chunk
from dspex.lm._http.pool import Pool
from dspex.testing import (
    Cut,
    Delay,
    EmptyChoices,
    Fault,
    HttpError,
    MalformedJSON,
    ModelServer,
    NullContent,
    ScriptedLM,
    SlowDrip,
    Stall,
    WrongContentType,
)

KEY = "sk-very-secret"
MESSAGES = [{"role": "user", "content": "say it"}]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(answer="it is said") as server:
        yield server


@pytest.fixture
async def lm(server: ModelServer) -> AsyncIterator[LM]:
    async with LM("openai/m", api_base=server.api_base, api_key=KEY) as lm:
        yield lm


async def streamed(lm: LanguageModel, request: LMRequest) -> str:
    async with aclosing(lm.stream(request)) as deltas:
        return "".join([delta.text async for delta in deltas])


def pools_of(lm: LM) -> list[Pool]:
    assert isinstance(lm._transport, NativeTransport)
    return list(lm._transport._pools.values())


async def whole(lm: LanguageModel, request: LMRequest) -> str:
    return (await lm.complete(request)).texts[0]


WAYS = pytest.mark.parametrize("ask", [whole, streamed])

DISASTERS: list[tuple[Fault, type[errors.DspexError], str, str]] = [
    (Stall(), errors.LMTimeoutError, "lm-timeout", "did not answer in time"),
    (Stall("middle"), errors.LMTimeoutError, "lm-", "did not answer in time|stopped in the middle"),
    (Cut(), errors.LMConnectionError, "lm-cut", "closed the connection"),
    (Cut("middle"), errors.LMConnectionError, "lm-cut", "broke off in the middle"),
    (HttpError(400, "no such setting"), errors.LMRequestError, "lm-request", "no such setting"),
    (HttpError(401), errors.LMAuthError, "lm-auth", "check OPENAI_API_KEY"),
    (HttpError(403), errors.LMAuthError, "lm-auth", "may lack the right"),
    (HttpError(402), errors.LMRequestError, "lm-billing", "billing"),
    (HttpError(404), errors.LMRequestError, "lm-not-found", "check the model's name"),
    (HttpError(408), errors.LMTimeoutError, "lm-timeout", "HTTP 408"),
    (HttpError(413), errors.LMRequestError, "lm-request-too-large", "too large"),
    (HttpError(422), errors.LMRequestError, "lm-request", "HTTP 422"),
    (
        HttpError(400, code="context_length_exceeded"),
        errors.LMRequestError,
        "lm-context-length",
        "too long for the model",
    ),
    (HttpError(429, retry_after=2), errors.LMRateLimitError, "lm-rate-limit", "asks to slow down"),
    (HttpError(429, code="insufficient_quota"), errors.LMRequestError, "lm-billing", "not paid for"),
    (HttpError(500), errors.LMServerError, "lm-server", "HTTP 500"),
    (HttpError(529), errors.LMServerError, "lm-server", "HTTP 529"),
    (HttpError(307), errors.LMResponseError, "lm-response", "redirect"),
    (MalformedJSON(), errors.LMResponseError, "lm-not-json", "not JSON"),
    (MalformedJSON("[1]"), errors.LMResponseError, "lm-not-json", "no object"),
    (EmptyChoices(), errors.LMResponseError, "lm-no-choices", "choice"),
    (WrongContentType(), errors.LMResponseError, "lm-", "text/html|not JSON"),
]


@WAYS
@pytest.mark.parametrize(("fault", "error", "code", "mentions"), DISASTERS, ids=lambda x: str(x)[:40])
async def test_a_failure_becomes_one_clear_error_and_the_next_call_works(
    server: ModelServer,
    ask: Any,
    fault: Fault,
    error: type[errors.DspexError],
    code: str,
    mentions: str,
) -> None:
    # Only a stall is to meet the LM's own limit; anything else has the time a busy machine needs.
    timeout = 1.0 if isinstance(fault, Stall) else 30.0
    async with LM("openai/m", api_base=server.api_base, api_key=KEY, timeout=timeout) as lm:
        server.faults.push(fault)
        with pytest.raises(error, match=mentions) as caught:
            await ask(lm, LMRequest(MESSAGES))

        assert caught.type is error
        assert caught.value.code.startswith(code)
        assert caught.value.details["model"] == "openai/m"
        assert caught.value.hint
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again)) == (error, str(caught.value))
        for shown in (str(caught.value), repr(caught.value.__cause__), repr(caught.value.to_dict())):
            assert KEY not in shown
        assert await ask(lm, LMRequest(MESSAGES)) == "it is said"


@WAYS
@pytest.mark.parametrize("fault", [Delay(0.01), SlowDrip(64, 0.001)], ids=str)
async def test_a_slow_answer_is_read_to_its_end(server: ModelServer, lm: LM, ask: Any, fault: Fault) -> None:
    server.faults.push(fault)
    assert await ask(lm, LMRequest(MESSAGES)) == "it is said"


@WAYS
@pytest.mark.parametrize("fault", [Stall(), Stall("middle")], ids=str)
async def test_the_callers_shorter_limit_wins_and_is_named(
    server: ModelServer, lm: LM, ask: Any, fault: Fault
) -> None:
    server.faults.push(fault)
    with pytest.raises(errors.DeadlineExceeded, match=r"the caller's 0.1 s"):
        await ask(lm, LMRequest(MESSAGES, timeout=0.1))
    assert await ask(lm, LMRequest(MESSAGES)) == "it is said"


@WAYS
async def test_a_limit_that_has_passed_sends_nothing(server: ModelServer, lm: LM, ask: Any) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await ask(lm, LMRequest(MESSAGES, timeout=0.0))
    assert server.requests == []


@WAYS
async def test_a_closed_port_is_a_connection_error(ask: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with LM("openai/m", api_base=base) as lm:
            with pytest.raises(errors.LMConnectionError, match="cannot be reached") as caught:
                await ask(lm, LMRequest(MESSAGES))
    assert caught.value.code == "lm-unreachable"
    assert caught.value.retryable


@pytest.mark.parametrize("name", [*failures._FIRST, *failures._BREAKS, "OSError"])
def test_every_break_of_the_connection_says_what_to_do(name: str) -> None:
    failure = type(name, (Exception,), {})()
    error = failures.from_exception(failure, base="http://models:8000/v1", model="openai/m")
    assert error.hint
    assert "{" not in error.hint
    if error.code in ("lm-unreachable", "lm-unknown-host"):
        assert "api_base='http://models:8000/v1'" in error.hint


def test_the_classes_of_the_http_client_have_the_names_that_the_table_knows() -> None:
    ours = [name for name in {**failures._FIRST, **failures._BREAKS} if hasattr(aiohttp, name)]
    assert sorted(ours) == [
        "ClientConnectorCertificateError",
        "ClientConnectorDNSError",
        "ClientConnectorError",
        "ClientPayloadError",
        "ClientResponseError",
        "ConnectionTimeoutError",
        "ServerDisconnectedError",
    ]
    assert failures.find_break([aiohttp.ServerTimeoutError()]) is failures.TIMEOUT


@WAYS
async def test_a_404_at_an_address_without_a_path_says_that_v1_is_missing(
    server: ModelServer, ask: Any
) -> None:
    bare = server.api_base.removesuffix("/v1")
    async with LM("openai/m", api_base=bare) as lm:
        with pytest.raises(errors.LMRequestError, match="HTTP 404") as caught:
            await ask(lm, LMRequest(MESSAGES))
    assert caught.value.code == "lm-not-found"
    assert f"most servers want api_base='{server.api_base}'" in caught.value.hint


async def test_null_content_says_why_there_is_no_text(server: ModelServer, lm: LM) -> None:
    server.faults.push(NullContent(), NullContent(refusal="I will not"))
    with pytest.raises(errors.LMResponseError, match="no text") as caught:
        await lm.complete(LMRequest(MESSAGES))
    assert caught.value.code == "lm-no-content"
    with pytest.raises(errors.LMResponseError, match="I will not") as caught:
        await lm.complete(LMRequest(MESSAGES))
    assert caught.value.code == "lm-refusal"


@WAYS
async def test_an_answer_beyond_the_limit_is_refused(server: ModelServer, ask: Any) -> None:
    with ModelServer(answer="x" * 5000) as big:
        async with LM("openai/m", api_base=big.api_base, max_response_bytes=1000) as lm:
            with pytest.raises(errors.LMResponseError, match="longer than 1000 bytes"):
                await ask(lm, LMRequest(MESSAGES))


async def test_a_cancelled_call_leaves_the_client_usable(server: ModelServer, lm: LM) -> None:
    server.faults.push(Stall())
    call = asyncio.create_task(lm.complete(LMRequest(MESSAGES)))
    while not server.requests:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await lm.complete(LMRequest(MESSAGES))).texts == ("it is said",)


async def test_the_answer_carries_what_the_server_said(lm: LM) -> None:
    answer = await lm.complete(LMRequest(MESSAGES))
    assert answer.texts == ("it is said",)
    assert answer.finish_reasons == ("stop",)
    assert answer.model == "m"
    assert answer.usage == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert answer.seconds > 0


async def test_n_gives_as_many_choices(server: ModelServer, lm: LM) -> None:
    answer = await lm.complete(LMRequest(MESSAGES, {"n": 3}))
    assert answer.texts == ("it is said",) * 3
    deltas = [delta async for delta in lm.stream(LMRequest(MESSAGES, {"n": 2}))]
    for index in range(2):
        assert "".join(d.text for d in deltas if d.index == index) == "it is said"
    assert deltas[-1].usage["completion_tokens"] == 6
    await lm.complete(LMRequest(MESSAGES, {"num_generations": 4}))
    assert [request.body["n"] for request in server.requests] == [3, 2, 4]
    assert "num_generations" not in server.requests[-1].body


async def test_a_server_that_ignores_n_is_found_out() -> None:
    async def chat(_: web.Request) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": "one"}}]})

    async with serving(chat) as base, LM("openai/m", api_base=base) as lm:
        with pytest.raises(errors.LMResponseError, match="2 generations were asked for, 1 came"):
            await lm.complete(LMRequest(MESSAGES, {"n": 2}))
        assert (await lm.complete(LMRequest(MESSAGES))).texts == ("one",)


class serving:  # noqa: N801 - reads as the context manager it is
    """A server with one handler of the test's own."""

    def __init__(self, chat: Any) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        self.runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> str:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    async def __aexit__(self, *exc: object) -> None:
        await self.runner.cleanup()


ODD_BODIES: list[tuple[Any, str | None]] = [
    ({"choices": [{"message": {"content": [{"type": "text", "text": "a"}, "b"]}}]}, "ab"),
    ({"choices": [{"message": {"content": ""}}], "usage": None, "model": 7}, ""),
    ({"choices": [{"text": "old"}]}, None),
    ({"choices": [None]}, None),
    ({"choices": "x"}, None),
    ({"choices": [{"message": {"content": {"a": 1}}}]}, None),
    ({"error": {"message": "overloaded"}}, None),
]


@pytest.mark.parametrize(("body", "text"), ODD_BODIES, ids=lambda x: json.dumps(x)[:40])
async def test_an_odd_answer_is_read_or_refused(body: Any, text: str | None) -> None:
    async def chat(_: web.Request) -> web.Response:
        return web.json_response(body)

    async with serving(chat) as base, LM("openai/m", api_base=base) as lm:
        if text is None:
            with pytest.raises(errors.LMResponseError):
                await lm.complete(LMRequest(MESSAGES))
        else:
            assert (await lm.complete(LMRequest(MESSAGES))).texts == (text,)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"error": {"message": "slow down", "code": 429}}, errors.LMRateLimitError),
        ({"error": {"message": "broken", "code": "internal"}}, errors.LMServerError),
        ({"choices": [7]}, errors.LMResponseError),
        ({"choices": 5}, errors.LMResponseError),
        ({"choices": True}, errors.LMResponseError),
        ({"choices": {"delta": {"content": "x"}}}, errors.LMResponseError),
        ([5], errors.LMResponseError),
    ],
)
async def test_a_failure_inside_a_stream_is_the_same_error(event: Any, error: type[Exception]) -> None:
    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(f"data: {json.dumps(event)}\n\n".encode())
        return response

    async with serving(chat) as base, LM("openai/m", api_base=base) as lm:
        with pytest.raises(error):
            await streamed(lm, LMRequest(MESSAGES))


@pytest.mark.parametrize("reason", ["stop", None])
async def test_a_stream_without_done_is_whole_only_if_it_said_why_it_ended(reason: str | None) -> None:
    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        choice = {"index": 0, "delta": {"content": "hi"}, "finish_reason": reason}
        await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        return response

    async with serving(chat) as base, LM("openai/m", api_base=base) as lm:
        if reason:
            assert await streamed(lm, LMRequest(MESSAGES)) == "hi"
        else:
            with pytest.raises(errors.LMConnectionError, match="broke off"):
                await streamed(lm, LMRequest(MESSAGES))


# --- what is sent ------------------------------------------------------------------------------------


async def test_settings_of_the_call_win_and_none_takes_one_away(server: ModelServer) -> None:
    async with LM("openai/m", api_base=server.api_base, temperature=0.5, seed=1, max_tokens=9) as lm:
        await lm.complete(LMRequest(MESSAGES, {"temperature": 0.9, "seed": None, "rollout_id": 3}))
    body = server.requests[0].body
    assert body == {"model": "m", "messages": MESSAGES, "max_completion_tokens": 9, "temperature": 0.9}


async def test_what_json_cannot_carry_is_refused_before_sending(server: ModelServer, lm: LM) -> None:
    for settings in (
        {"logit_bias": object()},
        {"temperature": float("nan")},
        {"n": 0},
        {"n": True},
        {"n": "2"},
    ):
        with pytest.raises(errors.ConfigError):
            await lm.complete(LMRequest(MESSAGES, settings))
    assert server.requests == []


async def test_a_lone_surrogate_reaches_the_server(server: ModelServer, lm: LM) -> None:
    await lm.complete(LMRequest([{"role": "user", "content": "\ud800 é"}]))
    assert server.requests[0].messages[0]["content"] == "\ud800 é"


async def test_the_key_goes_into_the_header_and_is_masked_in_the_record(server: ModelServer, lm: LM) -> None:
    await lm.complete(LMRequest(MESSAGES))
    assert server.requests[0].headers["authorization"] == "Bearer ***"


async def test_connections_are_reused(lm: LM) -> None:
    for ask in (whole, streamed, whole):
        await ask(lm, LMRequest(MESSAGES))
        await until(lambda: any(pool._idle for pool in pools_of(lm)))
    assert [len(pool.connections) for pool in pools_of(lm)] == [1]


def test_each_event_loop_has_its_own_connections(server: ModelServer) -> None:
    lm = LM("openai/m", api_base=server.api_base)

    async def once() -> str:
        async with lm:
            return (await lm.complete(LMRequest(MESSAGES))).texts[0]

    assert [asyncio.run(once()) for _ in range(2)] == ["it is said"] * 2


async def test_a_call_leaves_connections_to_other_loops_alone_until_it_is_closed(server: ModelServer) -> None:
    lm = LM("openai/m", api_base=server.api_base)
    portal = Portal("other-loop")
    try:
        assert portal.run(lm.complete(LMRequest(MESSAGES)), 10).texts == ("it is said",)
        assert (await lm.complete(LMRequest(MESSAGES))).texts == ("it is said",)
        connections = [connection for pool in pools_of(lm) for connection in pool.connections]
        assert len(connections) == 2
        await lm.aclose()
        await until(lambda: not any(connection.is_open() for connection in connections))
        assert portal.run(lm.complete(LMRequest(MESSAGES)), 10).texts == ("it is said",)
        await lm.aclose()
    finally:
        portal.close()


async def test_the_environments_proxy_is_for_the_world_outside(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.api_base.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with LM("openai/m", api_base="http://llm.invalid/v1", api_key=KEY) as outside:
        assert await whole(outside, LMRequest(MESSAGES)) == "it is said"
    assert server.requests[0].headers["host"] == "llm.invalid"

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with LM("openai/m", api_base=server.api_base) as local:
        assert await whole(local, LMRequest(MESSAGES)) == "it is said"
    monkeypatch.setenv("no_proxy", "llm.invalid")
    async with LM("openai/m", api_base="http://llm.invalid/v1", api_key=KEY) as direct:
        with pytest.raises(errors.LMConnectionError) as caught:
            await whole(direct, LMRequest(MESSAGES))
    assert caught.value.code == "lm-unknown-host"


# --- keys, addresses, names -----------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [False, True])
async def test_a_missing_key_names_the_variable_and_sends_nothing(
    monkeypatch: pytest.MonkeyPatch, empty: bool
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if empty:
        monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    async with LM("openai/gpt-4o-mini") as lm:
        with pytest.raises(errors.LMAuthError, match="OPENAI_API_KEY"):
            await lm.complete(LMRequest(MESSAGES))
        with pytest.raises(errors.LMAuthError, match="OPENAI_API_KEY"):
            lm.settings_for_worker()
        assert pools_of(lm) == []


async def test_a_key_with_a_line_break_is_refused_without_showing_it(server: ModelServer) -> None:
    async with LM("openai/m", api_base=server.api_base, api_key=KEY + "\n") as lm:
        with pytest.raises(errors.LMAuthError, match="line break") as caught:
            await lm.complete(LMRequest(MESSAGES))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, "https://api.openai.com/v1"),
        (None, {"OPENAI_BASE_URL": "http://b/v1"}, "http://b/v1"),
        (None, {"OPENAI_BASE_URL": "http://b/v1", "OPENAI_API_BASE": "http://a/v1/"}, "http://a/v1"),
        ("http://c/v1/", {"OPENAI_API_BASE": "http://a/v1"}, "http://c/v1"),
    ],
)
def test_the_address_comes_from_the_argument_the_environment_or_the_default(
    monkeypatch: pytest.MonkeyPatch, given: str | None, environment: dict[str, str], expected: str
) -> None:
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert LM("openai/m", api_base=given).api_base == expected


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        ({"model": "gpt-4o"}, "write 'openai/gpt-4o'"),
        ({"model": "openai/"}, "is not a model"),
        ({"model": "/x"}, "is not a model"),
        ({"model": ""}, "is not a model"),
        ({"model": "antropic/claude"}, "did you mean 'anthropic'"),
        ({"model": "opnai/gpt-4o", "api_base": "http://x/v1"}, "did you mean 'openai'"),
        ({"model": 7}, "named by a text"),
        ({"model": "azure/x", "cache": True}, "come from DSPy in a worker, where none are kept"),
        ({"temprature": 0}, "did you mean 'temperature'"),
        ({"max_token": 5}, "did you mean 'max_tokens'"),
        ({"api_bas": "http://x"}, "did you mean 'api_base'"),
        ({"api_base": "localhost:80"}, "not the address of a server"),
        ({"api_base": "ftp://x"}, "not the address of a server"),
        ({"api_base": f"http://me:{KEY}@x/v1"}, "more than host and path"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"connect_timeout": "3"}, "connect_timeout must be"),
        ({"max_response_bytes": True}, "max_response_bytes must be"),
        ({"base_url": "http://x"}, "write api_base="),
        ({"cache": "yes"}, 'cache must be "off", "memory", "disk" or a Cache'),
        ({"api_base": 5}, "5 is not the address of a server"),
        ({"api_base": "http://[::1"}, "not the address of a server"),
        ({"api_base": "http://x/v1\r\nX-Evil: 1"}, "not the address of a server"),
        ({"api_base": "http://x /v1"}, "not the address of a server"),
        ({"api_base": "http://x:99999/v1"}, "not the address of a server"),
        ({"api_base": "http://x:0/v1"}, "not the address of a server"),
        ({"api_base": "http://x:port/v1"}, "not the address of a server"),
        ({"api_base": f"http://{'a' * 64}.example/v1"}, "not the address of a server"),
        ({"api_base": f"http://{'a.' * 200}example/v1"}, "not the address of a server"),
        ({"api_base": "http://a..b/v1"}, "not the address of a server"),
        ({"api_base": f"http://{'ü' * 70}/v1"}, "not the address of a server"),
        ({"api_key": 123456789}, "api_key must be a text.*, not of type int"),
        ({"api_key": KEY.encode()}, "not of type bytes"),
    ],
)
def test_a_wrong_argument_is_a_config_error(arguments: dict[str, Any], mentions: str) -> None:
    with pytest.raises(errors.ConfigError, match=mentions) as caught:
        LM(**{"model": "openai/m", **arguments})
    assert KEY not in str(caught.value)


def test_the_key_is_in_no_repr_and_no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lm = LM("openai/m", api_base="http://127.0.0.1:1/v1", api_key=KEY, temperature=0.1)
    assert KEY not in repr(lm)
    assert "***" in repr(lm)
    assert KEY.encode() not in pickle.dumps(lm)
    again = pickle.loads(pickle.dumps(lm))
    assert again == LM("openai/m", api_base="http://127.0.0.1:1/v1", temperature=0.1)
    assert again != lm


def test_an_lm_is_a_value() -> None:
    lm = LM("openai/m", api_base="http://x/v1", api_key=KEY, temperature=0.1)
    same = LM("openai/m", api_base="http://x/v1", api_key=KEY, temperature=0.1)
    assert lm == same
    assert hash(lm) == hash(same)
    assert copy.copy(lm) is copy.deepcopy(lm) is lm
    warmer = lm.with_settings(temperature=None, seed=3)
    assert warmer.settings == {"seed": 3}
    assert warmer.settings_for_worker()["api_key"] == KEY
    assert lm.settings == {"temperature": 0.1}
    lm.settings["temperature"] = 2
    assert lm.settings == {"temperature": 0.1}


def test_a_worker_gets_what_dspy_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lm = LM("openai/m", api_base="http://127.0.0.1:1/v1", timeout=7, max_tokens=5)
    assert lm.settings_for_worker() == {
        "model": "openai/m",
        "api_base": "http://127.0.0.1:1/v1",
        "api_key": "none",
        "timeout": 7.0,
        "max_tokens": 5,
        "cache": False,
        "num_retries": 0,
    }


@pytest.mark.parametrize(
    ("model", "settings", "mentions"),
    [
        ("gemini/flash-x", {}, "only DSPy speaks to 'gemini'"),
        ("azure/x", {"api_base": "https://x.azure.example", "api_version": "2024-02-01"}, "'openai/x' with"),
        ("bedrock/x", {"aws_secret_access_key": "aws-very-secret"}, "give the runtime a pool"),
        ("groq/llama", {}, "pass api_base="),
    ],
)
async def test_a_provider_that_only_dspy_speaks_to_is_a_worker_s_and_answers_no_call_itself(
    monkeypatch: pytest.MonkeyPatch, model: str, settings: dict[str, Any], mentions: str
) -> None:
    for name in ("GEMINI_API_KEY", "AZURE_API_KEY", "BEDROCK_API_KEY", "GROQ_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    lm = LM(model, timeout=7, temperature=0.5, **settings)
    with pytest.raises(errors.RouteError, match=mentions) as caught:
        await lm.complete(LMRequest(MESSAGES))
    with pytest.raises(errors.RouteError):
        await anext(lm.stream(LMRequest(MESSAGES)))

    assert caught.value.code == "lm-needs-dspy"
    asked = {"model": model, "timeout": 7.0, "temperature": 0.5, "cache": False, "num_retries": 0}
    assert lm.settings_for_worker() == {**asked, **settings}
    again = pickle.loads(pickle.dumps(lm))
    for text in (repr(lm), str(again.settings_for_worker())):
        assert "very-secret" not in text
    assert lm.with_settings(temperature=0.5) == lm


def test_a_worker_of_another_provider_gets_the_key_of_its_name_and_no_repr_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    given = LM("anthropic/claude-x", api_key="sk-given-secret")

    assert LM("anthropic/claude-x").settings_for_worker()["api_key"] == KEY
    assert given.settings_for_worker()["api_key"] == "sk-given-secret"
    assert "secret" not in repr(given)


def test_both_models_have_the_protocol() -> None:
    assert isinstance(LM("openai/m"), LanguageModel)
    assert isinstance(ScriptedLM(), LanguageModel)


# --- the table of failures -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        (" 0.5 ", 0.5),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:16:50 -0000", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_reads_seconds_and_dates(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=1000.0) == seconds


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_retry_after_reaches_the_error(server: ModelServer, lm: LM, status: int) -> None:
    server.faults.push(HttpError(status, retry_after=7), HttpError(status))
    for expected in (7.0, None):
        with pytest.raises(errors.LMError) as caught:
            await lm.complete(LMRequest(MESSAGES))
        assert caught.value.retry_after == expected


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "bad", "code": "x"}}', ("bad", "x")),
        (b'{"error": "bad"}', ("bad", "")),
        (b'{"detail": "bad"}', ("bad", "")),
        (b'{"message": "bad"}', ("bad", "")),
        (b'{"other": 1}', ('{"other": 1}', "")),
        (b"<html>\n  bad </html>", ("<html> bad </html>", "")),
        (b"key sk-very-secret is wrong", ("key *** is wrong", "")),
        (b"\xff", ("\ufffd", "")),
        (b"", ("", "")),
    ],
)
def test_the_servers_words_are_found_and_cleaned(body: bytes, said: tuple[str, str]) -> None:
    assert server_message(body, (KEY,)) == said


def test_a_long_error_page_is_cut() -> None:
    said, _ = server_message(b"x" * 10_000, ())
    assert len(said) < 600


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_its_error(status: int) -> None:
    error = from_status(status, b"", {}, base="http://x", model="m", variable="V", secrets=())
    assert isinstance(error, errors.LMError)
    assert type(error) is not errors.LMError
    assert str(status) in str(error)


# --- what an answer has beside its text --------------------------------------------------------------


def a_call(name: str = "search", arguments: Any = '{"q": "x"}', **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": "c1", "type": "function", "function": function, **more}


WHOLE: list[tuple[dict[str, Any], LMChoice]] = [
    ({"tool_calls": [a_call()]}, LMChoice("", "tool_calls", (LMToolCall("c1", "search", '{"q": "x"}'),))),
    (
        {"content": "I look.", "tool_calls": [a_call(), a_call("add", "", id="c2")]},
        LMChoice(
            "I look.",
            "tool_calls",
            (LMToolCall("c1", "search", '{"q": "x"}'), LMToolCall("c2", "add", "")),
        ),
    ),
    ({"content": "a b", "reasoning_content": "hm so"}, LMChoice("a b", "stop", reasoning="hm so")),
    ({"content": "a", "reasoning": "hm"}, LMChoice("a", "stop", reasoning="hm")),
    ({"content": "a", "refusal": "no"}, LMChoice("a", "stop", refusal="no")),
]


@pytest.mark.parametrize(("message", "choice"), WHOLE, ids=lambda x: str(x)[:40])
async def test_an_answer_is_read_whole_and_a_stream_of_it_is_assembled(
    message: dict[str, Any], choice: LMChoice
) -> None:
    scripted = ScriptedLM([message, message])
    with ModelServer([message, message]) as server:
        async with LM("openai/m", api_base=server.api_base) as lm:
            for model in (lm, scripted):
                assert (await model.complete(LMRequest(MESSAGES))).choices == (choice,)
                async with aclosing(model.stream(LMRequest(MESSAGES))) as deltas:
                    (streamed_choice,) = assemble([delta async for delta in deltas])
                filled = tuple(replace(c, arguments=c.arguments or "{}") for c in choice.tool_calls)
                assert streamed_choice == replace(choice, tool_calls=filled)


def test_calls_of_several_generations_are_put_together_by_their_indices() -> None:
    deltas = [
        LMDelta("", 1, tool_calls=(LMToolCallDelta(1, "b", "add", '{"a"'),)),
        LMDelta("x", 0),
        LMDelta("", 1, tool_calls=(LMToolCallDelta(0, "a", "get"), LMToolCallDelta(1, arguments=": 1}"))),
        LMDelta("", 1, tool_calls=(LMToolCallDelta(2, arguments="lost"),)),
        LMDelta("", 1, "tool_calls"),
        LMDelta("", usage={"total_tokens": 1}),
    ]
    assert assemble(deltas) == (
        LMChoice("x"),
        LMChoice("", "tool_calls", (LMToolCall("a", "get", "{}"), LMToolCall("b", "add", '{"a": 1}'))),
    )


@pytest.mark.parametrize(
    ("arguments", "args"),
    [
        ('{"q": "x"}', {"q": "x"}),
        ("", {}),
        ("{'q': 'x', n: 1", {"q": "x", "n": 1}),
        ("[1]", [1]),
        ("nothing", ""),
        ({"q": [1]}, {"q": [1]}),
        (None, {}),
    ],
)
async def test_arguments_are_text_and_read_as_dspy_reads_them(arguments: Any, args: Any) -> None:
    lm = ScriptedLM([{"tool_calls": [a_call(arguments=arguments)]}])
    (call,) = (await lm.complete(LMRequest(MESSAGES))).choices[0].tool_calls
    assert isinstance(call.arguments, str)
    assert call.args == args
    if isinstance(arguments, str) and arguments:
        assert args == json_repair.loads(arguments)


HOSTILE: list[tuple[dict[str, Any], str | None]] = [
    ({"tool_calls": "x"}, "lm-tool-calls"),
    ({"tool_calls": [7]}, "lm-tool-calls"),
    ({"tool_calls": [{}]}, "lm-tool-calls"),
    ({"tool_calls": [{"function": []}]}, "lm-tool-calls"),
    ({"tool_calls": [a_call(name=None)]}, "lm-tool-calls"),  # type: ignore[arg-type]
    ({"tool_calls": [a_call(arguments=[1])]}, "lm-tool-calls"),
    ({"tool_calls": []}, "lm-no-content"),
    ({"tool_calls": None, "refusal": 7}, "lm-no-content"),
    ({"refusal": "no"}, "lm-refusal"),
    ({"content": "a", "reasoning_content": 7, "reasoning": [], "refusal": {}, "tool_calls": None}, None),
    ({"content": "a", "tool_calls": [a_call(id=7)]}, None),
]


@pytest.mark.parametrize(("message", "code"), HOSTILE, ids=lambda x: str(x)[:50])
async def test_junk_in_an_answer_is_one_clear_error_or_left_out(
    message: dict[str, Any], code: str | None
) -> None:
    async def chat(_: web.Request) -> web.Response:
        return web.json_response({"choices": [{"message": message, "logprobs": 7, "finish_reason": 7}]})

    async with serving(chat) as base, LM("openai/m", api_base=base) as lm:
        if code is not None:
            with pytest.raises(errors.LMResponseError) as caught:
                await lm.complete(LMRequest(MESSAGES))
            assert caught.value.code == code
            return
        (choice,) = (await lm.complete(LMRequest(MESSAGES))).choices
    assert (choice.text, choice.reasoning, choice.refusal, choice.logprobs) == ("a", None, None, None)
    assert [call.id for call in choice.tool_calls] == [None] * len(message["tool_calls"] or ())


@pytest.mark.parametrize(
    ("pieces", "call"),
    [
        ("x", None),
        ([7], None),
        ([{"index": "x", "id": 7, "function": {"name": "f", "arguments": 7}}], LMToolCall(None, "f", "{}")),
        ([{"function": {"name": "f", "arguments": {"a": 1}}}], LMToolCall(None, "f", '{"a": 1}')),
        ([{"function": 7}], ()),
    ],
)
def test_junk_in_a_stream_is_one_clear_error_or_left_out(pieces: Any, call: Any) -> None:
    def reject(what: Any, **_: Any) -> NoReturn:
        raise errors.LMResponseError(str(what))

    event = json.dumps({"choices": [{"delta": {"tool_calls": pieces}, "finish_reason": "stop"}]})
    if call is None:
        with pytest.raises(errors.LMResponseError):
            list(decode_chunk(event, reject, reject))
    else:
        (choice,) = assemble(decode_chunk(event, reject, reject))
        assert choice.tool_calls == ((call,) if call else ())


async def test_the_probabilities_of_tokens_are_as_the_server_gave_them() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5}]}

    async def chat(_: web.Request) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": "a"}, "logprobs": logprobs}]})

    async with serving(chat) as base, LM("openai/m", api_base=base) as lm:
        assert (await lm.complete(LMRequest(MESSAGES))).choices[0].logprobs == logprobs
