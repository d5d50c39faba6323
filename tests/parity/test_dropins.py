"""`dspex.dspy`'s adapters in a DSPy program: the same messages, results, errors and events."""

from __future__ import annotations

from typing import Any, Literal

import dspy
import pytest
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.parity.test_adapter_types import CASES, TURNS, TYPES, Described
from tests.parity.test_adapters import thorough
from tests.support.models import completion

import dspex
import dspex.dspy as dropins
from dspex.errors import ConfigError
from dspex.testing import ModelServer

NAMES = ["ChatAdapter", "JSONAdapter", "XMLAdapter"]
REPLIES = {
    "ChatAdapter": cases.chat_replies,
    "JSONAdapter": cases.json_replies,
    "XMLAdapter": cases.xml_replies,
}


def pair(name: str, **settings: Any) -> tuple[Any, Any]:
    return getattr(dspy, name)(**settings), getattr(dropins, name)(**settings)


def outcome(call: Any) -> tuple[Any, ...]:
    """What a call gives, or all that can be seen of its error."""
    try:
        return "value", repr(call())
    except AdapterParseError as error:
        seen = (error.adapter_name, error.signature, error.lm_response, repr(error.parsed_result), error.code)
        return "error", type(error), str(error), *seen
    except (AttributeError, TypeError, ValueError) as error:
        return "error", type(error), str(error)


@pytest.mark.parametrize("name", NAMES)
@thorough
@given(data=st.data())
def test_a_dropin_formats_and_parses_as_the_class_it_stands_for(name: str, data: st.DataObject) -> None:
    theirs, ours = pair(name)
    signature, _ = data.draw(cases.signatures())
    names = list(signature.fields)
    inputs = data.draw(cases.records(names))
    demos = data.draw(st.lists(cases.records(names), max_size=2))
    reply = data.draw(REPLIES[name](list(signature.output_fields)))

    assert outcome(lambda: ours.format(signature, demos, inputs)) == outcome(
        lambda: theirs.format(signature, demos, inputs)
    )
    assert outcome(lambda: ours.parse(signature, reply)) == outcome(lambda: theirs.parse(signature, reply))


@pytest.mark.parametrize("text", ["half \ud800 a pair", "\udfff"])
@pytest.mark.parametrize("name", NAMES)
def test_text_that_rust_cannot_hold_goes_dspys_way(name: str, text: str) -> None:
    theirs, ours = pair(name)
    assert ours.format(Described, [], {"q": text}) == theirs.format(Described, [], {"q": text})
    reply = f"[[ ## a ## ]]\n{text}"
    assert outcome(lambda: ours.parse(Described, reply)) == outcome(lambda: theirs.parse(Described, reply))


@pytest.mark.parametrize("native_calls", [True, False])
@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("name", NAMES)
def test_turns_with_native_tool_calls_are_dspys(name: str, turns: str, native_calls: bool) -> None:
    theirs, ours = pair(name, use_native_function_calling=native_calls)
    signature = dspy.Signature("q, history: History -> calls: ToolCalls, a", custom_types=TYPES)
    inputs = {"q": "now", "history": dspy.History(messages=TURNS[turns])}
    assert ours.format(signature, [], inputs) == theirs.format(signature, [], inputs)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_dspys_types_pass_through_a_dropin(name: str, case: str) -> None:
    theirs, ours = pair(name)
    source, inputs = CASES[case]
    signature = dspy.Signature(source, custom_types=TYPES)
    assert ours.format(signature, [inputs], inputs) == theirs.format(signature, [inputs], inputs)


class Scripted(dspy.BaseLM):
    """Answers with the given texts, in order, and remembers what it was sent."""

    def __init__(self, *replies: str) -> None:
        super().__init__(model="scripted")
        self.replies = list(replies)
        self.requests: list[Any] = []

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        self.requests.append((messages, sorted(settings)))
        return completion(self.replies.pop(0))


