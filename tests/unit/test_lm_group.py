"""Groups of deployments: which one is asked, what an error means for it, and what becomes of the call."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import threading
import weakref
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.generated import fewer

import dspex
from dspex import LM
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    InputError,
    LMAuthError,
    LMConnectionError,
    LMError,
    LMRateLimitError,
    LMRequestError,
    LMResponseError,
    LMServerError,
    LMTimeoutError,
    LMUnavailable,
    RouteError,
)
from dspex.events import LMDelta
from dspex.lm import Deployment, LanguageModel, LMChoice, LMGroup, LMRequest, LMResponse, Prompt
from dspex.lm._deployment_errors import SETTING_SECONDS, Meaning, meaning_of
from dspex.router import Breaker, Retry
from dspex.testing import ScriptedLM, no_waiting

ASKED = LMRequest([{"role": "user", "content": "say it"}])


class Model:
    """A language model that answers with its name once it is let, or raises what is lined up for it."""

    def __init__(self, model: str, *errors: BaseException | None, settings: Any = None) -> None:
        self.model = model
        self.settings = settings or {}
        self.errors = list(errors)
        self.asked: list[LMRequest] = []
        self.go = asyncio.Event()
        self.go.set()
        self.closed = 0
        self.cut: BaseException | None = None

    async def complete(self, request: LMRequest) -> LMResponse:
        self.asked.append(request)
        error = self.errors.pop(0) if self.errors else None
        await self.go.wait()
        try:
            if error is not None:
                raise error
        finally:
            del error  # or it would hold itself, by the frame in its traceback
        return LMResponse((LMChoice(self.model),), self.model)

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        response = await self.complete(request)
        yield LMDelta(response.texts[0])
        if self.cut is not None:
            raise self.cut
        yield LMDelta("", finish_reason="stop")

    async def aclose(self) -> None:
        self.closed += 1


async def whole(lm: LanguageModel, request: LMRequest = ASKED) -> str:
    return (await lm.complete(request)).texts[0]


async def streamed(lm: LanguageModel, request: LMRequest = ASKED) -> str:
    async with aclosing(lm.stream(request)) as deltas:
        return "".join([delta.text async for delta in deltas])


WAYS = pytest.mark.parametrize("ask", [whole, streamed])


def slow_down(retry_after: float | None = None) -> LMRateLimitError:
    return LMRateLimitError("slow down", status=429, retry_after=retry_after)


def states(group: LMGroup) -> list[str]:
    return [row.state for row in group.counts()]


# --- which deployment ------------------------------------------------------------------------------------


async def test_a_group_is_a_language_model() -> None:
    assert isinstance(LM.group(["openai/a"]), LanguageModel)


@WAYS
async def test_the_first_that_takes_calls_is_asked_in_order(ask: Any) -> None:
    one, two = Model("one"), Model("two")
    group = LM.group([one, two], strategy="ordered")
    assert [await ask(group) for _ in range(3)] == ["one"] * 3
    one.errors = [LMServerError("500", status=500)]
    assert await ask(group) == "two"
    assert await ask(group) == "one"
    assert [row[1:6] for row in group.counts()] == [(0, 4, 1, 0, 0), (0, 1, 0, 0, 0)]


async def test_weights_share_out_the_calls() -> None:
    group = LM.group([Deployment(Model("a"), weight=3), Model("b"), Deployment(Model("c"), weight=0)])
    seen = Counter([await whole(group) for _ in range(400)])
    assert set(seen) == {"a", "b"}
    assert 1.5 < seen["a"] / seen["b"] < 6


async def test_the_faster_of_two_is_asked() -> None:
    now = [0.0]
    quick, slow = Model("quick"), Model("slow")

    async def drag(request: LMRequest) -> LMResponse:
        now[0] += 5.0
        return LMResponse((LMChoice("slow"),))

    slow.complete = drag  # type: ignore[method-assign]
    group = LMGroup([quick, slow], strategy="fastest", clock=lambda: now[0])
    seen = Counter([await whole(group) for _ in range(20)])
    assert seen == {"quick": 19, "slow": 1}
    now[0] += 1e6
    assert "slow" in [await whole(group) for _ in range(20)], "what was slow once is asked again some day"


async def test_calls_beyond_a_deployment_s_concurrency_go_to_the_others() -> None:
    one, two = Model("one"), Model("two")
    one.go.clear()
    group = LM.group([Deployment(one, concurrency=1), two], strategy="ordered")
    first = asyncio.create_task(whole(group))
    while not one.asked:
        await asyncio.sleep(0)
    assert await whole(group) == "two"
    one.go.set()
    assert await first == "one"


# --- what an error means ---------------------------------------------------------------------------------

MEANINGS: list[tuple[BaseException, Meaning]] = [
    (slow_down(), Meaning("failed", True, 0.0, True)),
    (slow_down(7.0), Meaning("failed", True, 7.0, True)),
    (LMServerError("no room", status=503, retry_after=3.0), Meaning("failed", True, 3.0, True)),
    (LMServerError("no room", status=529), Meaning("failed", True, 0.0, True)),
    (LMUnavailable("a group's", retry_after=2.0), Meaning("failed", True, 2.0, True)),
    (LMServerError("oops", status=500), Meaning("failed", True)),
    (LMConnectionError("broke"), Meaning("failed", True)),
    (LMTimeoutError("late"), Meaning("failed", True)),
    (LMAuthError("wrong key"), Meaning("failed", True, SETTING_SECONDS)),
    (LMRequestError("no such model", code="lm-not-found"), Meaning("failed", True, SETTING_SECONDS)),
    (LMRequestError("not paid", code="lm-billing"), Meaning("failed", True, SETTING_SECONDS)),
    (LMResponseError("a web page", code="lm-not-json"), Meaning("failed", True)),
    (LMRateLimitError("our own", code="lm-limit"), Meaning("refused", True, None, True)),
    (LMError("of a user's model"), Meaning("failed", False)),
    (LMResponseError("it says no", code="lm-refusal"), Meaning("served")),
    (LMResponseError("nothing", code="lm-no-content"), Meaning("served")),
    (LMRequestError("no such setting"), Meaning("refused")),
    (LMRequestError("too long", code="lm-context-length"), Meaning("refused")),
    (ConfigError("no JSON", code="lm-setting"), Meaning("refused")),
    (InputError("wrong"), Meaning("refused")),
    (DeadlineExceeded("late"), Meaning("failed")),
    (asyncio.CancelledError(), Meaning("cancelled")),
    (GeneratorExit(), Meaning("cancelled")),
    (KeyboardInterrupt(), Meaning("cancelled")),
    (ZeroDivisionError("a bug"), Meaning("failed")),
]


def shown(value: object) -> str | None:
    return (
        f"{type(value).__name__}-{getattr(value, 'code', '')}" if isinstance(value, BaseException) else None
    )


@pytest.mark.parametrize(("error", "meaning"), MEANINGS, ids=shown)
def test_what_an_error_means_is_what_the_table_says(error: BaseException, meaning: Meaning) -> None:
    assert meaning_of(error) == meaning


def test_a_deployment_that_had_little_of_the_call_s_time_has_not_failed() -> None:
    assert meaning_of(DeadlineExceeded("late"), had_time=False) == Meaning("refused")


@WAYS
@pytest.mark.parametrize(("error", "meaning"), MEANINGS[:-3], ids=shown)
async def test_an_error_goes_on_to_the_next_deployment_or_to_the_caller_as_the_table_says(
    error: Any, meaning: Meaning, ask: Any
) -> None:
    one, two = Model("one", error), Model("two")
    group = LM.group([one, two], strategy="ordered")
    if meaning.goes_on:
        assert await ask(group) == "two"
    else:
        with pytest.raises(type(error)) as caught:
            await ask(group)
        assert caught.value is error
        assert not two.asked
    counts = group.counts()
    assert counts[0]._asdict()[meaning.outcome] == 1
    assert sum(counts[0][2:6]) == 1
    assert counts[0].in_flight == counts[1].in_flight == 0
    assert counts[0].state == ("closed" if meaning.cool is None else "open")
    assert await ask(group) == ("one" if meaning.cool is None else "two")


async def test_a_deployment_that_asks_for_time_gets_it_and_more_if_it_asks_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="dspex.lm")
    now = [100.0]
    one, two = Model("one", slow_down(10.0)), Model("two")
    group = LMGroup([one, two], strategy="ordered", clock=lambda: now[0])
    assert await whole(group) == "two"
    now[0] += 9.9
    assert await whole(group) == "two"
    one.errors = [slow_down()]
    now[0] += 0.1
    assert await whole(group) == "two"  # the probe was refused: twice the breaker's own second
    now[0] += 1.9
    assert await whole(group) == "two"
    now[0] += 0.1
    assert await whole(group) == "one"
    assert len(one.asked) == 3
    told = [
        record.getMessage().removeprefix("the breaker of the deployment one is ") for record in caplog.records
    ]
    assert told == [
        "open; it was closed: slow down",
        "half-open; it was open",
        "open; it was half-open: slow down",
        "half-open; it was open",
        "closed; it was half-open",
    ]


async def test_a_deployment_that_fails_half_of_its_calls_is_left_alone() -> None:
    one, two = Model("one", *(LMServerError("500", status=500) for _ in range(5))), Model("two")
    group = LM.group([one, two], strategy="ordered", breaker=Breaker(minimum=5, open_for=60))
    for _ in range(8):
        assert await whole(group) == "two"
    assert len(one.asked) == 5
    assert states(group) == ["open", "closed"]


ENDS = st.sampled_from(["answers", "429", "503", "500", "breaks", "late", "401", "400", "no words"])
ERRORS: dict[str, Any] = {
    "429": slow_down,
    "503": lambda: LMServerError("no room", status=503),
    "500": lambda: LMServerError("oops", status=500),
    "breaks": lambda: LMConnectionError("broke"),
    "late": lambda: LMTimeoutError("late"),
    "401": lambda: LMAuthError("wrong key"),
    "400": lambda: LMRequestError("no such setting"),
    "no words": lambda: LMResponseError("it says no", code="lm-refusal"),
}


@given(
    histories=st.lists(st.lists(ENDS, min_size=4, max_size=4), min_size=1, max_size=30),
    strategy=st.sampled_from(["weighted", "ordered", "fastest"]),
    steps=st.lists(st.floats(0, 3), min_size=30, max_size=30),
    stream=st.booleans(),
)
@fewer(3)
async def test_over_generated_histories_a_call_is_answered_where_anybody_can_and_counts_once(
    histories: Any, strategy: Any, steps: Any, stream: bool
) -> None:
    now = [0.0]
    models = [Model(f"{number}") for number in range(4)]
    group = LMGroup(models, strategy=strategy, clock=lambda: now[0])
    ask = streamed if stream else whole
    for ends, step in zip(histories, steps, strict=False):
        now[0] += step
        before = [len(model.asked) for model in models]
        for model, end in zip(models, ends, strict=True):
            model.errors = [] if end == "answers" else [ERRORS[end]()]
        states_before = states(group)
        try:
            answered = await ask(group)
        except LMError as error:
            answered = type(error).__name__
        asked = [len(model.asked) - count for model, count in zip(models, before, strict=True)]
        assert max(asked) <= 1
        final = {end for end, count in zip(ends, asked, strict=True) if count}
        if answered.isdigit():
            assert ends[int(answered)] == "answers"
            assert asked[int(answered)] == 1
            assert not final & {"400", "no words"}
        elif answered == "LMUnavailable":
            assert final <= {"429", "503"}
        elif "400" not in final and "no words" not in final:
            for count, state in zip(asked, states_before, strict=True):
                assert count or state in ("open", "half-open"), "whoever takes calls has been asked"
        for model, row in zip(models, group.counts(), strict=True):
            assert row.served + row.failed + row.refused == len(model.asked)
            assert (row.in_flight, row.cancelled) == (0, 0)


async def test_without_a_breaker_a_deployment_is_never_left_alone() -> None:
    one = Model("one", *(slow_down(60.0) for _ in range(9)))
    group = LM.group([one, Model("two")], strategy="ordered", breaker=None)
    for _ in range(9):
        assert await whole(group) == "two"
    assert len(one.asked) == 9


async def test_a_stream_falls_over_before_its_first_piece_and_not_after() -> None:
    one, two = Model("one"), Model("two")
    one.cut = LMConnectionError("it broke off")
    group = LM.group([one, two], strategy="ordered")
    pieces = []

    async def read() -> None:
        async with aclosing(group.stream(ASKED)) as deltas:
            async for delta in deltas:
                pieces.append(delta.text)

    with pytest.raises(LMConnectionError, match="it broke off"):
        await read()
    assert pieces == ["one"]
    assert not two.asked
    assert group.counts()[0].failed == 1


async def test_a_reader_who_leaves_a_stream_is_not_the_deployment_s_failure() -> None:
    group = LM.group([Model("one")])
    async with aclosing(group.stream(ASKED)) as deltas:
        async for _ in deltas:
            break
    assert group.counts()[0].cancelled == 1


async def test_a_caller_who_leaves_gives_the_place_back() -> None:
    one = Model("one")
    one.go.clear()
    group = LM.group([Deployment(one, concurrency=1)])
    call = asyncio.create_task(whole(group))
    while not one.asked:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    one.go.set()
    assert await whole(group) == "one"
    assert group.counts()[0][1:6] == (0, 1, 0, 0, 1)


async def test_the_next_deployment_gets_the_time_that_is_left() -> None:
    one, two = Model("one", LMConnectionError("broke")), Model("two")
    group = LM.group([one, two], strategy="ordered")
    await whole(group, LMRequest(ASKED.messages, timeout=30.0))
    assert one.asked[0].timeout == 30.0
    assert two.asked[0].timeout is not None
    assert 0 < two.asked[0].timeout < 30.0


async def test_no_deployment_is_asked_when_the_time_is_over() -> None:
    one, two = Model("one", LMConnectionError("broke")), Model("two")
    group = LM.group([one, two], strategy="ordered")
    with pytest.raises(LMConnectionError):
        await whole(group, LMRequest(ASKED.messages, timeout=1e-9))
    assert not two.asked


# --- when there is none ----------------------------------------------------------------------------------


@WAYS
async def test_where_all_fail_the_last_error_tells_of_those_before_it(ask: Any) -> None:
    models = [
        Model("a", slow_down(5.0)),
        Model("b", LMServerError("b is down")),
        Model("c", LMConnectionError("c")),
    ]
    group = LM.group(models, strategy="ordered", name="fast")
    with pytest.raises(LMConnectionError, match="c") as caught:
        await ask(group)
    assert caught.value.__notes__ == ["before that, a: slow down", "before that, b: b is down"]
    assert all(len(model.asked) == 1 for model in models)


@WAYS
async def test_where_none_has_room_one_error_says_when_the_first_will(ask: Any) -> None:
    models = [Model("a", slow_down(30.0)), Model("b", slow_down(4.0)), Model("c", slow_down())]
    group = LM.group(models, strategy="ordered", name="fast", breaker=Breaker(minimum=5, open_for=20))
    with pytest.raises(
        LMUnavailable, match="no deployment of fast takes calls now: a: slow down; b"
    ) as caught:
        await ask(group)
    assert caught.value.retry_after == 4.0
    assert isinstance(caught.value.__cause__, LMRateLimitError)
    with pytest.raises(LMUnavailable) as again:  # nobody is asked
        await ask(group)
    assert all(len(model.asked) == 1 for model in models)
    assert again.value.retry_after is not None
    assert 19 < again.value.retry_after <= 20, "the breaker's own time is the least"
    assert again.value.to_public_dict()["details"] == {"retry_after": again.value.retry_after}
    assert again.value.http_status == 503
    assert again.value.retryable


async def test_a_router_makes_a_call_again_when_a_deployment_is_back() -> None:
    model = Model("[[ ## answer ## ]]\nblue", slow_down(0.001))
    group = LM.group([model], breaker=Breaker(open_for=0.001, probes=1))
    async with dspex.Runtime(group, retry=Retry(first_wait=0.01)):
        prediction = await dspex.Predict("question -> answer").acall(question="q")
    assert (prediction.answer, len(prediction.attempts), len(model.asked)) == ("blue", 2, 2)


@WAYS
async def test_calls_that_may_wait_are_answered_in_the_order_in_which_they_came(ask: Any) -> None:
    one = Model("one", slow_down(0.02))
    group = LM.group([one], wait=True, breaker=Breaker(open_for=0.01, probes=1))
    order: list[int] = []

    async def call(number: int) -> None:
        assert await ask(group) == "one"
        order.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(5):
            tasks.create_task(call(number))
    assert order == [0, 1, 2, 3, 4] or order == [1, 2, 3, 4, 0]  # the first was refused before it waited
    assert len(group.line) == 0
    assert len(one.asked) == 6


async def test_a_call_that_waited_says_how_long() -> None:
    group = LM.group([Model("one", slow_down(), None, slow_down())], wait=True, breaker=Breaker(open_for=0.2))
    assert (await group.complete(ASKED)).waited >= 0.1
    async with aclosing(group.stream(ASKED)) as deltas:
        waits = [delta.waited async for delta in deltas]
    assert waits[0] >= 0.1
    assert not any(waits[1:])


async def test_a_call_waits_for_room_and_is_woken_by_the_call_that_leaves() -> None:
    one = Model("one")
    one.go.clear()
    group = LM.group([Deployment(one, concurrency=1)], wait=True)
    calls = [asyncio.create_task(whole(group)) for _ in range(3)]
    while len(group.line) < 2:
        await asyncio.sleep(0)
    calls[1].cancel()
    one.go.set()
    assert [await calls[0], await calls[2]] == ["one", "one"]
    assert calls[1].cancelled()
    assert len(group.line) == 0


async def test_a_call_that_ends_makes_room_for_the_one_that_waits() -> None:
    one = Model("one")
    one.go.clear()
    group = LM.group([Deployment(one, concurrency=1)], wait=True)
    calls = [asyncio.create_task(whole(group, LMRequest(ASKED.messages, timeout=5.0))) for _ in range(2)]
    while not len(group.line):
        await asyncio.sleep(0)
    one.go.set()
    assert await asyncio.gather(*calls) == ["one", "one"]


async def test_all_that_wait_go_where_there_is_room_for_all() -> None:
    two = Model("two")
    two.go.clear()
    group = LM.group([Model("one", slow_down(60.0))], wait=True)
    calls = [asyncio.create_task(whole(group, LMRequest(ASKED.messages, timeout=5.0))) for _ in range(3)]
    while len(group.line) < 3:
        await asyncio.sleep(0)
    group.add(two)
    while len(two.asked) < 3 and not any(call.done() for call in calls):
        await asyncio.sleep(0)  # none of them has ended, and still all of them are under way
    two.go.set()
    assert await asyncio.gather(*calls) == ["two"] * 3


async def test_a_call_does_not_wait_for_a_deployment_that_nobody_leaves_alone() -> None:
    one = Model("one", *(slow_down(1.0) for _ in range(9)))
    group = LM.group([one], wait=True, breaker=None)
    with pytest.raises(LMUnavailable):
        await whole(group, LMRequest(ASKED.messages, timeout=30.0))
    assert len(one.asked) == 1


async def test_a_call_does_not_wait_beyond_its_time() -> None:
    group = LM.group([Model("one", slow_down(60.0))], wait=True)
    with pytest.raises(LMUnavailable) as caught:
        await whole(group, LMRequest(ASKED.messages, timeout=0.02))
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 50
    assert len(group.line) == 0


async def test_a_call_that_waits_goes_to_a_deployment_that_is_added() -> None:
    group = LM.group([Model("one", slow_down(60.0))], wait=True)
    call = asyncio.create_task(whole(group))
    while not len(group.line):
        await asyncio.sleep(0)
    group.add(Model("two"))
    assert await call == "two"


def test_a_loop_that_ended_with_calls_in_line_holds_nobody_up() -> None:
    group = LM.group([Model("one", slow_down(60.0))], wait=True)
    loop = asyncio.new_event_loop()
    lost = loop.create_task(whole(group))
    loop.run_until_complete(asyncio.sleep(0))
    assert len(group.line) == 1

    async def here() -> str:
        waits = asyncio.create_task(whole(group, LMRequest(ASKED.messages, timeout=30.0)))
        await asyncio.sleep(0)
        loop.close()
        group.add(Model("two"))
        return await waits

    assert asyncio.run(here()) == "two"
    assert len(group.line) == 0
    lost._log_destroy_pending = False  # type: ignore[attr-defined]


# --- deployments come and go -----------------------------------------------------------------------------


async def test_a_deployment_that_is_removed_ends_its_calls_and_is_closed_then() -> None:
    one, two = Model("one"), Model("two")
    one.go.clear()
    group = LM.group([one, two], strategy="ordered")
    call = asyncio.create_task(whole(group))
    while not one.asked:
        await asyncio.sleep(0)
    await group.remove("one")
    assert [row.name for row in group.counts()] == ["two"]
    assert await whole(group) == "two"
    assert one.closed == 0
    one.go.set()
    assert await call == "one"
    await group.aclose()
    assert (one.closed, two.closed) == (1, 1)
    await group.remove("two")
    assert two.closed == 2
    with pytest.raises(LMUnavailable, match="it has none"):
        await whole(group)
    assert group.add("openai/a") == "openai/a@api.openai.com"


async def test_an_lm_that_is_two_deployments_stays_open_until_both_are_gone() -> None:
    one = Model("one")
    group = LM.group([one, one])
    await group.remove("one")
    assert one.closed == 0
    await group.remove("one (2)")
    assert one.closed == 1


def test_from_many_threads_every_call_counts_once_while_deployments_come_and_go() -> None:
    models = [Model(f"{number}") for number in range(3)]
    group = LM.group([Deployment(model, concurrency=50) for model in models], breaker=None, wait=True)
    errors: list[BaseException] = []

    async def call(number: int) -> None:
        for turn in range(200):
            if number == 0 and turn % 20 == 0:
                name = group.add(Model("passing"))
                await group.remove(name)
            assert (await whole(group)) in {"0", "1", "2", "passing"}

    def run(number: int) -> None:
        async def calls() -> None:
            await asyncio.gather(*(call(number) for _ in range(5)))

        try:
            asyncio.run(calls())
        except BaseException as error:  # noqa: BLE001 - a thread's would be lost
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors
    assert [row.served for row in group.counts()] == [len(model.asked) for model in models]
    assert not any(row.in_flight for row in group.counts())


async def test_deployments_keep_the_order_in_which_they_were_added_and_any_number_may_come_and_go() -> None:
    group = LM.group([Model("a"), Model("b"), Model("c")], strategy="ordered")
    await group.remove("a")
    group.add(Model("d"))
    assert [row.name for row in group.counts()] == ["b", "c", "d"]
    assert await whole(group) == "b"
    for number in range(100):
        group.add(Model(f"{number}"))
        await group.remove(f"{number}")
    assert await whole(group) == "b"
    for name in ("b", "c"):
        await group.remove(name)
    assert await whole(group) == "d"


async def test_names_are_the_model_and_its_server_and_each_is_its_own() -> None:
    local = LM("openai/m", api_base="http://127.0.0.1:8000/v1", api_key="sk-secret")
    group = LM.group([local, local, Deployment(Model("x"), name="spare"), Model("x")])
    assert [row.name for row in group.counts()] == [
        "openai/m@127.0.0.1:8000",
        "openai/m@127.0.0.1:8000 (2)",
        "spare",
        "x",
    ]
    with pytest.raises(ConfigError, match="there is a deployment 'spare' already") as caught:
        group.add(Deployment(Model("y"), name="spare"))
    assert caught.value.code == "bad-group"
    with pytest.raises(ConfigError, match="no deployment 'z'; there are: openai/m@127"):
        await group.remove("z")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LM.group([]), "needs a deployment"),
        (lambda: LM.group("openai/a"), "a list of deployments, not of 'openai/a'"),
        (lambda: LM.group(3), "a list of deployments"),  # type: ignore[arg-type]
        (lambda: LM.group(["openai/a"], strategy="best"), "weighted, ordered, fastest"),  # type: ignore[arg-type]
        (lambda: LM.group(["openai/a"], breaker=3), "must be a Breaker"),  # type: ignore[arg-type]
        (lambda: Deployment("openai/a", weight=-1), "weight of a deployment must be a number from 0"),
        (lambda: Deployment("openai/a", weight=float("nan")), "weight"),
        (lambda: Deployment("openai/a", concurrency=0), "concurrency of a deployment must be a count"),
        (lambda: Deployment("openai/a", name=""), "name of a deployment must be a text"),
    ],
)
def test_what_a_group_is_made_of_is_looked_at(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert caught.value.code == "bad-group"


def test_a_model_that_only_dspy_speaks_to_is_no_deployment() -> None:
    with pytest.raises(RouteError) as caught:
        LM.group(["openai/a", "gemini/b"])
    assert caught.value.code == "lm-needs-dspy"


def test_a_group_is_no_deployment_of_itself() -> None:
    group = LM.group(["openai/a"])
    with pytest.raises(ConfigError, match="of itself"):
        group.add(group)
    assert LM.group([group, "openai/b"]).counts()[0].name == "openai/a"


# --- a group as a language model -------------------------------------------------------------------------


def test_no_secret_is_in_what_is_shown_or_pickled() -> None:
    lm = LM("openai/m", api_base="http://127.0.0.1:8000/v1", api_key="sk-secret")
    group = LM.group([Deployment(lm, weight=2)], name="fast", strategy="ordered", wait=True)
    assert "sk-secret" not in repr(group)
    assert "sk-secret" not in repr(Deployment(lm))
    assert b"sk-secret" not in pickle.dumps(group)
    again = pickle.loads(pickle.dumps(group))
    assert repr(again) == repr(group)
    assert repr(group) == "LMGroup('fast', strategy='ordered', deployments=['openai/m@127.0.0.1:8000'])"
    assert copy.copy(group) is copy.deepcopy(group) is group


def test_the_settings_are_those_in_which_all_deployments_agree() -> None:
    one = LM("openai/a", temperature=0.5, seed=1, max_tokens=9)
    group = LM.group([one, LM("openai/b", temperature=0.5, seed=2)])
    assert group.settings == {"temperature": 0.5}
    assert group.model == group.name == "openai/a"


def test_a_worker_gets_the_first_deployment_that_it_can_ask() -> None:
    group = LM.group([Model("mine"), LM("openai/b", api_base="http://127.0.0.1:1/v1")])
    assert group.settings_for_worker()["model"] == "openai/b"
    assert not hasattr(LM.group([Model("mine")]), "settings_for_worker")


async def test_a_worker_that_starts_later_gets_the_deployment_that_is_first_by_then() -> None:
    group = LM.group([LM("openai/a"), LM("openai/b", api_base="http://127.0.0.1:1/v1")])
    settings = group.settings_for_worker
    await group.remove("openai/a@api.openai.com")
    assert settings()["model"] == "openai/b"


async def test_deployments_that_take_no_json_get_the_messages_as_a_list() -> None:
    one, two = Model("one", LMConnectionError("broke")), ScriptedLM(["said"])
    group = LM.group([one, two], strategy="ordered")
    assert await whole(group, LMRequest(Prompt(b'[{"role": "user", "content": "q"}]'))) == "said"
    assert one.asked[0].messages == two.requests[0].messages == [{"role": "user", "content": "q"}]
    assert isinstance(two.requests[0].messages, list)


async def test_native_tool_calls_are_for_groups_in_which_all_make_them() -> None:
    one, two = Model("one"), Model("two")
    assert LM.group([one, two]).supports_function_calling
    two.supports_function_calling = False  # type: ignore[attr-defined]
    assert not LM.group([one, two]).supports_function_calling


@WAYS
async def test_a_call_that_fails_holds_nothing(ask: Any) -> None:
    class Messages(list[Any]):
        pass

    for wait in (False, True):
        for fail in (lambda: LMServerError("500"), lambda: slow_down(60.0)):
            models = [Model("a", fail()), Model("b", fail())]
            group = LM.group(models, wait=wait)
            messages = Messages(ASKED.messages)
            held = weakref.ref(messages)
            gc.disable()
            try:
                with pytest.raises(LMError):
                    await ask(group, LMRequest(messages, timeout=0.02))
                del messages
                for model in models:
                    model.asked.clear()
                assert held() is None
            finally:
                gc.enable()


async def test_a_predictor_s_call_says_what_the_wait_cost() -> None:
    model = ScriptedLM(["[[ ## answer ## ]]\nblue"] * 2)
    group = LM.group([model], wait=True, breaker=Breaker(open_for=0.2, probes=1))
    original, refused = model.complete, [slow_down()]

    async def refuse_first(request: LMRequest) -> LMResponse:
        if refused:
            raise refused.pop()
        return await original(request)

    model.complete = refuse_first  # type: ignore[method-assign]
    async with dspex.Runtime(group):
        predict = dspex.Predict("question -> answer")
        waited = await predict.acall(question="q")
        straight = await predict.acall(question="q")
    assert waited.answer == straight.answer == "blue"
    assert 0.1 <= waited.timings["limit"] <= waited.timings["lm"]
    assert "limit" not in straight.timings


async def test_waits_of_a_runtime_s_retry_are_taken_out_as_ever() -> None:
    group = LM.group([Model("a", slow_down(30.0))], breaker=None)
    async with dspex.Runtime(group, retry=Retry()):
        with no_waiting() as waited, pytest.raises(dspex.errors.ReplyError):
            await dspex.Predict("question -> answer: int").acall(question="q")
    assert waited == [30.0]
