"""`to_config`: the way back from `from_config`, or an error that names the step."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import said_steps

import dspex
from dspex.errors import PipelineError
from dspex.pipelines import Pipeline, StepCache
from dspex.router import Retry

STEPS = "tests.support.said_steps"
Form = dict[str, Any]

TURNED = {"outputs": {"y": "x"}}
LEAVES: list[Form] = [
    {"call": f"{STEPS}:longer", "outputs": ["x"]},
    {"native": "x -> y", **TURNED},
    {"native": "x -> y", "temperature": 0.5, "validate": "warn", **TURNED},
    {"native": "x -> y: str", "parsing": "tolerant", **TURNED},
    {"chain_of_thought": "x -> y", "max_tokens": 100, **TURNED},
    {"python": "dspy.ChainOfThought", "signature": "x -> y", **TURNED},
    {"program": "tests.support.programs:TwoSteps", "tone": "kind", "inputs": {"x": "x"}, "outputs": ["x"]},
]
"""Steps that take a text `x`, and give one."""

MODIFIERS: list[Form] = [{}, {"retry": 3}, {"cache": True}, {"cache": 60.0}, {"pure": True}]


def named(form: Form, names: Iterator[int]) -> Form:
    return {**form, "name": f"s{next(names)}"}


def forms(leaves: st.SearchStrategy[Form]) -> st.SearchStrategy[Form]:
    """Steps of each kind, of `x` and giving `x`."""

    def parallel(a: Form, b: Form) -> Form:
        return {"parallel": {"a": a, "b": b}, "reduce": f"{STEPS}:merge", "outputs": ["x"]}

    def each(inside: Form) -> Form:
        split = {"call": f"{STEPS}:split", "outputs": ["xs"], "thread": False}
        over = {"map": inside, "over": "xs", "item": "x", "concurrency": 4, "outputs": {"x": "xs"}}
        return {"chain": [split, over, {"call": f"{STEPS}:join", "outputs": ["x"]}]}

    def fallback(first: Form, other: Form) -> Form:
        return {**first, "fallback": [other]}

    return st.one_of(
        st.builds(parallel, leaves, leaves),
        st.builds(
            lambda then, other: {"branch": "x|length > 2", "then": then, "otherwise": other}, leaves, leaves
        ),
        st.builds(lambda then: {"branch": "x", "then": then}, leaves),
        st.builds(lambda inside: {"loop": inside, "until": "x == 'a'", "at_most": 3}, leaves),
        st.builds(each, leaves),
        st.builds(fallback, st.sampled_from(LEAVES), st.sampled_from(LEAVES)),
    )


modified = st.builds(lambda leaf, more: {**leaf, **more}, st.sampled_from(LEAVES), st.sampled_from(MODIFIERS))
pipelines = st.lists(st.recursive(modified, forms, max_leaves=5), min_size=1, max_size=4)


@pytest.mark.filterwarnings("ignore::dspex.pipelines.PipelineWarning")
@settings(max_examples=200)
@given(
    steps=pipelines,
    on_error=st.sampled_from(["fail", "continue"]),
)
def test_what_is_written_says_the_same_pipeline(steps: list[Form], on_error: str) -> None:
    names = itertools.count()
    config = {
        "name": "qa",
        "inputs": ["x"],
        "outputs": ["x"],
        "on_error": on_error,
        "steps": [named(step, names) for step in steps],
    }
    read = Pipeline.from_config(config, allow=["tests.support"])
    said = read.to_config()
    assert json.loads(json.dumps(said)) == said
    again = Pipeline.from_config(said, allow=["tests.support"])
    assert again.fingerprints == read.fingerprints
    assert str(again.explain()) == str(read.explain())
    assert again.to_config() == said


@pytest.mark.filterwarnings("ignore::dspex.pipelines.PipelineWarning")
@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_what_was_read_is_what_is_written(leaf: Form) -> None:
    config = {"name": "qa", "inputs": ["x"], "outputs": ["x"], "steps": [leaf]}
    assert Pipeline.from_config(config, allow=["tests.support"]).to_config() == config


def test_functions_are_written_by_their_import_paths() -> None:
    said = dspex.pipeline(dspex.step(said_steps.longer, outputs="x"), name="qa").to_config()
    assert said == {"name": "qa", "steps": [{"call": f"{STEPS}:longer", "outputs": ["x"]}]}


def local() -> Callable[..., Any]:
    async def inside(x: str) -> str:
        return x

    return inside


INNER = dspex.pipeline(dspex.Predict("x -> y"))
UNSAID: list[tuple[str, Any, str]] = [
    ("a lambda", dspex.step(lambda x: x, outputs="y"), "steps[0]"),
    ("a function in a function", dspex.step(local(), outputs="y"), "steps[0]"),
    ("a condition", dspex.branch(lambda x: x, dspex.Predict("x -> y"), INNER), "steps[0]"),
    ("a fallback", dspex.step(INNER, fallback=dspex.step(lambda x: x, outputs="y")), "steps[0].fallback"),
    ("a pipeline", INNER, "steps[0]"),
    ("a Retry", dspex.step(dspex.Predict("x -> y"), retry=Retry(first_wait=1)), "steps[0]"),
    ("a cache", dspex.step(dspex.Predict("x -> y"), cache=StepCache(max_bytes=9_999)), "steps[0]"),
    ("options", dspex.Predict("x -> y").with_options(timeout=5), "steps[0]"),
    ("demos", dspex.Predict("x -> y", demos=[{"x": "1", "y": "2"}]), "y"),
    ("instructions", dspex.Predict(dspex.Signature("x -> y").with_instructions("Be kind.")), "y"),
    ("an adapter", dspex.Predict("x -> y", adapter="json"), "y"),
    ("a state", dspex.remote("dspy.Predict", "x -> y", tools=None, state={}), "y"),
    ("settings", dspex.Predict("x -> y", stop=("a", "b")), "steps[0]"),
]


@pytest.mark.filterwarnings("ignore::dspex.pipelines.PipelineWarning")
@pytest.mark.parametrize(("what", "step", "where"), UNSAID, ids=[row[0] for row in UNSAID])
def test_what_data_cannot_say_is_an_error_that_names_the_step(what: str, step: Any, where: str) -> None:
    with pytest.raises(PipelineError) as raised:
        dspex.pipeline(step, inputs=["x"], outputs=["y"]).to_config()
    assert (raised.value.code, raised.value.step) == ("not-as-data", where)
    assert str(raised.value).startswith(where)


def test_types_of_inputs_are_not_said_in_data() -> None:
    with pytest.raises(PipelineError, match="the inputs have types"):
        dspex.pipeline(dspex.Predict("x -> y"), inputs={"x": str}).to_config()
