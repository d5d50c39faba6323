"""`dspex.dspy.Engine` sends what DSPy's own engine sends, and reads an answer as that reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity.versions import NEWER_THAN_33
from tests.support.generated import fewer
from tests.support.raw_replies import RawReplies

import dspex

if not NEWER_THAN_33:
    pytest.skip("DSPy has engines since 3.4", allow_module_level=True)

from dspy import lm15
from dspy.clients.call_result import response_to_dict
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine

from dspex.dspy import AsyncEngine, Engine

PREFIXES = ["openai", "hosted_vllm", "ollama", "deepseek", "groq", "openrouter"]
DONE = b"data: [DONE]\n\n"


class Both:
    """Both engines, in front of one server."""

    def __init__(self, replies: RawReplies) -> None:
        self.replies = replies
        self.made: dict[tuple[str, str], tuple[Any, Any]] = {}

    def engines(self, prefix: str = "openai", api: Any = "chat") -> tuple[Any, Any]:
        """Ours, and DSPy's."""
        if (prefix, api) not in self.made:
            ours = Engine(f"{prefix}/m", api_base=self.replies.api_base, api_key="k" * 9, api=api)
            provider = LM15Engine(lm15.RouterConfig(env={}), model_type=api).resolve(f"{prefix}/m").provider
            theirs = LM15Engine(
                lm15.RouterConfig(
                    env={}, api_keys={provider: "k" * 9}, base_urls={provider: self.replies.api_base}
                ),
                model_type=api,
            )
            self.made[prefix, api] = ours, theirs
        return self.made[prefix, api]

    def sent(self, request: Any, *, stream: bool = False, api: str = "chat") -> tuple[Any, Any]:
        """What each sends for a request, or the error with which it refuses to."""
        ours, theirs = self.engines(request.model.partition("/")[0], api)
        return self._sent(ours, request, stream=stream), self._sent(theirs, request, stream=stream)

    def _sent(self, engine: Any, request: Any, *, stream: bool) -> Any:
        for seen in (self.replies.requests, self.replies.paths, self.replies.keys):
            seen.clear()
        refused = outcome(lambda: list(engine.stream(request)) if stream else engine.complete(request))
        if self.replies.requests:
            return self.replies.requests[:], self.replies.paths[:], self.replies.keys[:]
        return refused

    def read(self, request: Any) -> tuple[Any, Any]:
        """What each makes of the server's answer."""
        ours, theirs = self.engines()
        return outcome(lambda: plain(ours.complete(request))), outcome(
            lambda: plain(theirs.complete(request))
        )

    def streamed(self, request: Any) -> tuple[Any, Any]:
        """The events that each makes of the server's stream, and how it ends."""
        ours, theirs = self.engines()
        return events_of(ours.stream(request)), events_of(theirs.stream(request))


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - it is compared
        return said(error)


def said(error: BaseException) -> tuple[Any, ...]:
    """What an error of DSPy's says."""
    names = ("message", "code", "provider", "provider_code", "status", "request_id", "retry_after")
    return type(error).__name__, *(getattr(error, name, None) for name in names)


def plain(response: Any) -> Any:
    return response_to_dict(response, include_provider_data=True)


def events_of(stream: Iterator[Any]) -> list[Any]:
    events: list[Any] = []
    try:
        for event in stream:
            events.append(event)
    except Exception as error:  # noqa: BLE001 - it is compared
        events.append(said(error))
    return events


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with RawReplies() as replies:
        both = Both(replies)
        yield both
        for ours, theirs in both.made.values():
            ours.close()
            theirs.close()


