"""Callbacks of modules, models, adapters and runtimes: who hears of what, and what they cannot break."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from tests.support.models import Said
from tests.support.processes import until

import dspex
from dspex.callbacks import BaseCallback, active_call_id
from dspex.errors import ConfigError, InputError, ReplyError
from dspex.testing import ScriptedLM

ANSWER = "[[ ## answer ## ]]\nParis"


class Heard:
    """Remembers what it was told, without a word of DSPy's."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.ends: list[BaseException | None] = []
        self.tree: list[tuple[str | None, str]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)

        def hear(call_id: str, **what: Any) -> None:
            if "exception" in what:
                self.ends.append(what["exception"])
            else:
                self.tree.append((active_call_id(), call_id))
            self.told.append((name.removeprefix("on_"), what))

        return hear

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


ALL = [
    "module_start",
    "adapter_format_start",
    "adapter_format_end",
    "lm_start",
    "lm_end",
    "adapter_parse_start",
    "adapter_parse_end",
    "module_end",
]


def test_each_part_s_own_callbacks_hear_of_that_part_alone() -> None:
    of_lm, of_adapter, of_module = Heard(), Heard(), Heard()
    said = Said()
    said.reply = ANSWER
    with said.server:
        lm = dspex.LM("openai/local", api_base=said.server.api_base, api_key="k", callbacks=[of_lm])
        adapter = dspex.ChatAdapter(callbacks=[of_adapter])
        with dspex.Runtime(lm.with_settings(seed=1), pools=0, adapter=adapter, parsing="dspy") as runtime:
            qa = dspex.Predict("question -> answer", callbacks=[of_module])
            assert qa(question="Where?").answer == "Paris"
        assert runtime.callbacks == ()
    assert of_lm.names == ["lm_start", "lm_end"]
    assert of_adapter.names == ALL[1:3] + ALL[5:7]
    assert of_module.names == ["module_start", "module_end"]
    asked = of_lm.told[0][1]
    assert asked["instance"].model == "openai/local"
    assert asked["inputs"]["kwargs"] == {}
    assert of_lm.told[1][1]["outputs"] == [ANSWER]


def test_a_model_with_callbacks_is_another_and_no_pickle_has_any() -> None:
    heard = Heard()
    lm = dspex.LM("openai/x", callbacks=[heard])
    assert list(lm.callbacks) == [heard]
    assert lm != dspex.LM("openai/x")
    assert lm == dspex.LM("openai/x", callbacks=[heard])
    for made in (lm, dspex.ChatAdapter(callbacks=[heard]), dspex.Predict("q -> a", callbacks=[heard])):
        assert pickle.loads(pickle.dumps(made)).callbacks == ()


def test_a_module_of_another_runtime_is_heard_there_and_a_runtime_without_callbacks_is_quiet() -> None:
    here, there = Heard(), Heard()
    with dspex.Runtime(ScriptedLM(ANSWER), callbacks=[there]) as other, dspex.Runtime(ScriptedLM(ANSWER)):
        dspex.Predict("question -> answer")(question="?")
        assert there.told == []
        dspex.Predict("question -> answer", runtime=other)(question="?")
        assert there.names == ALL
        with dspex.Runtime(ScriptedLM(ANSWER), callbacks=[here]):
            dspex.Predict("question -> answer")(question="?")
    assert here.names == there.names == ALL


def test_modules_that_are_made_of_others_are_heard_where_these_run() -> None:
    there = Heard()
    reply = "[[ ## reasoning ## ]]\nR\n\n[[ ## rationale ## ]]\nW\n\n" + ANSWER
    with dspex.Runtime(ScriptedLM(reply), callbacks=[there]) as other, dspex.Runtime(ScriptedLM(reply)):
        thought = dspex.ChainOfThought("question -> answer", runtime=other)
        best = dspex.BestOfN(thought, N=1, reward_fn=lambda *_: 1.0, threshold=1.0)
        attempts = [best(question="?")]
        dspex.MultiChainComparison("question -> answer", M=1, runtime=other)(attempts, question="?")
    begun = [type(what["instance"]).__name__ for name, what in there.told if name == "module_start"]
    assert begun == ["BestOfN", "ChainOfThought", "Predict", "MultiChainComparison", "Predict"]


