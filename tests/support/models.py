"""Models that say what a test tells them to say, and a runtime that asks one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dspex
from dspex.testing import ChatRequest, ModelServer

__all__ = ["Said", "completion", "runtime", "said"]


class Said:
    """A server whose every reply is `reply`, or what `answer` makes of the request."""

    def __init__(self) -> None:
        self.reply = ""
        self.answer: Callable[[ChatRequest], str] | None = None
        self.server = ModelServer(lambda asked: self.reply if self.answer is None else self.answer(asked))


@pytest.fixture(scope="module")
def said() -> Iterator[Said]:
    said = Said()
    with said.server:
        yield said


@pytest.fixture(scope="module")
def runtime(said: Said) -> Iterator[dspex.Runtime]:
    """Serves both routes, with the model of `said`."""
    lm = dspex.LM("openai/local", api_base=said.server.api_base, api_key="k")
    with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)) as runtime:
        yield runtime


def completion(reply: str | dict[str, Any]) -> Any:
    """The OpenAI SDK's object for a reply: its text, or its message."""
    from openai.types.chat import ChatCompletion

    message = {"content": reply} if isinstance(reply, str) else {"content": None, **reply}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return ChatCompletion.model_validate(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
    )
