"""`dspex.ChainOfThought` asks what `dspy.ChainOfThought` asks, on both routes."""

from __future__ import annotations

from typing import Any, Literal

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.support.generated import fewer
from tests.support.models import Said, completion

import dspex
from dspex.errors import ConfigError, DspexError

# The old interface for models of one's own is the one that both DSPy 3.3 and 3.4 have.
pytestmark = pytest.mark.filterwarnings("ignore:Implementing custom LMs through BaseLM:DeprecationWarning")

ADAPTERS: dict[str, Any] = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}
REPLIES = {"chat": cases.chat_replies, "json": cases.json_replies, "xml": cases.xml_replies}


class Model(dspy.BaseLM):
    """Says what the server says. DSPy 3.3's own client leaves event loops behind."""

    def __init__(self, said: Said) -> None:
        super().__init__(model="m", cache=False)
        self.said = said
        self.asked: list[Any] = []

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        self.asked.append(messages)
        return completion(self.said.reply)


def asked(said: Said, call: Any) -> tuple[Any, list[Any]]:
    """What a call came to, and the messages it sent."""
    said.server.requests.clear()
    try:
        fields: Any = call()
    except (DspexError, dspy.AdapterParseError, pydantic.ValidationError):  # the last from JSON in 3.3
        fields = None
    return fields, [request.body["messages"] for request in said.server.requests]


def check_same(
    runtime: dspex.Runtime, said: Said, signature: Any, layout: Any, demos: list[Any], **more: Any
) -> None:
    """All three ask the same, and read the same where all of them can read the reply."""
    inputs = {"q": "What?"}
    theirs = dspy.ChainOfThought(signature, **more)
    theirs.predict.demos = [dspy.Example(**demo) for demo in demos]
    lm = Model(said)
    adapter = ADAPTERS[layout]()
    if layout != "json":
        adapter.use_json_adapter_fallback = False  # dspex never asks twice
    with dspy.context(lm=lm, adapter=adapter):
        by_dspy, _ = asked(said, lambda: theirs(**inputs).toDict())
    assert len(lm.asked) == 1
    ours = dspex.ChainOfThought(
        signature, demos=demos, runtime=runtime, adapter=layout, parsing="dspy", **more
    )
    for route in ("native", "python"):
        fields, sent = asked(said, lambda route=route: ours(route=route, **inputs).to_dict())
        assert sent == lm.asked
        assert repr(fields) == repr(by_dspy)


@pytest.mark.parametrize("layout", ["chat", "json", "xml"])
@fewer(25)
@given(data=st.data())
def test_it_asks_what_dspy_s_asks_and_reads_what_dspy_s_reads(
    runtime: dspex.Runtime, said: Said, layout: Any, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(cases.NAMES), unique=True, min_size=1, max_size=3))
    outputs = ", ".join(
        f"{name}: {data.draw(st.sampled_from(['str', 'int', 'list[str]']))}" for name in names
    )
    said.reply = data.draw(REPLIES[layout](["reasoning", *names]))
    demos = data.draw(
        st.lists(
            st.fixed_dictionaries({"q": st.just("Q")}, optional={"reasoning": st.text(max_size=5)}),
            max_size=2,
        )
    )
    check_same(runtime, said, f"q -> {outputs}", layout, demos)


@pytest.mark.parametrize(
    ("signature", "more"),
    [
        ("q -> reasoning", {}),
        ("q -> answer, reasoning: int", {}),
        ("q -> a", {"rationale_field": dspy.OutputField(desc="why")}),
        ("q -> a", {"rationale_field": dspy.OutputField(desc="why"), "rationale_field_type": int}),
        ("q -> a", {"rationale_field_type": list[str]}),
        ("q -> a", {"rationale_field_type": Literal["yes", "no"]}),
        (dspy.Signature("q -> a", "Be brief."), {}),
    ],
)
def test_a_rationale_of_one_s_own_is_asked_for_as_dspy_asks_for_it(
    runtime: dspex.Runtime, said: Said, signature: Any, more: dict[str, Any]
) -> None:
    said.reply = "[[ ## reasoning ## ]]\n1\n\n[[ ## answer ## ]]\n2\n\n[[ ## a ## ]]\n3"
    check_same(runtime, said, signature, "chat", [], **more)


def test_a_slip_in_its_own_arguments_is_refused_by_its_own_name() -> None:
    with pytest.raises(ConfigError, match="ChainOfThought has no setting 'rationale_fields'"):
        dspex.ChainOfThought("q -> a", rationale_fields=None)  # type: ignore[call-arg]
    assert repr(dspex.ChainOfThought("q -> a")) == "ChainOfThought('q -> reasoning: str, a')"
