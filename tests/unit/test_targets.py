"""What users may add to routing, targets and an order, and what it tells: explanations and attempts."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import weakref
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Literal

import pytest

import dspex
from dspex import Prediction
from dspex.errors import (
    ConfigError,
    DspexError,
    LMServerError,
    PoolSaturated,
    ReplyError,
    RouteError,
    TargetsUnavailable,
    WorkerDiedError,
)
from dspex.events import LMDelta
from dspex.lm import LMChoice, LMRequest, LMResponse
from dspex.router import AnyOperation, Breaker, Candidate, Operation, Retry, _backstop
from dspex.testing import ScriptedLM, no_waiting

BLUE = "[[ ## answer ## ]]\nblue"
LATER = "[[ ## answer ## ]]\nlater"
QA = "question -> answer"


class Cached:
    """A target of a user's: it knows some answers, and says so."""

    name = "cache"
    side: Literal["native", "python"] = "python"

    def __init__(self, **known: str) -> None:
        self.known = known
        self.asked: list[str] = []

    def unable(self, operation: AnyOperation) -> DspexError | None:
        if isinstance(operation, Operation) and operation.inputs["question"] in self.known:
            return None
        return RouteError("the cache does not know the answer", code="no-target")

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        question = operation.inputs["question"]
        self.asked.append(question)
        return Prediction(answer=self.known[question])


class Failing:
    """A target that raises."""

    name = "failing"
    side: Literal["native", "python"] = "native"

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        raise self.error


@pytest.fixture
def runtime() -> Iterable[dspex.Runtime]:
    with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        yield runtime


def test_a_target_of_ones_own_serves_what_it_can_and_is_taken_out_again(runtime: dspex.Runtime) -> None:
    cache = Cached(sky="grey")
    qa = dspex.Predict(QA)
    runtime.add_target(cache)
    assert qa(question="sky").answer == "blue"  # the native side comes first

    first = qa.with_options(strategy="prefer-python")
    assert (first(question="sky").answer, first(question="sky").route) == ("grey", "cache")
    other = first(question="grass")
    assert (other.answer, other.route, other.route_reason) == (
        "blue",
        "native",
        "the cache does not know the answer",
    )
    assert qa(question="sky", route="cache").answer == "grey"
    assert qa(question="sky", strategy="prefer-python").route == "cache"
    with pytest.raises(RouteError, match="does not know"):
        qa(question="grass", route="cache")

    assert runtime.remove_target("cache") is cache
    with pytest.raises(RouteError) as caught:
        qa(question="sky", route="cache")
    assert caught.value.code == "unknown-route"
    assert first(question="sky").route == "native"
    assert [row.name for row in runtime.counts()] == ["native"]


async def test_calls_under_way_at_a_target_that_is_removed_go_on() -> None:
    class Slow(Cached):
        begun, go = asyncio.Event(), asyncio.Event()

        async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
            self.begun.set()
            await self.go.wait()
            return await super().run(operation, timeout)

    slow = Slow(sky="grey")
    async with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(slow)
        qa = dspex.Predict(QA).with_options(strategy="prefer-python")
        call = asyncio.create_task(qa.acall(question="sky"))
        await asyncio.wait_for(slow.begun.wait(), 10)
        runtime.remove_target("cache")
        assert (await qa.acall(question="sky")).route == "native"
        runtime.add_target(Cached(sky="green"))
        slow.go.set()
        assert (await call).answer == "grey"
        assert (await qa.acall(question="sky")).answer == "green"


def test_targets_come_and_go_while_eight_threads_call(runtime: dspex.Runtime) -> None:
    qa = dspex.Predict(QA).with_options(strategy="prefer-python")
    stop, routes, errors = threading.Event(), set(), []

    def call() -> None:
        try:
            while not stop.is_set():
                routes.add(qa(question="sky").route)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        runtime.add_target(Cached(sky="grey"))
        runtime.remove_target("cache")
    stop.set()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert routes <= {"native", "cache"}
    (native,) = runtime.counts()
    assert (native.in_flight, native.failed) == (0, 0)


