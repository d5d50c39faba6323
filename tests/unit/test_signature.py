"""The value: what it shows, how it compares, what its operations make, and what it says of values."""

from __future__ import annotations

import copy
import enum
import logging
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Optional

import dspy
import pydantic
import pytest
from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import TypedDict

import dspex
from dspex.errors import InputError, ReplyError, SignatureError
from dspex.signature import InputField, OutputField, Signature, SignatureMeta

OptionalInt = Optional[int]  # noqa: UP045 - the other spelling of int | None


@dataclass
class Animal:
    name: str


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Person(BaseModel):
    name: str
    age: int = 0


class Movie(TypedDict):
    title: str


class QA(Signature):
    """Answer.

    Well.
    """

    limit: ClassVar[int] = 5
    question: str = InputField(desc="what to answer")
    count: int | None = InputField(gt=3, default=5)
    hint = InputField()
    people: list[Person] = OutputField(default_factory=list)
    answer: str = OutputField(max_length=5)

    def helper(self) -> int:
        return self.limit


@pytest.fixture
def empty_cache() -> Iterator[Any]:
    capacity = Signature.cache_info().capacity
    Signature.cache_clear()
    yield
    Signature.cache_resize(capacity)
    Signature.cache_clear()


# --- text ---------------------------------------------------------------------------------------------


def test_fields_are_ordered_and_typed() -> None:
    signature = Signature("question, context: list[str] -> answer, confidence: float")

    assert list(signature.fields) == ["question", "context", "answer", "confidence"]
    assert list(signature.input_fields) == ["question", "context"]
    assert list(signature.output_fields) == ["answer", "confidence"]
    assert [field.typed for field in signature.fields.values()] == [False, True, False, True]
    assert signature.signature == "question, context -> answer, confidence"
    assert signature.fields["context"].annotation == list[str]
    assert repr(signature.fields["context"]) == "<input field context: list[str]>"


def test_an_annotation_is_made_once() -> None:
    signature = Signature("a: dict[str, list[int]] -> b")

    assert signature.fields["a"].annotation is signature.fields["a"].annotation


def test_equal_signatures_hash_alike_and_others_differ() -> None:
    one, same = Signature("a -> b: int"), Signature("a->b : int")

    assert one == same
    assert hash(one) == hash(same)
    assert one != Signature("a -> b: float")
    assert one != Signature("a -> b: int", "Do it.")
    assert one != "a -> b: int"


def test_signatures_with_equal_notes_are_equal_though_the_notes_are_two() -> None:
    def made() -> Any:
        return Signature({"a": (int, InputField(gt=3)), "b": OutputField()})

    assert made() == made()
    assert hash(made()) == hash(made())
    assert made() != Signature({"a": (int, InputField(gt=4)), "b": OutputField()})
    assert made().fields["a"]._details != 5


def test_notes_of_annotated_in_a_string_mean_what_pydantic_makes_of_them() -> None:
    signature = Signature(
        "a: Annotated[int, Field(gt=5, default=7)], b: Annotated[str, Upper]"
        " -> c: Annotated[int, Field(le=3)]",
        types={"Upper": AfterValidator(str.upper)},
    )
    field = signature.fields["a"]

    assert (field.annotation, field.desc, field.get_default()) == (int, "${a}", 7)
    assert signature.fields["c"].kind == "output"
    with pytest.raises(InputError, match="a: Input should be greater than 5"):
        signature.validate_inputs({"a": 3, "b": "x"})
    with pytest.raises(ReplyError, match="c: Input should be less than or equal to 3"):
        signature.validate_outputs({"c": 4})


def test_dspys_classes_are_signatures_and_go_back() -> None:
    class Theirs(dspy.Signature):
        """Answer."""

        question: str = dspy.InputField(desc="what")
        effort: int = dspy.InputField(ge=1, default=2)
        thought: dspy.Reasoning = dspy.OutputField()
        answer: list[Person] = dspy.OutputField()

    signature = Signature.of(Theirs)

    assert signature.text.startswith("question: str, effort: int -> thought: ")
    assert signature.fields["thought"].type_name == "str"
    assert signature.fields["effort"].constraints == "greater than or equal to: 1"
    assert signature.to_dspy().equals(Theirs)
    assert Theirs.equals(signature.to_dspy())
    assert signature.input_defaults() == {"effort": 2}
    with pytest.raises(SignatureError, match="is not a signature"):
        Signature.of(int)
    with pytest.raises(SignatureError, match="is not a signature"):
        Signature.of(5)


