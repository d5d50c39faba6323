"""Class signatures and operations, by dspex and by the installed DSPy."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal

import dspy
import pytest
from pydantic import BaseModel, Field

import dspex
from dspex.errors import SignatureError
from dspex.signature import Signature

KITS = [pytest.param(dspy, id="dspy-fields"), pytest.param(dspex, id="dspex-fields")]


class Person(BaseModel):
    name: str


class Color(enum.Enum):
    RED = "red"


def described(kit: Any, base: type) -> Any:
    class Described(base):
        """Answer the question.

          With care,

        and   so on.
        """

        question: str = kit.InputField(desc="what to answer")
        limit: int = kit.InputField(gt=0, le=10, default=5)
        plain = kit.InputField()
        tone: Literal["warm", "cold"] | None = kit.OutputField(description="how it sounds", default=None)
        people: list[Person] = kit.OutputField(min_length=1, max_length=3, default_factory=list)
        color: Color = kit.OutputField(title="Colour", examples=["red"])

    return Described


def silent(kit: Any, base: type) -> Any:
    class Silent(base):
        b: dict[str, list[int]] = kit.OutputField()
        a: Annotated[float, Field(ge=0)] = kit.InputField()

    return Silent


def inherited(kit: Any, base: type) -> Any:
    parent: Any = silent(kit, base)

    class Inherited(parent):
        a: str = kit.OutputField(desc="now an output")
        c: bytes = kit.InputField()

    return Inherited


def inherited_with_text(kit: Any, base: type) -> Any:
    parent: Any = described(kit, base)

    class Inherited(parent):
        """Another text."""

        plain: bool = kit.InputField(desc="not so plain")

    return Inherited


CLASSES = [described, silent, inherited, inherited_with_text]
Make = Callable[[Any, type], Any]


def both(make: Make, kit: Any) -> tuple[Signature, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Signature.of(make(kit, Signature)), make(kit, dspy.Signature)


def same(ours: Any, theirs: Any) -> None:
    ours = Signature.of(ours)
    assert list(ours.fields) == list(theirs.fields)
    assert ours.instructions == theirs.instructions
    assert ours.signature == theirs.signature
    assert ours.dump_state() == theirs.dump_state()
    for name, field in theirs.fields.items():
        mine = ours.fields[name]
        assert mine.annotation == field.annotation
        assert mine.constraints == field.json_schema_extra.get("constraints")
        assert mine.has_default == (not field.is_required())
        assert mine.get_default() == field.get_default(call_default_factory=True) or not mine.has_default
    assert ours == Signature.of(theirs)
    assert ours.to_dspy().equals(theirs)
    assert theirs.equals(ours.to_dspy())
    for name, field in ours.to_dspy().fields.items():
        assert field.metadata == theirs.fields[name].metadata


@pytest.mark.parametrize("kit", KITS)
@pytest.mark.parametrize("make", CLASSES)
def test_a_class_is_read_as_dspy_reads_it(make: Any, kit: Any) -> None:
    same(*both(make, kit))


STATE = {"instructions": " Saved. ", "fields": [{"prefix": "P:", "description": "d"}]}
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "with_instructions": lambda s: s.with_instructions("  Other\n    text.\n"),
    "with_no_instructions": lambda s: s.with_instructions(""),
    "append_instructions": lambda s: s.append_instructions("More.\n"),
    "append_nothing": lambda s: s.append_instructions(""),
    "append": lambda s: s.append("new", dspy.OutputField(desc="new"), int),
    "append_untyped": lambda s: s.append("new", dspy.InputField()),
    "prepend": lambda s: s.prepend("new", dspy.InputField(), list[int]),
    "insert": lambda s: s.insert(1, "new", dspy.OutputField(), str | None),
    "insert_negative": lambda s: s.insert(-2, "new", dspy.OutputField()),
    "insert_known": lambda s: s.insert(0, next(iter(s.output_fields)), dspy.OutputField(), bytes),
    "insert_in_the_other_section": lambda s: s.append(next(iter(s.output_fields)), dspy.InputField(), bytes),
    "delete": lambda s: s.delete(next(iter(s.input_fields))),
    "delete_unknown": lambda s: s.delete("nobody"),
    "with_updated_fields": lambda s: s.with_updated_fields(next(iter(s.fields)), bool, desc="updated"),
    "with_updated_key": lambda s: s.with_updated_fields(next(iter(s.fields)), note=["kept"]),
    "load_state": lambda s: s.load_state(
        {"instructions": " Saved. ", "fields": [{"prefix": "P:", "description": "d"}]}
    ),
    "load_empty_state": lambda s: s.load_state({"instructions": "", "fields": []}),
    "chain": lambda s: (
        s.delete("a").append("z", dspy.InputField()).with_instructions("Z.").append_instructions("Y.")
    ),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("make", CLASSES)
def test_an_operation_makes_what_dspys_makes(make: Any, operation: Any) -> None:
    ours, theirs = both(make, dspy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(OPERATIONS[operation](ours), OPERATIONS[operation](theirs))


@pytest.mark.parametrize("index", [-9, 9])
def test_an_index_out_of_range_is_refused_by_both(index: Any) -> None:
    ours, theirs = both(silent, dspy)
    with pytest.raises(ValueError, match="Invalid index"):
        theirs.insert(index, "x", dspy.InputField())
    with pytest.raises(SignatureError, match="there is no place"):
        ours.insert(index, "x", dspy.InputField())


@pytest.mark.parametrize("right", ["a: str -> b", "a -> b", "a -> c", "a, c -> b"])
@pytest.mark.parametrize("left", ["a: int -> b", "a -> b"])
def test_equals_is_dspys(left: Any, right: Any) -> None:
    expected = dspy.Signature(left).equals(dspy.Signature(right))

    assert Signature(left).equals(Signature(right)) == expected
