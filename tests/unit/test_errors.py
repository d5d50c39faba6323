from __future__ import annotations

import inspect
import pickle

import pytest

from dspex import errors
from dspex.errors import DspexError, RemoteError, SignatureError, caret_frame, from_dict

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, DspexError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_pickling_with_its_cause_and_notes(cls: type[DspexError]) -> None:
    error = cls("it broke", code="own-code", hint="mend it", field="answer", span=(1, 2))
    error.__cause__ = ValueError("why")
    error.add_note("seen on a Sunday")

    back = pickle.loads(pickle.dumps(error))

    assert type(back) is cls
    assert back.to_dict() == error.to_dict()
    assert str(back.__cause__) == "why"
    assert back.__notes__ == ["seen on a Sunday"]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_the_wire(cls: type[DspexError]) -> None:
    error = cls("it broke", hint="mend it", field="answer")

    back = from_dict(error.to_dict())

    assert type(back) is cls
    assert (back.message, back.code, back.hint, back.field) == ("it broke", cls.code, "mend it", "answer")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_exported_drawn_in_the_tree_and_has_a_category(cls: type[DspexError]) -> None:
    assert cls is DspexError or cls.__name__ in errors.__all__
    assert cls.__name__ in (errors.__doc__ or "")
    assert cls.category in {"caller", "transient", "timeout", "resource", "remote", "internal"}


def test_codes_of_classes_are_distinct() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


def test_a_class_this_version_does_not_know_becomes_a_remote_error_that_names_it() -> None:
    data = RemoteError("it broke").to_dict() | {"class": "FutureError"}

    error = from_dict(data)

    assert isinstance(error, RemoteError)
    assert error.type == "FutureError"


def test_an_error_reads_as_message_code_and_hint() -> None:
    error = DspexError("it broke", code="own-code", hint="mend it")
    assert str(error) == "it broke [own-code]\n  hint: mend it"


def test_a_detail_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'DspexError' object has no attribute 'nope'"):
        DspexError("it broke").nope  # noqa: B018


@pytest.mark.parametrize(
    ("source", "span", "frame"),
    [
        ("a, b -> c", (3, 4), "  a, b -> c\n     ^"),
        ("a, bé -> c", (3, 5), "  a, bé -> c\n     ^^"),
        ("a,\n\tb c -> d", (6, 7), "  \tb c -> d\n  \t  ^"),
        ("a ->", (4, 4), "  a ->\n      ^"),
        ("a\nb", (0, 3), "  a\n  ^"),
    ],
)
def test_carets_stand_under_the_mistake(source: str, span: tuple[int, int], frame: str) -> None:
    assert caret_frame(source, span) == frame


def test_a_signature_error_shows_the_carets_between_message_and_hint() -> None:
    error = SignatureError("bad name", code="name", hint="rename it", source="a, 1 -> c", span=(3, 4))
    assert str(error) == "bad name [name]\n  a, 1 -> c\n     ^\n  hint: rename it"
    assert error.span == (3, 4)
