"""Native tool calls: the body is that of DSPy's adapters, and the prediction too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, cast

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity.versions import NEWER_THAN_33
from tests.support.both import BothAsk
from tests.support.generated import fewer

import dspex
from dspex.errors import ConfigError, InputError, RouteError

pytestmark = pytest.mark.skipif(
    not NEWER_THAN_33,
    reason="native tool calls are those of DSPy 3.4; 3.3 refuses arguments that 3.4 repairs",
)

THEIRS: dict[str, Any] = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}
OURS: dict[str, Any] = {"chat": dspex.ChatAdapter, "json": dspex.JSONAdapter, "xml": dspex.XMLAdapter}
LAYOUTS = pytest.mark.parametrize("layout", list(OURS))


def _body(raw: bytes) -> str:
    """A body, its keys in their order. LiteLLM, which DSPy 3.3 uses, has an order of its own."""
    return json.dumps(json.loads(raw), sort_keys=not NEWER_THAN_33)


class Served(BothAsk):
    """Every answer is `message`."""

    def __init__(self, model_type: Literal["chat", "responses"] = "chat") -> None:
        super().__init__(lambda _: self.message, model_type)
        self.message: Any = ""

    def asked(self, call: Any) -> tuple[Any, list[str]]:
        fields, bodies = self.bodies(call)
        return "refused" if fields is None else list(fields.items()), [_body(body) for body in bodies]

    def check(
        self, signature: Any, layout: str, inputs: Any, *, demos: Any = (), config: Any = None, **more: Any
    ) -> Any:
        adapter = THEIRS[layout](use_native_function_calling=True, **more)
        if layout != "json":
            adapter.use_json_adapter_fallback = False  # dspex never asks twice
        theirs = dspy.Predict(signature)
        theirs.demos = [dspy.Example(**demo) for demo in demos]
        with dspy.context(lm=self.theirs, adapter=adapter):
            by_dspy, bodies = self.asked(lambda: theirs(config=dict(config or {}), **inputs))
        ours = dspex.Predict(
            signature,
            demos=list(demos),
            runtime=self.runtime,
            adapter=OURS[layout](use_native_function_calling=True, **more),
            parsing="dspy",
        )
        fields, sent = self.asked(lambda: ours(config=dict(config or {}), **inputs))
        assert sent == bodies
        assert repr(fields) == repr(by_dspy)
        return fields


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture(scope="module")
def by_responses() -> Iterator[Served]:
    with Served("responses") as served:
        yield served


def search(query: str, k: int = 3) -> str:
    """Searches."""
    return query * k


def add(a: float, b: float | None = None, *, tags: list[str] = ["x"]) -> float:  # noqa: B006
    """Adds."""
    return a + (b or 0)


TOOLS = [dspy.Tool(search), dspy.Tool(add, name="plus", desc="More.", arg_desc={"a": "the first"})]
WITH_TOOLS: dict[str, Any] = {
    "question": (str, dspy.InputField()),
    "tools": (list[dspy.Tool], dspy.InputField()),
}
CALLS = {"tool_calls": (dspy.ToolCalls, dspy.OutputField())}
THOUGHT = {"thought": (str, dspy.OutputField())}
SIGNATURES: dict[str, Any] = {
    "calls": dspy.Signature({**WITH_TOOLS, **CALLS}, "Do it."),
    "thought": dspy.Signature({**WITH_TOOLS, **THOUGHT, **CALLS}, "Do it."),
    "number": dspy.Signature({**WITH_TOOLS, **CALLS, "n": (int, dspy.OutputField()), **THOUGHT}, "Do it."),
    "optional": dspy.Signature(
        {
            **WITH_TOOLS,
            "n": (int | None, dspy.OutputField()),
            **CALLS,
            "m": (int, dspy.OutputField(default=3)),
        },
        "Do it.",
    ),
    "reasoning": dspy.Signature(
        {**WITH_TOOLS, "next_thought": (dspy.Reasoning, dspy.OutputField()), **CALLS}, "Do it."
    ),
    "history": dspy.Signature(
        {
            "question": (str | None, dspy.InputField()),
            "history": (dspy.History, dspy.InputField()),
            "tools": (list[dspy.Tool], dspy.InputField()),
            **THOUGHT,
            **CALLS,
        },
        "Do it.",
    ),
}

ARGUMENTS = st.one_of(
    st.dictionaries(st.sampled_from(["query", "k", "é"]), st.integers() | st.text(max_size=5)).map(
        json.dumps
    ),
    st.sampled_from(["", "{}", "{'query': 'x'", "[1]", "3", '"a"', "null", '{"a": {"b": [1, null]}} x']),
)


def calls(arguments: str, name: str = "search", id_: str = "c1") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def text_for(layout: str, values: dict[str, str]) -> str:
    if layout == "chat":
        return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items())
    if layout == "xml":
        return "\n".join(f"<{name}>\n{value}\n</{name}>" for name, value in values.items())
    return json.dumps(values)


@st.composite
def messages(draw: st.DrawFn, layout: str) -> Any:
    texts = st.dictionaries(
        st.sampled_from(["thought", "n", "m", "next_thought"]),
        st.sampled_from(["1", "so", "a b"]),
        max_size=4,
    ).map(lambda values: text_for(layout, values))
    message: dict[str, Any] = {"content": draw(st.none() | texts | st.sampled_from(["junk", ""]))}
    listed = draw(st.lists(st.tuples(ARGUMENTS, st.sampled_from(["search", "plus", "nil"])), max_size=2))
    if listed:
        message["tool_calls"] = [calls(args, name, f"c{at}") for at, (args, name) in enumerate(listed)]
    return message


@LAYOUTS
@pytest.mark.parametrize("kind", ["calls", "thought", "number", "optional", "reasoning"])
@fewer(15)
@given(data=st.data())
def test_the_body_and_the_prediction_are_dspy_s(
    served: Served, layout: str, kind: str, data: st.DataObject
) -> None:
    _compare(served, layout, kind, data)


@LAYOUTS
@pytest.mark.parametrize("kind", ["thought", "reasoning"])
@fewer(30)
@given(data=st.data())
def test_they_are_dspy_s_by_responses_too(
    by_responses: Served, layout: str, kind: str, data: st.DataObject
) -> None:
    _compare(by_responses, layout, kind, data)


def _compare(served: Served, layout: str, kind: str, data: st.DataObject) -> None:
    served.message = data.draw(messages(layout))
    tools = data.draw(st.lists(st.sampled_from(TOOLS), min_size=1, max_size=2, unique_by=id))
    more = data.draw(st.sampled_from([{}, {"parallel_tool_calls": True}, {"parallel_tool_calls": False}]))
    config = data.draw(
        st.sampled_from([{}, {"tool_choice": "required"}, {"parallel_tool_calls": True, "temperature": 0.5}])
    )
    demos = data.draw(st.sampled_from([[], [{"question": "Q", "thought": "T", "n": 1}]]))
    inputs = {"question": "What?", "tools": tools}
    served.check(SIGNATURES[kind], layout, inputs, demos=demos, config=config, **more)


def results(calls_: Any, values: list[Any], ids: list[Any] | None = None) -> Any:
    from dspy.adapters.types.tool import ToolCallResults

    made = ToolCallResults.from_tool_calls_and_values(calls_, values)
    for result, name in zip(made.tool_call_results, ids or [], strict=False):
        result.call_id = name
    return calls_.model_copy(update={"tool_call_results": made})


@st.composite
def turns(draw: st.DrawFn) -> dict[str, Any]:
    turn: dict[str, Any] = {}
    if draw(st.booleans()):
        turn["question"] = draw(st.sampled_from(["Q?", None, "a\nb"]))
    if draw(st.booleans()):
        turn["thought"] = draw(st.sampled_from(["T", None, ""]))
    if draw(st.booleans()):
        named = draw(st.sampled_from(["c1", None]))
        made = dspy.ToolCalls.from_dict_list(
            [{"id": named, "name": "search", "args": {"query": "é", "k": [1, {"x": None}]}}]
        )
        value = draw(st.sampled_from(["text", {"a": [1]}, None, 1.5, {1, 2}, dspy.Reasoning(content="r")]))
        way = draw(st.sampled_from(["none", "results", "others"]))
        if way != "none":
            made = results(made, [value], None if way == "results" else ["other"])
        turn["tool_calls"] = made
    return turn


@LAYOUTS
@fewer(30)
@given(data=st.data())
def test_turns_that_called_tools_are_dspy_s_messages(
    served: Served, by_responses: Served, layout: str, data: st.DataObject
) -> None:
    served = data.draw(st.sampled_from([served, by_responses]))
    served.message = {"tool_calls": [calls('{"query": "x"}')]}
    history = dspy.History(messages=data.draw(st.lists(turns(), max_size=4)))
    inputs: dict[str, Any] = {"history": history, "tools": TOOLS, "question": "What?"}
    demos = data.draw(st.sampled_from([[], [{"question": "Q", "thought": "T"}]]))
    served.check(SIGNATURES["history"], layout, inputs, demos=demos)


@LAYOUTS
def test_the_callers_own_tools_go_into_the_request_of_a_signature_without_any(
    served: Served, layout: str
) -> None:
    served.message = text_for(layout, {"answer": "1"})
    config = {"tools": [TOOLS[0].format_as_litellm_function_call()], "tool_choice": "none"}
    assert served.check("question -> answer", layout, {"question": "What?"}, config=config)
    assert served.server.requests[-1].body["tool_choice"] == "none"


def test_the_thoughts_of_a_reasoning_model_are_the_field_of_that_type(served: Served) -> None:
    served.message = {"tool_calls": [calls("{}")], "reasoning_content": "hm"}
    fields = dict(served.check(SIGNATURES["reasoning"], "chat", {"question": "What?", "tools": TOOLS}))
    assert fields["next_thought"].content == "hm"


def predict(served: Served, signature: Any = SIGNATURES["thought"], **more: Any) -> dspex.Predict:
    more.setdefault("adapter", dspex.ChatAdapter(use_native_function_calling=True))
    return dspex.Predict(signature, runtime=served.runtime, **more)


def test_what_cannot_be_asked_natively_is_refused_with_a_reason(served: Served) -> None:
    served.message = {"tool_calls": [calls("{}")]}
    without = dspy.Signature({"question": (str, dspy.InputField()), **CALLS})
    with pytest.raises(ConfigError, match="no input of the signature has tools") as caught:
        predict(served, without)(question="What?")
    assert caught.value.code == "no-tools-field"
    with pytest.raises(InputError, match=r"must be a dspy\.Tool") as refused:
        predict(served, validate="off")(question="What?", tools=["search"])
    assert refused.value.code == "bad-tools"
    with pytest.raises(ConfigError, match="'tools' is not a setting"):
        predict(served, adapter="chat")(question="What?", tools=TOOLS, config={"tools": []})
    for setting in ("use_native_function_calling", "parallel_tool_calls"):
        with pytest.raises(ConfigError, match=setting):
            dspex.ChatAdapter(**cast("Any", {setting: "yes"}))


def test_a_worker_is_not_asked_for_native_calls(served: Served) -> None:
    lm = dspex.LM("openai/local", api_base=served.server.api_base, api_key="k")
    with dspex.Runtime(lm, pools=1) as runtime:
        qa = predict(served, adapter=dspex.ChatAdapter(use_native_function_calling=True))
        with pytest.raises(RouteError, match="native side alone") as caught:
            dspex.Predict(qa.signature, runtime=runtime, adapter=qa.adapter)(
                question="What?", tools=TOOLS, route="python"
            )
    assert caught.value.code == "native-tools"


def test_a_model_that_says_it_has_no_native_calls_is_asked_in_text(served: Served) -> None:
    class Plain(dspex.testing.ScriptedLM):
        supports_function_calling = False

    text = (
        '[[ ## thought ## ]]\nT\n\n[[ ## tool_calls ## ]]\n{"tool_calls": [{"name": "search", "args": {}}]}'
    )
    lm = Plain([text])
    made = predict(served, lm=lm)(question="What?", tools=TOOLS, config={"tool_choice": "required"})
    assert made.tool_calls.tool_calls[0].name == "search"
    assert not {"tools", "tool_choice"} & set(lm.requests[0].settings)


def test_an_adapter_keeps_its_settings_of_tools() -> None:
    made = dspex.JSONAdapter(use_native_function_calling=True, parallel_tool_calls=False)
    adapter = made.with_parsing("dspy")
    assert (adapter.use_native_function_calling, adapter.parallel_tool_calls) == (True, False)
    assert repr(adapter).endswith("use_native_function_calling=True, parallel_tool_calls=False)")
