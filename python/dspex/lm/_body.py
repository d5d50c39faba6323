"""Chat completions as bytes: the request's body, the answer's parts, the stream's events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn, Protocol

from dspex._settings import MAX_GENERATIONS
from dspex.errors import ConfigError
from dspex.events import LMDelta, LMToolCallDelta
from dspex.lm._prompt import Prompt
from dspex.lm._protocol import LMChoice, LMToolCall

__all__ = [
    "EventReader",
    "Reject",
    "assemble",
    "decode",
    "decode_chunk",
    "encode",
    "read_message",
    "reject_few",
]


class Reject(Protocol):
    """Raises the error that says why an answer is no chat completion."""

    def __call__(self, what: str, *, code: str | None = None, hint: str = "") -> NoReturn:
        """Raise it, with `what` is wrong, a finer code, and what to do."""


def encode(
    name: str,
    prefix: str,
    messages: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    stream: bool = False,
) -> tuple[bytes, int]:
    """The request's body, and how many generations it asks for.

    The body is the one `dspy.LM` sends for the same messages and settings: the same names, the same text.
    Only several generations differ: DSPy asks once for each, we ask once with `n`.

    Raises:
        ConfigError: If something in it is nothing JSON can carry, or `n` is no count.
    """
    body: dict[str, Any] = {}
    wishes = {key: value for key, value in settings.items() if value is not None}
    wishes.pop("rollout_id", None)  # DSPy's name for "not from the cache"; no server knows it
    wanted = wishes.pop("n", wishes.pop("num_generations", 1))  # DSPy has both names
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= MAX_GENERATIONS:
        raise ConfigError(f"n must be a count from 1 to {MAX_GENERATIONS}, not {wanted!r}", code="lm-setting")
    limits = [wishes.pop(key, None) for key in ("max_completion_tokens", "max_tokens")]
    for limit in limits:
        if limit is not None:
            # OpenAI's name for it since its reasoning models, which DSPy 3.4 uses for every model of the
            # prefix; all others get the older one.
            body["max_completion_tokens" if prefix == "openai" else "max_tokens"] = limit
            break
    if isinstance(wishes.get("stop"), str):
        wishes["stop"] = [wishes["stop"]]
    extra = wishes.pop("extra_body", {})
    for key in ("temperature", "top_p"):
        if key in wishes:
            body[key] = wishes.pop(key)
    body.update(wishes)
    if wanted > 1:
        body["n"] = wanted
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    try:
        body.update(extra)
        return _written(name, messages, body), wanted
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}", code="lm-setting") from error


def _written(name: str, messages: Sequence[Mapping[str, Any]], body: Mapping[str, Any]) -> bytes:
    """The body whose first two entries are the model and the messages."""
    if type(messages) is not Prompt or "model" in body or "messages" in body:
        return _dump({"model": name, "messages": list(messages), **body})
    rest = _json(body)[1:] if body else "}"
    try:
        return b"".join((_before_messages(name), messages.json, b"," if body else b"", rest.encode()))
    except UnicodeEncodeError:
        return _dump({"model": name, "messages": messages.messages, **body})


@lru_cache(maxsize=256)
def _before_messages(name: str) -> bytes:
    return _json({"model": name})[:-1].encode() + b',"messages":'


def _dump(body: Mapping[str, Any]) -> bytes:
    text = _json(body)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8, but it has a JSON escape; the server may judge it.
        return _json(body, ascii_only=True).encode()


def _json(value: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"), allow_nan=False)


def decode(raw: bytes, wanted: int, reject: Reject) -> tuple[tuple[LMChoice, ...], str, Mapping[str, Any]]:
    """The choices, the model's name and the usage in an answer's body."""
    data = _object(raw, reject)
    listed = data.get("choices")
    if not isinstance(listed, list) or not listed:
        error = data.get("error")
        if error:
            reject(f"it has no choices, but an error: {str(error)[:200]}")
        reject("it has no choices", code="lm-no-choices")
    if len(listed) < wanted:
        reject_few(wanted, len(listed), reject)
    model, usage = data.get("model"), data.get("usage")
    return (
        tuple(read_message(choice, reject) for choice in listed),
        model if isinstance(model, str) else "",
        usage if isinstance(usage, dict) else {},
    )


def reject_few(wanted: int, came: int, reject: Reject) -> NoReturn:
    """Refuse an answer that has fewer generations than were asked for."""
    reject(
        f"{wanted} generations were asked for, {came} came",
        code="lm-few-choices",
        hint="the server does not know the setting n; call it several times instead",
    )


def read_message(choice: Any, reject: Reject) -> LMChoice:
    """One entry of `choices`. Junk in it is left out, or rejected where it matters."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        reject("a choice has no message")
    reason = _reason(choice)
    text = _text(message.get("content"))
    refusal = _string(message.get("refusal"))
    calls = _tool_calls(message.get("tool_calls"), reject)
    if text is None and not calls:
        if refusal:
            reject(f"the model refused: {refusal[:200]}", code="lm-refusal")
        reject(f"a choice has no text (finish_reason {reason!r})", code="lm-no-content")
    logprobs = choice.get("logprobs")
    return LMChoice(
        text or "",
        reason,
        calls,
        _reasoning(message),
        refusal,
        logprobs if isinstance(logprobs, dict) else None,
    )


