"""The parts of a streamed answer on their way from a worker: `dspex.events`, both ends of their wire form.

A part is a list of the event's kind and its attributes in their order: `["text", "answer", "blu", False,
"self", 0]`; those that come last may be left out. The last part of a module's stream is `["prediction",
answer]`, with the answer that a call of the same module would have had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dspex.errors import WireError, WorkerDiedError
from dspex.events import (
    Correction,
    Event,
    FieldEnd,
    FieldStart,
    LMDelta,
    LMToolCallDelta,
    PartialValue,
    ReplyEvent,
    Status,
    TextDelta,
)
from dspex.prediction import Attempt, PlainResult, Prediction, Repair

__all__ = ["answer_of", "event_of", "last_part", "part_of", "prediction_of", "says"]

_CLASSES: Final[Mapping[str, type[Any]]] = {
    "start": FieldStart,
    "text": TextDelta,
    "value": PartialValue,
    "end": FieldEnd,
    "correction": Correction,
    "status": Status,
    "lm": LMDelta,
}
_KINDS: Final = {cls: kind for kind, cls in _CLASSES.items()}
_TOOL_CALLS: Final = LMDelta.__match_args__.index("tool_calls")
_PREDICTION: Final = "prediction"


def part_of(event: ReplyEvent | Status | LMDelta) -> list[Any]:
    """What crosses for an event. Its values have to be plain."""
    values = [getattr(event, name) for name in event.__match_args__]
    if isinstance(event, LMDelta):
        values[_TOOL_CALLS] = [[getattr(c, name) for name in c.__match_args__] for c in event.tool_calls]
    return [_KINDS[type(event)], *values]


def last_part(answer: Mapping[str, Any]) -> list[Any]:
    """What crosses for the prediction that ends a stream: the answer of a call of the module."""
    return [_PREDICTION, answer]


def says(told: Any, value: Any) -> bool:
    """Whether what the events of a field have told is its value."""
    if isinstance(told, str):  # of some types of DSPy's the text is all there is
        return value is not None and str(value) == told
    # A float that is no number equals nothing.
    return type(told) is type(value) and bool(told == value or repr(told) == repr(value))


def answer_of(part: Any) -> Mapping[str, Any] | None:
    """The answer that is this part; None where it is another event."""
    is_last = isinstance(part, list) and len(part) == 2 and part[0] == _PREDICTION
    return part[1] if is_last and isinstance(part[1], Mapping) else None


def event_of(part: Any) -> Event:
    """The event that came as this part.

    Raises:
        WireError: If it is none (`bad-body`).
    """
    try:
        kind, *values = part
        if kind == _PREDICTION:
            (answer,) = values
            return prediction_of(answer)
        if kind == _KINDS[LMDelta]:
            values[_TOOL_CALLS] = tuple(LMToolCallDelta(*piece) for piece in values[_TOOL_CALLS])
        event: Event = _CLASSES[kind](*values)
    except (LookupError, TypeError, ValueError) as error:
        raise WireError("a part of a streamed answer is no event", code="bad-body") from error
    return event


def prediction_of(
    answer: Mapping[str, Any],
    rows: list[dict[str, Any]] | None = None,
    signature: Any = None,
    *,
    total: float | None = None,
) -> Prediction:
    """The prediction that an answer of `predict` or `module` stands for.

    Args:
        answer: The answer.
        rows: The fields of each completion, where they are not the answer's own.
        signature: The signature they answer, where that is known.
        total: Seconds that the call took, if that is to be among its timings.
    """
    timings = answer["timings"] if total is None else {**answer["timings"], "total": total}
    cls = PlainResult if "value" in answer else Prediction
    if cls is PlainResult:
        rows = [{"value": answer["value"]}]
    return cls.from_completions(
        # A module may answer with no completion; a prediction of no fields is what DSPy makes of that.
        (answer["completions"] if rows is None else rows) or [{}],
        signature,
        usage=answer["usage"],
        timings=timings,
        repairs=[Repair(*repair) for repair in answer.get("repairs", ())],
        attempts=_attempts_of(answer.get("repeats"), timings.get("total")),
    )


def _attempts_of(repeats: Sequence[tuple[float, str]] | None, total: float | None) -> Sequence[Attempt]:
    """The attempts of a call that was taken from workers; none where it had one alone.

    The targets have no names yet: the prediction has them in its route.
    """
    if not repeats:
        return ()
    failed = [Attempt("", seconds, WorkerDiedError(reason, retryable=True)) for seconds, reason in repeats]
    spent = sum(each.seconds for each in failed)
    return (*failed, Attempt("", max(0.0, (total or spent) - spent), None))
