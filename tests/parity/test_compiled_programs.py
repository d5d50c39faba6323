"""A program that was exported and loaded makes the calls, and gives the results, of the program itself.

Programs are generated as data: parts in lists and dicts, and calls of them that are wired at random. Each is
built for DSPy and for dspex, made native of DSPy's (`from_dspy`), and exported and loaded; all of these are
run with one scripted model.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Optional
from uuid import UUID

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.both import Call, Replies, in_dspex, in_dspy
from tests.support.generated import fewer
from tests.support.route_types import Mood, Movie, Person, Span

import dspex
from dspex.errors import DspexError, ReplyError

pytestmark = pytest.mark.filterwarnings("ignore:Implementing custom LMs through BaseLM:DeprecationWarning")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


# -- programs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wire:
    """Where a value comes from: an input, a step's answer, a text, or a list of such."""

    kind: str
    at: int = 0
    inside: tuple[Wire, ...] = ()


@dataclass(frozen=True)
class Step:
    """A call: of which part, and what it is given."""

    part: int
    q: Wire
    context: Wire


@dataclass(frozen=True)
class Plan:
    """A program: its parts, its calls, and what it returns."""

    parts: tuple[str, ...]
    steps: tuple[Step, ...]
    output: str
    demos: int
    config: tuple[tuple[str, Any], ...]


@st.composite
def wires(draw: st.DrawFn, before: int, depth: int = 1) -> Wire:
    kinds = ["input", "other", "text", *(["answer"] * 3 if before else []), *(["list"] if depth else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "answer":
        return Wire(kind, draw(st.integers(0, before - 1)))
    if kind == "list":
        return Wire(kind, inside=tuple(draw(st.lists(wires(before, depth - 1), max_size=3))))
    return Wire(kind)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    kinds = ("predict", "think", "inner")
    parts = tuple(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)))
    steps: list[Step] = []
    for before in range(draw(st.integers(1, 4))):
        part = draw(st.integers(0, len(parts) - 1))
        steps.append(Step(part, draw(wires(before, 0)), draw(wires(before))))
    config = draw(st.sampled_from([(), (("temperature", 0.5),)]))
    output = draw(st.sampled_from(["last", "made", "first"]))
    return Plan(parts, tuple(steps), output, draw(st.integers(0, 2)), config)


