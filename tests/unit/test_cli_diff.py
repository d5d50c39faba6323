"""`dspex diff`: signatures, classes, programs and saved programs, compared between DSPy's versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspex
from dspex.cli import main

PROGRAM = '''
import dspy
import dspex

class Bars(dspy.Signature):
    """Count."""
    text: str = dspy.InputField()
    count: int | None = dspy.OutputField()

class Ours(dspex.Signature):
    text: str | int = dspex.InputField()
    label: str = dspex.OutputField()

class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.count = dspy.Predict(Bars)
        self.talk = dspy.ChainOfThought("question, history: dspy.History -> answer")
        self.same = dspy.Predict("question -> answer")

program = Program()
program.count.demos = [dspy.Example(text="one two", count=2).with_inputs("text")]
predict = dspex.Predict(Ours, demos=[{"text": "x", "label": "y"}])
class Nested:
    inner = Bars
number = 5
'''


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"app_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def diff(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    code = main(["diff", *arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def changes(lines: list[str]) -> list[str]:
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_a_signature_that_says_the_same_has_no_diff(capsys: pytest.CaptureFixture[str]) -> None:
    text = "question, context: list[str] -> answer: Optional[int]"
    assert diff(capsys, text, "--adapter", "chat", "--adapter", "json", "--adapter", "xml") == (
        0,
        [],
        "no prompt changes\n",
    )


def test_a_class_with_bars_changes_and_the_diff_is_a_unified_one(
    capsys: pytest.CaptureFixture[str], app: str
) -> None:
    code, lines, err = diff(capsys, f"{app}:Bars")
    assert code == 1
    assert lines[:2] == [f"--- {app}:Bars (chat, DSPy 3.3)", f"+++ {app}:Bars (chat, DSPy 3.4)"]
    assert lines[2].startswith("@@ ")
    assert changes(lines)[:2] == [
        "-1. `count` (UnionType[int, NoneType]):",
        "+1. `count` (Union[int, NoneType]):",
    ]
    assert err == "1 of 1 prompts change\n"


def test_the_way_back_is_the_other_way_round(capsys: pytest.CaptureFixture[str], app: str) -> None:
    _, lines, _ = diff(capsys, f"{app}:Nested.inner", "--from", "3.4", "--to", "3.3")
    assert changes(lines)[0] == "-1. `count` (Union[int, NoneType]):"


def test_the_same_version_twice_is_no_change(capsys: pytest.CaptureFixture[str], app: str) -> None:
    assert diff(capsys, f"{app}:Bars", "--from", "3.3", "--to", "3.3")[0] == 0


def test_all_predictors_of_a_program_are_compared_with_their_examples_and_a_turn(
    capsys: pytest.CaptureFixture[str], app: str
) -> None:
    code, lines, err = diff(capsys, f"{app}:program")
    assert code == 1
    headers = [line for line in lines if line.startswith("--- ")]
    assert headers == [
        f"--- {app}:program.count (chat, DSPy 3.3)",
        f"--- {app}:program.talk.predict (chat, DSPy 3.3)",
    ]
    assert [line for line in changes(lines)[2:] if "reasoning" in line] == [
        "+Respond with the corresponding output fields, starting with the field `[[ ## reasoning ## ]]`, "
        "then `[[ ## answer ## ]]`, and then ending with the marker for `[[ ## completed ## ]]`."
    ]
    assert err == "2 of 3 prompts change\n"


def test_a_native_module_is_compared(capsys: pytest.CaptureFixture[str], app: str) -> None:
    code, lines, _ = diff(capsys, f"{app}:predict", "--adapter", "json")
    assert code == 1
    assert changes(lines) == ["-1. `text` (UnionType[str, int]):", "+1. `text` (Union[str, int]):"]


def saved(path: Path, **changed: Any) -> Path:
    """A program, saved by the installed DSPy."""

    class Talk(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = dspy.Predict("text -> count")
            self.talk = dspy.ChainOfThought("question, history -> answer")
            self.same = dspy.Predict("question -> answer")

    program = Talk()
    program.count.signature = program.count.signature.with_instructions("Count the words.")
    program.count.demos = [{"text": "saved words", "count": 2}, {"text": "half"}]
    for name, value in changed.items():
        setattr(program, name, value)
    program.save(str(path))
    return path


def test_a_saved_state_goes_into_the_program_before_it(
    capsys: pytest.CaptureFixture[str], app: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "rag.json")
    code, lines, _ = diff(capsys, f"{app}:program=rag.json")
    assert (code, path.name) == (1, "rag.json")
    assert "-1. `count` (UnionType[int, NoneType]):" in lines
    # What is near a change is shown: the example comes from the file.
    whole = subprocess.run(
        [sys.executable, "-m", "dspex", "diff", f"{app}:program=rag.json"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (whole.returncode, whole.stdout.splitlines()) == (1, lines)


def test_a_saved_predictor_goes_into_a_signature(
    capsys: pytest.CaptureFixture[str], app: str, tmp_path: Path
) -> None:
    predictor = dspy.Predict("text -> count")
    predictor.demos = [{"text": "saved", "count": "1"}]
    predictor.save(str(tmp_path / "one.json"))
    code, lines, _ = diff(capsys, f"{app}:Bars=one.json")
    assert code == 1
    assert "-1. `count` (UnionType[int, NoneType]):" in lines
    assert diff(capsys, "text -> count: int=one.json")[0] == 0


def test_a_file_alone_is_compared_as_far_as_it_tells(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "rag.json", count=dspy.Predict("a -> b"))
    code, lines, err = diff(capsys, "rag.json")
    assert (code, lines) == (0, [])
    assert err.count("a file has no types") == 3


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("question -> answer: nonsense", "unknown-name", "nonsense"),
        ("just words", "bad-target", "neither a signature nor a path"),
        ("no.such.module:thing", "bad-target", "cannot be imported"),
        ("{app}:nothing", "bad-target", "cannot be imported"),
        ("{app}:number", "signature-source", "not a signature"),
        ("{app}:Program", "bad-target", "a class of modules"),
        ("missing.json", "diff-file", "missing.json cannot be read"),
        ("words.json", "diff-file", "words.json cannot be read"),
        ("empty.json", "diff-file", "holds no predictor"),
        ("custom.json", "diff-file", "does not tell the fields"),
        ("{app}:program=custom.json", "diff-file", "does not fit the program"),
        ("a -> b=rag.json", "diff-file", "holds several predictors"),
    ],
)
def test_what_cannot_be_read_is_exit_2_with_a_reason_and_no_half_a_diff(
    capsys: pytest.CaptureFixture[str], app: str, tmp_path: Path, target: str, code: str, says: str
) -> None:
    (tmp_path / "words.json").write_text("no json")
    (tmp_path / "empty.json").write_text("{}")
    predictor = dspy.Predict(dspy.Signature("q -> a", "My own words."))
    predictor.save(str(tmp_path / "custom.json"))
    saved(tmp_path / "rag.json")
    exit_code, lines, err = diff(capsys, f"{app}:Bars", target.format(app=app))
    assert (exit_code, lines) == (2, [])
    assert f"[{code}]" in err
    assert says in err
    assert "hint: " in err


@pytest.mark.parametrize("arguments", [[], ["q -> a", "--to", "3.9"], ["q -> a", "--adapter", "baml"]])
def test_wrong_usage_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["diff", *arguments])
    assert ended.value.code == 2
    capsys.readouterr()


def test_a_prompt_in_the_diff_is_the_adapter_s(capsys: pytest.CaptureFixture[str], app: str) -> None:
    _, lines, _ = diff(capsys, f"{app}:Bars")
    import importlib

    bars = importlib.import_module(app).Bars
    messages = dspex.ChatAdapter(dialect="3.4").format(bars, [], {"text": "{text}"})
    whole = "\n".join(message["content"] for message in messages).splitlines()
    added = [line[1:] for line in lines[2:] if line.startswith("+")]
    assert added
    assert set(added) <= set(whole)


def test_the_signature_command_shows_a_dialect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["signature", "q -> a", "--dialect", "3.3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"]
