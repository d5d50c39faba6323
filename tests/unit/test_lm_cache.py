"""The response cache of an LM: what is a hit, what is kept, what a hit gives, and to whom."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.generated import fewer

import dspex
from dspex import LM
from dspex._core import ResponseCache, cache_key
from dspex.errors import ConfigError, LMServerError, ReplyError
from dspex.events import FieldEnd, FieldStart, LMDelta, TextDelta
from dspex.lm import Cache, LMChoice, LMRequest, LMResponse, LMToolCall, assemble
from dspex.lm._cache import lookups
from dspex.lm._cache_entry import Kept, deltas_of, hit_of, kept_of, read, size_of, written
from dspex.modules._state import sampling_lm
from dspex.testing import ChatRequest, HttpError, ModelServer

MESSAGES = [{"role": "user", "content": "say it"}]
BLUE = "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(answer="it is said") as server:
        yield server


@pytest.fixture(params=["memory", "disk"])
def cache(request: Any, tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(request.param, directory=tmp_path)
    yield cache
    cache.close()


@pytest.fixture
async def lm(server: ModelServer, cache: Cache) -> AsyncIterator[LM]:
    async with made(server, cache) as lm:
        yield lm


def made(server: ModelServer, cache: Any, **settings: Any) -> LM:
    return LM("openai/m", api_base=server.api_base, api_key="k", cache=cache, **settings)


def asked(content: str = "say it", /, timeout: float | None = 60.0, **settings: Any) -> LMRequest:
    return LMRequest([{"role": "user", "content": content}], settings, timeout)


async def streamed(lm: LM, request: LMRequest) -> list[LMDelta]:
    async with aclosing(lm.stream(request)) as deltas:
        return [delta async for delta in deltas]


# --- what is a hit ---------------------------------------------------------------------------------------


async def test_the_second_answer_is_the_first_and_nobody_is_asked_for_it(server: ModelServer, lm: LM) -> None:
    first = await lm.complete(asked())
    second = await lm.complete(asked())

    assert len(server.requests) == 1
    assert (second.choices, second.model) == (first.choices, first.model)
    assert (first.cached, second.cached) == (False, True)
    assert first.usage["total_tokens"] > 0
    assert (second.usage, second.waited) == ({}, 0.0)


OTHERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"content": "say it not"}, {}),
    ({}, {"temperature": 0.5}),
    ({}, {"seed": 1}),
    ({}, {"n": 2}),
    ({}, {"max_tokens": 5}),
    ({}, {"rollout_id": 1}),
    ({}, {"rollout_id": 2}),
    ({}, {"rollout_id": 0}),
    ({}, {"extra_body": {"top_k": 3}}),
    ({}, {"extra_body": {"rollout_id": 1}}),
    ({}, {"stop": ["x"]}),
]


async def test_a_request_that_differs_in_anything_is_asked_anew(server: ModelServer, lm: LM) -> None:
    await lm.complete(asked())
    for message, settings in OTHERS:
        assert not (await lm.complete(asked(message.get("content", "say it"), **settings))).cached
    assert len(server.requests) == 1 + len(OTHERS)
    for message, settings in OTHERS:
        assert (await lm.complete(asked(message.get("content", "say it"), **settings))).cached


async def test_a_request_that_is_the_same_to_the_server_is_a_hit(server: ModelServer, lm: LM) -> None:
    await lm.complete(asked(temperature=0.5, stop=["x"]))
    same = [
        asked(timeout=3.0, temperature=0.5, stop="x"),
        asked(temperature=0.5, stop=["x"], rollout_id=None, seed=None),
        asked(temperature=0.5, stop=["x"], n=1),
    ]
    for request in same:
        assert (await lm.complete(request)).cached
    assert (await lm.with_settings(temperature=0.5).complete(asked(stop=["x"]))).cached


async def test_another_server_or_model_never_answers_for_this_one(server: ModelServer, cache: Cache) -> None:
    with ModelServer(answer="another said it") as other:
        for name, its in (("m", server), ("m", other), ("m2", server)):
            async with LM(f"openai/{name}", api_base=its.api_base, api_key="k", cache=cache) as lm:
                for hit in (False, True):
                    response = await lm.complete(asked())
                    assert response.cached is hit
                    assert response.texts == ("it is said" if its is server else "another said it",)


async def test_whose_key_it_was_is_in_no_cache_key_and_in_no_file(
    server: ModelServer, tmp_path: Path
) -> None:
    cache = Cache("disk", directory=tmp_path)
    async with LM("openai/m", api_base=server.api_base, api_key="sk-secret-1", cache=cache) as lm:
        await lm.complete(asked("a private question"))
    async with LM("openai/m", api_base=server.api_base, api_key="sk-secret-2", cache=cache) as lm:
        assert (await lm.complete(asked("a private question"))).cached
    cache.close()
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"it is said" in found
    assert b"sk-secret" not in found
    assert b"private" not in found
    assert "secret" not in repr(lm) + repr(cache)


async def test_a_key_that_is_given_to_nobody_is_no_hit_without_a_cache(server: ModelServer) -> None:
    async with made(server, "off") as lm:
        for _ in range(2):
            assert not (await lm.complete(asked())).cached
        assert lm.complete_now(asked()) is None
        assert lm.cache is None
    assert len(server.requests) == 2


# --- each call says it for itself ------------------------------------------------------------------------


@pytest.mark.parametrize("off", ["off", False, None])
async def test_a_call_may_go_past_the_cache_and_leaves_it_as_it_is(
    server: ModelServer, lm: LM, off: Any
) -> None:
    assert not (await lm.complete(asked(cache=off))).cached
    assert not (await lm.complete(asked())).cached
    assert not (await lm.complete(asked(cache=off))).cached
    assert all(not delta.cached for delta in await streamed(lm, asked(cache=off)))
    assert lm.complete_now(asked(cache=off)) is None
    assert (await lm.complete(asked())).cached
    assert len(server.requests) == 4
    assert all("cache" not in request.body for request in server.requests)


@pytest.mark.parametrize("on", ["memory", True])
async def test_a_call_may_ask_for_a_cache_that_its_lm_has_not(server: ModelServer, on: Any) -> None:
    async with made(server, None) as lm:
        assert not (await lm.complete(asked(cache=on))).cached
        assert (await lm.complete(asked(cache=on))).cached
        found = lm.complete_now(asked(cache=on))
        assert found is not None
        assert found.cached
        assert not (await lm.complete(asked())).cached


async def test_true_and_its_own_name_are_the_lm_s_own_cache(server: ModelServer, lm: LM) -> None:
    await lm.complete(asked())
    for same in (True, lm.cache, lm.cache and lm.cache.store):
        assert (await lm.complete(asked(cache=same))).cached
    assert not (await lm.complete(asked(cache=Cache()))).cached


@pytest.mark.parametrize("wrong", ["on", 1, "", [], Cache])
def test_what_is_no_cache_is_refused_wherever_it_is_said(server: ModelServer, wrong: Any) -> None:
    for refused in (lambda: made(server, wrong), lambda: made(server, None).complete_now(asked(cache=wrong))):
        with pytest.raises(ConfigError, match="cache must be") as caught:
            refused()
        assert caught.value.code == "bad-cache"
    with (
        dspex.Runtime(made(server, None), pools=0),
        pytest.raises(ConfigError, match="cache must be"),
    ):
        dspex.Predict("question -> answer")(question="?", config={"cache": wrong})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"store": "redis"}, 'store must be "memory" or "disk"'),
    ({"max_bytes": 10}, "max_bytes must be a number of bytes"),
    ({"max_bytes": 1e9}, "max_bytes must be a number of bytes"),
    ({"max_disk_bytes": True}, "max_disk_bytes must be a number of bytes"),
    ({"ttl": 0}, "ttl must be a number of seconds above 0"),
    ({"ttl": "1h"}, "ttl must be a number of seconds above 0"),
    ({"directory": ""}, "directory must be a path"),
    ({"directory": 5}, "directory must be a path"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_setting_of_a_cache_is_a_config_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Cache(**arguments)
    assert caught.value.code == "bad-cache"


# --- what is kept ----------------------------------------------------------------------------------------


def response(**choice: Any) -> LMResponse:
    return LMResponse((LMChoice(**{"text": "so", "finish_reason": "stop", **choice}),), "m", {"x": 1})


NOT_KEPT: dict[str, LMResponse] = {
    "cut off": response(finish_reason="length"),
    "cut off, in other words": response(finish_reason="max_tokens"),
    "filtered": response(finish_reason="content_filter"),
    "refused": response(refusal="I can't."),
    "refused, with nothing else": response(text="", refusal="I can't."),
    "an end that nobody knows": response(finish_reason="error"),
    "nothing": response(text=""),
    "thoughts alone": response(text="", reasoning="hm"),
    "one of two cut off": LMResponse((*response().choices, *response(finish_reason="length").choices), "m"),
    "what JSON has not": response(logprobs={"x": float("nan")}),
    "what would be read as another": response(logprobs={1: 2}),
}
KEPT: dict[str, LMResponse] = {
    "a text": response(),
    "a text whose end has no reason": response(finish_reason=None),
    "a reason in capitals": response(finish_reason="STOP"),
    "calls of tools": response(
        text="",
        finish_reason="tool_calls",
        tool_calls=(LMToolCall("1", "f", '{"x": 1}'), LMToolCall(None, "g")),
    ),
    "thoughts": response(reasoning="hm"),
    "notes to the text": response(annotations=({"type": "url_citation", "url": "https://a.example"},)),
    "the server's own words": response(raw={"index": 0, "message": {"content": "so"}}),
    "probabilities": response(logprobs={"content": [{"token": "so", "logprob": -0.1}]}),
    "half of a surrogate pair": response(text="\ud800"),
    "several": LMResponse((*response().choices, *response(text="or so").choices), "m"),
}


@pytest.mark.parametrize("name", NOT_KEPT)
def test_what_is_no_whole_answer_is_not_kept(name: str) -> None:
    assert written(NOT_KEPT[name]) is None


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_comes_back_as_it_was(name: str) -> None:
    raw = written(KEPT[name])
    assert raw is not None
    kept = kept_of(raw)
    assert kept is not None
    hit = hit_of(kept)
    assert hit is not None
    assert (hit.choices, hit.model, hit.usage, hit.cached) == (KEPT[name].choices, "m", {}, True)
    assert [choice.raw for choice in hit.choices] == [{} for _ in hit.choices]
    assert json.loads(raw)["usage"] == KEPT[name].usage


async def test_an_ordinary_answer_of_a_server_is_in_memory_as_hits_give_it(lm: LM) -> None:
    cache = lm.cache
    assert cache is not None
    await lm.complete(asked())
    kept = cache._state.memory.get(lm._key(asked(), lm.settings))
    assert isinstance(kept, Kept), "or each hit would read it anew"


texts = st.text(max_size=20)
choices = st.builds(
    LMChoice,
    text=st.text(min_size=1, max_size=40),
    finish_reason=st.sampled_from(["stop", None, "tool_calls"]),
    tool_calls=st.lists(st.builds(LMToolCall, st.none() | texts, texts, texts), max_size=2).map(tuple),
    reasoning=st.none() | st.text(min_size=1, max_size=20),
    logprobs=st.none()
    | st.dictionaries(texts, st.recursive(st.integers() | texts | st.none() | st.floats(), st.lists)),
)


@given(st.builds(LMResponse, st.lists(choices, min_size=1, max_size=3).map(tuple), texts))
@fewer(12)
def test_any_answer_is_kept_and_comes_back_the_same_or_is_not_kept(response: LMResponse) -> None:
    raw = written(response)
    if raw is None:
        assert any(choice.logprobs for choice in response.choices)  # numbers that JSON has not
        return
    kept = kept_of(raw)
    assert kept is not None
    hit = hit_of(kept)
    assert hit is not None
    assert (hit.choices, hit.model) == (response.choices, response.model)
    if not any(choice.logprobs for choice in response.choices):
        told = assemble(deltas_of(hit))
        assert [(c.text, c.tool_calls, c.reasoning) for c in told] == [
            (
                c.text,
                tuple(LMToolCall(t.id, t.name, t.arguments or "{}") for t in c.tool_calls if t.name),
                c.reasoning,
            )
            for c in hit.choices
        ]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b'{"choices": [], "model": "m"}', b'{"choices": [{}], "model": "m"}',
        b'{"choices": [{"text": "x"}]}', b'{"choices": [{"text": "x", "new": 1}], "model": "m"}',
        b'{"choices": [{"text": "x", "tool_calls": [{"id": 1}]}], "model": "m"}', b"\xff", b"[" * 100_000,
        b'{"choices": [5], "model": "m"}', b'{"choices": [{"text": "x"}], "model": 5}',
    ],
)  # fmt: skip
def test_what_another_version_has_written_is_no_hit(raw: bytes) -> None:
    assert read(raw) is None
    assert kept_of(raw) is None
    assert hit_of(raw) is None


class Raw(BaseHTTPRequestHandler):
    """Answers what its server was given."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.count += 1  # type: ignore[attr-defined]
        body = json.dumps(self.server.answer).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"finish_reason": "stop", "message": {"content": "x"}}, True),
        ({"finish_reason": "length", "message": {"content": "x"}}, False),
        ({"finish_reason": "content_filter", "message": {"content": "x"}}, False),
        ({"finish_reason": "stop", "message": {"content": "x", "refusal": "no"}}, False),
    ],
)
async def test_what_a_server_breaks_off_or_refuses_is_asked_for_again(
    cache: Cache, choice: dict[str, Any], kept: bool
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Raw) as raw:
        raw.answer, raw.count = {"choices": [choice], "model": "m"}, 0  # type: ignore[attr-defined]
        thread = threading.Thread(target=raw.serve_forever, args=(0.01,))
        thread.start()
        try:
            base = f"http://127.0.0.1:{raw.server_port}/v1"
            async with LM("openai/m", api_base=base, api_key="k", cache=cache) as lm:
                assert not (await lm.complete(asked())).cached
                assert (await lm.complete(asked())).cached is kept
            assert raw.count == (1 if kept else 2)  # type: ignore[attr-defined]
        finally:
            raw.shutdown()
            thread.join()


