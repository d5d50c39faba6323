"""A program of either library makes the same calls, in the same order, and comes to the same.

A program is generated as data: steps of `Predict`, `ChainOfThought`, `MultiChainComparison`, `BestOfN` and of
programs of such steps, each of which takes what the one before it gave. It is built for both libraries, and
run with one scripted model, whose replies are good or broken.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.support.both import Call, Replies, in_dspex, in_dspy
from tests.support.generated import fewer
from tests.support.models import Said

import dspex
from dspex.errors import DspexError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Implementing custom LMs through BaseLM:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'prefix' argument in InputField:DeprecationWarning"),  # DSPy's own
]


@dataclass(frozen=True)
class Step:
    """One step: its kind, the type of what it gives, how often it tries, and what is inside."""

    kind: str
    type: str = "str"
    count: int = 1
    rewards: tuple[float, ...] = ()
    config: tuple[tuple[str, Any], ...] = ()
    demos: int = 0
    inside: tuple[Step, ...] = ()


LIBRARIES: list[Any] = [(dspy, in_dspy), (dspex, in_dspex)]
CONFIGS: list[Any] = [(), (), (("temperature", 0.5),), (("max_tokens", 9),), (("temperature", 0.0),)]


def simple(kinds: st.SearchStrategy[str]) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        kind=kinds,
        type=st.sampled_from(["str", "str", "int", "list[str]"]),
        config=st.sampled_from(CONFIGS),
        demos=st.integers(0, 2),
    )


def attempts(inside: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    rewards = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=3).map(tuple)
    return st.builds(
        Step, st.just("best"), count=st.integers(1, 3), rewards=rewards, inside=st.tuples(inside)
    )


comparisons = st.builds(
    Step,
    st.just("compare"),
    type=st.sampled_from(["str", "int"]),
    count=st.integers(1, 3),
    config=st.sampled_from([(), (("temperature", 0.1),)]),
)
leaves = simple(st.sampled_from(["predict", "think"])) | comparisons
steps = st.recursive(
    leaves,
    lambda inner: (
        attempts(inner)
        | st.lists(inner, min_size=1, max_size=3).map(lambda found: Step("program", inside=tuple(found)))
    ),
    max_leaves=4,
)


class NoneGivenError(Exception):
    """Every attempt failed, and DSPy's `BestOfN` gave None."""


def build(lib: Any, step: Step, name: str) -> Any:
    """The step for a library: it takes a `q` and gives an `a`."""
    signature = f"q -> a: {step.type}"
    config = dict(step.config)
    if step.kind in ("predict", "think"):
        module = (
            lib.Predict(signature, **config)
            if step.kind == "predict"
            else lib.ChainOfThought(signature, **config)
        )
        (predictor,) = module.predictors()
        value: Any = {"str": "x", "int": 3, "list[str]": ["x"]}[step.type]
        predictor.demos = [dspy.Example(q=f"demo {number}", a=value) for number in range(step.demos)]
        return module

    class Compare(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tries = [lib.ChainOfThought(signature) for _ in range(step.count)]
            self.compare = lib.MultiChainComparison(signature, step.count, **config)

        def forward(self, q: str) -> Any:
            return self.compare([attempt(q=q) for attempt in self.tries], q=q)

    class Best(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            rewards = cycle(step.rewards)  # a step inside another is asked more often
            inner = build(lib, step.inside[0], name)
            self.best = lib.BestOfN(inner, step.count, lambda inputs, made: next(rewards), 1.0)
            if lib is dspy:
                self.best.fail_count = 1_000  # see `docs/dspy_differences.md`

        def forward(self, q: str) -> Any:
            made = self.best(q=q)
            if made is None:
                raise NoneGivenError
            return made

    class Chain(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = [build(lib, inner, f"{name}{place}") for place, inner in enumerate(step.inside)]

        def forward(self, q: str) -> Any:
            for each in self.steps:
                made = each(q=q)
                q = str(made.a)
            return lib.Prediction(a=q, last=made.toDict())

    return {"compare": Compare, "best": Best, "program": Chain}[step.kind]()


@st.composite
def replies(draw: st.DrawFn) -> Any:
    """Replies to each kind of question, most of them good."""
    table = {}
    for names in (("a",), ("reasoning", "a"), ("rationale", "a")):
        parts = "\n\n".join(f"[[ ## {name} ## ]]\n%s" for name in names)
        good = st.sampled_from([parts.replace("%s", text) for text in ("1", "two", '["x"]', "3\nmore")])
        table[names] = draw(
            st.lists(good | good | good | cases.chat_replies(list(names)), min_size=1, max_size=4)
        )
    return table


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@fewer(5, least=100)
@given(step=steps, table=replies(), awaited=st.booleans())
def test_a_program_makes_the_calls_and_gives_the_results_of_dspy_s(
    step: Step, table: Any, awaited: bool
) -> None:
    found: list[Any] = []
    for lib, entered in LIBRARIES:
        calls: list[Call] = []
        program = build(lib, step, "p")
        made = None
        with entered(Replies(table), calls):
            try:
                if awaited and lib is dspex:
                    made = asyncio.run(program.acall(q="What?")).toDict()
                else:
                    made = program(q="What?").toDict()
            except (dspy.AdapterParseError, DspexError, NoneGivenError):
                pass
        found.append((repr(made), calls))
    assert found[0] == found[1]


@fewer(30, least=20)
@given(step=steps, table=replies())
def test_a_program_sends_the_same_bodies_on_both_routes(
    runtime: dspex.Runtime, said: Said, step: Step, table: Any
) -> None:
    found: list[Any] = []
    for route in ("native", "python"):
        said.server.requests.clear()
        script = Replies(table)
        said.answer = script.answer
        program = build(dspex, Step("program", inside=(step,)), "p").with_options(route=route)
        made: Any
        try:
            made = program(q="What?").toDict()
        except DspexError as error:
            made = type(error), error.code
        found.append((repr(made), [bare(request.body) for request in said.server.requests]))
    assert found[0] == found[1]


def bare(body: Any) -> Any:
    """A body by one name for its limit of tokens: before 3.4 it was LiteLLM's, model by model."""
    limits = ("max_tokens", "max_completion_tokens")
    limit = next((body[name] for name in limits if name in body), None)
    return {name: value for name, value in body.items() if name not in limits}, limit
