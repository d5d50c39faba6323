"""A callback of DSPy's hears of a program of dspex's what it hears of the same program in DSPy."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import dspy
import pytest
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback, with_callbacks
from hypothesis import given
from hypothesis import strategies as st
from tests.parity.test_react_v2 import MAX_ITERS, fail, plain, search
from tests.parity.test_tool_calls import OURS, THEIRS, text_for
from tests.parity.versions import NEWER_THAN_33
from tests.support.both import BothAsk, wanted
from tests.support.generated import fewer
from tests.support.models import completion

import dspex
from dspex.callbacks import active_call_id
from dspex.errors import DspexError
from dspex.testing import ChatRequest, ScriptedLM

# The old interface for models of one's own is the one that both DSPy 3.3 and 3.4 have.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Implementing custom LMs through BaseLM:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'prefix' argument in InputField:DeprecationWarning"),  # DSPy's own
]

ADAPTERS: dict[str, Any] = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}
UNREADABLE = (DspexError, dspy.AdapterParseError)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


class Log(list[Any]):
    """What callbacks were told, with ids counted by their first appearance."""

    def __init__(self) -> None:
        self.ids: dict[str | None, int] = {None: 0}
        self.twice: dict[str | None, str | None] = {}


class Recorder(BaseCallback):
    """Writes down what it is told.

    DSPy's JSON and XML adapters tell of `format` twice, one call around the other; of these it takes one.
    """

    def __init__(self, log: Log, name: str) -> None:
        self.log = log
        self.name = name

    def _start(self, what: str, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        log, parent = self.log, ACTIVE_CALL_ID.get()
        parent = log.twice.get(parent, parent)
        if what == "adapter_format" and "args" in inputs:
            log.twice[call_id] = parent
            return
        number = log.ids.setdefault(call_id, len(log.ids))
        by_name = seen(dict(sorted(inputs.items())))
        if what == "lm" and not NEWER_THAN_33:  # whose models have two more arguments, which nobody gives
            assert [by_name.pop(name, None) or None for name in ("items", "request")] == [None, None]
        who = "lm" if what == "lm" else (type(instance).__name__, getattr(instance, "label", None))
        log.append((self.name, f"{what}_start", number, log.ids.get(parent), who, by_name))

    def _end(self, what: str, call_id: str, outputs: Any, exception: BaseException | None) -> None:
        if call_id in self.log.twice:
            return
        why = "unreadable" if isinstance(exception, UNREADABLE) else type(exception).__name__
        self.log.append((self.name, f"{what}_end", self.log.ids.get(call_id), seen(outputs), why))


def _write(what: str) -> None:
    def start(self: Recorder, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._start(what, call_id, instance, inputs)

    def end(self: Recorder, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self._end(what, call_id, outputs, exception)

    setattr(Recorder, f"on_{what}_start", start)
    setattr(Recorder, f"on_{what}_end", end)


for each in ("module", "lm", "adapter_format", "adapter_parse", "tool"):
    _write(each)


def seen(value: Any) -> Any:
    """A value of either library as plain data."""
    if hasattr(value, "output_fields"):
        return (list(value.input_fields), list(value.output_fields), value.instructions)
    if hasattr(value, "toDict"):
        return seen(dict(value.items()))
    if isinstance(value, dict) and value.get("role") == "tool":
        # DSPy shows these messages as its adapter writes them, dspex as they are sent: without the name.
        return {name: item for name, item in value.items() if name != "name"}
    if isinstance(value, dict) and isinstance(value.get("arguments"), str):
        return {**value, "arguments": json.loads(value["arguments"])}  # sent without blanks
    if isinstance(value, dict):
        return {name: seen(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(seen, value))
    return value


class Model(dspy.BaseLM):
    """DSPy's side."""

    def __init__(self, reply: Any) -> None:
        super().__init__(model="m", cache=False, temperature=None, max_tokens=None)
        self.reply = reply

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        return completion(self.reply(messages))

    async def aforward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        return self.forward(prompt, messages, **settings)


# -- programs -----------------------------------------------------------------------------------------

LEAVES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["Predict", "ChainOfThought"]),
        "config": st.sampled_from([{}, {"temperature": 0.5, "seed": 1}]),
        "demos": st.sampled_from([[], [{"q": "Q", "a": "A"}]]),
        "inputs": st.sampled_from([{"q": "x"}, {"q": "bad"}, {"q": "x", "config": {"seed": 2}}]),
        "own": st.booleans(),
    }
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {
                "kind": st.just("Program"),
                "parts": st.lists(inner, min_size=1, max_size=3),
                "own": st.booleans(),
                "fails": st.sampled_from([False, False, False, True]),
                "catches": st.booleans(),
            }
        ),
        st.fixed_dictionaries(
            {"kind": st.just("Compared"), "part": LEAVES, "own": st.booleans()},
        ),
    ),
    max_leaves=5,
)


