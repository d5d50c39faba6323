"""What a shadow does with a call, what counts as a difference, and how much of all that is kept."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import stat
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.processes import until

import dspex
from dspex.adapters import Adapter
from dspex.cli import main
from dspex.errors import ConfigError, DspexError, LMServerError, ReplyError, RouteError
from dspex.router import ModuleOperation, Operation, Shadow
from dspex.router._shadow import Work
from dspex.runtime import MessageDifference, Pair, ShadowDifference
from dspex.runtime._borrowed import BorrowedModels
from dspex.runtime._pool_target import Told
from dspex.runtime._shadow_difference import fields_that_differ, message_that_differs
from dspex.runtime._shadow_runs import ShadowRuns
from dspex.runtime._shadow_store import DifferenceFile, ShadowStore, read_differences
from dspex.signature import Signature
from dspex.testing import ScriptedLM

SIGNATURE = Signature("question -> answer")
ADAPTER = Adapter.of("chat", None)


def operation(**options: Any) -> Operation:
    return Operation(**{"signature": SIGNATURE, "inputs": {"question": "q"}, **options})


def prediction(answer: Any, route: str) -> dspex.Prediction:
    made = dspex.Prediction(answer=answer)
    made.route = route
    return made


# -- which calls, and what is done for them ---------------------------------------------------------

POLICY: list[tuple[str, dict[str, Any], dict[str, Any], Work | None]] = [
    ("idempotent: both", {}, {"idempotent": True}, Work(messages=True, answers=True)),
    ("not idempotent: its messages alone", {}, {}, Work(messages=True, answers=False)),
    (
        "not idempotent, and asked for",
        {"even_if_not_idempotent": True},
        {},
        Work(messages=True, answers=True),
    ),
    ("messages", {"compare": "messages"}, {"idempotent": True}, Work(messages=True, answers=False)),
    ("fields", {"compare": "fields"}, {"idempotent": True}, Work(messages=False, answers=True)),
    ("fields, not idempotent", {"compare": "fields"}, {}, None),
    ("a route of its own", {"even_if_not_idempotent": True}, {"route": "native"}, None),
]


@pytest.mark.parametrize(
    ("shadow", "call", "work"), [row[1:] for row in POLICY], ids=[row[0] for row in POLICY]
)
def test_the_model_is_asked_again_only_where_a_call_is_idempotent_or_that_was_asked_for(
    shadow: Any, call: Any, work: Any
) -> None:
    assert Shadow(share=1.0, **shadow).work(operation(**call)) == work


def test_what_only_dspy_runs_has_no_other_side() -> None:
    module: Any = None
    assert Shadow(share=1.0).work(ModuleOperation(inputs={}, module=module, idempotent=True)) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": 1.1}, "share of a shadow must be a number from 0 to 1, not 1.1"),
        ({"share": True}, "share"),
        ({"share": 0.1, "compare": "all"}, "compare of a shadow must be one of 'messages'"),
        ({"share": 0.1, "in_flight": 0}, "in_flight of a shadow must be a whole number from 1 to 1,000"),
        ({"share": 0.1, "keep": 1.5}, "keep"),
        ({"share": 0.1, "timeout": 0}, "timeout"),
        ({"share": 0.1, "inputs": 1}, "inputs of a shadow must be True or False"),
        ({"share": 0.1, "file": 3}, "file of a shadow must be a path"),
        ({"share": 0.1, "file_bytes": 10}, "file_bytes"),
    ],
)
def test_a_shadow_s_settings_are_looked_at(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Shadow(**given)


def test_a_runtime_with_one_side_has_no_other_to_run() -> None:
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime(ScriptedLM("blue"), shadow=0.01)
    assert caught.value.code == "shadow-one-side"
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime(ScriptedLM("blue")).shadow_report()
    assert caught.value.code == "no-shadow"


# -- what differs -------------------------------------------------------------------------------------


class _Uncomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "uncomparable"


FIELDS: list[tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Pair]]] = [
    ([{"a": "x", "b": 1}], [{"a": "x", "b": 1}], {}),
    ([{"a": float("nan")}], [{"a": float("nan")}], {}),
    ([{"a": _Uncomparable()}], [{"a": _Uncomparable()}], {}),
    ([{"a": "x"}], [{"a": "y"}], {"a": Pair("x", "y")}),
    ([{"a": 1}], [{"a": 1.0}], {"a": Pair("1", "1.0")}),
    ([{"a": 1}], [{"a": "1"}], {"a": Pair("1 (int)", "1 (str)")}),
    ([{"a": True}], [{"a": 1}], {"a": Pair("True", "1")}),
    ([{"a": "x"}], [{"b": "x"}], {"a": Pair("x", "(nothing)"), "b": Pair("(nothing)", "x")}),
    ([{"a": "x"}, {"a": "y"}], [{"a": "x"}], {"a": Pair("y", "(nothing)")}),
    (
        [{"a": "0" * 50 + "1"}],
        [{"a": "0" * 50 + "2" * 60}],
        {"a": Pair(f"...{'0' * 20}1", f"...{'0' * 20}{'2' * 20}...")},
    ),
]


@pytest.mark.parametrize(("live", "other", "differ"), FIELDS)
def test_fields_differ_where_values_or_their_types_do(live: Any, other: Any, differ: Any) -> None:
    assert fields_that_differ(live, other, 40) == differ


def test_messages_differ_from_the_first_character_on_and_say_no_word_of_it_unless_asked() -> None:
    live = [{"role": "system", "content": "same"}, {"role": "user", "content": "the answer: 1"}]
    other = [live[0], {"role": "user", "content": "the answer= 1!"}]
    assert message_that_differs(live, live, 40, texts=True) is None
    found = message_that_differs(live, other, 40, texts=False)
    assert found == MessageDifference(index=1, role="user", at=10, lengths=(13, 14))
    told = message_that_differs(live, other, 40, texts=True)
    assert told is not None
    assert told.texts == Pair("the answer: 1", "the answer= 1!")
    assert message_that_differs(live[:1], other, 40, texts=False) == MessageDifference(
        index=1, role="", at=None, lengths=(-1, 14)
    )
    parts = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    assert message_that_differs(
        parts, [{"role": "user", "content": "x"}], 40, texts=False
    ) == MessageDifference(index=0, role="user", at=None, lengths=(1, 1))


@given(one=st.text(), two=st.text(), rest=st.text())
@settings(max_examples=200)
def test_the_place_of_a_difference_is_where_two_texts_part(one: str, two: str, rest: str) -> None:
    live, other = [{"role": "user", "content": rest + one}], [{"role": "user", "content": rest + two}]
    found = message_that_differs(live, other, 40, texts=False)
    if one == two:
        assert found is None
    else:
        assert found is not None
        same = zip(rest + one, rest + two, strict=False)
        assert found.at == len([*takewhile(lambda pair: pair[0] == pair[1], same)])


pairs = st.builds(Pair, st.text(), st.text())
differences = st.builds(
    ShadowDifference,
    time=st.floats(0, 1e10),
    signature=st.text(),
    live=st.text(),
    other=st.text(),
    message=st.none()
    | st.builds(
        MessageDifference,
        index=st.integers(0, 9),
        role=st.text(),
        at=st.none() | st.integers(0, 9),
        lengths=st.tuples(st.integers(-1, 9), st.integers(-1, 9)),
        texts=st.none() | pairs,
    ),
    fields=st.dictionaries(st.text(), pairs),
    error=st.text(),
    inputs=st.dictionaries(st.text(), st.text()),
)


@given(difference=differences)
@settings(max_examples=200)
def test_a_difference_comes_back_from_its_line(difference: ShadowDifference) -> None:
    line = difference.to_line()
    assert line.count("\n") == 1
    assert ShadowDifference.from_line(line) == difference


@pytest.mark.parametrize("line", ["", "{", "[]", "1", '{"time": 1}', '{"time": "x"}', "[" * 99_999])
def test_what_is_no_line_of_a_file_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no difference"):
        ShadowDifference.from_line(line)


# -- what is kept -------------------------------------------------------------------------------------


def difference(number: int = 0) -> ShadowDifference:
    fields = {"answer": Pair(f"live {number}", f"other {number}")}
    return ShadowDifference(time=0.0, signature="q -> answer", live="native", other="pool:p", fields=fields)


def test_the_file_is_its_owner_s_and_never_larger_than_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "differences.jsonl"
    file = DifferenceFile(path, 10_000)
    for number in range(500):
        assert file.add(difference(number))
        assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 10_000
    assert sorted(each.name for each in tmp_path.iterdir()) == ["differences.jsonl", "differences.jsonl.1"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found, unread = read_differences(path)
    assert (found[-1], unread) == (difference(499), 0)
    assert len(found) + len(read_differences(f"{path}.1")[0]) > 50


def test_a_file_that_cannot_be_written_is_told_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ShadowStore(2, DifferenceFile(tmp_path / "missing" / "file", 10_000))
    for number in range(3):
        store.different(difference(number))
    report = store.report(0)
    assert (report.different, report.unwritten) == (3, 3)
    assert report.differences == (difference(1), difference(2))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_the_command_sums_up_a_file_and_shows_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "differences.jsonl"
    file = DifferenceFile(path, 100_000)
    message = MessageDifference(index=1, role="user", at=10, lengths=(13, 14), texts=Pair("a: 1", "a= 1"))
    one = ShadowDifference(
        time=0.0,
        signature="text -> label",
        live="native",
        other="pool:p",
        message=message,
        inputs={"text": "x"},
    )
    refused = ShadowDifference(
        time=0.0, signature="text -> label", live="native", other="pool:p", error="reply"
    )
    for each in (difference(1), difference(2), one, refused):
        file.add(each)
    with path.open("a") as lines:
        lines.write("half a li")

    assert main(["shadow", "report", str(path), "--last", "2"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[:4] == [
        "4 differences, and 1 lines that are none",
        "       2  field answer  in  q -> answer",
        "       1  message 1 (user)  in  text -> label",
        "       1  error reply  in  text -> label",
    ]
    assert out[6:10] == [
        "  input text: 'x'",
        "  message 1 (user) differs, from character 10 on: 13 and 14 long",
        "    native  'a: 1'",
        "    pool:p  'a= 1'",
    ]
    assert out[-1] == "  pool:p raised reply"

    assert main(["shadow", "report", str(path), "--json", "--signature", "q ->"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["differences"], data["unread"], len(data["last"])) == (2, 1, 2)
    assert data["summary"] == [{"signature": "q -> answer", "differs": "field answer", "count": 2}]
    assert main(["shadow", "report", str(path), "--signature", "nothing"]) == 0
    assert main(["shadow", "report", str(tmp_path / "none")]) == 2


# -- the runs -----------------------------------------------------------------------------------------

here: ContextVar[str] = ContextVar("here", default="nowhere")


class Side:
    """A target whose answer is a function of the call, once it is let."""

    def __init__(self, name: str, answer: Callable[[Operation], Any]) -> None:
        self.name = name
        self.answer = answer
        self.go = asyncio.Event()
        self.go.set()
        self.refusal: DspexError | None = None
        self.calls: list[Operation] = []
        self.contexts: list[str] = []

    def unable(self, call: Operation) -> DspexError | None:
        return self.refusal

    async def run(self, call: Operation, timeout: float) -> dspex.Prediction:
        self.calls.append(call)
        self.contexts.append(here.get())
        await self.go.wait()
        return dspex.Prediction(answer=self.answer(call))

    async def told(self, call: Operation, timeout: float, *, answers: bool) -> Told:
        found = await self.run(call, timeout) if answers else None
        messages = ADAPTER.compile(call.signature, "3.4").render(call.inputs, call.demos)
        return Told(messages, found)


class Sides:
    """A native side and a pool, and the runs on the other side of each."""

    def __init__(self, chances: Iterator[float] | None = None, **shadow: Any) -> None:
        self.native = Side("native", lambda _: "blue")
        self.pool = Side("pool:general", lambda _: "blue")
        self.failing: set[str] = set()
        native: Any = self.native
        pools: Any = [self.pool]
        self.runs = ShadowRuns(
            Shadow(**{"share": 1.0, **shadow}),
            native,
            pools,
            ADAPTER,
            "3.4",
            is_failing=self.failing.__contains__,
            borrowed=BorrowedModels(),
            chance=(lambda: 0.0) if chances is None else lambda: next(chances),
        )
        self.runs.open(asyncio.get_running_loop())

    async def report(self) -> Any:
        await until(lambda: self.runs.report().in_flight == 0)
        return self.runs.report()


def idempotent(**options: Any) -> Operation:
    return operation(idempotent=True, **options)


async def test_calls_are_chosen_by_chance_and_share() -> None:
    sides = Sides(iter([0.0, 0.24, 0.25, 0.99]), share=0.25)
    for _ in range(4):
        sides.runs.offer(idempotent(), prediction("blue", "native"))
    assert (await sides.report()).same == 2
    assert len(sides.pool.calls) == 2


@pytest.mark.parametrize("live", ["native", "pool:general"])
async def test_the_other_side_runs_and_what_it_answers_is_compared(live: str) -> None:
    sides = Sides()
    sides.runs.offer(idempotent(), prediction("blue", live))
    sides.runs.offer(idempotent(), prediction("red", live))
    report = await sides.report()
    assert (report.same, report.different) == (1, 1)
    (found,) = report.differences
    assert {found.live, found.other} == {"native", "pool:general"}
    assert found.live == live
    assert (found.fields, found.message, found.inputs) == ({"answer": Pair("red", "blue")}, None, {})


async def test_a_call_that_is_not_idempotent_asks_no_model_a_second_time() -> None:
    sides = Sides()
    for live in ("native", "pool:general"):
        sides.runs.offer(operation(), prediction("red", live))
    assert (await sides.report()).same == 2
    assert sides.native.calls == sides.pool.calls == []


async def test_what_its_caller_changes_afterwards_changes_nothing() -> None:
    sides = Sides(inputs=True)
    question, demo = ["q"], {"question": "q", "answer": ["a"]}
    made = prediction(["blue"], "native")
    sides.pool.answer = lambda _: ["blue"]
    sides.runs.offer(idempotent(inputs={"question": question}, demos=[demo]), made)
    question.append("changed")
    demo["answer"] = "changed"
    made.answer.append("changed")
    assert (await sides.report()).same == 1
    assert sides.pool.calls[0].inputs == {"question": ["q"]}
    assert sides.pool.calls[0].demos == [{"question": "q", "answer": ["a"]}]


async def test_the_other_side_sees_nothing_of_the_caller_s_context_and_stream() -> None:
    sides = Sides()
    here.set("the caller's")
    sink: Any = object()
    sides.runs.offer(idempotent(sink=sink), prediction("blue", "native"))
    await sides.report()
    assert (sides.pool.contexts, sides.pool.calls[0].sink) == (["nowhere"], None)


async def test_no_more_run_at_once_than_may_and_the_rest_are_left_alone() -> None:
    sides = Sides(in_flight=2)
    sides.pool.go.clear()
    for _ in range(5):
        sides.runs.offer(idempotent(), prediction("blue", "native"))
    assert sides.runs.report().in_flight == 2
    sides.pool.go.set()
    report = await sides.report()
    assert (report.same, report.skipped) == (2, {"busy": 3})


async def test_calls_that_the_other_side_cannot_run_or_that_fails_are_left_alone() -> None:
    sides = Sides()
    sides.failing.add("pool:general")
    sides.runs.offer(idempotent(), prediction("blue", "native"))
    sides.runs.offer(idempotent(), prediction("blue", "a target of the user's"))
    sides.native.refusal = RouteError("it cannot")
    sides.runs.offer(idempotent(), prediction("blue", "pool:general"))
    sides.native.refusal, sides.pool.refusal = None, RouteError("no worker can")
    sides.runs.offer(idempotent(), prediction("blue", "native"))
    assert (await sides.report()).skipped == {"failing": 1, "no-other": 3}


@pytest.mark.parametrize(
    ("error", "failed", "different"),
    [
        (LMServerError("down", status=500), {"lm-server": 1}, ""),
        (ReplyError("junk"), {}, "reply"),
        (ZeroDivisionError("a bug"), {"internal": 1}, ""),
    ],
)
async def test_an_error_of_the_other_side_is_a_difference_or_passes(
    error: Any, failed: Any, different: str
) -> None:
    sides = Sides()

    def fail(_: Operation) -> Any:
        raise error

    sides.pool.answer = fail
    sides.runs.offer(idempotent(), prediction("blue", "native"))
    report = await sides.report()
    assert report.failed == failed
    assert "".join(each.error for each in report.differences) == different


async def test_a_run_that_takes_too_long_is_ended() -> None:
    sides = Sides(timeout=0.01)
    sides.pool.go.clear()
    sides.runs.offer(idempotent(), prediction("blue", "native"))
    assert (await sides.report()).failed == {"deadline-exceeded": 1}


async def test_what_cannot_be_copied_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    circle: list[Any] = []
    circle.append(circle)
    sides = Sides()
    sides.runs.offer(idempotent(inputs={"question": circle}), prediction("blue", "native"))
    assert (await sides.report()).in_flight == 0
    assert "could not be run on the other side" in caplog.text


async def test_a_call_of_another_thread_s_is_run_on_the_runtime_s_loop() -> None:
    sides = Sides()
    await asyncio.to_thread(sides.runs.offer, idempotent(), prediction("blue", "native"))
    await until(lambda: sides.runs.report().same == 1)


async def test_closing_ends_what_runs_and_begins_nothing_more() -> None:
    sides = Sides()
    sides.pool.go.clear()
    sides.runs.offer(idempotent(), prediction("blue", "native"))
    await until(lambda: sides.pool.calls)
    await sides.runs.aclose()
    sides.runs.offer(idempotent(), prediction("blue", "native"))
    report = sides.runs.report()
    assert (report.in_flight, report.same, len(sides.pool.calls)) == (0, 0, 1)


@pytest.mark.parametrize("ends", ["same", "different", "fails"])
async def test_what_has_run_on_the_other_side_holds_nothing_of_its_call(ends: str) -> None:
    class Thing(str):
        __slots__ = ("__weakref__",)

    gc.collect()
    gc.disable()
    try:
        sides = Sides(inputs=True)

        def answer(_: Operation) -> Any:
            if ends == "fails":
                raise LMServerError("down")
            return "blue"

        sides.pool.answer = answer
        thing = Thing("sky")
        held = weakref.ref(thing)
        made = prediction("blue" if ends == "same" else "red", "native")
        sides.runs.offer(idempotent(inputs={"question": thing}), made)
        del thing
        report = await sides.report()
        assert (report.same, report.different, sum(report.failed.values())) == {
            "same": (1, 0, 0),
            "different": (0, 1, 0),
            "fails": (0, 0, 1),
        }[ends]
        sides.pool.calls.clear()
        await until(lambda: held() is None, seconds=5)
    finally:
        gc.enable()
