"""The bodies that `dspex.LM` sends are those of the engine of DSPy's that its `engine` names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.parity.versions import NEWER_THAN_33
from tests.support.generated import fewer

from dspex import LM, errors
from dspex.lm import LMRequest, assemble
from dspex.testing import ModelServer

pytestmark = [
    pytest.mark.skipif(not NEWER_THAN_33, reason="before DSPy 3.4 there is one engine, LiteLLM's"),
    # DSPy calls this way of asking deprecated; it is the one that takes messages as they are.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore:rollout_id has no effect"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]

MESSAGES = [{"role": "system", "content": "Say é"}, {"role": "user", "content": "now"}]
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}},
}
COUNTS = st.integers(1, 50_000)
SHARES = st.floats(0.0, 1.0).map(lambda x: round(x, 3))

KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "temperature": SHARES,
    "top_p": SHARES,
    "max_tokens": COUNTS,
    "max_completion_tokens": COUNTS,
    "seed": st.integers(0, 2**31),
    "stop": st.text(min_size=1, max_size=5)
    | st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4),
    "presence_penalty": SHARES,
    "frequency_penalty": SHARES,
    "logit_bias": st.dictionaries(st.integers(0, 9).map(str), st.integers(-9, 9), min_size=1, max_size=2),
    "response_format": st.just({"type": "json_object"}),
    "tools": st.just([TOOL]),
    "rollout_id": st.integers(0, 9),
    "n": st.integers(1, 3),
}
"""What both engines carry, and LiteLLM for every model."""
ONLY_LM15: dict[str, st.SearchStrategy[Any]] = {
    "user": st.text("abc", min_size=1, max_size=5),
    "metadata": st.dictionaries(st.text("abc", min_size=1), st.text(max_size=3), min_size=1, max_size=2),
    "verbosity": st.sampled_from(["low", "high"]),
    "service_tier": st.sampled_from(["auto", "flex"]),
    "store": st.booleans(),
    "prompt_cache_key": st.text("abc", min_size=1, max_size=5),
}
ONLY_LITELLM: dict[str, st.SearchStrategy[Any]] = {
    "repetition_penalty": SHARES,
    "min_p": SHARES,
    "best_of": st.integers(1, 3),
    "extra_body": st.dictionaries(
        st.sampled_from(["top_k", "mine", "max_tokens"]), st.integers(1, 9), max_size=2
    ),
    "extra_headers": st.just({"X-Team": "ours"}),
}
MODELS = st.sampled_from(["openai/m", "openai/gpt-4o-mini", "openai/org/m", "hosted_vllm/m", "lm_studio/m"])


def some_of(*tables: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: one for table in tables for name, one in table.items()})


@pytest.fixture(scope="module", autouse=True)
def _no_other_address() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with ModelServer(answer="yes") as server:
        yield server


async def bodies(server: ModelServer, ask: Any) -> list[dict[str, Any]]:
    before = len(server.requests)
    await ask()
    return [json.loads(request.raw) for request in server.requests[before:]]


async def ours(server: ModelServer, model: str, engine: Any, wishes: dict[str, Any]) -> list[dict[str, Any]]:
    async with LM(model, api_base=server.api_base, api_key="k", engine=engine, **wishes) as lm:
        return await bodies(server, lambda: lm.complete(LMRequest(MESSAGES)))


async def theirs(
    server: ModelServer, model: str, engine: str, wishes: dict[str, Any]
) -> list[dict[str, Any]]:
    import dspy

    lm = dspy.LM(
        model, api_base=server.api_base, api_key="k", engine=engine, cache=False, num_retries=0, **wishes
    )
    try:
        return await bodies(server, lambda: lm.acall(messages=MESSAGES))
    finally:
        await lm.aclose()


GENERATED = fewer(20, least=40)


@GENERATED
@given(MODELS, some_of(KNOWN, ONLY_LM15))
async def test_lm15_sends_the_bodies_of_dspys_own_engine_a_request_for_each_generation(
    server: ModelServer, model: str, wishes: dict[str, Any]
) -> None:
    if {"max_tokens", "max_completion_tokens"} <= wishes.keys():  # it refuses two that differ, and so do we
        del wishes["max_tokens"]
    assume(model != "lm_studio/m" and (model.startswith("openai/") or "prompt_cache_key" not in wishes))
    assert await ours(server, model, "lm15", wishes) == await theirs(server, model, "lm15", wishes)


@GENERATED
@given(MODELS, some_of(KNOWN, ONLY_LITELLM))
async def test_litellm_sends_the_bodies_of_litellm(
    server: ModelServer, model: str, wishes: dict[str, Any]
) -> None:
    assert await ours(server, model, "litellm", wishes) == await theirs(server, model, "litellm", wishes)


@GENERATED
@given(MODELS, some_of(KNOWN, ONLY_LITELLM))
async def test_auto_sends_the_body_that_dspys_auto_sends_and_asks_once(
    server: ModelServer, model: str, wishes: dict[str, Any]
) -> None:
    mine = await ours(server, model, "auto", wishes)
    told = await theirs(server, model, "auto", wishes)
    assert len(mine) == 1
    if len(told) > 1:
        told = [{**told[0], "n": len(told)}]
    assert mine == told


@pytest.mark.parametrize(
    "model",
    ["openai/o3-mini", "openai/gpt-5", "openai/o1-2024-12-17", "openai/gpt-5.1-mini", "openai/gpt-5-chat"],
)
async def test_reasoning_models_have_the_newer_bound_in_both(server: ModelServer, model: str) -> None:
    for engine in ("lm15", "litellm"):
        wishes = {"max_tokens": 20_000}
        (mine,) = await ours(server, model, engine, wishes)
        (told,) = await theirs(server, model, engine, wishes)
        del mine["messages"], told["messages"]  # LiteLLM has no system messages for some of them
        assert mine == told


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("openai/m", {"repetition_penalty": 1.1}),
    ("openai/m", {"extra_body": {"x": 1}}),
    ("openai/m", {"extra_headers": {"X-Team": "ours"}}),
    ("openai/m", {"max_tokens": 3, "max_completion_tokens": 7}),
    ("hosted_vllm/m", {"prompt_cache_key": "k"}),
    ("lm_studio/m", {}),
    ("mistral/m", {}),
    ("together_ai/m", {}),
]


@pytest.mark.parametrize(("model", "wishes"), REFUSED, ids=str)
async def test_what_dspys_own_engine_cannot_carry_is_refused_as_there(
    server: ModelServer, model: str, wishes: dict[str, Any]
) -> None:
    with pytest.raises(errors.ConfigError, match="cannot carry") as caught:
        await ours(server, model, "lm15", wishes)
    assert caught.value.code == "lm-setting"
    with pytest.raises(
        Exception, match=r"cannot be carried|require the LiteLLM|disagree|not a provider prefix"
    ):
        await theirs(server, model, "lm15", wishes)


@pytest.mark.parametrize("engine", ["auto", "lm15", "litellm"])
async def test_several_generations_come_in_order_with_their_tokens_together(
    engine: Literal["auto", "lm15", "litellm"],
) -> None:
    with ModelServer(answer="it is said") as server:
        async with LM("openai/m", api_base=server.api_base, api_key="k", engine=engine, n=3) as lm:
            whole = await lm.complete(LMRequest(MESSAGES))
            async with aclosing(lm.stream(LMRequest(MESSAGES))) as deltas:
                pieces = [delta async for delta in deltas]
            single = await lm.complete(LMRequest(MESSAGES, {"n": 1}))
        asked = [json.loads(request.raw).get("n", 1) for request in server.requests]

    assert len(whole.choices) == len(assemble(pieces)) == 3
    assert asked == ([1] * 7 if engine == "lm15" else [3, 3, 1])
    usages = [delta.usage for delta in pieces if delta.usage]
    assert len(usages) == 1
    assert usages[0] == whole.usage
    assert whole.usage["completion_tokens"] == 3 * single.usage["completion_tokens"]


@pytest.mark.parametrize("engine", ["LiteLLM", "", None, 5, object()])
def test_an_engine_is_one_of_three(engine: Any) -> None:
    with pytest.raises(errors.ConfigError, match="engine must be"):
        LM("openai/m", engine=engine)


def test_an_engine_is_part_of_the_value_and_goes_to_workers() -> None:
    lm = LM("openai/m", api_base="http://127.0.0.1:1/v1", engine="litellm")
    assert lm != LM("openai/m", api_base="http://127.0.0.1:1/v1")
    assert "engine='litellm'" in repr(lm)
    assert lm.with_settings(temperature=0.5).settings_for_worker()["engine"] == "litellm"
    assert "engine" not in LM("openai/m", api_base="http://127.0.0.1:1/v1").settings_for_worker()
