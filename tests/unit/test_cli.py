"""The command `dspex`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex.cli import main


def test_a_signature_is_shown_with_its_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["signature", "question, context: list[str] -> answer: int | None", "-i", "Be brief."]) == 0

    out = capsys.readouterr().out
    assert out.startswith(
        "question, context: list[str] -> answer: Optional[int]\n\ninputs:\n  question  str\n"
    )
    assert "  answer  Union[int, NoneType] (optional)\n" in out
    assert "\ninstructions:\n  Be brief.\n" in out
    prompt = out.split("\nprompt (chat):\n")[1]
    messages = dspex.ChatAdapter().format(
        dspex.Signature("question, context: list[str] -> answer: int | None", "Be brief."),
        [],
        {"question": "{question}", "context": "{context}"},
    )
    assert prompt == "".join(f"--- {message['role']} ---\n{message['content']}\n" for message in messages)


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_json_is_for_programs(capsys: pytest.CaptureFixture[str], adapter: Any) -> None:
    assert main(["signature", "q -> a: float", "--json", "--adapter", adapter]) == 0

    shown = json.loads(capsys.readouterr().out)
    assert shown["text"] == "q -> a: float"
    assert shown["outputs"][0]["type"] == "float"
    assert [message["role"] for message in shown["messages"]] == ["system", "user"]


def test_a_mistake_gets_a_caret_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["signature", "größe: lst -> b"]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[:3] == [
        "dspex: the name 'lst' is not known [unknown-name]",
        "  größe: lst -> b",
        "         ^^^",
    ]


def test_a_class_is_shown_by_where_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shown_app.py").write_text(
        "import dspex, dspy\n"
        "class Ours(dspex.Signature):\n"
        "    'Judge.'\n"
        "    text: str = dspex.InputField()\n"
        "    stars: int = dspex.OutputField(ge=1)\n"
        "class Theirs(dspy.Signature):\n"
        "    'Judge.'\n"
        "    text: str = dspy.InputField()\n"
        "    stars: int = dspy.OutputField(ge=1)\n"
        "class Home:\n"
        "    inner = dspex.Predict(Ours)\n"
        "TEXT, NUMBER = 'text -> stars: int', 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outputs = []
    for name in ("Ours", "Theirs", "Home.inner"):
        assert main(["signature", f"shown_app:{name}"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0].startswith("text: str -> stars: int\n")
    assert "\ninstructions:\n  Judge.\n" in outputs[0]
    assert main(["signature", "shown_app:Ours", "-i", "Be brief."]) == 0
    assert "\ninstructions:\n  Be brief.\n" in capsys.readouterr().out
    assert main(["signature", "shown_app:TEXT"]) == 0
    capsys.readouterr()

    for target, code in {
        "shown_app:Nothing": "bad-target",
        "no_such_app:Ask": "bad-target",
        "..:Ask": "missing-arrow",
        "shown_app:NUMBER": "signature-source",
        "question: str": "missing-arrow",
        "question": "missing-arrow",
    }.items():
        assert main(["signature", target]) == 2
        assert f"[{code}]" in capsys.readouterr().err


def test_without_a_command_the_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])

    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "dspex", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert shown.stdout == f"dspex {dspex.__version__}\n"


@pytest.mark.parametrize(
    "command", [["signature", "q -> a", "--json"], ["doctor", "--workers", "1", "--json"]]
)
def test_a_reader_that_has_gone_ends_a_command_quietly(command: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dspex.cli", *command], stdout=writing, stderr=subprocess.PIPE, timeout=120
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
