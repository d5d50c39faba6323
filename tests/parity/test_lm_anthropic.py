"""What `dspex.LM` sends to Anthropic, and reads of its answers, is what `dspy.LM` sends and reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity.versions import NEWER_THAN_33
from tests.support.generated import fewer

from dspex import LM
from dspex.lm import LMRequest, assemble
from dspex.testing import ModelServer

pytestmark = [
    pytest.mark.skipif(not NEWER_THAN_33, reason="the bodies are those of DSPy 3.4's own engine"),
    # DSPy calls this way of asking deprecated; it is the one that takes messages as they are.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

TALK: list[dict[str, Any]] = [
    {"role": "system", "content": 'Say "é" \\ \n\t\u2028 😀'},
    {"role": "user", "content": "now"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "d",
            "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
        },
    }
]
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
    {"id": "c2", "type": "function", "function": {"name": "f", "arguments": ""}},
]
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}

SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0, "max_tokens": 5},
    {"temperature": 1.5},
    {"temperature": None, "max_tokens": None},
    {"temperature": 1.0, "rollout_id": 5},
    {"max_completion_tokens": 7},
    {"n": 2, "temperature": 0.7},
    {"stop": "x"},
    {"stop": ["x", "y"], "seed": 1},
    {"stop": []},
    {"top_p": 0.5, "presence_penalty": 0.1, "frequency_penalty": 0.1},
    {"logprobs": True, "top_logprobs": 2},
    {"user": "me"},
    {"metadata": {"user_id": "b"}},
    {"user": "me", "metadata": {"user_id": "x"}},
    {"store": True},
    {"service_tier": "auto"},
    {"prompt_cache_key": "k"},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "minimal"},
    {"reasoning_effort": "high", "max_tokens": 100},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
    {
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "strict": True, "schema": SCHEMA},
        },
    },
    {"tools": []},
    {"tools": TOOLS},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": "none"},
    {"tools": TOOLS, "parallel_tool_calls": True},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
]

TALKS: list[list[dict[str, Any]]] = [
    [
        {"role": "system", "content": "x"},
        {"role": "system", "content": "y"},
        {"role": "user", "content": "a"},
    ],
    [{"role": "developer", "content": "d"}, {"role": "user", "content": ""}],
    [{"role": "user", "content": "a"}, {"role": "system", "content": "late"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "t", "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "q"}]},
        {"role": "user", "content": "b"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": CALLS[:1]},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": CALLS[:1]},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "t", "reasoning_content": "thought"},
        {"role": "user", "content": "b"},
    ],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "b"},
    ],
    [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://images.example/z.png"}},
            ],
        }
    ],
]

SAID: list[Any] = [
    "yes",
    "two words, é",
    {"content": "so", "reasoning_content": "because of it"},
    {"content": None, "tool_calls": CALLS[:1]},
    {"content": "I call", "reasoning_content": "hm", "tool_calls": [CALLS[0], {**CALLS[0], "id": "c3"}]},
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    # DSPy otherwise asks the network for a table of model prices.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    for name in ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


async def _both(server: ModelServer, model: str, talk: Any, given_settings: dict[str, Any]) -> Any:
    """Have both ask; what ours and theirs answered."""
    import dspy

    server.requests.clear()
    async with LM(model, api_base=server.api_base, api_key="k") as lm:
        ours = await lm.complete(LMRequest(talk, given_settings))
    theirs = dspy.LM(
        model,
        api_base=server.api_base,
        api_key="k",
        cache=False,
        num_retries=0,
        engine="lm15",
        **given_settings,
    )
    answer = await theirs.acall(messages=talk)
    usage = theirs.history[-1]["usage"]
    await theirs.aclose()
    return ours, answer, usage


def _assert_same_requests(server: ModelServer) -> None:
    half = len(server.requests) // 2
    assert half
    assert [r.body for r in server.requests[:half]] == [r.body for r in server.requests[half:]]
    one, other = server.requests[0], server.requests[half]
    assert one.path == other.path == "/v1/messages"
    for name in ("x-api-key", "anthropic-version", "content-type", "authorization"):
        assert one.headers.get(name) == other.headers.get(name)


@pytest.mark.parametrize(
    "model", ["anthropic/claude-sonnet-4-5", "anthropic/claude-opus-4-6", "anthropic/claude-3-5-x"]
)
@pytest.mark.parametrize("given_settings", SETTINGS, ids=str)
async def test_the_body_for_each_setting_is_dspys(model: str, given_settings: dict[str, Any]) -> None:
    with ModelServer(answer="yes") as server:
        await _both(server, model, TALK, given_settings)
        _assert_same_requests(server)


@pytest.mark.parametrize("talk", TALKS, ids=str)
async def test_the_body_for_each_talk_is_dspys(talk: Any) -> None:
    with ModelServer(answer="yes") as server:
        await _both(server, "anthropic/claude-x", talk, {})
        _assert_same_requests(server)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
TURNS = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), TEXTS
    ),
    max_size=4,
)


@fewer(4)
@given(system=st.none() | TEXTS, turns=TURNS, last=TEXTS, wishes=st.sampled_from(SETTINGS))
async def test_the_body_of_a_generated_request_is_dspys(
    system: str | None, turns: list[Any], last: str, wishes: dict[str, Any]
) -> None:
    head = [] if system is None else [{"role": "system", "content": system}]
    with ModelServer(answer="yes") as server:
        talk = [*head, *turns, {"role": "user", "content": last}]
        await _both(server, "anthropic/claude-x", talk, wishes)
        _assert_same_requests(server)


@pytest.mark.parametrize("said", SAID, ids=str)
async def test_an_answer_reads_as_dspy_reads_it_whole_and_streamed(said: Any) -> None:
    with ModelServer(answer=lambda _: said) as server:
        ours, (theirs,), usage = await _both(server, "anthropic/claude-x", TALK, {})
        async with LM("anthropic/claude-x", api_base=server.api_base, api_key="k") as lm:
            deltas = [delta async for delta in lm.stream(LMRequest(TALK))]

    (choice,) = ours.choices
    if isinstance(theirs, str):
        theirs = {"text": theirs}
    assert (choice.text or None) == theirs.get("text")
    assert choice.reasoning == theirs.get("reasoning_content")
    calls = [(call["id"], call["function"]) for call in theirs.get("tool_calls") or ()]
    assert [(c.id, {"name": c.name, "arguments": c.arguments}) for c in choice.tool_calls] == calls
    assert ours.usage == _told(usage)
    # What a stream says is the same; only the space in the arguments of a call is as it was sent.
    (streamed,) = assemble(deltas)
    assert streamed == choice
    assert [delta.usage for delta in deltas if delta.usage] == [ours.usage]


def _told(usage: Any) -> Any:
    """The counts that DSPy tells, without those that were not counted."""
    if not hasattr(usage, "items"):
        return usage
    return {name: _told(value) for name, value in usage.items() if value is not None}
