"""The drop-in adapters.

Each is DSPy's own class with two methods replaced, `format` and `parse`. What the core does not do, or
refuses, goes to the method it replaces: so an error is DSPy's, with all its attributes, and so is any
behaviour that somebody has changed. Whether somebody has is looked up at each call, where Python would look:
a method may come from a subclass, a class beside ours or the instance, or be replaced in DSPy's own class.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Literal

import dspy
from dspy.utils.exceptions import AdapterParseError

from dspex import dialects
from dspex._core import are_same, guess_steps
from dspex._engine.dspy_adapters import CoreAdapter, function_of, without_callbacks
from dspex._engine.replies import DSPY_STEPS
from dspex.errors import ConfigError, InputError, ReplyError
from dspex.prediction import Repair

__all__ = ["ChatAdapter", "JSONAdapter", "XMLAdapter"]


class _Hooks:
    """What DSPy's classes say of some methods, to be compared with what an adapter says.

    Args:
        cls: The class of DSPy's that a drop-in stands for.
        names: The methods' names.
    """

    def __init__(self, cls: type, names: Iterable[str]) -> None:
        own = {name: getattr(cls, name) for name in names if hasattr(cls, name)}
        self._names = frozenset(own)
        # What was replaced before this module was imported is nobody's default.
        known = {name: function_of(method) if _is_dspys(method) else None for name, method in own.items()}
        # A class method is another object each time it is looked up; all others are read in one go.
        self._bound = [(name, known.pop(name)) for name in [*own] if hasattr(own[name], "__func__")]
        if len(known) == 1:
            known["__hash__"] = object.__hash__  # so that what is found is a tuple
        self._find = attrgetter(*known)
        self._own = tuple(known.values())

    def are_dspys(self, adapter: Any) -> bool:
        """Whether the adapter has these methods from DSPy, and no others."""
        cls = type(adapter)
        return (
            are_same(self._find(cls), self._own)
            and (not self._bound or all(function_of(getattr(cls, name)) is own for name, own in self._bound))
            and self._names.isdisjoint(adapter.__dict__)
        )


def _is_dspys(function: Any) -> bool:
    return function is object.__getattribute__ or str(getattr(function, "__module__", "")).startswith("dspy.")


_FORMAT = (
    *(
        "format_system_message",
        "format_field_description",
        "format_field_structure",
        "format_task_description",
    ),
    *("format_user_message_content", "format_assistant_message_content", "user_message_output_requirements"),
    *("format_demos", "format_conversation_history", "format_field_with_value", "_get_history_field_name"),
    *("_value_to_xml", "_xml_schema", "_schema_to_xml", "_uses_nested_xml", "__getattribute__"),
)
"""Methods of which DSPy's `format` is made, in one class or another."""

_PARSE = ("_group_children", "_elements_to_value", "__getattribute__")
"""Methods of which DSPy's `parse` is made."""


def _log_repairs(repairs: Sequence[Repair]) -> None:
    said = ", ".join(f"`{repair.field}`: {repair.code}" for repair in repairs)
    logging.getLogger("dspex.adapters").info("a reply was read with tolerance (%s)", said)


