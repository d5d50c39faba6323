"""Sessions: what a call leaves, in which order, for how long, and for whom."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import until

import dspex
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    InputError,
    SessionBusy,
    SessionError,
    SessionMoved,
    SessionNotFound,
    SessionQuotaExceeded,
    StateConflict,
    StoreError,
    WireError,
)
from dspex.sessions import SessionSettings, current_session
from dspex.sessions._keeper import Keeper
from dspex.stores import Changes, Memory, SessionInfo, SessionLease, SessionStore, SQLite
from dspex.telemetry import Event, attach
from dspex.testing import ChatRequest, ScriptedLM

CHAT = "question, history: dspy.History -> answer"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def answer(request: ChatRequest) -> str:
    return f"[[ ## answer ## ]]\nanswer {len(request.messages)}\n\n[[ ## completed ## ]]"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> SessionStore:
    return Memory(clock=clock) if request.param == "memory" else SQLite(tmp_path / "s.sqlite3", clock=clock)


@pytest.fixture
async def runtime(store: SessionStore) -> AsyncIterator[dspex.Runtime]:
    settings = SessionSettings(store=store, park_after=None)
    async with dspex.Runtime(ScriptedLM(answer), sessions=settings) as opened:
        yield opened
    await store.close()


def keeper_of(runtime: dspex.Runtime) -> Keeper:
    assert runtime._sessions is not None
    assert runtime._sessions.keeper is not None
    return runtime._sessions.keeper


def other(store: SessionStore, **settings: Any) -> dspex.Runtime:
    """Another host."""
    return dspex.Runtime(ScriptedLM(answer), sessions=SessionSettings(store=store, **settings))


# --- a call is a transaction ---------------------------------------------------------------------------


async def test_what_a_call_stages_is_committed_when_it_ends_well_and_forgotten_when_it_fails(
    runtime: dspex.Runtime, store: SessionStore
) -> None:
    s = await runtime.session()

    async def count(fail: bool) -> int:
        s.state["n"] = s.state.get("n", 0) + 1
        s.history.append({"said": s.state["n"]})
        del s.state["gone"]
        if fail:
            raise ValueError("no")
        return int(s.state["n"])

    s.state["gone"] = 1
    await s.commit()
    with pytest.raises(ValueError, match="no"):
        await s.call(count, fail=True)
    assert (dict(s.state), list(s.history)) == ({"gone": 1}, [])
    assert await s.call(count, fail=False) == 1
    assert (dict(s.state), list(s.history)) == ({"n": 1}, [{"said": 1}])
    assert list(await store.session_entries(s.id)) == ["state:n"]
    assert len(await store.session_turns(s.id)) == 1


async def test_what_was_staged_before_a_call_that_fails_stays_staged(runtime: dspex.Runtime) -> None:
    s = await runtime.session()
    s.state["before"] = 1

    async def fail() -> None:
        s.state["before"] = 2
        s.state["during"] = 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await s.call(fail)
    assert dict(s.state) == {"before": 1}
    assert s.state.version("before") == 0
    await s.commit()
    assert s.state.version("before") == 1
    s.state["more"] = 1
    s.discard()
    assert dict(s.state) == {"before": 1}


async def test_what_was_committed_inside_a_call_stays_when_the_call_fails(runtime: dspex.Runtime) -> None:
    s = await runtime.session()

    async def fail() -> None:
        s.state["kept"] = 1
        await s.commit()
        s.state["lost"] = 1
        await s.state.set("at once", 1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await s.call(fail)
    assert dict(s.state) == {"kept": 1, "at once": 1}
    await s.call(lambda: None)
    assert dict(s.state) == {"kept": 1, "at once": 1}


async def test_a_call_inside_a_call_is_a_part_of_it(runtime: dspex.Runtime, store: SessionStore) -> None:
    s = await runtime.session()

    async def inner() -> None:
        s.state["inner"] = 1

    async def outer() -> None:
        assert current_session() is s
        await s.call(inner)
        assert await store.session_entries(s.id) == {}
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await s.call(outer)
    assert dict(s.state) == {}
    assert current_session() is None


async def test_a_task_that_outlives_its_call_takes_its_own_turn(runtime: dspex.Runtime) -> None:
    s, tasks, go = await runtime.session(), list[asyncio.Task[Any]](), asyncio.Event()

    async def later() -> None:
        await go.wait()
        assert current_session() is None

        async def write() -> None:
            s.state["later"] = 1

        await s.call(write)

    async def begin() -> None:
        tasks.append(asyncio.create_task(later()))

    await s.call(begin)
    go.set()
    await tasks[0]
    assert s.state.version("later") == 1


async def test_to_change_what_was_read_changes_nothing(runtime: dspex.Runtime) -> None:
    s = await runtime.session()
    s.state["list"] = [1]
    s.state["list"].append(2)
    assert s.state["list"] == [1]
    await s.commit()
    s.state["list"].append(2)
    assert s.state["list"] == [1]


async def test_values_survive_by_the_codec_and_what_cannot_be_kept_is_refused_with_its_place(
    store: SessionStore,
) -> None:
    settings = SessionSettings(store=store, value_bytes=10_000)
    async with dspex.Runtime(ScriptedLM(answer), sessions=settings) as runtime:
        s = await runtime.session()
        value = {"set": {1, 2}, (1, 2): b"bytes", "big": 2**80, "none": None}
        s.state["value"] = value
        await s.commit()
        assert s.state["value"] == value
        with pytest.raises(SessionError) as refused:
            s.state["bad"] = {"a": [1, object()]}
        assert refused.value.code == "state-not-kept"
        assert "state['bad']" in str(refused.value)
        assert "$.a[1]" in str(refused.value)
        with pytest.raises(SessionError) as large:
            s.history.append({"text": "x" * 10_001})
        assert (large.value.code, "10,000" in str(large.value)) == ("state-too-large", True)
        for key in ("", 7, "x" * 257):
            with pytest.raises(ConfigError, match="1 to 256"):
                s.state[key] = 1  # type: ignore[index]
        with pytest.raises(ConfigError, match="mapping of names"):
            s.history.append(["no"])  # type: ignore[arg-type]
        assert "bytes" not in repr(s.state)


async def test_a_sync_function_runs_in_a_thread_and_sees_its_session(runtime: dspex.Runtime) -> None:
    s = await runtime.session()

    def work(by: int) -> int:
        session = current_session()
        assert session is s
        s.state["n"] = by
        return by

    assert await s.call(work, by=3) == 3
    assert s.state.version("n") == 1
    with pytest.raises(ConfigError, match="cannot be called"):
        await s.call(7)


# --- versions ------------------------------------------------------------------------------------------


async def test_a_value_is_written_only_over_the_version_that_was_expected(runtime: dspex.Runtime) -> None:
    s = await runtime.session()
    first = await s.state.set("k", 1, expected=0)
    assert first == s.state.version("k")
    second = await s.state.set("k", 2, expected=first)
    with pytest.raises(StateConflict) as conflict:
        await s.state.set("k", 3, expected=first)
    assert (conflict.value.key, conflict.value.expected, conflict.value.version) == ("state:k", first, second)
    assert s.state["k"] == 2
    assert await s.state.set("k", 4) > second


async def test_of_two_who_write_one_value_the_later_commit_is_told(runtime: dspex.Runtime) -> None:
    s = await runtime.session()
    await s.state.set("k", 1)

    async def slow() -> None:
        s.state["k"] = s.state["k"] + 10
        s.state["other"] = 1
        await s.state.set("k", 100)  # as anybody might meanwhile

    with pytest.raises(StateConflict):
        await s.call(slow)
    assert dict(s.state) == {"k": 100}


async def test_updates_at_once_lose_nothing(runtime: dspex.Runtime) -> None:
    s = await runtime.session()

    async def plus(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    await asyncio.gather(*(s.state.update("n", plus, 0) for _ in range(10)))
    assert s.state["n"] == 10
    assert await s.state.update("n", lambda n: n * 2) == 20
    assert await s.state.update("fresh", lambda value: value, "default") == "default"


# --- history -------------------------------------------------------------------------------------------


async def test_a_module_with_a_history_gets_the_turns_and_adds_one(runtime: dspex.Runtime) -> None:
    s = await runtime.session()
    chat = dspex.Predict(CHAT)
    for number in range(3):
        await s.call(chat, question=f"q{number}")
    assert [turn["question"] for turn in s.history] == ["q0", "q1", "q2"]
    assert set(s.history[0]) == {"question", "answer"}
    lm = runtime.lm
    assert isinstance(lm, ScriptedLM)
    said = [message["content"] for message in lm.requests[-1].messages if message["role"] == "user"]
    assert ["q0" in said[0], "q1" in said[1], "q2" in said[2]] == [True, True, True]
    assert s.history[-1] == s.history[2]
    assert len(s.history[1:]) == 2
    # as DSPy's own history says it
    import dspy

    same = await chat.acall(question="q3", history=dspy.History(messages=s.history.messages))
    assert lm.requests[-1].messages == (await _asked(s, chat, lm))
    assert same.answer == s.history[-1]["answer"]


async def _asked(s: Any, chat: Any, lm: ScriptedLM) -> Any:
    await s.call(chat, question="q3")
    return lm.requests[-1].messages


async def test_a_module_without_a_history_and_one_that_is_given_its_own_add_as_they_should(
    runtime: dspex.Runtime,
) -> None:
    import dspy

    s = await runtime.session()
    await s.call(dspex.Predict("question -> answer"), question="q")
    assert list(s.history) == []
    own = dspy.History(messages=[{"question": "a", "answer": "b"}])
    await s.call(dspex.Predict(CHAT), question="q", history=own)
    assert [turn["question"] for turn in s.history] == ["q"]
    with pytest.raises(InputError):
        await s.call(dspex.Predict(CHAT), wrong="q")
    assert len(s.history) == 1


async def test_a_streamed_call_is_a_turn_and_its_prediction_comes_after_the_commit(
    runtime: dspex.Runtime, store: SessionStore
) -> None:
    s, chat = await runtime.session(), dspex.Predict(CHAT)
    await s.call(chat, question="q0")
    events = []
    async for event in s.astream(chat, question="q1"):
        events.append(event)
        assert current_session() is None
        if isinstance(event, dspex.Prediction):
            assert len(await store.session_turns(s.id)) == 2
    assert isinstance(events[-1], dspex.Prediction)
    assert len(events) > 2
    assert [turn["question"] for turn in s.history] == ["q0", "q1"]


async def test_a_stream_that_is_left_or_fails_writes_nothing_and_frees_the_turn(
    runtime: dspex.Runtime,
) -> None:
    s, chat = await runtime.session(), dspex.Predict(CHAT)
    async with contextlib.aclosing(s.astream(chat, question="q")) as events:
        async for _ in events:
            break
    assert list(s.history) == []
    with pytest.raises(InputError):
        async for _ in s.astream(chat, wrong="q"):
            pass
    with pytest.raises(ConfigError, match="no events to be streamed"):
        async for _ in s.astream(lambda: 1):
            pass
    assert (await s.call(chat, question="q")).answer
    assert len(s.history) == 1


async def test_a_pipeline_gets_the_history_and_is_one_turn(runtime: dspex.Runtime) -> None:
    pipeline = dspex.pipeline(dspex.Predict(CHAT), dspex.Predict("answer -> short"), outputs=["short"])
    lm = runtime.lm
    assert isinstance(lm, ScriptedLM)
    s = await runtime.session()
    s.history.append({"question": "before", "answer": "said"})

    async def run(**inputs: Any) -> Any:
        return await s.call(pipeline, **inputs)

    lm._answer = ScriptedLM(
        lambda request: "[[ ## answer ## ]]\na\n\n[[ ## short ## ]]\ns\n\n[[ ## completed ## ]]"
    )._answer
    result = await run(question="now")
    assert result.short == "s"
    assert [turn["question"] for turn in s.history] == ["before", "now"]
    assert s.history[1]["short"] == "s"


@pytest.mark.parametrize(("options", "left"), [({"history_turns": 2}, [3, 4]), ({"history_turns": 0}, [])])
async def test_a_history_is_bounded_by_turns(
    runtime: dspex.Runtime, store: SessionStore, options: Any, left: list[int]
) -> None:
    s = await runtime.session(**options)
    for number in range(5):
        s.history.append({"n": number})
        await s.commit()
    assert [turn["n"] for turn in s.history] == left
    assert len(await store.session_turns(s.id)) == len(left)
    many = await runtime.session(**options)
    for number in range(5):
        many.history.append({"n": number})
    await many.commit()
    assert [turn["n"] for turn in many.history] == left


async def test_a_history_is_bounded_by_bytes_and_keeps_its_last_turn(runtime: dspex.Runtime) -> None:
    s = await runtime.session(history_bytes=300)
    for number in range(5):
        s.history.append({"n": number, "text": "x" * 100})
        await s.commit()
    assert [turn["n"] for turn in s.history] == [3, 4]
    s.history.append({"n": 5, "text": "x" * 1_000})
    await s.commit()
    assert [turn["n"] for turn in s.history] == [5]


# --- order ---------------------------------------------------------------------------------------------


async def test_calls_of_a_session_run_one_after_the_other_in_their_order(runtime: dspex.Runtime) -> None:
    s, running, order = await runtime.session(), 0, list[int]()

    async def work(number: int) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        order.append(number)
        running -= 1

    await asyncio.gather(*(s.call(work, number=number) for number in range(10)))
    assert order == list(range(10))


async def test_a_busy_session_refuses_a_call_or_lets_so_many_wait(runtime: dspex.Runtime) -> None:
    go = asyncio.Event()
    failing = await runtime.session(when_busy="fail")
    first = asyncio.create_task(failing.call(go.wait))
    await asyncio.sleep(0)
    with pytest.raises(SessionBusy) as busy:
        await failing.call(go.wait)
    assert (busy.value.code, busy.value.retryable, busy.value.session_id) == (
        "session-busy",
        True,
        failing.id,
    )
    waiting = await runtime.session(queue=2)
    calls = [asyncio.create_task(waiting.call(go.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(SessionBusy, match="2 of its calls wait"):
        await waiting.call(go.wait)
    calls[1].cancel()  # one that waits goes away, and its place is free
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(waiting.call(go.wait)))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(first, calls[0], *calls[2:])
    assert await waiting.call(lambda: 7) == 7


async def test_a_turn_that_never_comes_has_a_deadline_and_leaves_nothing(store: SessionStore) -> None:
    settings = SessionSettings(store=store)
    async with dspex.Runtime(ScriptedLM(answer), sessions=settings, timeout=0.05) as runtime:
        s, go = await runtime.session(), asyncio.Event()
        hanging = asyncio.create_task(s.call(go.wait))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded) as late:
            await s.call(lambda: 1)
        assert (late.value.stage, late.value.retryable) == ("session", True)
        with pytest.raises(DeadlineExceeded):
            await s.park()
        go.set()
        await hanging
        assert await s.call(lambda: 1) == 1


async def test_a_cancelled_call_leaves_its_turn_and_writes_nothing(runtime: dspex.Runtime) -> None:
    s, begun = await runtime.session(), asyncio.Event()

    async def hang() -> None:
        s.state["n"] = 1
        begun.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(s.call(hang))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert dict(s.state) == {}
    assert await s.call(lambda: 1) == 1


async def test_sessions_that_call_each_other_do_not_wait_for_themselves(runtime: dspex.Runtime) -> None:
    one, two = await runtime.session(), await runtime.session()

    async def innermost() -> None:
        one.state["inner"] = 1

    async def inner() -> None:
        await one.call(innermost)
        two.state["n"] = 1

    async def outer() -> None:
        await two.call(inner)
        one.state["outer"] = 1

    await one.call(outer)
    assert (dict(one.state), dict(two.state)) == ({"inner": 1, "outer": 1}, {"n": 1})


async def test_different_sessions_do_not_wait_for_each_other(runtime: dspex.Runtime) -> None:
    one, other = await runtime.session(), await runtime.session()
    go = asyncio.Event()
    blocked = asyncio.create_task(one.call(go.wait))
    assert await other.call(lambda: 1) == 1
    go.set()
    await blocked


# --- whose it is ---------------------------------------------------------------------------------------


async def test_a_session_is_resumed_by_its_id_elsewhere_with_all_that_it_has(
    runtime: dspex.Runtime, store: SessionStore
) -> None:
    async with runtime.session(history_turns=7, user="ada") as s:
        s.state["n"] = 1
        s.history.append({"q": 1})
    async with other(store) as second:
        again = await second.session(id=s.id)
        assert (dict(again.state), list(again.history)) == ({"n": 1}, [{"q": 1}])
        assert again.options == s.options
        with pytest.raises(SessionBusy) as busy:
            await s.call(lambda: None)
        assert 0 < busy.value.seconds <= 30
        await again.park()
        await s.call(lambda: None)  # parked there, it is taken up here again


async def test_the_block_commits_when_it_ends_well_and_not_when_it_raises(
    runtime: dspex.Runtime, store: SessionStore
) -> None:
    async with runtime.session() as well:
        well.state["n"] = 1
    assert set(await store.session_entries(well.id)) == {"state:n"}
    opened: list[str] = []

    async def badly() -> None:
        async with runtime.session() as s:
            opened.append(s.id)
            s.state["n"] = 1
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await badly()
    assert await store.session_entries(opened[0]) == {}
    info = await store.session(opened[0])
    assert info is not None
    assert info.owner is None


async def test_a_host_that_lost_a_session_writes_nothing_and_says_so_each_time(
    runtime: dspex.Runtime, store: SessionStore
) -> None:
    s = await runtime.session()
    async with other(store) as second:
        taken = await second.session(id=s.id, take_over=True)
        await taken.state.set("n", "theirs")
        s.state["n"] = "ours"
        with pytest.raises(SessionMoved) as moved:
            await s.commit()
        assert moved.value.session_id == s.id
        for write in (s.commit(), s.state.set("n", "ours")):
            with pytest.raises((SessionMoved, SessionBusy)):
                await write
        assert taken.state["n"] == "theirs"
        assert (await store.session_entries(s.id))["state:n"].version == 1


async def test_a_session_is_taken_over_when_its_host_has_not_renewed_its_lease(
    runtime: dspex.Runtime, store: SessionStore, clock: Clock
) -> None:
    s = await runtime.session()
    s.state["n"] = 1
    await s.commit()
    async with other(store) as second:
        with pytest.raises(SessionBusy):
            await second.session(id=s.id)
        clock.now += 20
        await keeper_of(runtime).tend()  # renewed
        clock.now += 20
        with pytest.raises(SessionBusy):
            await second.session(id=s.id)
        clock.now += 11
        taken = await second.session(id=s.id)
        assert taken.state["n"] == 1
        await keeper_of(runtime).tend()
        assert len(keeper_of(runtime)) == 0
        s.state["n"] = 2
        with pytest.raises(SessionBusy):
            await s.commit()


async def test_who_asks_again_for_a_session_that_another_took_does_not_get_the_old_one(
    runtime: dspex.Runtime, store: SessionStore
) -> None:
    s = await runtime.session()
    async with other(store) as second:
        theirs = await second.session(id=s.id, take_over=True)
        with pytest.raises(SessionBusy):
            await runtime.session(id=s.id)
        again = await runtime.session(id=s.id, take_over=True)
        await again.state.set("n", 1)
        with pytest.raises(SessionMoved):
            await theirs.state.set("n", 2)


async def test_a_value_that_was_changed_in_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    async with dspex.Runtime(ScriptedLM(answer), sessions=path) as runtime:
        async with runtime.session(id="s1", create=True) as s:
            s.state["n"] = [1, 2, 3]
        with contextlib.closing(sqlite3.connect(path)) as db:
            (value,) = db.execute("SELECT value FROM session_entries").fetchone()
            db.execute("UPDATE session_entries SET value = ?", (value[:-1] + b"\x04",))
            db.commit()
        again = await runtime.session(id="s1")
        with pytest.raises(WireError) as changed:
            again.state["n"]
        assert changed.value.code == "changed-bytes"


async def test_what_becomes_of_a_session_is_told(runtime: dspex.Runtime, store: SessionStore) -> None:
    told = list[Event]()
    with attach("dspex.session", told.append):
        s = await runtime.session()
        async with other(store) as second:
            taken = await second.session(id=s.id, take_over=True)
            with pytest.raises(SessionMoved):
                await s.state.set("n", 1)
            await taken.end()
    assert [event.name.removeprefix("dspex.session.") for event in told] == [
        "created",
        "resumed",
        "lost",
        "ended",
    ]
    assert {event.attributes["session"] for event in told} == {s.id}


async def test_two_who_resume_a_parked_session_at_once_have_one_winner(
    runtime: dspex.Runtime, store: SessionStore
) -> None:
    s = await runtime.session()
    await s.park()
    async with other(store) as second, other(store) as third:
        outcomes = await asyncio.gather(
            second.session(id=s.id).__aenter__(), third.session(id=s.id).__aenter__(), return_exceptions=True
        )
    assert sorted(type(each).__name__ for each in outcomes) == ["Session", "SessionBusy"]


async def test_a_session_that_may_be_there_is_made_or_resumed(runtime: dspex.Runtime) -> None:
    with pytest.raises(SessionNotFound):
        await runtime.session(id="chat-7")
    first = await runtime.session(id="chat-7", create=True)
    first.state["n"] = 1
    await first.commit()
    assert await runtime.session(id="chat-7", create=True) is first
    await first.park()
    assert (await runtime.session(id="chat-7", create=True)).state["n"] == 1


async def test_a_session_that_ended_is_gone_for_everybody(
    runtime: dspex.Runtime, store: SessionStore
) -> None:
    s = await runtime.session()
    await s.state.set("n", 1)
    await s.end()
    assert await store.session(s.id) is None
    assert await store.session_entries(s.id) == {}
    for use in (s.call(lambda: None), s.end(), s.state.set("n", 2)):
        with pytest.raises(SessionNotFound):
            await use
    with pytest.raises(SessionNotFound):
        await runtime.session(id=s.id)


async def test_a_session_can_neither_park_nor_end_in_its_own_call(runtime: dspex.Runtime) -> None:
    s = await runtime.session()
    for leave in (s.park, s.end):
        with pytest.raises(ConfigError, match="in a call of its own"):
            await s.call(leave)
    assert await s.call(lambda: 1) == 1


# --- for how long --------------------------------------------------------------------------------------


async def test_a_session_that_nobody_uses_ends_and_its_host_lets_go_of_it(
    runtime: dspex.Runtime, store: SessionStore, clock: Clock
) -> None:
    told = list[Event]()
    with attach("dspex.session", told.append):
        s = await runtime.session(idle_ttl=100)
        await s.state.set("n", 1)
        clock.now += 99
        await s.call(lambda: None)
        s.state["n"] = 2
        await s.commit()  # used
        clock.now += 99
        assert await store.session(s.id) is not None
        clock.now += 2
        assert await store.session(s.id) is None
        with pytest.raises(SessionNotFound):
            await s.state.set("n", 3)
        await keeper_of(runtime).tend()
        assert await store.expire_sessions() == []
        assert len(keeper_of(runtime)) == 0
    names = [event.name.removeprefix("dspex.session.") for event in told]
    assert names == ["created", "expired", "expired"]


async def test_a_session_ends_at_its_greatest_age_however_much_it_is_used(
    runtime: dspex.Runtime, clock: Clock
) -> None:
    s = await runtime.session(idle_ttl=None, max_age=250)
    for _ in range(2):
        clock.now += 100
        await s.state.set("n", 1)
    clock.now += 51
    with pytest.raises(SessionNotFound):
        await s.state.set("n", 1)


async def test_an_idle_session_is_parked_and_its_next_call_takes_it_up_again(store: SessionStore) -> None:
    told = list[Event]()
    async with other(store, park_after=0.05) as runtime:
        with attach("dspex.session", told.append):
            s = await runtime.session()
            s.state["n"] = 1
            await s.commit()
            await until(lambda: not len(keeper_of(runtime)))
            info = await store.session(s.id)
            assert info is not None
            assert info.owner is None
            assert s.state["n"] == 1
            s.state["n"] = 2
            await s.commit()
            assert len(keeper_of(runtime)) == 1
    assert [event.name.removeprefix("dspex.session.") for event in told][:3] == [
        "created",
        "parked",
        "resumed",
    ]


class Gated(Memory):
    """A store whose release waits until a test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def release_session(self, lease: SessionLease, *, idle: float = 0.0) -> None:
        self.begun.set()
        await self.go.wait()
        await super().release_session(lease, idle=idle)


