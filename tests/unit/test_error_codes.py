"""The table of codes is what the sources raise, in both directions, and the page is the table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dspex
from dspex import errors
from dspex.cli import main
from dspex.cli._errors import page
from dspex.error_codes import CODES, find
from dspex.errors import DspexError

PACKAGE = Path(dspex.__file__).parent
ROOT = PACKAGE.parents[1]
CLASSES = {
    name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, DspexError)
}
ADD = "add a row to python/dspex/error_codes.py, then `make errors-page`"

NOT_ERRORS = {"Repair", "HttpError"}
"""Callables whose `code` is that of a repair, or of an answer of the testing server."""

PASSED_ON = {"error.code", "err.code", "row.code"}
"""Expressions whose code was raised elsewhere before."""


class Module:
    """What one source file says about codes: the calls that give one, and the parameters they come from."""

    def __init__(self, file: Path) -> None:
        self.name = str(file.relative_to(PACKAGE))
        self.tree = ast.parse(file.read_text())
        self.calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        self.functions = [
            node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]

    def codes(self) -> Iterator[tuple[str, str | None, str]]:
        """Code, class if the call names one, and place."""
        for call in self.calls:
            name = called(call)
            if name in NOT_ERRORS:
                continue
            for keyword in call.keywords:
                if keyword.arg == "code":
                    for code in self.values(keyword.value):
                        yield code, name if name in CLASSES else None, f"{self.name}:{call.lineno}"
            if name == "Failure":  # a row of a table: class, code, ...
                for argument in call.args[1:2]:
                    for code in self.values(argument):
                        yield code, ast.unparse(call.args[0]), f"{self.name}:{call.lineno}"

    def values(self, given: ast.expr) -> Iterator[str]:
        """The texts that an expression can be."""
        if isinstance(given, ast.Constant):
            if isinstance(given.value, str):
                yield given.value
        elif isinstance(given, ast.IfExp):
            yield from self.values(given.body)
            yield from self.values(given.orelse)
        elif isinstance(given, ast.Name):
            yield from self.arguments(given)
        elif isinstance(given, ast.Attribute) and ast.unparse(given) in TABLES:
            pass
        elif ast.unparse(given) not in PASSED_ON:
            raise AssertionError(f"{self.name}:{given.lineno}: what code is `{ast.unparse(given)}`?")

    def arguments(self, name: ast.Name) -> Iterator[str]:
        """What the parameter of this name is given, where its function is called in this file."""
        for function in self.functions:
            inside = function.lineno <= name.lineno <= (function.end_lineno or 0)
            names = [parameter.arg for parameter in [*function.args.args, *function.args.kwonlyargs]]
            if not inside or name.id not in names:
                continue
            position = names.index(name.id) - (names[0] in ("self", "cls"))
            for call in self.calls:
                if called(call) == function.name and len(call.args) > position:
                    yield from self.values(call.args[position])
            return
        raise AssertionError(f"{self.name}:{name.lineno}: where does `{name.id}` come from?")


TABLES = {"failure.code"}
"""Columns of tables, whose rows are read for themselves."""


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def of_python() -> Iterator[tuple[str, str | None, str]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        if file not in (PACKAGE / "error_codes.py", PACKAGE / "errors.py"):
            yield from Module(file).codes()


def of_rust() -> Iterator[tuple[str, str | None, str]]:
    """The tables of the core, and every text in the bindings that is written as a code."""
    signature = (ROOT / "rust/core/src/signature/error.rs").read_text()
    for code in re.findall(r'^ +\w+ = "([a-z-]+)", "', signature, re.MULTILINE):
        yield code, "SignatureError", "signature/error.rs"
    template = (ROOT / "rust/core/src/template/error.rs").read_text()
    for code in re.findall(r'"(template-[a-z-]+)"', template):
        yield code, "TemplateError", "template/error.rs"
    reply = (ROOT / "rust/core/src/response/read/error.rs").read_text()
    for code in re.findall(r'"(reply-[a-z-]+)"', reply):
        yield code, "ReplyError", "response/read/error.rs"
    for file in sorted((ROOT / "rust/python/src").rglob("*.rs")):
        for code in re.findall(r'"([a-z]+(?:-[a-z0-9]+)+)"', file.read_text()):
            if code not in NOT_CODES:
                yield code, None, str(file.relative_to(ROOT))


NOT_CODES = {"utf-16-le", "utf-32-le", "prefer-native", "prefer-python"}
"""Texts of the bindings that look like codes: encodings and strategies."""

RAISED = [*of_python(), *of_rust(), *((cls.code, name, "errors.py") for name, cls in CLASSES.items())]
RAISED.append(("reply-empty", "ReplyError", "errors.py"))


def test_every_code_that_is_raised_has_a_row() -> None:
    assert len(RAISED) > 200
    missing = sorted({(code, place) for code, _, place in RAISED if find(code) is None})
    assert missing == [], ADD


def test_every_row_is_of_a_code_that_is_raised() -> None:
    raised = {code for code, _, _ in RAISED}
    assert sorted({row.code for row in CODES} - raised) == [], "remove the rows, then `make errors-page`"


def test_every_row_names_the_classes_that_carry_the_code() -> None:
    for code, cls, place in RAISED:
        row = find(code)
        if cls in CLASSES and row is not None:
            assert cls in row.classes.split(), (code, place)


def test_a_code_stands_once_and_is_written_as_one() -> None:
    codes = [row.code for row in CODES]
    assert len(set(codes)) == len(codes)
    for row in CODES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", row.code)
        assert all(name in CLASSES for name in row.classes.split())
        assert row.cause.endswith(".")
        assert row.cure.endswith(".")


def test_every_code_that_differs_from_its_class_in_who_must_act_is_one() -> None:
    assert [code for code in errors._BY_CODE if find(code) is None] == []


def test_the_page_is_what_the_table_says() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == page(), "run `make errors-page`"


def test_the_page_has_every_code_and_every_class() -> None:
    text = page()
    for row in CODES:
        assert f"\n### `{row.code}`\n" in text
    for name in CLASSES:
        assert f"\n## {name}\n" in text


def test_the_command_explains_one_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", "lm-cut"]) == 0

    said = capsys.readouterr().out
    row = find("lm-cut")
    assert row is not None
    assert "LMConnectionError [lm-cut]: HTTP 502; who acts: nobody, it passes" in said
    assert row.cause in said
    assert row.cure in said


def test_the_command_asks_about_a_code_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", "lm-cutt"]) == 2
    assert "did you mean 'lm-cut'?" in capsys.readouterr().err


def test_a_client_reads_the_cause_of_its_own_mistake_and_no_more_of_ours() -> None:
    row = find("bad-timeout")
    assert row is not None
    assert errors.ConfigError("/srv", code="bad-timeout").to_public_dict()["message"] == row.cause
    hidden = errors.ConfigError("/srv", code="bad-pool-setting").to_public_dict()["message"]
    assert hidden == "The service is not set up as it should be."
