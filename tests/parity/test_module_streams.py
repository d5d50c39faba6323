"""The events of a stream come to the prediction of the call, in whatever pieces the reply comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.parity.versions import NEWER_THAN_33
from tests.support.generated import fewer
from tests.support.models import Said

import dspex
from dspex.errors import DspexError
from dspex.events import Correction, FieldEnd, FieldStart, LMDelta, PartialValue, TextDelta
from dspex.lm import LMRequest, LMResponse
from dspex.testing import ModelServer, ScriptedLM

REPLIES: dict[str, Any] = {"chat": cases.chat_replies, "json": cases.json_replies, "xml": cases.xml_replies}


class Cut(ScriptedLM):
    """Streams its reply in the given pieces."""

    pieces: list[str]

    async def complete(self, request: LMRequest) -> LMResponse:
        return await ScriptedLM("".join(self.pieces)).complete(request)

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        for piece in self.pieces:
            yield LMDelta(piece)
        yield LMDelta("", finish_reason="stop")


async def called(module: Any) -> Any:
    try:
        return repr((await module.acall(q="What?")).to_dict())
    except DspexError as error:
        return type(error), error.code


async def streamed(module: Any) -> tuple[Any, dict[str, Any]]:
    """What a stream comes to, and what its events say of each field."""
    values: dict[str, Any] = {}
    try:
        async for event in module.astream(q="What?"):
            if isinstance(event, FieldStart):
                values.setdefault(event.field, "")
            elif isinstance(event, TextDelta):
                values[event.field] = values.get(event.field, "") + event.text
            elif isinstance(event, PartialValue | Correction):
                values[event.field] = event.value
            elif isinstance(event, dspex.Prediction):
                return repr(event.to_dict()), values
            else:
                assert isinstance(event, FieldEnd)
    except DspexError as error:
        return (type(error), error.code), values
    raise AssertionError("there was no prediction")


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize("layout", ["chat", "json", "xml"])
@fewer(10)
@given(data=st.data())
def test_a_stream_comes_to_what_a_call_comes_to(layout: Any, parsing: Any, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(cases.NAMES), unique=True, min_size=1, max_size=3))
    kinds = st.sampled_from(["str", "int", "list[str]", "dict[str, int]", "bool"])
    outputs = ", ".join(f"{name}: {data.draw(kinds)}" for name in names)
    reply = data.draw(REPLIES[layout](names))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(reply)), max_size=8)))
    lm = Cut()
    lm.pieces = [reply[a:b] for a, b in zip([0, *cuts], [*cuts, len(reply)], strict=True) if a < b]

    async def main() -> None:
        async with dspex.Runtime(lm, adapter=layout, parsing=parsing):
            module = dspex.Predict(f"q -> {outputs}")
            expected = await called(module)
            outcome, values = await streamed(module)
            assert outcome == expected
            if isinstance(outcome, str):
                prediction = (await module.acall(q="What?")).to_dict()
                told = {name: values[name] for name in prediction if name in values}
                assert repr(told) == repr({name: prediction[name] for name in told})
                assert set(told) == set(prediction)

    asyncio.run(main())


@pytest.mark.parametrize("route", ["native", "python"])
def test_a_stream_asks_what_a_call_asks(runtime: dspex.Runtime, said: Said, route: str) -> None:
    said.reply = "[[ ## a ## ]]\nyes\n\n[[ ## completed ## ]]"
    module = dspex.Predict("q -> a", runtime=runtime, temperature=0.5).with_options(route=route)
    said.server.requests.clear()
    module(q="What?")
    list(module.stream(q="What?"))
    call, stream = (request.body for request in said.server.requests)
    assert stream.pop("stream") is True
    stream.pop("stream_options", None)
    assert stream == call


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_program_streams_the_texts_that_dspy_s_listeners_hear() -> None:
    def answer(request: Any) -> str:
        name = "draft" if "## draft ## ]]`" in request.messages[-1]["content"] else "answer"
        return (
            f"[[ ## {name} ## ]]\nThis is the {name}, in some more words than one.\n\n[[ ## completed ## ]]"
        )

    class Theirs(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = dspy.Predict("q -> draft")
            self.second = dspy.Predict("draft -> answer")

        def forward(self, q: str) -> Any:
            return self.second(draft=self.first(q=q).draft)

    class Ours(dspex.Module):
        def __init__(self) -> None:
            self.first = dspex.Predict("q -> draft")
            self.second = dspex.Predict("draft -> answer")

        def forward(self, q: str) -> Any:
            return self.second(draft=self.first(q=q).draft)

    heard: dict[str, str] = {}
    told: dict[str, str] = {}
    async with ModelServer(answer) as server:
        lm = dspy.LM("openai/m", api_base=server.api_base, api_key="k", cache=False)
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            program = dspy.streamify(
                Theirs(),
                stream_listeners=[
                    dspy.streaming.StreamListener(signature_field_name=name) for name in ("draft", "answer")
                ],
            )
            async for chunk in program(q="What?"):
                if isinstance(chunk, dspy.streaming.StreamResponse):
                    key = chunk.signature_field_name
                    heard[key] = heard.get(key, "") + chunk.chunk
        async with dspex.Runtime(dspex.LM("openai/m", api_base=server.api_base, api_key="k")):
            async for event in Ours().astream(q="What?"):
                if isinstance(event, TextDelta):
                    told[event.field] = told.get(event.field, "") + event.text
        aclose = getattr(lm, "aclose", None)
        if aclose is not None:
            await aclose()
    if not NEWER_THAN_33:  # it leaves the line break in front of the end marker
        heard = {name: text.removesuffix("\n") for name, text in heard.items()}
    assert told == heard
    assert set(told) == {"draft", "answer"}
