"""Dialects: which one is chosen, and what each writes and reads. `make parity-33` compares with DSPy 3.3."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import dspy
import pydantic
import pytest

import dspex
from dspex import _core, dialects
from dspex.adapters import ChatAdapter, JSONAdapter, XMLAdapter
from dspex.errors import ConfigError, DialectWarning, ReplyError
from dspex.signature import InputField, OutputField, Signature

PAGE = Path(__file__).parents[2] / "docs" / "dialects.md"
OLD, NEW = "3.3", "3.4"

Install = Callable[[str | None], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes dspex believe that this version of DSPy is installed, or none."""

    def believe(version: str | None) -> None:
        monkeypatch.setattr(dialects, "installed", lambda: version)

    return believe


@pytest.mark.parametrize(
    ("version", "dialect"),
    [
        ("3.3.1", "3.3"),
        ("3.3.0", "3.3"),
        ("3.4.1", "3.4"),
        ("3.4.0rc1", "3.4"),
        ("3.4", "3.4"),
        (None, dialects.KNOWN[-1]),
    ],
)
def test_the_installed_dspy_selects_the_dialect(install: Install, version: str | None, dialect: str) -> None:
    install(version)
    assert dialects.chosen() == dialects.required() == dialect
    assert ChatAdapter().compile("q -> a").dialect == dialect


@pytest.mark.parametrize("version", ["3.2.9", "3.5.0", "3.30.0", "4.0.0", "2024.1", "dev"])
def test_an_unknown_dspy_selects_none_and_an_adapter_refuses_by_name(install: Install, version: str) -> None:
    install(version)
    assert dialects.chosen() is None
    for call in (
        lambda: ChatAdapter().compile("q -> a"),
        lambda: JSONAdapter().format("q -> a", [], {"q": "?"}),
        lambda: XMLAdapter().parse("q -> a", "<a>x</a>"),
    ):
        with pytest.raises(ConfigError, match=f"DSPy {re.escape(version)} is installed") as caught:
            call()
        assert caught.value.code == "unknown-dspy"
        assert "dialect='3.3' or '3.4'" in caught.value.hint


def test_a_forced_dialect_asks_nobody_what_is_installed(install: Install) -> None:
    install("9.9")
    adapter = ChatAdapter(dialect=OLD)
    assert adapter.compile("q -> a").dialect == OLD
    assert repr(adapter) == "ChatAdapter(parsing='tolerant', markers='warn', dialect='3.3')"
    assert adapter.with_parsing("dspy").compile("q -> a").dialect == OLD


def test_an_unknown_dialect_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"there is no dialect '3\.9'") as caught:
        ChatAdapter(dialect="3.9")
    assert (caught.value.code, caught.value.hint) == ("unknown-dialect", "use '3.3' or '3.4'")


def test_the_version_is_read_without_importing_dspy() -> None:
    code = "import sys; from dspex import dialects; print(dialects.installed(), 'dspy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [importlib.metadata.version("dspy"), "False"]


def test_without_any_dspy_there_is_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delitem(sys.modules, "dspy", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(sys, "path", ["", "/no/such/folder"])
    assert dialects.installed.__wrapped__() is None


def test_a_dspy_in_an_unusual_place_is_found_by_whoever_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dspy", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", {"dspy": "3.3.7"}.__getitem__)
    monkeypatch.setattr(sys, "path", [])
    assert dialects.installed.__wrapped__() == "3.3.7"


# Under a DSPy that dspex does not know, its own methods do the work. Only the number is made up.
UNKNOWN = """
import warnings
import dspy
dspy.__version__ = "3.9.0"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import dspex.dspy
    adapters = [dspex.dspy.ChatAdapter(), dspex.dspy.JSONAdapter(), dspex.dspy.XMLAdapter()]
(warning,) = [w for w in caught if w.category.__name__ == "DialectWarning"]
print(warning.message)
signature = dspy.Signature("q -> a")
for adapter in adapters:
    assert adapter._plan(signature) is None
    theirs = getattr(dspy, type(adapter).__name__)()
    assert adapter.format(signature, [], {"q": "?"}) == theirs.format(signature, [], {"q": "?"})
assert adapters[0].parse(signature, "[[ ## a ## ]]\\nyes") == {"a": "yes"}
assert dspex.dspy.ChatAdapter(dialect="3.4")._plan(signature).dialect == "3.4"
"""