class Events(BaseCallback):
    """Writes down what happens to adapters."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        self.seen.append(("format", type(instance).__name__, sorted(inputs)))

    def on_adapter_format_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
        self.seen.append(("formatted", outputs, type(exception)))

    def on_adapter_parse_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        self.seen.append(("parse", type(instance).__name__, sorted(inputs)))

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
        self.seen.append(("parsed", outputs, type(exception), str(exception)))


GOOD = {
    "ChatAdapter": "[[ ## a ## ]]\nyes\n[[ ## n ## ]]\n3",
    "JSONAdapter": '{"a": "yes", "n": 3}',
    "XMLAdapter": "<a>yes</a><n>3</n>",
}


# The old interface for models of one's own is the one that both DSPy 3.3 and 3.4 have.
@pytest.mark.filterwarnings("ignore:Implementing custom LMs:DeprecationWarning")
@pytest.mark.parametrize("replies", ["good", "repaired", "bad"])
@pytest.mark.parametrize("name", NAMES)
def test_a_program_runs_as_before(name: str, replies: str) -> None:
    scripts = {
        "good": [GOOD[name]],
        "repaired": ["no fields at all", GOOD["JSONAdapter"]],
        "bad": ["no fields at all", "and no JSON"],
    }
    runs = []
    for adapter in pair(name):
        lm, events = Scripted(*scripts[replies]), Events()
        with dspy.context(lm=lm, adapter=adapter, callbacks=[events]):
            result = outcome(lambda: dspy.Predict("q, k: list[int] -> a, n: int")(q="?", k=[1]))
        # Each run makes its own class for the signature, and errors carry it.
        result = tuple(part for part in result if not isinstance(part, type(dspy.Signature)))
        runs.append((result, lm.requests, events.seen))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_subclass_that_changes_a_hook_is_obeyed(name: str) -> None:
    class Shouting(getattr(dropins, name)):  # type: ignore[misc]
        def format_task_description(self, signature: Any) -> str:
            return str(super().format_task_description(signature)).upper()

    class Expected(getattr(dspy, name)):  # type: ignore[misc]
        def format_task_description(self, signature: Any) -> str:
            return str(super().format_task_description(signature)).upper()

    inputs = {"q": "?"}
    assert Shouting().format(Described, [], inputs) == Expected().format(Described, [], inputs)


def test_a_signature_changed_in_place_is_seen() -> None:
    theirs, ours = pair("ChatAdapter")
    signature = dspy.Signature("q -> a")
    assert ours.format(signature, [], {"q": "?"}) == theirs.format(signature, [], {"q": "?"})
    signature.instructions = "Answer in Latin."
    signature.fields["a"].json_schema_extra["desc"] = "short"
    messages = ours.format(signature, [], {"q": "?"})
    assert "Answer in Latin." in messages[0]["content"]
    assert "short" in messages[0]["content"]
    assert messages == theirs.format(signature, [], {"q": "?"})


def test_dropins_keep_the_names_that_streaming_looks_up() -> None:
    for name in NAMES:
        assert getattr(dropins, name).__name__ == name
        assert issubclass(getattr(dropins, name), getattr(dspy, name))


@pytest.mark.parametrize("name", NAMES)
async def test_a_program_streams_as_before(name: str) -> None:
    reply = {
        "ChatAdapter": "[[ ## answer ## ]]\nParis is it\n\n[[ ## completed ## ]]",
        "JSONAdapter": '{"answer": "Paris is it"}',
        "XMLAdapter": "<answer>\nParis is it\n</answer>",
    }[name]
    told = []
    with ModelServer(lambda _: reply) as server:
        for adapter in pair(name):
            lm = dspy.LM("openai/scripted", api_base=server.api_base, api_key="k", cache=False, num_retries=0)
            listener = dspy.streaming.StreamListener(signature_field_name="answer")
            program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener])
            with dspy.context(lm=lm, adapter=adapter):
                told.append(
                    [
                        part.toDict()
                        if isinstance(part, dspy.Prediction)
                        else (part.chunk, part.is_last_chunk)
                        async for part in program(question="Where?")
                    ]
                )
    assert told[0] == told[1]
    assert told[0][-1] == {"answer": "Paris is it"}
    assert len(told[0]) > 1, "it came in pieces"


@pytest.mark.filterwarnings("ignore:Implementing custom LMs:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_dropin_may_read_with_tolerance_before_dspy_asks_again(name: str) -> None:
    near = {
        "ChatAdapter": "**[[ ## a ## ]]** YES\n",
        "JSONAdapter": '{"a": "YES"}',
        "XMLAdapter": "<a>YES</a>",
    }[name]
    told: list[Any] = []
    adapter = getattr(dropins, name)(parsing="tolerant", on_repair=told.extend)
    lm = Scripted(near)
    with dspy.context(lm=lm, adapter=adapter):
        assert dspy.Predict("q -> a: Literal['yes', 'no']")(q="?").a == "yes"
    assert len(lm.requests) == 1
    assert ("a", "case") in [(repair.field, repair.code) for repair in told]


def test_a_dropin_refuses_a_way_of_reading_that_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="'dspy' or 'tolerant'"):
        dropins.ChatAdapter(parsing="loose")  # type: ignore[arg-type]


COSTLY = {
    "ChatAdapter": "[[ ## l ## ]]\n<![CDATA[" + '{"answer": ' * 1_800,
    "JSONAdapter": '{"l": ' + '["' + '"a' * 9_000,
    "XMLAdapter": "<l>[" + '"x[' * 6_000 + "</l>",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("half", ["", "\ud800"])
def test_a_reply_that_dspy_would_take_seconds_for_is_refused_in_its_words(
    name: str, half: str, monkeypatch: Any
) -> None:
    adapter = getattr(dropins, name)()
    signature = dspy.Signature("q -> l: list[str], a")
    monkeypatch.setattr("json_repair.loads", lambda *_, **__: pytest.fail("DSPy reads it"))
    for reply in (COSTLY[name] + half, COSTLY[name] * 2):
        if name == "XMLAdapter":
            reply = reply.removesuffix(half)
        with pytest.raises(AdapterParseError, match=r"too many steps|too long") as raised:
            adapter.parse(signature, reply)
        assert raised.value.lm_response == reply
        assert raised.value.adapter_name == name


def test_what_dspy_refuses_at_once_is_refused_by_dspy() -> None:
    with pytest.raises(AdapterParseError, match="Failed to parse field l with value"):
        dropins.ChatAdapter().parse(dspy.Signature("q -> l: list[int]"), "[[ ## l ## ]]\n['a', b")


def test_a_search_for_an_object_that_would_take_seconds_is_not_begun() -> None:
    """DSPy's pattern begins anew at each brace left open."""
    with pytest.raises(AdapterParseError, match=r"too long|too many"):
        dropins.JSONAdapter().parse(dspy.Signature("q -> a"), "[1] " + "{a" * 5_000)


