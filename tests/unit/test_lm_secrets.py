"""The key of an LM, and other secrets in its settings, are in nothing that it shows, raises or pickles."""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from tests.support.raw_server import RawServer, raw_server, read_request

from dspex import LM, errors
from dspex.lm import AiohttpTransport, LMRequest, NativeTransport, Transport

KEY = "sk-very-secret-0123456789"
MESSAGES = [{"role": "user", "content": "say it"}]


@asynccontextmanager
async def saying(body: str, *, kind: str = "application/json", status: int = 200) -> AsyncIterator[str]:
    """The address of a server that answers everything with `body`."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type=kind, status=status)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def whole(lm: LM) -> None:
    await lm.complete(LMRequest(MESSAGES))


async def streamed(lm: LM) -> None:
    async with aclosing(lm.stream(LMRequest(MESSAGES))) as deltas:
        async for _ in deltas:
            pass


def everything_of(error: BaseException) -> str:
    """What may be written of an error: its texts, what it came from, its traceback, its pickle."""
    links, texts = [error], []
    while links:
        link = links.pop()
        texts += [repr(link), str(link), str(vars(link)), repr(getattr(link, "__notes__", ""))]
        links += [other for other in (link.__cause__, link.__context__) if other is not None]
    texts += traceback.format_exception(error)
    if isinstance(error, errors.DspexError):
        texts.append(json.dumps(error.to_dict(), default=str))
    texts.append(pickle.dumps(error).decode("latin-1"))
    return "\n".join(texts)


UNREADABLE_CALL = json.dumps(
    {"choices": [{"message": {"tool_calls": [{"function": {"name": KEY, "arguments": 5}}]}}]}
)
CHUNK = json.dumps({"choices": [{"delta": {"content": "x"}}]})
ECHOES: list[tuple[Callable[[LM], Awaitable[None]], str, str, int]] = [
    (whole, json.dumps({"error": {"message": f"bad key {KEY}"}}), "application/json", 200),
    (whole, json.dumps({"error": f"bad key {KEY}"}), "application/json", 200),
    (whole, json.dumps({"error": {"code": KEY, "param": [KEY]}}), "application/json", 200),
    (whole, KEY * 3, "text/plain", 200),
    (whole, "x" * 190 + KEY, "text/plain", 200),
    (whole, json.dumps([KEY]), "application/json", 200),
    (whole, json.dumps({"choices": [{"message": {"refusal": f"no, {KEY}"}}]}), "application/json", 200),
    (whole, UNREADABLE_CALL, "application/json", 200),
    (whole, json.dumps({"error": {"message": f"bad key {KEY}", "code": KEY}}), "application/json", 401),
    (streamed, f"data: {KEY}\n\n", "text/event-stream", 200),
    (streamed, f"data: {CHUNK}\n\ndata: " + json.dumps({"error": {"message": KEY, "code": KEY}}) + "\n\n",
     "text/event-stream", 200),
    (streamed, "nothing", f"text/{KEY}", 200),
]  # fmt: skip


@pytest.mark.parametrize("ask_body_kind_status", ECHOES, ids=lambda row: f"{row[3]} {row[1][:30]}")
async def test_a_server_that_repeats_the_key_does_not_get_it_into_an_error(
    ask_body_kind_status: tuple[Callable[[LM], Awaitable[None]], str, str, int],
) -> None:
    ask, body, kind, status = ask_body_kind_status
    async with (
        saying(body, kind=kind, status=status) as base,
        LM("openai/m", api_base=base, api_key=KEY) as lm,
    ):
        with pytest.raises(errors.LMError) as caught:
            await ask(lm)
    shown = everything_of(caught.value)
    assert KEY not in shown
    assert KEY[:12] not in shown, "not even the beginning of it"


async def not_http(reader: Any, writer: Any, state: RawServer) -> None:
    await read_request(reader, state)
    writer.write(b"what?\r\n\r\n")


async def silent(reader: Any, writer: Any, state: RawServer) -> None:
    await read_request(reader, state)


@pytest.mark.parametrize("transport", [NativeTransport, AiohttpTransport])
@pytest.mark.parametrize("ask", [whole, streamed])
@pytest.mark.parametrize("script", [not_http, silent])
async def test_an_error_of_the_connection_does_not_lead_to_the_request(
    script: Any, ask: Any, transport: Callable[[], Transport]
) -> None:
    async with raw_server(script) as server:
        base = f"http://127.0.0.1:{server.port}/v1"
        carries = transport()
        lm = LM("openai/m", api_base=base, api_key=KEY, transport=carries)
        try:
            with pytest.raises(errors.LMError) as caught:
                await ask(lm)
        finally:
            await carries.aclose()
    assert KEY not in everything_of(caught.value)


def test_secrets_in_settings_are_neither_shown_nor_pickled_and_the_rest_is() -> None:
    extra = {"api_key": KEY, "auth": {"user": "me", "passphrase": KEY}, "keys": [KEY], "top_k": 5}
    lm = LM(
        "openai/m",
        api_base="http://x/v1",
        temperature=0.5,
        prompt_cache_key="tenant-number-seven",
        max_tokens=7,
        extra_body=extra,
        proxy="http://me:pass-word-of-mine@proxy:80",
    )

    again = pickle.loads(pickle.dumps(lm))

    assert KEY not in repr(lm)
    assert "pass-word" not in repr(lm)
    for shown in ("temperature=0.5", "'top_k': 5", "max_tokens=7", "'api_key': '***'", "tenant-number-seven"):
        assert shown in repr(lm)
    assert KEY.encode() not in pickle.dumps(lm)
    assert b"pass-word" not in pickle.dumps(lm)
    settings = {"temperature": 0.5, "prompt_cache_key": "tenant-number-seven", "max_tokens": 7}
    assert again.settings == {**settings, "extra_body": {"top_k": 5}}
    assert lm.settings["extra_body"] == extra, "the LM itself keeps it"


async def test_a_server_that_repeats_a_secret_of_the_body_does_not_get_it_into_an_error() -> None:
    async with saying(f"what is {KEY}?") as base:
        lm = LM("openai/m", api_base=base, extra_body={"session": {"access_token": KEY}})
        async with lm:
            with pytest.raises(errors.LMError, match=r"what is \*\*\*") as caught:
                await whole(lm)
    assert KEY not in everything_of(caught.value)


async def complete(lm: LM, request: LMRequest) -> None:
    await lm.complete(request)


async def stream(lm: LM, request: LMRequest) -> None:
    async with aclosing(lm.stream(request)) as deltas:
        async for _ in deltas:
            pass


@pytest.mark.parametrize("ask", [complete, stream])
async def test_a_server_that_repeats_a_secret_of_a_calls_own_body_does_not_get_it_into_an_error(
    ask: Callable[[LM, LMRequest], Awaitable[None]],
) -> None:
    settings = {"extra_body": {"session": {"access_token": KEY}}}
    request = LMRequest([{"role": "user", "content": "say it"}], settings, 60.0)
    async with saying(f"what is {KEY}?", status=400) as base, LM("openai/m", api_base=base) as lm:
        with pytest.raises(errors.LMError, match=r"what is \*\*\*") as caught:
            await ask(lm, request)
    assert KEY not in everything_of(caught.value)
