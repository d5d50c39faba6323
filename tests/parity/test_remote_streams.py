"""A stream out of a worker asks and gives what the call does, and tells what the native stream tells."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.parity.test_remote_modules import NO_LOCAL, ROWS, filled
from tests.parity.versions import NEWER_THAN_33
from tests.support import programs
from tests.support.generated import fewer
from tests.support.models import Said

import dspex
from dspex.errors import DspexError
from dspex.events import Correction, PartialValue, TextDelta
from dspex.streaming import Status

REPLIES: dict[str, Any] = {"chat": cases.chat_replies, "json": cases.json_replies, "xml": cases.xml_replies}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dspy"),
    pytest.mark.filterwarnings("ignore:ProgramOfThought is deprecated"),
    pytest.mark.filterwarnings("ignore:CodeAct is deprecated"),
]


def bodies(said: Said) -> list[dict[str, Any]]:
    """What the model was asked, but for how it is to answer."""
    found = [dict(request.body) for request in said.server.requests]
    said.server.requests.clear()
    for body in found:
        body.pop("stream", None)
        body.pop("stream_options", None)
    return found


@pytest.mark.parametrize("name", ROWS)
def test_a_streamed_call_asks_and_gives_what_the_call_does(
    runtime: dspex.Runtime, said: Said, name: str
) -> None:
    make, _, inputs, words = ROWS[name]
    if NO_LOCAL and name in ("ProgramOfThought", "CodeAct", "RLM"):
        pytest.skip("this DSPy has no interpreter but the sandbox, which has to be downloaded")
    said.answer = filled(**words)
    said.server.requests.clear()
    module = make()
    called = module(**inputs)
    asked = bodies(said)
    *told, prediction = module.stream(**inputs)
    assert bodies(said) == asked
    assert prediction == called
    # What is told of a reply as it comes is what the whole of it says.
    assert not [event for event in told if isinstance(event, Correction)]
    assert {event.field for event in told if not isinstance(event, Status)}


WORDS = st.lists(st.text("abcXYZ.,;:!?0123'\"-", min_size=1, max_size=6), min_size=1, max_size=12).map(
    " ".join
)


@fewer(10)
@given(draft=WORDS, answer=WORDS)
def test_a_program_tells_the_texts_that_dspy_s_listeners_hear(
    runtime: dspex.Runtime, said: Said, draft: str, answer: str
) -> None:
    said.answer = filled(draft=draft, answer=answer)
    theirs = programs.TwoSteps()
    listeners = [
        dspy.streaming.StreamListener(name, predict=predictor, predict_name=path)
        for path, predictor in theirs.named_predictors()
        for name in predictor.signature.output_fields
    ]

    async def heard() -> dict[tuple[str, str], str]:
        lm = dspy.LM("openai/local", api_base=said.server.api_base, api_key="k", cache=False)
        texts: dict[tuple[str, str], str] = {}
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            async for part in dspy.streamify(theirs, stream_listeners=listeners)(question="?"):
                if isinstance(part, dspy.streaming.StreamResponse):
                    key = part.predict_name, part.signature_field_name
                    texts[key] = texts.get(key, "") + part.chunk
        if hasattr(lm, "aclose"):
            await lm.aclose()
        return texts

    told: dict[tuple[str, str], str] = {}
    for event in dspex.program(programs.TwoSteps).stream(question="?"):
        if isinstance(event, TextDelta):
            told[event.predictor, event.field] = told.get((event.predictor, event.field), "") + event.text
    expected = asyncio.run(heard())
    if not NEWER_THAN_33:  # it leaves the line break in front of the end marker
        expected = {key: text.removesuffix("\n") for key, text in expected.items()}
    assert told == expected == {("draft", "draft"): draft, ("polish", "answer"): answer}


async def outcome_of(module: Any) -> tuple[list[Any], Any]:
    """The events of a stream, and what it comes to."""
    told: list[Any] = []
    try:
        async for event in module.astream(q="What?"):
            told.append(event)
    except DspexError as error:
        return told, (type(error), error.code)
    return told[:-1], repr(told[-1].to_dict())


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize("layout", ["chat", "json", "xml"])
@fewer(10)
@given(data=st.data())
def test_a_stream_out_of_a_worker_tells_what_the_native_one_tells(
    runtime: dspex.Runtime, said: Said, layout: Any, parsing: Any, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(cases.NAMES), unique=True, min_size=1, max_size=3))
    kinds = st.sampled_from(["str", "int", "list[str]", "dict[str, int]", "bool", "str | None"])
    outputs = ", ".join(f"{name}: {data.draw(kinds)}" for name in names)
    said.answer, said.reply = None, data.draw(REPLIES[layout](names))
    module = dspex.Predict(f"q -> {outputs}", adapter=layout, parsing=parsing)
    native = asyncio.run(outcome_of(module.with_options(route="native")))
    there = asyncio.run(outcome_of(module.with_options(route="python")))
    assert repr(there) == repr(native)
    remote = dspex.remote("dspy.Predict", f"q -> {outputs}", adapter=layout, parsing=parsing)
    assert repr(asyncio.run(outcome_of(remote))[0]) == repr(native[0])
    values = [event for event in native[0] if isinstance(event, PartialValue)]
    assert all(event.predictor == "self" for event in values)
