"""`dspex.optimizer`: DSPy's optimizers in a worker, with the metric, the examples and the outcome here."""

from __future__ import annotations

import asyncio
import enum
import gc
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pydantic
import pytest
from tests.support import programs
from tests.support.both import wanted
from tests.support.models import Said

import dspex
from dspex import errors
from dspex.modules import OptimizerProgress
from dspex.testing import ChatRequest, HttpError, ModelServer, ScriptedLM
from dspex.testing._scripted import usage_of

PROGRAMS = "tests.support.programs:"
ASK = "question -> answer"
ROWS = [{"question": f"What colour is number {n}?", "answer": "blue"} for n in range(4)]
BOOTSTRAP: dict[str, Any] = {"max_bootstrapped_demos": 2, "max_labeled_demos": 2}


def say(asked: ChatRequest) -> str:
    return reply_to(asked.messages)


def reply_to(messages: Any) -> str:
    """Something for each field that is asked for."""
    values = {name: "blue" if name == "answer" else f"some {name}" for name in wanted(messages)}
    return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in {**values, "completed": ""}.items())


def is_right(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.answer == prediction.answer)


def bootstrap(metric: Any = is_right, **args: Any) -> Any:
    return dspex.optimizer("dspy.BootstrapFewShot", metric=metric, **{**BOOTSTRAP, **args})


@pytest.fixture(scope="module")
def runtime(said: Said) -> Iterator[dspex.Runtime]:
    lm = dspex.LM("openai/local", api_base=said.server.api_base, api_key="k")
    pools = [dspex.PoolSpec(workers=1), dspex.PoolSpec.optimizer(workers=1)]
    with dspex.Runtime(lm, pools=pools) as runtime:
        yield runtime


@pytest.fixture(autouse=True)
def current(runtime: dspex.Runtime, said: Said) -> dspex.Runtime:
    said.answer = say
    said.server.requests.clear()
    return runtime


def served(runtime: dspex.Runtime) -> dict[str, int]:
    return {counts.name: counts.served for counts in runtime.counts()}


# --- the metric -----------------------------------------------------------------------------------


def test_a_metric_runs_in_this_process_and_gets_what_dspy_s_gets() -> None:
    seen: list[Any] = []

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        seen.append((example, prediction, trace))
        where.add((os.getpid(), threading.current_thread() is threading.main_thread()))
        return True

    where: set[tuple[int, bool]] = set()
    bootstrap(metric).compile(dspex.program(PROGRAMS + "TwoSteps"), trainset=ROWS, inputs=["question"])
    assert where == {(os.getpid(), False)}
    assert len(seen) == 2
    example, prediction, trace = seen[0]
    assert isinstance(prediction, dspex.Prediction)
    assert (example, prediction.answer) == (dspex.Prediction(ROWS[0]), "blue")
    assert [step[0] for step in trace] == ["draft", "polish"]
    assert trace[0][1] == {"question": ROWS[0]["question"]}
    assert trace[0][2].draft == "some draft"


async def test_an_async_metric_is_awaited_on_the_event_loop_of_the_runtime(said: Said) -> None:
    loops = set()

    async def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        await asyncio.sleep(0)
        loops.add(asyncio.get_running_loop())
        return is_right(example, prediction)

    lm = dspex.LM("openai/local", api_base=said.server.api_base, api_key="k")
    async with dspex.Runtime(lm, pools=1):
        compiled = await bootstrap(metric).acompile(dspex.ChainOfThought(ASK), trainset=ROWS)
        assert loops == {asyncio.get_running_loop()}
        assert len(compiled.predict.demos) == 2
        assert (await compiled.acall(question="ink?")).answer == "blue"


def test_examples_of_dspy_s_reach_the_metric_as_themselves_in_any_thread() -> None:
    examples = [dspy.Example(row).with_inputs("question") for row in ROWS]
    seen: list[Any] = []

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        seen.append(example)
        return float(is_right(example, prediction))

    search = dspex.optimizer(
        "dspy.BootstrapFewShotWithRandomSearch", metric=metric, num_candidate_programs=1, num_threads=4
    )
    search.compile(dspex.ChainOfThought(ASK), trainset=examples, valset=examples[:1])
    assert {id(example) for example in seen} == {id(example) for example in examples}