def reply_of(message: dict[str, Any], finish: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    for name in ("logprobs",):
        if name in more:
            choice[name] = more.pop(name)
    body = {
        "id": "c-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m-1",
        "choices": [choice],
        **more,
    }
    return json.dumps(body).encode()


PLAIN = reply_of({"content": "yes"}, usage={"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4})
PLAIN_STREAM = [b'data: {"choices":[{"delta":{"content":"yes"},"finish_reason":"stop"}]}\n\n', DONE]

# --- requests ---------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.sampled_from(["search", "add", "to_text"])
PARTS = st.one_of(
    TEXTS.map(lambda text: {"type": "text", "text": text or "-"}),
    st.sampled_from(
        [
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            {
                "type": "image_url",
                "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
            },
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg=="}},
        ]
    ),
)
CALL = st.builds(
    lambda name, value: {
        "id": "call-1",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps({"query": value})},
    },
    NAMES,
    TEXTS,
)
TURNS = st.one_of(
    st.builds(lambda text: [{"role": "user", "content": text or "-"}], TEXTS),
    st.builds(lambda parts: [{"role": "user", "content": parts}], st.lists(PARTS, min_size=1, max_size=3)),
    st.builds(lambda text: [{"role": "assistant", "content": text or "-"}], TEXTS),
    st.builds(
        lambda call, result: [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call-1", "content": result or "-"},
        ],
        CALL,
        TEXTS,
    ),
)
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "score": {"type": "number"}},
    "required": ["answer"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Searches.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 1]),
        "top_p": st.sampled_from([0.5, 1.0]),
        "max_tokens": st.integers(1, 900),
        "stop": st.sampled_from(["x", ["x"], ["a", "b"]]),
        "seed": st.integers(0, 9),
        "presence_penalty": st.just(0.5),
        "frequency_penalty": st.just(-0.5),
        "response_format": st.sampled_from(
            [
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}},
            ]
        ),
        "reasoning_effort": st.sampled_from(["low", "high"]),
        "logprobs": st.just(True),
        "tools": st.just([TOOL]),
        "logit_bias": st.just({"5": 1}),
        "prediction": st.just({"type": "content", "content": "yes"}),
        "metadata": st.just({"a": "b"}),
        "user": st.just("me"),
        "store": st.just(True),
        "service_tier": st.just("flex"),
    },
)
SYSTEM = st.sampled_from([[], [{"role": "system", "content": "Be brief."}]])


@st.composite
def requests(draw: st.DrawFn) -> Any:
    turns = draw(st.lists(TURNS, min_size=1, max_size=4))
    body = {
        "model": f"{draw(st.sampled_from(PREFIXES))}/m",
        "messages": draw(SYSTEM) + [message for turn in turns for message in turn],
        **draw(SETTINGS),
    }
    if "tools" in body and draw(st.booleans()):
        choice: Any = {"type": "function", "function": {"name": "search"}}
        body["tool_choice"] = draw(st.sampled_from(["auto", "required", "none", choice]))
        if body["tool_choice"] != "none":
            body["parallel_tool_calls"] = draw(st.booleans())
    return lm15.request_from_openai_chat(body)


@given(request=requests(), stream=st.booleans())
@fewer(1)
def test_a_request_becomes_dspys_body(both: Both, request: Any, stream: bool) -> None:
    both.replies.status, both.replies.headers = 200, {}
    both.replies.body = PLAIN_STREAM if stream else PLAIN
    ours, theirs = both.sent(request, stream=stream)
    assert ours == theirs


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "extension",
    [{"logit_bias": {"5": 1}}, {"prediction": {"type": "content", "content": "x"}}, {"metadata": {"a": "b"}}],
    ids=lambda extension: next(iter(extension)),
)
def test_what_rides_in_extensions_is_in_the_body(both: Both, prefix: str, extension: Any) -> None:
    both.replies.status, both.replies.body = 200, PLAIN
    config = lm15.Config(extensions=extension, max_tokens=7, temperature=0.5)
    request = lm15.Request(model=f"{prefix}/m", messages=(lm15.Message.user("hi"),), config=config)

    ours, theirs = both.sent(request)

    assert ours == theirs
    assert extension.items() <= json.loads(ours[0][0]).items()


