"""What a pipeline does with its steps: what goes where, what runs beside what, and how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, TypedDict

import pytest
from pydantic import BaseModel
from tests.support.always_resume import rebuild_after_each_step

import dspex
from dspex import errors
from dspex.pipelines import Pipeline, PipelineWarning, StepCache, StepContext
from dspex.router import Retry
from dspex.stores import Memory
from dspex.streaming import StepEnded, StepEvent, StepRestarted, StepStarted, TextDelta, sse
from dspex.testing import ScriptedLM

FAST = Retry(attempts=3, first_wait=0.001, longest_wait=0.001)


async def shout(question: str) -> str:
    return question.upper()


async def search(query: str) -> list[str]:
    return [f"{query} one", f"{query} two"]


class Both(TypedDict):
    first: str
    last: str


def statuses(result: Any) -> dict[str, str]:
    """How the steps ended; one that was resumed had ended well before."""
    return {step.path: "ok" if step.status == "resumed" else step.status for step in result.steps}


@pytest.fixture(autouse=True, params=["straight", "rebuilt"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs twice: as it is, and with the run rebuilt from its store after each step."""
    if request.param == "rebuilt":
        rebuild_after_each_step(monkeypatch)


def named(function: Callable[..., Any], name: str, **options: Any) -> Any:
    return dspex.step(function, outputs=name, **options)


# -- what goes where ----------------------------------------------------------------------------------


async def test_a_field_goes_to_whatever_takes_it_by_its_name() -> None:
    async def answer(question: str, docs: list[str]) -> str:
        return f"{question}: {len(docs)}"

    pipeline = dspex.pipeline(named(shout, "query"), named(search, "docs"), named(answer, "answer"))
    result = await pipeline.arun(question="why")

    assert dict(result) == {"answer": "why: 2"}
    assert statuses(result) == {"query": "ok", "docs": "ok", "answer": "ok"}


async def test_a_branch_with_one_field_gives_its_value_and_one_with_several_a_record() -> None:
    async def ends(query: str) -> Both:
        return {"first": query[0], "last": query[-1]}

    async def join(docs: list[str], first: str) -> str:
        return f"{docs[0]} {first}"

    pipeline = dspex.pipeline(
        dspex.parallel(docs=search, ends=ends),
        named(join, "joined", inputs={"first": "ends.first"}),
        outputs=["joined", "ends"],
    )
    assert dict(await pipeline.arun(query="abc")) == {
        "joined": "abc one a",
        "ends": {"first": "a", "last": "c"},
    }


@dataclasses.dataclass
class Data:
    a: int
    b: str


class Row(NamedTuple):
    a: int
    b: str


class Model(BaseModel):
    a: int
    b: str


class Typed(TypedDict):
    a: int
    b: str


@pytest.mark.parametrize("kind", [Data, Row, Model, Typed])
async def test_what_a_function_returns_gives_its_fields_where_its_annotation_has_some(kind: Any) -> None:
    async def make(x: int) -> Any:
        return kind(a=x, b="b")

    make.__annotations__["return"] = kind
    result = await dspex.pipeline(make).arun(x=1)
    assert dict(result) == {"a": 1, "b": "b"}


async def test_operators_are_a_sequence_and_branches_side_by_side() -> None:
    async def join(query: str, docs: list[str]) -> str:
        return f"{query} {len(docs)}"

    pipeline = dspex.pipeline(
        named(shout, "query") & named(search, "docs", inputs={"query": "question"}) | named(join, "out")
    )
    assert dict(await pipeline.arun(question="q")) == {"out": "Q 2"}


def test_a_plain_function_may_stand_on_either_side_of_an_operator() -> None:
    def before(question: str) -> Both:
        return {"first": question[0], "last": question[-1]}

    pipeline = dspex.pipeline(before | dspex.Predict("first, last -> answer"))
    assert (list(pipeline.plan.inputs), list(pipeline.plan.outputs)) == (["question"], ["answer"])


