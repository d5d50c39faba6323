"""`majority`: the answer that most completions give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dspex import metrics
from dspex.errors import InputError
from dspex.prediction import Completions, Prediction

__all__ = ["default_normalize", "majority"]


def default_normalize(value: Any) -> Any:
    """The value as answers are compared: text by `dspex.metrics.normalize`, None if nothing is left of it.

    What is no text is compared as it is.
    """
    return metrics.normalize(value) or None if isinstance(value, str) else value


def majority(
    prediction_or_completions: Prediction | Completions | Sequence[Mapping[str, Any]],
    normalize: Callable[[Any], Any] | None = default_normalize,
    field: str | None = None,
) -> Prediction:
    """The first of the completions whose answer most of them give, like `dspy.majority`.

    Args:
        prediction_or_completions: A prediction, its completions, or a list of mappings.
        normalize: Makes of each answer what is compared; an answer of which it makes None does not count,
            unless it makes that of all. None compares the answers as they are.
        field: The field to compare; by default the last output of the signature, or the last field.

    Returns:
        A prediction with that completion. Of several answers given equally often, the first one's.

    Raises:
        InputError: If there are no completions, or one lacks the field (`bad-completions`).

    Example:
        ```python
        predict = dspex.ChainOfThought("question -> answer", n=5)
        dspex.majority(predict(question="How many?")).answer
        ```
    """
    given = prediction_or_completions
    completions: Any = given.completions if isinstance(given, Prediction) else given
    if isinstance(completions, Mapping | str) or not isinstance(completions, Sequence) or not completions:
        raise InputError(
            f"majority needs completions, not {type(given).__name__}" if completions else "nothing to count",
            code="bad-completions",
            hint="give a prediction, its completions, or a list of mappings",
        )
    signature = getattr(completions, "signature", None)
    if not field:
        field = list(completions[0] if signature is None else signature.output_fields)[-1]
    for number, completion in enumerate(completions):
        if field not in completion:
            raise InputError(
                f"completion {number} has no field {field!r}",
                code="bad-completions",
                hint="name a field that all of them have: majority(..., field=...)",
            )
    answers = [
        completion[field] if normalize is None else normalize(completion[field]) for completion in completions
    ]
    counted = [answer for answer in answers if answer is not None] or answers
    # By equality: answers may be lists, which no dict counts, and there are few.
    winner = max(counted, key=counted.count)
    return Prediction.from_completions([completions[answers.index(winner)]], signature)
