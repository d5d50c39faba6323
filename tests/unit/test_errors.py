from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import dspex
from dspex import errors
from dspex.error_codes import CODES
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    DspexError,
    InputError,
    LMRateLimitError,
    LMUnavailable,
    RemoteError,
    SignatureError,
    TargetsUnavailable,
    WorkerDiedError,
    WorkerStartError,
    caret_frame,
    from_dict,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, DspexError)]
PACKAGE = Path(dspex.__file__).parent


def full(cls: type[DspexError], **more: Any) -> DspexError:
    """An error of this class with every field given."""
    fields: dict[str, Any] = {name: f"the {name}" for name in cls._fields}
    for name, value in (("span", (1, 2)), ("problems", [["a.b", "is missing"]]), ("source", "a -> b")):
        if name in fields:
            fields[name] = value
    return cls("it broke", hint="mend it", **fields, **more)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_pickling_with_its_cause_and_notes(cls: type[DspexError]) -> None:
    error = full(cls, code="own-code", retryable=not cls.retryable)
    error.__cause__ = ValueError("why")
    error.add_note("seen on a Sunday")

    back = pickle.loads(pickle.dumps(error))

    assert type(back) is cls
    assert back.to_dict() == error.to_dict()
    assert back.retryable is not cls.retryable
    assert str(back.__cause__) == "why"
    assert back.__notes__ == ["seen on a Sunday"]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_the_wire(cls: type[DspexError]) -> None:
    error = full(cls, retryable=not cls.retryable)

    back = from_dict(error.to_dict())

    assert type(back) is cls
    assert str(back) == str(error)
    assert (back.code, back.category, back.http_status) == (cls.code, cls.category, cls.http_status)
    assert back.retryable is not cls.retryable
    for name in cls._fields:
        assert getattr(back, name) == getattr(error, name)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_exported_drawn_in_the_tree_and_has_a_category(cls: type[DspexError]) -> None:
    assert cls is DspexError or cls.__name__ in errors.__all__
    assert cls.__name__ in (errors.__doc__ or "")
    assert cls.category in get_args(errors.Category)
    assert 400 <= cls.http_status < 600
    assert (cls.http_status < 500) == (cls.category == "caller" or cls is LMRateLimitError)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_is_there_and_documented_whether_it_was_given_or_not(cls: type[DspexError]) -> None:
    error = cls("it broke")

    assert error.details == {}
    documented = "\n".join(base.__doc__ or "" for base in cls.__mro__)
    for name in cls._fields:
        assert getattr(error, name) == getattr(cls, name)
        assert f"        {name}: " in documented


def test_codes_of_classes_are_distinct() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


def test_a_field_that_the_class_does_not_declare_is_refused() -> None:
    with pytest.raises(TypeError, match=r"ConfigError declares no field 'paht'; it has: path, file"):
        ConfigError("it broke", paht="pool.a")


def test_an_attribute_that_is_not_there_is_an_attribute_error_and_a_type_error_for_mypy() -> None:
    with pytest.raises(AttributeError, match="'DspexError' object has no attribute 'nope'"):
        DspexError("it broke").nope  # type: ignore[attr-defined]  # noqa: B018


def test_a_subclass_from_elsewhere_declares_fields_of_its_own() -> None:
    class QuotaError(DspexError):
        code = "quota"
        tenant: str = ""

    assert QuotaError("none left").tenant == ""
    back = from_dict(QuotaError("none left", tenant="ada").to_dict())
    assert isinstance(back, QuotaError)
    assert back.tenant == "ada"
    with pytest.raises(TypeError, match="declares fields without a default: colour"):
        type("Bare", (DspexError,), {"__annotations__": {"colour": str}})


def test_a_class_this_version_does_not_know_becomes_a_remote_error_that_names_it() -> None:
    data = RemoteError("it broke", retryable=True).to_dict() | {
        "class": "FutureError",
        "details": {"shade": "blue", "type": "x", "message": "n"},
    }

    error = from_dict(data)

    assert isinstance(error, RemoteError)
    assert (error.type, error.message, error.retryable) == ("FutureError", "it broke", True)
    assert error.details == {"type": "FutureError", "shade": "blue", "message": "n"}


def test_a_field_this_version_does_not_know_stays_among_the_details() -> None:
    data = WorkerDiedError("it broke", pid=7).to_dict()
    data["details"] |= {"shade": "blue", "message": "n", "code": 5}
    del data["retryable"]  # an older version says nothing of it

    error = from_dict(data)

    assert isinstance(error, WorkerDiedError)
    assert (error.pid, error.message, error.code, error.retryable) == (7, "it broke", "worker-died", False)
    assert error.details == {"pid": 7, "shade": "blue", "message": "n", "code": 5}
    assert pickle.loads(pickle.dumps(error)).details == error.details


def test_a_subclass_that_is_made_in_another_way_arrives_as_a_remote_error() -> None:
    class OddError(DspexError):
        def __init__(self) -> None:
            super().__init__("odd")

    error = from_dict(OddError().to_dict())

    assert isinstance(error, RemoteError)
    assert error.type == "OddError"