async def test_a_field_that_is_given_again_is_the_new_one_afterwards() -> None:
    async def grow(x: int) -> int:
        return x + 1

    pipeline = dspex.pipeline(named(grow, "x"), named(grow, "x"), named(grow, "x"))
    result = await pipeline.arun(x=1)
    assert (result.x, list(statuses(result))) == (4, ["x", "x_2", "x_3"])


@pytest.mark.parametrize(("x", "gives"), [(1, "small"), (9, "big")])
async def test_a_branch_runs_one_side(x: int, gives: str) -> None:
    async def small(x: int) -> str:
        return "small"

    async def big(x: int) -> str:
        return "big"

    for condition in ("x < 5", lambda x: x < 5):
        pipeline = dspex.pipeline(
            dspex.branch(condition, named(small, "size"), named(big, "size")), inputs=["x"]
        )
        result = await pipeline.arun(x=x)
        side = "then" if x < 5 else "otherwise"
        assert (result.size, statuses(result)) == (gives, {f"branch/{side}/size": "ok", "branch": "ok"})


async def test_a_field_that_only_one_side_gives_stays_as_it_was_on_the_other() -> None:
    async def mend(answer: str) -> str:
        return answer + "!"

    pipeline = dspex.pipeline(
        named(shout, "answer"), dspex.branch("answer|length < 3", named(mend, "answer"))
    )
    assert [(await pipeline.arun(question=each)).answer for each in ("a", "abc")] == ["A!", "ABC"]


