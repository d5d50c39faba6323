"""Scores for evaluation loops, in Rust, equal to DSPy's.

`exact_match` and `f1` compare one answer with one or several references. `answer_exact_match` has the form
of a DSPy metric, for whatever takes those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dspex import _core
from dspex.errors import InputError

__all__ = ["answer_exact_match", "exact_match", "f1", "normalize"]


def normalize(text: str) -> str:
    """The text as the scores compare it.

    Unicode's canonical decomposition, lower case, without ASCII punctuation and the articles "a", "an" and
    "the", one space between words.
    """
    return _core.normalize(text)


def exact_match(answer: str, references: str | Sequence[str]) -> bool:
    """Whether the answer equals a reference once both are normalised; DSPy's `EM`.

    Args:
        answer: What was answered.
        references: The right answer, or several that are right.

    Raises:
        InputError: If there is no reference.
    """
    return _core.exact_match(answer, _several(references))


def f1(answer: str, references: str | Sequence[str]) -> float:
    """The best F1 of the answer's words against a reference's, from 0 to 1; DSPy's `F1`.

    Args:
        answer: What was answered.
        references: The right answer, or several that are right.

    Raises:
        InputError: If there is no reference.
    """
    return _core.f1(answer, _several(references))


def answer_exact_match(example: Any, prediction: Any, trace: Any = None, frac: float = 1.0) -> bool:
    """Whether `prediction.answer` is `example.answer`, as DSPy's metric of this name.

    Args:
        example: What has the right answer, or a list of them, as `answer`.
        prediction: What has the given answer as `answer`.
        trace: Not used; DSPy's optimisers pass it.
        frac: Below 1.0, the F1 that is enough.

    Raises:
        InputError: If there is no reference.
    """
    if frac >= 1.0:
        return exact_match(prediction.answer, example.answer)
    return f1(prediction.answer, example.answer) >= frac


def _several(references: str | Sequence[str]) -> Sequence[str]:
    several = [references] if isinstance(references, str) else references
    if not several:
        raise InputError("there is no reference to compare with", code="no-reference")
    return several