@pytest.mark.parametrize("effort", ["low", "medium", "high", "off"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_reasoning_is_asked_for_as_dspy_asks(both: Both, prefix: str, effort: str) -> None:
    both.replies.status, both.replies.body = 200, PLAIN
    config = lm15.Config(reasoning=lm15.Reasoning(effort=effort))
    request = lm15.Request(model=f"{prefix}/m", messages=(lm15.Message.user("hi"),), config=config)
    ours, theirs = both.sent(request)
    assert ours == theirs


@pytest.mark.parametrize("name", ["n", "stream", "api_key", "timeout", "model", "num_retries"])
def test_what_is_dspys_own_business_is_refused_in_extensions(both: Both, name: str) -> None:
    config = lm15.Config(extensions={name: 1})
    request = lm15.Request(model="openai/m", messages=(lm15.Message.user("hi"),), config=config)
    ours, theirs = both.sent(request)
    assert ours[0] == theirs[0] == "ValueError"


def test_what_is_no_request_is_a_type_error(both: Both) -> None:
    with pytest.raises(TypeError, match="Request"):
        both.engines()[0].complete("hi")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_request_by_responses_becomes_dspys_body(both: Both, stream: bool) -> None:
    both.replies.status, both.replies.body = 200, b"{}"
    config = lm15.Config(max_tokens=50, temperature=0.5, reasoning=lm15.Reasoning(effort="low"))
    request = lm15.Request(
        model="openai/gpt-5", system="Be brief.", messages=(lm15.Message.user("hi"),), config=config
    )
    ours, theirs = both.sent(request, stream=stream, api="responses")
    assert ours == theirs
    assert ours[1] == ["/v1/responses"]


def test_a_stop_that_the_server_does_not_know_cuts_its_answer_as_dspy_cuts_it(both: Both) -> None:
    said = ["on", "e tw", "o STO", "P three"]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "r-1", "model": "gpt-5"}},
        *({"type": "response.output_text.delta", "output_index": 0, "delta": text} for text in said),
        {"type": "response.completed", "response": {"id": "r-1", "status": "completed", "output": []}},
    ]
    both.replies.status, both.replies.headers = 200, {"Content-Type": "text/event-stream"}
    both.replies.body = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    config = lm15.Config(stop=("STOP",))
    request = lm15.Request(model="openai/gpt-5", messages=(lm15.Message.user("hi"),), config=config)

    ours, theirs = both.engines("openai", "responses")

    answers = [plain(engine.complete(request)) for engine in (ours, theirs)]
    assert answers[0] == answers[1]
    assert ours.complete(request).text == "one two "
    assert events_of(ours.stream(request)) == events_of(theirs.stream(request))


# --- answers ----------------------------------------------------------------------------------------------

REQUEST = lm15.Request(
    model="openai/m",
    messages=(lm15.Message.user("hi"),),
    config=lm15.Config(logprobs=2),
)
LOGPROBS = {
    "content": [
        {
            "token": "yes",
            "logprob": -0.5,
            "bytes": [121, 101, 115],
            "top_logprobs": [{"token": "no", "logprob": -1.5, "bytes": None}],
        }
    ]
}
USAGES = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": st.integers(0, 99),
        "completion_tokens": st.integers(0, 99),
        "total_tokens": st.integers(0, 99),
        "prompt_tokens_details": st.sampled_from([None, {"cached_tokens": 2, "audio_tokens": 1}]),
        "completion_tokens_details": st.sampled_from([None, {"reasoning_tokens": 4}]),
    },
)
MESSAGES = st.fixed_dictionaries(
    {"content": st.one_of(st.none(), TEXTS, st.just([{"type": "text", "text": "part"}]), st.just(5))},
    optional={
        "tool_calls": st.one_of(st.none(), st.lists(CALL, max_size=2), st.just("junk"), st.just([{"id": 1}])),
        "reasoning_content": st.one_of(st.none(), TEXTS),
        "reasoning": TEXTS,
        "refusal": st.one_of(st.none(), TEXTS),
        "annotations": st.just(
            [{"type": "url_citation", "url_citation": {"url": "https://x.test", "title": "x"}}]
        ),
    },
)
FINISHES = st.sampled_from(["stop", "length", "tool_calls", "content_filter", None, "odd"])
MORE = st.fixed_dictionaries(
    {},
    optional={
        "usage": st.one_of(st.none(), USAGES),
        "logprobs": st.just(LOGPROBS),
        "system_fingerprint": st.just("f"),
        "service_tier": st.just("flex"),
        "id": st.one_of(st.none(), st.just("c-2")),
        "model": st.one_of(st.none(), st.just("m-2")),
    },
)


