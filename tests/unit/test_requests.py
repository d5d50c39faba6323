"""Requests to a worker: they arrive as they were sent, and name what both sides can import."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import statistics
from typing import Any

import pytest
from tests.support import programs, work
from tests.support.shapes import Point

import dspex
from dspex.errors import ConfigError
from dspex.pool import (
    CallOptions,
    EchoRequest,
    FunctionRequest,
    ModuleRequest,
    PredictRequest,
    SignatureForm,
    StreamedFields,
    Tool,
)
from dspex.pool._options import CallKeywords
from dspex.protocol.requests import CustomValues, ModuleParts, PredictParts
from dspex.wire._msgpack import MessagePack

FORM = SignatureForm(
    "place: Point -> answer: int | None",
    "",
    {"answer": {"desc": "a number"}},
    {"Point": "tests.support.shapes:Point"},
    {"answer": [True]},
    {"answer": None},
)

EVERYTHING: dict[str, Any] = {
    "inputs": {"place": {"x": 1}},
    "signature": FORM,
    "demos": [{"place": {"x": 1}, "answer": 2}],
    "config": {"n": 2},
    "lm": {"model": "openai/test"},
    "adapter": "json",
    "extraction_lm": {"model": "openai/other"},
    "parsing": "tolerant",
    "validated": True,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}],
    "custom": CustomValues(inputs=["place"], demos=[["place"], []], outputs=["answer"]),
    "raw_outputs": ["answer"],
    "stream": StreamedFields(fields=[], status="a.b:C"),
    "input_streams": ["lines"],
}

TOOLS = [Tool(function="a.b:c"), Tool(host_function="ask", name="ask", args={"q": {"type": "string"}})]

REQUESTS: list[Any] = [
    FunctionRequest("os:getpid"),
    FunctionRequest("os:getpid", [1, None], {"a": {}}, ["lines"]),
    PredictRequest(inputs={}, signature=SignatureForm("q -> a")),
    PredictRequest(**EVERYTHING),
    ModuleRequest(inputs={}),
    ModuleRequest(
        **EVERYTHING, module="a.b:C", args={"n": 1}, imports={"f": "a:b", "g": ["c:d"]}, tools=TOOLS, state={}
    ),
    ModuleRequest(inputs={}, demos=[], tools=[], state="state.json", stream=StreamedFields()),
]


@pytest.mark.parametrize("sent", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_sentarrives_as_it_was_sent(sent: Any) -> None:
    codec = MessagePack()
    there = codec.decode(codec.encode(sent.to_wire()))
    assert type(sent).from_wire(there) == sent
    with pytest.raises(dataclasses.FrozenInstanceError):
        sent.input_streams = []


def test_every_part_that_a_user_may_give_is_a_part_of_its_request() -> None:
    for parts, request in ((PredictParts, PredictRequest), (ModuleParts, ModuleRequest)):
        assert {*parts.__annotations__} <= {field.name for field in dataclasses.fields(request)}
    assert [*CallKeywords.__annotations__] == [field.name for field in dataclasses.fields(CallOptions)]


def test_a_function_or_a_class_is_named_by_where_it_is_imported_from() -> None:
    assert FunctionRequest.of(work.add, 1, b=2) == FunctionRequest("tests.support.work:add", (1,), {"b": 2})
    assert FunctionRequest.of(statistics.fmean).function == "statistics:fmean"
    assert ModuleRequest.of(programs.TwoSteps, {}).module == "tests.support.programs:TwoSteps"


def local() -> None: ...


def make_local() -> Any:
    return lambda: None


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (make_local(), "is local to a function"),
        (functools.partial(work.add, 1), "is a partial without a module and a name of its own"),
        ([].append, "without a module"),
        (asyncio.Event().wait, "is not what asyncio.locks has under that name"),
    ],
)
def test_a_function_that_a_worker_cannot_import_is_refused(function: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        FunctionRequest.of(function)
    assert refused.value.code == "bad-import-path"


def test_a_function_of_the_script_that_was_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "__module__", "__main__")
    with pytest.raises(ConfigError, match="the script that was started"):
        FunctionRequest.of(local)


def test_a_signature_crosses_with_what_its_text_does_not_say() -> None:
    signature = dspex.Signature("place: Point -> answer: int", "Count.", types={"Point": Point})
    form = SignatureForm.of(signature)
    assert form == SignatureForm(signature.text, "Count.", types={"Point": "tests.support.shapes:Point"})
    assert SignatureForm.of(form) is form
    assert form.read().equals(signature)
    assert SignatureForm.of("question -> answer") == SignatureForm("question -> answer")


def test_an_echo_has_no_arguments_that_could_be_input_streams() -> None:
    with pytest.raises(ConfigError) as refused:
        EchoRequest(1).with_input_streams(["lines"])
    assert refused.value.code == "bad-input-stream"
