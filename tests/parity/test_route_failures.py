"""A failure of the model is one error, whichever route asked: class, code, server, words and hint."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from tests.parity.versions import NEWER_THAN_33
from tests.support.raw_server import RawServer, raw_server, read_request, reset

import dspex
from dspex import errors
from dspex.testing import (
    Cut,
    EmptyChoices,
    Fault,
    HttpError,
    MalformedJSON,
    ModelServer,
    NullContent,
    Stall,
    WrongContentType,
)
from dspex.testing import _faults as every_fault

KEY = "sk-very-secret-0123456789"
ANSWER = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
LONG = "it is said " * 100

FAULTS: list[Fault] = [
    Stall(),
    Stall("middle"),
    Cut(),
    Cut("middle"),
    *(HttpError(status, f"no, says the server ({status})") for status in (400, 401, 402, 403, 404)),
    *(HttpError(status, f"no, says the server ({status})") for status in (408, 409, 413, 418, 422)),
    *(HttpError(status, f"no, says the server ({status})") for status in (500, 502, 503, 504, 529)),
    HttpError(400, LONG),
    HttpError(401, f"bad key {KEY}"),
    HttpError(400, "too long", code="context_length_exceeded"),
    HttpError(429, "slow down"),
    HttpError(429, "slow down", retry_after=7),
    HttpError(429, "slow down", retry_after="Wed, 21 Oct 2065 07:28:00 GMT"),
    HttpError(429, "no credit", code="insufficient_quota"),
    MalformedJSON(),
    MalformedJSON("[1]"),
    MalformedJSON(""),
    EmptyChoices(),
    NullContent(),
    NullContent(refusal="I will not"),
    WrongContentType(),
]

INTERNALS = ("lm15", "litellm", "RouterConfig", "OpenAIException", "Timeouts(", "dspy.LM", "Errno", "ssl:<")
"""Words of libraries that a caller of dspex does not see."""


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(answer=ANSWER) as server:
        yield server


@pytest.fixture(scope="module")
def runtime(server: ModelServer) -> Iterator[dspex.Runtime]:
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key=KEY)
    with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def hurried(server: ModelServer) -> Iterator[dspex.Runtime]:
    """A runtime whose LM has no patience: for stalls, and for nothing else on a busy machine."""
    lm = dspex.LM("openai/m", api_base=server.api_base, api_key=KEY, timeout=1.0)
    with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def unhurried() -> Iterator[dspex.Runtime]:
    """A runtime for calls that bring their LM."""
    lm = dspex.LM("openai/m", api_base="http://127.0.0.1:1/v1", api_key=KEY)
    with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
        yield runtime


def failure(runtime: dspex.Runtime, route: str) -> errors.DspexError:
    with pytest.raises(errors.DspexError) as raised:
        dspex.Predict("question -> answer", runtime=runtime)(question="Where?", route=route)
    error = raised.value
    shown = f"{error} {error.to_dict()}"
    assert KEY not in shown
    assert [word for word in INTERNALS if word.lower() in shown.lower()] == []
    return error


def seen(error: errors.DspexError) -> dict[str, Any]:
    """What a program or a person acts on."""
    seen = {
        "class": type(error),
        "code": error.code,
        "category": error.category,
        "http": error.http_status,
        "retryable": error.retryable,
        "hint": error.hint,
    }
    if isinstance(error, errors.LMError):
        seen |= {
            "server": error.api_base,
            "model": error.model,
            "status": error.status,
            "words": error.server_message,
            "wait": error.retry_after and round(error.retry_after, -1 if error.retry_after > 60 else 0),
        }
    return seen


def test_the_table_has_every_fault_of_the_server_but_those_that_answer_in_the_end() -> None:
    tried = {type(fault).__name__ for fault in FAULTS}
    answered = {"Delay", "SlowDrip"}
    assert tried | answered == {*every_fault.__all__} - {"Fault", "FaultSchedule"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: repr(fault)[:60])
def test_a_failure_is_the_same_error_on_both_routes(
    server: ModelServer, runtime: dspex.Runtime, hurried: dspex.Runtime, fault: Fault
) -> None:
    asked = hurried if isinstance(fault, Stall) else runtime
    server.faults.push(fault)
    native = failure(asked, "native")
    server.faults.push(fault)
    python = failure(asked, "python")

    assert seen(python) == seen(native)
    if isinstance(native, errors.LMError) and native.status is not None:
        assert python.message == native.message
    assert python.hint
    assert len(server.faults) == 0  # one request each


@pytest.mark.parametrize("route", ["native", "python"])
def test_a_secret_of_a_call_s_settings_is_in_no_error_whatever_the_server_says(
    server: ModelServer, runtime: dspex.Runtime, route: str
) -> None:
    server.faults.push(HttpError(400, "no access with token-of-this-call"))
    config = {"extra_body": {"session": {"access_token": "token-of-this-call"}}}
    with pytest.raises(errors.LMError) as raised:
        dspex.Predict("question -> answer", runtime=runtime)(question="Where?", route=route, config=config)

    error = raised.value
    assert error.server_message == "no access with ***"
    assert "token-of-this-call" not in f"{error} {error.to_dict()}"


@contextlib.asynccontextmanager
async def listening(says: bytes, again: bytes = b"") -> AsyncIterator[str]:
    """The address of something that is no model: it says this and closes, or resets the connection.

    With `again` it says that after it, for as long as somebody listens.
    """

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        await read_request(reader, state)  # all of it: a close with unread bytes is a reset
        if not says:
            reset(writer)
            return
        writer.write(says)
        while again:
            await writer.drain()
            writer.write(again)

    async with raw_server(talk) as state:
        yield f"http://127.0.0.1:{state.port}/v1"


async def both(
    lm: dspex.LM, running: dspex.Runtime | None = None
) -> tuple[errors.DspexError, errors.DspexError]:
    """The errors of the two routes; those of a runtime that runs, with this LM for the calls."""
    async with contextlib.AsyncExitStack() as stack:
        runtime = running
        if runtime is None:
            opened = dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1))
            runtime = await stack.enter_async_context(opened)
        ask = dspex.Predict("question -> answer", runtime=runtime, lm=lm)
        native, python = [
            await asyncio.gather(ask.acall(question="Where?", route=route), return_exceptions=True)
            for route in ("native", "python")
        ]
    assert isinstance(native[0], errors.DspexError)
    assert isinstance(python[0], errors.DspexError)
    return native[0], checked(python[0])


def checked(error: errors.DspexError) -> errors.DspexError:
    shown = f"{error} {error.to_dict()}"
    assert [word for word in INTERNALS if word.lower() in shown.lower()] == []
    return error


async def streamed(lm: dspex.LM, runtime: dspex.Runtime, route: str) -> errors.DspexError:
    predict = dspex.Predict("question -> answer", runtime=runtime, lm=lm)
    async with aclosing(predict.astream(question="Where?", route=route)) as events:
        with pytest.raises(errors.DspexError) as raised:
            _ = [event async for event in events]
    return checked(raised.value)


async def both_streamed(lm: dspex.LM, runtime: dspex.Runtime) -> tuple[errors.DspexError, errors.DspexError]:
    return await streamed(lm, runtime, "native"), await streamed(lm, runtime, "python")


async def test_a_server_that_is_not_there_is_the_same_error_on_both_routes() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        native, python = await both(dspex.LM("openai/m", api_base=base, api_key=KEY))

    assert seen(python) == seen(native)
    assert (python.code, python.message) == ("lm-unreachable", native.message)
    assert base in python.hint


async def test_a_host_that_is_not_there_is_the_same_error_on_both_routes() -> None:
    base = "http://no-such-host.invalid/v1"
    native, python = await both(dspex.LM("openai/m", api_base=base, api_key=KEY))

    assert seen(python) == seen(native)
    assert (python.code, python.message) == ("lm-unknown-host", native.message)


@pytest.mark.parametrize(
    ("says", "code"), [(b"SSH-2.0-x\r\n\r\n", "lm-not-http"), (b"", None)], ids=["no HTTP", "a reset"]
)
async def test_what_is_no_model_is_the_same_error_on_both_routes(says: bytes, code: str | None) -> None:
    async with listening(says) as base:
        native, python = await both(dspex.LM("openai/m", api_base=base, api_key=KEY))

    assert seen(python) == seen(native)
    assert code is None or python.code == code


async def test_a_key_that_is_not_set_is_the_same_error_on_both_routes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    native, python = await both(dspex.LM("openai/m", api_base="http://models.invalid/v1"))

    assert seen(python) == seen(native)
    assert (python.code, python.message) == ("lm-no-key", native.message)


async def test_an_address_without_its_v1_is_named_on_both_routes(server: ModelServer) -> None:
    base = server.api_base.removesuffix("/v1")
    native, python = await both(dspex.LM("openai/m", api_base=base, api_key=KEY))

    assert seen(python) == seen(native)
    assert python.code == "lm-not-found"
    assert f"most servers want api_base='{base}/v1'" in python.hint


LITELLM_ASKS = pytest.mark.skipif(
    not NEWER_THAN_33, reason="LiteLLM, which DSPy 3.3 asks through, follows redirects and has no bound"
)
PAGE = b"<html>It has moved</html>"
COMPLETION = b'{"choices": [{"message": {"content": "Paris"}, "finish_reason": "stop"}]}'
BOMB = gzip.compress(b" " * 40_000_000)
TOKEN = b'data: {"choices": [{"index": 0, "delta": {"content": " "}}]}\n\n'


def reply(body: bytes, *headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """An answer that ends with its connection."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@LITELLM_ASKS
@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
@pytest.mark.parametrize("body", [b"", PAGE, COMPLETION, b"{}"], ids=["empty", "a page", "an answer", "JSON"])
async def test_a_redirect_is_followed_on_neither_route(
    status: str, body: bytes, unhurried: dspex.Runtime
) -> None:
    async with listening(reply(body, "Location: http://models.invalid/", status=status)) as base:
        native, python = await both(dspex.LM("openai/m", api_base=base, api_key=KEY), unhurried)

    assert seen(python) == seen(native)
    assert (python.code, python.message) == ("lm-response", native.message)