async def test_a_call_during_parking_is_served_and_one_that_runs_is_waited_for() -> None:
    store = Gated()
    async with other(store, park_after=None) as runtime:
        s = await runtime.session()
        go, ended = asyncio.Event(), list[str]()

        async def work() -> None:
            await go.wait()
            s.state["n"] = 1
            ended.append("call")

        running = asyncio.create_task(s.call(work))
        await asyncio.sleep(0)
        parking = asyncio.create_task(s.park())
        await asyncio.sleep(0)
        assert not store.begun.is_set()
        go.set()
        await store.begun.wait()
        assert ended == ["call"]
        late = asyncio.create_task(s.call(lambda: s.state["n"]))
        await asyncio.sleep(0)
        assert not late.done()
        store.go.set()
        await asyncio.gather(running, parking)
        assert await late == 1
        assert len(keeper_of(runtime)) == 1


async def test_a_value_that_is_set_while_its_session_is_parked_is_written() -> None:
    store = Gated()
    async with other(store, park_after=None) as runtime:
        s = await runtime.session()
        parking = asyncio.create_task(s.park())
        await store.begun.wait()
        setting = asyncio.create_task(s.state.set("n", 1))
        await asyncio.sleep(0)
        store.go.set()
        await parking
        assert await setting == s.state.version("n") == 1