def program(lib: Any, node: dict[str, Any], told: Log, label: str = "") -> Any:
    """A program of either library, in which each module has its label and may have a callback."""
    own = [Recorder(told, f"own of {label}")] if node["own"] else None
    kind = node["kind"]
    if kind in ("Predict", "ChainOfThought"):
        made = getattr(lib, kind)("q -> a", callbacks=own, **node["config"])
        made.predictors()[0].demos = [dspy.Example(**demo) for demo in node["demos"]]
    elif kind == "Compared":
        made = compared(lib, node, told, label)(own)
    else:
        made = of_parts(lib, node, told, label)(own)
    made.label = label
    return made


def of_parts(lib: Any, node: dict[str, Any], told: Log, label: str) -> Any:
    class Program(lib.Module):
        def __init__(self, callbacks: Any) -> None:
            super().__init__(callbacks=callbacks)
            self.parts = [
                program(lib, part, told, f"{label}.{place}") for place, part in enumerate(node["parts"])
            ]

        def forward(self, question: str, twice: bool = False) -> Any:
            for part, each in zip(self.parts, node["parts"], strict=True):
                try:
                    made = part(*arguments(each)[0], **arguments(each)[1])
                except UNREADABLE:
                    if not node["catches"]:
                        raise
                    made = None
            if node["fails"]:
                raise LookupError(label)
            return made

        async def aforward(self, question: str, twice: bool = False) -> Any:
            for part, each in zip(self.parts, node["parts"], strict=True):
                try:
                    made = await part.acall(*arguments(each)[0], **arguments(each)[1])
                except UNREADABLE:
                    if not node["catches"]:
                        raise
                    made = None
            if node["fails"]:
                raise LookupError(label)
            return made

    return Program


def compared(lib: Any, node: dict[str, Any], told: Log, label: str) -> Any:
    class Compared(lib.Module):
        def __init__(self, callbacks: Any) -> None:
            super().__init__(callbacks=callbacks)
            self.attempt = program(lib, {**node["part"], "kind": "ChainOfThought"}, told, f"{label}.attempt")
            self.compare = lib.MultiChainComparison("q -> a", M=2)
            self.compare.label = f"{label}.compare"

        def forward(self, **inputs: Any) -> Any:
            attempts = [self.attempt(**inputs) for _ in range(2)]
            return self.compare(attempts, q="y")

        async def aforward(self, **inputs: Any) -> Any:
            attempts = [await self.attempt.acall(**inputs) for _ in range(2)]
            return self.compare(attempts, q="y") if lib is dspy else await self.compare.acall(attempts, q="y")

    return Compared


