"""Both routes do the same with any program: the same request and prediction, or the same refusal.

Generated: names of fields, among them those that DSPy's methods have for themselves; types that no text names;
values that the wire does not carry; examples; settings of the LM.
"""

# A table reads best with a row on a line.
# ruff: noqa: E501

from __future__ import annotations

import collections
import datetime as dt
import decimal
import json
import logging
import math
import uuid
from typing import Any, Literal, Optional

import dspy
import pytest
from dspy.utils.callback import BaseCallback
from hypothesis import given
from hypothesis import strategies as st
from tests.support.generated import fewer
from tests.support.models import Said
from tests.support.route_types import (
    Loud,
    Mood,
    Movie,
    Numbers,
    Odd,
    Page,
    Percent,
    Person,
    Real,
    Scalar,
    Span,
    Text,
)

import dspex
from dspex.adapters import Adapter
from dspex.errors import ConfigError, DspexError, ReplyError, WireError
from dspex.protocol.requests import CustomValues, ModuleRequest
from dspex.router import Operation
from dspex.runtime._pool_request import prepare
from dspex.signature import InputField, OutputField
from dspex.worker.operations.adapters import make


def search(query: str, most: int = 3) -> str:
    """Look it up."""
    return query * most


NAMES = [
    "args", "cls", "completions", "config", "demos", "fn", "forward", "instance", "kwargs", "lm", "messages",
    "n", "new_signature", "prediction", "question", "self", "timeout", "trace",
]  # fmt: skip
"""Of inputs. (`route` and `timeout` are options of a call unless a field has the name.)"""

ANSWERS = ["answer", "completions", "items", "keys", "lm", "other", "self"]

PERSON, OTHER = Person(name="Ada"), Person(name="Bo", age=4, tags=["x"])
TYPES: list[tuple[Any, list[Any], list[str]]] = [
    # a type, values of it, and what a model writes for it
    (str, ["plain", "", Text("sub"), "é\n«x»"], ["yes", "no\nmore"]),
    (int, [3, 10**30, True], ["4", "four", ""]),
    (float, [0.1, math.inf, 1e-9, Real(2.5)], ["0.5", "90%"]),
    (bool, [True, False], ["True", "no"]),
    (Any, [Odd(), Scalar(3), [Scalar(1)], PERSON, Loud(a=1), bytearray(b"ab"), {"b", "a"}], ["x"]),
    (list[str], [["a", "b"], [], [Text("x")]], ['["a", "b"]', "[]", "a"]),
    (dict[str, Any], [{"a": 1}, collections.OrderedDict(b=2), Loud(a=1), {"k": Odd()}], ['{"a": 1}']),
    (tuple[int, str], [(1, "a")], ['[1, "a"]']),
    (set[str], [{"a", "b", "c"}, {"one"}, set()], ['["a"]']),
    (bytes, [b"ab", b"\xff"], ["ab"]),
    (dt.date, [dt.date(2024, 1, 2)], ["2024-01-02"]),
    (decimal.Decimal, [decimal.Decimal("1.50")], ["1.5"]),
    (uuid.UUID, [uuid.UUID(int=5)], [str(uuid.UUID(int=6))]),
    (Literal["a", "b"], ["a"], ["b", "B", "c"]),
    (Optional[int], [None, 3], ["null", "5"]),  # noqa: UP045 - another spelling than the next
    (int | None, [None, 3], ["null", "5"]),
    (Person, [PERSON, OTHER, Person(name="C", age=3)], ['{"name": "D"}', '{"name": 5}', '{"name": "E", "age": 3}']),
    (list[Person], [[PERSON, OTHER], []], ['[{"name": "D"}]']),
    (Page[Person], [Page[Person](items=[PERSON])], ['{"items": [{"name": "D"}]}']),
    (Page[list[int] | None], [Page[list[int] | None](items=[None, [1]])], ['{"items": [[1], null]}']),
    (Numbers, [Numbers([1, 2])], ["[1, 2]", "{}"]),
    (Percent, [Percent.model_construct(share=0.9)], ['{"share": "90%"}', '{"share": 5}']),
    (Movie, [{"title": "M", "year": 1}], ['{"title": "M", "year": 1}', '{"title": "M"}']),
    (Mood, [Mood.GOOD], ["good", "GOOD", "fine"]),
    (Span, [Span(1), Span(1, 2)], ['{"start": 1}']),
    (dspy.Code["sql"], [dspy.Code["sql"](code="select 1")], ["```sql\nselect 2\n```"]),
    (dspy.Code["c++"], [dspy.Code["c++"](code="int x;")], ["int y;"]),
    (dspy.Code, [dspy.Code(code="x = 1")], ["x = 2"]),
    (dspy.Image, [dspy.Image(url="https://example.com/a.png")], ['{"url": "https://example.com/b.png"}']),
]  # fmt: skip
INPUT_TYPES: list[tuple[Any, list[Any], list[str]]] = [
    *TYPES,
    (list[dspy.Tool], [[dspy.Tool(search)], []], []),
    (dspy.Tool, [dspy.Tool(search)], []),
    (dspy.History, [dspy.History(messages=[]), dspy.History(messages=[{"question": "q", "answer": Odd()}])], []),
]  # fmt: skip
STRANGE = [Odd(), Scalar(3), Loud(a=1), None, "text", {"b", "a"}, [Odd()], PERSON, "\ud800"]
"""What may stand in an example or, unless it is looked at, in an input."""