async def test_a_session_in_use_does_not_end_however_long_its_call_takes(
    store: SessionStore, clock: Clock
) -> None:
    async with other(store, park_after=None) as runtime:
        s, go = await runtime.session(idle_ttl=100), asyncio.Event()
        running = asyncio.create_task(s.call(go.wait))
        for _ in range(5):
            await asyncio.sleep(0)
            clock.now += 60
            await keeper_of(runtime).tend()
        go.set()
        await running
        await s.state.set("n", 1)


async def test_quotas_count_the_sessions_of_a_pool_and_of_a_user(store: SessionStore, clock: Clock) -> None:
    async with other(store, most_of_pool=3, most_of_user=2) as runtime:
        first = await runtime.session(user="ada", idle_ttl=100)
        await runtime.session(user="ada")
        with pytest.raises(SessionQuotaExceeded) as of_user:
            await runtime.session(user="ada")
        assert (of_user.value.quota, of_user.value.most, of_user.value.http_status) == ("user", 2, 429)
        await runtime.session()
        with pytest.raises(SessionQuotaExceeded) as of_pool:
            await runtime.session(user="bob")
        assert of_pool.value.quota == "pool"
        await first.park()
        clock.now += 101
        await runtime.session(user="ada")


# --- when the store fails ------------------------------------------------------------------------------


