"""Native tool calls: tools go into the request, calls come back as the API has them, not as text.

DSPy's adapters do this where `use_native_function_calling` is on. What becomes of a call then::

    signature                question, tools: list[dspy.Tool] -> thought, tool_calls: dspy.ToolCalls
      without both fields    question -> thought              laid out and read in Rust as any other
    request                  its messages, + tools, tool_choice, parallel_tool_calls
    history                  turns that called tools become `tool_calls` and messages of the role `tool`
    answer                   text -> thought;  calls -> tool_calls;  what is missing is None

An answer that calls tools need not have the other fields: a text that cannot be read is then none. Where the
language model says of itself that it has no native calls (`supports_function_calling = False`), the fields
stay in the prompt and the settings of tools stay out of the request. DSPy asks a list of models instead,
which knows no server of one's own; dspex takes the adapter at its word.

Only the native side does this. A worker would ask that list, and might do the one or the other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args, get_origin

from dspex._core import Dialect
from dspex._release import released
from dspex._settings import of_call
from dspex.errors import ConfigError, InputError, ReplyError, RouteError
from dspex.runtime._replies import messages_for, read_reply

if TYPE_CHECKING:
    from dspex._core import Plan, ReplyStream
    from dspex.adapters import Adapter
    from dspex.lm import LanguageModel, LMChoice, LMToolCall
    from dspex.prediction import Repair
    from dspex.router import Operation
    from dspex.signature import Signature

__all__ = ["Offer", "messages_of", "offer_of", "read_choice", "refusal_of_workers"]

TOOL_SETTINGS: Final = ("tools", "tool_choice", "parallel_tool_calls")


class Offer(NamedTuple):
    """What goes into a call.

    Attributes:
        signature: The fields that are laid out as text.
        config: Settings of the request.
    """

    signature: Signature
    config: dict[str, Any]


def offer_of(operation: Operation, adapter: Adapter, lm: Any) -> Offer:
    """The signature to lay out and the settings to send.

    Raises:
        ConfigError: If the signature takes calls of tools and no tools (`no-tools-field`), or a setting is
            none of a request's (`lm-setting`).
        InputError: If the value of the tools' field is none (`bad-tools`).
    """
    signature = operation.signature
    if not adapter.use_native_function_calling:
        return Offer(signature, of_call(operation.config, cache=True))
    config = dict(operation.config)
    fields = _fields_of(signature)
    if fields.output is None:
        return Offer(signature, _finished(config))
    if fields.input is None:
        raise ConfigError(
            f"the output {fields.output!r} is for calls of tools, and no input of the signature has tools",
            code="no-tools-field",
            hint="add an input of the type list[dspy.Tool]",
        )
    if not getattr(lm, "supports_function_calling", True):
        for name in TOOL_SETTINGS:
            config.pop(name, None)
        return Offer(signature, of_call(config, cache=True))
    config["tools"] = _described(operation.inputs.get(fields.input), fields.input)
    if adapter.parallel_tool_calls is not None and config.get("parallel_tool_calls") is None:
        config["parallel_tool_calls"] = adapter.parallel_tool_calls
    return Offer(_without(signature, fields), _finished(config))


def _finished(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("parallel_tool_calls") is not None:
        config.setdefault("tool_choice", "auto")
    for name in TOOL_SETTINGS:  # last and in this order, as `dspy.LM` writes them
        if name in config:
            config[name] = config.pop(name)
    return of_call(config, tools=True, cache=True)


def _described(given: Any, field: str) -> list[dict[str, Any]]:
    tools = given if isinstance(given, list) else [given]
    try:
        return [tool.format_as_litellm_function_call() for tool in tools]
    except AttributeError:
        raise InputError(
            f"`{field}` must be a dspy.Tool or a list of them",
            code="bad-tools",
            hint=f"write {field}=[dspy.Tool(function), ...]",
        ) from None


class _Fields(NamedTuple):
    """The names of the fields that native calls have to do with."""

    input: str | None
    output: str | None
    history: str | None
    reasoning: tuple[str, ...]


@released
@lru_cache(maxsize=1024)
def _fields_of(signature: Signature) -> _Fields:
    tool, calls = _class("tool", "Tool"), _class("tool", "ToolCalls")
    history, reasoning = _class("history", "History"), _class("reasoning", "Reasoning")
    inputs = {name: field.annotation for name, field in signature.input_fields.items()}
    outputs = {name: field.annotation for name, field in signature.output_fields.items()}
    return _Fields(
        next((name for name, kind in inputs.items() if tool is not None and _takes(kind, tool)), None),
        next((name for name, kind in outputs.items() if calls is not None and kind == calls), None),
        next((name for name, kind in inputs.items() if history is not None and kind == history), None),
        tuple(name for name, kind in outputs.items() if reasoning is not None and kind is reasoning),
    )


def _takes(kind: Any, tool: Any) -> bool:
    return kind == tool or (get_origin(kind) is list and get_args(kind)[:1] == (tool,))


def _class(module: str, name: str) -> Any:
    """A class of DSPy's if DSPy is loaded; None if not: no field can have it then."""
    return getattr(sys.modules.get(f"dspy.adapters.types.{module}"), name, None)


