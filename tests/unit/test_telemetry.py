"""Events: who hears of what, what they say, and what becomes of handlers that raise, lag or leave."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import os
import random
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

import dspex
from dspex import _listeners
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    DspexError,
    LMServerError,
    ReplyError,
    RouteError,
    WorkerStartError,
)
from dspex.prediction import Prediction
from dspex.router import AnyOperation, Breaker, Retry
from dspex.telemetry import EVENTS, Event, _buffer, attach, current_trace, use_trace
from dspex.telemetry._event import make
from dspex.telemetry._handlers import dropped, tell
from dspex.testing import HttpError, ModelServer, ScriptedLM, captured_events, no_waiting

BLUE = "[[ ## answer ## ]]\nblue"
QA = dspex.Predict("question -> answer")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@pytest.fixture(autouse=True)
def nobody_listens_afterwards() -> Iterator[None]:
    yield
    assert not _listeners.given


class Own:
    """A target of the user's that does what it is told."""

    name = "own"
    side = "python"
    lacks: ClassVar[list[str]] = []

    def __init__(self, *does: Callable[[], Any]) -> None:
        self.does = list(does)
        self.traces: list[Any] = []

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        self.traces.append(current_trace())
        found = self.does.pop(0)() if self.does else None
        if asyncio.iscoroutine(found):
            await found
        if isinstance(found, BaseException):
            raise found
        return Prediction.from_completions([{"answer": "own"}], timings={"total": 0.5})


def told(name: str = "dspex.call.end", **attributes: Any) -> Event:
    return make(name, attributes)


# --- who hears of what ---


@pytest.mark.parametrize(
    ("prefix", "heard"),
    [
        ("dspex", list(EVENTS)),
        ("dspex.stage.lm", ["dspex.stage.lm"]),
        ("dspex.pool", [name for name in EVENTS if name.startswith("dspex.pool.")]),
        ("dspex.call", [name for name in EVENTS if name.startswith("dspex.call.")]),
    ],
)
def test_a_prefix_selects_the_events_that_begin_with_it_word_by_word(prefix: str, heard: list[str]) -> None:
    with captured_events(prefix) as events:
        for name in EVENTS:
            tell(told(name))
        tell(told(f"{prefix}ed.end"))
    assert events.names == heard


@pytest.mark.parametrize(
    ("prefix", "handler", "options", "mentions"),
    [
        ("dspex.cal", print, {}, "dspex.call"),
        ("dspex.", print, {}, "no event"),
        ("", print, {}, "no event"),
        (7, print, {}, "no event is named 7"),
        ("dspex", "print", {}, "cannot be called"),
        ("dspex", None, {}, "cannot be called"),
        ("dspex", print, {"buffer": 0}, "above 0"),
        ("dspex", print, {"buffer": True}, "above 0"),
    ],
)
def test_what_cannot_be_a_handler_is_refused(
    prefix: Any, handler: Any, options: dict[str, Any], mentions: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(mentions)) as caught:
        attach(prefix, handler, **options)
    assert caught.value.code == "bad-handler"


def test_a_handler_that_is_detached_hears_no_more_and_a_call_is_then_as_if_there_had_been_none() -> None:
    heard: list[Event] = []
    handle = attach("dspex", heard.append)
    assert handle.attached
    assert "'dspex' to list.append, attached" in repr(handle)
    assert _listeners.given
    tell(told())
    handle.detach()
    handle.detach()
    tell(told())
    assert (len(heard), handle.attached, _listeners.given) == (1, False, False)


