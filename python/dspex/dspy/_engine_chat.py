"""Chat completions between DSPy's codec and a language model that speaks none: both ways as data."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from dspex.events import LMDelta
from dspex.lm import LMChoice, LMRequest, LMResponse

__all__ = ["answer_of", "chunks_of", "request_of"]

_OF_THE_WIRE = ("model", "messages", "stream", "stream_options")


def request_of(body: bytes, left: float | None) -> LMRequest:
    """What a body asks for."""
    said: dict[str, Any] = json.loads(body)
    settings = {name: value for name, value in said.items() if name not in _OF_THE_WIRE}
    return LMRequest(said["messages"], settings, left)


def answer_of(response: LMResponse, model: str) -> bytes:
    """An answer as the body of a chat completion."""
    choices = [
        {
            "index": index,
            "message": _message(choice),
            "finish_reason": choice.finish_reason,
            "logprobs": choice.logprobs,
        }
        for index, choice in enumerate(response.choices)
    ]
    answer = {
        "object": "chat.completion",
        "model": response.model or model,
        "choices": choices,
        "usage": dict(response.usage),
    }
    return json.dumps(answer, default=dict).encode()


async def chunks_of(deltas: AsyncGenerator[LMDelta], model: str) -> AsyncGenerator[str]:
    """A stream as the data of its events."""
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.usage:
                yield _chunk(model, [], usage=dict(delta.usage))
            if delta.text or delta.reasoning or delta.tool_calls or delta.finish_reason is not None:
                said: dict[str, Any] = {}
                if delta.text:
                    said["content"] = delta.text
                if delta.reasoning:
                    said["reasoning_content"] = delta.reasoning
                if delta.tool_calls:
                    said["tool_calls"] = [
                        {
                            "index": piece.index,
                            "id": piece.id,
                            "function": {"name": piece.name, "arguments": piece.arguments},
                        }
                        for piece in delta.tool_calls
                    ]
                yield _chunk(
                    model, [{"index": delta.index, "delta": said, "finish_reason": delta.finish_reason}]
                )
    yield "[DONE]"


def _message(choice: LMChoice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text}
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.refusal:
        message["refusal"] = choice.refusal
    if choice.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.tool_calls
        ]
        message["content"] = choice.text or None
    return message


def _chunk(model: str, choices: list[Any], **more: Any) -> str:
    return json.dumps({"model": model, "choices": choices, **more})