@pytest.mark.parametrize("span", [None, 5, [1], ["a", "b"], {"a": 1}, [1, 2, 3]])
def test_a_span_that_is_no_place_is_left_out(span: Any) -> None:
    data = SignatureError("bad name", source="a -> b").to_dict()
    data["details"]["span"] = span

    error = from_dict(data)

    assert isinstance(error, SignatureError)
    assert error.span is None
    assert str(error) == "bad name [signature]"


def test_an_error_of_another_class_keeps_what_both_classes_know() -> None:
    died = WorkerDiedError("it died", hint="look", pid=7, output="last words")

    error = WorkerStartError.from_other(died, code="restart-budget", threads=2)

    assert (error.message, error.code, error.hint) == ("it died", "restart-budget", "look")
    assert error.details == {"pid": 7, "output": "last words", "threads": 2}
    assert ConfigError.from_other(died).details == {}


def test_a_signature_that_cannot_be_read_is_a_value_error_as_in_dspy() -> None:
    with pytest.raises(ValueError, match="missing-arrow"):
        dspex.Signature("question")


@pytest.mark.parametrize(
    ("error", "category", "status"),
    [
        (InputError("no"), "caller", 422),
        (SignatureError("no"), "caller", 422),
        (ConfigError("no", code="bad-timeout"), "caller", 422),
        (ConfigError("no", code="lm-setting"), "operator", 500),
        (errors.LMAuthError("no"), "operator", 500),
        (errors.LMRequestError("no"), "operator", 500),
        (errors.LMRequestError("no", code="lm-context-length"), "caller", 422),
        (LMRateLimitError("no"), "transient", 429),
        (errors.PoolSaturated("no"), "transient", 503),
        (DeadlineExceeded("no"), "timeout", 504),
        (RemoteError("no"), "remote", 502),
        (errors.WireError("no", code="frame-too-large"), "caller", 413),
        (errors.WireError("no"), "internal", 500),
    ],
)
def test_a_bad_input_is_the_callers_and_a_bad_setting_the_operators(
    error: DspexError, category: str, status: int
) -> None:
    assert (error.category, error.http_status) == (category, status)


def test_a_worker_that_died_makes_the_call_retryable_only_if_its_pool_says_so() -> None:
    assert not WorkerDiedError("it died").retryable
    assert from_dict(WorkerDiedError("it died", retryable=True).to_dict()).retryable


CANARY = "CANARY /srv/secret 10.0.0.1 sk-123"


@pytest.mark.parametrize("cls", CLASSES)
def test_what_a_client_may_see_holds_nothing_of_the_services_own(cls: type[DspexError]) -> None:
    fields: dict[str, Any] = dict.fromkeys(cls._fields, CANARY)
    fields |= {name: value for name, value in (("span", None), ("retry_after", 5)) if name in fields}
    if "problems" in fields:
        fields["problems"] = [("question", CANARY)]
    if cls is InputError:
        fields["field"] = "question"
    shown: dict[str, Any] = {"fields": ["question"]} if cls is InputError else {}
    shown |= {"retry_after": 5} if cls in (LMRateLimitError, LMUnavailable, TargetsUnavailable) else {}
    for code in (None, *(row.code for row in CODES), CANARY):
        error = cls(CANARY, code=code, hint=CANARY, **fields)
        error.__cause__ = OSError(CANARY)
        error.add_note(CANARY)
        error._unknown = {"future": CANARY}

        public = error.to_public_dict()

        assert "CANARY" not in repr(public)
        assert list(public) == ["class", "code", "category", "message", "retryable", "details"]
        assert public["message"]
        assert public["details"] == shown


def test_a_client_sees_of_a_subclass_from_elsewhere_the_class_that_dspex_documents() -> None:
    class CanaryError(errors.LMServerError):
        code = "canary"

    public = CanaryError("down").to_public_dict()

    assert (public["class"], public["code"]) == ("LMServerError", "lm-server")


def raised() -> list[Any]:
    """Every call of an error class in the package: file and line, class, names of keyword arguments."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                cls = getattr(errors, name, None)
                if isinstance(cls, type) and issubclass(cls, DspexError):
                    names = [keyword.arg for keyword in node.keywords if keyword.arg]
                    found.append((f"{file.relative_to(PACKAGE)}:{node.lineno}", cls, names))
    return found


def test_every_error_is_raised_with_fields_that_its_class_declares() -> None:
    calls = raised()
    assert len(calls) > 100
    known = {"code", "hint", "retryable"}
    assert [call for call in calls if not known.union(call[1]._fields).issuperset(call[2])] == []


def test_mypy_knows_every_field_and_refuses_a_typo(tmp_path: Path) -> None:
    script = tmp_path / "typo.py"
    script.write_text(
        "from dspex.errors import WorkerDiedError\n"
        "def show(error: WorkerDiedError) -> None:\n"
        "    reveal_type(error.pid)\n"
        "    reveal_type(error.retryable)\n"
        "    print(error.typo)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", str(script)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout

    assert 'Revealed type is "int | None"' in said.replace("Union[builtins.int, None]", "int | None").replace(
        "builtins.", ""
    )
    assert '"WorkerDiedError" has no attribute "typo"' in said
    assert "Found 1 error" in said


def test_an_error_reads_as_message_code_and_hint() -> None:
    error = DspexError("it broke", code="own-code", hint="mend it")
    assert str(error) == "it broke [own-code]\n  hint: mend it"


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