def test_a_dropin_leaves_an_unknown_dspy_to_itself_and_warns_once() -> None:
    done = subprocess.run([sys.executable, "-c", UNKNOWN], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("DSPy 3.9.0 is installed, and dspex does not know its prompts; ")
    assert "Install DSPy 3.3 or 3.4" in done.stdout


def test_the_warning_comes_once(install: Install) -> None:
    install("3.7.7")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            dialects.warn_unknown("nothing happens instead")
    assert [w.category for w in caught] == [DialectWarning]


# --- the table, row by row -------------------------------------------------------------------------------


class Opaque:
    """A value that pydantic cannot write."""

    def __str__(self) -> str:
        return "opaque"

    __repr__ = __str__


class Typed(Signature):
    """Typed."""

    n: int | None = InputField()
    deep: list[int | str] = InputField()
    a: dict[str, bool | None] = OutputField()


def messages(dialect: str, signature: Any, inputs: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return ChatAdapter(dialect=dialect).compile(signature).render(inputs, **more)


def test_row_names_pipes() -> None:
    old, new = (messages(d, Typed, {"n": 1, "deep": []})[0]["content"] for d in (OLD, NEW))
    assert "`n` (UnionType[int, NoneType])" in old
    assert "`deep` (list[UnionType[int, str]])" in old
    assert "`a` (dict[str, UnionType[bool, NoneType]])" in old
    assert old.replace("UnionType", "Union") == new
    written = "n: Optional[int] -> a: int | str"
    assert messages(OLD, written, {}) == messages(NEW, written, {}), "a text has no bars of Python's"


def test_row_names_pipes_inside_types_that_rust_does_not_know() -> None:
    signature = Signature({"q": (Sequence[int | None], InputField()), "a": (str, OutputField())})
    old, new = (messages(d, signature, {})[0]["content"] for d in (OLD, NEW))
    assert "`q` (Sequence[UnionType[int, NoneType]])" in old
    assert "`q` (Sequence[Union[int, NoneType]])" in new
    assert signature.fields["q"].type_name == "Sequence[Union[int, NoneType]]"


# Pydantic says so of every model that stands beside a type.
@pytest.mark.filterwarnings("ignore:The `__get_pydantic_core_schema__` method")
def test_row_noted_types() -> None:
    beside = Annotated[str, dspy.Code["java"]]
    fields = {"q": (str, dspy.InputField()), "a": (beside, dspy.OutputField())}
    noted = dspy.make_signature(fields, "Noted.")
    old, new = (messages(d, noted, {"q": "?"})[0]["content"] for d in (OLD, NEW))
    assert "Type description of Code_java" not in old
    assert "1. `a` (str): \n    Type description of Code_java" in new


def test_row_turns_end_in_reminder() -> None:
    turns = [{"q": "one", "a": "1"}, {"a": "only an answer"}]
    old, new = (messages(d, "q -> a", {"q": "now"}, history=turns) for d in (OLD, NEW))
    reminder = "\n\nRespond with the corresponding output fields"
    assert [reminder in m["content"] for m in old] == [False, False, False, False, True]
    assert [reminder in m["content"] for m in new] == [False, True, False, False, True]
    assert old[-1] == new[-1]


def test_row_parts_become_text() -> None:
    old, new = (messages(d, "q: list -> a", {"q": [1, Opaque()]})[1]["content"] for d in (OLD, NEW))
    assert "[[ ## q ## ]]\n[1, opaque]\n" in old
    assert '[[ ## q ## ]]\n[1, "opaque"]\n' in new
    for layout in (JSONAdapter, XMLAdapter):
        demos = [{"q": "?", "a": {"k": Opaque(), "n": 1}}]
        shown = [layout(dialect=d).format("q -> a: dict", demos, {})[2]["content"] for d in (OLD, NEW)]
        assert shown[0] != shown[1]


@pytest.mark.parametrize("layout", [ChatAdapter, JSONAdapter, XMLAdapter])
def test_row_converts_choices(layout: Any) -> None:
    reply = {ChatAdapter: "[[ ## a ## ]]\n{}", JSONAdapter: '{{"a": "{}"}}', XMLAdapter: "<a>{}</a>"}[layout]
    signature = "q -> a: Literal[1, 2, True, None]"
    assert layout(dialect=NEW, parsing="dspy").parse(signature, reply.format("2")) == {"a": 2}
    with pytest.raises(ReplyError):
        layout(dialect=OLD, parsing="dspy").parse(signature, reply.format("2"))
    fields, repairs = layout(dialect=OLD).read(signature, reply.format("2"))
    assert fields == {"a": 2}
    assert [repair.code for repair in repairs if repair.code != "xml"] == ["case"]
    strict = layout(dialect=OLD, parsing="dspy")
    assert strict.parse("q -> a: Literal['2']", reply.format("'2'")) == {"a": "2"}


def test_row_any_error_refuses() -> None:
    def fails(value: Any) -> Any:
        raise LookupError(value)

    failing = Annotated[int, pydantic.BeforeValidator(fails)]
    signature = Signature({"q": (str, InputField()), "a": (list[failing], OutputField())})
    for layout, reply in ((ChatAdapter, "[[ ## a ## ]]\n[1]"), (XMLAdapter, "<a><item>1</item></a>")):
        with pytest.raises(ReplyError) as refused:
            layout(dialect=OLD, parsing="dspy").parse(signature, reply)
        assert isinstance(refused.value.__cause__, LookupError)
        with pytest.raises(LookupError):
            layout(dialect=NEW, parsing="dspy").parse(signature, reply)


def test_every_row_has_its_test_and_its_line_on_the_page() -> None:
    source = (Path(__file__).parents[2] / "rust/core/src/dialect.rs").read_text()
    struct = source[source.index("pub struct Dialect") : source.index("/// In order of their versions.")]
    rows = set(re.findall(r"pub (\w+): bool", struct))
    assert rows
    shown = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert shown == rows
    assert all(any(name.startswith(f"test_row_{row}") for name in globals()) for row in rows)


def test_dialects_are_compared_and_named() -> None:
    assert tuple(_core.dialects()) == dialects.KNOWN == (OLD, NEW)
    assert _core.Dialect(OLD).name == OLD
    assert _core.Dialect(OLD) == _core.Dialect(OLD) != _core.Dialect(NEW)
    with pytest.raises(ValueError, match="no such dialect"):
        _core.Dialect("1.0")


def test_plans_of_different_dialects_are_kept_apart() -> None:
    signature = dspex.Signature("q -> a")
    adapters = [ChatAdapter(dialect=d) for d in (OLD, NEW)]
    plans = [adapter.compile(signature) for adapter in adapters]
    assert [plan.dialect for plan in plans] == [OLD, NEW]
    assert [adapter.compile(signature) for adapter in adapters] == plans


def test_signatures_with_and_without_bars_are_kept_apart() -> None:
    """They are equal in all that DSPy compares, but old prompts tell them apart."""
    bars = Signature({"q": (int | None, InputField()), "a": (Literal["x"], OutputField())})
    union = Signature("q: Optional[int] -> a: Literal['x']")
    for signature, name in ((bars, "UnionType"), (union, "Union"), (bars, "UnionType")):
        assert f"`q` ({name}[int, NoneType])" in messages(OLD, signature, {})[0]["content"]