async def test_work_side_by_side_in_one_worker_calls_each_its_own_metric() -> None:
    async def one(number: int) -> bool:
        rows = [{"question": f"{number}, {place}?", "answer": "blue"} for place in range(6)]
        seen: list[str] = []

        def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
            seen.append(example.question)
            return True

        search = dspex.optimizer(
            "dspy.BootstrapFewShotWithRandomSearch", metric=metric, num_candidate_programs=2, num_threads=2
        )
        compiled = await search.acompile(dspex.ChainOfThought(ASK), trainset=rows)
        questions = {row["question"] for row in rows}
        return set(seen) == questions and {demo["question"] for demo in compiled.predict.demos} <= questions

    assert await asyncio.gather(*map(one, range(4))) == [True] * 4


def test_a_metric_may_ask_models_of_dspex_and_be_an_object_or_live_in_the_worker(said: Said) -> None:
    judge = dspex.Predict("question, answer -> verdict")

    class Judge:
        def __call__(self, example: Any, prediction: Any, trace: Any = None) -> bool:
            given = {"question": example.question, "answer": prediction.answer}
            verdicts = {judge(**given, route=route).verdict for route in ("native", "pool:optimizer")}
            return verdicts == {"some verdict"}

    compiled = bootstrap(Judge()).compile(dspex.ChainOfThought(ASK), trainset=ROWS)
    assert [demo.get("augmented") for demo in compiled.predict.demos] == [True, True]

    there = dspex.optimizer("dspy.BootstrapFewShot", imports={"metric": f"{__name__}:is_right"}, **BOOTSTRAP)
    reports: list[OptimizerProgress] = []
    compiled = there.compile(dspex.ChainOfThought(ASK), trainset=ROWS, on_progress=reports.append)
    assert len(compiled.predict.demos) == 2
    assert [report.metric_calls for report in reports] == [0]


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Person(pydantic.BaseModel):
    name: str


def test_values_of_the_signature_s_types_are_those_in_examples_and_predictions(said: Said) -> None:
    seen: list[Any] = []

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        seen.append((example.person, prediction.mood))
        return bool(example.mood == prediction.mood)

    said.answer = lambda asked: "[[ ## reasoning ## ]]\nr\n\n[[ ## mood ## ]]\ngood"
    program = dspex.ChainOfThought(dspex.Signature("person: Person -> mood: Mood"))
    rows = [
        {"person": Person(name="Ada"), "mood": Mood.GOOD},
        {"person": Person(name="Bob"), "mood": Mood.BAD},
    ]
    compiled = bootstrap(metric, max_labeled_demos=0).compile(program, trainset=rows)
    assert seen == [(Person(name="Ada"), Mood.GOOD), (Person(name="Bob"), Mood.GOOD)]
    assert [demo["person"] for demo in compiled.predict.demos] == [{"name": "Ada"}]
    assert '{"name": "Bob"}' in said.server.requests[-1].messages[-1]["content"]


def test_functions_of_the_service_in_the_program_are_called_while_it_is_optimised() -> None:
    def judge(inputs: Any, prediction: Any, example: Any) -> str:
        return f"{prediction.answer}, at {os.getpid()}"

    seen: list[Any] = []

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        seen.append(prediction.judged)
        return True

    inner = dspex.remote("dspy.Predict", ASK)
    program = dspex.program(PROGRAMS + "Wraps", module=inner, judge=judge)
    compiled = bootstrap(metric).compile(program, trainset=ROWS, inputs=["question"])
    assert seen == [f"blue, at {os.getpid()}"] * 2
    assert list(compiled.dump_state()) == ["module"]
    assert compiled(question="ink?").judged == seen[0]


# --- what comes back ------------------------------------------------------------------------------