class Doubtful(Memory):
    """A store that writes, or does not, and says that it does not know."""

    fails = ""

    async def commit_session(self, lease: SessionLease, changes: Changes, *, seconds: float) -> SessionInfo:
        if self.fails == "before":
            self.fails = ""
            raise StoreError("no answer")
        info = await super().commit_session(lease, changes, seconds=seconds)
        if self.fails == "after":
            self.fails = ""
            raise StoreError("no answer")
        return info


@pytest.mark.parametrize(("when", "there"), [("before", {}), ("after", {"n": 1})])
async def test_after_a_write_of_which_nothing_is_known_the_session_is_what_the_store_has(
    when: str, there: dict[str, int]
) -> None:
    store = Doubtful()
    async with other(store) as runtime:
        s = await runtime.session()

        async def write() -> None:
            s.state["n"] = 1

        store.fails = when
        with pytest.raises(StoreError):
            await s.call(write)
        await s.call(lambda: None)
        assert dict(s.state) == there
        await s.call(write)
        assert dict(s.state) == {"n": 1}


async def test_a_closed_runtime_gives_its_sessions_up_and_they_say_so(store: SessionStore) -> None:
    async with other(store) as runtime:
        s = await runtime.session()
        s.state["n"] = 1
        await s.commit()
    with pytest.raises(ConfigError, match="not open"):
        await s.call(lambda: None)
    info = await store.session(s.id)
    assert info is not None
    assert info.owner is None
    async with other(store) as second:
        assert (await second.session(id=s.id)).state["n"] == 1