@pytest.mark.parametrize(
    ("target", "settings", "code"),
    [
        (object(), {}, "bad-routing"),
        (type("T", (Cached,), {"name": ""})(), {}, "bad-routing"),
        (type("T", (Cached,), {"side": "rust"})(), {}, "bad-routing"),
        (type("T", (Cached,), {"lacks": ("legs",)})(), {}, "bad-routing"),
        (Cached(), {"weight": -1}, "bad-routing"),
        (Cached(), {"weight": True}, "bad-routing"),
        (Cached(), {"in_flight": 0}, "bad-routing"),
        (type("T", (Cached,), {"name": "native"})(), {}, "target-name"),
    ],
)
def test_what_is_no_target_is_refused(
    runtime: dspex.Runtime, target: Any, settings: dict[str, Any], code: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        runtime.add_target(target, **settings)
    assert caught.value.code == code
    assert [row.name for row in runtime.counts()] == ["native"]


@pytest.mark.parametrize("name", ["native", "nobody"])
def test_only_a_target_of_ones_own_is_removed(runtime: dspex.Runtime, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        runtime.remove_target(name)
    assert caught.value.code == "target-name"


def test_a_target_says_once_what_it_lacks_and_is_not_asked(runtime: dspex.Runtime) -> None:
    class Lacking(Cached):
        lacks = ("lm-not-for-workers",)

        def unable(self, operation: AnyOperation) -> DspexError | None:
            asked.append(operation)
            return ConfigError("the model lives here", code="lm-not-for-workers")

    asked: list[AnyOperation] = []
    runtime.add_target(Lacking(sky="grey"))
    qa = dspex.Predict(QA).with_options(strategy="prefer-python")
    prediction = qa(question="sky")
    assert (prediction.route, prediction.route_reason, len(asked)) == ("native", "the model lives here", 1)


def test_a_breaker_is_opened_and_closed_by_hand(runtime: dspex.Runtime) -> None:
    runtime.add_target(Cached(sky="grey"))
    first = dspex.Predict(QA).with_options(strategy="prefer-python")
    runtime.force_breaker("cache", "open")
    assert first(question="sky").route == "native"
    with pytest.raises(TargetsUnavailable):
        first(question="sky", route="cache")
    assert runtime.counts()[1].state == "forced-open"
    runtime.force_breaker("cache", "closed")
    assert (first(question="sky").route, runtime.counts()[1].state) == ("cache", "forced-closed")
    runtime.force_breaker("cache", "auto")
    assert runtime.counts()[1].state == "closed"


@pytest.mark.parametrize(
    ("name", "state", "code"),
    [("nobody", "open", "target-name"), ("native", "open", "bad-routing"), ("cache", "ajar", "bad-routing")],
)
def test_a_breaker_that_is_none_is_not_forced(
    runtime: dspex.Runtime, name: str, state: Any, code: str
) -> None:
    runtime.add_target(Cached(sky="grey"))
    with pytest.raises(ConfigError) as caught:
        runtime.force_breaker(name, state)
    assert caught.value.code == code


# -- explain ----------------------------------------------------------------------------------------


def test_an_explanation_says_where_a_call_would_go_and_why_and_does_nothing() -> None:
    lm = ScriptedLM(BLUE)
    with dspex.Runtime(lm) as runtime:
        runtime.add_target(Cached(sky="grey"), in_flight=1, breaker=Breaker())
        qa = dspex.Predict(QA)
        told = runtime.explain(qa, question="grass")
        assert (told.target, told.error) == ("native", None)
        assert told.targets == (
            ("native", "ready", "", ""),
            ("cache", "unable", "no-target", "the cache does not know the answer"),
        )
        told = runtime.explain(qa, question="sky", strategy="prefer-python")
        assert [each[:2] for each in told.targets] == [("cache", "ready"), ("native", "ready")]
        told = runtime.explain(qa, question="sky", route="native")
        assert [each[:2] for each in told.targets] == [("native", "ready"), ("cache", "elsewhere")]
        told = runtime.explain(dspex.ChainOfThought(QA), question="grass", route="cache")
        assert (told.target, type(told.error)) == (None, RouteError)
        assert (lm.requests, [row[1:5] for row in runtime.counts()]) == ([], [(0, 0, 0, 0)] * 2)


def test_an_explanation_names_the_code_of_what_only_real_dspy_has(runtime: dspex.Runtime) -> None:
    told = runtime.explain(dspex.remote("dspy.ReAct", QA, tools=[]), question="sky")
    assert (told.target, told.targets[0].code) == (None, "module-needs-dspy")
    told = runtime.explain(dspex.Predict(QA, adapter=dspex.BAMLAdapter()), question="sky")
    assert (told.target, told.targets[0].code) == (None, "adapter-needs-dspy")
    assert told.error is not None
    with pytest.raises(type(told.error)) as caught:
        dspex.Predict(QA, adapter=dspex.BAMLAdapter())(question="sky")
    assert caught.value.code == told.error.code


def test_what_makes_no_single_call_is_not_explained_and_not_called(runtime: dspex.Runtime) -> None:
    class Program(dspex.Module):
        def __init__(self) -> None:
            super().__init__()
            self.operation = dspex.Predict(QA)

    for module in (dspex.Parallel(), Program()):
        with pytest.raises(ConfigError) as caught:
            runtime.explain(module, question="sky")
        assert caught.value.code == "bad-call"
    assert runtime.counts()[0].served == 0


# -- an order of one's own --------------------------------------------------------------------------


class Order:
    def __init__(self, *names: str) -> None:
        self.names = names
        self.seen: list[Sequence[Candidate]] = []

    def order(self, operation: AnyOperation, candidates: Sequence[Candidate]) -> Iterable[str]:
        self.seen.append(candidates)
        return self.names


def test_an_order_of_ones_own_is_kept_and_full_targets_are_passed_over() -> None:
    order = Order("cache", "native")
    with dspex.Runtime(ScriptedLM(BLUE), strategy=order) as runtime:
        runtime.add_target(Cached(sky="grey"), breaker=Breaker(minimum=1, open_for=1000))
        qa = dspex.Predict(QA)
        assert qa(question="sky").route == "cache"
        assert runtime.explain(qa, question="sky").target == "cache"
        assert [(each.name, each.side, each.in_flight, each.state) for each in order.seen[0]] == [
            ("native", "native", 0, "closed"),
            ("cache", "python", 0, "closed"),
        ]
        runtime.remove_target("cache")
        runtime.add_target(
            type("T", (Failing,), {"name": "cache"})(ZeroDivisionError("a bug")), breaker=Breaker(minimum=1)
        )
        with pytest.raises(ZeroDivisionError):
            qa(question="sky")
        assert qa(question="sky").route == "native"
        assert qa(question="sky", strategy="prefer-python").route == "native"


@pytest.mark.parametrize(
    ("names", "error", "code"), [(("nobody",), ConfigError, "bad-routing"), ((), RouteError, "no-target")]
)
def test_an_order_that_names_nobody_is_the_call_s_error(names: Any, error: Any, code: str) -> None:
    with dspex.Runtime(ScriptedLM(BLUE), strategy=Order(*names)), pytest.raises(error) as caught:
        dspex.Predict(QA)(question="sky")
    assert caught.value.code == code


@pytest.mark.parametrize("given", ["fastes", 5, Order, object()])
def test_what_is_no_strategy_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime(ScriptedLM(BLUE), strategy=given)
    assert caught.value.code == "bad-routing"
    with pytest.raises(ConfigError):
        dspex.Predict(QA).with_options(strategy=given)


def test_a_call_takes_a_strategy_by_its_name_alone() -> None:
    with pytest.raises(ConfigError, match="is the runtime's"):
        dspex.Predict(QA).with_options(strategy=Order("native"))  # type: ignore[arg-type]


def test_a_program_s_strategy_is_that_of_the_calls_inside(runtime: dspex.Runtime) -> None:
    class Program(dspex.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qa = dspex.Predict(QA)

        def forward(self, question: str) -> Prediction:
            prediction: Prediction = self.qa(question=question)
            return prediction

    runtime.add_target(Cached(sky="grey"))
    program = Program()
    assert program(question="sky").answer == "blue"
    assert program.with_options(strategy="prefer-python")(question="sky").answer == "grey"


# -- attempts ---------------------------------------------------------------------------------------


def test_a_prediction_has_each_attempt_with_its_target_time_and_error(runtime: dspex.Runtime) -> None:
    qa = dspex.Predict(QA)
    (only,) = qa(question="sky").attempts
    assert (only.target, only.error, only.seconds > 0) == ("native", None, True)

    error = PoolSaturated("full")
    runtime.add_target(Failing(error))
    other = type("Other", (Cached,), {"side": "python"})(sky="grey")
    runtime.add_target(other)
    prediction = qa.with_options(strategy="prefer-native")(question="sky")
    assert prediction.route == "native"
    runtime_order = qa.with_options(strategy="fastest")
    seen = set()
    for _ in range(50):
        prediction = runtime_order(question="sky")
        seen.add(tuple((each.target, each.error is None) for each in prediction.attempts))
    assert all(attempts[-1][1] for attempts in seen)
    failed = [attempts for attempts in seen if len(attempts) > 1]
    assert failed
    assert {attempts[0] for attempts in failed} == {("failing", False)}


def test_where_all_fail_the_error_carries_those_before_it_in_order() -> None:
    class Down:
        def __init__(self, name: str, error: DspexError) -> None:
            self.name, self.error = name, error

        async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
            raise self.error

    first, second = PoolSaturated("full"), WorkerDiedError("it died")
    with dspex.Runtime(ScriptedLM([]), strategy="prefer-python") as runtime:
        runtime.add_target(Down("one", first))
        runtime.add_target(Down("two", second))
        qa = dspex.Predict(QA).with_options(idempotent=True)
        with pytest.raises(DspexError, match="used up") as caught:
            qa(question="sky")
        assert [(each.target, each.error) for each in caught.value.earlier] == [
            ("one", first),
            ("two", second),
        ]
        assert all(each.seconds >= 0 for each in caught.value.earlier)
        assert caught.value.__notes__ == [
            "before that, one: PoolSaturated: full",
            "before that, two: WorkerDiedError: it died",
        ]
        copied = pickle.loads(pickle.dumps(caught.value))
        assert [each.target for each in copied.earlier] == ["one", "two"]
        with pytest.raises(DspexError) as alone:
            qa(question="sky", route="one")
        assert alone.value.earlier == ()


def test_failed_attempts_hold_no_inputs() -> None:
    class Thing(str):
        __slots__ = ("__weakref__",)

    gc.disable()
    try:
        with dspex.Runtime(ScriptedLM(BLUE), strategy="prefer-python", retry=Retry()) as runtime:
            runtime.add_target(type("T", (Failing,), {"side": "python"})(PoolSaturated("full")))
            qa = dspex.Predict(QA)
            value = Thing("sky")
            held = weakref.ref(value)
            prediction = qa(question=value)
            assert len(prediction.attempts) == 2
            del value
            assert held() is None
    finally:
        gc.enable()


# -- on the caller's thread -------------------------------------------------------------------------


class AtOnce:
    """A model that answers without waiting, and knows on which thread it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.threads: list[int] = []

    def complete_now(self, request: LMRequest) -> LMResponse | None:
        self.threads.append(threading.get_ident())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return None if answer is None else LMResponse((LMChoice(answer),))

    async def complete(self, request: LMRequest) -> LMResponse:
        return LMResponse((LMChoice(LATER),))

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        yield LMDelta(LATER)

    async def aclose(self) -> None:
        pass


def test_a_blocking_call_that_need_not_wait_stays_on_its_thread() -> None:
    lm: Any = AtOnce(BLUE, None)
    with dspex.Runtime(lm) as runtime:
        qa = dspex.Predict(QA)
        assert qa(question="sky").answer == "blue"
        assert lm.threads == [threading.get_ident()]
        assert qa(question="sky").answer == "later"  # it has to be waited for
        assert runtime.counts()[0][:5] == ("native", 0, 2, 0, 0)


def test_an_error_on_the_caller_s_thread_is_retried_like_any_other() -> None:
    full = LMServerError("no room", status=503)
    lm: Any = AtOnce(full, LMServerError("down", status=500), "no fields")
    with dspex.Runtime(lm, retry=Retry()) as runtime, no_waiting() as waited:
        qa = dspex.Predict(QA)
        prediction = qa(question="sky")
        assert (prediction.answer, len(waited)) == ("later", 1)
        assert [each.error for each in prediction.attempts] == [full, None]
        with pytest.raises(LMServerError, match="down"):
            qa(question="sky")
        with pytest.raises(ReplyError):
            dspex.Predict(QA, parsing="dspy")(question="sky")
        assert runtime.counts()[0][:5] == ("native", 0, 1, 3, 0)


def test_a_call_for_which_no_target_has_room_is_refused_on_the_caller_s_thread(
    runtime: dspex.Runtime,
) -> None:
    entered, go = threading.Event(), threading.Event()

    class Held(Cached):
        async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
            entered.set()
            await asyncio.to_thread(go.wait, 10)
            return await super().run(operation, timeout)

    runtime.add_target(Held(sky="grey"), in_flight=1)
    qa = dspex.Predict(QA)
    thread = threading.Thread(target=qa, kwargs={"question": "sky", "route": "cache"})
    thread.start()
    assert entered.wait(10)
    with pytest.raises(TargetsUnavailable) as caught:
        qa(question="sky", route="cache")
    assert caught.value.code == "targets-full"
    go.set()
    thread.join(10)
    assert qa(question="sky", route="cache").answer == "grey"


# -- closing ----------------------------------------------------------------------------------------


async def test_closing_ends_a_call_without_cancelling_its_caller() -> None:
    class Never(AtOnce):
        begun = asyncio.Event()

        async def complete(self, request: LMRequest) -> LMResponse:
            self.begun.set()
            await asyncio.Event().wait()
            raise AssertionError

    lm: Any = Never()
    runtime = dspex.Runtime(lm)
    await runtime.aopen()
    ended: list[str] = []

    async def caller() -> None:
        with pytest.raises(ConfigError) as caught:
            await dspex.Predict(QA, runtime=runtime).acall(question="sky")
        ended.append(caught.value.code)
        await asyncio.sleep(0)  # the task goes on
        task = asyncio.current_task()
        assert task is not None
        ended.append(str(task.cancelling()))

    task = asyncio.create_task(caller())
    await asyncio.wait_for(lm.begun.wait(), 10)
    await runtime.aclose()
    await asyncio.wait_for(task, 10)
    assert ended == ["runtime-closed", "0"]


async def test_a_call_that_nobody_goes_on_with_counts_as_left(runtime: dspex.Runtime) -> None:
    class Never(Cached):
        async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
            await asyncio.Event().wait()
            raise AssertionError

    async with dspex.Runtime(ScriptedLM(BLUE)) as own:
        own.add_target(Never(sky="grey"))
        call = own.begin(dspex.Predict(QA).operation(question="sky", route="cache"))
        assert call is not None
        asking = call.ask()
        asking.send(None)
        asking.close()
        assert own.counts()[1][:5] == ("cache", 0, 0, 0, 1)


def test_what_takes_over_is_the_next_by_the_strategy_of_the_call() -> None:
    class Down(Failing):
        side: Literal["native", "python"] = "python"

    with dspex.Runtime(ScriptedLM(BLUE), strategy=Order("failing", "cache", "native")) as own:
        own.add_target(Down(PoolSaturated("full")))
        own.add_target(Cached(sky="grey", sea="green"))
        qa = dspex.Predict(QA, runtime=own)
        assert [each.target for each in qa(question="sky").attempts] == ["failing", "cache"]
        first = qa.with_options(strategy="prefer-python")
        assert [each.target for each in first(question="sky").attempts] == ["failing", "cache"]
        assert [each.target for each in first(question="grass").attempts] == ["failing", "native"]


def test_what_a_target_raises_that_takes_over_is_counted_there() -> None:
    class Broken:
        name, side = "broken", "python"

        def unable(self, operation: AnyOperation) -> None:
            return None

        def steps(self, operation: AnyOperation, timeout: float) -> Any:
            raise ZeroDivisionError("a bug")

        async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
            raise AssertionError

    with dspex.Runtime(ScriptedLM(BLUE), strategy=Order("failing", "broken")) as own:
        own.add_target(Failing(PoolSaturated("full")))
        own.add_target(Broken())
        (outcome,) = dspex.Predict(QA, runtime=own).batch([{"question": "sky"}], progress=False)
        assert isinstance(outcome, ZeroDivisionError)
        assert all(row.in_flight == 0 for row in own.counts())


async def test_a_call_that_does_not_end_holds_up_the_closing_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stubborn(AtOnce):
        begun, go = asyncio.Event(), asyncio.Event()

        async def complete(self, request: LMRequest) -> LMResponse:
            self.begun.set()
            while not self.go.is_set():
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    continue
            return LMResponse((LMChoice(BLUE),))

    monkeypatch.setattr(_backstop, "END_SECONDS", 0.01)
    lm: Any = Stubborn()
    runtime = dspex.Runtime(lm)
    await runtime.aopen()
    call = asyncio.create_task(dspex.Predict(QA, runtime=runtime).acall(question="sky"))
    await asyncio.wait_for(lm.begun.wait(), 10)
    await asyncio.wait_for(runtime.aclose(), 10)
    assert not call.done()
    lm.go.set()
    assert (await asyncio.wait_for(call, 10)).answer == "blue"
    assert call.cancelling() == 0