def test_names_come_from_types_then_from_the_callers_frame_then_from_modules() -> None:
    @dataclass
    class Local:
        name: str

    signature = Signature(
        "a: Local, b: list[Animal], c: Other, d: datetime.date, e: Literal[Color.RED], f: int -> g",
        types={"Other": int, "int": Local},
    )
    made = [field.annotation for field in signature.input_fields.values()]

    assert Signature.of("a: Local -> b").fields["a"].annotation is Local
    assert [Signature(text).fields["a"].annotation for text in ["a: Local -> b"]] == [Local]
    assert made[:4] == [Local, list[Animal], int, __import__("datetime").date]
    assert made[4] == Literal[Color.RED]
    assert made[5] is Local
    assert signature.text == (
        "a: Local, b: list[Animal], c: int, d: datetime.date, e: Literal[Color.RED], f: Local -> g"
    )


def test_a_name_of_a_module_that_is_not_listed_is_never_imported() -> None:
    with pytest.raises(SignatureError, match="'antigravity' is not known"):
        Signature("a: antigravity.Thing -> b")

    assert "antigravity" not in sys.modules


def test_types_that_only_python_can_put_together() -> None:
    signature = Signature(
        "a: Callable[..., str], b: type[Animal] | None, c: Optional[Sequence[Animal]], "
        "d: Mapping[(str, Animal)], e: list[Annotated[int, Field(gt=5)]], f: Sequence[int | None] -> g",
        types={"type": type},
    )
    names = [field.type_name for field in signature.input_fields.values()]

    assert names[:4] == [
        "Callable[Ellipsis, str]",
        "Union[type[Animal], NoneType]",
        "Union[Sequence[Animal], NoneType]",
        "Mapping[str, Animal]",
    ]
    assert signature.text.split(", e: ")[1] == (
        "list[Annotated[int, Field(gt=5)]], f: typing.Sequence[Optional[int]] -> g"
    )


@pytest.mark.parametrize(
    ("annotation", "name", "text"),
    [
        (Annotated[int, "x"], "int", "int"),
        (list[Annotated[int, "it's"]], "list[Annotated[int, it's]]", 'list[Annotated[int, "it\'s"]]'),
        (list[Literal["it's", 'say "x"', 'it\'s "x"']], None, None),
        (OptionalInt, "Union[int, NoneType]", "Optional[int]"),
        (int | None, "Union[int, NoneType]", "int | None"),
        (dict[str, Animal | None], "dict[str, Union[Animal, NoneType]]", "dict[str, Animal | None]"),
        (list[Color], "list[Color]", "list[Color]"),
        (Sequence[int | None], "Sequence[Union[int, NoneType]]", None),
        (Sequence[Literal["x", "it's", 'say "x"']], "Sequence[Literal['x', \"it's\", 'say \"x\"']]", None),
        (Sequence[Literal['it\'s "x"']], "Sequence[Literal['it\\'s \"x\"']]", None),
        (tuple[Animal, ...], "tuple[Animal, Ellipsis]", "tuple[Animal, ...]"),
        (Literal[1.5, b"x", Color.RED, None], "Literal[1.5, b'x', Color.RED, None]", None),
    ],
)
def test_annotations_of_python_keep_their_meaning(annotation: Any, name: Any, text: Any) -> None:
    signature = Signature({"a": (annotation, InputField()), "b": OutputField()})
    made = signature.fields["a"].annotation

    assert made == (int if annotation == Annotated[int, "x"] else annotation)
    assert name is None or signature.fields["a"].type_name == name
    assert text is None or signature.text == f"a: {text} -> b: str"


# --- the cache ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_cache")
def test_the_cache_counts_and_is_bounded() -> None:
    Signature.cache_resize(2)
    for text in ["a -> b", "a -> c", "a -> b", "a -> d", "a -> c"]:
        Signature(text)

    assert Signature.cache_info() == (1, 4, 2, 2)
    Signature.cache_clear()
    assert Signature.cache_info() == (0, 0, 0, 2)


@pytest.mark.usefixtures("empty_cache")
def test_instructions_are_part_of_the_key() -> None:
    assert Signature("a -> b", "One.").instructions == "One."
    assert Signature("a -> b", "Two.").instructions == "Two."
    assert Signature("a -> b").instructions != "Two."
    assert Signature("a -> b", "One.") == Signature("a -> b", "One.")
    assert Signature.cache_info().size == 3


