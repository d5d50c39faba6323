"""Predictions and examples: DSPy's, and dspex's own predictions.

Pydantic models of DSPy's (`History`, `Image`, tool calls) are models like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex.prediction import Prediction, Repair
from dspex.wire._classes import path_of

if TYPE_CHECKING:
    from dspex.wire._classes import Classes

__all__ = [
    "example_from_plain",
    "example_to_plain",
    "is_example",
    "prediction_from_plain",
    "prediction_to_plain",
]


def is_example(kind: type) -> bool:
    """Whether it is `dspy.Example` or derived from it, as `dspy.Prediction` is."""
    return any(
        each.__module__ == "dspy.primitives.example" and each.__name__ == "Example" for each in kind.__mro__
    )


def example_to_plain(value: Any, _: Classes) -> list[Any]:
    """Its class and what it holds; completions by field."""
    state = dict(vars(value))
    completions = state.get("_completions")
    if completions is not None:
        state["_completions"] = dict(vars(completions)["_completions"])
    return [path_of(type(value)), state]


def example_from_plain(plain: Any, classes: Classes) -> Any:
    """See `example_to_plain`. A signature of completions does not come along."""
    path, state = plain
    kind = classes.find(path)
    made = kind.__new__(kind)
    if not is_example(kind) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path!r} is no example")
    if state.get("_completions") is not None:
        from dspy.primitives.prediction import Completions

        state["_completions"] = Completions(state["_completions"])
    vars(made).update(state)
    return made


def prediction_to_plain(value: Prediction, _: Classes) -> list[Any]:
    """Its generations and what is known of the call. Attempts stay behind: they hold exceptions."""
    rows = [dict(row) for row in value.completions]
    repairs = [list(repair) for repair in value.repairs]
    return [rows, dict(value.usage), dict(value.timings), repairs, value.route, value.route_reason]


def prediction_from_plain(plain: Any, _: Classes) -> Prediction:
    """See `prediction_to_plain`."""
    rows, usage, timings, repairs, route, reason = plain
    made = Prediction.from_completions(
        [dict(row) for row in rows],
        usage=usage,
        timings=timings,
        repairs=[Repair(*repair) for repair in repairs],
        route=route,
    )
    made.route_reason = reason
    return made