def arguments(node: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if node["kind"] == "Program":
        return ("Who?",), {"twice": True}
    return (), dict(node.get("inputs") or node["part"]["inputs"])


def replying(layout: str) -> Any:
    """Answers with what is asked for; what is asked in the question `bad` it cannot read."""
    texts = {"a": "A", "reasoning": "R", "rationale": "W"}

    def reply(messages: Any) -> str:
        asked = messages[-1]["content"]
        names = [name for name in texts if f"`{name}`" in asked or f"## {name} ##" in asked]
        if layout == "chat":
            names = [*wanted(messages)]
        if layout == "xml":
            names = [name for name in texts if f"<{name}>" in asked.rpartition("Respond with")[2]]
        if "bad" in asked:
            return "nothing"
        if layout == "json":
            return json.dumps({name: texts[name] for name in names})
        if layout == "xml":
            return "\n".join(f"<{name}>{texts[name]}</{name}>" for name in names)
        return "\n\n".join(f"[[ ## {name} ## ]]\n{texts[name]}" for name in names)

    return reply


def heard(lib: Any, node: dict[str, Any], layout: str, way: str) -> list[Any]:
    """What is told of one call of a program."""
    told = Log()
    everywhere = [Recorder(told, "first"), Recorder(told, "second")]
    reply = replying(layout)
    args, inputs = arguments(node)

    def call() -> Any:
        made = program(lib, node, told, "root")
        try:
            if way == "call":
                outcome = made(*args, **inputs)
            elif way == "acall":
                outcome = asyncio.run(made.acall(*args, **inputs))
            else:
                outcome = list(made.stream(*args, **inputs))[-1]
            return seen(outcome)
        except UNREADABLE:
            return "unreadable"
        except LookupError:
            return "failed"

    if lib is dspy:
        adapter = ADAPTERS[layout]()
        adapter.use_json_adapter_fallback = False  # dspex never asks twice
        with dspy.context(lm=Model(reply), adapter=adapter, callbacks=everywhere):
            outcome = call()
    else:

        def answer(request: ChatRequest) -> str:
            said: str = reply(request.messages)
            return said

        runtime = dspex.Runtime(ScriptedLM(answer), adapter=layout, parsing="dspy", callbacks=everywhere)  # type: ignore[arg-type]
        with runtime:
            outcome = call()
    assert (active_call_id(), ACTIVE_CALL_ID.get()) == (None, None)
    return [*told, outcome]


@pytest.mark.parametrize("layout", ["chat", "json", "xml"])
@fewer(30)
@given(node=NODES)
def test_callbacks_hear_of_a_program_what_they_hear_in_dspy(layout: str, node: dict[str, Any]) -> None:
    expected = heard(dspy, node, layout, "call")
    assert heard(dspex, node, layout, "call") == expected
    assert len(expected) > 10


@fewer(30)
@given(node=NODES)
def test_callbacks_hear_of_an_awaited_program_what_they_hear_in_dspy(node: dict[str, Any]) -> None:
    assert heard(dspex, node, "chat", "acall") == heard(dspy, node, "chat", "acall")


@fewer(30)
@given(node=NODES)
def test_callbacks_hear_of_a_streamed_program_what_they_hear_in_dspy(node: dict[str, Any]) -> None:
    assert heard(dspex, node, "chat", "stream")[:-1] == heard(dspy, node, "chat", "call")[:-1]


def both(call: Any, reply: Any = None) -> list[Log]:
    """What is told of a call that is given either library and the log for callbacks of its own."""
    logs = []
    for lib in (dspy, dspex):
        log = Log()
        everywhere = [Recorder(log, "first")]
        if lib is dspy:
            adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
            with dspy.context(
                lm=Model(reply or replying("chat")), adapter=adapter, callbacks=everywhere, num_threads=1
            ):
                call(lib, log)
        else:
            with in_runtime(everywhere):
                call(lib, log)
        logs.append(log)
    return logs


def in_runtime(callbacks: Sequence[Any], **more: Any) -> dspex.Runtime:
    reply = replying("chat")
    lm: Any = ScriptedLM(lambda request: reply(request.messages))
    return dspex.Runtime(lm, parsing="dspy", callbacks=callbacks, **more)


def test_the_rows_of_a_batch_have_the_program_for_their_parent() -> None:
    class Rows(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qa = dspy.ChainOfThought("q -> a")

        def forward(self, count: int) -> Any:
            return self.qa.batch([dspy.Example(q=str(n)).with_inputs("q") for n in range(count)])

    class OurRows(dspex.Module):
        def __init__(self) -> None:
            self.qa = dspex.ChainOfThought("q -> a")

        def forward(self, count: int) -> Any:
            return self.qa.batch([{"q": str(n)} for n in range(count)], concurrency=1)

    theirs, ours = both(lambda lib, _: (Rows if lib is dspy else OurRows)()(2))
    assert len(theirs) > 20
    # The classes of this test have two names.
    assert [str(each).replace("OurRows", "Rows") for each in ours] == [str(each) for each in theirs]


@pytest.mark.parametrize("rewards", [[1.0], [0.0, 0.5], [0.0, 1.0, 1.0]])
def test_the_attempts_of_best_of_n_are_told_as_in_dspy(rewards: list[float]) -> None:
    def call(lib: Any, _: Log) -> None:
        given_rewards = iter(rewards)
        best = lib.BestOfN(
            lib.ChainOfThought("q -> a", seed=1), len(rewards), lambda *_: next(given_rewards), 1.0
        )
        best(q="x")

    theirs, ours = both(call)
    # DSPy sets these on a copy of its model, dspex in the request.
    for each in ours:
        if each[1] == "lm_start":
            assert each[-1]["kwargs"].pop("temperature") == 1.0
            each[-1]["kwargs"].pop("rollout_id")
    assert ours == theirs
    assert len(ours) > 10


@pytest.mark.skipif(not NEWER_THAN_33, reason="up to 3.3 dspy.ReActV2 ends without an error")
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("awaited", [False, True])
def test_the_tools_of_an_agent_are_told_as_in_dspy(native: bool, awaited: bool) -> None:
    turns: list[list[tuple[str, dict[str, Any]]]] = [
        [("search", {"query": "x", "limit": 1}), ("fail", {"why": "so"}), ("search", {"limit": 1})],
        [("submit", {"answer": "A", "count": 2})],
    ]
    script = [said(turn, native) for turn in turns]
    signature = "question -> answer, count: int"
    with BothAsk(lambda _: script[min(len(asks.server.requests) - 1, 1)]) as asks, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is experimental
        logs = []
        for lib in (dspy, dspex):
            asks.server.requests.clear()
            log = Log()
            everywhere: list[Any] = [Recorder(log, "first")]
            if lib is dspy:
                agent = dspy.ReActV2(signature, [search, fail], max_iters=MAX_ITERS)
                adapter = THEIRS["chat"](use_native_function_calling=native, use_json_adapter_fallback=False)
                with dspy.context(lm=asks.theirs, adapter=adapter, callbacks=everywhere):
                    run(agent, awaited)
            else:
                lm = dspex.LM("openai/local", api_base=asks.server.api_base, api_key="k")
                adapter = OURS["chat"](use_native_function_calling=native)
                with dspex.Runtime(lm, pools=0, adapter=adapter, parsing="dspy", callbacks=everywhere):
                    run(dspex.ReActV2(signature, [search, fail], max_iters=MAX_ITERS), awaited)
            logs.append([plain(each) for each in log])
        assert logs[0] == logs[1]
        assert sum("tool_start" in each for each in logs[0]) == 4


@pytest.mark.skipif(not NEWER_THAN_33, reason="up to 3.3 dspy.ReActV2 ends without an error")
def test_a_tool_is_told_of_once_to_a_callback_of_both_libraries() -> None:
    log = Log()
    recorder = Recorder(log, "first")
    lm = ScriptedLM([said([("submit", {"answer": "A"})], native=True)])
    adapter = dspex.ChatAdapter(use_native_function_calling=True)
    with dspex.Runtime(lm, adapter=adapter, callbacks=[recorder]), dspy.context(callbacks=[recorder]):
        assert dspex.ReActV2("question -> answer", [search])(question="Q").answer == "A"
    tools = [each for each in log if each[1] == "tool_start"]
    assert [(each[3], each[4], each[5]) for each in tools] == [
        (1, ("Tool", None), {"kwargs": {"answer": "A"}})
    ]


def said(calls: list[tuple[str, dict[str, Any]]], native: bool) -> Any:
    """What a model says that calls these tools."""
    if not native:
        listed = json.dumps({"tool_calls": [{"name": name, "args": args} for name, args in calls]})
        return text_for("chat", {"next_thought": "T", "tool_calls": listed})
    return {
        "content": text_for("chat", {"next_thought": "T"}) if len(calls) > 1 else None,
        "tool_calls": [
            {"id": f"c{at}", "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}
            for at, (name, args) in enumerate(calls)
        ],
    }


def run(agent: Any, awaited: bool) -> None:
    made = asyncio.run(agent.acall(question="Q")) if awaited else agent(question="Q")
    assert (made.answer, made.count) == ("A", 2)


def test_a_program_of_dspy_s_and_one_of_dspex_s_make_one_tree() -> None:
    class Inner(dspex.Module):
        def __init__(self) -> None:
            self.theirs = dspy.Predict("q -> a")

        def forward(self) -> Any:
            return self.theirs(q="x")

    class Outer(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self) -> Any:
            return self.inner()

    log = Log()
    recorder = Recorder(log, "first")
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    with (
        in_runtime([recorder]),
        dspy.context(lm=Model(replying("chat")), adapter=adapter, callbacks=[recorder]),
    ):
        Outer()()
    assert (active_call_id(), ACTIVE_CALL_ID.get()) == (None, None)
    starts = [(each[4], each[2], each[3]) for each in log if each[1] == "module_start"]
    assert starts == [(("Outer", None), 1, 0), (("Inner", None), 2, 1), (("Predict", None), 3, 2)]


def test_a_method_with_dspy_s_own_decorator_tells_the_callbacks_of_its_module() -> None:
    class Program(dspex.Module):
        @with_callbacks  # type: ignore[untyped-decorator]
        def lookup(self, key: str) -> str:
            return key.upper()

    log = Log()
    program = Program(callbacks=[Recorder(log, "own")])
    with dspy.context(callbacks=[Recorder(log, "first")]):
        assert program.lookup("a") == "A"
    assert [each[:2] for each in log] == [
        ("first", "module_start"),
        ("own", "module_start"),
        ("first", "module_end"),
        ("own", "module_end"),
    ]
    assert log[0][-1] == {"key": "a"}
