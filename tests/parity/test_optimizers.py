"""An optimizer in a worker asks for the same, and finds the same, as in a process with DSPy alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import programs
from tests.support.both import wanted
from tests.support.generated import fewer

import dspex
from dspex.testing import ChatRequest, ModelServer

ASK = "question -> answer"
COLOURS = ("blue", "green", "red")


def fields(**values: str) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in {**values, "completed": ""}.items())


class Model:
    """Answers by what it is asked, with something for every field; better when it is told to be careful."""

    def __init__(self) -> None:
        self.seed = 0
        self.server = ModelServer(self.reply)

    def reply(self, asked: ChatRequest) -> str:
        by = random.Random(f"{self.seed} {asked.messages} {asked.settings.get('temperature')}")
        careful = "carefully" in str(asked.messages[0]["content"])
        values = {
            "answer": "blue" if careful else by.choice(COLOURS),
            "proposed_instruction": by.choice(("Answer carefully.", "Answer.", "Say a colour.")),
            "proposed_prefix_for_output_field": by.choice(("Colour:", "It is:")),
        }
        names = wanted(asked.messages)
        return fields(**{name: values.get(name, f"{name} {by.randrange(10)}") for name in names}) or "none"


class Settings(NamedTuple):
    """What both libraries ask with."""

    model: Model
    lm: dspy.LM
    second: dspy.LM
    runtime: dspex.Runtime
    own_second: dspex.LM


@pytest.fixture(scope="module")
def both() -> Iterator[Settings]:
    model = Model()
    with model.server as server:
        where: dict[str, Any] = {"api_base": server.api_base, "api_key": "k"}
        pools = [dspex.PoolSpec(workers=1), dspex.PoolSpec.optimizer()]
        with dspex.Runtime(dspex.LM("openai/local", **where), pools=pools, parsing="dspy") as runtime:
            more: dict[str, Any] = {"cache": False, "num_retries": 0}
            yield Settings(
                model,
                dspy.LM("openai/local", **where, **more),
                dspy.LM("openai/second", **where, **more),
                runtime,
                dspex.LM("openai/second", **where),
            )


@contextmanager
def in_dspy(both: Settings) -> Iterator[None]:
    with dspy.context(lm=both.lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        yield


class TwoStepsHere(dspex.Module):
    """`programs.TwoSteps`, natively."""

    def __init__(self) -> None:
        self.draft = dspex.Predict("question -> draft")
        self.polish = dspex.Predict("draft, tone -> answer")

    def forward(self, question: str) -> Any:
        return self.polish(draft=self.draft(question=question).draft, tone="plain")


class Pair(NamedTuple):
    """One program: for the optimizer in a worker, in DSPy, and natively."""

    given: Callable[[], dspex.Module]
    theirs: Callable[[], Any]
    native: Callable[[], dspex.Module]


PROGRAMS = {
    "own": Pair(lambda: dspex.program(programs.TwoSteps), programs.TwoSteps, TwoStepsHere),
    "chain": Pair(
        lambda: dspex.ChainOfThought(ASK), lambda: dspy.ChainOfThought(ASK), lambda: dspex.ChainOfThought(ASK)
    ),
    "predictor": Pair(
        lambda: dspex.Predict(ASK, temperature=0.25),
        lambda: dspy.Predict(ASK, temperature=0.25),
        lambda: dspex.Predict(ASK, temperature=0.25),
    ),
    "remote": Pair(
        lambda: dspex.remote("dspy.ChainOfThought", ASK),
        lambda: dspy.ChainOfThought(ASK),
        lambda: dspex.ChainOfThought(ASK),
    ),
}


def is_right(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.answer == prediction.answer)


def is_right_and_why(
    gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None
) -> Any:
    """What GEPA asks for."""
    right = gold.answer == pred.answer
    return dspy.Prediction(score=float(right), feedback="right" if right else f"it is {gold.answer}")


def rows(count: int) -> list[dict[str, str]]:
    return [{"question": f"What colour is number {n}?", "answer": "blue"} for n in range(count)]


class Run(NamedTuple):
    """What an optimizer asked, found and gave."""

    bodies: list[Any]
    state: dict[str, Any]
    program: Any


def run_theirs(both: Settings, optimizer: Any, program: Any, examples: Any, **more: Any) -> Run:
    both.model.server.requests.clear()
    trainset = [dspy.Example(row).with_inputs("question") for row in examples]
    with in_dspy(both):
        compiled = optimizer().compile(program, trainset=trainset, **more)
    return Run([request.body for request in both.model.server.requests], compiled.dump_state(), compiled)


def run_ours(both: Settings, optimizer: Any, program: Any, examples: Any, **more: Any) -> Run:
    both.model.server.requests.clear()
    compiled = optimizer.compile(program, trainset=examples, inputs=["question"], **more)
    return Run([request.body for request in both.model.server.requests], compiled.dump_state(), compiled)


def check_prompts(both: Settings, ours: Run, theirs: Run, pair: Pair, folder: Path) -> None:
    """What was found is asked alike by DSPy, by the copy that `compile` gave, and natively from files."""
    ours.program.save(folder / "found.json")
    native = pair.native().load(folder / "found.json")
    dspex.export(native, folder / "found.dspex.json")

    def asked(program: Any) -> list[Any]:
        both.model.server.requests.clear()
        program(question="What colour is ink?")
        return [request.messages for request in both.model.server.requests]

    with in_dspy(both):
        by_dspy = asked(theirs.program)
    for program in (ours.program, native, dspex.load(folder / "found.dspex.json")):
        assert asked(program) == by_dspy


OPTIMIZERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "LabeledFewShot": ({"k": 3}, {}),
    "BootstrapFewShot": ({"max_bootstrapped_demos": 2, "max_labeled_demos": 3, "max_rounds": 2}, {}),
    "BootstrapFewShotWithRandomSearch": (
        {"max_bootstrapped_demos": 1, "max_labeled_demos": 1, "num_candidate_programs": 2, "num_threads": 1},
        {},
    ),
    "MIPROv2": (
        {"auto": None, "num_candidates": 3, "max_bootstrapped_demos": 1, "num_threads": 1},
        {"num_trials": 3, "minibatch": False},
    ),
    "SIMBA": (
        {"bsize": 4, "num_candidates": 2, "max_steps": 1, "max_demos": 2, "num_threads": 1},
        {"seed": 0},
    ),
    "COPRO": ({"breadth": 2, "depth": 1}, {"eval_kwargs": {"num_threads": 1}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", PROGRAMS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_questions_the_state_and_the_prompts_of_an_optimizer_are_dspy_s(
    both: Settings, name: str, kind: str, tmp_path: Path
) -> None:
    both.model.seed = 7
    pair = PROGRAMS[kind]
    args, more = OPTIMIZERS[name]
    metric: Mapping[str, Any] = {} if name == "LabeledFewShot" else {"metric": is_right}
    theirs = run_theirs(both, lambda: getattr(dspy, name)(**metric, **args), pair.theirs(), rows(6), **more)
    optimizer = dspex.optimizer(f"dspy.{name}", **metric, **args)
    ours = run_ours(both, optimizer, pair.given(), rows(6), **more)
    assert ours.bodies == theirs.bodies
    assert ours.state == theirs.state
    check_prompts(both, ours, theirs, pair, tmp_path)


def test_miprov2_chooses_the_instruction_that_the_metric_likes_best(both: Settings) -> None:
    both.model.seed = 3
    args, more = OPTIMIZERS["MIPROv2"]
    optimizer = dspex.optimizer("dspy.MIPROv2", metric=is_right, **args)
    compiled = optimizer.compile(dspex.ChainOfThought(ASK), trainset=rows(6), **more)
    assert compiled.predict.signature.instructions == "Answer carefully."


def test_a_metric_that_gives_a_prediction_and_a_second_model_are_those_of_gepa(
    both: Settings, tmp_path: Path
) -> None:
    both.model.seed = 1
    args: dict[str, Any] = {"max_metric_calls": 30, "num_threads": 1, "seed": 0}
    theirs = run_theirs(
        both,
        lambda: dspy.GEPA(metric=is_right_and_why, reflection_lm=both.second, **args),
        dspy.ChainOfThought(ASK),
        rows(4),
    )
    optimizer = dspex.optimizer("dspy.GEPA", metric=is_right_and_why, reflection_lm=both.own_second, **args)
    ours = run_ours(both, optimizer, dspex.ChainOfThought(ASK), rows(4))
    assert {body["model"] for body in ours.bodies} == {"local", "second"}
    assert ours.bodies == theirs.bodies
    assert ours.state == theirs.state
    check_prompts(both, ours, theirs, PROGRAMS["chain"], tmp_path)


@fewer(10)
@given(
    seed=st.integers(0, 10_000),
    examples=st.lists(
        st.fixed_dictionaries(
            {"question": st.text(max_size=20), "answer": st.sampled_from(COLOURS)},
            optional={"context": st.lists(st.text(max_size=5), max_size=2), "answers": st.integers()},
        ),
        min_size=1,
        max_size=6,
    ),
    args=st.fixed_dictionaries(
        {
            "max_bootstrapped_demos": st.integers(1, 3),
            "max_labeled_demos": st.integers(0, 4),
            "max_rounds": st.integers(1, 2),
        }
    ),
    threshold=st.sampled_from([None, 0.5]),
    kind=st.sampled_from(["chain", "own"]),
)
def test_generated_examples_bootstrap_the_same_demos(
    both: Settings, seed: int, examples: Any, args: dict[str, Any], threshold: float | None, kind: str
) -> None:
    def score(example: Any, prediction: Any, trace: Any = None) -> float:
        assert trace is not None
        return float(is_right(example, prediction))

    both.model.seed = seed
    pair = PROGRAMS[kind]
    args = {**args, "metric": score, "metric_threshold": threshold}
    theirs = run_theirs(both, lambda: dspy.BootstrapFewShot(**args), pair.theirs(), examples)
    ours = run_ours(both, dspex.optimizer("dspy.BootstrapFewShot", **args), pair.given(), examples)
    assert ours.bodies == theirs.bodies
    assert ours.state == theirs.state
