"""Values in messages that Rust does not write itself: pydantic models, dates, classes of the user's.

Each function here gives what DSPy gives. The core calls them; importing this module imports pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspex import _core
from dspex._engine.type_adapters import adapter_of
from dspex.errors import InputError, ReplyError

if TYPE_CHECKING:
    from dspex._core import Dialect

__all__ = ["blocks_of", "json_of", "plain", "quoted", "text_of", "tool_turn", "turns_of"]

_START, _END = _core.block_start, _core.block_end


def plain(value: Any, dialect: Dialect) -> Any:
    """`value` as JSON can carry it; the `str()` of what pydantic cannot make so."""
    try:
        fallback = str if dialect.parts_become_text else None
        return adapter_of(type(value)).dump_python(value, mode="json", fallback=fallback)
    except Exception:  # noqa: BLE001 - a serialiser of the user's may raise anything; DSPy prints the value then
        return str(value)


def text_of(value: Any, dialect: Dialect) -> str:
    """The text of a value in a message: JSON for lists and mappings, `str()` for the rest."""
    simple = plain(value, dialect)
    return json.dumps(simple, ensure_ascii=False) if isinstance(simple, dict | list) else str(simple)


def json_of(values: Mapping[str, Any], dialect: Dialect) -> str:
    """The fields of an assistant message as indented JSON."""
    return json.dumps(plain(values, dialect), indent=2, ensure_ascii=False)


def quoted(values: Sequence[Any]) -> str:
    """A list in a field of type `str`, as numbered quotations.

    Raises:
        InputError: If an item is neither a text nor anything that can be searched like one.
    """
    try:
        blobs = [_quote(value) for value in values]
    except (TypeError, AttributeError) as error:
        raise InputError(
            f"a list for a field of type str holds what is not a text: {error}",
            code="list-item",
            hint="make each item a str, or give the field a type such as list[int]",
        ) from error
    if not blobs:
        return "N/A"
    return blobs[0] if len(blobs) == 1 else "\n".join(f"[{i}] {blob}" for i, blob in enumerate(blobs, 1))


def _quote(value: Any) -> str:
    if "\n" not in value and "«" not in value and "»" not in value:
        return f"«{value}»"
    lines = value.replace("\n", "\n    ")
    return f"«««\n    {lines}\n»»»"


def blocks_of(text: str) -> list[dict[str, Any]]:
    """A user message that holds custom types, as a list of text and content blocks."""
    blocks: list[dict[str, Any]] = []
    done = 0
    # A beginning without an end is text, and so is all behind it: a regular expression would look for
    # that end again from every other beginning.
    while (start := text.find(_START, done)) >= 0 and (end := text.find(_END, start + len(_START))) >= 0:
        if start > done:
            blocks.append({"type": "text", "text": text[done:start]})
        blocks.extend(_payload(text[start + len(_START) : end].strip()))
        done = end + len(_END)
    if done < len(text):
        blocks.append({"type": "text", "text": text[done:]})
    return blocks


def _payload(text: str) -> list[dict[str, Any]]:
    # A block inside a list or mapping was encoded once with its own JSON and once with the other's.
    readings: tuple[Callable[[str], Any], ...] = (json.loads, _twice_encoded, _repaired)
    for read in readings:
        try:
            found = read(text)
        except (ValueError, RecursionError, ReplyError):
            continue
        if isinstance(found, list):
            return [b if isinstance(b, dict) else {"type": "text", "text": str(b)} for b in found]
        break
    return [{"type": "text", "text": text}]


def _twice_encoded(text: str) -> Any:
    return json.loads(json.loads(f'"{text}"'))


def _repaired(text: str) -> Any:
    from dspex._engine.replies import loads

    return loads(text)[0]


def turns_of(history: Any) -> Sequence[Mapping[str, Any]]:
    """The turns in the value of a history field.

    Raises:
        InputError: If the value is no history.
    """
    messages = getattr(history, "messages", None)
    if messages is None:
        raise InputError(
            f"the history is a {type(history).__name__}, which has no messages",
            code="history",
            hint="give a dspy.History, or the turns themselves as `history=`",
        )
    turns: Sequence[Mapping[str, Any]] = messages
    return turns


def tool_turn(message: Mapping[str, Any], dialect: Dialect) -> tuple[Mapping[str, Any], str | None]:
    """A turn in which tools were called: its values without the tools' results, and those as text."""
    from dspy.adapters.types.tool import ToolCallResults, ToolCalls

    for name, value in message.items():
        if isinstance(value, ToolCalls) or (isinstance(value, dict) and "tool_calls" in value):
            calls = ToolCalls.model_validate(value)
            if calls.tool_call_results is None:
                return message, None
            results = ToolCallResults.model_validate(calls.tool_call_results)
            without = {**message, name: calls.model_copy(update={"tool_call_results": None})}
            return without, text_of(results, dialect)
    return message, None
