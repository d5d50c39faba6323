"""Programs of one's own: what is in them, what their calls pass on, and who answers."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dspy
import pytest

import dspex
from dspex.errors import ConfigError, DeadlineExceeded, SignatureError
from dspex.modules import _scope
from dspex.testing import ScriptedLM


class Answer(dspex.Module):
    """Drafts and polishes."""

    def __init__(self) -> None:
        self.draft = dspex.ChainOfThought("question -> draft")
        self.polish = dspex.Predict("draft -> answer")

    def forward(self, question: str) -> dspex.Prediction:
        draft = self.draft(question=question)
        return dspex.Prediction(answer=self.polish(draft=draft.draft).answer, reasoning=draft.reasoning)


class AsyncAnswer(Answer):
    forward: Any = None

    async def aforward(self, question: str) -> dspex.Prediction:
        draft = await self.draft.acall(question=question)
        return dspex.Prediction(await self.polish.acall(draft=draft.draft), reasoning=draft.reasoning)


class Both(AsyncAnswer):
    def forward(self, question: str) -> dspex.Prediction:
        return dspex.Prediction(answer=f"sync {question}")


def reply(request: Any) -> str:
    text = request.messages[-1]["content"]
    fields = ("reasoning", "draft") if "## draft ## ]]`" in text else ("answer",)
    return "\n\n".join(f"[[ ## {name} ## ]]\n{name} of {len(text)}" for name in fields)


@pytest.fixture
def lm() -> ScriptedLM:
    return ScriptedLM(reply)


@pytest.fixture
def runtime(lm: ScriptedLM) -> Iterator[dspex.Runtime]:
    with dspex.Runtime(lm) as runtime:
        yield runtime


@pytest.mark.parametrize("cls", [Answer, AsyncAnswer])
def test_a_program_of_either_kind_is_called_and_awaited(runtime: dspex.Runtime, cls: type[Answer]) -> None:
    program = cls()
    called = program(question="Who?")
    assert set(called) == {"answer", "reasoning"}
    assert asyncio.run(program.acall(question="Who?")) == called


def test_a_program_with_both_uses_each_for_its_own_kind_of_call() -> None:
    assert Both()(question="a").answer == "sync a"


def test_a_program_without_either_says_what_is_missing() -> None:
    class Empty(dspex.Module):
        pass

    with pytest.raises(ConfigError, match="neither forward nor aforward") as caught:
        Empty()()
    assert caught.value.code == "no-forward"


def test_an_async_program_refuses_to_block_an_event_loop(runtime: dspex.Runtime) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError) as caught:
            AsyncAnswer()(question="Who?")
        assert caught.value.code == "blocking-in-loop"

    asyncio.run(main())


def many(lib: Any) -> Any:
    """The same program of either library."""

    class Program(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = lib.Predict("a -> b")
            self.steps = [lib.ChainOfThought("a -> b"), lib.Predict("c -> d")]
            self.by_name = {"x": lib.Predict("e -> f"), "y z": [1], "t": (lib.Predict("g -> h"),)}
            self.again = self.one
            self.pair = (self.one, lib.Predict("i -> j"))
            self.inner = Inner()
            self.number = 3

    class Inner(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = {"k": lib.ChainOfThought("l -> m")}
            self.other = lib.Predict("n -> o")

    return Program()


def test_predictors_have_the_paths_that_dspy_gives_them() -> None:
    ours, theirs = many(dspex), many(dspy)
    assert [path for path, _ in ours.named_predictors()] == [path for path, _ in theirs.named_predictors()]
    assert [path for path, _ in ours.named_sub_modules()] == [path for path, _ in theirs.named_sub_modules()]
    assert [p.signature.text for p in ours.predictors()][:2] == ["a -> b", "a -> reasoning: str, b"]


@pytest.mark.parametrize("lib", [dspex, dspy])
def test_a_predictor_itself_is_self(lib: Any) -> None:
    assert [path for path, _ in lib.Predict("a -> b").named_predictors()] == ["self"]
    assert [path for path, _ in lib.ChainOfThought("a -> b").named_predictors()] == ["predict"]


def test_a_module_that_holds_itself_is_walked_once() -> None:
    program = Answer()
    program.me = program  # type: ignore[attr-defined]
    assert [path for path, _ in program.named_predictors()] == ["draft.predict", "polish"]


def test_predictors_are_replaced_wherever_they_are() -> None:
    program = many(dspex)
    program.map_named_predictors(lambda predictor: predictor.with_options(config={"n": 2}))
    assert all(predictor._options["config"] == {"n": 2} for predictor in program.predictors())
    assert program.again is program.one


def test_a_copy_has_predictors_of_its_own_and_shares_the_model(lm: ScriptedLM) -> None:
    program = Answer()
    program.set_lm(lm)
    for twin in (program.deepcopy(), copy.deepcopy(program)):
        twin.polish.demos = [{"draft": "a", "answer": "b"}]
        twin.polish.signature = twin.polish.signature.with_instructions("Be brief.")
        assert program.polish.demos == []
        assert program.polish.signature.instructions != "Be brief."
        assert twin.get_lm() is lm
    reset = program.reset_copy()
    assert reset.get_lm() is None
    assert program.get_lm() is lm


def test_what_cannot_be_copied_is_shared() -> None:
    program = Answer()
    program.lock = threading.Lock()  # type: ignore[attr-defined]
    twin = program.deepcopy()
    assert twin.lock is program.lock  # type: ignore[attr-defined]
    assert twin.polish is not program.polish
    assert twin.draft.predict is not program.draft.predict


def test_predictors_with_models_of_their_own_have_no_common_one(lm: ScriptedLM) -> None:
    program = Answer()
    program.polish.lm = lm
    with pytest.raises(ConfigError) as caught:
        program.get_lm()
    assert caught.value.code == "several-lms"


def test_a_predictor_s_own_model_is_asked(runtime: dspex.Runtime, lm: ScriptedLM) -> None:
    own, given = ScriptedLM(reply), ScriptedLM(reply)
    program = Answer()
    program.polish.lm = own
    program(question="Who?")
    assert (len(lm.requests), len(own.requests)) == (1, 1)
    program.polish(draft="d", lm=given)
    program.polish.with_options(lm=given)(draft="d")
    assert (len(own.requests), len(given.requests)) == (1, 2)


def test_a_call_may_bring_its_signature(runtime: dspex.Runtime, lm: ScriptedLM) -> None:
    predict = dspex.Predict("draft -> answer")
    made = predict(draft="d", signature="draft, hint: str -> answer", hint="h")
    assert set(made) == {"answer"}
    assert "[[ ## hint ## ]]\nh" in lm.requests[-1].messages[-1]["content"]
    assert predict.signature.text == "draft -> answer"
    with pytest.raises(SignatureError):
        predict(draft="d", signature="draft, answer")


def test_a_predicted_output_goes_to_the_model(runtime: dspex.Runtime, lm: ScriptedLM) -> None:
    content = {"type": "content", "content": "d."}
    dspex.Predict("draft -> answer")(draft="d", prediction=content)
    assert lm.requests[-1].settings["prediction"] == content


def test_the_options_of_a_program_hold_for_the_calls_inside(runtime: dspex.Runtime, lm: ScriptedLM) -> None:
    program = Answer().with_options(timeout=5)
    for is_async in (False, True):
        if is_async:
            asyncio.run(program.acall(question="Who?"))
        else:
            program(question="Who?")
        first, second = lm.requests[-2:]
        assert 5 > (first.timeout or 0) > (second.timeout or 5) > 0
    with pytest.raises(ConfigError):
        program.with_options(timeout=0)


def test_a_program_whose_time_is_over_begins_no_other_call(
    runtime: dspex.Runtime, lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(_scope, "time", SimpleNamespace(monotonic=lambda: now))

    class Slow(Answer):
        def forward(self, question: str) -> dspex.Prediction:
            nonlocal now
            draft = self.draft(question=question)
            now += 5
            return self.polish(draft=draft.draft)

    assert Slow().with_options(timeout=6)(question="Who?").answer
    with pytest.raises(DeadlineExceeded) as caught:
        Slow().with_options(timeout=5)(question="Who?")
    assert (caught.value.stage, caught.value.timeout, len(lm.requests)) == ("program", 5, 3)


def test_a_program_that_waits_for_something_else_ends_with_its_time(runtime: dspex.Runtime) -> None:
    class Waits(dspex.Module):
        async def aforward(self) -> None:
            await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded) as caught:
        Waits().with_options(timeout=0.05)()
    assert caught.value.stage == "program"


def test_a_time_out_of_the_program_s_own_stays_what_it_is(runtime: dspex.Runtime) -> None:
    class Own(dspex.Module):
        async def aforward(self) -> None:
            raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        Own().with_options(timeout=5)()


def test_models_that_calls_bring_are_closed_with_the_runtime_or_when_there_are_many() -> None:
    closed: list[ScriptedLM] = []

    class Closing(ScriptedLM):
        async def aclose(self) -> None:
            closed.append(self)

    predict = dspex.Predict("draft -> answer")
    with dspex.Runtime(ScriptedLM(reply)):
        models = [Closing(reply) for _ in range(130)]
        for lm in models:
            predict(draft="d", lm=lm)
        assert closed == models[:2]
        predict(draft="d", lm=models[5])
    assert set(map(id, closed)) == set(map(id, models))
    assert closed[-1] is models[5]
