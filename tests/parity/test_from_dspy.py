"""A program of DSPy's that is made native makes the same calls; a part without a native twin is refused."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from dspy.utils.callback import BaseCallback
from tests.support.both import Call, Replies, in_dspex, in_dspy

import dspex
from dspex.errors import ConfigError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Implementing custom LMs through BaseLM:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'prefix' argument in InputField:DeprecationWarning"),  # DSPy's own
]

TABLE = {
    ("answer",): ["[[ ## answer ## ]]\nblue"],
    ("reasoning", "answer"): ["[[ ## reasoning ## ]]\nr\n\n[[ ## answer ## ]]\nblue"],
    ("rationale", "answer"): ["[[ ## rationale ## ]]\nr\n\n[[ ## answer ## ]]\nblue"],
}


class Base(dspy.Module):
    """What a user's classes have in common."""

    tone = "plain"

    def shown(self, text: str) -> str:
        """A method that forward calls."""
        return f"{self.tone}: {text}"

    @staticmethod
    def last(answers: list[Any]) -> Any:
        """A static method."""
        return answers[-1]

    @property
    def first(self) -> Any:
        """A property."""
        return self.steps[0]


class Program(Base):
    """Python around modules."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = [
            dspy.ChainOfThought("question -> answer"),
            dspy.Predict("question -> answer", temperature=0.3),
        ]
        self.by_name = {"compare": dspy.MultiChainComparison("question -> answer", M=2)}
        self.best = dspy.BestOfN(dspy.Predict("question -> answer"), 2, lambda inputs, made: 1.0, 1.0)
        self.documents = {"sky": "It is blue."}

    def forward(self, question: str) -> Any:
        made = [self.first(question=self.shown(question)), self.steps[1](question=self.documents["sky"])]
        best = self.best(question=question)
        rows = [{"rationale": "r", "answer": each.answer} for each in made]
        final = self.by_name["compare"](rows, question=best.answer)
        return dspy.Prediction(answer=final.answer, last=self.last(made).answer)


def compiled() -> Program:
    program = Program()
    for number, (_, predictor) in enumerate(program.named_predictors()):
        predictor.demos = [dspy.Example(question=f"q{number}", answer="a").with_inputs("question")]
        predictor.signature = predictor.signature.with_instructions(f"Do it as {number}.")
    return program


def test_it_makes_the_calls_of_the_program_with_its_methods_demos_and_instructions() -> None:
    theirs = compiled()
    ours = dspex.from_dspy(theirs)
    found = []
    for program, entered in ((theirs, in_dspy), (ours, in_dspex)):
        calls: list[Call] = []
        with entered(Replies(TABLE), calls):
            made: Any = program
            found.append((made(question="Sky?").toDict(), calls))
    assert found[0] == found[1]
    assert len(found[0][1]) == 4
    assert type(ours).__name__ == "Program"
    assert isinstance(ours, dspex.Module)
    own: Any = ours
    assert own.documents is theirs.documents
    assert ours.dump_state() == theirs.dump_state()


def test_callbacks_and_what_is_frozen_come_along() -> None:
    heard: list[tuple[str, str]] = []

    class Heard(BaseCallback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            heard.append((self.name, type(instance).__name__))

    theirs = compiled()
    theirs.callbacks = [Heard("program")]
    theirs.steps[1].callbacks = [Heard("step")]
    theirs.steps[0]._compiled = True
    ours = dspex.from_dspy(theirs)
    for program, entered in ((theirs, in_dspy), (ours, in_dspex)):
        heard.append(("--", ""))
        with entered(Replies(TABLE), []):
            made: Any = program
            made(question="Sky?")
    assert heard == [("--", ""), ("program", "Program"), ("step", "Predict")] * 2
    assert [path for path, _ in ours.named_parameters()] == [path for path, _ in theirs.named_parameters()]
    assert "steps[0].predict" not in ours.dump_state()


def test_a_module_in_two_places_is_one_module() -> None:
    theirs: Any = Program()
    theirs.steps.append(theirs.steps[0])
    ours: Any = dspex.from_dspy(theirs)
    assert ours.steps[2] is ours.steps[0]


def test_what_it_was_made_of_stays_as_it_is() -> None:
    theirs = compiled()
    before = theirs.dump_state()
    ours = dspex.from_dspy(theirs)
    for predictor in ours.predictors():
        predictor.demos = []
    assert theirs.dump_state() == before


class WithSuper(Program):
    """Calls a method of its base class by super()."""

    def forward(self, question: str) -> Any:
        return super().forward(question)


def with_agent() -> Any:
    theirs: Any = Program()
    theirs.by_name["agent"] = dspy.ReAct("question -> answer", tools=[])
    return theirs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_agent, "Program.by_name['agent']: dspy.ReAct has no native twin"),
        (WithSuper, "WithSuper: its method forward calls super()"),
        (lambda: dspy.RLM("q -> a"), "dspy.RLM has no native twin"),
        (lambda: dspex.Predict("q -> a"), "an object of type Predict is no program of DSPy's"),
        (lambda: Program, "is no program of DSPy's"),
        (lambda: "q -> a", "an object of type str is no program"),
    ],
)
def test_what_has_no_native_twin_is_refused_by_its_place(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as found:
        dspex.from_dspy(make())
    assert found.value.code == "not-native"
    assert message in found.value.message