@released
@lru_cache(maxsize=1024)
def _without(signature: Signature, fields: _Fields) -> Signature:
    assert fields.input is not None and fields.output is not None  # noqa: S101, PT018 - the caller has looked
    return signature.delete(fields.output).delete(fields.input)


# --- messages ---------------------------------------------------------------------------------------


def messages_of(
    lm: LanguageModel, plan: Plan, signature: Signature, operation: Operation, adapter: Adapter
) -> Sequence[Mapping[str, Any]]:
    """The messages of a call, as the adapter of DSPy's lays them out.

    Args:
        lm: The language model that is asked.
        plan: The plan of `signature`.
        signature: The fields that are laid out as text.
        operation: The call.
        adapter: Its adapter.
    """
    inputs, demos = operation.inputs, operation.demos
    name = _fields_of(signature).history if adapter.use_native_function_calling else None
    turns: Sequence[Mapping[str, Any]] = getattr(inputs.get(name or ""), "messages", None) or ()
    if name is None or not any(_calls_in(turn) for turn in turns):
        return messages_for(lm, plan, operation)
    bare = signature.delete(name)
    layout = _Turns(bare, adapter, plan.dialect)
    ends = len(plan.render(inputs, (), [])) - 1  # the message of the call itself, where it has one
    around = plan.render(inputs, demos, [])
    at = len(around) - ends
    between = [message for turn in turns for message in layout.messages(turn)]
    return [*around[:at], *between, *around[at:]]


def _calls_in(turn: Mapping[str, Any]) -> bool:
    calls = _class("tool", "ToolCalls")
    return any(
        isinstance(value, calls) or (isinstance(value, dict) and "tool_calls" in value)
        for value in turn.values()
    )