@LITELLM_ASKS
async def test_a_redirect_of_a_stream_is_followed_on_neither_route(unhurried: dspex.Runtime) -> None:
    says = reply(b"", "Location: http://models.invalid/", status="307 T", kind="text/event-stream")
    async with listening(says) as base:
        native, python = await both_streamed(dspex.LM("openai/m", api_base=base, api_key=KEY), unhurried)

    assert seen(python) == seen(native)
    assert (python.code, python.message) == ("lm-response", native.message)


ENDLESS: dict[str, tuple[bytes, bytes, dict[str, Any]]] = {
    # what the answer begins with, what comes after it for ever, and settings of the LM
    "a body": (reply(b""), b" " * 60_000, {}),
    "a body of little": (reply(b""), b" " * 600, {"max_response_bytes": 5_000}),
    "a long answer": (reply(COMPLETION + b"\n" * 15_000), b"", {"max_response_bytes": 5_000}),
    "a page of an error": (reply(b"", status="500 Oh"), b" " * 60_000, {}),
    "a bomb": (reply(BOMB, "Content-Encoding: gzip"), b"", {}),
    "a body that says it is a stream": (reply(b"", kind="text/event-stream"), b" " * 60_000, {}),
}


@LITELLM_ASKS
@pytest.mark.parametrize("name", ENDLESS)
async def test_a_reply_without_end_is_given_up_on_both_routes(name: str, unhurried: dspex.Runtime) -> None:
    says, again, settings = ENDLESS[name]
    async with listening(says, again) as base:
        lm = dspex.LM("openai/m", api_base=base, api_key=KEY, **settings)
        native, python = await both(lm, unhurried)

    assert seen(python) == seen(native)
    assert python.code == "lm-response-too-large"


