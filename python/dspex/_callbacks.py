"""How callbacks hear of calls: DSPy's order, DSPy's names, DSPy's ids.

::

    on_module_start   id A        the callbacks of the runtime, then those of the module itself
      on_adapter_format_start/end     those of the runtime, then those of the adapter
      on_lm_start/end                 those of the runtime, then those of the language model
      on_adapter_parse_start/end      once for each generation that has text
      on_tool_start/end               an agent's tools: those of the runtime
    on_module_end     id A        with what the call returned, or with what it raised

    on_evaluate_start/end             around the calls of an evaluation: as for those of the module

While A runs, `active_call_id()` is A: whatever starts inside finds its parent there. Where DSPy is loaded its
`ACTIVE_CALL_ID` says the same, so that a callback which was written for DSPy finds its parents too, and a
program of DSPy's that calls one of dspex's, or the other way round, makes one tree.

A callback is told, never asked: what it returns is dropped, what it raises is logged as a warning of
`dspex.callbacks`, and the call goes on. Only what is no `Exception`, such as Ctrl-C, goes through.

Most processes have no callbacks. So `given` says whether there have been any, and a call that finds it False
does nothing else.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Any, Final

from dspex._timeouts import shown
from dspex.errors import ConfigError

__all__ = ["HOOKS", "CallResult", "Callbacks", "active_call_id", "callbacks_of", "given", "hear"]

HOOKS: Final = tuple(
    f"on_{what}_{when}"
    for what in ("module", "lm", "adapter_format", "adapter_parse", "tool", "evaluate")
    for when in ("start", "end")
)
"""The methods that are called."""

given = False
"""Whether anything in this process has been given a callback."""

_log = logging.getLogger("dspex.callbacks")
_active: ContextVar[str | None] = ContextVar("dspex_call_id", default=None)


class Callbacks(tuple[Any, ...]):
    """Callbacks in the order in which they are told.

    A copy of what holds them shares them; a pickle of it has none, as in DSPy: they belong to this process.
    """

    __slots__ = ()

    def __radd__(self, others: list[Any]) -> list[Any]:
        """What DSPy does around a method of a module that its `with_callbacks` decorates."""
        return [*others, *self]

    def __deepcopy__(self, memo: dict[int, Any]) -> Callbacks:
        return self

    def __reduce__(self) -> tuple[type[Callbacks], tuple[()]]:
        return Callbacks, ()


NONE: Final = Callbacks()


def callbacks_of(callbacks: Any) -> Callbacks:
    """The callbacks that something was given; None is none.

    Raises:
        ConfigError: If they are no list of objects with one of DSPy's methods, or one is async
            (`bad-callbacks`).
    """
    global given
    if callbacks is None:
        return NONE
    if isinstance(callbacks, str | bytes | Mapping) or not isinstance(callbacks, Iterable):
        one = any(hasattr(callbacks, name) for name in HOOKS)
        raise _bad(
            f"callbacks must be a list of objects, not {shown(callbacks)}",
            "put the one callback into a list: callbacks=[callback]" if one else "",
        )
    found = Callbacks(callbacks)
    for callback in found:
        handlers = [handler for name in HOOKS if callable(handler := getattr(callback, name, None))]
        if isinstance(callback, type) or not handlers:
            raise _bad(
                f"a callback is an object with methods such as on_module_start, not {shown(callback)}",
                f"make one of it: {callback.__name__}()" if isinstance(callback, type) else "",
            )
        for handler in handlers:
            if iscoroutinefunction(handler):
                raise _bad(
                    f"{type(callback).__name__}.{handler.__name__} is async, and nobody would await it",
                    "write it as a plain method; it may start a task",
                )
    given = given or bool(found)
    return found


def _bad(message: str, hint: str) -> ConfigError:
    return ConfigError(
        message,
        code="bad-callbacks",
        hint=hint or "write callbacks=[MyCallback()], of a class derived from dspex.callbacks.BaseCallback",
    )


class CallResult:
    """What the callbacks are told when a call ends; whoever makes the call sets it."""

    __slots__ = ("outputs",)

    def __init__(self) -> None:
        self.outputs: Any = None


@contextmanager
def hear(
    callbacks: Sequence[Any], what: str, instance: Any, inputs: Mapping[str, Any]
) -> Iterator[CallResult]:
    """Tell the callbacks that a call begins, and when the block ends, how.

    Args:
        callbacks: Who is told.
        what: Of what: `"module"`, `"lm"`, `"adapter_format"`, `"adapter_parse"`, `"tool"` or `"evaluate"`.
        instance: Whose call it is.
        inputs: What the call is given, by the names of its arguments.
    """
    from uuid import uuid4

    call_id = uuid4().hex
    for callback in callbacks:
        _tell(callback, f"on_{what}_start", call_id=call_id, instance=instance, inputs=inputs)
    of_dspy = _of_dspy()
    outer, outer_of_dspy = _active.get(), None if of_dspy is None else of_dspy.get()
    _activate(call_id, call_id, of_dspy)
    told = CallResult()
    error: BaseException | None = None
    try:
        yield told
    except BaseException as raised:
        error = raised
        raise
    finally:
        _activate(outer, outer_of_dspy, of_dspy)
        for callback in callbacks:
            _tell(callback, f"on_{what}_end", call_id=call_id, outputs=told.outputs, exception=error)
        error = None  # it holds this frame by its traceback


def _tell(callback: Any, name: str, **what: Any) -> None:
    handler = getattr(callback, name, None)
    if handler is None:
        return
    try:
        handler(**what)
    except Exception as error:  # noqa: BLE001 - whatever a callback raises is no failure of the call
        kind, text = type(error).__name__, str(error)
        _log.warning("%s.%s raised %s: %.200s", type(callback).__name__, name, kind, text)


def active_call_id() -> str | None:
    """The id of the call that runs in this context; None outside of calls that callbacks hear of.

    In `on_..._start` it is the id of the call around the one that starts.
    """
    theirs = _of_dspy()
    return (None if theirs is None else theirs.get()) or _active.get()


def _activate(here: str | None, there: str | None, of_dspy: ContextVar[str | None] | None) -> None:
    # Set and not reset by a token: a stream may end in another context than it began in. Each of the two goes
    # back to what it was, as a call of DSPy's around this one is known to DSPy alone.
    _active.set(here)
    if of_dspy is not None:
        of_dspy.set(there)


def _of_dspy() -> ContextVar[str | None] | None:
    """DSPy's own variable, where DSPy is loaded."""
    return getattr(sys.modules.get("dspy.utils.callback"), "ACTIVE_CALL_ID", None)