@pytest.mark.parametrize("text", ["-" * 5_976, "- " * 50_000])
@pytest.mark.parametrize("kind", ["float", "int", "bool"])
@pytest.mark.parametrize("name", NAMES)
def test_what_pythons_parser_cannot_hold_is_a_refusal(name: str, kind: str, text: str) -> None:
    reply = {
        "ChatAdapter": f"[[ ## a ## ]]\n{text}",
        "JSONAdapter": f'{{"a": "{text}"}}',
        "XMLAdapter": f"<a>{text}</a>",
    }[name]
    with pytest.raises(AdapterParseError):
        getattr(dropins, name)().parse(dspy.Signature(f"q -> a: {kind}"), reply)


@pytest.mark.filterwarnings("ignore:Implementing custom LMs:DeprecationWarning")
@pytest.mark.parametrize("name", ["ChatAdapter", "XMLAdapter"])
def test_what_is_asked_again_in_json_is_read_by_the_core_too(name: str) -> None:
    lm = Scripted("no fields at all", COSTLY["JSONAdapter"])
    with (
        dspy.context(lm=lm, adapter=getattr(dropins, name)()),
        pytest.raises(AdapterParseError, match="too many steps"),
    ):
        dspy.Predict("q -> l: list[str]")(q="?")
    assert len(lm.requests) == 2


# --- signatures that are changed in place -----------------------------------------------------------------

OWN_WORDS = ["at first"]


class Wordy(dspy.Type):
    text: str

    @classmethod
    def description(cls) -> str:
        return OWN_WORDS[0]

    def format(self) -> str:
        return self.text


def _set(signature: Any, name: str, **changes: Any) -> None:
    for attribute, value in changes.items():
        setattr(signature.model_fields[name], attribute, value)


CHANGES: dict[str, tuple[str, Any]] = {
    "a default": ("q -> a, n: int", lambda s: _set(s, "n", default=4)),
    "another default": ("q -> a, n: int = 3", lambda s: _set(s, "n", default=5)),
    "a factory": ("q -> a, n: list[int]", lambda s: _set(s, "n", default_factory=lambda: [7])),
    "a list that is a default": ("q -> a, n: list[int]", lambda s: s.model_fields["n"].default.append(2)),
    "choices": (
        "q -> a, n: Literal['x', 'y']",
        lambda s: _set(s, "n", annotation=Literal["y", "x"], default="y"),
    ),
    "members": ("q -> a, n: int | str", lambda s: _set(s, "n", annotation=str | int, default=1)),
    "words of a type": ("q, w: Wordy -> a", lambda _: OWN_WORDS.__setitem__(0, "at last")),
    "words of an item": ("q, w: list[Wordy] -> a", lambda _: OWN_WORDS.__setitem__(0, "at last")),
    "words beside a type": ("q -> a", lambda s: s.model_fields["a"].metadata.append(Wordy)),
    "a description": ("q -> a", lambda s: s.model_fields["a"].json_schema_extra.update(desc="short")),
    "constraints": ("q -> a", lambda s: s.model_fields["a"].json_schema_extra.update(constraints="short")),
    "the order": ("q, k -> a", lambda s: s.model_fields.update(q=s.model_fields.pop("q"))),
}