async def test_an_error_is_not_kept(server: ModelServer, lm: LM) -> None:
    server.faults.push(HttpError(500))
    with pytest.raises(LMServerError):
        await lm.complete(asked())
    assert not (await lm.complete(asked())).cached
    assert (await lm.complete(asked())).cached


async def test_what_can_be_changed_in_an_answer_is_each_caller_s_own(lm: LM) -> None:
    cache = lm.cache
    assert cache is not None
    key = lm._key(asked(), lm.settings)
    cache._state.keep(key, KEPT["probabilities"])
    assert (await lm.complete(asked())).choices[0].raw == {}
    one, two = await lm.complete(asked()), await lm.complete(asked())
    assert one.choices == two.choices == KEPT["probabilities"].choices
    one.choices[0].logprobs["content"].append("changed")  # type: ignore[index]
    one.choices[0].raw["x"] = 1  # type: ignore[index]
    one.usage["x"] = 1  # type: ignore[index]
    three = await lm.complete(asked())
    assert three.choices == two.choices == KEPT["probabilities"].choices
    assert (three.usage, three.choices[0].raw) == ({}, {})


async def test_an_answer_that_comes_between_the_look_and_the_turn_to_ask_is_taken(
    server: ModelServer, lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it happens where another thread's call has been answered in that moment."""
    assert lm.cache is not None
    live = lm.cache._state
    looks: list[bytes] = []
    real = live.from_memory

    def look(key: bytes) -> LMResponse | None:
        looks.append(key)
        if len(looks) == 1:
            live.keep(key, KEPT["a text"])
            return None
        return real(key)

    monkeypatch.setattr(live, "from_memory", look)
    monkeypatch.setattr(live, "disk", None)
    response = await lm.complete(asked())
    assert (response.choices, response.cached) == (KEPT["a text"].choices, True)
    assert server.requests == []


async def test_calls_at_once_that_are_answered_from_disk_have_nothing_in_common(
    server: ModelServer, tmp_path: Path
) -> None:
    cache = Cache("disk", directory=tmp_path)
    async with made(server, cache) as lm:
        cache._state.keep(lm._key(asked(), lm.settings), KEPT["probabilities"])
        assert cache._state.disk is not None
        assert cache._state.disk.flush(30)
        cache._state.memory.clear()
        found = await asyncio.gather(*(lm.complete(asked()) for _ in range(5)))
    cache.close()
    assert server.requests == []
    assert all(each.cached and each.choices == found[0].choices for each in found)
    assert (
        len({id(each.usage) for each in found}) == len({id(each.choices[0].logprobs) for each in found}) == 5
    )


# --- time and room ---------------------------------------------------------------------------------------


def test_an_answer_is_given_until_its_time_is_over() -> None:
    now = [0.0]
    memory = ResponseCache(10_000, clock=lambda: now[0])
    key = cache_key(b"scope", b"body")
    memory.put(key, "kept", 4, 60.0)
    now[0] = 59.9
    assert memory.get(key) == "kept"
    now[0] = 60.0
    assert memory.get(key) is None
    assert memory.info() == (1, 0, 0, 0)


def test_a_key_of_another_length_is_refused() -> None:
    for use in (ResponseCache(10).get, ResponseCache(10).forget):
        with pytest.raises(ValueError, match="32 bytes"):
            use(b"short")


def test_the_memory_keeps_its_bound_and_what_was_used_last() -> None:
    cache = Cache(max_bytes=1024 * 1024)
    live = cache._state
    keys = [cache_key(b"", str(number).encode()) for number in range(100)]
    for number, key in enumerate(keys):
        live.keep(key, response(text=f"{number} " + "x" * 20_000))
        assert live.from_memory(keys[0]) is not None
        assert cache.stats().bytes <= 1024 * 1024
    assert live.from_memory(keys[99]) is not None
    assert live.from_memory(keys[1]) is None
    assert cache.stats().evicted == 100 - cache.stats().entries > 0


@pytest.mark.parametrize("text", ["x" * 100_000, "é" * 100_000, "x" * 99_999 + "😀", "字" * 100_000])
def test_what_an_answer_takes_is_not_underrated(text: str) -> None:
    kept = Kept((LMChoice(text, "stop", (LMToolCall("1", "f", text + "!"),)),), "m")
    real = sys.getsizeof(text) + sys.getsizeof(text + "!")
    assert real < size_of(kept) < real * 1.1


def test_what_leaves_the_memory_is_let_go() -> None:
    memory = ResponseCache(600)

    class Value:
        pass

    import weakref

    first, second = Value(), Value()
    held = [weakref.ref(first), weakref.ref(second)]
    for number, value in enumerate((first, second)):
        memory.put(cache_key(b"", str(number).encode()), value, 300)
    del first, second, value
    assert [each() is None for each in held] == [True, False]
    assert memory.clear() == 1
    assert held[1]() is None


# --- whom a hit is for, and from where -------------------------------------------------------------------


async def test_blocking_and_awaited_calls_and_streams_have_the_same_answers(
    server: ModelServer, lm: LM
) -> None:
    assert lm.complete_now(asked()) is None
    told = await streamed(lm, asked())
    assert not any(delta.cached for delta in told)
    assert (await lm.complete(asked())).texts == ("it is said",)
    await lm.complete(asked("another"))
    assert [delta.cached for delta in await streamed(lm, asked("another"))] == [True, False]
    found = lm.complete_now(asked("another"))
    assert found is not None
    assert found.cached
    assert [request.body.get("stream", False) for request in server.requests] == [True, False]


async def test_a_hit_is_told_as_a_stream_tells_it(lm: LM) -> None:
    cache = lm.cache
    assert cache is not None
    said = ("calls of tools", "thoughts", "notes to the text")
    answer = LMResponse(tuple(choice for name in said for choice in KEPT[name].choices), "m")
    cache._state.keep(lm._key(asked(), lm.settings), answer)
    told = await streamed(lm, asked())
    assert assemble(told) == answer.choices
    assert [delta.cached for delta in told] == [True, *[False] * (len(told) - 1)]
    assert [delta.finish_reason for delta in told if delta.finish_reason] == ["tool_calls", "stop", "stop"]


async def test_a_stream_that_is_left_early_or_lacks_the_probabilities_it_was_asked_for_is_not_kept(
    server: ModelServer, lm: LM
) -> None:
    async with aclosing(lm.stream(asked())) as deltas:
        async for _ in deltas:
            break
    await streamed(lm, asked(logprobs=True))
    assert not (await lm.complete(asked())).cached
    assert not (await lm.complete(asked(logprobs=True))).cached


async def test_what_is_forgotten_is_asked_anew(server: ModelServer, lm: LM) -> None:
    await lm.complete(asked())
    lm.forget(asked("another"))
    lm.forget(asked(cache="off"))
    assert (await lm.complete(asked())).cached
    lm.forget(asked())
    assert lm.complete_now(asked()) is None
    assert not (await lm.complete(asked())).cached
    assert len(server.requests) == 2


async def test_a_cache_that_is_cleared_has_nothing(server: ModelServer, lm: LM) -> None:
    assert lm.cache is not None
    await lm.complete(asked())
    await lm.cache.aclear()
    assert lm.cache.stats().entries == 0
    assert not (await lm.complete(asked())).cached
    await lm.cache.aclose()  # it is opened again
    assert (await lm.complete(asked())).cached


async def test_it_says_what_it_has_done(server: ModelServer, lm: LM) -> None:
    assert lm.cache is not None
    for content in ("a", "b", "a", "a"):
        await lm.complete(asked(content))
    stats = lm.cache.stats()
    assert (stats.memory, stats.disk, stats.joined, stats.misses, stats.entries) == (2, 0, 0, 2, 2)
    assert stats.bytes > 0


async def test_copies_of_an_lm_share_its_cache_and_a_pickle_has_one_of_its_own(
    server: ModelServer, lm: LM, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    await lm.complete(asked())
    twin = lm.with_settings(temperature=0.5)
    assert twin.cache is lm.cache is cache is copy.deepcopy(cache) is copy.copy(cache)
    async with twin:
        assert not (await twin.complete(asked())).cached
    assert (await lm.complete(asked(temperature=0.5))).cached
    assert lm.with_settings(cache="off").cache is None
    assert lm.with_settings(cache=None).cache is None
    again = pickle.loads(pickle.dumps(lm))
    assert again.cache == cache
    assert again.cache is not cache
    assert again._arguments() == lm._arguments()
    assert pickle.loads(pickle.dumps(cache)) == cache
    assert repr(cache) in repr(lm)
    assert cache == Cache(cache.store, directory=cache.directory)
    assert cache != Cache(ttl=5)


def test_lms_that_name_a_cache_share_one() -> None:
    ones = [LM("openai/m", api_base="http://127.0.0.1:1/v1", cache=given) for given in ("memory", True)]
    assert ones[0].cache is ones[1].cache is not None
    assert ones[0] != LM("openai/m", api_base="http://127.0.0.1:1/v1")


# --- calls of modules ------------------------------------------------------------------------------------


@pytest.fixture
def said() -> Iterator[ModelServer]:
    with ModelServer(answer=BLUE) as server:
        yield server


def test_a_blocking_call_has_its_hit_without_the_event_loop(said: ModelServer, cache: Cache) -> None:
    with dspex.Runtime(made(said, cache), pools=0) as runtime:
        qa = dspex.Predict("question -> answer")
        first = qa(question="?")
        assert "cache" not in first.timings
        assert runtime._home is not None
        entered, leave, left = threading.Event(), threading.Event(), threading.Event()
        free: list[bool] = []

        def hold() -> None:
            entered.set()
            free.append(leave.wait(30))
            left.set()

        runtime._home.call_soon_threadsafe(hold)
        try:
            assert entered.wait(30)  # nothing runs on the loop any more
            second = qa(question="?")
            elsewhere = asyncio.run(qa.acall(question="?"))
        finally:
            leave.set()
        assert left.wait(30)
        assert free == [True]  # it was held all the while
        assert first.answer == second.answer == elsewhere.answer == "blue"
        assert second.timings["cache"] == second.timings["lm"]
        assert elsewhere.timings["cache"] > 0
        assert first.usage["total_tokens"] > 0
        assert second.usage == elsewhere.usage == {}
    assert len(said.requests) == 1


async def test_a_call_says_by_its_config_whether_it_may_be_a_hit(said: ModelServer, cache: Cache) -> None:
    async with dspex.Runtime(made(said, cache), pools=0):
        qa = dspex.Predict("question -> answer")
        await qa.acall(question="?")
        assert "cache" in (await qa.acall(question="?")).timings
        assert "cache" not in (await qa.acall(question="?", config={"cache": "off"})).timings
        assert (
            "cache"
            not in (await dspex.Predict("question -> answer", cache=False).acall(question="?")).timings
        )
        assert "cache" not in (await qa.acall(question="?", config={"rollout_id": 7})).timings
        assert "cache" in (await qa.acall(question="?", config={"rollout_id": 7})).timings
    assert len(said.requests) == 4


async def test_a_reply_that_cannot_be_read_is_not_given_to_the_retry(cache: Cache) -> None:
    with ModelServer(answer=["garbage", BLUE]) as server:
        async with dspex.Runtime(made(server, cache), pools=0, parsing="dspy"):
            qa = dspex.Predict("question -> answer, score: float")
            with pytest.raises(ReplyError):
                await qa.acall(question="?")
            with pytest.raises(ReplyError):  # the second answer has no score either
                await qa.acall(question="?")
    assert len(server.requests) == 2


async def test_a_stream_of_a_hit_has_the_events_of_a_live_one(said: ModelServer, cache: Cache) -> None:
    async with dspex.Runtime(made(said, cache), pools=0):
        qa = dspex.Predict("question -> answer")

        async def events() -> tuple[list[Any], Any]:
            async with aclosing(qa.astream(question="?")) as stream:
                *told, prediction = [event async for event in stream]
            return told, prediction

        live, first = await events()
        again, second = await events()
    assert len(said.requests) == 1
    assert first.answer == second.answer == "blue"
    assert "cache" in second.timings
    for told in (live, again):
        assert isinstance(told[0], FieldStart)
        assert isinstance(told[-1], FieldEnd)
        assert "".join(event.text for event in told if isinstance(event, TextDelta)) == "blue"


def test_metrics_count_what_caches_of_the_process_have_answered(said: ModelServer) -> None:
    def count(text: str, result: str) -> float:
        start = f'dspex_cache_lookups_total{{result="{result}"}} '
        return next(float(line[len(start) :]) for line in text.splitlines() if line.startswith(start))

    with dspex.Runtime(made(said, Cache()), pools=0) as runtime:
        qa = dspex.Predict("question -> answer")
        before = runtime.metrics()
        for _ in range(4):
            qa(question="?")
        after = runtime.metrics()
    del runtime
    gc.collect()
    assert lookups()[0]["memory"] >= count(after, "memory")  # those of a cache that is gone are not lost
    assert count(after, "memory") - count(before, "memory") == 3
    assert count(after, "misses") - count(before, "misses") == 1
    assert "dspex_cache_bytes " in after


def test_an_attempt_of_best_of_n_has_an_answer_of_its_own(cache: Cache) -> None:
    def answer(request: ChatRequest) -> str:
        return BLUE.replace("blue", str(len(asked_for.requests)))

    with ModelServer(answer=answer) as asked_for, dspex.Runtime(made(asked_for, cache), pools=0):
        qa = dspex.Predict("question -> answer")
        best = dspex.BestOfN(qa, N=3, reward_fn=lambda inputs, made: float(made.answer), threshold=100.0)
        first = best(question="?").answer
        assert len(asked_for.requests) == 3
        assert best(question="?").answer == first
    assert len(asked_for.requests) == 3


async def test_deployments_have_the_answers_of_their_own_servers(said: ModelServer, cache: Cache) -> None:
    with ModelServer(answer=BLUE.replace("blue", "red")) as other:
        group = LM.group([made(said, cache), made(other, cache)], strategy="ordered")
        async with dspex.Runtime(group, pools=0):
            qa = dspex.Predict("question -> answer")
            assert [(await qa.acall(question="?")).answer for _ in range(3)] == ["blue"] * 3
    assert (len(said.requests), len(other.requests)) == (1, 0)


def test_a_cache_can_be_said_in_a_configuration(tmp_path: Path) -> None:
    base = {"model": "openai/m", "api_base": "http://127.0.0.1:1/v1"}

    def cache_in(lm: dict[str, Any]) -> Any:
        return dspex.Runtime.from_config({"lm": {**base, **lm}}, directory=tmp_path).lm.cache  # type: ignore[attr-defined]

    assert cache_in({}) is None
    assert cache_in({"cache": "memory"}).store == "memory"
    assert cache_in({"cache": {"store": "disk", "directory": "kept", "ttl": 60}}) == Cache(
        "disk", directory=str(tmp_path / "kept"), ttl=60
    )
    with pytest.raises(ConfigError, match="max_bytes") as caught:
        cache_in({"cache": {"max_bytes": 1, "ttl": -1, "sotre": "disk"}})
    assert len(caught.value.problems) == 3


def test_a_saved_program_neither_keeps_a_cache_nor_turns_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPy writes `cache` into the state of each LM, and there it means its own."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    lm = sampling_lm({"model": "openai/m", "cache": True, "temperature": 0.5})
    assert isinstance(lm, LM)
    assert (lm.cache, lm.settings) == (None, {"temperature": 0.5})
