"""Whole DSPy programs with `dspex.dspy`'s adapters send, give and report what they did before.

Native tool calls, reasoning, citations, agents, streams, and an optimizer.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import dspy
import pydantic
import pytest
from dspy.utils.callback import BaseCallback
from tests.parity.test_adapter_types import TYPES
from tests.parity.test_dropins import NAMES, outcome, pair
from tests.support.models import completion

from dspex.testing import ModelServer

# The old interface for models of one's own is the one that both DSPy 3.3 and 3.4 have.
pytestmark = pytest.mark.filterwarnings("ignore:Implementing custom LMs:DeprecationWarning")

Reply = str | dict[str, Any]


class Able(dspy.BaseLM):
    """A model that has all native features, and answers with the given messages, in order."""

    supports_function_calling = True
    supports_reasoning = True
    supports_response_schema = True
    supported_params = frozenset({"response_format", "tools", "tool_choice", "parallel_tool_calls"})

    def __init__(self, replies: list[Reply], model: str = "able") -> None:
        super().__init__(model=model)
        self.replies = list(replies)
        self.requests: list[Any] = []

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        form = settings.get("response_format")
        if isinstance(form, type) and issubclass(form, pydantic.BaseModel):
            settings["response_format"] = form.model_json_schema()  # each run makes its own class
        self.requests.append(json.loads(json.dumps([messages, settings], sort_keys=True)))
        return completion(self.replies.pop(0))

    async def aforward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        return self.forward(prompt, messages, **settings)


class Events(BaseCallback):
    """Writes down everything that DSPy reports, but for what is new in every run."""

    def __init__(self) -> None:
        self.seen: list[Any] = []


def _event(name: str) -> Callable[..., None]:
    def note(self: Events, call_id: str, *args: Any, **facts: Any) -> None:
        instance = facts.get("instance") or (args[0] if name.endswith("start") else None)
        end = facts.get("outputs"), type(facts.get("exception")), str(facts.get("exception"))
        said = repr(end) if name.endswith("end") else sorted(facts.get("inputs", ()))
        self.seen.append((name, type(instance).__name__, said))

    return note


for _of in ("module", "lm", "adapter_format", "adapter_parse", "tool"):
    for _when in ("start", "end"):
        setattr(Events, f"on_{_of}_{_when}", _event(f"{_of}_{_when}"))


def said(name: str, **fields: Any) -> str:
    """A reply in the layout of the adapter of this name."""
    if name == "JSONAdapter":
        return json.dumps(fields)
    if name == "XMLAdapter":

        def inner(value: Any) -> Any:
            return (
                "".join(f"<{key}>{item}</{key}>" for key, item in value.items())
                if isinstance(value, dict)
                else value
            )

        return "\n".join(f"<{key}>{inner(value)}</{key}>" for key, value in fields.items())
    texts = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in fields.items()}
    return "\n\n".join(f"[[ ## {key} ## ]]\n{value}" for key, value in [*texts.items(), ("completed", "")])


def assert_alike(
    name: str, replies: list[Reply], program: Callable[[], Any], model: str = "able", **settings: Any
) -> Any:
    """Run the program with DSPy's adapter and with ours: all that can be seen of the runs is the same."""
    runs = []
    for adapter in pair(name, **settings):
        lm, events = Able(replies, model), Events()
        with dspy.context(lm=lm, adapter=adapter, callbacks=[events]):
            result = outcome(program)
        # Each run makes its own class for the signature, and errors carry it.
        result = tuple(part for part in result if not isinstance(part, type(dspy.Signature)))
        runs.append((result, lm.requests, events.seen, lm.replies))
    theirs, ours = runs
    assert ours[0] == theirs[0]
    assert ours[1:] == theirs[1:]
    assert ours[1] or ours[0][0] == "error", "something was sent"
    assert {"adapter_format_end", "module_start"} & {event[0] for event in ours[2]}
    return ours


def weather(city: str, days: int = 1) -> str:
    """Look up the weather."""
    return f"sunny in {city} for {days}"


def call(arguments: str, name: str = "weather", number: str = "c1") -> dict[str, Any]:
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


