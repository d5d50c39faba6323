"""The scores are DSPy's, to the last bit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dspex import metrics
from dspex.errors import InputError

# The interpreter's Unicode tables may be older than the core's; what it does not know is left out.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
WORDS = st.sampled_from(
    [
        "the",
        "The",
        "a",
        "an",
        "A.N.",
        "theatre",
        "Paris",
        "paris!",
        "yes",
        "no",
        "",
        "é",
        "Σ",
        "ΟΔΟΣ",
        "İ",
        "á",
        "_a",
        "x",
    ]
)
PLAIN = st.text(CHARACTERS, max_size=30)
SENTENCE = st.lists(WORDS, max_size=8).flatmap(
    lambda words: st.sampled_from([" ", "  ", "\t", "\u00a0", "-", "\x1c", ", "]).map(
        lambda gap: gap.join(words)
    )
)
TEXT = PLAIN | SENTENCE


@given(TEXT)
@example("a\u0301 the\u0301 an_ _the the_")
@example("\u1e9b\u0323 ﬁ ẞ ß ǅ")
def test_normal_form_is_dspys(text: str) -> None:
    from dspy.evaluate.metrics import normalize_text

    assert metrics.normalize(text) == normalize_text(text)


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
def test_scores_are_dspys(answer: str, references: list[str]) -> None:
    from dspy.evaluate.metrics import EM, F1, answer_exact_match

    assert metrics.exact_match(answer, references) == EM(answer, references)
    assert metrics.f1(answer, references) == F1(answer, references)
    assert metrics.f1(answer, references[0]) == F1(answer, references[:1])
    prediction = SimpleNamespace(answer=answer)
    for expected in (references, references[0]):
        wanted = SimpleNamespace(answer=expected)
        for frac in (1.0, 0.5):
            ours = metrics.answer_exact_match(wanted, prediction, None, frac)
            assert ours == answer_exact_match(wanted, prediction, None, frac)


def test_without_a_reference_there_is_nothing_to_compare() -> None:
    for score in (metrics.exact_match, metrics.f1):
        with pytest.raises(InputError, match="no reference"):
            score("x", [])