# --- settings, and the blocking twin -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"affinity": "loose"}, "affinity='loose'"),
        ({"when_busy": "never"}, "when_busy='never'"),
        ({"queue": -1}, "queue=-1"),
        ({"history_turns": 1.5}, "history_turns=1.5"),
        ({"history_bytes": 0}, "history_bytes=0"),
        ({"idle_ttl": -1}, "idle_ttl"),
        ({"user": 7}, "user=7"),
        ({"id": ""}, "1 to 256"),
        ({"id": "x" * 300}, "1 to 256"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused_before_anything_is_made(
    runtime: dspex.Runtime, options: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        runtime.session(**options)
    assert runtime._sessions is None or runtime._sessions.keeper is None


@pytest.mark.parametrize("sessions", [7, object(), {"store": None}])
async def test_settings_that_are_none_are_refused(sessions: Any) -> None:
    async with dspex.Runtime(ScriptedLM(answer), sessions=sessions) as runtime:
        with pytest.raises(ConfigError, match="none of the forms"):
            runtime.session()


async def test_the_default_store_is_a_file_of_the_user_s_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSPEX_STATE_DIR", str(tmp_path / "state"))
    async with dspex.Runtime(ScriptedLM(answer)) as runtime:
        await runtime.session()
    assert (tmp_path / "state" / "sessions.sqlite3").stat().st_mode & 0o777 == 0o600
    for name in ("DSPEX_STATE_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    async with dspex.Runtime(ScriptedLM(answer)) as runtime:
        with pytest.raises(ConfigError, match="no directory for sessions"):
            await runtime.session()


def test_a_blocking_session_does_what_its_twin_does(tmp_path: Path) -> None:
    with dspex.Runtime(ScriptedLM(answer), sessions=tmp_path / "s.sqlite3") as runtime:
        with runtime.session() as s:
            s.call(dspex.Predict(CHAT), question="q")
            s.state["n"] = 1
            s.commit()
            assert s.state.set("m", 2) == s.state.version("m")
            assert s.state.update("m", lambda m: m + 1) == 3
            s.state["x"] = 1
            s.discard()
            assert (dict(s.state), len(s.history)) == ({"n": 1, "m": 3}, 1)
            del s.state["n"]
        again = runtime.session(id=s.id).open()
        assert (dict(again.state), again.history[0]["question"]) == ({"m": 3}, "q")
        events = list(again.stream(dspex.Predict(CHAT), question="q2"))
        assert events[-1].answer == again.history[1]["answer"]
        with contextlib.closing(again.stream(dspex.Predict(CHAT), question="q3")) as left:
            next(left)
        assert len(again.history) == 2
        again.park()
        again.end()
        with pytest.raises(SessionNotFound):
            again.call(lambda: None)


async def test_a_blocking_session_is_refused_on_an_event_loop(runtime: dspex.Runtime) -> None:
    with pytest.raises(ConfigError, match="async with"):
        runtime.session().open()


async def test_a_session_is_used_from_another_loop(runtime: dspex.Runtime) -> None:
    s = await runtime.session()

    async def elsewhere() -> int:
        async def work() -> int:
            s.state["n"] = 5
            return 5

        async for _ in s.astream(dspex.Predict(CHAT), question="q"):
            pass
        return int(await s.call(work))

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == 5
    assert len(s.history) == 1
    assert s.state.version("n") == 2