class _Turns:
    """Lays out the turns of a conversation.

    Args:
        signature: The fields without that of the history.
        adapter: The adapter.
        dialect: The dialect of the prompt.
    """

    def __init__(self, signature: Signature, adapter: Adapter, dialect: str) -> None:
        self._signature = signature
        self._adapter = adapter
        self._plan = adapter.compile(signature, dialect)
        self._rest = len(self._plan.render({}, (), [])) - 1
        self._dialect = Dialect(dialect)
        # The client of DSPy 3.4 writes arguments without blanks and in ASCII, and leaves the tool's name out.
        self._compact = self._dialect.name != "3.3"
        self._calls = _class("tool", "ToolCalls")

    def messages(self, turn: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The messages of one turn."""
        calls = self._called(turn)
        if calls is None:
            laid_out = self._plan.render({}, (), [turn])
            return laid_out[1 : len(laid_out) - self._rest]
        messages: list[dict[str, Any]] = []
        given = {name: turn[name] for name in self._signature.input_fields if name in turn}
        if given:
            messages.append(self._plan.render({}, (), [given])[1])
        text, results = self._text(turn), _results(calls)
        if text or results is not None:
            message: dict[str, Any] = {"role": "assistant", "content": text or None}
            if results is not None:
                message["tool_calls"] = [self._call(call) for call in calls.tool_calls]
            messages.append(message)
        for result in results or ():
            content = result.value if isinstance(result.value, str) else self._json(result.value)
            answer = {"role": "tool", "tool_call_id": result.call_id}
            name = {} if self._compact else {"name": result.name}
            messages.append({**answer, **name, "content": content})
        return messages

    def _called(self, turn: Mapping[str, Any]) -> Any:
        for value in turn.values():
            if isinstance(value, self._calls) or (isinstance(value, dict) and "tool_calls" in value):
                return self._calls.model_validate(value)
        return None

    def _text(self, turn: Mapping[str, Any]) -> str | None:
        """What the model said beside its calls: the outputs that the turn has."""
        signature, said = self._signature, {}
        for name, field in self._signature.output_fields.items():
            if field.annotation == self._calls or turn.get(name) is None:
                signature = signature.delete(name)
            else:
                said[name] = turn[name]
        if not said:
            return None
        laid_out = self._adapter.compile(signature, self._dialect.name).render({}, (), [said])
        text: str = laid_out[1]["content"]
        return text

    def _call(self, call: Any) -> dict[str, Any]:
        arguments = self._json(call.args)
        if self._compact:
            arguments = json.dumps(json.loads(arguments), separators=(",", ":"))
        return {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments},
        }

    def _json(self, value: Any) -> str:
        from dspex._engine.values import plain

        return json.dumps(plain(value, self._dialect), ensure_ascii=False)


def _results(calls: Any) -> Sequence[Any] | None:
    """What the tools gave, where each call has a name and its result has the same; else None."""
    if calls.tool_call_results is None:
        return None
    results = _class("tool", "ToolCallResults").model_validate(calls.tool_call_results).tool_call_results
    called = [call.id for call in calls.tool_calls]
    return results if called == [result.call_id for result in results] and all(called) else None


# --- answers ----------------------------------------------------------------------------------------


def read_choice(
    plan: Plan,
    choice: LMChoice,
    signature: Signature,
    shown: Signature,
    parsing: str,
    reader: Plan | ReplyStream,
) -> tuple[dict[str, Any], list[Repair]]:
    """The fields of one generation, and what was repaired in it.

    Args:
        plan: The plan of `shown`.
        choice: The generation.
        signature: The call's own.
        shown: The fields that were laid out as text.
        parsing: The adapter's way of reading.
        reader: What reads its text: the plan, or what has read it while it came.

    Raises:
        ReplyError: If it cannot be read.
    """
    if shown is signature and choice.text and not (choice.tool_calls or choice.reasoning):
        return read_reply(reader, choice.text)
    fields = _fields_of(signature)
    called = choice.tool_calls if fields.output is not None else ()
    if not choice.text and not called:
        raise ReplyError.empty()
    values: dict[str, Any] = {}
    done: list[Repair] = []
    if choice.text and (not called or shown.output_fields):
        try:
            values, done = read_reply(reader, choice.text)
        except ReplyError:
            if not called:
                raise
    if called or shown is not signature:
        values = _filled(signature, values)
    if called and fields.output is not None:
        # The client of DSPy 3.4 reads arguments before the adapter can repair them.
        read = _by_the_client if parsing == "dspy" and plan.dialect != "3.3" else _repaired
        values[fields.output] = _made(called, fields.output, read)
    if choice.reasoning:
        for name in fields.reasoning:
            values[name] = _class("reasoning", "Reasoning")(content=choice.reasoning)
    return values, done


def _filled(signature: Signature, values: dict[str, Any]) -> dict[str, Any]:
    """The values and those that are missing: what may be left out in its place, None for the rest last."""
    filled: dict[str, Any] = {}
    for name, field in signature.output_fields.items():
        if name in values:
            filled[name] = values[name]
        elif field.has_default:
            filled[name] = field.get_default()
        elif field.optional:
            filled[name] = None
    return filled | dict.fromkeys(name for name in signature.output_fields if name not in filled)


def _repaired(call: LMToolCall) -> Any:
    return call.args


def _by_the_client(call: LMToolCall) -> dict[str, Any]:
    if not call.arguments:
        return {}
    try:
        value = json.loads(call.arguments)
    except ValueError:
        return {"partial_json": call.arguments}
    return value if isinstance(value, dict) else {"value": value}


def _made(called: Sequence[LMToolCall], field: str, read: Callable[[LMToolCall], Any]) -> Any:
    try:
        return _class("tool", "ToolCalls").from_dict_list(
            [{"id": call.id, "name": call.name, "args": read(call)} for call in called]
        )
    except (ValueError, RecursionError) as error:  # pydantic's is a ValueError
        raise ReplyError(
            f"the arguments of a call of a tool cannot be read: {error}",
            code="reply-field-value",
            hint="the model has to write them as a JSON object",
            reply="",
            fields=[],
            field=field,
        ) from error


def refusal_of_workers(adapter: Adapter) -> RouteError | None:
    """Why a worker cannot run a call with this adapter; None where it can."""
    if not adapter.use_native_function_calling:
        return None
    return RouteError(
        "native tool calls run on the native side alone",
        code="native-tools",
        hint='leave out route="python", or use_native_function_calling=',
        adapter=adapter.layout,
    )
