"""Keys that a function gives, and header fields of one's own, as a server gets them on both routes."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

import dspex
from dspex import LM, errors
from dspex.lm import LMRequest

MESSAGES = [{"role": "user", "content": "say it"}]
REPLY = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A server's address, and the header fields of its requests; it answers both ways."""
    heads: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        heads.append({name.lower(): value for name, value in request.headers.items()})
        if (await request.json()).get("stream"):
            chunk = {"choices": [{"delta": {"content": REPLY}, "finish_reason": "stop"}]}
            text = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
            return web.Response(text=text, content_type="text/event-stream")
        return web.json_response(
            {
                "id": "c1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"}
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", heads
    finally:
        await runner.cleanup()


class Tokens:
    """A source of keys, each another: `key-secret-1`, ..."""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self) -> str:
        self.given += 1
        return f"key-secret-{self.given}"

    async def later(self) -> str:
        await asyncio.sleep(0)
        return self()


async def ask(lm: LM, *, stream: bool, settings: dict[str, Any] | None = None) -> None:
    request = LMRequest(MESSAGES, settings or {})
    if not stream:
        await lm.complete(request)
        return
    async with aclosing(lm.stream(request)) as deltas:
        async for _ in deltas:
            pass


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_function_gives_the_key_of_each_request(way: str, stream: bool) -> None:
    tokens = Tokens()
    source = tokens if way == "sync" else tokens.later
    async with listening() as (base, heads), LM("openai/m", api_base=base, api_key=source) as lm:
        for _ in range(3):
            await ask(lm, stream=stream)
        assert "secret" not in repr(lm)
        assert b"secret" not in pickle.dumps(lm)
    assert [head["authorization"] for head in heads] == [f"Bearer key-secret-{n}" for n in (1, 2, 3)]


def raises() -> str:
    raise OSError("the server of tokens said key-secret-0")


async def raises_later() -> str:
    raise TimeoutError("its own")


BAD_SOURCES: list[tuple[Any, str]] = [
    (raises, "lm-key-failed"),
    (raises_later, "lm-key-failed"),
    (lambda: "", "lm-bad-key"),
    (lambda: None, "lm-bad-key"),
    (lambda: b"key-secret-0", "lm-bad-key"),
    (lambda: "key-secret-0\n", "lm-bad-key"),
]


@pytest.mark.parametrize(("source", "code"), BAD_SOURCES)
async def test_a_function_that_gives_no_key_is_one_clear_error_and_nothing_is_sent(
    source: Any, code: str
) -> None:
    async with listening() as (base, heads), LM("openai/m", api_base=base, api_key=source) as lm:
        with pytest.raises(errors.LMAuthError) as caught:
            await lm.complete(LMRequest(MESSAGES))
    assert caught.value.code == code
    assert "secret" not in str(caught.value)
    assert heads == []


async def never() -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_function_that_does_not_return_is_over_with_the_call_s_time() -> None:
    async with listening() as (base, heads), LM("openai/m", api_base=base, api_key=never, timeout=0.05) as lm:
        with pytest.raises(errors.LMTimeoutError) as caught:
            await lm.complete(LMRequest(MESSAGES))
        with pytest.raises(errors.DeadlineExceeded):
            await lm.complete(LMRequest(MESSAGES, timeout=0.01))
    assert caught.value.code == "lm-key-timeout"
    assert heads == []


async def test_an_error_of_the_server_shows_no_key_of_a_function() -> None:
    async def refuses(request: web.Request) -> web.Response:
        return web.json_response(
            {"error": {"message": f"bad: {request.headers['authorization']}"}}, status=401
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", refuses)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        async with LM("openai/m", api_base=base, api_key=Tokens()) as lm:
            with pytest.raises(errors.LMAuthError, match=r"bad: Bearer \*\*\*"):
                await lm.complete(LMRequest(MESSAGES))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_worker_gets_the_key_with_each_call_and_not_at_its_start(way: str) -> None:
    tokens = Tokens()
    async with listening() as (base, heads):
        lm = LM("openai/m", api_base=base, api_key=tokens if way == "sync" else tokens.later)
        assert "secret" not in str(lm.settings_for_worker())
        async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
            predict = dspex.Predict("question -> answer", runtime=runtime)
            for _ in range(2):
                said = await predict.acall(question="is it?", route="python")
                assert said.answer == "yes"
            own = lm.with_settings(temperature=0.5)
            await predict.acall(question="is it?", route="python", lm=own)
            failing = LM("openai/m", api_base=base, api_key=raises)
            with pytest.raises(errors.LMAuthError):
                await predict.acall(question="is it?", route="python", lm=failing)
    assert [head["authorization"] for head in heads] == [f"Bearer key-secret-{n}" for n in (1, 2, 3)]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@pytest.mark.parametrize("stream", [False, True])
async def test_header_fields_of_the_lm_and_of_a_call_are_sent(stream: bool) -> None:
    headers = {"X-Team": "ours", "X-Gateway-Token": "gateway-secret-1"}
    async with (
        listening() as (base, heads),
        LM("openai/m", api_base=base, api_key="k", extra_headers=headers) as lm,
    ):
        await ask(lm, stream=stream)
        await ask(lm, stream=stream, settings={"extra_headers": {"authorization": "Basic basic-secret"}})
        await ask(lm, stream=stream, settings={"extra_headers": None})
        again = pickle.loads(pickle.dumps(lm))
        assert "secret" not in repr(lm)
        assert b"secret" not in pickle.dumps(lm)
    assert again.settings == {"extra_headers": {"X-Team": "ours"}}
    first, second, third = heads
    assert (first["x-team"], first["x-gateway-token"]) == ("ours", "gateway-secret-1")
    assert second["authorization"] == "Basic basic-secret", "in place of ours, as DSPy's client does it"
    assert "x-team" not in second
    assert "x-team" not in third
    assert first["authorization"] == third["authorization"] == "Bearer k"


async def test_header_fields_are_equal_on_both_routes(no_network: None) -> None:
    headers = {"X-Team": "ours", "OpenAI-Beta": "a=b"}
    async with listening() as (base, heads):
        lm = LM("openai/m", api_base=base, api_key="k", extra_headers=headers)
        async with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
            predict = dspex.Predict("question -> answer", runtime=runtime)
            for route in ("native", "python"):
                await predict.acall(question="is it?", route=route)
                config = {"extra_headers": {"X-Team": "theirs"}}
                await predict.acall(question="is it?", route=route, config=config)
    names = ("x-team", "openai-beta", "authorization")
    sent = [tuple(head.get(name) for name in names) for head in heads]
    assert sent[:2] == sent[2:] == [("ours", "a=b", "Bearer k"), ("theirs", None, "Bearer k")]


@pytest.mark.parametrize("headers", [["X"], {"X": 5}, {5: "x"}, "X: y"])
async def test_header_fields_are_a_mapping_of_texts(headers: Any) -> None:
    with pytest.raises(errors.ConfigError, match="extra_headers must be"):
        LM("openai/m", api_base="http://127.0.0.1:1/v1", extra_headers=headers)
    lm = LM("openai/m", api_base="http://127.0.0.1:1/v1")
    with pytest.raises(errors.ConfigError, match="extra_headers must be"):
        await lm.complete(LMRequest(MESSAGES, {"extra_headers": headers}))
