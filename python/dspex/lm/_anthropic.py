"""Anthropic's messages as bytes: the request's body, the answer's parts, the stream's events.

The body is the one DSPy's own engine sends for the same chat messages and settings:

- The first message is the system prompt if it is one; a later one is a user's, marked `[developer]`.
- Calls of tools and their results are blocks; results that follow each other are one message.
- `max_tokens` has to be there, so it has a default by the class of model. Thought is counted with it where a
  budget is given for thinking, so the budget is added.
- Settings the API does not have (`seed`, `logprobs`, penalties, `store`) are left out. JSON without a schema
  (`response_format={"type": "json_object"}`) is one of them.
- A request asks for one generation, so several are several requests, as with DSPy.

What is read becomes what chat completions give: `finish_reason` and `usage` in their words, with the tokens
that came from a cache or went into thinking under `prompt_tokens_details` and `completion_tokens_details`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from dspex.errors import ConfigError
from dspex.events import LMDelta, LMToolCallDelta
from dspex.lm._answer import Failed, Reject, object_of
from dspex.lm._body import dump, generations
from dspex.lm._protocol import LMChoice, LMToolCall, TextPiece
from dspex.lm._stream_reader import StreamReader

if TYPE_CHECKING:
    from dspex._core import EventReader
    from dspex.lm._forms import Engine
    from dspex.lm._server import Server

__all__ = ["HAS_N", "HAS_STOP", "PATH", "ChunkReader", "decode", "encode", "error_body", "fields"]

PATH: Final = "/messages"
HAS_N: Final = False
HAS_STOP: Final = True
VERSION: Final = "2023-06-01"
"""Of the API; it has been the only one since."""

_LIMITS: Final = (
    ("claude-3-haiku", 4096),
    ("claude-3-opus", 4096),
    ("claude-3-sonnet", 4096),
    ("claude-3-5-", 8192),
    ("claude-3.5-", 8192),
)
_LIMIT: Final = 16384
"""The most tokens of an answer where none are given: what the older classes can, and for all others."""

_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}
"""Tokens of thinking for each effort, for models that take a budget."""

_WITHOUT_BUDGET: Final = (
    "sonnet-5", "opus-5", "haiku-5", "sonnet-4-6", "opus-4-6", "opus-4-7", "opus-4-8", "fable", "mythos",
)  # fmt: skip
"""In the names of models that take the effort itself and decide how long to think."""

_LEFT_OUT: Final = (
    "rollout_id", "seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "store",
)  # fmt: skip

_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Reasons to end, in the words of chat completions; others stay as they are."""

_STATUS: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What an error in a stream, which has no status, would have had as an answer."""


def fields(key: str | None) -> tuple[tuple[str, str], ...]:
    """The fields of a request's head."""
    ours = (("Content-Type", "application/json"), ("anthropic-version", VERSION))
    return (*ours, ("x-api-key", key)) if key else ours


# --- the request --------------------------------------------------------------------------------------


def encode(
    name: str,
    prefix: str,
    messages: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    stream: bool = False,
    engine: Engine = "auto",
) -> tuple[bytes, int]:
    """The request's body, and that it asks for one generation; it has one form, whatever the `engine`.

    Raises:
        ConfigError: If a part of a message is none that the API has, or something is nothing JSON can carry.
    """
    wishes = {key: value for key, value in settings.items() if value is not None}
    for left_out in _LEFT_OUT:
        wishes.pop(left_out, None)
    generations(wishes)
    for elsewhere in ("n", "num_generations", "extra_headers"):  # several requests, and the head of each
        wishes.pop(elsewhere, None)
    extra = wishes.pop("extra_body", {})
    try:
        system, turns = _turns(messages)
        body = {"model": name, "messages": turns, "stream": stream}
        body |= _settings(name, system, wishes)
        body.update(extra)
        return dump(body), 1
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}", code="lm-setting") from error