async def test_a_map_runs_its_step_for_every_item_and_keeps_their_order() -> None:
    running = most = 0

    async def note(doc: int, question: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return f"{question}{doc}"

    pipeline = dspex.pipeline(
        dspex.map(named(note, "note"), over="docs", item="doc", concurrency=4), inputs=["docs", "question"]
    )
    result = await pipeline.arun(docs=list(range(10)), question="q")
    assert (result.note, most) == ([f"q{number}" for number in range(10)], 4)
    assert statuses(result)["map[9]/note"] == "ok"
    assert (await pipeline.arun(docs=[], question="q")).note == []


async def test_a_loop_goes_on_until_its_condition_holds_and_takes_what_it_gave() -> None:
    async def grow(x: int) -> int:
        return x + 1

    pipeline = dspex.pipeline(dspex.loop(named(grow, "x"), until="x >= 3", at_most=5))
    assert [(await pipeline.arun(x=x)).x for x in (0, 2, 10)] == [3, 3, 11]
    assert (await pipeline.arun(x=-100)).x == -95


async def test_a_pipeline_in_a_pipeline_has_its_name_in_the_paths() -> None:
    inner = dspex.pipeline(named(shout, "query"), named(search, "docs"), name="retrieve", outputs=["docs"])
    pipeline = dspex.pipeline(inner, named(len_of, "count"))
    result = await pipeline.arun(question="q")
    assert (result.count, list(statuses(result))) == (
        2,
        ["retrieve/query", "retrieve/docs", "retrieve", "count"],
    )


async def len_of(docs: list[str]) -> int:
    return len(docs)


async def test_reduce_makes_one_outcome_of_all_branches() -> None:
    async def vote(*answers: str) -> str:
        return max(answers, key=answers.count)

    def answers(text: str) -> Any:
        async def answer(question: str) -> str:
            return text

        return answer

    pipeline = dspex.pipeline(
        dspex.step(
            dspex.parallel(a=answers("x"), b=answers("y"), c=answers("x"), reduce=vote), outputs="answer"
        )
    )
    assert dict(await pipeline.arun(question="?")) == {"answer": "x"}


async def test_a_step_that_says_so_is_given_its_context() -> None:
    seen: list[StepContext] = []

    async def note(x: int, ctx: StepContext) -> int:
        seen.append(ctx)
        return x

    result = await dspex.pipeline(named(note, "y")).arun(x=1, run_id="r1")
    assert (result.run_id, seen[0].key, seen[0].attempt, seen[0].deadline) == ("r1", "r1/y", 1, None)


async def test_a_function_that_is_not_async_runs_in_a_thread_unless_it_is_done_at_once() -> None:
    def where(x: int) -> int:
        return threading.get_ident()

    here = threading.get_ident()
    assert (await dspex.pipeline(named(where, "y")).arun(x=1)).y != here
    assert (await dspex.pipeline(named(where, "y", thread=False)).arun(x=1)).y == here


# -- what runs beside what ----------------------------------------------------------------------------


async def test_steps_start_when_their_inputs_are_there_and_wait_for_nothing_else() -> None:
    """The slow branch's sibling has a follower, which ends before the slow one does."""
    slow_may_end = asyncio.Event()
    order: list[str] = []

    async def slow(x: int) -> int:
        await slow_may_end.wait()
        order.append("slow")
        return x

    async def quick(x: int) -> int:
        return x

    async def after_quick(b: int) -> int:
        order.append("after quick")
        slow_may_end.set()
        return b

    pipeline = dspex.pipeline(
        named(slow, "a", pure=True),
        named(quick, "b", pure=True),
        named(after_quick, "c", pure=True),
        outputs=["a", "c"],
        inputs=["x"],
    )
    async with asyncio.timeout(10):
        assert dict(await pipeline.arun(x=1)) == {"a": 1, "c": 1}
    assert order == ["after quick", "slow"]


async def test_a_step_that_may_have_effects_waits_for_all_before_it_and_holds_up_all_after_it() -> None:
    order: list[str] = []

    def noting(name: str) -> Any:
        async def note(x: int) -> int:
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")
            return x

        return note

    pipeline = dspex.pipeline(
        named(noting("a"), "a"), named(noting("b"), "b"), named(noting("c"), "c"), outputs=["a", "b", "c"]
    )
    await pipeline.arun(x=1)
    assert order == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


async def test_predictors_that_need_nothing_of_each_other_run_together() -> None:
    """Each reply comes when the server has both requests."""
    texts = "[[ ## a ## ]]\n1\n\n[[ ## b ## ]]\n2\n\n[[ ## completed ## ]]"
    pipeline = dspex.pipeline(
        dspex.Predict("question -> a"), dspex.Predict("question -> b"), outputs=["a", "b"]
    )
    both = asyncio.Barrier(2)

    class Together(ScriptedLM):
        async def complete(self, *args: Any, **settings: Any) -> Any:
            await both.wait()
            return await super().complete(*args, **settings)

    async with asyncio.timeout(20), dspex.Runtime(lm=Together(lambda _: texts)):
        assert dict(await pipeline.arun(question="?")) == {"a": "1", "b": "2"}


# -- how it ends --------------------------------------------------------------------------------------


class OwnError(Exception):
    pass


async def fail(x: int) -> int:
    raise OwnError("no")


async def test_the_first_error_is_raised_as_itself_with_what_had_ended_and_siblings_are_cancelled() -> None:
    cancelled: list[str] = []

    async def patient(x: int) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("patient")
            raise
        return x

    async def first(x: int) -> int:
        return x

    pipeline = dspex.pipeline(named(first, "y"), dspex.parallel(a=patient, b=fail), outputs=["a", "b", "y"])
    with pytest.raises(OwnError) as raised:
        await pipeline.arun(x=1)
    error: Any = raised.value
    assert (error.step, error.completed, error.errors) == ("parallel/b", ("y",), {})
    assert cancelled == ["patient"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_run_that_goes_on_skips_what_depended_on_a_failure_and_gives_the_rest() -> None:
    async def double(x: int) -> int:
        return 2 * x

    async def needs(a: int) -> int:
        return a

    pipeline = dspex.pipeline(
        dspex.parallel(a=fail, b=double), named(needs, "c"), outputs=["a", "b", "c"], on_error="continue"
    )
    result = await pipeline.arun(x=2)
    assert dict(result) == {"b": 4}
    assert {path: type(error) for path, error in result.errors.items()} == {"parallel/a": OwnError}
    assert statuses(result) == {
        "parallel/a": "failed",
        "parallel/b": "ok",
        "parallel": "failed",
        "c": "skipped",
    }


async def test_a_step_is_tried_again_as_often_as_it_says() -> None:
    attempts: list[int] = []

    async def shaky(x: int, ctx: StepContext) -> int:
        attempts.append(ctx.attempt)
        if len(attempts) < 3:
            raise OwnError
        return x

    result = await dspex.pipeline(named(shaky, "y", retry=FAST)).arun(x=1)
    assert (result.y, attempts, result.errors) == (1, [1, 2, 3], {})


async def test_what_the_caller_did_wrong_is_not_tried_again() -> None:
    calls = 0

    async def refuse(x: int) -> int:
        nonlocal calls
        calls += 1
        raise errors.InputError("no")

    with pytest.raises(errors.InputError):
        await dspex.pipeline(named(refuse, "y", retry=FAST, fallback=named(fail, "y"))).arun(x=1)
    assert calls == 1


async def test_a_fallback_stands_in_for_a_step_that_failed() -> None:
    async def other(x: int) -> int:
        return -x

    pipeline = dspex.pipeline(named(fail, "y", fallback=[fail, other]))
    result = await pipeline.arun(x=1)
    assert (dict(result), result.errors, statuses(result)) == ({"y": -1}, {}, {"y": "ok"})


async def test_a_step_that_takes_too_long_ends_with_its_own_error() -> None:
    async def slow(x: int) -> int:
        await asyncio.Event().wait()
        return x

    pipeline = dspex.pipeline(named(slow, "y", timeout=0.01))
    with pytest.raises(errors.DeadlineExceeded) as raised:
        await pipeline.arun(x=1)
    assert (raised.value.code, raised.value.stage) == ("step-timeout", "step")


async def test_a_run_has_one_deadline() -> None:
    async def slow(x: int) -> int:
        await asyncio.Event().wait()
        return x

    pipeline = dspex.pipeline(named(slow, "y")).with_options(timeout=0.01)
    with pytest.raises(errors.DeadlineExceeded) as raised:
        await pipeline.arun(x=1)
    assert raised.value.stage == "program"


async def test_a_cache_gives_an_outcome_again_for_equal_inputs_and_keeps_no_failure() -> None:
    calls: list[int] = []

    async def count(x: int) -> list[int]:
        calls.append(x)
        if x < 0:
            raise OwnError
        return [x]

    cache = StepCache(ttl=10, clock=lambda: now)
    now = 0.0
    pipeline = dspex.pipeline(named(count, "y", cache=cache))
    first = await pipeline.arun(x=1)
    first.y.append("changed by its caller")
    again = await pipeline.arun(x=1)
    assert (again.y, statuses(again), calls) == ([1], {"y": "cached"}, [1])
    now = 10.0
    await pipeline.arun(x=1)
    for _ in range(2):
        with pytest.raises(OwnError):
            await pipeline.arun(x=-1)
    assert calls == [1, 1, -1, -1]


async def test_inputs_that_are_missing_or_unknown_are_named_all_at_once() -> None:
    pipeline = dspex.pipeline(named(shout, "query"), inputs=["question", "other"])
    with pytest.raises(errors.InputError) as raised:
        await pipeline.arun(questoin="?")
    assert [name for name, _ in raised.value.problems] == ["question", "other", "questoin"]
    assert "did you mean 'question'?" in raised.value.hint


# -- many rows, streams, copies -----------------------------------------------------------------------


def test_a_batch_has_an_error_in_the_place_of_a_row_that_failed() -> None:
    async def check(x: int) -> int:
        if x == 2:
            raise OwnError
        return x

    outcomes = dspex.pipeline(named(check, "y")).batch([{"x": x} for x in range(4)])
    assert [getattr(each, "y", type(each)) for each in outcomes] == [0, 1, OwnError, 3]


def test_blocking_and_awaited_runs_give_the_same_and_no_loop_is_blocked() -> None:
    pipeline = dspex.pipeline(named(shout, "query"))
    assert pipeline.run(question="q") == pipeline(question="q") == asyncio.run(pipeline.arun(question="q"))

    async def block() -> None:
        pipeline.run(question="q")

    with pytest.raises(errors.ConfigError) as raised:
        asyncio.run(block())
    assert raised.value.code == "blocking-in-loop"


@pytest.fixture
async def runtime() -> AsyncIterator[dspex.Runtime]:
    text = "[[ ## answer ## ]]\nall is well\n\n[[ ## completed ## ]]"
    async with dspex.Runtime(lm=ScriptedLM(lambda _: text)) as running:
        yield running


async def test_a_stream_tells_of_steps_and_of_what_they_tell(runtime: dspex.Runtime) -> None:
    inner = dspex.pipeline(dspex.Predict("query -> answer"), name="inner")
    pipeline = dspex.pipeline(named(shout, "query"), inner)
    events = [event async for event in pipeline.astream(question="q")]
    *told, result = events

    assert isinstance(result, dspex.Prediction)
    assert result.answer == "all is well"
    assert [event.step for event in told if isinstance(event, StepStarted)] == [
        "query",
        "inner",
        "inner/answer",
    ]
    assert [(event.step, event.status) for event in told if isinstance(event, StepEnded)] == [
        ("query", "ok"),
        ("inner/answer", "ok"),
        ("inner", "ok"),
    ]
    texts = [
        event.event.text
        for event in told
        if isinstance(event, StepEvent)
        and isinstance(event.event, TextDelta)
        and event.step == "inner/answer"
    ]
    assert "".join(texts) == "all is well"


async def test_a_stream_tells_of_the_fields_that_are_asked_for(runtime: dspex.Runtime) -> None:
    pipeline = dspex.pipeline(dspex.Predict("question -> answer"))
    some = pipeline.with_options(stream_fields=[])
    assert not [event async for event in some.astream(question="?") if isinstance(event, StepEvent)]
    with pytest.raises(errors.ConfigError) as raised:
        pipeline.with_options(stream_fields=["anwser"]).astream(question="?")
    assert raised.value.code == "bad-stream"


@pytest.mark.parametrize("restart", [False, True])
async def test_a_step_that_has_told_something_is_tried_again_only_if_that_was_asked_for(
    restart: bool, runtime: dspex.Runtime
) -> None:
    predict = dspex.Predict("question -> answer")
    calls = 0

    async def shaky(question: str) -> str:
        nonlocal calls
        answer: str = (await predict.acall(question=question)).answer
        calls += 1
        if calls == 1:
            raise OwnError
        return answer

    pipeline = dspex.pipeline(named(shaky, "answer", retry=FAST)).with_options(restart=restart)
    events: list[Any] = []
    try:
        async for event in pipeline.astream(question="?"):
            events.append(event)
    except OwnError:
        assert not restart
    assert [event for event in events if isinstance(event, StepRestarted)] == [
        StepRestarted("answer")
    ] * restart
    assert calls == 1 + restart


async def test_a_reader_that_leaves_ends_the_run() -> None:
    ended: list[str] = []

    async def patient(x: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("patient")
        return x

    async with dspex.pipeline(named(patient, "y")).astream(x=1) as events:
        async for _ in events:
            break
    assert ended == ["patient"]
    assert len(asyncio.all_tasks()) == 1


def test_the_modules_inside_are_known_by_their_steps_paths_and_copied_with_it() -> None:
    pipeline = dspex.pipeline(
        dspex.Predict("question -> query"),
        dspex.parallel(facts=dspex.ChainOfThought("query -> facts: list[str]")),
    )
    assert [path for path, _ in pipeline.named_predictors()] == [
        "steps['query']",
        "steps['parallel/facts'].predict",
    ]
    twin = pipeline.deepcopy()
    query: Any = twin.steps["query"]
    query.demos = [{"question": "a", "query": "b"}]
    own: Any = pipeline.steps["query"]
    assert own.demos == []
    leaf: Any = next(iter(twin.plan.nodes())).does
    assert leaf.target is twin.steps["query"]
    pipeline.load_state(twin.dump_state())
    assert len(own.demos) == 1


def test_a_predictor_that_is_replaced_is_the_one_that_runs() -> None:
    pipeline = dspex.pipeline(dspex.Predict("question -> query"))
    other = dspex.Predict("question -> query", temperature=0.5)
    pipeline.map_named_predictors(lambda _: other)
    leaf: Any = next(iter(pipeline.plan.nodes())).does
    assert leaf.target is other is pipeline.steps["query"]


def test_modules_of_a_pipeline_inside_have_paths_and_copies_of_their_own() -> None:
    inner = dspex.pipeline(dspex.Predict("query -> answer"), name="inner")
    pipeline = dspex.pipeline(
        dspex.step(dspex.Predict("question -> answer"), outputs={"answer": "query"}, name="answer"), inner
    )
    assert [path for path, _ in pipeline.named_predictors()] == ["steps['answer']", "steps['inner/answer']"]
    twin = pipeline.deepcopy()
    assert twin.steps["inner/answer"] is not inner.steps["answer"]
    others = {path: dspex.Predict(predictor.signature) for path, predictor in pipeline.named_predictors()}
    known = {id(predictor): path for path, predictor in pipeline.named_predictors()}
    pipeline.map_named_predictors(lambda predictor: others[known[id(predictor)]])
    assert [predictor for _, predictor in pipeline.named_predictors()] == list(others.values())
    assert pipeline.with_options(stream_fields=["inner/answer.answer"]).astream(question="?")


def test_a_pipeline_with_options_of_its_own_is_no_step() -> None:
    inner = dspex.pipeline(named(shout, "query"), name="inner")
    for own in (inner.with_options(timeout=5), inner.with_options(store=Memory(), on_error="continue")):
        with pytest.raises(errors.PipelineError) as raised:
            dspex.pipeline(own)
        assert (raised.value.code, raised.value.step) == ("bad-step", "inner")
    assert "store, on_error" in raised.value.message
    dspex.pipeline(dspex.step(inner, timeout=5))


async def test_a_part_that_a_value_does_not_have_fails_that_step_alone() -> None:
    async def give(x: int) -> dict[str, int]:
        return {"a": x}

    async def take(a: Any) -> Any:
        return a

    pipeline = dspex.pipeline(
        named(give, "record"),
        named(take, "found", inputs={"a": "record.a"}),
        named(take, "lost", inputs={"a": "record.b"}),
        outputs=["found", "lost"],
        on_error="continue",
    )
    result = await pipeline.arun(x=1)
    assert (dict(result), statuses(result)["lost"]) == ({"found": 1}, "failed")


def test_what_looks_wrong_is_a_warning_and_an_error_where_that_was_asked_for() -> None:
    steps = [named(shout, "query"), named(shout, "unused"), named(search, "docs")]
    with pytest.warns(PipelineWarning, match="nothing uses the field 'unused'"):
        pipeline = Pipeline(steps)
    assert len(pipeline.warnings) == 1
    with pytest.raises(errors.PipelineError) as raised:
        Pipeline(steps, strict=True)
    assert (raised.value.code, raised.value.step) == ("unused-output", "unused")


def test_steps_are_data_that_several_pipelines_may_share() -> None:
    shared = named(shout, "query")
    one, other = dspex.pipeline(shared), dspex.pipeline(shared, named(search, "docs"))
    assert one.run(question="q").query == "Q"
    assert other.run(question="q").docs == ["Q one", "Q two"]


def test_a_batch_with_a_store_and_a_run_id_goes_on_where_it_ended() -> None:
    seen: list[int] = []
    broken = True

    async def check(x: int) -> int:
        seen.append(x)
        if x == 2 and broken:
            raise OwnError
        return x

    async def after(y: int) -> int:
        return -y

    pipeline = dspex.pipeline(named(check, "y"), named(after, "z"), outputs=["z"])
    nightly = pipeline.with_options(store=Memory(), run_id="nightly")
    rows = [{"x": x} for x in range(4)]
    first = nightly.batch(rows)
    assert [getattr(each, "z", type(each)) for each in first] == [0, -1, OwnError, -3]
    broken = False
    assert [each.z for each in nightly.batch(rows)] == [0, -1, -2, -3]
    assert sorted(seen) == [0, 1, 2, 2, 3]

    (other,) = nightly.batch([{"x": 7}])
    assert isinstance(other, errors.InputError)
    assert other.code == "other-inputs"


async def test_a_pipeline_is_evaluated_as_any_module() -> None:
    pipeline = dspex.pipeline(named(shout, "answer"))
    devset = [{"question": text, "answer": text.upper()} for text in ("a", "b", "c")]
    devset.append({"question": "d", "answer": "another"})

    def metric(example: Any, prediction: Any) -> bool:
        return bool(example["answer"] == prediction.answer)

    evaluation = await pipeline.aevaluate(devset, metric, progress=False)
    assert (evaluation.score, len(evaluation.failures)) == (75.0, 1)


async def test_a_browser_hears_of_steps_too(runtime: dspex.Runtime) -> None:
    pipeline = dspex.pipeline(dspex.Predict("question -> answer"))
    parts = [part.decode() async for part in sse(pipeline.astream(question="?"))]
    assert parts[0] == 'event: step-start\ndata: {"step": "answer"}\n\n'
    assert parts[1].startswith(
        'event: start\ndata: {"step": "answer", "field": "answer", "predictor": "self"'
    )
    assert parts[-2].startswith('event: step-end\ndata: {"step": "answer", "status": "ok", "seconds": ')
    assert parts[-1] == 'event: prediction\ndata: {"answer": "all is well"}\n\n'


async def test_a_step_is_told_of_while_one_beside_it_still_runs() -> None:
    may_end = asyncio.Event()

    async def slow(x: int) -> int:
        await may_end.wait()
        return x

    async def quick(x: int) -> int:
        return x

    pipeline = dspex.pipeline(dspex.parallel(slow=slow, quick=quick))
    seen: list[str] = []
    async with asyncio.timeout(10):
        events: Any = pipeline.astream(x=1)
        async for event in events:
            if isinstance(event, StepEnded):
                seen.append(event.step)
                may_end.set()  # the quick one has been told of
    assert seen == ["parallel/quick", "parallel/slow", "parallel"]


@pytest.mark.parametrize("pure", [False, True])
def test_a_plan_grows_in_proportion_to_its_steps(pure: bool) -> None:
    """What nodes wait for, which a run goes through; in a chain of steps with effects each waits for one."""

    def size(count: int) -> int:
        steps = [named(shout, "question", pure=pure and number % 10 != 0) for number in range(count)]
        nodes = dspex.pipeline(*steps).plan.block.nodes
        assert len({node.name for node in nodes}) == count
        return sum(len(node.after) for node in nodes)

    assert size(200) <= 2 * size(100) + 10
    assert size(100) <= 300


async def test_a_map_may_give_a_field_of_its_item_s_name() -> None:
    async def louder(x: str) -> str:
        return x.upper()

    each = dspex.map(dspex.step(louder, outputs="x"), over="xs", item="x")
    pipeline = dspex.pipeline(each, inputs={"xs": list[str]}, outputs=["x"])
    assert (await pipeline.arun(xs=["a", "b"])).x == ["A", "B"]
