"""A caller's own types on both routes: in inputs, examples and answers, equal and of the same class."""

from __future__ import annotations

import datetime as dt
import enum
import fractions
import pathlib
from typing import Any

import dspy
import pydantic
import pytest
from tests.support.models import Said
from tests.support.shapes import Colour, Deep, Level, Odd, Outer, Point, Shape, Span

import dspex
from dspex.errors import ConfigError, ReplyError
from dspex.protocol.signature_form import SignatureForm
from dspex.signature import InputField, OutputField

ROUTES = ("native", "python")


def both(said: Said, runtime: dspex.Runtime, signature: Any, inputs: dict[str, Any], demos: Any = ()) -> Any:
    """The one prediction of both routes, which sent the same messages."""
    said.server.requests.clear()
    module = dspex.Predict(signature, runtime=runtime, demos=demos)
    native, python = (module.with_options(route=route)(**inputs) for route in ROUTES)
    assert python.route == "pool:general"
    assert repr(native.to_dict()) == repr(python.to_dict())
    assert native == python
    ours, theirs = (request.body for request in said.server.requests)
    assert ours == theirs
    return python


POINT = Point(x=1, Label="one", colour=Colour.TWO, day=dt.date(2024, 1, 2))
VALUES: dict[str, tuple[Any, Any, str]] = {
    "a model": (Point, POINT, '{"x": "2", "Label": "l", "colour": 2, "day": "2024-01-02"}'),
    "models in models": (
        Shape,
        Shape(points=[POINT], by_name={"k": POINT}, where=pathlib.Path("/x")),
        '{"points": [{"x": 1}], "by_name": {"a": {"x": 2}}, "where": "/y"}',
    ),
    "a list of models": (list[Point], [POINT, Point(x=2)], '[{"x": 1}, {"x": 2, "colour": "red"}]'),
    "a mapping of models": (dict[str, Point], {"k": POINT}, '{"a": {"x": 1}}'),
    "an enum": (Colour, Colour.TWO, "red"),
    "an enum of numbers": (Level, Level.HIGH, "2"),
    "an enum by name": (Level, Level.HIGH, "LOW"),
    "an optional": (Point | None, None, "null"),
    "a dataclass": (Span, Span(1, 2, Colour.TWO), '{"start": 3, "end": 4}'),
    "a type inside another": (Outer.Inner, Outer.Inner(n=1), '{"n": 2}'),
    "a tuple": (tuple[Colour, int], (Colour.RED, 1), '["red", 2]'),
    "a union": (Point | Span, Span(1, 2), '{"start": 3, "end": 4}'),
    "code": (dspy.Code, dspy.Code(code="x = 1"), "```python\nx = 2\n```"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_of_the_callers_types_go_both_ways_on_both_routes(
    runtime: dspex.Runtime, said: Said, case: str
) -> None:
    annotation, value, text = VALUES[case]
    signature = dspex.Signature({"q": (annotation, InputField()), "a": (annotation, OutputField(desc="it"))})
    said.reply = f"[[ ## a ## ]]\n{text}"
    demos = [{"q": value, "a": value}, {"q": value, "a": "as text"}]
    made = both(said, runtime, signature, {"q": value}, demos)
    plan = dspex.ChatAdapter().compile(signature)
    assert (type(made.a), made.a) == (type(plan.parse(said.reply)["a"]), plan.parse(said.reply)["a"])


def test_text_of_a_signature_may_name_the_callers_types(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = '[[ ## found ## ]]\n[{"x": 3}]'
    made = both(
        said,
        runtime,
        "place: Optional[Point], c: Colour -> found: list[Point]",
        {"place": POINT, "c": Colour.RED},
    )
    assert made.found == [Point(x=3)]


@pytest.mark.parametrize("plain", [{}, {"q": "as text"}, {"q": 1, "a": [{"k": (1, None)}], "b": "x"}])
def test_examples_of_plain_values_go_along_with_an_input_of_an_own_type(
    runtime: dspex.Runtime, said: Said, plain: dict[str, Any]
) -> None:
    said.reply = "[[ ## a ## ]]\nyes"
    signature = dspex.Signature({"q": (Point, InputField()), "a": (str, OutputField())})
    both(said, runtime, signature, {"q": POINT}, [plain, plain])
    both(said, runtime, signature, {"q": POINT}, [plain, {"q": POINT, "a": "it"}])


class Lenient(dspex.Signature):
    """Say what you can."""

    q: str = InputField()
    a: str = OutputField()
    n: int = OutputField(default=7)
    tags: list[str] = OutputField(default_factory=list, desc="if any")
    colour: Colour = OutputField(default=Colour.TWO)
    point: Point | None = OutputField(default=POINT)


@pytest.mark.parametrize("reply", ["[[ ## a ## ]]\nyes", "[[ ## a ## ]]\nyes\n[[ ## n ## ]]\n1"])
def test_defaults_stand_in_for_missing_outputs_on_both_routes(
    runtime: dspex.Runtime, said: Said, reply: str
) -> None:
    said.reply = reply
    made = both(said, runtime, Lenient, {"q": "?"})
    assert made.to_dict() == {"a": "yes", "n": made.n, "tags": [], "colour": Colour.TWO, "point": POINT}
    assert made.n == (1 if "n ##" in reply else 7)
    made.tags.append("mine")
    assert both(said, runtime, Lenient, {"q": "?"}).tags == []


def test_several_generations_are_all_typed(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = '[[ ## a ## ]]\n{"x": 3}'
    module = dspex.Predict("q -> a: Point", runtime=runtime)
    rows = [module(q="?", route=route, config={"n": 2}).completions for route in ROUTES]
    assert rows[0] == rows[1]
    assert rows[1].a == [Point(x=3)] * 2


def test_a_reply_that_is_no_value_of_the_type_is_the_same_error(runtime: dspex.Runtime, said: Said) -> None:
    said.reply = '[[ ## a ## ]]\n{"x": "many"}'
    module = dspex.Predict("q -> a: Point", runtime=runtime)
    errors = []
    for route in ROUTES:
        with pytest.raises(ReplyError) as caught:
            module(q="?", route=route)
        errors.append((type(caught.value), caught.value.code, caught.value.field))
    assert errors[0] == errors[1]


def local() -> type:
    class Here(enum.Enum):
        A = 1

    return Here


Stray = pydantic.create_model("NotStray", n=(int, ...))
Scripted = type("Scripted", (pydantic.BaseModel,), {"__module__": "__main__", "__qualname__": "Scripted"})


@pytest.mark.parametrize(
    ("cls", "says"),
    [(local(), "local to a function"), (Scripted, "script that was started"), (Stray, "under that name")],
)
def test_a_type_that_a_worker_cannot_import_is_refused_before_one_is_asked(
    runtime: dspex.Runtime, said: Said, cls: type, says: str
) -> None:
    signature = dspex.Signature({"q": (str, InputField()), "a": (list[cls], OutputField())})  # type: ignore[valid-type]
    said.server.requests.clear()
    with pytest.raises(ConfigError, match=says) as caught:
        dspex.Predict(signature, runtime=runtime)(q="?", route="python")
    assert caught.value.code == "type-not-importable"
    assert 'route="native"' in caught.value.hint
    assert said.server.requests == []


def test_two_types_of_one_name_are_refused() -> None:
    class Point(Outer.Inner):
        """Another of that name."""

    Point.__qualname__ = "Outer.Point"
    Outer.Point = Point  # type: ignore[attr-defined]
    Point.__module__ = Outer.__module__
    fields: dict[str, Any] = {
        "q": (Point, InputField()),
        "a": (Shape.model_fields["points"].annotation, OutputField()),
    }
    with pytest.raises(ConfigError) as caught:
        SignatureForm.of(dspex.Signature(fields))
    assert caught.value.code == "type-name"


def test_a_value_that_would_come_out_as_another_is_written_as_it_is(
    runtime: dspex.Runtime, said: Said
) -> None:
    said.reply = "[[ ## a ## ]]\nyes"
    signature = dspex.Signature("q: Point -> a")
    for value in (Deep(x=1, z=2), Odd(fractions.Fraction(1, 2))):
        said.server.requests.clear()
        module = dspex.Predict(signature, runtime=runtime, validate="off")
        for route in ROUTES:
            module(q=value, route=route)
        ours, theirs = (request.body for request in said.server.requests)
        assert ours == theirs