@pytest.mark.parametrize("where", ["module", "adapter_format", "lm", "adapter_parse"])
@pytest.mark.parametrize("when", ["start", "end"])
def test_a_callback_that_raises_is_logged_and_breaks_nothing(
    where: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(BaseCallback):
        pass

    def fails(self: Any, **_: Any) -> None:
        raise LookupError("of the callback")

    setattr(Broken, f"on_{where}_{when}", fails)
    heard = Heard()
    with dspex.Runtime(ScriptedLM(ANSWER), callbacks=[Broken(), heard]):
        assert dspex.Predict("question -> answer")(question="?").answer == "Paris"
    assert heard.names == ALL
    assert [record.message for record in caplog.records] == [
        f"Broken.on_{where}_{when} raised LookupError: of the callback"
    ]
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("dspex.callbacks", logging.WARNING)
    }


def test_what_a_callback_does_to_what_it_is_shown_changes_no_call() -> None:
    class Meddles(BaseCallback):
        def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            inputs["kwargs"].clear()

        def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            inputs["inputs"].clear()
            inputs["demos"].clear()

        def on_adapter_format_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
            outputs[-1]["content"] = "another"

        def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            inputs["messages"][0]["content"] = "another"
            inputs["kwargs"]["seed"] = 2

        def on_lm_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
            outputs.clear()

        def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
            outputs["answer"] = "another"

    lms, answers = [ScriptedLM(ANSWER), ScriptedLM(ANSWER)], []
    for lm, callbacks in zip(lms, ([], [Meddles()]), strict=True):
        with dspex.Runtime(lm, callbacks=callbacks):
            qa = dspex.Predict("question -> answer", seed=1, demos=[{"question": "Q", "answer": "A"}])
            answers.append(qa(question="?"))
    assert answers[0] == answers[1]
    assert lms[0].requests[0].messages == lms[1].requests[0].messages
    assert lms[0].requests[0].settings == lms[1].requests[0].settings == {"seed": 1}


@pytest.mark.parametrize(
    ("callbacks", "says"),
    [
        (Heard(), "put the one callback into a list"),
        ("module", "must be a list"),
        ({"a": 1}, "must be a list"),
        (5, "must be a list"),
        ([Heard], r"make one of it: Heard\(\)"),
        ([object()], "with methods such as on_module_start"),
        ([None], "with methods such as on_module_start"),
    ],
)
def test_what_is_no_callback_is_refused_wherever_it_is_given(callbacks: Any, says: str) -> None:
    ways = (
        lambda: dspex.Predict("q -> a", callbacks=callbacks),
        lambda: dspex.ChainOfThought("q -> a", callbacks=callbacks),
        lambda: dspex.Module(callbacks),
        lambda: setattr(dspex.Predict("q -> a"), "callbacks", callbacks),
        lambda: dspex.remote("dspy.ReAct", "q -> a", tools=[], callbacks=callbacks),
        lambda: dspex.LM("openai/x", callbacks=callbacks),
        lambda: dspex.XMLAdapter(callbacks=callbacks),
        lambda: dspex.Runtime(ScriptedLM(ANSWER), callbacks=callbacks),
    )
    for way in ways:
        with pytest.raises(ConfigError, match=says) as caught:
            way()
        assert caught.value.code == "bad-callbacks"


def test_an_async_callback_is_refused_since_nobody_would_await_it() -> None:
    class Async:
        async def on_lm_end(self, **_: Any) -> None: ...

    with pytest.raises(ConfigError, match="on_lm_end is async") as caught:
        dspex.Predict("q -> a", callbacks=[Async()])
    assert caught.value.code == "bad-callbacks"


def test_the_callbacks_of_a_program_may_be_set_and_copies_share_them() -> None:
    class Program(dspex.Module):
        def __init__(self) -> None:
            self.qa = dspex.Predict("question -> answer", callbacks=[Heard()])

        def forward(self, question: str) -> Any:
            return self.qa(question=question)

    heard = Heard()
    program = Program()
    assert program.callbacks == ()
    program.callbacks = [heard]
    with dspex.Runtime(ScriptedLM(ANSWER)):
        for twin in (program, program.with_options(timeout=9), copy.deepcopy(program), program.reset_copy()):
            heard.told.clear()
            twin(question="?")
            assert heard.names == ["module_start", "module_end"]
            assert heard.told[0][1]["instance"] is twin
            assert list(twin.qa.callbacks) == list(program.qa.callbacks)
            assert twin.qa.callbacks[0] is program.qa.callbacks[0]
    program.callbacks = None
    assert program.callbacks == ()
    assert [path for path, _ in program.named_predictors()] == ["qa"]


class Async(dspex.Module):
    """A program with an `aforward` alone, which blocking callers call too."""

    def __init__(self) -> None:
        self.qa = dspex.Predict("question -> answer")

    async def aforward(self, question: str) -> Any:
        return await self.qa.acall(question=question)