CONFIGS: list[dict[str, Any]] = [
    {}, {}, {}, {}, {"temperature": 0.5}, {"temperature": None}, {"temperature": "hot"}, {"seed": 3},
    {"timeout": 5}, {"cache": False}, {"tools": []}, {"tool_choice": "auto"}, {"parallel_tool_calls": True},
    {"top_k": 5}, {"extra_body": {"top_k": 5}}, {"model": "x"}, {"api_key": "x"}, {"n": 0}, {"n": "2"},
    {"n": True}, {"functions": []}, {"messages": []}, {"response_format": Person}, {"seed": math.nan},
    {"response_format": {"type": "json_object"}}, {"thinking": {}}, {"headers": {}}, {"rollout_id": 2},
    {"frequency_penalty": Real(0.5)}, {"logit_bias": {5: 1}}, {"stream": True}, {"base_url": "x"},
]  # fmt: skip


def shown(value: Any) -> Any:
    """All that a caller can see of a value, and of the values in it."""
    kind = type(value).__qualname__
    if isinstance(value, dt.datetime):
        return kind, value.isoformat()  # of a zone the offset crosses
    if isinstance(value, dict):
        return kind, [(shown(key), shown(item)) for key, item in value.items()]
    if isinstance(value, set):
        return kind, sorted(value)
    if isinstance(value, list | tuple):
        return kind, [shown(item) for item in value]
    return kind, repr(value), sorted(getattr(value, "model_fields_set", ()))


def made(said: Said, module: dspex.Predict, route: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
    """All that a caller sees of a call, but its times, and what the server saw."""
    said.server.requests.clear()
    try:
        prediction = module.with_options(route=route)(**inputs)
        outcome: tuple[Any, ...] = (
            [shown(row) for row in prediction.completions],
            prediction.repairs,
            prediction.usage,
        )
    except DspexError as error:
        outcome = (type(error).__name__, error.code, error.message)
    return outcome, [request.body for request in said.server.requests]


def both(said: Said, module: dspex.Predict, inputs: dict[str, Any]) -> Any:
    """The one outcome of both routes."""
    native, python = (made(said, module, route, inputs) for route in ("native", "python"))
    assert native == python, (module.signature, inputs, module.demos, module.config)
    return native


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)


LAYOUTS = {"chat": dspex.ChatAdapter, "json": dspex.JSONAdapter, "xml": dspex.XMLAdapter}


def reply(layout: str, values: dict[str, str]) -> str:
    if layout == "chat":
        return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in values.items())
    if layout == "xml":
        return "\n".join(f"<{name}>{text}</{name}>" for name, text in values.items())
    return "{" + ", ".join(f'"{name}": {written(text)}' for name, text in values.items()) + "}"


def written(text: str) -> str:
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(text)
    return text


