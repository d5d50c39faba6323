"""OpenAI's Responses as `ModelServer` speaks them: the request as chat, the answer whole and as events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from dspex.testing._answers import Said, text_of
from dspex.testing._scripted import pieces, usage_of

__all__ = ["as_chat", "events", "whole"]


def as_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request with chat messages, for answering functions that read them."""
    messages = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    return {**body, "messages": messages + [_message(item) for item in items]}


def whole(body: Mapping[str, Any], said: Said) -> dict[str, Any]:
    """The answer to the request."""
    counts = usage_of(as_chat(body)["messages"], [said])
    return {
        "id": "resp_dspex",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": body["model"],
        "output": list(_items(said)),
        "usage": {
            "input_tokens": counts["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": counts["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counts["total_tokens"],
        },
    }


def events(body: Mapping[str, Any], said: Said) -> list[bytes]:
    """The answer as the events of a stream."""
    answer = whole(body, said)
    begun = answer | {"status": "in_progress", "output": [], "usage": None}
    rows: list[dict[str, Any]] = [{"type": f"response.{what}", "response": begun} for what in _BEGINNING]
    for at, item in enumerate(answer["output"]):
        rows += [{**row, "output_index": at} for row in _rows(item)]
    rows.append({"type": "response.completed", "response": answer})
    return [
        f"event: {row['type']}\ndata: {json.dumps({**row, 'sequence_number': number})}\n\n".encode()
        for number, row in enumerate(rows)
    ]


_BEGINNING = ("created", "in_progress")


def _rows(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of one item, without its place."""
    own = {"item_id": item["id"]}
    empty = (
        {**item, "arguments": ""} if item["type"] == "function_call" else {**item, _PARTS[item["type"]]: []}
    )
    yield {"type": "response.output_item.added", "item": empty}
    if item["type"] == "function_call":
        yield from _said("response.function_call_arguments", "arguments", item["arguments"], own)
    elif item["type"] == "reasoning":
        for at, part in enumerate(item["summary"]):
            place = {**own, "summary_index": at}
            yield {"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}}
            yield from _said("response.reasoning_summary_text", "text", part["text"], place)
            yield {"type": "response.reasoning_summary_part.done", **place, "part": part}
    else:
        for at, part in enumerate(item["content"]):
            place = {**own, "content_index": at}
            name = "refusal" if part["type"] == "refusal" else "text"
            yield {"type": "response.content_part.added", **place, "part": {**part, name: ""}}
            yield from _said(f"response.{part['type']}", name, part[name], place)
            for note_at, note in enumerate(part.get("annotations") or ()):
                yield {
                    "type": "response.output_text.annotation.added",
                    **place,
                    "annotation_index": note_at,
                    "annotation": note,
                }
            yield {"type": "response.content_part.done", **place, "part": part}
    yield {"type": "response.output_item.done", "item": item}


_PARTS = {"message": "content", "reasoning": "summary"}


def _said(kind: str, name: str, text: str, place: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for piece in pieces(text):
        yield {"type": f"{kind}.delta", **place, "delta": piece}
    yield {"type": f"{kind}.done", **place, name: text}


def _items(said: Said) -> Iterator[dict[str, Any]]:
    message: Mapping[str, Any] = {} if isinstance(said, str) else said
    if thoughts := message.get("reasoning_content"):
        summary = [{"type": "summary_text", "text": part} for part in thoughts.split("\n")]
        yield {"type": "reasoning", "id": "rs_dspex", "summary": summary}
    parts: list[dict[str, Any]] = []
    if isinstance(said, str) or text_of(said):
        notes = list(message.get("annotations") or ())
        parts.append({"type": "output_text", "text": text_of(said), "annotations": notes, "logprobs": []})
    if refusal := message.get("refusal"):
        parts.append({"type": "refusal", "refusal": refusal})
    if parts:
        yield {
            "type": "message",
            "id": "msg_dspex",
            "status": "completed",
            "role": "assistant",
            "content": parts,
        }
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield {
            "type": "function_call",
            "id": f"fc_{call['id']}",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": function["arguments"],
            "status": "completed",
        }


def _message(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as a chat message."""
    if item.get("type") == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": _text(item.get("output"))}
    if item.get("type") == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": item.get("role"), "content": _text(item.get("content"))}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))