@given(message=MESSAGES, finish=FINISHES, more=MORE)
@fewer(1)
def test_an_answer_is_read_as_dspy_reads_it(both: Both, message: Any, finish: Any, more: Any) -> None:
    both.replies.status, both.replies.headers = 200, {"x-request-id": "r-1"}
    both.replies.body = reply_of(message, finish, **more)
    ours, theirs = both.read(REQUEST)
    same_or_typed(ours, theirs)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"{}", b'"x"', b"<html></html>", b"\xff\xfe"),
        *(b'{"choices": []}', b'{"choices": [5]}', b'{"choices": [{"message": 1}]}', b'{"choices": null}'),
        b'{"error": {"message": "no", "code": "odd"}}',
    ],
    ids=repr,
)
def test_an_answer_that_is_none_is_the_error_it_is_to_dspy(both: Both, body: bytes) -> None:
    both.replies.status, both.replies.headers = 200, {}
    both.replies.body = body
    ours, theirs = both.read(REQUEST)
    same_or_typed(ours, theirs)


def same_or_typed(ours: Any, theirs: Any) -> None:
    """Equal, but that what DSPy's codec stumbles over is an error of `dspy.lm15` here.

    The id of the request, which stands in a header, is known of refusals alone.
    """
    if not isinstance(theirs, tuple):
        assert ours == theirs
    elif hasattr(lm15, theirs[0]):
        assert ours[:6] == theirs[:6]
    else:
        assert ours[0] == "ProviderError"


STATUSES = [400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529]
REFUSALS = [
    b"",
    b"plain words",
    b'{"error": {"message": "no", "type": "t", "code": "c"}}',
    b'{"error": {"message": "too long", "code": "context_length_exceeded"}}',
    b'{"error": {"message": "pay", "code": "insufficient_quota"}}',
    b'{"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}',
    b'{"error": "text"}',
    b'{"detail": "x"}',
]
HEADERS = [{}, {"Retry-After": "3", "x-request-id": "r-9", "x-ratelimit-remaining-requests": "0"}]


@pytest.mark.parametrize("headers", HEADERS, ids=["bare", "with-headers"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", STATUSES)
def test_a_refusal_is_the_error_it_is_to_dspy(
    both: Both, status: int, stream: bool, headers: dict[str, str]
) -> None:
    both.replies.status, both.replies.headers = status, headers
    for body in REFUSALS:
        both.replies.body = body
        ours, theirs = both.streamed(REQUEST) if stream else both.read(REQUEST)
        assert ours == theirs, body


# --- streams ----------------------------------------------------------------------------------------------

DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.one_of(st.none(), TEXTS),
        "reasoning_content": TEXTS,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 1)},
                optional={
                    "id": st.just("call-1"),
                    "function": st.fixed_dictionaries(
                        {}, optional={"name": NAMES, "arguments": st.sampled_from(["", '{"a"', ": 1}"])}
                    ),
                },
            ),
            max_size=2,
        ),
    },
)
CHUNKS = st.one_of(
    st.builds(
        lambda delta, finish: {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]},
        DELTAS,
        st.sampled_from([None, None, None, "stop", "length", "tool_calls"]),
    ),
    st.builds(lambda usage: {"choices": [], "usage": usage}, USAGES),
    st.just({"id": "c-1", "model": "m-1", "choices": [{"delta": {"content": "x"}}]}),
    st.just({"error": {"message": "broke", "code": "server_error"}}),
)
ENDS = st.sampled_from([DONE, DONE, DONE, b"", b"data: [DONE]"])


@given(chunks=st.lists(CHUNKS, max_size=6), end=ENDS, cut=st.integers(1, 40), comment=st.booleans())
@fewer(1)
def test_a_stream_is_read_as_dspy_reads_it(
    both: Both, chunks: list[Any], end: bytes, cut: int, comment: bool
) -> None:
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    whole = (b": hello\n\n" if comment else b"") + b"".join(events) + end
    both.replies.status, both.replies.headers = 200, {"Content-Type": "text/event-stream"}
    both.replies.body = [whole[at : at + cut] for at in range(0, len(whole), cut)]

    ours, theirs = both.streamed(REQUEST)

    assert checked(ours) == checked(theirs)


