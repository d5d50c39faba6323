"""What `dspex.LM` sends is what `dspy.LM` sends for the same messages and settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.parity.versions import NEWER_THAN_33

from dspex import LM
from dspex.lm import LMRequest
from dspex.testing import ModelServer

pytestmark = pytest.mark.skipif(
    not NEWER_THAN_33, reason="the bodies are those of DSPy 3.4; before it they are LiteLLM's, model by model"
)

MESSAGES = [
    {"role": "system", "content": 'Say "é" \\ \n\t\u2028 😀'},
    {"role": "user", "content": "now"},
]

SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.3, "max_tokens": 100},
    {"max_completion_tokens": 100},
    {"temperature": 1.0, "rollout_id": 5},
    {"top_p": 0.5, "seed": 4, "stop": ["x"], "presence_penalty": 0.1},
    {"stop": "x", "user": "me", "logit_bias": {"5": 1}},
    {"response_format": {"type": "json_object"}, "max_tokens": 20},
    {"temperature": None, "top_p": None, "max_tokens": None},
    {"logprobs": True, "top_logprobs": 2},
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    # DSPy otherwise asks the network for a table of model prices.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


# DSPy calls this way of asking deprecated; it is the one that takes messages as they are.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "model", ["openai/m", "openai/gpt-4o-mini", "openai/org/name", "ollama/m", "hosted_vllm/m"]
)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
async def test_the_body_is_dspys(model: str, settings: dict[str, Any]) -> None:
    import dspy

    with ModelServer(answer="yes") as server:
        async with LM(model, api_base=server.api_base, api_key="k", **settings) as lm:
            await lm.complete(LMRequest(MESSAGES))
            given = lm.settings_for_worker()
        theirs_lm = dspy.LM(**given)
        await theirs_lm.acall(messages=MESSAGES)
        await theirs_lm.aclose()

    ours, theirs = server.requests
    assert ours.body == theirs.body
    # The messages are the same bytes, not only the same text.
    written = json.dumps(MESSAGES, ensure_ascii=False, separators=(",", ":")).encode()
    assert written in ours.raw
    assert written in theirs.raw
    assert ours.path == theirs.path
    assert ours.headers["authorization"] == theirs.headers["authorization"] == "Bearer ***"