CALL = call('{"city": "Rome"}')
TOOL_REPLIES: dict[str, Reply] = {
    "a call": {"tool_calls": [CALL]},
    "two calls": {"tool_calls": [CALL, call('{"city": "Ulm", "days": 2}', number="c2")]},
    "broken arguments": {"tool_calls": [call('{"city": "Rome"')]},
    "a call and text": {"tool_calls": [CALL], "content": "thinking about it"},
    "nothing": {"content": ""},
}


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("reply", [*TOOL_REPLIES, "an answer", "a call as text"])
@pytest.mark.parametrize("name", NAMES)
def test_native_tool_calls_are_made_and_read_as_before(name: str, reply: str, native: bool) -> None:
    texts = {
        "an answer": said(name, a="no need"),
        "a call as text": said(name, a="x", calls={"tool_calls": [{"name": "weather", "args": {}}]}),
    }
    given = TOOL_REPLIES.get(reply) or texts[reply]
    signature = dspy.Signature(
        "q, tools: list[Tool] -> a: Optional[str], calls: ToolCalls", custom_types=TYPES
    )
    tools = [dspy.Tool(weather)]
    # Where it cannot be read DSPy asks again, in JSON; 3.3 even twice.
    ran = assert_alike(
        name,
        [given] * 3,
        lambda: dspy.Predict(signature)(q="Rome?", tools=tools, config={"tool_choice": "auto"}),
        use_native_function_calling=native,
    )
    assert ("tools" in ran[1][0][1]) == native
    if native and reply == "a call":
        assert "Rome" in ran[0][1]


@pytest.mark.parametrize("name", NAMES)
def test_parallel_calls_are_asked_for_as_before(name: str) -> None:
    signature = dspy.Signature("q, tools: list[Tool] -> calls: ToolCalls", custom_types=TYPES)
    ran = assert_alike(
        name,
        [TOOL_REPLIES["two calls"]],
        lambda: dspy.Predict(signature)(q="?", tools=[dspy.Tool(weather)]),
        use_native_function_calling=True,
        parallel_tool_calls=True,
    )
    assert ran[1][0][1]["parallel_tool_calls"] is True


@pytest.mark.parametrize("name", NAMES)
def test_calls_without_tools_are_the_same_error(name: str) -> None:
    signature = dspy.Signature("q -> calls: ToolCalls", custom_types=TYPES)
    ran = assert_alike(name, [], lambda: dspy.Predict(signature)(q="?"), use_native_function_calling=True)
    assert ran[0][0] == "error"


@pytest.mark.parametrize("name", NAMES)
def test_a_conversation_with_calls_and_results_goes_on_as_before(name: str) -> None:
    signature = dspy.Signature(
        "history: History, q, tools: list[Tool] -> calls: ToolCalls, a: Optional[str]", custom_types=TYPES
    )

    def program() -> Any:
        tools, predict = [dspy.Tool(weather)], dspy.Predict(signature)
        turns: list[Any] = []
        for question in ("Rome?", "And Ulm?"):
            made = predict(q=question, tools=tools, history=dspy.History(messages=turns))
            calls = made.calls.model_dump()
            results = [
                {"call_id": "c1", "name": "weather", "value": weather(**c["args"])}
                for c in calls["tool_calls"]
            ]
            turns.append(
                {"q": question, "calls": {**calls, "tool_call_results": {"tool_call_results": results}}}
            )
        return turns

    assert_alike(
        name, [TOOL_REPLIES["a call"], TOOL_REPLIES["two calls"]], program, use_native_function_calling=True
    )


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_an_agent_runs_as_before(name: str, native: bool) -> None:
    step = {"next_thought": "look", "next_tool_name": "weather", "next_tool_args": {"city": "Rome"}}
    stop = {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}}
    replies: list[Reply] = [said(name, **step), said(name, **stop), said(name, reasoning="r", answer="sunny")]
    if name == "XMLAdapter":
        replies[1] = said(name, **{**stop, "next_tool_args": ""})
    ran = assert_alike(
        name,
        replies,
        lambda: dspy.ReAct("question -> answer", tools=[weather])(question="Rome?"),
        use_native_function_calling=native,
    )
    assert "sunny in Rome" in ran[0][1]
    assert ran[3] == [], "every reply was asked for"


@pytest.mark.parametrize("name", NAMES)
def test_reasoning_is_asked_for_and_read_as_before(name: str) -> None:
    signature = dspy.Signature("q -> reasoning: Reasoning, a", custom_types=TYPES)
    native: Reply = {"content": said(name, a="yes"), "reasoning_content": "because"}
    ran = assert_alike(name, [native], lambda: dspy.Predict(signature)(q="?"))
    assert "because" in ran[0][1]
    assert ran[1][0][1]["reasoning_effort"] == "low"
    plain = said(name, reasoning="because", a="yes")
    ran = assert_alike(
        name, [plain], lambda: dspy.Predict(signature)(q="?", config={"reasoning_effort": None})
    )
    assert "because" in ran[0][1]