def _settings(name: str, system: str | None, wishes: dict[str, Any]) -> dict[str, Any]:
    """The rest of the body, of whose settings those with another name here are taken out of `wishes`."""
    body: dict[str, Any] = {}
    older = wishes.pop("max_tokens", None)
    body["max_tokens"] = wishes.pop("max_completion_tokens", older) or _most(name)
    cached = wishes.pop("prompt_cache_key", None) is not None
    if system is not None:
        body["system"] = system
        if cached:
            body["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
    if (temperature := wishes.pop("temperature", None)) is not None:
        body["temperature"] = min(temperature, 1.0)  # the hottest that the API has
    stop = wishes.pop("stop", None)
    if stop:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    if tools := wishes.pop("tools", None):
        body["tools"] = [_tool(tool) for tool in tools]
    choice = _tool_choice(wishes.pop("tool_choice", None), wishes.pop("parallel_tool_calls", None))
    if choice is not None:
        body["tool_choice"] = choice
    _think(name, wishes.pop("reasoning_effort", None), body)
    form = wishes.pop("response_format", None)
    if form is not None and form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
    user = wishes.pop("user", None)
    if user is not None and "metadata" not in wishes:
        body["metadata"] = {"user_id": user}
    return body | wishes


def _most(name: str) -> int:
    return next((limit for mark, limit in _LIMITS if mark in name.lower()), _LIMIT)


def _think(name: str, effort: str | None, body: dict[str, Any]) -> None:
    if effort is None or effort == "none":
        return
    if any(mark in name.lower() for mark in _WITHOUT_BUDGET):
        body["thinking"] = {"type": "adaptive"}
        body["output_config"] = {"effort": "low" if effort == "minimal" else effort}
        return
    if effort not in _BUDGETS:
        raise ConfigError(
            f"reasoning_effort={effort!r} is no effort",
            code="lm-setting",
            hint=f"it is one of none, {', '.join(_BUDGETS)}",
        )
    budget = _BUDGETS[effort]
    body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    body["max_tokens"] += budget


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    return {
        "name": function["name"],
        "description": function.get("description"),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }


def _tool_choice(choice: Any, parallel: bool | None) -> dict[str, Any] | None:
    if choice is None and parallel is None:
        return None
    if isinstance(choice, Mapping):
        made: dict[str, Any] = {"type": "tool", "name": choice["function"]["name"]}
    else:
        made = {"type": {"required": "any", "none": "none"}.get(choice, "auto")}
    if parallel is False and made["type"] != "none":
        made["disable_parallel_tool_use"] = True
    return made


def _turns(messages: Sequence[Mapping[str, Any]]) -> tuple[str | None, list[dict[str, Any]]]:
    """The system prompt and the turns of the talk."""
    system: str | None = None
    turns: list[dict[str, Any]] = []
    results: list[dict[str, Any]] | None = None  # of the turn before, if it has results of tools
    for at, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        if role == "tool":
            result = {
                "type": "tool_result",
                "tool_use_id": message["tool_call_id"],
                "content": _plain(content),
            }
            if results is None:
                results = []
                turns.append({"role": "user", "content": results})
            results.append(result)
            continue
        results = None
        if role in ("system", "developer"):
            text = _plain(content)
            if at == 0:
                system = text or None
            else:
                turns.append({"role": "user", "content": [_said(f"[developer]\n{text}")]})
        elif role == "assistant":
            turns.append({"role": role, "content": _answered(message)})
        else:
            turns.append({"role": "user", "content": _blocks(content)})
    return system, turns


def _answered(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content, calls = message.get("content"), message.get("tool_calls") or ()
    blocks = []
    if thoughts := message.get("reasoning_content"):
        blocks.append(_said(thoughts))
    if content is not None or not (calls or blocks):
        blocks += _blocks(content or "")
    for call in calls:
        function = call["function"]
        read = json.loads(function["arguments"] or "{}")
        blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": read})
    return blocks


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [_said(content)] if isinstance(content, str) else [_block(part) for part in content]


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    if kind == "text":
        return dict(part)
    if kind == "image_url":
        image = part["image_url"]
        url = image if isinstance(image, str) else image["url"]
        if not url.startswith("data:"):
            return {"type": "image", "source": {"type": "url", "url": url}}
        head, _, data = url.removeprefix("data:").partition(",")
        source = {"type": "base64", "media_type": head.removesuffix(";base64"), "data": data}
        return {"type": "image", "source": source}
    raise ConfigError(
        f"a part of a message is of type {kind!r}, which dspex cannot send to Anthropic",
        code="lm-setting",
        hint='DSPy may know how: give the runtime a pool, and the call route="python"',
    )


def _plain(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part if isinstance(part, str) else part["text"] for part in content)


def _said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


# --- the answer ---------------------------------------------------------------------------------------


def decode(
    raw: bytes, wanted: int, reject: Reject, failed: Failed
) -> tuple[tuple[LMChoice, ...], str, Mapping[str, Any], Mapping[str, Any]]:
    """The one generation, the model's name and the usage in an answer's body, and the whole of it."""
    del wanted, failed
    data = object_of(raw, reject)
    blocks = data.get("content")
    if not isinstance(blocks, list):
        reject("it has no content", code="lm-no-choices")
    texts, thoughts, calls = [], [], []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            texts.append(_string(block.get("text")))
        elif kind == "thinking":
            thoughts.append(_string(block.get("thinking")))
        elif kind == "tool_use":
            calls.append(_call(block, reject))
    reason, text = _reason(data.get("stop_reason")), "".join(texts)
    if not text and not calls:
        if reason == "content_filter":
            reject("the model refused", code="lm-refusal")
        reject(f"it has no text (finish_reason {reason!r})", code="lm-no-content")
    choice = LMChoice(text, reason, tuple(calls), "".join(thoughts) or None)
    return (choice,), _string(data.get("model")), _usage(data.get("usage")), data


def _call(block: Mapping[str, Any], reject: Reject) -> LMToolCall:
    name, given = _string(block.get("name")), block.get("input")
    if not name:
        reject("a call of a tool names none", code="lm-tool-calls")
    arguments = json.dumps(given if isinstance(given, dict) else {}, ensure_ascii=False)
    return LMToolCall(_string(block.get("id")) or None, name, arguments)


def _reason(reason: Any) -> str | None:
    return _REASONS.get(reason, reason) if isinstance(reason, str) else None


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _usage(counted: Any) -> dict[str, Any]:
    """The server's counts in the words of chat completions, in which tokens of a cache are of the prompt."""
    if not isinstance(counted, Mapping):
        return {}
    counts = {name: value for name, value in counted.items() if type(value) is int}
    if "input_tokens" not in counts or "output_tokens" not in counts:
        return {}
    read, written = counts.get("cache_read_input_tokens"), counts.get("cache_creation_input_tokens")
    prompt, completion = counts["input_tokens"] + (read or 0) + (written or 0), counts["output_tokens"]
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    cache = {"cached_tokens": read, "cache_creation_tokens": written}
    if any(value is not None for value in cache.values()):
        usage["prompt_tokens_details"] = {k: value for k, value in cache.items() if value is not None}
    details = counted.get("output_tokens_details")
    thinking = details.get("thinking_tokens") if isinstance(details, Mapping) else None
    if type(thinking) is int:
        usage["completion_tokens_details"] = {"reasoning_tokens": thinking}
    return usage


def error_body(raw: bytes) -> bytes:
    """The body of an error, with the code that OpenAI has for it where that says more than the status."""
    try:
        data = json.loads(raw)
        error = data["error"]
        said, kind = _string(error["message"]), error.get("type")
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return raw
    lowered = said.lower()
    if "prompt is too long" in lowered or "context window" in lowered or "context length" in lowered:
        kind = "context_length_exceeded"
    return json.dumps({"error": {"message": said, "code": kind}}).encode()


# --- the stream ---------------------------------------------------------------------------------------


class ChunkReader(StreamReader[str]):
    """Reads the body of a stream.

    Args:
        limit: The most bytes that one event may have.
        wanted: How many generations were asked for, which is one.
        server: Raises what is wrong with the answer.
    """

    def __init__(self, limit: int, wanted: int, server: Server) -> None:
        del wanted
        super().__init__(limit, server)
        self._counts: dict[str, Any] = {}
        self._has_reason = False
        self._has_content = False

    def end(self) -> None:
        """See `StreamReader`."""
        if not self._has_reason:
            raise self._server.cut()

    def _events(self, reader: EventReader, chunk: bytes) -> tuple[Sequence[str], bool]:
        return reader.feed(chunk)

    def _read(self, data: str, said: list[LMDelta | TextPiece]) -> None:
        event = object_of(data, self._server.reject)
        match event.get("type"):
            case "content_block_delta":
                self._add(_dict(event.get("delta")), _index(event), said)
            case "content_block_start":
                self._begin(_dict(event.get("content_block")), _index(event), said)
            case "message_start":
                self._count(_dict(event.get("message")).get("usage"))
            case "message_delta":
                self._count(event.get("usage"))
                reason = _reason(_dict(event.get("delta")).get("stop_reason"))
                if reason is not None:
                    self._has_reason = True
                    said.append(("", 0, reason))
                self.usage = _usage(self._counts)
                if self.usage:
                    said.append(LMDelta("", usage=self.usage))
            case "message_stop":
                if not (self._has_content or self._has_reason):
                    self._server.reject("the stream ended without a choice", code="lm-no-choices")
                self.done = True
            case "error":
                self._fail(_dict(event.get("error")))
            case _:  # a ping, the end of a block, or what is to come: clients are told to pass over it
                pass

    def _begin(self, block: dict[str, Any], at: int, said: list[LMDelta | TextPiece]) -> None:
        if block.get("type") == "tool_use":
            name, given = _string(block.get("name")), block.get("input")
            if not name:
                self._server.reject("a call of a tool names none", code="lm-tool-calls")
            arguments = json.dumps(given, ensure_ascii=False) if given and isinstance(given, dict) else ""
            self._has_content = True
            piece = LMToolCallDelta(at, _string(block.get("id")) or None, name, arguments)
            said.append(LMDelta("", tool_calls=(piece,)))

    def _add(self, delta: dict[str, Any], at: int, said: list[LMDelta | TextPiece]) -> None:
        self._has_content = True
        match delta.get("type"):
            case "text_delta" if text := _string(delta.get("text")):
                self.has_text = True
                said.append((text, 0, None))
            case "input_json_delta" if piece := _string(delta.get("partial_json")):
                said.append(LMDelta("", tool_calls=(LMToolCallDelta(at, None, None, piece),)))
            case "thinking_delta" if thought := _string(delta.get("thinking")):
                said.append(LMDelta("", reasoning=thought))
            case _:
                pass

    def _count(self, usage: Any) -> None:
        """The counts of the beginning hold until the end corrects them."""
        self._counts |= {name: value for name, value in _dict(usage).items() if value is not None}

    def _fail(self, error: dict[str, Any]) -> NoReturn:
        status = _STATUS.get(_string(error.get("type")), 500)
        self._server.failed_midway({"error": {"message": _string(error.get("message")), "code": status}})


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _index(event: Mapping[str, Any]) -> int:
    at = event.get("index")
    return at if type(at) is int else 0