def checked(events: list[Any]) -> list[Any]:
    """The events up to the first that tells of an error, which DSPy raises whoever finds it."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, tuple):
            return [*found, event[0]]
        found.append(event)
    return found


async def test_the_async_engine_reads_and_sends_the_same(both: Both) -> None:
    both.replies.status, both.replies.headers, both.replies.body = 200, {}, PLAIN
    base = both.replies.api_base
    config = lm15.RouterConfig(env={}, api_keys={"openai-chat": "k"}, base_urls={"openai-chat": base})
    ours, theirs = AsyncEngine("openai/m", api_base=base, api_key="k"), AsyncLM15Engine(config)
    try:
        both.replies.requests.clear()
        assert plain(await ours.complete(REQUEST)) == plain(await theirs.complete(REQUEST))
        both.replies.headers, both.replies.body = {"Content-Type": "text/event-stream"}, PLAIN_STREAM
        streams = [[event async for event in engine.stream(REQUEST)] for engine in (ours, theirs)]
        assert streams[0] == streams[1]
        assert both.replies.requests[0::2] == both.replies.requests[1::2]
    finally:
        await ours.aclose()
        await theirs.aclose()


def test_settings_of_the_lm_count_where_the_request_has_none(both: Both) -> None:
    both.replies.status, both.replies.body = 200, PLAIN
    lm = dspex.LM(
        "openai/m",
        api_base=both.replies.api_base,
        api_key="k",
        temperature=0.25,
        seed=5,
        max_tokens=99,
        extra_body={"top_k": 3},
    )
    config = lm15.Config(temperature=0.75, max_tokens=7)
    request = lm15.Request(model="openai/m", messages=(lm15.Message.user("hi"),), config=config)
    both.replies.requests.clear()
    with Engine(lm) as engine:
        engine.complete(request)

    body = json.loads(both.replies.requests[0])
    messages = body.pop("messages")
    assert messages == [{"role": "user", "content": "hi"}]
    assert body == {"model": "m", "temperature": 0.75, "max_completion_tokens": 7, "seed": 5, "top_k": 3}


def test_an_lm_for_responses_is_asked_by_them_with_its_settings_by_their_names(both: Both) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "so"}]}
    both.replies.status, both.replies.body = 200, json.dumps({"model": "m", "output": [message]}).encode()
    lm = dspex.LM(
        "openai/m",
        model_type="responses",
        api_base=both.replies.api_base,
        api_key="k",
        max_tokens=99,
        user="me",
        reasoning_effort="low",
        extra_body={"truncation": "auto"},
    )
    request = lm15.Request(model="openai/m", messages=(lm15.Message.user("hi"),))
    both.replies.requests.clear()
    both.replies.paths.clear()
    with Engine(lm) as engine:
        assert engine.complete(request).text == "so"
        shorter = lm15.Request(model="openai/m", messages=request.messages, config=lm15.Config(max_tokens=7))
        assert engine.complete(shorter).text == "so"
        assert engine.dump_state()["api"] == "responses"

    assert both.replies.paths == ["/v1/responses"] * 2
    body, shorter_body = map(json.loads, both.replies.requests)
    assert body.pop("input") == [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    assert body == {
        "model": "m",
        "stream": False,
        "max_output_tokens": 99,
        "reasoning": {"effort": "low"},
        "safety_identifier": "me",
        "truncation": "auto",
    }
    assert shorter_body["max_output_tokens"] == 7


def test_stop_sequences_of_an_lm_for_responses_are_for_the_request_to_say(both: Both) -> None:
    lm = dspex.LM("openai/m", model_type="responses", api_base=both.replies.api_base, api_key="k", stop="x")
    request = lm15.Request(model="openai/m", messages=(lm15.Message.user("hi"),))
    with Engine(lm) as engine, pytest.raises(lm15.ConfigurationError, match="has no stop="):
        engine.complete(request)