@pytest.mark.parametrize("model", ["anthropic/claude", "able"])
@pytest.mark.parametrize("name", NAMES)
def test_citations_are_asked_for_and_read_as_before(name: str, model: str) -> None:
    signature = dspy.Signature("docs: list[Document], q -> a, sources: Citations", custom_types=TYPES)
    docs = [TYPES["Document"](data="The sky is blue.", title="T")]
    cited = {"cited_text": "blue", "document_index": 0, "start_char_index": 11, "end_char_index": 15}
    given: Reply = {
        "content": said(name, a="blue", sources=json.dumps([cited])),
        "provider_specific_fields": {"citations": [[{"type": "char_location", **cited}]]},
    }
    ran = assert_alike(name, [given] * 2, lambda: dspy.Predict(signature)(docs=docs, q="?"), model=model)
    assert "blue" in ran[0][1]


@pytest.mark.parametrize("replies", ["good", "repaired", "bad", "a call"])
@pytest.mark.parametrize("name", NAMES)
async def test_the_async_twin_runs_as_before(name: str, replies: str) -> None:
    good = said(name, a="yes", n="3")
    scripts: dict[str, list[Reply]] = {
        "good": [good],
        "repaired": ["no fields", '{"a": "yes", "n": 3}'],
        "bad": ["no fields", "no JSON", "no JSON again"],
        "a call": [TOOL_REPLIES["a call"]],
    }
    source = "q, tools: list[Tool] -> calls: ToolCalls" if replies == "a call" else "q -> a, n: int"
    signature = dspy.Signature(source, custom_types=TYPES)
    runs = []
    for adapter in pair(name, use_native_function_calling=True):
        lm, events = Able(scripts[replies]), Events()
        with dspy.context(lm=lm, adapter=adapter, callbacks=[events]):
            done: Awaitable[Any] = dspy.Predict(signature).acall(q="?", tools=[dspy.Tool(weather)])
            try:
                result = repr(await done)
            except dspy.AdapterParseError as error:
                result = str(error)
        runs.append((result, lm.requests, events.seen))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", NAMES)
async def test_a_program_with_several_listeners_streams_as_before(name: str) -> None:
    reply = said(name, reasoning="I know\nthis one", answer="Paris, [or so] it is")
    told = []
    with ModelServer(lambda _: reply) as server:
        for adapter in pair(name):
            lm = dspy.LM("openai/scripted", api_base=server.api_base, api_key="k", cache=False, num_retries=0)
            listeners = [dspy.streaming.StreamListener(field) for field in ("reasoning", "answer")]
            program = dspy.streamify(dspy.ChainOfThought("question -> answer"), stream_listeners=listeners)
            with dspy.context(lm=lm, adapter=adapter):
                parts = [part async for part in program(question="Where?")]
            told.append(
                [
                    p.toDict() if isinstance(p, dspy.Prediction) else (type(p).__name__, *_facts(p))
                    for p in parts
                ]
            )
    assert told[0] == told[1]
    assert told[0][-1] == {"reasoning": "I know\nthis one", "answer": "Paris, [or so] it is"}


def _facts(part: Any) -> tuple[Any, ...]:
    names = ("signature_field_name", "chunk", "is_last_chunk", "message")
    return tuple(getattr(part, name, None) for name in names)


TRAINING = [
    dspy.Example(question=f"{a} + {b}?", answer=str(a + b)).with_inputs("question")
    for a, b in [(1, 2), (2, 2), (3, 4), (5, 5)]
]


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_makes_the_same_program_as_before(name: str, tmp_path: Any) -> None:
    """BootstrapFewShot: the same calls, and the same demos in the program that it saves."""
    right = [said(name, reasoning=f"I add, {i}", answer=example.answer) for i, example in enumerate(TRAINING)]
    right[1] = said(name, reasoning="I guess", answer="7")  # this one becomes no demo
    saved = []
    for number, adapter in enumerate(pair(name)):
        lm = Able([*right, *right])
        with dspy.context(lm=lm, adapter=adapter):
            optimizer = dspy.BootstrapFewShot(
                metric=lambda example, made, trace=None: example.answer == made.answer,
                max_bootstrapped_demos=3,
                max_labeled_demos=2,
                max_rounds=1,
            )
            program = optimizer.compile(dspy.ChainOfThought("question -> answer"), trainset=TRAINING)
            asked = repr(program(question="4 + 4?").toDict())
        program.save(tmp_path / f"{number}.json")
        saved.append((json.loads((tmp_path / f"{number}.json").read_text()), lm.requests, asked))
    assert saved[0] == saved[1]
    demos = saved[0][0]["predict"]["demos"]
    assert [demo["answer"] for demo in demos if demo.get("augmented")] == ["3", "7", "10"]