def test_handlers_come_and_go_while_events_are_told_from_many_threads() -> None:
    counts = [0, 0]
    stop = threading.Event()

    def count(event: Event) -> None:
        counts[0] += 1

    def keep_telling() -> None:
        while not stop.is_set():
            tell(told())
            counts[1] += 1

    threads = [threading.Thread(target=keep_telling) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        with attach("dspex.call", count):
            pass
    stop.set()
    for thread in threads:
        thread.join()
    with captured_events() as events:
        tell(told())
    assert len(events) == 1


# --- handlers that raise ---


def test_a_handler_that_raises_is_detached_and_reported_and_the_call_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError("of the handler")

    with captured_events() as events, caplog.at_level(logging.ERROR, "dspex.telemetry"):
        handle = attach("dspex.call", broken)
        with dspex.Runtime(ScriptedLM(BLUE)):
            assert [QA(question="?").answer for _ in range(2)] == ["blue", "blue"]
    assert not handle.attached
    (record,) = caplog.records
    assert "broken raised ZeroDivisionError and gets no more events: of the handler" in record.message
    (detached,) = events.named("dspex.telemetry.detached")
    assert dict(detached.attributes)["error"] == "ZeroDivisionError"
    assert len(events.named("dspex.call.end")) == 2


def test_a_handler_of_the_news_that_handlers_raise_may_raise_too() -> None:
    def broken(event: Event) -> None:
        raise ValueError

    handles = [attach("dspex", broken), attach("dspex.telemetry", broken)]
    tell(told())
    assert [handle.attached for handle in handles] == [False, False]


def test_what_is_no_exception_goes_through_the_handler() -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with attach("dspex", interrupt), pytest.raises(KeyboardInterrupt):
        tell(told())


# --- async handlers ---


async def test_an_async_handler_gets_the_events_in_their_order_on_its_loop() -> None:
    heard: list[Any] = []

    async def hear(event: Event) -> None:
        await asyncio.sleep(0)
        heard.append((event.attributes["n"], threading.get_ident()))

    with attach("dspex", hear) as handle:
        for n in range(50):
            tell(told(n=n))
        await asyncio.to_thread(tell, told(n=50))
        await handle.drain()
    assert heard == [(n, threading.get_ident()) for n in range(51)]
    assert handle.dropped == 0


def test_an_async_handler_that_is_attached_where_no_loop_runs_has_a_thread() -> None:
    heard: list[str] = []
    threads: set[int] = set()

    class Hears:
        async def __call__(self, event: Event) -> None:
            threads.add(threading.get_ident())
            heard.append(event.name)

    with attach("dspex.call.end", Hears()) as handle:
        with dspex.Runtime(ScriptedLM(BLUE)):
            QA(question="?")
        asyncio.run(handle.drain())
    assert heard == ["dspex.call.end"]
    assert threading.get_ident() not in threads


async def test_a_slow_handler_s_events_are_dropped_and_counted_and_nobody_waits_for_it() -> None:
    before = dropped()
    entered, go, heard = asyncio.Event(), asyncio.Event(), list[Any]()

    async def hear(event: Event) -> None:
        entered.set()
        await go.wait()
        heard.append(event.attributes["n"])

    handle = attach("dspex", hear, buffer=3)
    tell(told(n=0))
    await asyncio.wait_for(entered.wait(), 10)
    for n in range(1, 10):
        tell(told(n=n))
    assert handle.dropped == 6
    go.set()
    await handle.drain()
    assert heard == [0, 1, 2, 3]
    handle.detach()
    assert dropped() == before + 6


async def test_an_async_handler_that_raises_is_detached() -> None:
    async def broken(event: Event) -> None:
        raise ZeroDivisionError

    handle = attach("dspex.call", broken)
    with captured_events("dspex.telemetry") as events:
        for _ in range(3):
            tell(told())
        await handle.drain()
    assert not handle.attached
    assert events.names == ["dspex.telemetry.detached"]
    assert handle.dropped == 2


async def test_an_async_handler_that_hangs_on_an_event_is_detached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_buffer, "HANDLER_SECONDS", 0.01)

    async def hang(event: Event) -> None:
        await asyncio.Event().wait()

    detached = asyncio.Event()
    handle = attach("dspex.call", hang)
    with attach("dspex.telemetry.detached", lambda event: detached.set()):
        tell(told())
        await asyncio.wait_for(detached.wait(), 10)
    assert not handle.attached


def test_a_handler_is_detached_when_its_loop_ends() -> None:
    async def hear(event: Event) -> None:
        pass

    async def main() -> Any:
        handle = attach("dspex", hear)
        tell(told())
        await handle.drain()
        return handle

    handle = asyncio.run(main())
    assert not handle.attached


