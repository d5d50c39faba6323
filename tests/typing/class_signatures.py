"""A user's class signatures, as mypy and pyright check them in their strict modes. Checked, never run."""

from __future__ import annotations

from typing import Any

import dspex
from dspex import InputField, OutputField, Signature


class Review(Signature):
    """Judge a review of a product."""

    text: list[str] = InputField(desc="the review, as it was written")
    stars: int = OutputField(ge=1, le=5)
    reasons: list[str] = OutputField(max_length=3, default_factory=list)


class Longer(Review):
    limit: int = InputField()


def of_the_class() -> list[str]:
    assert Review.instructions == "Judge a review of a product."
    assert Review.fields["stars"].constraints is not None
    names: str = Review.signature
    state: dict[str, Any] = Review.dump_state()
    Review.validate_inputs({"text": ["fine"]}, mode="warn")
    assert Longer.equals(Review), (names, state)
    return [*Review.input_fields, *Longer.output_fields]


def of_the_value(signature: Signature) -> str:
    defaults: dict[str, Any] = signature.input_defaults()
    assert "question" not in defaults
    return f"{signature.text} {signature.instructions} {list(signature.fields)}"


def operations() -> Signature:
    thinking = Review.prepend("reasoning", OutputField(desc="step by step"))
    polite: Signature = thinking.append_instructions("Be polite.").with_updated_fields(
        "text", desc="a review"
    )
    assert polite != Signature("question -> answer")
    assert of_the_value(polite)
    dspex.Predict(Longer)
    return Signature.of(Review).delete("stars").with_instructions(instructions="Judge.")


wrong: int = Review.instructions  # type: ignore[assignment]
Review.with_instructions(5)  # type: ignore[arg-type]