# pydantic says so of a model beside a type, which DSPy describes and pydantic asks for its schema.
@pytest.mark.filterwarnings("ignore:The `__get_pydantic_core_schema__` method:DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_changed_in_place_is_seen(name: str, change: str) -> None:
    OWN_WORDS[0] = "at first"
    source, apply = CHANGES[change]
    theirs, ours = pair(name)
    signature = dspy.Signature(source, custom_types={"Wordy": Wordy})
    if change == "a list that is a default":
        _set(signature, "n", default=[1])
    reply = REPLY_OF_ONE[name]

    def both() -> list[Any]:
        said = []
        for adapter in (theirs, ours):
            messages = outcome(lambda adapter=adapter: adapter.format(signature, [], {"q": "?"}))
            said.append((messages, outcome(lambda adapter=adapter: adapter.parse(signature, reply))))
        return said

    before = both()
    assert before[0] == before[1]
    apply(signature)
    after = both()
    assert after[0] == after[1]
    # DSPy 3.3 describes no type that stands beside a field's own.
    assert after != before or (change == "words beside a type" and dspy.__version__.startswith("3.3"))


REPLY_OF_ONE = {
    "ChatAdapter": "[[ ## a ## ]]\nyes",
    "JSONAdapter": '{"a": "yes"}',
    "XMLAdapter": "<a>yes</a>",
}


def test_a_plan_is_kept_as_long_as_nothing_changes() -> None:
    adapter = dropins.ChatAdapter()
    signature = dspy.Signature("q, w: list[Wordy] -> a: Literal['x'], n: int", custom_types={"Wordy": Wordy})
    assert adapter._plan(signature) is adapter._plan(signature) is not None


def test_a_plan_of_our_own_sees_what_a_type_says_today() -> None:
    OWN_WORDS[0] = "at first"
    signature = dspex.Signature.of(dspy.Signature("q, w: Wordy -> a", custom_types={"Wordy": Wordy}))
    adapter = dspex.ChatAdapter()
    assert "at first" in adapter.format(signature, [], {"q": "?"})[0]["content"]
    OWN_WORDS[0] = "at last"
    assert "at last" in adapter.format(signature, [], {"q": "?"})[0]["content"]


# --- values that are rare ---------------------------------------------------------------------------------

TWINS: list[dict[Any, Any]] = [
    {1: "a", "1": "b"},
    {"1": "b", 1: "a"},
    {True: 1, "true": 2, "True": 3},
    {None: 1, "None": 2, "null": 3},
    {1.5: 1, "1.5": 2},
    {"a": {1: 2, "1": 3}, "b": [{2: 1, "2": 0}]},
    {1: {"x": 1}, "1": {"y": 2}, 2: [], "k": [{3: 4}]},
]


@pytest.mark.parametrize("value", TWINS, ids=repr)
@pytest.mark.parametrize("source", ["q: dict -> a: dict", "q -> a", "q: list -> a: list[Any]"])
@pytest.mark.parametrize("name", NAMES)
def test_of_two_keys_that_are_one_text_the_last_is_written(name: str, source: str, value: Any) -> None:
    theirs, ours = pair(name)
    signature, values = dspy.Signature(source), {"q": value, "a": value}
    expected = theirs.format(signature, [values], values)
    assert ours.format(signature, [values], values) == expected
    # With tools in a history our own adapters do otherwise; here there are none.
    assert (
        getattr(dspex, name)(parsing="dspy", markers="dspy").format(signature, [values], values) == expected
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_list_of_demos_is_no_demos_for_nobody(name: str) -> None:
    theirs, ours = pair(name)
    signature = dspy.Signature("q -> a")
    assert outcome(lambda: ours.format(signature, None, {"q": "?"})) == outcome(
        lambda: theirs.format(signature, None, {"q": "?"})
    )


class Touchy:
    def __repr__(self) -> str:
        return "touchy"

    @property
    def tool_calls(self) -> Any:
        raise RuntimeError("hands off")


@pytest.mark.parametrize("name", NAMES)
def test_a_turn_with_a_value_that_raises_when_it_is_looked_into_is_written(name: str) -> None:
    theirs, ours = pair(name, use_native_function_calling=False)
    signature = dspy.Signature("q, history: History -> a", custom_types=TYPES)
    inputs = {"q": "?", "history": dspy.History(messages=[{"q": Touchy(), "a": "x"}])}
    assert ours.format(signature, [], inputs) == theirs.format(signature, [], inputs)
