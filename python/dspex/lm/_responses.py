"""OpenAI's Responses as bytes: the request's body, the answer's items, the stream's events.

The body is the one DSPy's own engine sends for the same chat messages and settings:

- A first message of the system is `instructions`; a later one is a developer's.
- Calls of tools and their results are items of their own beside the messages.
- `max_tokens`, `response_format`, `reasoning_effort`, `logprobs` and `user` have other names here.
- Settings the API does not have (`seed`, penalties) are left out. It has no `stop` either: see `_stops.py`.
- A request asks for one generation, so several are several requests, as with DSPy.

What is read becomes what chat completions give: `finish_reason` and `usage` in their words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from dspex.errors import ConfigError
from dspex.events import LMDelta, LMToolCallDelta
from dspex.lm._answer import Failed, Reject, check_says_something, object_of, string_of
from dspex.lm._body import dump, error_body, fields, generations
from dspex.lm._protocol import LMChoice, LMToolCall, TextPiece
from dspex.lm._stream_reader import StreamReader

if TYPE_CHECKING:
    from dspex._core import EventReader
    from dspex.lm._forms import Engine
    from dspex.lm._server import Server

__all__ = ["HAS_N", "HAS_STOP", "PATH", "ChunkReader", "decode", "encode", "error_body", "fields"]

PATH: Final = "/responses"
HAS_N: Final = False
HAS_STOP: Final = False

_LEFT_OUT: Final = ("rollout_id", "seed", "presence_penalty", "frequency_penalty", "stop")
_ELSEWHERE: Final = ("n", "num_generations", "extra_headers")
"""What makes several requests, or goes into the head of each."""

_STATUS: Final = {
    "authentication_error": 401,
    "context_length_exceeded": 400,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "model_not_available": 404,
    "model_not_found": 404,
    "no_capacity": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "unsupported_model": 404,
    "vector_store_timeout": 504,
}
"""What an error behind a status of success would have had as an answer; 500 for others."""


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
    generations(wishes)
    for left_out in (*_LEFT_OUT, *_ELSEWHERE):
        wishes.pop(left_out, None)
    extra = wishes.pop("extra_body", {})
    try:
        body: dict[str, Any] = {"model": name, "input": [], "stream": stream}
        if messages and messages[0]["role"] in ("system", "developer"):
            if instructions := _plain(messages[0].get("content")):
                body["instructions"] = instructions
            messages = messages[1:]
        body["input"] = [item for message in messages for item in _items(message)]
        body |= _settings(wishes)
        body.update(extra)
        return dump(body), 1
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}", code="lm-setting") from error


def _settings(wishes: dict[str, Any]) -> dict[str, Any]:
    """The rest of the body, of whose settings those with another name here are taken out of `wishes`."""
    older = wishes.pop("max_tokens", None)
    tools, choice = wishes.pop("tools", None), wishes.pop("tool_choice", None)
    parallel = wishes.pop("parallel_tool_calls", None)
    if choice is None and parallel is not None:
        choice = "auto"
    effort = wishes.pop("reasoning_effort", None)
    body: dict[str, Any] = {
        "max_output_tokens": wishes.pop("max_completion_tokens", older),
        "temperature": wishes.pop("temperature", None),
        "top_p": wishes.pop("top_p", None),
    }
    if wishes.pop("logprobs", None):
        body["top_logprobs"] = wishes.pop("top_logprobs", 0)
        body["include"] = [*wishes.pop("include", ()), "message.output_text.logprobs"]
    body |= {
        "tools": [_tool(tool) for tool in tools] if tools else None,
        "tool_choice": None if choice is None else _tool_choice(choice),
        "parallel_tool_calls": parallel,
        "text": {**wishes.pop("text", {}), **_text_form(wishes.pop("response_format", None))} or None,
        "reasoning": None if effort is None else {"effort": effort},
    }
    for key in ("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "service_tier"):
        body[key] = wishes.pop(key, None)
    body["safety_identifier"] = wishes.pop("user", None)
    body["store"] = wishes.pop("store", None)
    return {key: value for key, value in body.items() if value is not None} | wishes


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    if function is None:  # one that the server has itself, such as a search of the web
        return tool
    made = {
        "type": "function",
        "name": function["name"],
        "description": function.get("description"),
        "parameters": function.get("parameters") or {"type": "object", "properties": {}},
    }
    return {**made, "strict": True} if function.get("strict") else made


def _tool_choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    if "function" in choice:
        return {"type": "function", "name": choice["function"]["name"]}
    if "allowed_tools" not in choice:
        return choice
    allowed = choice["allowed_tools"]
    tools = [_tool_choice(tool) for tool in allowed["tools"]]
    if len(tools) == 1 and allowed["mode"] == "required":
        return tools[0]
    return {"type": "allowed_tools", "mode": allowed["mode"], "tools": tools}


def _text_form(form: Any) -> dict[str, Any]:
    if form is None or form["type"] == "text":
        return {}
    if form["type"] != "json_schema" or "json_schema" not in form:  # which is how the API has it
        return {"format": form}
    given = form["json_schema"]
    made = {"type": "json_schema", "name": given.get("name") or "response", "schema": given["schema"]}
    return {"format": made | {key: given[key] for key in ("strict", "description") if key in given}}


def _items(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a message is here: itself, and its calls of tools; or the result of one."""
    role, content = message["role"], message.get("content")
    if role == "tool":
        output = _plain(content) if _is_plain(content) else _blocks(content, "input_text")
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": output}]
    calls = (message.get("tool_calls") or ()) if role == "assistant" else ()
    if role == "assistant":
        blocks = _answered(message, has_calls=bool(calls))
    else:
        blocks = _blocks(content, "input_text")
    items: list[dict[str, Any]] = []
    if blocks:
        items.append({"role": "developer" if role == "system" else role, "content": blocks})
        if message.get("name") is not None:
            items[0]["name"] = message["name"]
    return items + [_called(call) for call in calls]