def build(lib: Any, plan: Plan) -> Any:
    """The program for a library."""

    class Inner(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by_name = {"it": leaf("predict")}

        def forward(self, q: Any, context: Any = ()) -> Any:
            return self.by_name["it"](q=q, context=context)

    def leaf(kind: str) -> Any:
        if kind == "inner":
            return Inner()
        config = dict(plan.config)
        made = {"predict": lib.Predict, "think": lib.ChainOfThought}[kind]("q, context -> a", **config)
        (predictor,) = made.predictors()
        predictor.demos = [dspy.Example(q=f"demo {n}", context="c", a="x") for n in range(plan.demos)]
        return made

    class Program(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = [leaf(kind) for kind in plan.parts]
            self.plan = plan

        def forward(self, q: Any, other: Any = "else") -> Any:
            answers: list[Any] = []

            def value(wire: Wire) -> Any:
                if wire.kind == "list":
                    return [value(each) for each in wire.inside]
                if wire.kind == "answer":
                    return answers[wire.at].a
                return {"input": q, "other": other, "text": "said"}[wire.kind]

            for step in self.plan.steps:
                answers.append(self.steps[step.part](q=value(step.q), context=value(step.context)))
            if self.plan.output == "made":
                return lib.Prediction(a=answers[-1].a, all=[each.a for each in answers], n=3)
            return answers[-1 if self.plan.output == "last" else 0]

    return Program()


@st.composite
def replies(draw: st.DrawFn) -> Any:
    texts = st.sampled_from(["one", "  two\nlines ", "3", "x {y} ]]"])
    table = {}
    for names in (("a",), ("reasoning", "a")):
        made = [
            "\n\n".join(f"[[ ## {name} ## ]]\n{draw(texts)}" for name in names)
            for _ in range(draw(st.integers(1, 3)))
        ]
        table[names] = made + draw(st.sampled_from([[], [], [], ["nothing of the kind"]]))
    return table


@fewer(5, least=60)
@given(plan=plans(), table=replies(), inputs=st.sampled_from([{}, {"other": "O"}]), awaited=st.booleans())
def test_a_loaded_program_makes_the_calls_and_gives_the_results_of_dspy_s(
    plan: Plan, table: Any, inputs: dict[str, Any], awaited: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("programs")
    theirs, ours = build(dspy, plan), build(dspex, plan)
    moved = dspex.from_dspy(theirs)
    loaded = []
    for name, program in (("ours", ours), ("moved", moved)):
        dspex.export(program, folder / f"{name}.dspex.json", adapter=dspex.ChatAdapter(parsing="dspy"))
        loaded.append(dspex.load(folder / f"{name}.dspex.json"))
    assert [path for path, _ in loaded[0].named_predictors()] == [path for path, _ in ours.named_predictors()]
    dspex.export(loaded[0], folder / "again.dspex.json")
    assert program_in(folder / "again.dspex.json")["parts"] == program_in(folder / "ours.dspex.json")["parts"]

    found = []
    for program, entered in ((theirs, in_dspy), *((each, in_dspex) for each in (ours, moved, *loaded))):
        calls: list[Call] = []
        made: Any = None
        with entered(Replies(table), calls):
            try:
                if awaited and program is not theirs:
                    made = asyncio.run(program.acall(q="What?", **inputs)).toDict()
                else:
                    made = program(q="What?", **inputs).toDict()
            except (dspy.AdapterParseError, DspexError):
                pass
        found.append((repr(made), calls))
    assert all(each == found[0] for each in found)


def program_in(path: Path) -> Any:
    return json.loads(path.read_text())["program"]


# -- types --------------------------------------------------------------------------------------------

TYPES: list[Any] = [
    str, int, float, bool, list[str], dict[str, int], tuple[int, ...], tuple[str, int], set[int], Any, bytes,
    Person, Movie, Span, Mood, list[Person], dict[str, Span], Person | None, int | str, list[int | None],
]  # fmt: skip
TYPES += [Optional[Mood], Literal["a", "b c", 3], dt.date, Decimal, UUID]  # noqa: UP045 - as users write it
REPLIES = [
    "3", "true", "a", "b c", "good", "2020-01-02", "1.5", "null", "[1, 2]", '["x", 1]', '{"k": 1}', "text",
    '{"name": "Ada"}', '{"name": "Ada", "age": "4", "tags": ["x"]}', '{"title": "T", "year": 1}',
    '{"start": 1}',
    '[{"name": "Ada"}]', '{"k": {"start": 1, "end": 2}}', "12345678-1234-5678-1234-567812345678", "{bad",
]  # fmt: skip


@st.composite
def fields(draw: st.DrawFn, library: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 3))):
        kind = library.InputField if draw(st.booleans()) else library.OutputField
        made[f"f{number}"] = draw(st.sampled_from(TYPES)), kind(**draw(settings()))
    made["last"] = draw(st.sampled_from(TYPES)), library.OutputField(**draw(settings()))
    return made


def settings() -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(
        [
            {},
            {},
            {"desc": "What it is."},
            {"ge": 1, "le": 9},
            {"max_length": 3},
            {"default": None},
            {"title": "T"},
        ]
    )


@fewer(2, least=100)
@given(data=st.data())
def test_a_loaded_signature_has_the_prompt_and_reads_the_replies_of_the_one_exported(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("types") / "p.dspex.json"
    layout: Any = data.draw(st.sampled_from(["chat", "json", "xml"]))
    adapter = {"chat": dspex.ChatAdapter, "json": dspex.JSONAdapter, "xml": dspex.XMLAdapter}[layout]()
    try:
        signature = dspex.Signature(
            data.draw(fields(dspex)), data.draw(st.sampled_from(["", "Do it.\n\nWell."]))
        )
        adapter.compile(signature)
    except (DspexError, TypeError):  # a constraint that the type does not take
        return
    demos = [{"f0": 1, "last": "x"}] if data.draw(st.booleans()) else []
    dspex.export(dspex.Predict(signature, demos=demos, adapter=adapter), path)
    loaded: Any = dspex.load(path)
    inputs = {name: data.draw(st.sampled_from([1, "x", ["y"], None])) for name in signature.input_fields}
    assert adapter.format(loaded.signature, loaded.demos, inputs) == adapter.format(signature, demos, inputs)
    for name in signature.fields:
        assert loaded.signature.fields[name].type_name == signature.fields[name].type_name

    values = {name: data.draw(st.sampled_from(REPLIES)) for name in signature.output_fields}
    reply = {
        "chat": "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in values.items()),
        "json": json.dumps(values),
        "xml": "\n".join(f"<{name}>{text}</{name}>" for name, text in values.items()),
    }[layout]
    read = []
    for each in (signature, loaded.signature):
        try:
            read.append(pydantic.TypeAdapter(Any).dump_python(adapter.read(each, reply).fields, mode="json"))
        except ReplyError as error:
            read.append((error.code, error.field))
    assert read[0] == read[1]
