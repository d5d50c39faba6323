"""Examples for judging programs: which of their fields are inputs, and what a metric is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dspex.prediction import Prediction

__all__ = ["has_fields", "input_names", "shown_to_metrics"]


def has_fields(value: Any) -> bool:
    """Whether a value maps names to values: a mapping, or an example of DSPy's, which is none."""
    return hasattr(value, "keys") and hasattr(value, "__getitem__") and not isinstance(value, type)


def input_names(
    example: Any, given: Iterable[str] | None, known: Iterable[str] | None
) -> Sequence[str] | None:
    """The names of an example's inputs; None where nobody knows them.

    Args:
        example: The example. One of DSPy's may say them itself.
        given: The names that the caller gave, which come before all others.
        known: Those of the program's signature, which come last.
    """
    if given is not None:
        return [*given]
    own = getattr(example, "_input_keys", None)  # `inputs()` of an example without them raises
    if own is not None:
        return [*own]
    return None if known is None else [*known]


def shown_to_metrics(example: Any) -> Any:
    """The example as a metric gets it: a mapping gets its fields as attributes too.

    An example of DSPy's is what its metrics know, and stays what it is.
    """
    return Prediction(example) if isinstance(example, Mapping) else example
