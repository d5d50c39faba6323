"""`dspex.ReActV2` asks what `dspy.ReActV2` asks, and comes to what it comes to."""

from __future__ import annotations

import asyncio
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity.test_tool_calls import OURS, THEIRS, text_for
from tests.parity.versions import NEWER_THAN_33
from tests.support.both import BothAsk
from tests.support.generated import fewer

import dspex
from dspex.errors import ConfigError, InputError, LMRateLimitError, ReplyError
from dspex.testing import HttpError, ScriptedLM

pytestmark = pytest.mark.skipif(not NEWER_THAN_33, reason="up to 3.3 dspy.ReActV2 ends without an error")

MAX_ITERS = 3


def search(query: str, limit: int = 2) -> list[str]:
    """Searches."""
    return [query] * limit


def fail(why: str) -> str:
    """Fails."""
    raise LookupError(f"failed: {why}")


class Served(BothAsk):
    """Answers by a script; its last entry is for all further questions."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.script: list[Any] = []

    def _answer(self, request: Any) -> Any:
        asked = len(self.server.requests) - 1
        return self.script[min(asked, len(self.script) - 1)]

    def asked(self, call: Any) -> tuple[Any, list[str]]:
        fields, bodies = self.bodies(call)
        return "refused" if fields is None else plain(fields), [plain(json.loads(body)) for body in bodies]


def plain(value: Any) -> str:
    """A value in words, with the frames of tracebacks left out: they are of the files of either side."""
    words = value if isinstance(value, str) else repr(value)
    return re.sub(
        r"Traceback \(most recent call last\):.*?(?=(?:\\+n)(?=[A-Z]\w*(?:Error|\.)))", "FRAMES", words
    )


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


def agents(served: Served, signature: Any, layout: str, native: bool) -> tuple[Any, dspex.ReActV2, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is experimental
        theirs = dspy.ReActV2(signature, [search, fail], max_iters=MAX_ITERS)
    adapter = THEIRS[layout](use_native_function_calling=native)
    adapter.use_json_adapter_fallback = False  # dspex never asks twice
    ours = dspex.ReActV2(
        signature,
        [search, dspy.Tool(fail)],
        max_iters=MAX_ITERS,
        runtime=served.runtime,
        adapter=OURS[layout](use_native_function_calling=native),
        parsing="dspy",
    )
    return theirs, ours, adapter


def check(
    served: Served, signature: Any, layout: str, native: bool, script: list[Any], inputs: Any, awaited: bool
) -> Any:
    served.script = script
    theirs, ours, adapter = agents(served, signature, layout, native)
    with dspy.context(lm=served.theirs, adapter=adapter):
        expected, bodies = served.asked(lambda: theirs(**inputs()))
    call = (lambda: asyncio.run(ours.acall(**inputs()))) if awaited else (lambda: ours(**inputs()))
    made, sent = served.asked(call)
    assert sent == bodies
    assert made == expected
    return made


CALLS = st.one_of(
    st.fixed_dictionaries(
        {"query": st.sampled_from(["x", "é\n"])}, optional={"limit": st.sampled_from([1, "2", None])}
    ).map(lambda args: ("search", args)),
    st.sampled_from(
        [
            ("search", {"limit": 1}),
            ("search", {"query": "x", "other": 1}),
            ("fail", {"why": "so"}),
            ("unknown", {}),
            ("submit", {}),
            ("submit", {"answer": "A"}),
            ("submit", {"answer": "A", "count": 3}),
            ("submit", {"answer": "A", "count": "no"}),
            ("submit", {"answer": "A", "count": 1, "more": 2}),
        ]
    ),
)


@st.composite
def turns(draw: st.DrawFn, layout: str, native: bool) -> Any:
    calls = draw(st.lists(CALLS, max_size=3))
    thought = draw(st.sampled_from(["T", "so\nwhat"]))
    if native:
        message: dict[str, Any] = {"content": draw(st.sampled_from([None, "junk"]))}
        if draw(st.booleans()):
            message["content"] = text_for(layout, {"next_thought": thought})
        message["tool_calls"] = [
            {
                "id": f"c{at}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(args)},
            }
            for at, (name, args) in enumerate(calls)
        ]
        if not calls:
            del message["tool_calls"]
        return message
    listed = {"tool_calls": [{"name": name, "args": args} for name, args in calls]}
    if draw(st.integers(0, 9)) == 0:
        return "junk"
    return text_for(layout, {"next_thought": thought, "tool_calls": json.dumps(listed)})


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("layout", list(OURS))
@fewer(20)
@given(data=st.data())
def test_it_asks_what_dspy_s_asks_and_comes_to_the_same(
    served: Served, layout: str, native: bool, data: st.DataObject
) -> None:
    script = data.draw(st.lists(turns(layout, native), min_size=1, max_size=MAX_ITERS + 1))
    past = data.draw(st.sampled_from([None, [{"question": "Q", "answer": "A"}]]))

    most = data.draw(st.integers(0, MAX_ITERS))

    def inputs() -> dict[str, Any]:
        given_ = {"question": "What?", "max_iters": most}
        return given_ if past is None else {**given_, "history": dspy.History(messages=list(past))}

    awaited = data.draw(st.booleans())
    check(served, "question -> answer, count: int", layout, native, script, inputs, awaited)


def called(name: str, **args: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(args)}
    return {"tool_calls": [{"id": f"c-{name}", "type": "function", "function": function}]}


NATIVE = dspex.ChatAdapter(use_native_function_calling=True)


async def test_async_tools_are_awaited_and_each_call_has_its_own_history() -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    lm = ScriptedLM([called("double", number=4), called("submit", answer="8")] * 2)
    async with dspex.Runtime(lm, adapter=NATIVE):
        agent = dspex.ReActV2("question -> answer", [double])
        first = await agent.acall(question="Twice 4?")
        second = await agent.acall(question="Twice 4?")
    assert (first.answer, first.termination_reason) == ("8", "submit")
    result = first.history.messages[0]["tool_calls"].tool_call_results.tool_call_results[0]
    assert (result.call_id, result.value, result.is_error) == ("c-double", 8, False)
    assert first.history == second.history
    assert first.history is not second.history


def test_the_forced_submit_names_the_tool_and_an_agent_that_does_not_submit_is_an_error() -> None:
    lm = ScriptedLM([called("search", query="x"), called("submit", answer="A")])
    with dspex.Runtime(lm, adapter=NATIVE):
        agent = dspex.ReActV2("question -> answer", [search], max_iters=1)
        assert agent(question="Q").termination_reason == "forced_submit"
    assert lm.requests[1].settings["tool_choice"] == {"type": "function", "function": {"name": "submit"}}
    for last, says in ((called("search", query="x"), "no call of submit"), (called("submit"), "Missing")):
        runtime = dspex.Runtime(ScriptedLM([last, last]), adapter=NATIVE)
        with runtime, pytest.raises(ReplyError, match=says) as caught:
            dspex.ReActV2("question -> answer", [search], max_iters=1)(question="Q")
        assert caught.value.code == "no-submit"


def test_a_prompt_too_long_ends_the_turns_and_another_failure_of_the_model_ends_the_call(
    served: Served,
) -> None:
    served.script = [called("submit", answer="A")]
    agent = dspex.ReActV2("question -> answer", [search], runtime=served.runtime, adapter=NATIVE)
    served.server.requests.clear()
    served.server.faults.push(HttpError(400, code="context_length_exceeded"))
    assert agent(question="Q").termination_reason == "forced_submit"
    served.server.faults.push(HttpError(429))
    with pytest.raises(LMRateLimitError):
        agent(question="Q")


def test_what_cannot_be_an_agent_is_refused() -> None:
    def submit() -> None: ...

    for signature, tools, code in (
        ("history -> answer", [search], "react-name"),
        ("question -> termination_reason", [search], "react-name"),
        ("question -> answer", [submit], "react-name"),
    ):
        with pytest.raises(ConfigError) as caught:
            dspex.ReActV2(signature, tools)
        assert caught.value.code == code
    with pytest.raises(InputError, match="a tool is a function"):
        dspex.ReActV2("question -> answer", ["search"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="max_iters must be a count"):
        dspex.ReActV2("question -> answer", [search], max_iters=-1)
    with dspex.Runtime(ScriptedLM("x")), pytest.raises(InputError, match="question"):
        dspex.ReActV2("question -> answer", [search])(qestion="Q")
    assert (
        repr(dspex.ReActV2("question -> answer", [search])) == "ReActV2('question -> answer', tools=[search])"
    )