class _DropIn(CoreAdapter):
    """What the three drop-ins share.

    Args:
        *args: What DSPy's class takes.
        parsing: `"dspy"` reads a reply as DSPy does, `"tolerant"` also reads replies that nearly fit.
        on_repair: Called with what was done to a reply before it could be read; by default it is logged.
        dialect: The version of DSPy whose prompts are written, for a program whose prompts are to stay as
            they were; by default the installed one's.
        **kwargs: What DSPy's class takes.

    Raises:
        ConfigError: If there is no such way of reading, or no such dialect.
    """

    _hooks: ClassVar[tuple[_Hooks, _Hooks]]
    _replaced: ClassVar[tuple[Any, ...]]

    def __init__(
        self,
        *args: Any,
        parsing: Literal["dspy", "tolerant"] = "dspy",
        on_repair: Callable[[Sequence[Repair]], None] = _log_repairs,
        dialect: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if parsing not in ("dspy", "tolerant"):
            raise ConfigError(
                f"parsing={parsing!r} is not known", code="parsing", hint="use 'dspy' or 'tolerant'"
            )
        self.parsing = parsing
        self.on_repair = on_repair
        self.dialect = dialect
        if dialects.chosen(dialect) is None:
            dialects.warn_unknown("its adapters do the work themselves")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_layout" in cls.__dict__:
            theirs = cls.theirs()
            cls._hooks = _Hooks(theirs, _FORMAT), _Hooks(theirs, _PARSE)
            found = theirs.format, theirs.parse
            cls._replaced = tuple(function if _is_dspys(function) else None for function in found)

    def _messages_of(self, theirs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        if function_of(theirs) is self._replaced[0] and self._hooks[0].are_dspys(self):
            plan = self._plan(signature)
            native_calls = self.use_native_function_calling  # type: ignore[attr-defined]
            # `demos=None` is an error of DSPy's, and no demos to the core.
            if plan is not None and demos is not None and not (plan.has_history and native_calls):
                try:
                    return plan.render(inputs if type(inputs) is dict else dict(inputs), demos)
                except InputError:
                    pass
        return without_callbacks(theirs)(signature, demos, inputs)

    def _fields_of(self, theirs: Any, signature: Any, completion: Any) -> Any:
        if function_of(theirs) is not self._replaced[1] or not self._hooks[1].are_dspys(self):
            return without_callbacks(theirs)(signature, completion)
        plan = self._plan(signature)
        if plan is not None and type(completion) is str:
            try:
                fields, repairs = plan.read(completion)
            except InputError:
                pass
            except ReplyError as error:
                if error.code == "reply-too-costly":
                    raise self._refusal(signature, completion, error) from error
            else:
                if _is_whole(completion):
                    if repairs:
                        self.on_repair(repairs)
                    return fields
        if type(completion) is str and _is_costly(self._layout, completion):
            raise self._refusal(signature, completion, "it would take too long to say what is wrong with it")
        try:
            return without_callbacks(theirs)(signature, completion)
        except (MemoryError, RecursionError) as error:
            raise self._refusal(signature, completion, "it is nested too deep") from error

    def _refusal(self, signature: Any, completion: str, reason: object) -> AdapterParseError:
        return AdapterParseError(
            adapter_name=type(self).__name__, signature=signature, lm_response=completion, message=str(reason)
        )

    def _make_json_adapter_fallback(self) -> Any:
        made = super()._make_json_adapter_fallback()  # type: ignore[misc]
        if type(made) is not dspy.JSONAdapter:
            return made
        # What is asked again in JSON is read by the core too.
        ours = JSONAdapter(parsing=self.parsing, on_repair=self.on_repair, dialect=self.dialect)
        ours.__dict__.update(made.__dict__)
        return ours


def _is_whole(text: str) -> bool:
    """Whether it holds no half of a surrogate pair: the core repairs those, and DSPy does not."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


_BETWEEN = {"chat": r"\[\[ ## \w+ ## \]\]", "xml": r"<[^<>]*>"}
"""What stands between the texts that DSPy reads as values."""


def _is_costly(layout: str, completion: str) -> bool:
    """Whether DSPy's own code would take more than some 30 ms for what the core has refused."""
    texts = re.split(_BETWEEN[layout], completion) if layout in _BETWEEN else [completion]
    steps = 0
    for text in texts:
        steps += guess_steps(text)
        if steps > DSPY_STEPS:
            return True
    # DSPy looks for an object with a pattern that begins anew at each brace left open.
    still_open = completion.count("{") - completion.count("}")
    return layout == "json" and still_open * len(completion) > _BRACES_BY_LENGTH


_BRACES_BY_LENGTH = 1_000_000


class ChatAdapter(_DropIn, dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no type hints
    """`dspy.ChatAdapter`, rendered and read by the core."""

    _layout = "chat"


class JSONAdapter(_DropIn, dspy.JSONAdapter):  # type: ignore[misc]
    """`dspy.JSONAdapter`, rendered and read by the core."""

    _layout = "json"


class XMLAdapter(_DropIn, dspy.XMLAdapter):  # type: ignore[misc]
    """`dspy.XMLAdapter`, rendered and read by the core."""

    _layout = "xml"
