"""The adapters of a worker's calls: DSPy's, which read a reply as the call wants it read.

A request without `parsing` gets DSPy's adapter as it is. A runtime says `parsing`, so that a worker and the
native route accept the same replies, give the same values and raise the same errors:

- Messages are DSPy's own, made by DSPy's own code, unless the request brings them: where markers are escaped,
  which DSPy does not know, or a value cannot cross, the runtime lays the prompt out.
- `parsing="dspy"`: DSPy's own code reads the reply. What it refuses is an error of DSPy's with few facts, so
  the core, which refuses the same, says what was wrong.
- `parsing="tolerant"`: the core reads the reply, and each repair is kept for the answer. To ask DSPy first
  and the core only where DSPy refuses would be another reading than the native one: DSPy also takes replies
  of which a part is lost, or a part of a marker stays in the value.

`baml` reads replies as `json` does. `two_step` asks a second model by its nature: it is DSPy's own, as it is.

Nothing else is asked twice: no format falls back to another, and JSON is asked for by the prompt alone,
because whether DSPy asks the server too hangs on litellm's list of models, which the native route lacks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, Literal, Self

import dspy
from dspy.adapters import baml_adapter

from dspex._core import Plan
from dspex._engine.dspy_adapters import CoreAdapter, without_callbacks
from dspex.errors import DspexError, ReplyError
from dspex.prediction import Repair
from dspex.protocol.requests import ModuleRequest, PredictRequest

__all__ = ["ADAPTERS", "CallAdapter", "PromptAloneError", "make"]

ADAPTERS: Final[Mapping[str, Callable[[], dspy.Adapter]]] = {
    # dspex never makes a second LM call that nobody asked for, so no fallback from one format to another.
    "chat": lambda: dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter,
    "xml": lambda: dspy.XMLAdapter(use_json_adapter_fallback=False),
    "baml": baml_adapter.BAMLAdapter,
}
"""The adapters a request may name, and `two_step`, which takes a model."""

TWO_STEP: Final = "two_step"


class PromptAloneError(Exception):
    """The messages are there, and no more was asked for: the call ends before it comes to its model."""


class CallAdapter(CoreAdapter):
    """What the runtime's adapters have beside DSPy's; `for_call` gives one its own list of repairs."""

    def __init__(self, *args: Any, parsing: Literal["dspy", "tolerant"] = "tolerant", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parsing = parsing
        # Types that DSPy takes from another part of an answer than its text, where a model can do that.
        self.native_response_types: list[Any] = []
        self.repairs: list[Repair] = []
        self.replies: list[str] = []
        self.messages: Any = None
        self._given: Any = None
        self._alone = False

    def for_call(self, messages: Any, *, alone: bool = False) -> Self:
        """A twin that nobody else writes repairs into, with the call's messages if it brings them.

        Args:
            messages: These.
            alone: Whether nothing is wanted of it but the messages.
        """
        twin = copy.copy(self)
        twin.repairs, twin.replies, twin.messages, twin._given, twin._alone = [], [], None, messages, alone
        return twin

    def _messages_of(self, theirs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """The call's messages, or DSPy's."""
        made = without_callbacks(theirs)(signature, demos, inputs) if self._given is None else self._given
        self.messages = made
        if self._alone:
            raise PromptAloneError
        return made

    def _fields_of(self, theirs: Any, signature: Any, completion: str) -> Any:
        """The fields of a reply, read as the call wants it."""
        self.replies.append(completion)
        plan = self._plan(signature)
        if plan is not None and self.parsing == "tolerant":
            try:
                fields, repairs = plan.read(completion)
            except DspexError:
                raise
            except Exception as error:
                raise ReplyError.raised(error, completion) from error
            self.repairs += repairs
            return fields
        try:
            return without_callbacks(theirs)(signature, completion)
        except Exception as error:  # a validator of the user's may raise anything
            raise _explained(plan, completion, error) from error

    def _call_postprocess(self, processed: Any, original: Any, outputs: Any, *rest: Any) -> Any:
        if not outputs:
            raise ReplyError.empty("it has no choices")
        rows = []
        for output in outputs:  # one by one: the first that is wrong is the error
            text = output.get("text") or output.get("tool_calls") if isinstance(output, dict) else output
            if not text:
                raise ReplyError.empty()
            rows += super()._call_postprocess(processed, original, [output], *rest)  # type: ignore[misc]
        return rows


def _explained(plan: Plan | None, reply: str, error: Exception) -> Exception:
    """What the core says of a reply that DSPy refuses."""
    try:
        if plan is not None:
            plan.parse(reply)
    except ReplyError as explained:
        return explained
    except Exception as raised:  # noqa: BLE001 - a validator of the user's may raise anything
        return ReplyError.raised(raised, reply)
    return error


class ChatAdapter(CallAdapter, dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no type hints
    """`dspy.ChatAdapter` for a call."""

    _layout = "chat"


class JSONAdapter(CallAdapter, dspy.JSONAdapter):  # type: ignore[misc]
    """`dspy.JSONAdapter` for a call."""

    _layout = "json"

    # What JSONAdapter adds to these is the choice of a `response_format`.
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As `dspy.ChatAdapter`."""
        return dspy.ChatAdapter.__call__(self, *args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """As `dspy.ChatAdapter`."""
        return await dspy.ChatAdapter.acall(self, *args, **kwargs)


class BAMLAdapter(CallAdapter, baml_adapter.BAMLAdapter):  # type: ignore[misc]
    """DSPy's BAML adapter for a call."""

    _layout = "json"

    __call__ = JSONAdapter.__call__
    acall = JSONAdapter.acall


class XMLAdapter(CallAdapter, dspy.XMLAdapter):  # type: ignore[misc]
    """`dspy.XMLAdapter` for a call."""

    _layout = "xml"


def make(request: PredictRequest | ModuleRequest, extraction: Callable[[], dspy.LM]) -> dspy.Adapter:
    """The adapter that a request names by `adapter` and `parsing`.

    Args:
        request: The call's.
        extraction: Gives the model for the second step, where there is one.
    """
    name = request.adapter or "chat"
    if name == TWO_STEP:
        return dspy.TwoStepAdapter(extraction())
    made = _made(name, request.parsing)
    if not isinstance(made, CallAdapter):
        return made
    return made.for_call(request.messages, alone=request.prompt == "alone")


@cache
def _made(name: str, parsing: Literal["dspy", "tolerant"] | None) -> dspy.Adapter:
    if parsing is None:
        return ADAPTERS[name]()
    if name in ("json", "baml"):
        cls = JSONAdapter if name == "json" else BAMLAdapter
        return cls(use_native_function_calling=False, parsing=parsing)
    other = {"chat": ChatAdapter, "xml": XMLAdapter}[name]
    return other(use_json_adapter_fallback=False, parsing=parsing)