@LITELLM_ASKS
@pytest.mark.parametrize("settings", [{}, {"max_response_bytes": 5_000}], ids=["default", "of the LM"])
async def test_a_line_of_a_stream_without_end_is_given_up_on_both_routes(
    settings: dict[str, Any], unhurried: dspex.Runtime
) -> None:
    async with listening(reply(b"data: ", kind="text/event-stream"), b"x" * 60_000) as base:
        lm = dspex.LM("openai/m", api_base=base, api_key=KEY, **settings)
        native, python = await both_streamed(lm, unhurried)

    assert seen(python) == seen(native)
    assert python.code == "lm-response-too-large"


@LITELLM_ASKS
async def test_a_stream_of_events_without_end_is_given_up_by_a_worker(unhurried: dspex.Runtime) -> None:
    async with listening(reply(b"", kind="text/event-stream"), TOKEN * 100) as base:
        lm = dspex.LM("openai/m", api_base=base, api_key=KEY, max_response_bytes=20_000)
        error = await streamed(lm, unhurried, "python")

    assert error.code == "lm-response-too-large"
    assert error.hint.startswith("raise max_response_bytes=")


@LITELLM_ASKS
async def test_a_stream_longer_than_an_answer_may_be_is_read_to_its_end(unhurried: dspex.Runtime) -> None:
    end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    said = b'data: {"choices": [{"index": 0, "delta": {"content": "[[ ## answer ## ]]\\nParis"}}]}\n\n'
    async with listening(reply(said + TOKEN * 500 + end, kind="text/event-stream")) as base:
        lm = dspex.LM("openai/m", api_base=base, api_key=KEY, max_response_bytes=5_000)
        predict = dspex.Predict("question -> answer", runtime=unhurried, lm=lm)
        async with aclosing(predict.astream(question="Where?", route="python")) as events:
            last = [event async for event in events][-1]

    assert isinstance(last, dspex.Prediction)
    assert last.answer == "Paris"