def test_what_was_found_is_in_a_copy_that_can_be_called_saved_and_loaded(said: Said, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    program = dspex.program(PROGRAMS + "TwoSteps", tone="dry")
    compiled = bootstrap().compile(program, trainset=ROWS, inputs=["question"])
    with pytest.raises(errors.ConfigError) as caught:
        program.dump_state()
    assert caught.value.code == "program-state"
    compiled.save(path)
    saved = json.loads(path.read_text())
    assert saved.pop("metadata")["dependency_versions"]["dspy"] == dspy.__version__
    assert saved == compiled.dump_state()
    assert [len(saved[name]["demos"]) for name in ("draft", "polish")] == [2, 2]

    theirs = programs.TwoSteps(tone="dry")
    theirs.load(path)
    again = dspex.program(PROGRAMS + "TwoSteps", tone="dry").load(path)
    by_path = dspex.program(PROGRAMS + "TwoSteps", tone="dry", state=path)
    assert again.dump_state() == by_path.dump_state() == theirs.dump_state() == saved
    asked = []
    for each in (compiled, again, by_path):
        said.server.requests.clear()
        assert each(question="ink?").answer == "blue"
        asked.append([request.messages for request in said.server.requests])
    assert asked[0] == asked[1] == asked[2]
    assert "number 0" in str(asked[0])

    for state in (3, {"draft": 3}):
        with pytest.raises(errors.ConfigError) as caught:
            program.load_state(state)  # type: ignore[arg-type]
        assert caught.value.code == "program-state"


def test_a_saved_model_of_a_remote_program_keeps_no_address_and_is_not_asked_for_by_itself() -> None:
    model = {"model": "openai/x", "temperature": 0.5, "api_base": "http://a", "extra_headers": {"k": "s"}}
    part = {"traces": [], "train": [], "demos": [], "signature": {"fields": []}, "lm": model}
    program = dspex.program(PROGRAMS + "AsyncAnswer")
    assert program.load_state({"answer": part}).dump_state()["answer"]["lm"] is None
    kept = {"model": "openai/x", "temperature": 0.5}
    assert program.load_state({"answer": part}, lm=True).dump_state()["answer"]["lm"] == kept
    assert dspex.remote("dspy.Predict", ASK).load_state(part, lm=True).dump_state()["lm"] == kept


def test_demos_and_settings_of_a_native_program_go_along_and_it_stays_as_it_is(said: Said) -> None:
    demo = {"question": "grass?", "answer": "green, I think"}
    program = dspex.Predict(ASK, demos=[demo], temperature=0.25)
    compiled = bootstrap(max_labeled_demos=0).compile(program, trainset=ROWS)
    body = said.server.requests[0].body
    assert body["temperature"] == 0.25
    assert "green, I think" in str(body["messages"])  # the teacher is the student as it was given
    assert program.demos == [demo]
    assert compiled is not program
    assert [row["question"] for row in compiled.demos] == [row["question"] for row in ROWS[:2]]
    assert compiled.config == {"temperature": 0.25}


def test_a_reasoning_of_another_kind_is_that_of_the_twin_too(said: Said) -> None:
    said.answer = lambda asked: "[[ ## reasoning ## ]]\n3\n\n[[ ## answer ## ]]\nblue"
    for program in (
        dspex.ChainOfThought(ASK, rationale_field_type=int),
        dspex.ChainOfThought(ASK, rationale_field=dspex.OutputField(desc="how sure, in stars")),
    ):
        said.server.requests.clear()
        program(question="ink?")
        system = said.server.requests[-1].messages[0]
        compiled = bootstrap().compile(program, trainset=ROWS)
        assert {str(request.messages[0]) for request in said.server.requests} == {str(system)}
        assert compiled.predict.signature == program.predict.signature


# --- where and with what --------------------------------------------------------------------------


def test_the_work_goes_to_the_pool_for_it_unless_the_caller_names_another(
    runtime: dspex.Runtime, said: Said
) -> None:
    before = served(runtime)
    for route in (None, "python", "pool:general"):
        bootstrap().compile(dspex.ChainOfThought(ASK), trainset=ROWS, route=route)
    after = served(runtime)
    assert {name: after[name] - before[name] for name in after} == {
        "native": 0,
        "pool:general": 2,
        "pool:optimizer": 1,
    }
    lm = dspex.LM("openai/local", api_base=said.server.api_base, api_key="k")
    with dspex.Runtime(lm, pools=1) as other:
        optimizer = dspex.optimizer("dspy.LabeledFewShot", k=1, runtime=other)
        optimizer.compile(dspex.ChainOfThought(ASK), trainset=ROWS)
        assert served(other) == {"native": 0, "pool:general": 1}


def test_adapter_reading_and_model_are_the_program_s(said: Said) -> None:
    said.answer = lambda asked: "<reasoning>\nr\n</reasoning>\n<answer>\nblue\n</answer>"
    own = dspex.LM("openai/own", api_base=said.server.api_base, api_key="k", temperature=0.5)
    native = dspex.ChainOfThought(ASK, adapter="xml", lm=own)
    remote = dspex.remote("dspy.ChainOfThought", ASK, adapter="xml", lm=own)
    for program in (native, remote, native.with_options(lm=own, config={"temperature": 0.75})):
        said.server.requests.clear()
        compiled = bootstrap().compile(program, trainset=ROWS)
        assert compiled(question="?").answer == "blue"
        assert {request.body["model"] for request in said.server.requests} == {"own"}
    assert {request.body["temperature"] for request in said.server.requests} == {0.75}


def test_a_teacher_and_the_models_among_the_arguments_are_asked(said: Said) -> None:
    def model(name: str) -> dspex.LM:
        return dspex.LM(f"openai/{name}", api_base=said.server.api_base, api_key="k")

    def asked() -> set[str]:
        names = {str(request.body["model"]) for request in said.server.requests}
        said.server.requests.clear()
        return names

    student = dspex.ChainOfThought(ASK)
    teacher = dspex.ChainOfThought(ASK, lm=model("teacher"))
    # DSPy takes its model from a teacher that it gives demos.
    bootstrap(max_labeled_demos=0).compile(student, trainset=ROWS, teacher=teacher)
    assert asked() == {"teacher"}
    bootstrap(teacher_settings={"lm": model("settings")}).compile(student, trainset=ROWS)
    assert asked() == {"settings"}
    copro = dspex.optimizer("dspy.COPRO", metric=is_right, prompt_model=model("writes"), breadth=2, depth=1)
    copro.compile(student, trainset=ROWS, eval_kwargs={"num_threads": 1})
    assert asked() == {"writes", "local"}


def test_progress_tells_of_each_call_of_the_metric_each_score_and_at_last_the_usage(
    said: Said, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[OptimizerProgress] = []
    args: dict[str, Any] = {"auto": None, "num_candidates": 2, "num_threads": 4, **BOOTSTRAP}
    optimizer = dspex.optimizer("dspy.MIPROv2", metric=is_right, **args)
    optimizer.compile(
        dspex.ChainOfThought(ASK), trainset=ROWS, num_trials=2, minibatch=False, on_progress=reports.append
    )
    *steps, last = reports
    assert [report.metric_calls + report.evaluations for report in steps] == list(range(1, len(reports)))
    assert (last.evaluations, last.score, last.best_score, last.metric_errors) == (3, 100.0, 100.0, 0)
    assert (last.done, any(report.done for report in steps)) == (True, False)
    counted = [
        usage_of(asked.messages, [reply_to(asked.messages)])["total_tokens"] for asked in said.server.requests
    ]
    assert last.usage["total_tokens"] == sum(counted) > 0

    def fails(report: OptimizerProgress) -> None:
        raise ValueError("no screen")

    with caplog.at_level(logging.ERROR, logger="dspex.modules"):
        bootstrap().compile(dspex.ChainOfThought(ASK), trainset=ROWS, on_progress=fails)
    assert "no screen" in caplog.text


# --- what is wrong --------------------------------------------------------------------------------


class Own(dspex.Module):
    def __init__(self) -> None:
        self.answer = dspex.Predict(ASK)

    def forward(self, question: str) -> Any:
        return self.answer(question=question)


def compiles(program: Any = None, **more: Any) -> Callable[[], Any]:
    given = {"trainset": ROWS, **more}
    return lambda: bootstrap().compile(dspex.ChainOfThought(ASK) if program is None else program, **given)


def last_reasoning() -> dspex.ChainOfThought:
    program = dspex.ChainOfThought(ASK)
    program.predict.signature = "question -> answer, reasoning"
    return program


MISTAKES: list[tuple[Callable[[], Any], str, str]] = [
    (compiles(Own()), "optimizer-program", "a Own is none"),
    (compiles(dspex.MultiChainComparison(ASK)), "optimizer-program", "a MultiChainComparison is none"),
    (compiles(dspy.Predict(ASK)), "optimizer-program", "a Predict is none"),
    (compiles(last_reasoning()), "optimizer-program", "a ChainOfThought whose reasoning"),
    (compiles(teacher=Own()), "optimizer-program", "a Own is none"),
    (compiles(trainset=[]), "bad-trainset", "trainset is empty"),
    (compiles(valset=[]), "bad-trainset", "valset is empty"),
    (compiles(trainset={"question": "?"}), "bad-trainset", "must be a list of examples, not a dict"),
    (compiles(trainset=3), "bad-trainset", "must be a list of examples, not a int"),
    (compiles(trainset=["?"]), "bad-trainset", r"trainset\[0\] must map"),
    (compiles(trainset=[{1: "?"}]), "bad-trainset", "a name that is no text"),
    (compiles(trainset=[*ROWS, {"answer": "?"}]), "bad-trainset", r"trainset\[4\] has no 'question'"),
    (compiles(inputs=["query"]), "bad-trainset", "has no 'query'"),
    (compiles(inputs="question"), "bad-trainset", "inputs must be a list"),
    (compiles(trainset=[{"question": object()}]), "bad-trainset", "cannot go to a worker"),
    (compiles(dspex.program(PROGRAMS + "TwoSteps")), "bad-trainset", "nobody knows which fields"),
    (compiles(num_trials=object()), "module-argument", "num_trials"),
    (compiles(timeout=-1), "bad-timeout", "-1"),
    (compiles(route="pool:none"), "unknown-route", "pool:none"),
    (compiles(route="native"), "module-needs-dspy", "dspy.BootstrapFewShot is run by real DSPy"),
    (lambda: dspex.optimizer("BootstrapFewShot"), "bad-import-path", "not the path of a class"),
    (lambda: bootstrap(metric=3), "module-argument", "metric"),
    (lambda: dspex.optimizer("dspy.MIPROv2", prompt_model=dspy.LM("openai/x")), "module-argument", "prompt"),
    (lambda: dspex.optimizer("dspy.MIPROv2", runtime=3), "bad-runtime", "runtime"),  # type: ignore[arg-type]
    (
        lambda: bootstrap(teacher_settings={"lm": ScriptedLM("x")}).compile(
            dspex.ChainOfThought(ASK), trainset=ROWS
        ),
        "lm-not-for-workers",
        "ScriptedLM",
    ),
]


@pytest.mark.parametrize(("make", "code", "says"), MISTAKES)
def test_a_mistake_is_refused_before_anything_is_sent(
    make: Callable[[], Any], code: str, says: str, runtime: dspex.Runtime, said: Said
) -> None:
    before = served(runtime)
    with pytest.raises(errors.DspexError, match=says) as caught:
        make()
    assert caught.value.code == code
    assert (served(runtime), said.server.requests) == (before, [])


def optimizes(path: str, program: Any = None, more: Any = None, **args: Any) -> Callable[[], Any]:
    made = dspex.ChainOfThought(ASK) if program is None else program
    given = {"trainset": ROWS, "inputs": ["question"], **(more or {})}
    return lambda: dspex.optimizer(path, **args).compile(made, **given)


class TooHardError(Exception):
    pass


def fails(example: Any, prediction: Any, trace: Any = None) -> bool:
    raise TooHardError("who knows")


def divides(example: Any, prediction: Any, trace: Any = None) -> float:
    return 1 / 0


FEW = "dspy.BootstrapFewShot"
FAILURES: list[tuple[Callable[[], Any], Any, str, str]] = [
    (optimizes("dspy.NoSuchThing"), errors.ConfigError, "bad-import-path", "NoSuchThing"),
    (optimizes("os.path"), errors.ConfigError, "not-an-optimizer", "'os.path' is not an optimizer"),
    (optimizes("dspy.Predict"), errors.ConfigError, "not-an-optimizer", "not an optimizer"),
    (optimizes(FEW, colour=1), errors.ConfigError, "bad-optimizer", "colour"),
    (optimizes(FEW, more={"num_trials": 3}), errors.ConfigError, "bad-optimizer", "num_trials"),
    (optimizes(FEW, more={"valset": ROWS}), errors.ConfigError, "bad-optimizer", "valset"),
    (optimizes("dspy.KNNFewShot", k=1), errors.ConfigError, "bad-optimizer", "trainset"),
    (optimizes(PROGRAMS + "ImportsLate"), errors.ConfigError, "optimizer-package", "'no_such_package'"),
    (optimizes(PROGRAMS + "AddsAPredictor"), errors.ConfigError, "optimizer-program", "more than demos"),
    (
        optimizes(FEW, dspex.program(PROGRAMS + "AsyncAnswer")),
        errors.ConfigError,
        "optimizer-program",
        "no `forward`",
    ),
    (optimizes(FEW, dspex.program(PROGRAMS + "TwoSteps", x=1)), errors.ConfigError, "bad-module", "'x'"),
    (optimizes(FEW, metric=fails, max_errors=2), errors.RemoteError, "metric-failed", "2 of 2 .* who knows"),
    (optimizes(FEW, metric=divides, max_errors=1), errors.RemoteError, "metric-failed", "ZeroDivisionError"),
    (
        optimizes("dspy.BootstrapFewShotWithRandomSearch", metric=fails, max_errors=1),
        errors.RemoteError,
        "metric-failed",
        "TooHardError: who knows",
    ),
    (
        optimizes("dspy.MIPROv2", None, {"minibatch_size": 99}, metric=is_right, auto=None),
        errors.RemoteError,
        "remote",
        "num_candidates must also be provided",
    ),
    (optimizes(FEW, dspex.program(PROGRAMS + "Dies")), errors.WorkerDiedError, "worker-died", "SIGKILL"),
]  # fmt: skip


@pytest.mark.parametrize(("work", "error", "code", "says"), FAILURES)
def test_each_failure_is_one_typed_error_and_the_next_work_is_done(
    work: Callable[[], Any], error: Any, code: str, says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        work()
    assert caught.value.code == code
    assert len(bootstrap().compile(dspex.ChainOfThought(ASK), trainset=ROWS).predict.demos) == 2


def test_the_cause_of_a_failed_metric_is_its_own_error_and_few_failures_are_borne_as_in_dspy() -> None:
    with pytest.raises(errors.RemoteError) as caught:
        bootstrap(fails, max_errors=1).compile(dspex.ChainOfThought(ASK), trainset=ROWS)
    assert isinstance(caught.value.__cause__, TooHardError)
    reports: list[OptimizerProgress] = []
    compiled = bootstrap(fails).compile(dspex.ChainOfThought(ASK), trainset=ROWS, on_progress=reports.append)
    assert (reports[-1].metric_calls, reports[-1].metric_errors) == (4, 4)
    assert not any(demo.get("augmented") for demo in compiled.predict.demos)


def test_a_package_that_is_missing_is_named_before_a_model_is_asked(said: Said) -> None:
    lm = dspex.LM("openai/local", api_base=said.server.api_base, api_key="k")
    spec = dspex.PoolSpec(workers=1, preload=["tests.support.without_optuna"])
    with dspex.Runtime(lm, pools=spec) as alone:
        optimizer = dspex.optimizer("dspy.MIPROv2", metric=is_right, runtime=alone)
        with pytest.raises(errors.ConfigError, match="needs the package 'optuna'") as caught:
            optimizer.compile(dspex.ChainOfThought(ASK), trainset=ROWS)
    assert (caught.value.code, caught.value.hint) == ("optimizer-package", "`pip install optuna` there")
    assert said.server.requests == []


def test_a_model_that_refuses_is_the_error_where_dspy_says_only_that_it_gave_up() -> None:
    with ModelServer(say, faults=[HttpError(401)] * 100) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="k")
        for path in (FEW, "dspy.BootstrapFewShotWithRandomSearch"):
            program = dspex.ChainOfThought(ASK, lm=lm)
            with pytest.raises(errors.LMAuthError):
                dspex.optimizer(path, metric=is_right, max_errors=1).compile(program, trainset=ROWS)


def test_a_runtime_without_workers_says_what_it_needs() -> None:
    with dspex.Runtime(ScriptedLM("x")) as alone:
        optimizer = dspex.optimizer(FEW, runtime=alone)
        with pytest.raises(errors.RouteError, match=r"dspy\.BootstrapFewShot is run by real DSPy") as caught:
            optimizer.compile(dspex.ChainOfThought(ASK), trainset=ROWS)
    assert caught.value.code == "module-needs-dspy"


def deaths(runtime: dspex.Runtime) -> int:
    return runtime.pools()["optimizer"].deaths


def idle(runtime: dspex.Runtime) -> bool:
    return all(worker.inflight == 0 for worker in runtime.pools()["optimizer"].workers)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_work_whose_time_is_over_ends_and_its_worker_goes_on(runtime: dspex.Runtime) -> None:
    async def waits(example: Any, prediction: Any, trace: Any = None) -> bool:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return True

    left = threading.Event()
    bootstrap().compile(dspex.ChainOfThought(ASK), trainset=ROWS)
    before = deaths(runtime)
    with pytest.raises(errors.DeadlineExceeded):
        bootstrap(waits).compile(dspex.ChainOfThought(ASK), trainset=ROWS, timeout=0.5)
    assert left.wait(30)
    wait_for(lambda: idle(runtime))
    assert len(bootstrap().compile(dspex.ChainOfThought(ASK), trainset=ROWS).predict.demos) == 2
    assert deaths(runtime) == before


async def test_work_that_is_cancelled_asks_no_more(runtime: dspex.Runtime, said: Said) -> None:
    asked = threading.Event()

    def answer(request: ChatRequest) -> str:
        if len(said.server.requests) == 3:
            asked.set()
        return say(request)

    said.answer = answer
    many = [{"question": f"{n}?", "answer": "nothing like it"} for n in range(1_000)]
    program = dspex.ChainOfThought(ASK)
    await runtime.awarmup()
    before = (await runtime.apools())["optimizer"].deaths
    work = asyncio.create_task(bootstrap().acompile(program, trainset=many))
    await asyncio.to_thread(asked.wait, 30)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await asyncio.to_thread(wait_for, lambda: idle(runtime))
    assert len(said.server.requests) < 500
    asked_until_then = len(said.server.requests)
    compiled = await bootstrap().acompile(program, trainset=ROWS)
    assert len(compiled.predict.demos) == 2
    assert len(said.server.requests) == asked_until_then + 2
    assert (await runtime.apools())["optimizer"].deaths == before


def test_what_failed_holds_neither_the_metric_nor_the_examples() -> None:
    gc.collect()
    gc.disable()
    try:
        example = dspy.Example(question="?", answer="blue").with_inputs("question")

        def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
            raise TooHardError

        ends = [weakref.ref(metric), weakref.ref(example)]
        optimizer = bootstrap(metric, max_errors=1)
        with pytest.raises(errors.RemoteError):
            optimizer.compile(dspex.ChainOfThought(ASK), trainset=[example])
        del optimizer, metric, example
        wait_for(lambda: [end() for end in ends] == [None, None])
    finally:
        gc.enable()


def test_its_text_shows_no_value() -> None:
    made = dspex.optimizer(
        "dspy.MIPROv2", metric=is_right, log_dir="/secret", prompt_model=dspex.LM("openai/x")
    )
    assert repr(made) == "RemoteOptimizer('dspy.MIPROv2', log_dir=..., metric=..., prompt_model=...)"