def _answered(message: Mapping[str, Any], *, has_calls: bool) -> list[dict[str, Any]]:
    content, thoughts, refusal = (message.get(key) for key in ("content", "reasoning_content", "refusal"))
    blocks = [_said("output_text", thoughts)] if thoughts else []
    if content is not None:
        blocks += _blocks(content, "output_text")
    if refusal is not None:
        blocks.append({"type": "refusal", "refusal": refusal})
    return blocks or ([] if has_calls or content is not None else [_said("output_text", "")])


def _called(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or "{}"
    try:
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
        arguments = json.dumps(read, separators=(",", ":"))
    except ValueError:  # the model's own slip, which it may as well see
        pass
    return {
        "type": "function_call",
        "call_id": call["id"],
        "name": function["name"],
        "arguments": arguments,
    }


def _blocks(content: Any, kind: str) -> list[dict[str, Any]]:
    return [_said(kind, content)] if isinstance(content, str) else [_block(part, kind) for part in content]


def _block(part: Mapping[str, Any], text: str) -> dict[str, Any]:
    kind = part["type"]
    if kind == "text":
        return {**part, "type": text}
    if kind == "image_url":
        image = part["image_url"]
        made = {"type": "input_image", "image_url": image if isinstance(image, str) else image["url"]}
        detail = None if isinstance(image, str) else image.get("detail")
        return {**made, "detail": detail} if detail else made
    if kind == "input_audio" and "input_audio" in part:
        audio = part["input_audio"]
        return {"type": "input_audio", "audio": audio["data"], "format": audio["format"]}
    if kind == "file":
        return _file(part["file"])
    if kind == "refusal" or kind.startswith("input_"):  # as the API has them
        return dict(part)
    raise ConfigError(
        f"a part of a message is of type {kind!r}, which dspex cannot send to OpenAI's Responses",
        code="lm-setting",
        hint='DSPy may know how: give the runtime a pool, and the call route="python"',
    )


def _file(file: Mapping[str, Any]) -> dict[str, Any]:
    if file.get("file_id") is not None:
        return {"type": "input_file", "file_id": file["file_id"]}
    data = file["file_data"]
    kind = data.removeprefix("data:").partition(";")[0].partition("/")[2].partition("+")[0]
    return {
        "type": "input_file",
        "filename": file.get("filename") or f"file.{kind or 'bin'}",  # the API insists on one
        "file_data": data,
    }


def _is_plain(content: Any) -> bool:
    return content is None or isinstance(content, str) or all(part.get("type") == "text" for part in content)


def _plain(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part["text"] for part in content)


def _said(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "text": text}


# --- the answer ---------------------------------------------------------------------------------------


def decode(
    raw: bytes, wanted: int, reject: Reject, failed: Failed
) -> tuple[tuple[LMChoice, ...], str, Mapping[str, Any], Mapping[str, Any]]:
    """The one generation, the model's name and the usage in an answer's body, and the whole of it."""
    del wanted
    data = object_of(raw, reject)
    if data.get("error"):
        _fail(data["error"], failed)
    items = data.get("output")
    if not isinstance(items, list):
        reject("it has no output", code="lm-no-choices")
    read = _Items(reject)
    for item in items:
        read.add(_dict(item))
    text = "".join(read.texts) if read.texts else string_of(data.get("output_text"))
    reason = _reason(data, has_calls=bool(read.calls))
    refusal = "".join(read.refusals) or None
    check_says_something(text, read.calls, refusal, reason, reject)
    choice = LMChoice(
        text or "",
        reason,
        tuple(read.calls),
        "".join(read.thoughts) or None,
        refusal,
        {"content": read.logprobs} if read.logprobs else None,
        tuple(read.annotations),
        data,
    )
    return (choice,), _string(data.get("model")), _usage(data.get("usage")), data


class _Items:
    """What the items of an answer say; those of a kind to come are left to `raw`."""

    def __init__(self, reject: Reject) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.refusals: list[str] = []
        self.calls: list[LMToolCall] = []
        self.logprobs: list[Any] = []
        self.annotations: list[Mapping[str, Any]] = []
        self._reject = reject

    def add(self, item: Mapping[str, Any]) -> None:
        match item.get("type"):
            case "message":
                for part in _dicts(item.get("content")):
                    self._add_part(part)
            case "function_call":
                call_id, name = _call_head(item, self._reject)
                self.calls.append(LMToolCall(call_id, name, _arguments(item) or "{}"))
            case "reasoning":
                self.thoughts.append(_thought(item))

    def _add_part(self, part: Mapping[str, Any]) -> None:
        match part.get("type"):
            case "output_text" | "text":
                self.texts.append(_string(part.get("text")))
                self.logprobs += _dicts(part.get("logprobs"))
                self.annotations += _dicts(part.get("annotations"))
            case "refusal":
                self.refusals.append(_string(part.get("refusal")) or _string(part.get("text")))


def _thought(item: Mapping[str, Any]) -> str:
    """The summary of the thoughts, each part on a line of its own; else the thoughts, if they are shown."""
    summary = "\n".join(_string(part.get("text")) for part in _dicts(item.get("summary")))
    return summary or "".join(_string(part.get("text")) for part in _dicts(item.get("content")))


def _call_head(item: Mapping[str, Any], reject: Reject) -> tuple[str | None, str]:
    name = string_of(item.get("name"))
    if name is None:
        reject("a call of a tool names none", code="lm-tool-calls")
    return string_of(item.get("call_id")) or string_of(item.get("id")), name


def _arguments(item: Mapping[str, Any]) -> str:
    given = item.get("arguments")
    return json.dumps(given, ensure_ascii=False) if isinstance(given, dict) else _string(given)


def _reason(data: Mapping[str, Any], *, has_calls: bool) -> str:
    """Why an answer ended. A call of a tool may be cut as well, which DSPy does not say."""
    why = _string(_dict(data.get("incomplete_details")).get("reason")).lower()
    if data.get("status") == "incomplete" and "token" in why:
        return "length"
    if "content_filter" in why or "safety" in why:
        return "content_filter"
    return "tool_calls" if has_calls else "stop"


def _usage(counted: Any) -> dict[str, Any]:
    """The server's counts in the words of chat completions."""
    counts, usage = _dict(counted), {}
    for ours, theirs in (
        ("prompt_tokens", "input_tokens"),
        ("completion_tokens", "output_tokens"),
        ("total_tokens", "total_tokens"),
    ):
        if type(counts.get(theirs)) is int:
            usage[ours] = counts[theirs]
    for ours, theirs in (
        ("prompt_tokens_details", "input_tokens_details"),
        ("completion_tokens_details", "output_tokens_details"),
    ):
        given = _dict(counts.get(theirs))
        details = {
            "cache_creation_tokens" if name == "cache_write_tokens" else name: value
            for name, value in given.items()
            if type(value) is int
        }
        if details:
            usage[ours] = details
    return usage


def _fail(error: Any, failed: Failed) -> NoReturn:
    """A failure that is told of behind a status of success."""
    said = _dict(error)
    number = said.get("code")
    code = string_of(number) or _string(said.get("type"))
    message = _string(error) or _string(said.get("message")) or code
    status = 400 if "image" in code else _STATUS.get(code, 500)
    if type(number) is int and 400 <= number < 600:  # of servers that have a status there
        status = number
    failed({"error": {"message": message, "code": code}}, status)


# --- the stream ---------------------------------------------------------------------------------------

_PIECES: Final = {
    "response.output_text": "text",
    "response.refusal": "refusal",
    "response.reasoning_summary_text": "text",
    "response.reasoning_text": "text",
    "response.function_call_arguments": "arguments",
}
"""What comes in pieces, and what its last event calls the whole of it."""


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
        self._has_content = False
        self._begun: set[tuple[str, int, str, int]] = set()
        self._calls: dict[tuple[int, str], int] = {}
        self._thoughts: dict[int, int] = {}

    def end(self) -> None:
        """See `StreamReader`. A stream that is whole has said so."""
        raise self._server.cut()

    def _events(self, reader: EventReader, chunk: bytes) -> tuple[Sequence[str], bool]:
        return reader.feed(chunk)

    def _read(self, data: str, said: list[LMDelta | TextPiece]) -> None:
        if data == "[DONE]":  # of servers that have it from chat completions
            if not self._has_content:
                self._server.reject("the stream ended without a choice", code="lm-no-choices")
            self.done = True
            return
        event = object_of(data, self._server.reject)
        kind = _string(event.get("type"))
        match kind:
            case "response.completed" | "response.incomplete":
                self._finish(_dict(event.get("response")), said)
            case "response.failed":
                _fail(_dict(event.get("response")).get("error"), self._server.failed_midway)
            case "error" | "response.error":
                _fail(event.get("error") or event, self._server.failed_midway)
            case "response.output_item.added" | "response.output_item.done":
                self._item(event, said)
            case "response.output_text.annotation.added":
                if note := _dict(event.get("annotation")):
                    said.append(LMDelta("", annotations=(note,), raw=event))
            case _:
                if (piece := self._piece(kind, event)) is not None:
                    self._has_content = True
                    said.append(piece)

    def _piece(self, kind: str, event: Mapping[str, Any]) -> LMDelta | TextPiece | None:
        """What a piece of text, a refusal, a thought or arguments adds; nothing for what is to come.

        Its last event repeats all of it, for servers that send nothing else.
        """
        what, _, step = kind.rpartition(".")
        name = _PIECES.get(what)
        if name is None or step not in ("delta", "done"):
            return None
        own = _index(event), _string(event.get("item_id"))
        part = what, *own, _index(event, "content_index" if "content_index" in event else "summary_index")
        text = _string(event.get("delta" if step == "delta" else name))
        if not text or (step == "done" and part in self._begun):
            return None
        self._begun.add(part)
        if what == "response.output_text":
            self.has_text = True
            tokens = _dicts(event.get("logprobs"))
            return LMDelta(text, logprobs={"content": tokens}, raw=event) if tokens else (text, 0, None)
        if what == "response.refusal":
            return LMDelta("", refusal=text, raw=event)
        if what == "response.function_call_arguments":
            at = self._calls.get(own, max(len(self._calls) - 1, 0))
            return LMDelta("", tool_calls=(LMToolCallDelta(at, None, None, text),), raw=event)
        return LMDelta("", reasoning=self._thought(text, event), raw=event)

    def _thought(self, text: str, event: Mapping[str, Any]) -> str:
        """A thought, on a line of its own where it begins a part of the summary, as in a whole answer."""
        part = _index(event, "summary_index")
        last = self._thoughts.setdefault(_index(event), part)
        self._thoughts[_index(event)] = part
        return text if part == last else f"\n{text}"

    def _item(self, event: Mapping[str, Any], said: list[LMDelta | TextPiece]) -> None:
        """A call of a tool that begins; or has ended, where the server has not said that it began."""
        item = _dict(event.get("item"))
        place = _index(event), _string(item.get("id"))
        if item.get("type") != "function_call" or place in self._calls:
            return
        call_id, name = _call_head(item, self._server.reject)
        at = self._calls[place] = len(self._calls)
        self._has_content = True
        arguments = _arguments(item)
        if arguments:
            self._begun.add(("response.function_call_arguments", *place, 0))
        said.append(LMDelta("", tool_calls=(LMToolCallDelta(at, call_id, name, arguments),), raw=event))

    def _finish(self, response: dict[str, Any], said: list[LMDelta | TextPiece]) -> None:
        said.append(("", 0, _reason(response, has_calls=bool(self._calls))))
        self.usage = _usage(response.get("usage"))
        said.append(LMDelta("", usage=self.usage, raw=response))
        self.done = True


def _index(event: Mapping[str, Any], name: str = "output_index") -> int:
    at = event.get(name)
    return at if type(at) is int else 0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