def _tool_calls(listed: Any, reject: Reject) -> tuple[LMToolCall, ...]:
    """The calls in a message. A call that names no tool can be neither made nor answered."""
    if not listed:
        return ()
    if not isinstance(listed, list):
        reject(f"tool_calls is no list, but {_kind(listed)}", code="lm-tool-calls")
    return tuple(_tool_call(call, reject) for call in listed)


def _tool_call(call: Any, reject: Reject) -> LMToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    name = _string(function.get("name")) if isinstance(function, dict) else None
    if not isinstance(function, dict) or name is None:
        reject("a call of a tool names none", code="lm-tool-calls")
    arguments = function.get("arguments")
    if arguments is None:
        arguments = "{}"
    elif isinstance(arguments, dict):  # as some servers write it
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not isinstance(arguments, str):
        reject(f"the arguments of {name[:50]!r} are {_kind(arguments)}", code="lm-tool-calls")
    return LMToolCall(_string(call.get("id")), name, arguments)


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """A reasoning model's thoughts: DeepSeek's and vLLM's name for them, or OpenRouter's and Ollama's."""
    return _string(message.get("reasoning_content")) or _string(message.get("reasoning"))


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _kind(value: Any) -> str:
    return f"of type {type(value).__name__}"


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:  # parts, as some servers write it
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) == len(texts):
            return "".join(strings)
    return None


def _reason(choice: Mapping[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) else None


def _object(raw: bytes | str, reject: Reject) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        reject(f"it is not JSON: {_glimpse(raw)}", code="lm-not-json")
    if not isinstance(data, dict):
        reject(f"it is JSON, but no object: {_glimpse(raw)}", code="lm-not-json")
    return data


def _glimpse(raw: bytes | str) -> str:
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return repr(text[:60]) + ("..." if len(text) > 60 else "")


class EventReader:
    """Cuts a server-sent event stream, fed in any pieces, into the data of its events.

    Args:
        limit: The most bytes one unfinished event may hold.
        reject: Called when the limit is passed.
    """

    def __init__(self, limit: int, reject: Reject) -> None:
        self._limit = limit
        self._reject = reject
        self._rest = b""
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of each event that `chunk` completes."""
        # A "\r" at the very end may be half of a "\r\n": it waits for the next piece.
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line:
                if self._data:
                    yield b"\n".join(self._data).decode("utf-8", "replace")
                    self._data = []
                    self._held = 0
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
                self._held += len(value)
                self._check()
        self._check()

    def _check(self) -> None:
        if self._held + len(self._rest) > self._limit:
            self._reject(f"an event is longer than {self._limit} bytes", code="lm-response-too-large")


def decode_chunk(
    event: str, reject: Reject, failed: Callable[[Mapping[str, Any]], NoReturn]
) -> Iterator[LMDelta]:
    """The deltas in one event of a stream; `failed` is called with an event that tells of an error."""
    data = _object(event, reject)
    if data.get("error"):
        failed(data)
    for choice in data.get("choices") or ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            reject("a choice of the stream has no delta")
        index = choice.get("index", 0)
        text, reason = _text(delta.get("content")) or "", _reason(choice)
        calls, reasoning = _call_pieces(delta.get("tool_calls"), reject), _reasoning(delta) or ""
        if text or reason is not None or calls or reasoning:
            at = index if isinstance(index, int) else 0
            yield LMDelta(text, at, reason, tool_calls=calls, reasoning=reasoning)
    usage = data.get("usage")
    if isinstance(usage, dict):
        yield LMDelta("", usage=usage)


def _call_pieces(listed: Any, reject: Reject) -> tuple[LMToolCallDelta, ...]:
    if not listed:
        return ()
    if not isinstance(listed, list) or not all(isinstance(piece, dict) for piece in listed):
        reject("tool_calls in the stream is no list of pieces", code="lm-tool-calls")
    pieces = []
    for place, piece in enumerate(listed):
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        at = piece.get("index")
        arguments = function.get("arguments")
        if isinstance(arguments, dict):  # a server that sends the whole of it at once
            arguments = json.dumps(arguments, ensure_ascii=False)
        pieces.append(
            LMToolCallDelta(
                at if type(at) is int else place,
                _string(piece.get("id")),
                _string(function.get("name")),
                arguments if isinstance(arguments, str) else "",
            )
        )
    return tuple(pieces)


def assemble(deltas: Iterable[LMDelta]) -> tuple[LMChoice, ...]:
    """The generations that the deltas of a stream make, in the order of their indices.

    A piece of a call that never got a name is left out.
    """
    rows: dict[int, _Row] = {}
    for delta in deltas:
        if delta.usage and not (delta.text or delta.tool_calls or delta.reasoning or delta.finish_reason):
            continue
        row = rows.setdefault(delta.index, _Row())
        row.text.append(delta.text)
        row.reasoning.append(delta.reasoning)
        row.reason = delta.finish_reason or row.reason
        for piece in delta.tool_calls:
            call = row.calls.setdefault(piece.index, _Call())
            call.id = call.id or piece.id
            call.name = call.name or piece.name
            call.arguments.append(piece.arguments)
    return tuple(rows[index].choice() for index in sorted(rows))


class _Call:
    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments: list[str] = []


class _Row:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.reason: str | None = None
        self.calls: dict[int, _Call] = {}

    def choice(self) -> LMChoice:
        calls = (self.calls[at] for at in sorted(self.calls))
        return LMChoice(
            "".join(self.text),
            self.reason,
            tuple(LMToolCall(c.id, c.name, "".join(c.arguments) or "{}") for c in calls if c.name),
            "".join(self.reasoning) or None,
        )
