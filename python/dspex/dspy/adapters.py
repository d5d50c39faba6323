"""The drop-in adapters.

Each is DSPy's own class with two methods replaced, `format` and `parse`. What the core does not do, or
refuses, goes to the method it replaces: so an error is DSPy's, with all its attributes, and so is any
behaviour that a subclass has changed.

They keep DSPy's class names because its streaming looks adapters up by name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import dspy
from dspy.utils.callback import with_callbacks

from dspex import dialects
from dspex._core import Plan
from dspex.dspy.plans import Plans
from dspex.errors import ConfigError, InputError, ReplyError
from dspex.prediction import Repair

__all__ = ["ChatAdapter", "JSONAdapter", "XMLAdapter"]

_HOOKS = frozenset(
    name for name in dir(dspy.ChatAdapter) if name.startswith(("format_", "user_message_", "_get_history_"))
)
"""Methods of which `format` is made; a subclass that changes one gets DSPy's whole way."""


def _plain(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of DSPy's without the callbacks around it: ours has reported the call already."""
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    return method


def _log_repairs(repairs: Sequence[Repair]) -> None:
    said = ", ".join(f"`{repair.field}`: {repair.code}" for repair in repairs)
    logging.getLogger("dspex.adapters").info("a reply was read with tolerance (%s)", said)


@cache
def _plans(layout: str, tolerant: bool, dialect: str | None) -> Plans:
    return Plans(layout, tolerant=tolerant, dialect=dialect)


class _Native:
    """What the three drop-ins share.

    Args:
        *args: What DSPy's class takes.
        parsing: `"dspy"` reads a reply as DSPy does, `"tolerant"` reads near misses too.
        on_repair: Called with what was done to a reply before it could be read; by default it is logged.
        dialect: The version of DSPy whose prompts are written, for a program whose prompts are to stay as
            they were; by default the installed one's.
        **kwargs: What DSPy's class takes.

    Raises:
        ConfigError: If there is no such way of reading, or no such dialect.
    """

    _layout: ClassVar[str]
    _is_native: ClassVar[bool] = True
    _format: ClassVar[Callable[..., Any]]
    _parse: ClassVar[Callable[..., Any]]

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
        changed = _HOOKS & cls.__dict__.keys()
        super().__init_subclass__(**kwargs)
        if "_layout" in cls.__dict__:
            theirs = cls.__mro__[2]
            cls._format, cls._parse = _plain(theirs.format), _plain(theirs.parse)  # type: ignore[attr-defined]
        elif changed:
            cls._is_native = False

    def _plan(self, signature: type[dspy.Signature]) -> Plan | None:
        """The plan for a signature; None where the core cannot serve it."""
        if not self._is_native:
            return None
        # Found anew each time: an adapter may be copied and pickled, plans may not.
        return _plans(self._layout, self.parsing == "tolerant", self.dialect).get(signature)

    def _messages(self, signature: Any, demos: Any, inputs: Any) -> Any:
        plan = self._plan(signature)
        if plan is not None and not (plan.has_history and self.use_native_function_calling):  # type: ignore[attr-defined]
            try:
                return plan.render(inputs if type(inputs) is dict else dict(inputs), demos)
            except InputError:
                pass
        return type(self)._format(self, signature, demos, inputs)

    def _fields(self, signature: Any, completion: Any) -> Any:
        plan = self._plan(signature)
        if plan is not None and type(completion) is str and _is_whole(completion):
            try:
                fields, repairs = plan.read(completion)
            except (InputError, ReplyError):
                pass
            else:
                if repairs:
                    self.on_repair(repairs)
                return fields
        return type(self)._parse(self, signature, completion)


def _is_whole(text: str) -> bool:
    """Whether no half of a surrogate pair is in it: those the core mends, and DSPy does not."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


class ChatAdapter(_Native, dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no type hints
    """`dspy.ChatAdapter`, rendered and read by the core."""

    _layout = "chat"

    def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
        """As `dspy.ChatAdapter.format`."""
        return self._messages(signature, demos, inputs)

    def parse(self, signature: Any, completion: Any) -> Any:
        """As `dspy.ChatAdapter.parse`."""
        return self._fields(signature, completion)


class JSONAdapter(_Native, dspy.JSONAdapter):  # type: ignore[misc]
    """`dspy.JSONAdapter`, rendered and read by the core."""

    _layout = "json"

    # DSPy's class inherits this method with its callbacks and gets others around it: two events a call.
    @with_callbacks  # type: ignore[untyped-decorator]
    def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
        """As `dspy.JSONAdapter.format`."""
        return self._messages(signature, demos, inputs)

    def parse(self, signature: Any, completion: Any) -> Any:
        """As `dspy.JSONAdapter.parse`."""
        return self._fields(signature, completion)


class XMLAdapter(_Native, dspy.XMLAdapter):  # type: ignore[misc]
    """`dspy.XMLAdapter`, rendered and read by the core."""

    _layout = "xml"

    @with_callbacks  # type: ignore[untyped-decorator]
    def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
        """As `dspy.XMLAdapter.format`."""
        return self._messages(signature, demos, inputs)

    def parse(self, signature: Any, completion: Any) -> Any:
        """As `dspy.XMLAdapter.parse`."""
        return self._fields(signature, completion)