@pytest.mark.usefixtures("empty_cache")
def test_types_of_one_name_never_mix() -> None:
    def made(base: Any) -> Any:
        Thing: Any = dataclass(type("Thing", (base,), {"__annotations__": {"x": int}}))  # noqa: N806
        return Thing, Signature("a: Thing -> b"), Signature("a: Thing -> b")

    for base in (object, Animal):
        thing, one, again = made(base)
        assert one.fields["a"].annotation is thing
        assert one == again
    assert Signature("a: Thing -> b", types={"Thing": int}).fields["a"].annotation is int
    assert Signature.cache_info() == (2, 3, 3, 1000)

    assert Signature("a: int -> b", types={"int": str}).fields["a"].annotation is str
    assert Signature("a: int -> b", types={"float": str}).fields["a"].annotation is int
    assert Signature("a: int -> b").fields["a"].annotation is int


@pytest.mark.usefixtures("empty_cache")
def test_a_name_that_lost_its_meaning_is_an_error_though_the_text_was_read_before() -> None:
    def with_it() -> Any:
        @dataclass
        class Gone:
            x: int

        return Signature("a: Gone -> b")

    with_it()
    with pytest.raises(SignatureError, match="'Gone' is not known"):
        Signature("a: Gone -> b")


@pytest.mark.usefixtures("empty_cache")
def test_threads_share_the_cache() -> None:
    made: list[Signature] = []
    barrier = threading.Barrier(4, timeout=30)

    def work() -> None:
        barrier.wait()
        made.extend(Signature(f"a{i % 50} -> b: int | None") for i in range(500))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    info = Signature.cache_info()
    assert len(made) == 2_000
    assert len(set(made)) == 50
    assert info.size == 50
    assert info.hits + info.misses == 2_000


@pytest.mark.usefixtures("empty_cache")
def test_ten_thousand_signatures_leave_no_more_memory_than_two_thousand() -> None:
    import tracemalloc

    import psutil

    def use(i: int) -> None:
        signature = Signature(f"question{i}: str, context: list[str] -> answer: Literal['a', 'b']")
        assert signature.fields["context"].annotation == list[str]

    def held() -> int:
        # Names of fields are interned. The interpreter's table of interned strings is one block, of megabytes
        # where much has been imported, and it is built anew now and then as names come and go.
        return sum(trace.size for trace in tracemalloc.take_snapshot().traces if trace.size < 100_000)

    process = psutil.Process()
    Signature.cache_resize(1_000)
    tracemalloc.start()
    try:
        for i in range(2_000):
            use(i)
        python, resident = held(), process.memory_info().rss
        for i in range(2_000, 10_000):
            use(i)
        assert held() - python < 200_000
        # The allocator keeps a page here and there; a leak of what a signature holds would be 20 MB.
        assert process.memory_info().rss - resident < 10_000_000
    finally:
        tracemalloc.stop()


# --- classes ------------------------------------------------------------------------------------------


def test_a_class_stands_for_its_signature() -> None:
    assert QA.signature == "question, count, hint -> people, answer"
    assert QA.instructions == "Answer.\n\nWell."
    assert QA.fields["question"].desc == "what to answer"
    assert QA.fields["count"].constraints == "greater than: 3"
    assert QA.fields["hint"].typed is False
    assert QA.fields["people"].annotation == list[Person]
    assert QA.fields["people"].get_default() == []
    assert QA.fields["count"].get_default() == 5
    assert QA.fields["count"].has_default
    assert QA.fields["question"].get_default() is None
    assert QA.limit == 5
    assert repr(QA).startswith("<signature QA: question: str, count: int | None")
    assert isinstance(QA, SignatureMeta)
    assert repr(Signature) == "<class 'dspex.signature._value.Signature'>"


def test_operations_of_a_class_make_values() -> None:
    changed = QA.with_instructions("Other.").append_instructions("More.")
    changed = changed.append("more", OutputField(), bool)

    assert isinstance(changed, Signature)
    assert changed.instructions == "Other.\n\nMore."
    assert list(changed.output_fields) == ["people", "answer", "more"]
    assert QA.instructions == "Answer.\n\nWell."
    with pytest.raises(AttributeError, match="immutable"):
        setattr(QA, "instructions", "Mine.")  # noqa: B010 - a checker knows that it cannot be set
    assert callable(Signature.append)


