"""A failure of the model is one error, whichever route asked: class, code, server, words and hint."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.parity.versions import NEWER_THAN_33

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


@contextlib.asynccontextmanager
async def listening(says: bytes) -> AsyncIterator[str]:
    """The address of something that is no model: it says this and closes, or resets the connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if says:
            writer.write(says)
            await writer.drain()
            writer.close()
        else:
            writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def both(lm: dspex.LM) -> tuple[errors.DspexError, errors.DspexError]:
    async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
        ask = dspex.Predict("question -> answer", runtime=runtime)
        native, python = [
            await asyncio.gather(ask.acall(question="Where?", route=route), return_exceptions=True)
            for route in ("native", "python")
        ]
    assert isinstance(native[0], errors.DspexError)
    assert isinstance(python[0], errors.DspexError)
    shown = f"{python[0]} {python[0].to_dict()}"
    assert [word for word in INTERNALS if word.lower() in shown.lower()] == []
    return native[0], python[0]


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


@pytest.mark.skipif(not NEWER_THAN_33, reason="LiteLLM, which DSPy 3.3 asks through, follows redirects")
async def test_a_redirect_is_followed_on_neither_route() -> None:
    says = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://models.invalid/\r\nContent-Length: 0\r\n\r\n"
    async with listening(says) as base:
        native, python = await both(dspex.LM("openai/m", api_base=base, api_key=KEY))

    assert seen(python) == seen(native)
    assert (python.code, python.message) == ("lm-response", native.message)