@fewer(5, least=60, report_multiple_bugs=False)
@given(data=st.data())
def test_both_routes_do_the_same_with_any_program(
    runtime: dspex.Runtime, said: Said, data: st.DataObject
) -> None:
    draw = data.draw
    fields: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    kinds: dict[str, tuple[Any, list[Any], list[str]]] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3)):
        kinds[name] = annotation, values, _ = draw(st.sampled_from(INPUT_TYPES))
        fields[name] = (annotation, InputField(desc=draw(st.sampled_from(["what", f"${{{name}}}"]))))
        inputs[name] = draw(st.sampled_from(values))
    texts: dict[str, str] = {}
    answers = [name for name in ANSWERS if name not in fields]
    for name in draw(st.lists(st.sampled_from(answers), unique=True, min_size=1, max_size=2)):
        kinds[name] = annotation, _, replies = draw(st.sampled_from(TYPES))
        fields[name] = (annotation, OutputField())
        texts[name] = draw(st.sampled_from(replies))
    instructions = draw(st.sampled_from([None, "Do it.", "Two\n\nparts."]))
    validate: Any = draw(st.sampled_from(["off", "warn", "strict"]))
    if validate == "off" and draw(st.booleans()):
        inputs[draw(st.sampled_from(list(inputs)))] = draw(st.sampled_from(STRANGE))
    demos = []
    for _ in range(draw(st.integers(0, 2))):
        demo = {
            name: draw(st.sampled_from([*kinds[name][1], *STRANGE])) for name in fields if draw(st.booleans())
        }
        demos.append({**demo, **draw(st.sampled_from([{}, {"augmented": True, "other_key": Odd()}]))})
    layout = draw(st.sampled_from(list(LAYOUTS)))
    markers: Any = draw(st.sampled_from(["dspy", "warn", "escape", "reject"]))
    parsing: Any = draw(st.sampled_from(["tolerant", "dspy"]))
    said.reply = reply(layout, texts) if draw(st.integers(0, 9)) else draw(st.sampled_from(["", "what?"]))
    module = dspex.Predict(
        dspex.Signature(fields, instructions),
        runtime=runtime,
        adapter=LAYOUTS[layout](markers=markers, parsing=parsing),
        validate=validate,
        demos=demos,
    )
    both(said, module.with_options(config=draw(st.sampled_from(CONFIGS))), inputs)


class Silent(dspex.Signature):
    """"""  # noqa: D419 - it is what is tested

    q: str = InputField()
    a: str = OutputField()


class Filled(dspex.Signature):
    """What stands in."""

    q: str = InputField()
    p: Person = InputField(default=PERSON)
    a: str = OutputField()
    found: Person = OutputField(default=OTHER)


TAKEN = ["config", "demos", "lm", "new_signature", "prediction", "self", "instance", "fn", "completions"]


@pytest.mark.parametrize("name", TAKEN)
def test_an_input_may_have_a_name_that_dspy_has_for_itself(
    runtime: dspex.Runtime, said: Said, name: str
) -> None:
    said.reply = "[[ ## a ## ]]\nyes"
    module = dspex.Predict(
        f"{name}: str, q -> a", runtime=runtime, demos=[{name: "this", "q": "?", "a": "!"}]
    )
    outcome, (body,) = both(said, module, {name: "the value", "q": "?"})
    assert outcome[0] == [shown({"a": "yes"})]
    assert f"[[ ## {name} ## ]]\nthe value" in body["messages"][-1]["content"]
    assert f"[[ ## {name} ## ]]\nthis" in body["messages"][1]["content"]


