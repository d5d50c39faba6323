"""Anthropic's messages as `ModelServer` speaks them: the request as chat, the answer whole and as events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dspex.testing._answers import Said, text_of
from dspex.testing._scripted import pieces, reason_of, usage_of

__all__ = ["as_chat", "events", "whole"]

_REASONS = {"stop": "end_turn", "tool_calls": "tool_use"}


def as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request with chat messages, for answering functions that read them."""
    system = body.get("system")
    messages = [{"role": "system", "content": _text(system)}] if system else []
    messages += [
        {"role": turn.get("role"), "content": _text(turn.get("content"))} for turn in body["messages"]
    ]
    return {**body, "messages": messages}


def whole(body: Mapping[str, Any], said: Said) -> dict[str, Any]:
    """The answer to the request, as one message."""
    return {
        "id": "msg_dspex",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": list(_blocks(said)),
        "stop_reason": _REASONS[reason_of(said)],
        "stop_sequence": None,
        "usage": _usage(body, said),
    }


def events(body: Mapping[str, Any], said: Said) -> list[bytes]:
    """The answer as the events of a stream."""
    start = whole(body, said) | {"content": [], "stop_reason": None}
    start["usage"] = {**start["usage"], "output_tokens": 1}
    rows: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for at, block in enumerate(_blocks(said)):
        rows += [{**row, "index": at} for row in _rows(block)]
        rows.append({"type": "content_block_stop", "index": at})
    ended = {"stop_reason": _REASONS[reason_of(said)], "stop_sequence": None}
    counts = {"output_tokens": _usage(body, said)["output_tokens"]}
    rows += [{"type": "message_delta", "delta": ended, "usage": counts}, {"type": "message_stop"}]
    return [f"event: {row['type']}\ndata: {json.dumps(row)}\n\n".encode() for row in rows]


def _rows(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name, kind, empty = {
        "text": ("text", "text_delta", ""),
        "thinking": ("thinking", "thinking_delta", ""),
        "tool_use": ("input", "input_json_delta", {}),
    }[block["type"]]
    yield {"type": "content_block_start", "content_block": {**block, name: empty}}
    value = json.dumps(block[name]) if name == "input" else block[name]
    for piece in pieces(value):
        delta = {"type": kind, "partial_json" if name == "input" else name: piece}
        yield {"type": "content_block_delta", "delta": delta}


def _blocks(said: Said) -> Iterator[dict[str, Any]]:
    message: Mapping[str, Any] = {} if isinstance(said, str) else said
    if thoughts := message.get("reasoning_content"):
        yield {"type": "thinking", "thinking": thoughts, "signature": "c2ln"}
    if text := text_of(said):
        yield {"type": "text", "text": text}
    for call in message.get("tool_calls") or ():
        function = call["function"]
        given = json.loads(function["arguments"])
        yield {"type": "tool_use", "id": call["id"], "name": function["name"], "input": given}


def _usage(body: Mapping[str, Any], said: Said) -> dict[str, int]:
    counts = usage_of(as_chat(body)["messages"], [said])
    return {
        "input_tokens": counts["prompt_tokens"],
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": counts["completion_tokens"],
    }


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(
        str(part.get("text") or part.get("content") or "") for part in parts if isinstance(part, dict)
    )
