"""The adapters of a worker's calls: DSPy's, which read a reply as the call wants it read.

A payload without `parsing` gets DSPy's adapter as it is. A runtime says `parsing`, so that a worker and the
native route accept the same replies, give the same values and raise the same errors:

- Messages are DSPy's own, made by DSPy's own code, unless the payload brings them: where markers are escaped,
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
from typing import Any, Final, Self

import dspy
from dspy.adapters.baml_adapter import BAMLAdapter

from dspex._core import Plan
from dspex._engine.plans import Plans
from dspex.errors import DspexError, ReplyError
from dspex.prediction import Repair

__all__ = ["ADAPTERS", "Reading", "make"]

ADAPTERS: Final[Mapping[str, Callable[[], dspy.Adapter]]] = {
    # dspex never makes a second LM call that nobody asked for, so no fallback from one format to another.
    "chat": lambda: dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter,
    "xml": lambda: dspy.XMLAdapter(use_json_adapter_fallback=False),
    "baml": BAMLAdapter,
}
"""The adapters a payload may name, and `two_step`, which takes a model."""

TWO_STEP: Final = "two_step"


class Reading:
    """What the runtime's adapters have beside DSPy's; `for_call` gives one its own list of repairs."""

    layout: str

    def __init__(self, *args: Any, parsing: str = "dspy", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Types that DSPy takes from another part of an answer than its text, where a model can do that.
        self.native_response_types: list[Any] = []
        self.repairs: list[Repair] = []
        self.replies: list[str] = []
        self._messages: Any = None
        self._tolerant = parsing == "tolerant"
        self._plans = _plans(self.layout, self._tolerant)

    def for_call(self, messages: Any) -> Self:
        """A twin that nobody else writes repairs into, with the call's messages if it brings them."""
        twin = copy.copy(self)
        twin.repairs, twin.replies, twin._messages = [], [], messages
        return twin

    def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
        """The call's messages, or DSPy's."""
        if self._messages is not None:
            return self._messages
        return super().format(signature, demos, inputs)  # type: ignore[misc]  # a mixin

    def parse(self, signature: Any, completion: str) -> Any:
        """The fields of a reply, read as the call wants it."""
        self.replies.append(completion)
        plan = self._plans.get(signature)
        if plan is not None and self._tolerant:
            try:
                fields, repairs = plan.read(completion)
            except DspexError:
                raise
            except Exception as error:
                raise ReplyError.raised(error, completion) from error
            self.repairs += repairs
            return fields
        try:
            return super().parse(signature, completion)  # type: ignore[misc]
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


class _Chat(Reading, dspy.ChatAdapter):  # type: ignore[misc]  # DSPy has no type hints
    layout = "chat"


class _JSON(Reading, dspy.JSONAdapter):  # type: ignore[misc]
    layout = "json"

    # What JSONAdapter adds to these is the choice of a `response_format`.
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return dspy.ChatAdapter.__call__(self, *args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        return await dspy.ChatAdapter.acall(self, *args, **kwargs)


class _BAML(Reading, BAMLAdapter):  # type: ignore[misc]
    layout = "json"  # of replies

    __call__ = _JSON.__call__
    acall = _JSON.acall


class _XML(Reading, dspy.XMLAdapter):  # type: ignore[misc]
    layout = "xml"


# DSPy's streaming knows adapters by the names of their classes.
_Chat.__name__, _JSON.__name__, _XML.__name__ = "ChatAdapter", "JSONAdapter", "XMLAdapter"


def make(payload: Mapping[str, Any], extraction: Callable[[], dspy.LM]) -> dspy.Adapter:
    """The adapter that a payload names by `adapter` and `parsing`.

    Args:
        payload: The call's.
        extraction: Gives the model for the second step, where there is one.
    """
    name = payload.get("adapter") or "chat"
    if name == TWO_STEP:
        return dspy.TwoStepAdapter(extraction())
    made = _made(name, payload.get("parsing"))
    return made.for_call(payload.get("messages")) if isinstance(made, Reading) else made


@cache
def _made(name: str, parsing: str | None) -> dspy.Adapter:
    if parsing is None:
        return ADAPTERS[name]()
    if name in ("json", "baml"):
        cls = _JSON if name == "json" else _BAML
        return cls(use_native_function_calling=False, parsing=parsing)
    other = {"chat": _Chat, "xml": _XML}[name]
    return other(use_json_adapter_fallback=False, parsing=parsing)


@cache
def _plans(layout: str, tolerant: bool) -> Plans:
    return Plans(layout, tolerant=tolerant)