@LITELLM_ASKS
async def test_a_line_that_dspy_does_not_read_is_not_taken_for_a_broken_connection(
    unhurried: dspex.Runtime,
) -> None:
    line = b'data: {"choices": [{"index": 0, "delta": {"content": "' + b"x" * 100_000 + b'"}}]}\n\n'
    async with listening(reply(line, kind="text/event-stream")) as base:
        error = await streamed(dspex.LM("openai/m", api_base=base, api_key=KEY), unhurried, "python")

    assert error.code == "lm-response-too-large"
    assert "64 kB" in error.hint


@LITELLM_ASKS
async def test_a_body_that_is_packed_twice_is_not_unpacked_by_a_worker(unhurried: dspex.Runtime) -> None:
    says = reply(gzip.compress(BOMB), "Content-Encoding: gzip, gzip")
    async with listening(says) as base:
        native, python = await both(dspex.LM("openai/m", api_base=base, api_key=KEY), unhurried)

    assert seen(python) == seen(native)
    assert python.code == "lm-not-http"


@LITELLM_ASKS
@pytest.mark.parametrize(
    ("name", "code"),
    [(name, "lm-response-too-large") for name in ENDLESS] + [("a redirect", "lm-response")],
)
async def test_a_program_that_blocks_in_a_worker_has_the_same_bounds(
    name: str, code: str, unhurried: dspex.Runtime
) -> None:
    redirect = reply(COMPLETION, "Location: http://models.invalid/", status="302 F")
    says, again, settings = ENDLESS.get(name, (redirect, b"", {}))
    program = dspex.remote("tests.support.programs:TwoSteps", runtime=unhurried)
    async with listening(says, again) as base:
        program.set_lm(dspex.LM("openai/m", api_base=base, api_key=KEY, **settings))
        with pytest.raises(errors.LMError) as raised:
            await program.acall(question="Where?")

    assert checked(raised.value).code == code
