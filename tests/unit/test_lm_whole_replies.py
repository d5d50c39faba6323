"""Nothing that a server says is dropped, of a whole answer and of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dspex import LM, errors
from dspex.events import LMDelta
from dspex.lm import Cache, LMRequest, LMResponse, assemble
from dspex.lm._answer import decode
from dspex.lm._chunks import decode_chunk

MESSAGES = [{"role": "user", "content": "say it"}]
NOTE = {
    "type": "url_citation",
    "url_citation": {"url": "http://x", "title": "X", "start_index": 0, "end_index": 2},
}
TOKENS: list[dict[str, Any]] = [
    {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []} for token in ("it", " is")
]
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 5},
    "cost": 0.01,
}
BASE = {
    "id": "chat-1",
    "object": "o",
    "created": 5,
    "model": "m-7",
    "system_fingerprint": "fp",
    "mine": {"a": 1},
}
ANSWER = {
    **BASE,
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": {"content": TOKENS, "refusal": None},
            "message": {"content": "it is", "refusal": "but no", "annotations": [NOTE], "audio": {"id": "a"}},
        }
    ],
    "usage": USAGE,
}
EVENTS = [
    {**BASE, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
    {**BASE, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {**BASE, "choices": [{"index": 0, "delta": {"content": "it"}, "logprobs": {"content": TOKENS[:1]}}]},
    {**BASE, "choices": [{"index": 0, "delta": {"content": " is"}, "logprobs": {"content": TOKENS[1:]}}]},
    {**BASE, "choices": [{"index": 0, "delta": {"refusal": "but "}}]},
    {**BASE, "choices": [{"index": 0, "delta": {"refusal": "no", "annotations": [NOTE]}}]},
    {**BASE, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {**BASE, "choices": [], "usage": USAGE},
]


@asynccontextmanager
async def serving(events: list[dict[str, Any]], **settings: Any) -> AsyncIterator[LM]:
    async def answer(request: web.Request) -> web.Response:
        if not (await request.json()).get("stream"):
            return web.json_response(ANSWER)
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return web.Response(text=text, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        async with LM("openai/m", api_base=base, **settings) as lm:
            yield lm
    finally:
        await runner.cleanup()


async def streamed(lm: LM) -> list[LMDelta]:
    async with aclosing(lm.stream(LMRequest(MESSAGES))) as deltas:
        return [delta async for delta in deltas]


async def test_a_whole_answer_has_all_that_the_server_said() -> None:
    async with serving(EVENTS) as lm:
        response = await lm.complete(LMRequest(MESSAGES))
    (choice,) = response.choices
    assert response.raw == ANSWER
    assert response.usage == USAGE
    assert choice.raw == ANSWER["choices"][0]  # type: ignore[index]
    assert (choice.text, choice.refusal, choice.annotations) == ("it is", "but no", (NOTE,))
    assert choice.logprobs == {"content": TOKENS, "refusal": None}


async def test_a_stream_brings_the_same() -> None:
    async with serving(EVENTS) as lm:
        whole = await lm.complete(LMRequest(MESSAGES))
        deltas = await streamed(lm)
    (choice,) = assemble(deltas)
    (mine,) = whole.choices
    assert choice.logprobs == {"content": TOKENS}
    assert (choice.text, choice.finish_reason) == (mine.text, mine.finish_reason)
    assert (choice.refusal, choice.annotations) == (mine.refusal, mine.annotations)
    (last,) = [delta for delta in deltas if delta.usage]
    assert last.usage == USAGE
    assert {name: last.raw[name] for name in BASE} == BASE
    assert deltas[0].raw["prompt_filter_results"] == [{"prompt_index": 0}]


async def test_a_cache_keeps_the_probabilities_of_a_stream() -> None:
    said = [event for event in EVENTS if "refusal" not in json.dumps(event)]
    async with serving(said, cache=Cache(), logprobs=True) as lm:
        first = assemble(await streamed(lm))
        again = await lm.complete(LMRequest(MESSAGES))
        deltas = await streamed(lm)
    assert again.cached
    assert again.choices == assemble(deltas) == first
    assert first[0].logprobs == {"content": TOKENS}


async def test_what_is_of_no_generation_is_no_answer() -> None:
    async with serving([EVENTS[0]]) as lm:
        with pytest.raises(errors.LMResponseError) as caught:
            await streamed(lm)
    assert caught.value.code == "lm-no-choices"


def test_what_a_server_says_besides_does_not_count_when_answers_are_compared() -> None:
    assert LMResponse((), "m", raw={"id": "1"}) == LMResponse((), "m", raw={"id": "2"})
    assert "chat-1" not in repr(LMResponse((), "m", raw=ANSWER))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "choices", "delta", "message", "content", "index", "finish_reason", "tool_calls", "function",
                "name", "arguments", "id", "usage", "error", "code", "logprobs", "refusal", "reasoning",
                "annotations", "text",
            ]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


class RefusedError(Exception):
    """What is raised for an answer that is refused."""


def reject(what: str, *, code: str | None = None, hint: str = "", said: bytes | str = "") -> Any:
    raise RefusedError(what)


def failed(event: Any, status: int | None = None, /) -> Any:
    raise RefusedError


@given(JUNK)
def test_junk_is_read_or_refused_and_never_another_error(junk: Any) -> None:
    nested = {"choices": [{"delta": junk, "message": junk}]}
    for body in (junk, nested, {"choices": junk}, {"choices": [junk]}):
        text = json.dumps(body)
        for read in (
            lambda raw: decode(raw.encode(), 1, reject, failed),
            lambda raw: list(decode_chunk(raw, reject, failed)),
        ):
            with suppress(RefusedError):
                read(text)


@given(st.lists(st.tuples(st.integers(0, 2), JUNK), max_size=6))
def test_whatever_a_stream_brings_can_be_put_together(junk: list[tuple[int, Any]]) -> None:
    deltas: list[LMDelta] = []
    for index, piece in junk:
        event = {"choices": [{"index": index, "delta": piece, "logprobs": piece}], "usage": piece}
        with suppress(RefusedError):
            deltas += decode_chunk(json.dumps(event), reject, failed)
    assert all(choice.raw == {} for choice in assemble(deltas))