def test_a_subclass_inherits_fields_and_instructions() -> None:
    class Base(Signature):
        a: int = InputField()
        b: str = OutputField()

    class Sub(Base):
        c: Color | None = InputField(default=None)
        a: float = OutputField(desc="now an output")  # type: ignore[assignment]

    class Third(Sub, QA):
        """Third."""

    assert Base.instructions == "Given the fields `a`, produce the fields `b`."
    assert Sub.instructions == Base.instructions
    assert Sub.text == "c: Color | None -> a: float, b: str"
    assert Third.instructions == "Third."
    assert list(Third.fields) == ["question", "count", "hint", "c", "people", "answer", "a", "b"]


def test_an_empty_docstring_means_no_instructions() -> None:
    class Empty(Signature):
        __doc__ = ""

        a: str = InputField()

    assert Empty.instructions == ""
    assert (
        Signature.of(Empty).with_instructions("").instructions == "Given the fields `a`, produce the fields ."
    )


def test_notes_of_annotated_are_kept_and_enforced() -> None:
    def even(value: int) -> int:
        assert value % 2 == 0, "odd"
        return value

    class Noted(Signature):
        a: Annotated[int, Field(gt=2, description="an a"), AfterValidator(even)] = InputField()
        b: str = OutputField()

    value = Signature.of(Noted)
    with pytest.raises(InputError, match="a: Assertion failed, odd"):
        value.validate_inputs({"a": 5})
    with pytest.raises(InputError, match="greater than 2"):
        value.validate_inputs({"a": 2})
    value.validate_inputs({"a": 4})
    again = value.with_updated_fields("a", desc="?")
    with pytest.raises(InputError, match="odd"):
        again.validate_inputs({"a": 5})
    assert "AfterValidator" in repr(value)
    assert value.to_dspy().input_fields["a"].metadata


def test_field_types_of_every_make_are_fine() -> None:
    class Made(Signature):
        animal: Animal = InputField()
        movie: Movie = InputField()
        person: Person = InputField()
        color: Color = OutputField()

    value = Signature.of(Made)
    value.validate_inputs({"animal": Animal("x"), "movie": {"title": "x"}, "person": Person(name="x")})
    value.validate_outputs({"color": Color.RED})
    assert value.output_schema()["properties"]["color"] == {"$ref": "#/$defs/Color"}
    assert Signature.of(Made) is Signature.of(value)


def test_a_class_is_made_in_a_module_of_plain_annotations() -> None:
    source = """
import dspex
class Local: pass
def make():
    class Inner(dspex.Signature):
        a: 'list[int]' = dspex.InputField()
        b: int | None = dspex.OutputField()
    return Inner
"""
    namespace: dict[str, Any] = {"__name__": "made_here"}
    code = compile(source, "made_here", "exec", dont_inherit=True)
    exec(code, namespace)

    assert namespace["make"]().text == "a: list[int] -> b: int | None"


def test_what_does_not_change_prompts_warns() -> None:
    with pytest.warns(DeprecationWarning, match="prefix="):
        field = InputField(prefix="Q:", description="a question")

    signature = Signature({"q": field, "a": OutputField()})
    assert signature.fields["q"].prefix == "Q:"
    assert signature.fields["q"].desc == "a question"


# --- operations ---------------------------------------------------------------------------------------


def test_fields_are_inserted_and_deleted() -> None:
    signature = Signature("a, b -> c")

    assert signature.prepend("x", InputField(), int).text == "x: int, a, b -> c"
    assert signature.insert(1, "x", InputField()).signature == "a, x, b -> c"
    assert signature.append("x", QA.fields["people"]).text == "a, b -> c, x: list[Person]"
    assert signature.append("x", QA.fields["people"], int).text == "a, b -> c, x: int"
    assert signature.delete("b").signature == "a -> c"
    assert signature.delete("nobody") == signature


def test_updated_fields_keep_the_rest() -> None:
    changed = QA.with_updated_fields("count", float, desc="how many", constraints="few", note=1)
    field = changed.fields["count"]

    assert (field.annotation, field.desc, field.constraints) == (float, "how many", "few")
    assert field.get_default() == 5
    assert not changed.equals(QA)
    assert changed.equals(changed.with_updated_fields("count", int))


def test_equality_of_dspy_does_not_look_at_types() -> None:
    assert Signature("a: int -> b").equals(Signature("a: str -> b"))
    assert not Signature("a: int -> b").equals(Signature("a -> b"))
    assert not Signature("a -> b").equals("a -> b")
    assert not Signature("a -> b").equals(Signature("a -> c"))