def test_an_input_called_prediction_is_an_input_whatever_it_holds(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = "[[ ## a ## ]]\nyes"
    module = dspex.Predict("prediction: dict -> a", runtime=runtime)
    _, (body,) = both(said, module, {"prediction": {"type": "content", "content": "x"}})
    assert '{"type": "content", "content": "x"}' in body["messages"][-1]["content"]
    assert "prediction" not in body


def test_an_empty_docstring_is_no_instructions_on_both_routes(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = "[[ ## a ## ]]\nyes"
    _, (body,) = both(said, dspex.Predict(Silent, runtime=runtime), {"q": "?"})
    assert "Given the fields" not in body["messages"][0]["content"]


def test_defaults_of_inputs_and_outputs_stand_in_on_both_routes(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = "[[ ## a ## ]]\nyes"
    outcome, (body,) = both(said, dspex.Predict(Filled, runtime=runtime), {"q": "?"})
    assert outcome[0] == [shown({"a": "yes", "found": OTHER})]
    assert '"name": "Ada"' in body["messages"][-1]["content"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_signature_without_outputs_gives_what_it_gives_natively(
    runtime: dspex.Runtime, said: Said, layout: Any
) -> None:
    said.reply = "words"
    both(said, dspex.Predict("q ->", runtime=runtime, adapter=layout), {"q": "?"})


def test_fields_that_a_model_left_out_are_unset_on_both_routes(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = '[[ ## a ## ]]\n{"name": "Ada", "age": 3}'
    module = dspex.Predict("q -> a: Person", runtime=runtime)
    for route in ("native", "python"):
        person = module(q="?", route=route).a
        assert person.model_dump(exclude_unset=True) == {"name": "Ada", "age": 3}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"timeout": 5}, "give it to the call, timeout="),
        ({"num_retries": 3}, "leave it out"),
        ({"tools": []}, "use_native_function_calling"),
        ({"tool_choice": "auto"}, "use_native_function_calling"),
        ({"parallel_tool_calls": True}, "use_native_function_calling"),
        ({"top_k": 5}, 'extra_body={"top_k": ...}'),
        ({"api_key": "sk-1"}, "dspex.LM(..., api_key=)"),
        ({"temperature": "hot"}, "a number"),
        ({"n": "2"}, "a count"),
        ({"seed": math.nan}, "JSON"),
        ({"response_format": Person}, "JSON"),
    ],
)
def test_a_setting_that_no_request_has_is_refused_alike_before_anything_is_sent(
    runtime: dspex.Runtime, said: Said, config: dict[str, Any], says: str
) -> None:
    errors = []
    for route in ("native", "python"):
        said.server.requests.clear()
        with pytest.raises(ConfigError) as caught:
            dspex.Predict("q -> a", runtime=runtime)(q="?", route=route, config=config)
        errors.append(str(caught.value))
        assert said.server.requests == []
        assert (caught.value.code, says in str(caught.value)) == ("lm-setting", True)
        assert "sk-1" not in str(caught.value)
    assert errors[0] == errors[1]


def test_num_generations_is_dspys_other_name_for_n(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = "[[ ## a ## ]]\nyes"
    for route in ("native", "python"):
        made = dspex.Predict("q -> a", runtime=runtime)(q="?", route=route, config={"num_generations": 2})
        assert made.completions.a == ["yes", "yes"]


def test_the_first_generation_that_is_wrong_is_the_error(said: Said) -> None:
    signature = dspy.Signature("q -> a: int")
    adapter = make(ModuleRequest(inputs={}, parsing="tolerant"), lambda: None)
    with pytest.raises(ReplyError) as caught:
        adapter._call_postprocess(signature, signature, ["[[ ## a ## ]]\nmany", ""], None, {})
    assert caught.value.code == "reply-field-value"


class Heard(BaseCallback):
    """What a program's callbacks hear of an adapter."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.events.append("format")

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        self.events.append("parsed")


@pytest.mark.parametrize("parsing", ["tolerant", "dspy"])
@pytest.mark.parametrize("name", ["chat", "json", "xml", "baml"])
def test_callbacks_hear_of_a_workers_adapter_as_often_as_of_dspys(name: Any, parsing: Any) -> None:
    signature = dspy.Signature("q -> a")
    reply = {"chat": "[[ ## a ## ]]\nyes", "xml": "<a>\nyes\n</a>"}.get(name, '{"a": "yes"}')
    runs = []
    for way in (None, parsing):
        adapter, heard = make(ModuleRequest(inputs={}, adapter=name, parsing=way), lambda: None), Heard()
        with dspy.context(callbacks=[heard]):
            messages = adapter.format(signature, [], {"q": "?"})
            runs.append((messages, adapter.parse(signature, reply), heard.events))
    assert runs[0] == runs[1]
    assert "format" in runs[0][2]


async def test_values_that_cross_are_laid_out_by_dspy_and_the_others_here() -> None:
    signature = dspex.Signature("person: Person, thing: Any -> a: Page[Person]")
    operation = Operation(signature=signature, inputs={"person": PERSON, "thing": {"k": (1, b"x")}})
    request, _ = prepare(operation, dspex.ChatAdapter(), "3.4")
    assert request.inputs == {"person": {"name": "Ada"}, "thing": {"k": (1, b"x")}}
    assert request.custom == CustomValues(inputs=["person"], demos=[])
    assert request.raw_outputs == ["a"]
    assert request.messages is None
    operation = Operation(signature=signature, inputs={"person": PERSON, "thing": Odd()})
    request, _ = prepare(operation, dspex.ChatAdapter(), "3.4")
    assert request.messages is not None
    assert (request.inputs, request.messages[-1]["role"]) == ({}, "user")
    assert "Odd()" in request.messages[-1]["content"]


@pytest.mark.parametrize(("adapter", "dialect"), [(dspex.ChatAdapter(), None), (Adapter.of("baml"), "3.4")])
def test_a_value_that_cannot_cross_is_refused_where_nobody_here_knows_the_prompt(
    adapter: Any, dialect: str | None
) -> None:
    operation = Operation(signature=dspex.Signature("q: Any -> a"), inputs={}, demos=[{"q": Odd(), "a": "x"}])
    with pytest.raises(WireError, match="the value of `q`, a Odd,") as caught:
        prepare(operation, adapter, dialect)
    assert caught.value.code == "not-encodable"
