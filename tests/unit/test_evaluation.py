"""What an evaluation shows and writes. Its rows come from models: no text of theirs is a command."""

from __future__ import annotations

import csv
import io
import math
import sys
from pathlib import Path
from typing import Any

import dspy
import pyarrow as pa
import pydantic
import pytest
from rich.console import Console

import dspex
from dspex import EvaluatedRow, Evaluation
from dspex.errors import ConfigError


class Point(pydantic.BaseModel):
    x: int


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def row(number: int, example: Any, prediction: Any, score: Any = 0.0, error: Any = None) -> EvaluatedRow:
    if isinstance(prediction, dict):
        prediction = dspex.Prediction(prediction)
    return EvaluatedRow(number, example, prediction, score, error, 0.5)


def evaluation(*rows: EvaluatedRow, **options: Any) -> Evaluation:
    return Evaluation(score=50.0, results=rows, metric="exact", **options)


MIXED = evaluation(
    row(0, {"question": "one", "answer": "1"}, {"answer": "1"}, True),
    row(1, {"question": "two", "answer": "2"}, {"answer": "3", "reasoning": "a\nlong one"}, False),
    row(2, {"question": "three", "answer": "3"}, None, 0.0, LookupError("gone")),
)


def test_it_is_short_as_a_text() -> None:
    assert str(MIXED) == "exact: 50.00 % of 3 rows, 2 below 1, 1 of them with an error"
    assert str(evaluation(*MIXED.results[:2])) == "exact: 50.00 % of 2 rows, 1 below 1"
    assert repr(MIXED) == "Evaluation(score=50.0, results=<3 rows>, failures=<2 rows>)"


def test_failures_are_errors_and_what_is_below_the_threshold() -> None:
    scores = [1, 0.5, math.nan, True, dspex.Prediction(score=0.4), dspy.Prediction(score=2.0)]
    rows = [row(number, {}, {"a": 1}, score) for number, score in enumerate(scores)]
    rows.append(row(6, {}, None, 5.0, ValueError("a high failure_score is a failure all the same")))
    assert [found.number for found in evaluation(*rows).failures] == [1, 2, 4, 6]
    assert [found.number for found in evaluation(*rows, threshold=0.5).failures] == [2, 4, 6]
    assert [found.number for found in evaluation(*rows).errors] == [6]


def test_the_table_is_plain_text_of_the_failures() -> None:
    assert str(MIXED.table()) == (
        "row  question  example_answer  pred_answer  reasoning   score  error\n"
        "---  --------  --------------  -----------  ----------  -----  -----------------\n"
        "1    two       2               3            a long one  0\n"
        "2    three     3                                        0      LookupError: gone"
    )
    assert str(MIXED.table(limit=1)).splitlines()[2:] == [
        "1    two       2               3            a long one  0",
        "... and 1 more",
    ]
    assert len(MIXED.table(MIXED.results).cells) == 3
    with pytest.raises(ConfigError) as caught:
        MIXED.table(limit=-1)
    assert caught.value.code == "bad-batch"


CONTROLS = "\x1b[31mred\x1b[0m\x07 \u202eturned [bold]\x00 \ud800"
SHOWN = r"\x1b[31mred\x1b[0m\x07 \u202eturned [bold]\x00 \ud800"


def test_no_text_is_a_command_to_the_terminal() -> None:
    found = evaluation(row(0, {CONTROLS: 1}, {"answer": CONTROLS}, 0, ValueError(CONTROLS)))
    table = str(found.table())
    assert table.count(SHOWN[:20]) == 3
    assert all(each.isprintable() or each == "\n" for each in table)
    out = io.StringIO()
    Console(file=out, width=400, force_terminal=True).print(found.table())
    assert out.getvalue().count(SHOWN) == 3
    assert "\x1b[31m" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


