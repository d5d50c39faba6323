"""What a pipeline says of itself: its explanation, its drawing, its profile."""

from __future__ import annotations

import re

import pytest

import dspex
from dspex.errors import ConfigError
from dspex.pipelines import Pipeline, Profile

LABEL = r'"(?:[^"#<>&]|#\d+;)*"'
BOX = re.compile(rf"(\w+)(?:\(\[{LABEL}\]\)|\[\[{LABEL}\]\]|\[{LABEL}\])")
FRAME = re.compile(rf"subgraph (\w+) \[{LABEL}\]")
ARROW = re.compile(rf"(\w+) (?:-->|-\.->)\|{LABEL}\| (\w+)")


def read(text: str) -> tuple[set[str], list[tuple[str, str]]]:
    """The boxes and arrows of a drawing; fails on a line that is none of Mermaid's."""
    first, *lines = text.splitlines()
    assert first == "flowchart TD"
    boxes: set[str] = set()
    arrows: list[tuple[str, str]] = []
    depth = 0
    for line in lines:
        if line.strip() == "end":
            depth -= 1
            assert depth >= 0
        elif found := FRAME.fullmatch(line.strip()) or BOX.fullmatch(line.strip()):
            assert found[1] not in boxes
            boxes.add(found[1])
            depth += line.strip().startswith("subgraph")
        else:
            arrow = ARROW.fullmatch(line.strip())
            assert arrow, line
            arrows.append((arrow[1], arrow[2]))
    assert depth == 0
    assert {end for arrow in arrows for end in arrow} <= boxes
    return boxes, arrows


def all_kinds() -> Pipeline:
    return dspex.pipeline(
        dspex.Predict("question -> docs: list[str]"),
        dspex.map(dspex.Predict("doc -> note"), over="docs", item="doc"),
        dspex.parallel(a=dspex.Predict("note: list[str] -> x"), b=dspex.Predict("question -> y")),
        dspex.branch("a == '<\"|>'", dspex.Predict("a -> z"), dspex.Predict("b -> z")),
        dspex.step(
            dspex.loop(dspex.Predict("z -> answer"), until="answer == 'x'", at_most=2),
            fallback=dspex.Predict("z -> answer"),
        ),
    )


def test_the_drawing_of_all_kinds_of_steps_is_a_flowchart() -> None:
    text = all_kinds().to_mermaid()
    boxes, arrows = read(text)
    assert len(boxes) == 16
    assert ("inputs", "s1") in arrows
    assert text.count("subgraph") == 6


def test_an_explanation_says_which_steps_run_together_and_why() -> None:
    made = dspex.pipeline(dspex.Predict("q -> a"), dspex.Predict("q -> b"), dspex.Predict("a, b -> c"))
    first, second, third = made.explain().steps
    assert [step.beside for step in (first, second, third)] == [["b"], ["a"], []]
    assert third.waits_for == ["a", "b"]
    assert third.takes == {"a": "a", "b": "b"}
    assert first.why == "it asks a model"
    assert str(made.explain("tree")) == (
        "pipeline: q: str -> c: str\n"
        "|- a: module Predict: q -> a\n"
        "|- b: module Predict: q -> b\n"
        "`- c: module Predict: a, b -> c"
    )
    assert "may run beside b; it asks a model" in str(made.explain())


def test_an_explanation_says_why_a_function_runs_alone() -> None:
    async def send(answer: str) -> str:
        return answer

    made = dspex.pipeline(dspex.Predict("q -> answer"), dspex.step(send, outputs="sent"))
    assert (
        made.explain().steps[1].why
        == "it may have effects, so it runs alone; mark it pure=True if it has none"
    )


def test_an_explanation_in_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        all_kinds().explain("html")  # type: ignore[arg-type]
    assert caught.value.code == "bad-format"


def test_a_profile_has_a_row_for_each_step_of_the_plan() -> None:
    profile = Profile.of([("map[1]/a", "ok", 1e-5), ("map[2]/a", "ok", 3e-5), ("map", "ok", 5e-5)])
    outer, inner = profile.rows
    assert (outer.path, outer.runs, outer.share) == ("map", 1, 0.0)
    assert (inner.path, inner.runs, inner.share) == ("map[]/a", 2, 1.0)
    assert (inner.microseconds, inner.mean, inner.longest) == pytest.approx((40, 20, 30))
    assert [line.split()[0] for line in str(profile).splitlines()] == ["step", "map", "map[]/a"]


def test_a_profile_of_a_pipeline_that_has_not_run_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        all_kinds().profile()
    assert caught.value.code == "no-run"
