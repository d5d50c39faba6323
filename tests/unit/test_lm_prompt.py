"""Messages that the core has written as JSON, and the body of a request that is made of them."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest

import dspex
from dspex.errors import ConfigError
from dspex.lm import LM, LMRequest, Prompt
from dspex.lm._body import encode
from dspex.testing import ModelServer

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": 'Say "é" \\ \n\t\x00\x1f\x7f\u2028 😀'},
    {"role": "user", "content": "now"},
]
PROMPT = Prompt(json.dumps(MESSAGES, ensure_ascii=False, separators=(",", ":")).encode())


def test_a_prompt_is_a_sequence_of_its_messages() -> None:
    assert PROMPT == MESSAGES
    assert list(PROMPT) == PROMPT[:] == MESSAGES
    assert PROMPT[-1]["content"] == "now"
    assert len(PROMPT) == 2
    assert Prompt(json.dumps(MESSAGES).encode()) == PROMPT  # other bytes, the same messages
    assert MESSAGES[1] in PROMPT
    assert repr(PROMPT) == repr(MESSAGES)
    assert LMRequest(PROMPT) == LMRequest(PROMPT)
    assert PROMPT != "now"


@pytest.mark.parametrize("name", ["m", 'a "b"\\', "é"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5, "max_tokens": 5, "n": 3},
        {"stop": "x\n", "seed": None},
        {"user": "half \ud83d of a pair"},
        {"extra_body": {"a": "é"}},
        {"extra_body": {"messages": [1], "top_k": 4}},
        {"extra_body": {"model": "other", "temperature": 1}, "temperature": 0},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_body_made_of_bytes_is_the_body_made_of_objects(name: str, settings: Any, stream: bool) -> None:
    made = [encode(name, "openai", messages, settings, stream=stream) for messages in (PROMPT, MESSAGES)]
    assert made[0] == made[1]
    json.loads(made[0][0])


@pytest.mark.parametrize("settings", [{"seed": float("nan")}, {"user": object()}])
def test_a_setting_that_no_json_can_carry_is_refused_with_either(settings: Any) -> None:
    for messages in (PROMPT, MESSAGES):
        with pytest.raises(ConfigError) as caught:
            encode("m", "openai", messages, settings)
        assert caught.value.code == "lm-setting"


async def test_a_prompt_with_an_image_goes_as_objects_and_its_markers_are_counted_once() -> None:
    signature = dspex.Signature.of(dspy.Signature("image: dspy.Image, text -> answer"))
    inputs = {"image": dspy.Image(url="https://x.test/a.png"), "text": "[[ ## answer ## ]]"}
    plan = dspex.ChatAdapter(markers="warn").compile(signature)
    body = plan.body(inputs)
    assert isinstance(body, list)
    counted = plan.injected_markers
    assert plan.render(inputs) == body
    assert plan.injected_markers == 2 * counted > 0


class Own(LM):
    """A model of the user's that looks at its request."""

    seen: Any = None

    async def complete(self, request: LMRequest) -> Any:
        self.seen = request.messages[-1]["content"]
        return await super().complete(request)


async def test_a_user_s_own_model_finds_its_messages() -> None:
    with ModelServer("[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]") as server:
        lm = Own("openai/m", api_base=server.api_base, api_key="k")
        async with dspex.Runtime(lm):
            assert (await dspex.Predict("question -> answer").acall(question="Who?")).answer == "blue"
    assert lm.seen.startswith("[[ ## question ## ]]\nWho?")
    assert server.requests[0].body["messages"][-1]["content"] == lm.seen