class Screen(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def test_rich_draws_on_a_terminal_and_plain_text_goes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, plain = Screen(True), Screen(False)
    MIXED.show(drawn)
    assert "┃" in drawn.getvalue()
    MIXED.show(plain)
    assert plain.getvalue() == f"{MIXED}\n{MIXED.table()}\n"
    monkeypatch.setattr("dspex.modules._evaluation_table.find_spec", lambda name: None)
    without = Screen(True)
    MIXED.show(without)
    assert without.getvalue() == plain.getvalue()
    good = Screen(False)
    evaluation(MIXED.results[0]).show(good)
    assert good.getvalue() == "exact: 50.00 % of 1 rows, 0 below 1\n"


def test_it_is_shown_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    MIXED.show()
    assert capsys.readouterr().out.startswith("exact: 50.00 %")


def test_html_of_a_notebook_has_every_text_escaped() -> None:
    evil = "<script>alert('1')</script>&\"<b>"
    found = Evaluation(
        score=0.0,
        results=[row(0, {evil: evil}, {"answer": evil}, 0.0, ValueError(evil))],
        metric=evil,
    )
    html = found._repr_html_()
    assert "<script" not in html
    assert "<b>" not in html
    assert html.count("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;&lt;b&gt;") == 5
    assert "<p>... and 1 more</p>" in MIXED.table(limit=1)._repr_html_()


def test_long_texts_are_cut_in_tables() -> None:
    found = evaluation(row(0, {"question": "q" * 5_000}, {"answer": ["x"] * 5_000}))
    assert max(map(len, str(found.table()).splitlines())) < 150
    assert len(found._repr_html_()) < 4_000


def written(found: Evaluation, path: Path) -> list[dict[str, str]]:
    found.to_csv(path)
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_keeps_every_value(tmp_path: Path) -> None:
    example = {
        "question": 'a "quoted",\r\ntwo\nlines',
        "number": -5,
        "real": -0.5,
        "none": None,
        "score": "s",
    }
    prediction = {"answer": ["é", {"a": 1}], "point": Point(x=1), "flag": True, "set": {2, 1}, "error": "e"}
    score = dspex.Prediction(score=0.25, feedback="as I see it")
    odd = {"question": "\ud800", "answer": Hostile(), "point": {(1, 2): 3}}
    rows = written(
        evaluation(row(0, example, prediction, score), row(1, odd, "no fields", 1, LookupError("gone"))),
        tmp_path / "found.csv",
    )
    assert rows[0] == {
        "row": "0",
        "question": 'a "quoted",\r\ntwo\nlines',
        "number": "-5",
        "real": "-0.5",
        "none": "",
        "example_score": "s",
        "example_answer": "",
        "example_point": "",
        "pred_answer": '["é", {"a": 1}]',
        "pred_point": '{"x": 1}',
        "flag": "True",
        "set": "[1, 2]",
        "pred_error": "e",
        "value": "",
        "score": "0.25",
        "feedback": "as I see it",
        "error": "",
        "seconds": "0.5",
    }
    assert rows[1]["question"] == "\\ud800"
    assert rows[1]["example_answer"] == "<Hostile>"
    assert rows[1]["example_point"] == "{(1, 2): 3}"
    assert (rows[1]["value"], rows[1]["score"], rows[1]["error"]) == ("no fields", "1.0", "LookupError: gone")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_is_a_formula_to_a_spreadsheet(begin: str, tmp_path: Path) -> None:
    evil = f"{begin}cmd|' /C calc'!A0"
    error = type("E", (Exception,), {})
    error.__name__ = evil
    found = evaluation(row(0, {evil: evil}, {"answer": evil}, 0.0, error("x")))
    (one,) = written(found, tmp_path / "found.csv")
    assert one[f"'{evil}"] == one["answer"] == f"'{evil}"
    assert one["error"] == f"'{evil}: x"


def test_columns_of_one_name_stay_apart(tmp_path: Path) -> None:
    found = evaluation(row(0, {"a": 1, "example_a": 2, "row": 3}, {"a": 4, "row_": 5, "seconds": 6}))
    (one,) = written(found, tmp_path / "found.csv")
    assert {name: value for name, value in one.items() if value and value in "123456"} == {
        "example_a": "1",
        "example_a_": "2",
        "example_row": "3",
        "pred_a": "4",
        "row_": "5",
        "pred_seconds": "6",
    }


def test_a_file_that_cannot_be_written_is_an_error_and_an_old_one_stays(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        MIXED.to_csv(tmp_path / "nowhere" / "found.csv")
    assert caught.value.code == "evaluation-file"
    path = tmp_path / "found.csv"
    path.write_text("old")
    broken = evaluation(row(0, {"a": 1}, {"b": 1}, "no number"))
    with pytest.raises(ValueError, match="no number"):
        broken.to_csv(path)
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_arrow_has_a_type_for_each_column() -> None:
    found = evaluation(
        row(
            0,
            {"question": "q", "number": 1, "answer": "1", "mixed": 1},
            {"answer": 1.5, "items": ["a"], "point": Point(x=1), "odd": Hostile()},
            True,
        ),
        row(1, {"question": "\ud800", "number": 2, "mixed": "text"}, None, 0.0, LookupError("\udfff")),
        row(
            2, dspy.Example(question="r"), dspy.Prediction(answer=2.5, items=[]), dspex.Prediction(score=0.5)
        ),
    )
    table = found.to_arrow()
    assert {name: str(table.schema.field(name).type) for name in table.column_names} == {
        "row": "int64",
        "question": "string",
        "number": "int64",
        "example_answer": "string",
        "mixed": "string",
        "pred_answer": "double",
        "items": "list<element: string>" if "element" in str(table.schema) else "list<item: string>",
        "point": "struct<x: int64>",
        "odd": "string",
        "score": "double",
        "error": "string",
        "seconds": "double",
    }
    assert table["score"].to_pylist() == [1.0, 0.0, 0.5]
    assert table["mixed"].to_pylist() == ["1", "text", None]
    assert table["question"].to_pylist() == ["q", "\\ud800", "r"]
    assert table["error"].to_pylist() == [None, "LookupError: \\udfff", None]
    assert table["odd"].to_pylist() == ["<Hostile>", None, None]
    assert isinstance(table, pa.Table)
    # Where no row failed, the column is of texts all the same: tables of several runs fit together.
    assert evaluation(row(0, {"q": 1}, {"a": 1}, 1)).to_arrow().schema.field("error").type == pa.string()


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'dspex\[arrow\]'") as caught:
        MIXED.to_arrow()
    assert caught.value.code == "arrow-missing"