def test_state_is_saved_and_loaded() -> None:
    state = Signature.of(QA).dump_state()
    state["instructions"] = "Saved."
    state["fields"][0]["description"] = "saved too"

    loaded = QA.load_state(state)

    assert loaded.instructions == "Saved."
    assert loaded.fields["question"].desc == "saved too"
    assert loaded.fields["count"].get_default() == 5
    assert loaded.dump_state() == state


@pytest.mark.parametrize(
    "signature",
    [
        Signature("a, b: list[int | None] -> c: Literal['x', 1]"),
        Signature("a -> b", "Do it."),
        Signature("a: Animal -> b: Color"),
        Signature.of(QA),
        QA.with_updated_fields("count", constraints="few", note=[1]).with_updated_fields("hint", prefix="H:"),
    ],
    ids=["text", "instructions", "opaque", "class", "updated"],
)
def test_a_repr_can_be_evaluated_and_a_pickle_loaded(signature: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of prefix=
        assert eval(repr(signature)) == signature
    assert pickle.loads(pickle.dumps(signature)) == signature
    assert hash(pickle.loads(pickle.dumps(signature))) == hash(signature)
    assert copy.copy(signature) is signature
    assert copy.deepcopy(signature) is signature


def test_a_signature_is_made_of_whatever_stands_for_one() -> None:
    undefined: dict[str, Any] = {"IS_TYPE_UNDEFINED": True}  # what DSPy notes
    value = Signature("a -> b")

    assert Signature.of("a -> b") == value
    assert Signature.of(value) is value
    assert Signature.of({"a": InputField(**undefined), "b": OutputField()}) == value
    assert Signature(dict(value.fields)) == value
    assert Signature.of(QA, "Mine.").instructions == "Mine."


def test_tools_can_look_inside() -> None:
    described = Signature.of(QA).describe()

    assert described["signature"] == QA.signature
    assert described["inputs"][1] == {
        "name": "count",
        "type": "Union[int, NoneType]",
        "typed": True,
        "optional": True,
        "desc": "${count}",
        "prefix": "Count:",
        "constraints": "greater than: 3",
    }
    schema = Signature.of(QA).input_schema()
    assert schema["required"] == ["question", "hint"]
    assert schema["properties"]["question"]["description"] == "what to answer"
    assert schema["properties"]["count"]["default"] == 5
    assert schema["additionalProperties"] is False


# --- values -------------------------------------------------------------------------------------------

FITS: list[tuple[Any, Any]] = [
    (str, "x"),
    (int, 5),
    (float, 5),
    (float, 5.5),
    (complex, 1),
    (complex, 1j),
    (bytes, b"x"),
    (bool, True),
    (None, "text, as DSPy has it"),
    (type(None), None),
    (list[None], [None]),
    (Any, object()),
    (list, [1, "x"]),
    (list[int], []),
    (set[int], {1}),
    (frozenset[str], frozenset("x")),
    (tuple, (1,)),
    (tuple[int, str], (1, "x")),
    (tuple[int, ...], (1, 2)),
    (tuple[()], ()),
    (dict, {1: 2}),
    (dict[str, int | None], {"x": None}),
    (int | str, "x"),
    (Literal["a", 1, b"x", 1.5], 1.5),
    (Literal[Color.RED], Color.RED),
    (Animal, Animal("x")),
    (list[Person], [{"name": "x"}]),
]
MISFITS: list[tuple[Any, Any, list[str]]] = [
    (str, 5, ["a: expected str, got int"]),
    (int, True, ["a: expected int, got bool"]),
    (float, "5", ["a: expected float, got str"]),
    (bool, 1, ["a: expected bool, got int"]),
    (bytes, "x", ["a: expected bytes, got str"]),
    (complex, "x", ["a: expected complex, got str"]),
    (type(None), 0, ["a: expected NoneType, got int"]),
    (list[str], ("x",), ["a: expected list[str], got tuple"]),
    (list[str], ["x", 5, None], ["a[1]: expected str, got int", "a[2]: expected str, got NoneType"]),
    (set[str], {5}, ["a[0]: expected str, got int"]),
    (tuple[int, str], (1,), ["a: expected 2 items, got 1"]),
    (tuple[int, str], ("x", "y"), ["a[0]: expected int, got str"]),
    (tuple[int, ...], (1, "x"), ["a[1]: expected int, got str"]),
    (dict[str, int], {5: "x"}, ["a[5] (key): expected str, got int", "a[5]: expected int, got str"]),
    (dict[str, list[int]], {"k": [1, "x"]}, ["a['k'][1]: expected int, got str"]),
    (list, "x", ["a: expected list, got str"]),
    (int | str, 5.5, ["a: expected Union[int, str], got float"]),
    (Literal["a", 1], True, ["a: expected one of 'a', 1"]),
    (Literal["a"], "b", ["a: expected one of 'a'"]),
    (list[Person], [{"name": 5}], ["a[0].name: Input should be a valid string"]),
    (Color, "green", ["a: Input should be 'red' or 'blue'"]),
]


def of(annotation: Any) -> Signature:
    return Signature({"a": (annotation, InputField()), "b": (annotation, OutputField())})


@pytest.mark.parametrize(("annotation", "value"), FITS)
def test_a_value_that_fits_passes(annotation: Any, value: Any) -> None:
    of(annotation).validate_inputs({"a": value})
    of(annotation).validate_outputs({"b": value})


@pytest.mark.parametrize(("annotation", "value", "problems"), MISFITS)
def test_a_value_that_does_not_fit_is_shown_with_its_path(annotation: Any, value: Any, problems: Any) -> None:
    with pytest.raises(InputError) as caught:
        of(annotation).validate_inputs({"a": value})

    assert [f"{path}: {message}" for path, message in caught.value.problems] == problems


def test_one_error_names_every_bad_field() -> None:
    signature = Signature("a: int, b: list[str], c, d: int | None -> e: bool")
    given: dict[Any, Any] = {"a": "x", "b": ["y", 5], "e": True, 7: 1}
    with pytest.raises(InputError) as caught:
        signature.validate_inputs(given)

    assert str(caught.value) == (
        "the inputs do not fit the signature:\n"
        "  a: expected int, got str\n"
        "  b[1]: expected str, got int\n"
        "  c: missing\n"
        "  e: not an input of this signature\n"
        "  7: not an input of this signature [input]\n"
        f"  hint: the signature is: {signature.text}"
    )
    with pytest.raises(ReplyError, match="e: expected bool, got str") as refused:
        signature.validate_outputs({"e": "yes"})
    assert refused.value.code == "reply-type"


def test_an_input_without_a_type_takes_anything() -> None:
    Signature("a -> b").validate_inputs({"a": 5})
    with pytest.raises(ReplyError):
        Signature("a -> b").validate_outputs({"b": 5})


def test_constraints_are_enforced_unless_told_otherwise() -> None:
    with pytest.raises(InputError, match="count: Input should be greater than 3"):
        QA.validate_inputs({"question": "x", "count": 2, "hint": ""})
    QA.validate_inputs({"question": "x", "count": 2, "hint": ""}, constraints=False)
    with pytest.raises(ReplyError, match="answer: String should have at most 5 characters"):
        QA.validate_outputs({"answer": "too long"})
    QA.validate_outputs({"people": [], "answer": "short"})


def test_warnings_are_logged_and_off_is_off(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dspex.signature"):
        Signature("a: int -> b: int").validate_inputs({"a": "x"}, "warn")
        Signature("a: int -> b: int").validate_outputs({"b": "x"}, "warn")
        Signature("a: int -> b: int").validate_inputs({"a": None}, "warn")
        Signature("a: int -> b").validate_inputs({}, "off")
        Signature("a: int -> b").validate_outputs({}, "off")

    assert [record.message.splitlines()[1] for record in caplog.records] == [
        "  a: expected int, got str",
        "  b: expected int, got str",
    ]


# --- the package --------------------------------------------------------------------------------------


def test_a_string_signature_needs_no_pydantic() -> None:
    code = (
        "import sys, dspex; dspex.Signature('a: list[int] -> b: int | None').validate_inputs({'a': [1]});"
        "assert not {'pydantic', 'dspy', 'asyncio'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_fields_are_public_names() -> None:
    assert dspex.InputField is InputField
    assert dspex.OutputField is OutputField
    with pytest.raises(AttributeError, match="nothing"):
        dspex.signature.nothing  # noqa: B018


def test_pydantics_fields_alone_are_not_enough() -> None:
    with pytest.raises(SignatureError, match="neither an input nor an output"):
        Signature({"a": (int, pydantic.Field())})
