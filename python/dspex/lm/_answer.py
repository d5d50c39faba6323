"""Chat completions as bytes: a whole answer. What it says in an odd form is read, left out, or rejected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Protocol

from dspex.lm._protocol import LMChoice, LMToolCall

__all__ = [
    "Failed",
    "Reject",
    "annotations_of",
    "check_says_something",
    "decode",
    "kind_of",
    "object_of",
    "read_message",
    "reason_of",
    "reasoning_of",
    "reject_few",
    "string_of",
    "text_of",
]


class Reject(Protocol):
    """Raises the error that says why an answer is no chat completion."""

    def __call__(
        self, what: str, *, code: str | None = None, hint: str = "", said: bytes | str = ""
    ) -> NoReturn:
        """Raise it, with `what` is wrong, a finer code, what to do, and what the server said.

        The server's words are given as they are: whoever raises the error takes secrets out of them.
        """


class Failed(Protocol):
    """Raises the error that a server tells of behind a status of success."""

    def __call__(self, event: Mapping[str, Any], status: int | None = None, /) -> NoReturn:
        """Raise it: the event or answer, as OpenAI writes errors, and what its status would have been."""


def decode(
    raw: bytes, wanted: int, reject: Reject, failed: Failed
) -> tuple[tuple[LMChoice, ...], str, Mapping[str, Any], Mapping[str, Any]]:
    """The choices, the model's name and the usage in an answer's body, and the whole of it."""
    del failed
    data = object_of(raw, reject)
    listed = data.get("choices")
    if not isinstance(listed, list) or not listed:
        if data.get("error"):
            reject("it has no choices, but an error", said=raw)
        reject("it has no choices", code="lm-no-choices")
    if len(listed) < wanted:
        reject_few(wanted, len(listed), reject)
    model, usage = data.get("model"), data.get("usage")
    return (
        tuple(read_message(choice, reject) for choice in listed),
        model if isinstance(model, str) else "",
        usage if isinstance(usage, dict) else {},
        data,
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
    reason = reason_of(choice)
    text = text_of(message.get("content"))
    refusal = string_of(message.get("refusal"))
    calls = _tool_calls(message.get("tool_calls"), reject)
    check_says_something(text, calls, refusal, reason, reject)
    logprobs = choice.get("logprobs")
    return LMChoice(
        text or "",
        reason,
        calls,
        reasoning_of(message),
        refusal,
        logprobs if isinstance(logprobs, dict) else None,
        annotations_of(message) if "annotations" in message else (),
        choice,
    )


def check_says_something(
    text: str | None, calls: Sequence[LMToolCall], refusal: str | None, reason: str | None, reject: Reject
) -> None:
    """Refuse a generation that has neither text nor calls of tools."""
    if text is None and not calls:
        if refusal:
            reject("the model refused", code="lm-refusal", said=refusal)
        reject(f"a choice has no text (finish_reason {reason!r})", code="lm-no-content")


def annotations_of(message: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    listed = message.get("annotations")
    return tuple(note for note in listed if isinstance(note, dict)) if isinstance(listed, list) else ()


def _tool_calls(listed: Any, reject: Reject) -> tuple[LMToolCall, ...]:
    """The calls in a message. A call that names no tool can be neither made nor answered."""
    if not listed:
        return ()
    if not isinstance(listed, list):
        reject(f"tool_calls is no list, but {kind_of(listed)}", code="lm-tool-calls")
    return tuple(_tool_call(call, reject) for call in listed)


def _tool_call(call: Any, reject: Reject) -> LMToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    name = string_of(function.get("name")) if isinstance(function, dict) else None
    if not isinstance(function, dict) or name is None:
        reject("a call of a tool names none", code="lm-tool-calls")
    arguments = function.get("arguments")
    if arguments is None:
        arguments = "{}"
    elif isinstance(arguments, dict):  # as some servers write it
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not isinstance(arguments, str):
        reject(f"the arguments of {name[:50]!r} are {kind_of(arguments)}", code="lm-tool-calls")
    return LMToolCall(string_of(call.get("id")), name, arguments)


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """A reasoning model's thoughts: DeepSeek's and vLLM's name for them, or OpenRouter's and Ollama's."""
    return string_of(message.get("reasoning_content")) or string_of(message.get("reasoning"))


def string_of(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def kind_of(value: Any) -> str:
    return f"of type {type(value).__name__}"


def text_of(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:  # parts, as some servers write it
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) == len(texts):
            return "".join(strings)
    return None


def reason_of(choice: Mapping[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) else None


def object_of(raw: bytes | str, reject: Reject) -> dict[str, Any]:
    """The JSON object that an answer or an event is."""
    data, readable = None, False
    with suppress(ValueError, RecursionError):  # and not in the context of the error, as it holds the text
        data, readable = json.loads(raw), True
    if not readable:
        reject("it is not JSON", code="lm-not-json", said=raw)
    if not isinstance(data, dict):
        reject("it is JSON, but no object", code="lm-not-json", said=raw)
    return data
