"""Every mistake is one clear error: the corpus for text, a table for everything made in Python."""

from __future__ import annotations

import keyword
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest

import dspex.signature
from dspex.errors import DspexError, SignatureError
from dspex.signature import InputField, OutputField, Signature

CORPUS = Path(__file__).parents[2] / "testdata" / "signature"
TEXTS = sorted((CORPUS / "errors").glob("*.txt"))


@pytest.fixture(autouse=True)
def limits() -> Iterator[None]:
    before = Signature.limits()
    yield
    Signature.set_limits(**before._asdict())


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_mistake_in_a_text_is_shown_with_its_place_and_what_to_do(path: Any) -> None:
    source, expected = path.read_bytes().decode().split("\n---\n")
    if source.startswith("limits: "):
        limit, source = source.removeprefix("limits: ").split("\n", 1)
        name, value = limit.split("=")
        Signature.set_limits(**{name: int(value)})

    with pytest.raises(SignatureError) as caught:
        Signature(source)

    assert f"{caught.value}\n" == expected
    assert caught.value.source == source
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class Plain:
    pass


class Imports(pydantic.BaseModel):
    where: dict[str, pydantic.ImportString[Any]]


def nested(levels: int) -> Any:
    made: Any = int
    for _ in range(levels):
        made = list[made]
    return made


def _class(**body: Any) -> Any:
    annotations = {key: str for key in body if key not in ("loose",)}
    metaclass: Any = type(Signature)
    return metaclass("Made", (Signature,), {"__annotations__": annotations, "__module__": __name__, **body})


NO_TEXT: Any = 5
QA = _class(question=InputField(), answer=OutputField())
MISTAKES: dict[str, Callable[[], Any]] = {
    "class-call": lambda: QA(question="?"),
    "signature-source": lambda: Signature(5),
    "signature-source-class": lambda: Signature.of(int),
    "field-name": lambda: Signature({"my field": InputField()}),
    "field-name-keyword": lambda: Signature({"class": InputField()}),
    "underscore-name": lambda: Signature({"_a": InputField()}),
    "reserved-name": lambda: Signature({"fields": InputField()}),
    "field-value": lambda: Signature({"a": int}),
    "field-kind": lambda: Signature({"a": pydantic.Field()}),
    "field-kind-class": lambda: _class(a=5),
    "field-kind-loose": lambda: _class(loose=5),
    "field-text": lambda: Signature({"a": InputField(desc=NO_TEXT)}),
    "field-index": lambda: Signature("a -> b").insert(7, "c", InputField()),
    "no-such-field": lambda: Signature("a -> b").with_updated_fields("c", desc="?"),
    "bad-state": lambda: Signature("a -> b").load_state({"instructions": "x"}),
    "bad-state-form": lambda: Signature("a -> b").load_state({"instructions": 5, "fields": []}),
    "unsupported-type": lambda: Signature({"a": (Plain, InputField())}),
    "not-a-type": lambda: Signature({"a": (5, InputField())}),
    "unsupported-type-surrogate": lambda: Signature({"a": (Literal["\ud800"], InputField())}),
    "input": lambda: Signature("a: int, b -> c").validate_inputs({"a": "x", "c": 1}),
    "reply-type": lambda: Signature("a -> b: list[int]").validate_outputs({"b": [1, None]}),
    "surrogate": lambda: Signature("a\ud800 -> b"),
    "surrogate-instructions": lambda: Signature("a -> b", "\ud800"),
    "surrogate-desc": lambda: Signature({"a": InputField(desc="\ud800")}),
    "surrogate-extra": lambda: Signature("a -> b").with_updated_fields("a", note="\ud800"),
    "surrogate-extra-deep": lambda: Signature("a -> b").with_updated_fields("a", note=[{"x": ("\udfff",)}]),
    "surrogate-extra-key": lambda: Signature("a -> b").with_updated_fields("a", **{"\ud800": "x"}),
    "bad-types": lambda: Signature("a -> b", types={"\ud800": int}),
    "too-deep-type": lambda: Signature({"a": (nested(5_000), InputField())}),
    "imports": lambda: Signature("a -> b: pydantic.ImportString"),
    "imports-field": lambda: Signature({"b": (list[Imports], OutputField())}),
    "similar-name": lambda: Signature("a: Plian -> b", types={"Plain": Plain}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_python_says_what_to_do(name: Any) -> None:
    with pytest.raises(DspexError) as caught:
        MISTAKES[name]()

    message = str(caught.value).replace(f"{__name__}.", "")
    assert f"{message}\n" == (CORPUS / "errors_python" / f"{name}.txt").read_text()
    assert caught.value.hint


def test_a_key_beside_a_field_may_hold_itself() -> None:
    note: list[Any] = ["fine"]
    note.append(note)
    assert Signature("a -> b").with_updated_fields("a", note=note).fields["a"].name == "a"


def test_every_code_has_a_case() -> None:
    package = Path(dspex.signature.__file__).parent
    used = {
        code for path in package.glob("*.py") for code in re.findall(r'code="([a-z-]+)"', path.read_text())
    }
    cases = [*TEXTS, *(CORPUS / "errors_python").glob("*.txt")]
    shown = {code for path in cases for code in re.findall(r"\[([a-z-]+)\]$", path.read_text(), re.MULTILINE)}

    assert len(used) > 10
    assert used <= shown


@pytest.mark.parametrize("word", keyword.kwlist)
def test_no_keyword_of_pythons_names_a_field(word: Any) -> None:
    with pytest.raises(SignatureError) as error:
        Signature(f"{word} -> a")
    assert error.value.code == "keyword-name"


def test_an_exception_of_the_lookup_reaches_the_caller_as_it_is() -> None:

    class Odd:
        __name__ = property(lambda _self: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        Signature("a: Odd -> b", types={"Odd": Odd()})