def test_a_call_that_is_made_by_way_of_another_is_told_of_once() -> None:
    heard = Heard()
    with dspex.Runtime(ScriptedLM(ANSWER), callbacks=[heard]):
        Async()(question="?")
    assert heard.names == ["module_start", *ALL, "module_end"]
    assert heard.tree[0][0] is None
    assert heard.tree[1][0] == heard.tree[0][1]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cancelled_call_is_told_of_as_cancelled(streamed: bool) -> None:
    heard = Heard()

    async def main() -> None:
        async with dspex.Runtime(ScriptedLM(ANSWER, delay=30), callbacks=[heard]):
            qa = dspex.Predict("question -> answer")
            if streamed:
                events: Any = qa.astream(question="?")
                calling = asyncio.ensure_future(anext(events))
            else:
                calling = asyncio.ensure_future(qa.acall(question="?"))
            await until(lambda: "lm_start" in heard.names)
            calling.cancel()
            with suppress(asyncio.CancelledError):
                await calling
            if streamed:
                await events.aclose()
        assert active_call_id() is None

    asyncio.run(main())
    assert heard.names == [*ALL[:5], "module_end"]
    assert [type(error) for error in heard.ends] == [
        type(None),
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]


def test_what_fails_is_told_with_the_error_that_the_caller_gets() -> None:
    heard = Heard()
    with dspex.Runtime(ScriptedLM("nothing"), callbacks=[heard]):
        qa = dspex.Predict("question, other -> answer: int")
        with pytest.raises(InputError) as refused:
            qa(question="?")
        with pytest.raises(ReplyError) as unreadable:
            qa(question="?", other="x")
    assert heard.names == ["module_start", "module_end", *ALL]
    assert heard.ends[0] is refused.value
    assert heard.ends[-1] is heard.ends[-2] is unreadable.value


def test_many_calls_at_once_have_trees_of_their_own() -> None:
    heard = Heard()
    with dspex.Runtime(ScriptedLM(ANSWER), callbacks=[heard]):
        Async().batch([{"question": str(n)} for n in range(20)], concurrency=10)
    parents = {call_id: parent for parent, call_id in heard.tree}
    assert len(parents) == 20 * 5
    roots = [call_id for call_id, parent in parents.items() if parent is None]
    assert len(roots) == 20
    for root in roots:
        inner = [call_id for call_id, parent in parents.items() if parent == root]
        assert len(inner) == 1
        assert sum(parent == inner[0] for parent in parents.values()) == 3


def test_of_a_call_in_a_worker_the_module_is_told_of(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = ANSWER
    heard, of_remote = Heard(), Heard()
    qa = dspex.Predict("question -> answer", runtime=runtime, callbacks=[heard])
    assert qa(question="?", route="python").answer == "Paris"
    theirs = dspex.remote("dspy.Predict", "question -> answer", runtime=runtime, callbacks=[of_remote])
    assert asyncio.run(theirs.acall(question="?")).answer == "Paris"
    for told in (heard, of_remote):
        assert told.names == ["module_start", "module_end"]
        assert told.told[0][1]["inputs"]["kwargs"]["question"] == "?"
        assert told.told[1][1]["outputs"].answer == "Paris"


def test_callbacks_need_no_dspy_and_configure_takes_them() -> None:
    code = """
import sys
import dspex
from dspex.testing import ScriptedLM

tree = []
class Tree(dspex.callbacks.BaseCallback):
    def on_module_start(self, call_id, instance, inputs):
        tree.append((dspex.callbacks.active_call_id(), call_id))

runtime = dspex.configure(lm=ScriptedLM(), callbacks=[Tree()])
assert len(runtime.callbacks) == 1
dspex.ChainOfThought("question -> answer")(question="Who?")
assert [parent for parent, _ in tree] == [None, tree[0][1]]
assert dspex.callbacks.active_call_id() is None
assert "dspy" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=30, check=True)


def test_a_call_without_callbacks_loads_nothing_of_theirs() -> None:
    code = """
import sys
import dspex
from dspex import _callbacks
from dspex.testing import ScriptedLM

with dspex.Runtime(ScriptedLM()):
    dspex.ChainOfThought("question -> answer")(question="Who?")
assert not _callbacks.given
assert "dspex.runtime._callback_hooks" not in sys.modules
dspex.Predict("question -> answer", callbacks=[])
assert not _callbacks.given
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=30, check=True)