def test_a_handler_whose_loop_was_closed_without_its_tasks_being_ended_is_detached() -> None:
    async def hear(event: Event) -> None:
        pass

    async def main() -> Any:
        handle = attach("dspex", hear)
        await asyncio.sleep(0)
        return handle

    loop = asyncio.new_event_loop()
    handle = loop.run_until_complete(main())
    (task,) = asyncio.all_tasks(loop)
    loop.close()
    tell(told())
    assert not handle.attached
    assert handle.dropped == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # whoever closes a loop so hears of it


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_has_the_plain_handlers_and_no_events_wait_there_for_the_async_ones() -> None:
    code = """
import os, threading
from dspex.telemetry import attach
from dspex.telemetry import _handlers
from dspex.telemetry._event import make

heard = []

async def hear(event):
    heard.append("async")

plain, asynchronous = attach("dspex", lambda event: heard.append("plain")), attach("dspex", hear)
with _handlers._lock, asynchronous._buffer._lock:  # as another thread may have them when it forks
    child = os.fork()
    if child == 0:
        _handlers.tell(make("dspex.call.end", {}))
        plain.detach()
        asynchronous.detach()
        os._exit(0 if heard == ["plain"] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=30, check=True)


async def test_what_waits_when_a_handler_is_detached_is_dropped_and_its_event_at_hand_finished() -> None:
    entered, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hear(event: Event) -> None:
        entered.set()
        await go.wait()
        done.set()

    handle = attach("dspex", hear)
    for _ in range(3):
        tell(told())
    await asyncio.wait_for(entered.wait(), 10)
    handle.detach()
    go.set()
    await asyncio.wait_for(done.wait(), 10)
    assert handle.dropped == 2


# --- what is told of a call ---


def test_a_native_call_is_told_when_it_has_ended_its_stages_first() -> None:
    with captured_events() as events, dspex.Runtime(ScriptedLM(BLUE)):
        QA(question="?")
    stages = [f"dspex.stage.{stage}" for stage in ("render", "lm", "parse")]
    assert events.names == [*stages, "dspex.attempt.end", "dspex.call.end"]
    *parts, attempt, call = events
    assert {event.trace_id for event in events} == {call.trace_id}
    assert len({event.span_id for event in events}) == len(events)
    assert [event.parent_id for event in parts] == [attempt.span_id] * 3
    assert (attempt.parent_id, call.parent_id) == (call.span_id, "")
    assert all(re.fullmatch("[0-9a-f]{32}", event.trace_id) for event in events)
    assert all(re.fullmatch("[0-9a-f]{16}", event.span_id) for event in events)
    assert sum(event.seconds or 0 for event in parts) <= (attempt.seconds or 0) <= (call.seconds or 0)
    assert [event.time for event in parts] == sorted(event.time for event in parts)
    about = {"operation": "predict", "streamed": False, "outcome": "served", "target": "native"}
    assert about.items() <= dict(call.attributes).items()
    assert call.attributes["attempts"] == 1
    assert isinstance(call.attributes["input_tokens"], int)
    assert dict(attempt.attributes) == {"target": "native", "reason": "preferred", "outcome": "served"}


async def test_an_awaited_call_and_the_rows_of_a_batch_are_told_too() -> None:
    async with dspex.Runtime(ScriptedLM(BLUE)):
        with captured_events("dspex.call") as events:
            await QA.acall(question="?")
            assert len(await QA.abatch([{"question": str(n)} for n in range(20)])) == 20
        with captured_events("dspex.attempt") as attempts:
            await asyncio.gather(*(QA.acall(question=str(n)) for n in range(20)))
    assert events.names == ["dspex.call.end"] * 21
    assert len({event.trace_id for event in attempts}) == len(attempts) == 20


def test_an_error_is_told_by_its_class_code_and_category_and_never_in_its_words() -> None:
    with ModelServer(BLUE) as server, captured_events() as events:
        server.faults.push(HttpError(500, "secret words"))
        lm = dspex.LM("openai/x", api_base=server.api_base, api_key="sk-0123456789abcdef")
        with dspex.Runtime(lm), pytest.raises(LMServerError):
            QA(question="what nobody may see")
    assert events.names == [
        "dspex.stage.render",
        "dspex.stage.lm",
        "dspex.attempt.error",
        "dspex.call.error",
    ]
    error = {"error": "LMServerError", "code": "lm-server", "category": "transient", "outcome": "refused"}
    for event in events[2:]:
        assert error.items() <= dict(event.attributes).items()
    shown = repr(list(events))
    assert not any(word in shown for word in ("secret", "nobody", "sk-0123", "127.0.0.1"))


def test_a_reply_that_cannot_be_read_tells_how_long_the_model_took_all_the_same() -> None:
    scored, lm = dspex.Predict("question -> answer, score: float"), ScriptedLM("no field at all")
    with captured_events() as events, dspex.Runtime(lm, parsing="dspy"), pytest.raises(ReplyError):
        scored(question="?")
    ends = ["dspex.attempt.error", "dspex.call.error"]
    assert events.names == ["dspex.stage.render", "dspex.stage.lm", *ends]
    assert "no field" not in repr(list(events))


def test_no_event_of_a_call_has_what_it_was_given_or_gave() -> None:
    lm = ScriptedLM("[[ ## answer ## ]]\nthe-output")
    with captured_events() as events, dspex.Runtime(lm):
        QA(question="the-input", config={"temperature": 0.123})
    shown = json.dumps([event.to_dict() for event in events])
    assert not any(word in shown for word in ("the-input", "the-output", "0.123", "temperature"))


def test_a_call_for_which_there_is_no_target_is_told() -> None:
    with captured_events() as events, dspex.Runtime(ScriptedLM(BLUE)), pytest.raises(RouteError):
        QA.with_options(route="nowhere")(question="?")
    (event,) = events
    assert (event.name, event.attributes["code"]) == ("dspex.call.error", "unknown-route")


def test_a_call_that_is_made_again_tells_its_attempts_and_its_waits() -> None:
    with ModelServer(BLUE) as server, no_waiting(), captured_events() as events:
        server.faults.push(HttpError(429, "slow down", retry_after=2))
        lm = dspex.LM("openai/x", api_base=server.api_base, api_key="none")
        with dspex.Runtime(lm, retry=Retry()):
            assert QA(question="?").answer == "blue"
    found = [name for name in events.names if not name.startswith("dspex.stage")]
    assert found == ["dspex.attempt.error", "dspex.call.retry", "dspex.attempt.end", "dspex.call.end"]
    (wait,) = events.named("dspex.call.retry")
    assert (wait.seconds or 0) >= 2
    call = events[-1]
    assert call.attributes["attempts"] == 2
    attempts = events.named("dspex.attempt")
    assert all(event.parent_id == call.span_id for event in attempts)
    assert len({event.span_id for event in attempts}) == 2
    parents = [event.parent_id for event in events.named("dspex.stage")]
    assert parents == [attempts[0].span_id] * 2 + [attempts[1].span_id] * 3


async def test_a_call_that_goes_elsewhere_tells_of_both_targets() -> None:
    async with dspex.Runtime(ScriptedLM(BLUE), strategy="prefer-python") as runtime:
        own = Own(lambda: WorkerStartError("no"), lambda: None)
        runtime.add_target(own)
        with captured_events() as events:
            assert (await QA.acall(question="?")).answer == "blue"
            assert (await QA.acall(question="?")).answer == "own"
    attempts = [(event.name, event.attributes["target"]) for event in events.named("dspex.attempt")]
    assert attempts == [
        ("dspex.attempt.error", "own"),
        ("dspex.attempt.end", "native"),
        ("dspex.attempt.end", "own"),
    ]
    # What a target does has the span of its attempt for a parent.
    ids = [event.span_id for event in events.named("dspex.attempt") if event.attributes["target"] == "own"]
    assert [trace["traceparent"].split("-")[2] for trace in own.traces] == ids


async def test_a_call_whose_caller_leaves_is_told_as_cancelled() -> None:
    began = asyncio.Event()

    async def wait() -> None:
        began.set()
        await asyncio.Event().wait()

    async with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(Own(wait))
        with captured_events() as events:
            task = asyncio.create_task(QA.with_options(route="own").acall(question="?"))
            await asyncio.wait_for(began.wait(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert events.names == ["dspex.attempt.cancelled", "dspex.call.cancelled"]


async def test_a_call_whose_coroutine_is_closed_half_way_in_another_context_is_told_as_cancelled() -> None:
    async with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(Own(lambda: asyncio.Event().wait()))
        with captured_events() as events:
            call = QA.with_options(route="own").acall(question="?")
            contextvars.copy_context().run(call.send, None)
            call.close()
    assert events.names == ["dspex.call.cancelled"]
    assert current_trace() is None


async def test_a_target_that_overstays_its_time_is_told_as_an_error_of_time() -> None:
    async with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(Own(lambda: asyncio.Event().wait()))
        with captured_events() as events, pytest.raises(DeadlineExceeded):
            await QA.with_options(route="own", timeout=0.01).acall(question="?")
    assert events.names == ["dspex.attempt.error", "dspex.call.error"]
    assert {event.attributes["category"] for event in events} == {"timeout"}
    assert [kind.code for kind in runtime.report().errors] == ["deadline-exceeded"]


async def test_a_breaker_s_changes_are_told_in_the_order_in_which_they_happen() -> None:
    async with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(
            Own(*[lambda: WorkerStartError("no")] * 4), breaker=Breaker(minimum=2, window_calls=4)
        )
        with captured_events() as events:
            for _ in range(2):
                with pytest.raises(WorkerStartError):
                    await QA.with_options(route="own").acall(question="?")
            with pytest.raises(DspexError):
                await QA.with_options(route="own").acall(question="?")
    failed = ["dspex.attempt.error", "dspex.call.error"]
    assert events.names == [*failed, "dspex.attempt.error", "dspex.breaker.change", *failed[1:], failed[1]]
    (change,) = events.named("dspex.breaker")
    assert dict(change.attributes) == {"target": "own", "before": "closed", "after": "open"}


def test_a_call_that_began_before_anybody_listened_is_not_told() -> None:
    handles = []

    class Attaches(Own):
        async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
            handles.append(attach("dspex", events.append))
            return await super().run(operation, timeout)

    events: list[Event] = []
    with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(Attaches(lambda: WorkerStartError("no")))
        with pytest.raises(WorkerStartError):
            QA.with_options(route="own")(question="?")
        handles[0].detach()
    assert events == []


async def test_a_call_that_fails_while_somebody_listens_leaves_nothing_behind() -> None:
    class Held(str):
        __slots__ = ("__weakref__",)

    def fails() -> None:
        raise LMServerError("no")

    held = Held("a question")
    gone = weakref.ref(held)
    async with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(Own(fails))
        gc.collect()
        gc.disable()
        try:
            with captured_events(), pytest.raises(LMServerError):
                await QA.with_options(route="own").acall(question=held)
            del held
            await asyncio.sleep(0)
            assert gone() is None
        finally:
            gc.enable()


# --- traces ---


def test_a_call_is_a_part_of_the_caller_s_trace() -> None:
    with dspex.Runtime(ScriptedLM(BLUE)), captured_events("dspex.call") as events:
        with use_trace({"traceparent": PARENT, "tracestate": "a=b"}):
            QA(question="?")
            assert current_trace() == {"traceparent": PARENT, "tracestate": "a=b"}
        QA(question="?")
        assert current_trace() is None
    inside, outside = events
    _, trace, span, _ = PARENT.split("-")
    assert (inside.trace_id, inside.parent_id) == (trace, span)
    assert outside.trace_id != trace


async def test_where_nobody_listens_a_target_sees_the_trace_as_the_caller_gave_it() -> None:
    headers = {"traceparent": PARENT, "baggage": "user=7"}
    own = Own()
    async with dspex.Runtime(ScriptedLM(BLUE)) as runtime:
        runtime.add_target(own)
        ask = QA.with_options(route="own")
        with use_trace(headers):
            await ask.acall(question="?")
        await ask.acall(question="?")
        with captured_events(), use_trace(headers):
            await ask.acall(question="?")
    assert own.traces[:2] == [headers, None]
    seen = own.traces[2]
    assert seen["baggage"] == "user=7"
    assert seen["traceparent"][:36] == PARENT[:36]
    assert seen["traceparent"][36:52] != PARENT[36:52]
    assert seen["traceparent"][-2:] == "00"


def test_ids_neither_take_from_the_interpreter_s_random_numbers_nor_come_from_them() -> None:
    found = []
    with dspex.Runtime(ScriptedLM(BLUE)), captured_events("dspex.call") as events:
        for _ in range(2):
            random.seed(7)
            QA(question="?")
            found.append(random.random())
    assert found[0] == found[1]
    assert events[0].trace_id != events[1].trace_id


def test_an_event_never_changes_and_is_plain_data_when_asked() -> None:
    event = told(n=1)
    with pytest.raises(AttributeError):
        event.name = "dspex.call.error"  # type: ignore[misc]
    with pytest.raises(TypeError):
        event.attributes["n"] = 2  # type: ignore[index]
    assert json.loads(json.dumps(event.to_dict()))["attributes"] == {"n": 1}
