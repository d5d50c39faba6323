"""OpenAI's Responses: what is read of answers and streams, which error each fault is, how it is chosen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.raw_replies import RawReplies

import dspex
from dspex import LM, errors
from dspex.events import LMDelta
from dspex.lm import LMRequest, RateLimit, assemble
from dspex.lm import _responses as wire
from dspex.lm._saved import lm_of, state_of
from dspex.testing import Cut, EmptyChoices, HttpError, MalformedJSON, ModelServer, NullContent, SlowDrip
from dspex.testing._responses import events

KEY = "sk-very-secret"
TALK = [{"role": "user", "content": "now"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": "a b", "y": [1, 2]}'}}
NOTE = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "https://a.example", "title": "A"}
SAID = {
    "content": "é, two\nlines",
    "reasoning_content": "hm, so\nit is",
    "annotations": [NOTE],
    "tool_calls": [CALL, {**CALL, "id": "c2"}],
}
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}


def _lm(base: str = "http://127.0.0.1:1/v1", **more: Any) -> LM:
    return LM("openai/gpt-x", model_type="responses", api_base=base, api_key=KEY, **more)


@pytest.fixture
def reader() -> wire.ChunkReader:
    return wire.ChunkReader(10_000, 1, _lm()._server())


def _event(kind: str, **row: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **row})}\n\n".encode()


def _text(text: str, **more: Any) -> bytes:
    return _event("response.output_text.delta", output_index=0, content_index=0, delta=text, **more)


def _ended(status: str = "completed", **more: Any) -> bytes:
    return _event(f"response.{status}", response={"status": status, "output": [], **more})


# --- streams ------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.lists(st.integers(0, 9000)), st.sampled_from(["\n", "\r\n"]))
def test_a_stream_cut_anywhere_says_what_it_says_in_one_piece(cuts: list[int], line: str) -> None:
    lm = _lm()
    body = b"".join(events({"model": "m", "input": TALK}, SAID)).replace(b"\n", line.encode())

    def read(pieces: list[bytes]) -> list[Any]:
        reader = wire.ChunkReader(10_000, 1, lm._server())
        said = [delta for piece in pieces for delta in reader.feed(piece)]
        assert (reader.failure, reader.done, reader.has_text) == (None, True, True)
        return said

    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[a:b] for a, b in pairwise(places)]
    (choice,) = assemble(read(pieces))

    assert read(pieces) == read([body])
    assert (choice.text, choice.reasoning, choice.finish_reason) == (
        "é, two\nlines",
        "hm, so\nit is",
        "tool_calls",
    )
    assert choice.annotations == (NOTE,)
    assert [(c.id, c.name, json.loads(c.arguments)) for c in choice.tool_calls] == [
        ("c1", "f", {"x": "a b", "y": [1, 2]}),
        ("c2", "f", {"x": "a b", "y": [1, 2]}),
    ]


@settings(max_examples=300)
@given(st.integers(0, 9000))
def test_a_stream_that_stops_before_its_end_is_cut_wherever_it_stops(at: int) -> None:
    body = b"".join(events({"model": "m", "input": TALK}, SAID))
    reader = wire.ChunkReader(10_000, 1, _lm()._server())
    reader.feed(body[: at % (len(body) - 1)])

    assert (reader.failure, reader.done) == (None, False)
    with pytest.raises(errors.LMConnectionError) as caught:
        reader.end()
    assert caught.value.code == "lm-cut"


def test_the_end_of_a_stream_has_its_reason_its_counts_and_the_whole_answer(reader: wire.ChunkReader) -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 17,
    }
    why = {"reason": "max_output_tokens"}
    reader.feed(_text("a"))
    said = reader.feed(_ended("incomplete", incomplete_details=why, usage=usage, id="r", service_tier="flex"))

    assert reader.usage == {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_creation_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    assert said == [("", 0, "length"), LMDelta("", usage=reader.usage)]
    assert isinstance(said[1], LMDelta)
    assert (said[1].raw["id"], said[1].raw["service_tier"]) == ("r", "flex")
    assert reader.done


def test_each_kind_of_piece_is_a_delta_of_its_own(reader: wire.ChunkReader) -> None:
    own = {"output_index": 2, "item_id": "i"}
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    said = reader.feed(
        _event("response.reasoning_text.delta", **own, content_index=0, delta="hm")
        + _text("a", logprobs=[TOKEN])
        + _event("response.refusal.delta", **own, content_index=1, delta="no")
        + _event("response.output_item.added", **own, item=item)
        + _event("response.function_call_arguments.delta", **own, delta="{}")
    )
    assert all(isinstance(delta, LMDelta) and delta.raw for delta in said)
    assert assemble(said) == (
        dspex.lm.LMChoice(
            "a", None, (dspex.lm.LMToolCall("c", "f", "{}"),), "hm", "no", {"content": [TOKEN]}
        ),
    )


def test_what_a_server_says_only_at_the_end_of_a_part_is_said_all_the_same(reader: wire.ChunkReader) -> None:
    own = {"output_index": 1, "content_index": 0}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": 1}'}
    said = reader.feed(
        _event("response.output_text.done", **own, text="all of it")
        + _event("response.output_text.done", **own, text="all of it")
        + _event("response.output_item.done", output_index=2, item=call)
        + _event("response.function_call_arguments.done", output_index=2, arguments='{"x": 1}')
    )
    (choice,) = assemble(said)
    assert choice.text == "all of it"
    assert [(c.id, c.name, c.arguments) for c in choice.tool_calls] == [("c", "f", '{"x": 1}')]


def test_calls_are_told_apart_by_their_ids_where_their_places_are_the_same(reader: wire.ChunkReader) -> None:
    def begun(name: str) -> bytes:
        item = {"type": "function_call", "id": f"fc_{name}", "call_id": name, "name": name, "arguments": ""}
        return _event("response.output_item.added", item=item)

    def argued(name: str, text: str) -> bytes:
        return _event("response.function_call_arguments.delta", item_id=f"fc_{name}", delta=text)

    said = reader.feed(
        begun("a")
        + argued("a", "{")
        + begun("b")
        + argued("b", '{"x": 1}')
        + argued("a", "}")
        + argued("?", " ")
    )
    (choice,) = assemble(said)
    assert [(c.id, c.arguments) for c in choice.tool_calls] == [("a", "{}"), ("b", '{"x": 1} ')]


def test_the_end_of_chat_completions_ends_a_stream_that_has_said_something(reader: wire.ChunkReader) -> None:
    assert reader.feed(_text("a") + b"data: [DONE]\n\n") == [("a", 0, None)]
    assert (reader.done, reader.failure) == (True, None)


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "response.output_text.delta", "delta": 5},
        {"type": "response.output_text.delta", "delta": "", "logprobs": 5},
        {"type": "response.output_item.added", "item": [1]},
        {"type": "response.output_item.added", "output_index": "0", "item": {"type": "to come"}},
        {"type": "response.output_text.annotation.added", "annotation": "x"},
        {"type": "response.function_call_arguments.delta", "delta": {"x": 1}},
        {"type": "response.web_search_call.searching", "item_id": "w"},
        {"type": "response.created", "response": None},
        {"type": "to come.delta", "delta": "x"},
        {"type": 5},
        {},
    ],
    ids=str,
)
def test_what_is_odd_in_a_stream_is_passed_over(reader: wire.ChunkReader, odd: dict[str, Any]) -> None:
    assert reader.feed(f"data: {json.dumps(odd)}\n\n".encode()) == []
    assert reader.failure is None


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "item",
                    "text",
                    "content",
                    "delta",
                    "response",
                    "output",
                    "name",
                    "arguments",
                    "error",
                    "usage",
                ]
            ),
            inner
            | st.sampled_from(
                ["message", "function_call", "reasoning", "output_text", "refusal", "output_text.delta"]
            ),
            max_size=4,
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(
    [
        "response.output_text.delta",
        "response.output_text.done",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.annotation.added",
        "response.function_call_arguments.delta",
        "response.reasoning_summary_text.delta",
        "response.completed",
        "response.failed",
        "error",
    ]
)


@settings(max_examples=300)
@given(JUNK)
def test_junk_is_read_or_refused_and_never_another_error(junk: Any) -> None:
    server = _lm()._server()
    for body in (junk, {"output": junk}, {"output": [junk], "usage": junk}):
        try:
            choices, _, usage, _ = wire.decode(
                json.dumps(body).encode(), 1, server.reject, server.failed_midway
            )
        except errors.LMError:
            continue
        assert len(choices) == 1
        assert isinstance(usage, dict)


ROWS = st.dictionaries(
    st.sampled_from(
        [
            "delta",
            "item",
            "response",
            "text",
            "output_index",
            "content_index",
            "summary_index",
            "item_id",
            "logprobs",
        ]
    ),
    JUNK,
)


@settings(max_examples=300)
@given(st.lists(st.tuples(KINDS, ROWS)))
def test_junk_in_a_stream_is_passed_over_or_its_failure(rows: list[tuple[str, dict[str, Any]]]) -> None:
    reader = wire.ChunkReader(10_000, 1, _lm()._server())
    said = [delta for kind, row in rows for delta in reader.feed(_event(kind, **row))]
    assert reader.failure is None or isinstance(reader.failure, errors.LMError)
    assemble(said)


@pytest.mark.parametrize(
    ("event", "error", "code"),
    [
        (
            _event("error", code="rate_limit_exceeded", message="m", param=None),
            errors.LMRateLimitError,
            "lm-rate-limit",
        ),
        (_event("error", error={"type": "server_error", "message": "m"}), errors.LMServerError, "lm-server"),
        (_event("error", message="m"), errors.LMServerError, "lm-server"),
        (
            _ended("failed", error={"code": "server_error", "message": "m"}),
            errors.LMServerError,
            "lm-server",
        ),
        (
            _ended("failed", error={"code": "context_length_exceeded", "message": "m"}),
            errors.LMRequestError,
            "lm-context-length",
        ),
        (_ended("failed", error={"code": "insufficient_quota"}), errors.LMRequestError, "lm-billing"),
        (_ended("failed", error={"code": "invalid_image_url"}), errors.LMRequestError, "lm-request"),
        (_ended("failed", error={"code": "model_not_found"}), errors.LMRequestError, "lm-not-found"),
        (_ended("failed", error={"code": "invalid_api_key"}), errors.LMAuthError, "lm-auth"),
        (_ended("failed", error=None), errors.LMServerError, "lm-server"),
        (_ended("failed", error={"code": 429, "message": "m"}), errors.LMRateLimitError, "lm-rate-limit"),
        (_ended("failed", error="why"), errors.LMServerError, "lm-server"),
        (
            _event("response.output_item.added", output_index=0, item={"type": "function_call"}),
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
    assert reader.feed(_text("a") + event) == [("a", 0, None)]
    assert isinstance(reader.failure, error)
    assert reader.failure.code == code


def test_a_stream_that_ends_without_a_word_has_no_choice(reader: wire.ChunkReader) -> None:
    assert reader.feed(_event("response.created", response={}) + b"data: [DONE]\n\n") == []
    assert isinstance(reader.failure, errors.LMResponseError)
    assert reader.failure.code == "lm-no-choices"


# --- whole answers ------------------------------------------------------------------------------------


def _message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def _decode(answer: Any) -> Any:
    server = _lm()._server()
    return wire.decode(json.dumps(answer).encode(), 1, server.reject, server.failed_midway)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"output": []}, "lm-no-content"),
        ({"output": [], "status": "incomplete"}, "lm-no-content"),
        ({"output": [_message({"type": "refusal", "refusal": "no"})]}, "lm-refusal"),
        ({"output": [{"type": "function_call", "call_id": "c"}]}, "lm-tool-calls"),
        ({"output": "text"}, "lm-no-choices"),
        ({"choices": []}, "lm-no-choices"),
        ([], "lm-not-json"),
    ],
    ids=str,
)
def test_an_answer_without_a_generation_says_why(answer: Any, code: str) -> None:
    with pytest.raises(errors.LMResponseError) as caught:
        _decode(answer)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "why", "reason"),
    [
        ("completed", None, "tool_calls"),
        ("incomplete", {"reason": "max_output_tokens"}, "length"),
        ("incomplete", {"reason": "content_filter"}, "content_filter"),
    ],
)
def test_an_answer_whose_call_of_a_tool_was_cut_does_not_end_with_it(
    reader: wire.ChunkReader, status: str, why: Any, reason: str
) -> None:
    call = {"type": "function_call", "id": "i", "call_id": "c", "name": "f", "arguments": '{"x'}
    answer = {"status": status, "incomplete_details": why, "output": [call]}
    assert _decode(answer)[0][0].finish_reason == reason
    said = reader.feed(
        _event("response.output_item.added", output_index=0, item=call)
        + _event(f"response.{status}", response=answer)
    )
    assert assemble(said)[0].finish_reason == reason


def test_the_words_of_a_refusal_are_kept_beside_a_text() -> None:
    answer = {
        "output": [_message({"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"})]
    }
    (choice,), _, _, raw = _decode(answer)
    assert (choice.text, choice.refusal) == ("a", "no")
    assert choice.raw == raw == answer


def test_thoughts_that_have_no_summary_are_those_that_the_server_shows() -> None:
    content = [{"type": "reasoning_text", "text": "hm"}]
    answer = {
        "output": [
            {"type": "reasoning", "summary": [], "content": content},
            _message({"type": "text", "text": "a"}),
        ]
    }
    (choice,), *_ = _decode(answer)
    assert choice.reasoning == "hm"


def test_the_arguments_of_a_call_are_the_text_that_the_server_sent() -> None:
    items = [
        {"type": "function_call", "id": "fc", "name": "f", "arguments": '{"x":  1.50}'},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": {"x": 1}},
        {"type": "function_call", "name": "f"},
    ]
    (choice,), *_ = _decode({"output": items})
    assert [(c.id, c.arguments) for c in choice.tool_calls] == [
        ("fc", '{"x":  1.50}'),
        ("c", '{"x": 1}'),
        (None, "{}"),
    ]


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
        (HttpError(401, "no", "invalid_api_key"), errors.LMAuthError, "lm-auth"),
        (HttpError(429, "slow", retry_after=3), errors.LMRateLimitError, "lm-rate-limit"),
        (HttpError(429, "no money", "insufficient_quota"), errors.LMRequestError, "lm-billing"),
        (HttpError(503, "busy"), errors.LMServerError, "lm-server"),
        (HttpError(400, "too long", "context_length_exceeded"), errors.LMRequestError, "lm-context-length"),
        (Cut("middle"), errors.LMConnectionError, "lm-cut"),
        (MalformedJSON(), errors.LMResponseError, "lm-not-json"),
    ],
    ids=str,
)
async def test_each_fault_of_the_server_is_its_error_whole_and_streamed(
    streamed: bool, fault: Any, error: type[errors.LMError], code: str
) -> None:
    with ModelServer(answer="so it is", faults=[fault]) as server:
        async with _lm(server.api_base) as lm:
            with pytest.raises(error) as caught:
                await _ask(lm, streamed)
            assert (await lm.complete(LMRequest(TALK))).texts == ("so it is",)
    assert caught.value.code == code
    assert KEY not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("fault", [EmptyChoices(), NullContent()], ids=str)
async def test_an_answer_of_nothing_has_no_content(fault: Any) -> None:
    with ModelServer(answer="so it is", faults=[fault]) as server:
        async with _lm(server.api_base) as lm:
            with pytest.raises(errors.LMResponseError) as caught:
                await lm.complete(LMRequest(TALK))
    assert caught.value.code == "lm-no-content"


async def test_a_key_that_a_server_repeats_behind_a_status_of_success_is_in_no_error() -> None:
    with RawReplies() as replies:
        replies.headers = {"Content-Type": "application/json"}
        replies.body = json.dumps({"error": {"code": "x", "message": f"not {KEY}"}, "output": []}).encode()
        async with _lm(replies.api_base) as lm:
            with pytest.raises(errors.LMServerError, match=r"not \*\*\*") as caught:
                await lm.complete(LMRequest(TALK))
    assert KEY not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.server_message}"


# --- requests -----------------------------------------------------------------------------------------


async def test_several_generations_are_several_requests_and_their_counts_are_added() -> None:
    with ModelServer(answer=["one", "two words", "three", "four"]) as server:
        async with _lm(server.api_base) as lm:
            response = await lm.complete(LMRequest(TALK, {"n": 2}))
            streamed = assemble([delta async for delta in lm.stream(LMRequest(TALK, {"n": 2}))])
    assert response.texts == ("one", "two words")
    assert [choice.text for choice in streamed] == ["three", "four"]
    assert (response.usage["prompt_tokens"], response.usage["completion_tokens"]) == (2, 3)
    assert [choice.raw["output"][0]["content"][0]["text"] for choice in response.choices] == [
        "one",
        "two words",
    ]


async def test_generations_and_stop_sequences_are_kept_apart_in_a_cache() -> None:
    with ModelServer(answer=["one", "two", "three", "f/our", "five"]) as server:
        async with _lm(server.api_base, cache="memory") as lm:
            for _ in range(2):
                assert (await lm.complete(LMRequest(TALK))).texts == ("one",)
                assert (await lm.complete(LMRequest(TALK, {"n": 2}))).texts == ("two", "three")
                assert (await lm.complete(LMRequest(TALK, {"stop": "/"}))).texts == ("f",)
                assert (await lm.complete(LMRequest(TALK, {"stop": ["x"]}))).texts == ("five",)
    assert len(server.requests) == 5


async def test_an_answer_to_chat_completions_is_no_answer_to_responses_in_a_cache() -> None:
    with ModelServer(answer=["one", "two"]) as server:
        cache = dspex.lm.Cache()
        async with LM("openai/gpt-x", api_base=server.api_base, cache=cache) as chat:
            assert (await chat.complete(LMRequest(TALK))).texts == ("one",)
        async with _lm(server.api_base, cache=cache) as lm:
            assert (await lm.complete(LMRequest(TALK))).texts == ("two",)


async def test_an_answer_ends_at_a_stop_sequence_and_its_connection_is_given_up() -> None:
    with ModelServer(answer=["so it is END and more", "so it is", {**SAID, "content": "x END"}]) as server:
        async with _lm(server.api_base, stop=["END", "never"], limits=RateLimit(concurrency=1)) as lm:
            cut = await lm.complete(LMRequest(TALK))
            whole = await lm.complete(LMRequest(TALK))
            streamed = [delta async for delta in lm.stream(LMRequest(TALK))]
    assert (cut.texts, cut.finish_reasons, cut.usage) == (("so it is ",), ("stop",), {})
    assert (whole.texts, whole.usage["completion_tokens"]) == (("so it is",), 3)
    assert whole.raw["id"] == "resp_dspex"
    (choice,) = assemble(streamed)
    assert (choice.text, choice.reasoning, choice.finish_reason) == ("x ", "hm, so\nit is", "stop")
    assert choice.tool_calls == ()  # they came behind it


@pytest.mark.parametrize(("stop", "text", "kept"), [("de", "abc", 1), ("cd", "ab", 1), ("fg", "abcdef", 3)])
async def test_the_probabilities_of_a_text_that_is_cut_are_those_of_its_whole_tokens(
    stop: str, text: str, kept: int
) -> None:
    tokens = [{**TOKEN, "token": "ab"}, {**TOKEN, "token": "cd"}, {**TOKEN, "token": "ef"}]
    with RawReplies() as replies:
        replies.headers = {"Content-Type": "text/event-stream"}
        replies.body = [_text("abcd", logprobs=tokens[:2]) + _text("ef", logprobs=tokens[2:]) + _ended()]
        async with _lm(replies.api_base) as lm:
            answer = await lm.complete(LMRequest(TALK, {"stop": stop, "logprobs": True}))
    assert answer.texts == (text,)
    assert answer.choices[0].logprobs == {"content": tokens[:kept]}


async def test_a_whole_answer_that_is_read_as_a_stream_has_the_time_of_a_whole_answer() -> None:
    with ModelServer(answer="so it is", faults=[SlowDrip(size=1, interval=0.02)]) as server:
        async with _lm(server.api_base, timeout=2.0, stop="END") as lm:
            with pytest.raises(errors.LMTimeoutError) as caught:  # all of it would take a minute
                await lm.complete(LMRequest(TALK))
            assert (await lm.complete(LMRequest(TALK))).texts == ("so it is",)
    assert (caught.value.code, caught.value.stage, caught.value.timeout) == ("lm-timeout", "total", 2.0)


async def test_a_stop_sequence_is_found_where_something_else_comes_in_its_middle() -> None:
    note = _event("response.output_text.annotation.added", output_index=0, annotation=NOTE)
    with RawReplies() as replies:
        replies.headers = {"Content-Type": "text/event-stream"}
        replies.body = [_text("so E") + note + _text("ND more") + _ended()]
        async with _lm(replies.api_base) as lm:
            answer = await lm.complete(LMRequest(TALK, {"stop": "END"}))
    assert (answer.texts, answer.finish_reasons) == (("so ",), ("stop",))


async def test_what_might_have_become_a_stop_sequence_is_text_where_the_stream_ends() -> None:
    with RawReplies() as replies:
        replies.headers = {"Content-Type": "text/event-stream"}
        replies.body = [_text("so E") + _text("N") + b"data: [DONE]\n\n"]
        async with _lm(replies.api_base) as lm:
            answer = await lm.complete(LMRequest(TALK, {"stop": "END"}))
    assert (answer.texts, answer.finish_reasons) == (("so EN",), (None,))


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (_event("response.refusal.delta", delta="no") + _ended(), "lm-refusal"),
        (_ended("incomplete", incomplete_details={"reason": "max_output_tokens"}), "lm-no-content"),
    ],
)
async def test_a_whole_answer_that_is_read_as_a_stream_is_refused_for_the_same_reasons(
    said: bytes, code: str
) -> None:
    with RawReplies() as replies:
        replies.headers = {"Content-Type": "text/event-stream"}
        replies.body = [said]
        async with _lm(replies.api_base) as lm:
            with pytest.raises(errors.LMResponseError) as caught:
                await lm.complete(LMRequest(TALK, {"stop": "x"}))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("settings", "content", "mentions"),
    [
        ({}, [{"type": "video_url"}], "video_url"),
        ({}, [{"text": "no type"}], "cannot be written"),
        ({}, 5, "cannot be written"),
        ({"response_format": "json"}, "a", "cannot be written"),
        ({"tools": [{"function": {}}]}, "a", "cannot be written"),
        ({"n": 0}, "a", "n must be"),
        ({"extra_body": {"x": {1, 2}}}, "a", "cannot be written"),
    ],
    ids=str,
)
def test_what_the_api_does_not_have_is_refused_before_it_is_sent(
    settings: Any, content: Any, mentions: str
) -> None:
    with pytest.raises(errors.ConfigError, match=mentions) as caught:
        wire.encode("m", "openai", [{"role": "user", "content": content}], settings)
    assert caught.value.code == "lm-setting"


@pytest.mark.parametrize("stop", [5, ["a", 5], {"a": 1}], ids=str)
async def test_a_stop_sequence_is_a_text(stop: Any) -> None:
    with pytest.raises(errors.ConfigError, match="stop must be") as caught:
        await _lm().complete(LMRequest(TALK, {"stop": stop}))
    assert caught.value.code == "lm-setting"


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        (
            {"extra_body": {"max_output_tokens": 3, "truncation": "auto"}},
            {"max_output_tokens": 3, "truncation": "auto"},
        ),
        (
            {"reasoning": {"effort": "low", "summary": "auto"}, "reasoning_effort": "high"},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        ({"tools": [{"type": "web_search"}]}, {"tools": [{"type": "web_search"}]}),
        ({"tool_choice": {"type": "web_search"}}, {"tool_choice": {"type": "web_search"}}),
        (
            {"logprobs": True, "include": ["reasoning.encrypted_content"]},
            {"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]},
        ),
        (
            {"text": {"verbosity": "low"}, "response_format": {"type": "json_object"}},
            {"text": {"verbosity": "low", "format": {"type": "json_object"}}},
        ),
        (
            {"response_format": {"type": "json_schema", "name": "a", "schema": {}}},
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}},
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            {
                "tools": [
                    {
                        "type": "function",
                        "name": "f",
                        "description": None,
                        "parameters": {"type": "object", "properties": {}},
                        "strict": True,
                    }
                ]
            },
        ),
    ],
    ids=str,
)
def test_what_only_the_api_knows_goes_into_the_body_as_it_is(settings: Any, sent: Any) -> None:
    body, _ = wire.encode("m", "openai", TALK, {"max_tokens": 5, **settings})
    read = json.loads(body)
    assert {name: read[name] for name in sent} == sent


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        (
            {"type": "image_url", "image_url": "https://a.example/x.png"},
            {"image_url": "https://a.example/x.png"},
        ),
        ({"type": "input_image", "file_id": "f"}, {"file_id": "f"}),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
            {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        ),
    ],
    ids=str,
)
def test_parts_that_dspys_codec_does_not_read_are_sent_in_the_form_of_the_api(part: Any, sent: Any) -> None:
    body, _ = wire.encode("m", "openai", [{"role": "user", "content": [part]}], {})
    (block,) = json.loads(body)["input"][0]["content"]
    kind = "input_file" if part["type"] == "file" else "input_image"
    assert block == {"type": kind, **sent}


def test_arguments_that_are_no_json_are_sent_as_the_model_wrote_them() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{x: 1"}}
    body, _ = wire.encode("m", "openai", [{"role": "assistant", "content": None, "tool_calls": [call]}], {})
    assert json.loads(body)["input"] == [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{x: 1"}
    ]


# --- how it is chosen ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given_type", ["text", "", None, True, ["chat"]], ids=str)
def test_another_word_for_the_type_of_a_model_is_one_error(given_type: Any) -> None:
    with pytest.raises(errors.ConfigError, match="'chat' or 'responses'") as caught:
        LM("openai/m", model_type=given_type)
    assert caught.value.code == "lm-setting"


def test_the_type_of_a_model_is_no_setting_of_a_call() -> None:
    with pytest.raises(errors.ConfigError, match="model_type") as caught:
        _lm().with_settings(temperature=1.0)._merged(LMRequest(TALK, {"model_type": "chat"}))
    assert "dspex.LM" in caught.value.hint


async def test_a_server_that_serves_a_model_by_responses_alone_makes_the_error_say_how() -> None:
    words = "This model is only supported in v1/responses and not in v1/chat/completions."
    with ModelServer(faults=[HttpError(404, words)]) as server:
        async with LM("openai/gpt-x", api_base=server.api_base) as lm:
            with pytest.raises(errors.LMRequestError, match="only supported") as caught:
                await lm.complete(LMRequest(TALK))
    assert "model_type='responses'" in caught.value.hint


@pytest.mark.parametrize("model", ["groq/m", "anthropic/m", "azure/m"])
async def test_responses_of_other_providers_are_dspys_to_ask(model: str) -> None:
    lm = LM(model, model_type="responses", api_base="http://127.0.0.1:1/v1", api_key=KEY)
    refusal = lm.refusal()
    assert refusal is not None
    assert refusal.code == "lm-needs-dspy"
    assert "Responses with" in refusal.message
    assert "openai/m" in refusal.hint
    with pytest.raises(errors.RouteError):
        await lm.complete(LMRequest(TALK))
    assert lm.settings_for_worker()["model_type"] == "responses"


def test_the_type_of_a_model_is_part_of_what_it_is() -> None:
    lm = _lm(temperature=1.0)
    assert lm.model_type == "responses"
    assert lm != LM("openai/gpt-x", api_base="http://127.0.0.1:1/v1", api_key=KEY, temperature=1.0)
    assert "model_type='responses'" in repr(lm)
    assert lm.with_settings(temperature=0.0).model_type == "responses"
    assert lm_of(json.loads(json.dumps(state_of(lm)))) == LM(
        "openai/gpt-x", model_type="responses", api_base="http://127.0.0.1:1/v1", temperature=1.0
    )
    assert "model_type" not in state_of(LM("openai/m"))
    assert lm.settings_for_worker()["model_type"] == "responses"
    assert "model_type" not in LM("openai/m", api_key=KEY).settings_for_worker()


def test_a_saved_program_names_the_type_of_its_model() -> None:
    program = dspex.Predict("question -> answer", lm=_lm(temperature=1.0))
    state = program.dump_state()
    assert state["lm"]["model_type"] == "responses"
    loaded = dspex.Predict("question -> answer")
    loaded.load_state(state, lm=True)
    assert isinstance(loaded.lm, LM)
    assert loaded.lm.model_type == "responses"
    state["lm"]["model_type"] = "text"
    with pytest.raises(errors.ConfigError, match="model_type must be"):
        loaded.load_state(state, lm=True)


def test_a_configuration_names_the_type_of_its_model() -> None:
    lm = {"model": "openai/gpt-x", "model_type": "responses", "api_base": "http://127.0.0.1:1/v1"}
    with dspex.Runtime.from_config({"lm": lm}) as runtime:
        assert isinstance(runtime.lm, LM)
        assert runtime.lm.model_type == "responses"
    with pytest.raises(errors.ConfigError, match=r"lm\.model_type"):
        dspex.Runtime.from_config({"lm": {**lm, "model_type": "text"}})


# --- through modules ----------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.mark.parametrize("adapter", [dspex.ChatAdapter(), dspex.JSONAdapter()], ids=["chat", "json"])
async def test_a_module_asks_by_responses_whole_and_streamed(server: ModelServer, adapter: Any) -> None:
    context = "Ithaca is an island. Troy is a city."
    async with _lm(server.api_base, temperature=0.0) as lm, dspex.Runtime(lm, adapter=adapter) as runtime:
        predict = dspex.Predict("context, question -> answer", runtime=runtime)
        whole = await predict.acall(context=context, question="What is Troy?")
        seen = [event async for event in predict.astream(context=context, question="What is Troy?")]

    streamed = seen[-1]
    assert isinstance(streamed, dspex.Prediction)
    assert whole.answer
    assert whole.answer == streamed.answer
    assert "".join(e.text for e in seen if isinstance(e, dspex.events.TextDelta)) == whole.answer
    assert whole.usage == streamed.usage
    assert [r.path for r in server.requests] == ["/v1/responses"] * 2
    first, second = (r.body for r in server.requests)
    assert first["instructions"].startswith("Your input fields")
    assert {**first, "stream": True} == second


async def test_a_group_may_have_models_of_both_types(server: ModelServer) -> None:
    group = LM.group([_lm(server.api_base), LM("openai/gpt-x", api_base=server.api_base)], strategy="ordered")
    server.faults.push(HttpError(503, "busy"))
    response = await group.complete(LMRequest([{"role": "user", "content": "What is Troy? Troy is a city."}]))
    assert response.choices
    assert [r.path for r in server.requests] == ["/v1/responses", "/v1/chat/completions"]
    await group.aclose()
