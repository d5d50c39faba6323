"""Anthropic's messages: what is read of answers and streams, and which error each fault is."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex import LM, errors
from dspex.events import LMDelta
from dspex.lm import LMRequest, assemble
from dspex.lm import _anthropic as wire
from dspex.testing import Cut, HttpError, MalformedJSON, ModelServer
from dspex.testing._messages import events

KEY = "sk-ant-very-secret"
TALK = [{"role": "user", "content": "now"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": "a b", "y": [1, 2]}'}}
SAID = {"content": "é, two\nlines", "reasoning_content": "hm, so", "tool_calls": [CALL]}


@pytest.fixture
def reader() -> wire.ChunkReader:
    lm = LM("anthropic/claude-x", api_base="http://127.0.0.1:1/v1", api_key=KEY)
    return wire.ChunkReader(10_000, 1, lm._server())


def _event(**row: Any) -> bytes:
    return f"event: {row.get('type')}\ndata: {json.dumps(row)}\n\n".encode()


def _reason(reason: str | None) -> bytes:
    return _event(type="message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 2})


@given(st.lists(st.integers(0, 3000)), st.sampled_from(["\n", "\r\n"]))
def test_a_stream_cut_anywhere_says_what_it_says_in_one_piece(cuts: list[int], line: str) -> None:
    lm = LM("anthropic/claude-x", api_base="http://127.0.0.1:1/v1", api_key=KEY)
    body = b"".join(events({"model": "m", "messages": TALK}, SAID)).replace(b"\n", line.encode())

    def read(pieces: list[bytes]) -> list[Any]:
        reader = wire.ChunkReader(10_000, 1, lm._server())
        said = [delta for piece in pieces for delta in reader.feed(piece)]
        assert (reader.failure, reader.done, reader.has_text) == (None, True, True)
        return said

    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[a:b] for a, b in pairwise(places)]
    (choice,) = assemble(read(pieces))

    assert read(pieces) == read([body])
    assert (choice.text, choice.reasoning, choice.finish_reason) == ("é, two\nlines", "hm, so", "tool_calls")
    assert [(c.id, c.name, json.loads(c.arguments)) for c in choice.tool_calls] == [
        ("c1", "f", {"x": "a b", "y": [1, 2]})
    ]


def test_the_counts_of_a_stream_s_beginning_hold_where_its_end_says_nothing_else(
    reader: wire.ChunkReader,
) -> None:
    began = {"input_tokens": 10, "cache_read_input_tokens": 3, "output_tokens": 1}
    ended = {"output_tokens": 7, "output_tokens_details": {"thinking_tokens": 4}}
    reader.feed(_event(type="message_start", message={"usage": began}))
    said = reader.feed(_event(type="message_delta", delta={"stop_reason": "max_tokens"}, usage=ended))

    assert reader.usage == {
        "prompt_tokens": 13,
        "completion_tokens": 7,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    assert said == [("", 0, "length"), LMDelta("", usage=reader.usage)]


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "content_block_delta", "delta": 5},
        {"type": "content_block_delta", "index": "0", "delta": {"type": "text_delta", "text": 5}},
        {"type": "content_block_start", "content_block": [1]},
        {"type": "message_start", "message": None},
        {"type": "message_delta", "delta": "x", "usage": [1]},
        {"type": "message_delta", "delta": {"stop_reason": 5}, "usage": {"output_tokens": "7"}},
        {"type": "to come"},
        {"type": 5},
        {},
    ],
    ids=str,
)
def test_what_is_odd_in_a_stream_is_passed_over(reader: wire.ChunkReader, odd: dict[str, Any]) -> None:
    assert reader.feed(_event(**odd)) == []
    assert reader.failure is None


@pytest.mark.parametrize(
    ("event", "error", "code"),
    [
        (
            _event(type="error", error={"type": "overloaded_error", "message": "m"}),
            errors.LMServerError,
            "lm-server",
        ),
        (_event(type="error", error={"type": "rate_limit_error"}), errors.LMRateLimitError, "lm-rate-limit"),
        (
            _event(
                type="error", error={"type": "invalid_request_error", "message": "prompt is too long: 9 > 5"}
            ),
            errors.LMRequestError,
            "lm-context-length",
        ),
        (_event(type="error", error=5), errors.LMServerError, "lm-server"),
        (_event(type="message_stop"), errors.LMResponseError, "lm-no-choices"),
        (
            _event(type="content_block_start", content_block={"type": "tool_use"}),
            errors.LMResponseError,
            "lm-tool-calls",
        ),
        (b"data: {\n\n", errors.LMResponseError, "lm-not-json"),
        (b"data: " + b"x" * 20_000, errors.LMResponseError, "lm-response-too-large"),
    ],
)
def test_what_is_wrong_in_a_stream_is_its_failure_behind_what_came_before(
    reader: wire.ChunkReader, event: bytes, error: type[errors.LMError], code: str
) -> None:
    before = _event(type="content_block_delta", delta={"type": "text_delta", "text": "a"})
    said = reader.feed((b"" if b"message_stop" in event else before) + event)

    assert said == ([] if b"message_stop" in event else [("a", 0, None)])
    assert isinstance(reader.failure, error)
    assert reader.failure.code == code


def test_a_stream_without_its_end_is_whole_if_it_has_a_reason_and_cut_if_not(
    reader: wire.ChunkReader,
) -> None:
    reader.feed(_event(type="content_block_delta", delta={"type": "text_delta", "text": "a"}))
    with pytest.raises(errors.LMConnectionError) as caught:
        reader.end()
    assert caught.value.code == "lm-cut"
    reader.feed(_reason("end_turn"))
    reader.end()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"content": []}, "lm-no-content"),
        ({"content": [], "stop_reason": "refusal"}, "lm-refusal"),
        ({"content": [{"type": "text", "text": ""}], "stop_reason": "max_tokens"}, "lm-no-content"),
        ({"content": [{"type": "tool_use", "id": "c"}]}, "lm-tool-calls"),
        ({"content": "text"}, "lm-no-choices"),
        ({"choices": []}, "lm-no-choices"),
        ([], "lm-not-json"),
    ],
    ids=str,
)
def test_an_answer_without_a_generation_says_why(reader: wire.ChunkReader, answer: Any, code: str) -> None:
    with pytest.raises(errors.LMResponseError) as caught:
        wire.decode(json.dumps(answer).encode(), 1, reader._server.reject, reader._server.failed_midway)
    assert caught.value.code == code


async def _ask(lm: LM, streamed: bool) -> None:
    if not streamed:
        await lm.complete(LMRequest(TALK))
        return
    async for _ in lm.stream(LMRequest(TALK)):
        pass


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        (HttpError(401, "no", "authentication_error"), errors.LMAuthError, "lm-auth"),
        (HttpError(429, "slow", retry_after=3), errors.LMRateLimitError, "lm-rate-limit"),
        (HttpError(529, "busy", "overloaded_error"), errors.LMServerError, "lm-server"),
        (HttpError(400, "prompt is too long: 9 tokens > 5"), errors.LMRequestError, "lm-context-length"),
        (Cut("middle"), errors.LMConnectionError, "lm-cut"),
        (MalformedJSON(), errors.LMResponseError, "lm-not-json"),
    ],
    ids=str,
)
async def test_each_fault_of_the_server_is_its_error_whole_and_streamed(
    streamed: bool, fault: Any, error: type[errors.LMError], code: str
) -> None:
    with ModelServer(answer="so it is", faults=[fault]) as server:
        async with LM("anthropic/claude-x", api_base=server.api_base, api_key=KEY) as lm:
            with pytest.raises(error) as caught:
                await _ask(lm, streamed)
            assert (await lm.complete(LMRequest(TALK))).texts == ("so it is",)
    assert caught.value.code == code
    assert KEY not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"


async def test_several_generations_are_several_requests_and_their_counts_are_added() -> None:
    with ModelServer(answer=["one", "two words", "three", "four"]) as server:
        async with LM("anthropic/claude-x", api_base=server.api_base) as lm:
            response = await lm.complete(LMRequest(TALK, {"n": 2}))
            streamed = assemble([delta async for delta in lm.stream(LMRequest(TALK, {"n": 2}))])
    assert response.texts == ("one", "two words")
    assert [choice.text for choice in streamed] == ["three", "four"]
    assert response.raw["content"] == [{"type": "text", "text": "one"}]
    assert (response.usage["prompt_tokens"], response.usage["completion_tokens"]) == (2, 3)
    assert response.usage["prompt_tokens_details"] == {"cached_tokens": 0, "cache_creation_tokens": 0}


async def test_several_generations_are_kept_apart_from_one_in_a_cache() -> None:
    with ModelServer(answer=["one", "two", "three"]) as server:
        async with LM("anthropic/claude-x", api_base=server.api_base, cache="memory") as lm:
            for _ in range(2):
                assert (await lm.complete(LMRequest(TALK))).texts == ("one",)
                assert (await lm.complete(LMRequest(TALK, {"n": 2}))).texts == ("two", "three")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("settings", "content", "mentions"),
    [
        ({}, [{"type": "input_audio"}], "input_audio"),
        ({}, [{"text": "no type"}], "cannot be written"),
        ({}, 5, "cannot be written"),
        ({"reasoning_effort": "some"}, "a", "one of none, minimal"),
        ({"response_format": "json"}, "a", "cannot be written"),
        ({"tools": [{}]}, "a", "cannot be written"),
        ({"temperature": "hot"}, "a", "cannot be written"),
        ({"n": 0}, "a", "n must be"),
        ({"extra_body": {"x": {1, 2}}}, "a", "cannot be written"),
    ],
    ids=str,
)
def test_what_the_api_does_not_have_is_refused_before_it_is_sent(
    settings: Any, content: Any, mentions: str
) -> None:
    with pytest.raises(errors.ConfigError, match=mentions) as caught:
        wire.encode("m", "anthropic", [{"role": "user", "content": content}], settings)
    assert caught.value.code == "lm-setting"


def test_extra_body_has_the_last_word() -> None:
    body, _ = wire.encode(
        "m", "anthropic", TALK, {"extra_body": {"max_tokens": 3, "thinking": {"type": "disabled"}}}
    )
    assert json.loads(body)["max_tokens"] == 3
    assert json.loads(body)["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    ("variable", "value", "base"),
    [
        (None, "", "https://api.anthropic.com/v1"),
        ("ANTHROPIC_BASE_URL", "https://a.example", "https://a.example/v1"),
        ("ANTHROPIC_API_BASE", "https://a.example/v1/", "https://a.example/v1"),
    ],
)
def test_the_address_is_the_environment_s_or_anthropic_s(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, value: str, base: str
) -> None:
    for name in ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, value)
    lm = LM("anthropic/claude-x", api_key=KEY)
    assert lm.api_base == base
    # The worker has the same environment, and DSPy its own way of reading it.
    assert "api_base" not in lm.settings_for_worker()
    assert (
        LM("anthropic/claude-x", api_base="http://x/v1", api_key=KEY).settings_for_worker()["api_base"]
        == "http://x/v1"
    )


async def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(errors.LMAuthError, match="ANTHROPIC_API_KEY"):
        await LM("anthropic/claude-x", api_base="http://a.example/v1").complete(LMRequest(TALK))
