"""Models that say what a test tells them to say."""

from __future__ import annotations

from typing import Any

from dspex.testing import ModelServer

__all__ = ["Said", "completion"]


class Said:
    """A server whose every reply is `reply`."""

    def __init__(self) -> None:
        self.reply = ""
        self.server = ModelServer(lambda _: self.reply)


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
