"""The commands `dspex run` and `dspex bench`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspex.cli import main
from dspex.testing import HttpError, ModelServer

APP = """
import dspex
import dspy
from dspex.events import FieldEnd, FieldStart, TextDelta


class Ask(dspex.Signature):
    question: str = dspex.InputField()
    answer: str = dspex.OutputField()


class Shout(dspex.Module):
    def __init__(self):
        self.answer = dspex.Predict("question -> answer")

    def forward(self, question):
        return dspex.Prediction(answer=self.answer(question=question).answer.upper())

    def stream(self, question):
        yield FieldStart("answer")
        yield TextDelta("answer", "so ")
        yield TextDelta("answer", "far", True)
        yield FieldEnd("answer")
        yield dspex.Prediction(answer="so far")


class Needs(dspex.Module):
    def __init__(self, what):
        pass


class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.answer(question=question)


made, qa, number = Program(), dspex.Predict(Ask, demos=[{"question": "Q", "answer": "A"}]), 5
cot = dspex.ChainOfThought("question -> answer")
"""


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run_app.py").write_text(APP)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def lm(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    return ["--lm", "openai/local", "--api-base", server.api_base]


ASK = [
    "-i",
    "question=Where does the Danube rise?",
    "-i",
    'context=["The Danube rises in the Black Forest."]',
]


def test_a_signature_is_called_with_inputs_of_its_types(
    lm: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    signature = "question, context: list[str] -> answer, sure: bool"
    assert main(["run", signature, *ASK, *lm]) == 0
    out, err = capsys.readouterr()
    assert out == "answer: Black Forest\nsure: True\n"
    assert err.startswith("(native, ")
    assert main(["run", signature, *ASK, *lm, "--json", "--adapter", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["prediction"] == {"answer": "Black Forest", "sure": True}
    assert (shown["route"], shown["usage"]["total_tokens"] > 0) == ("native", True)


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("target", "route", "answer"),
    [
        ("run_app:Ask", "native", "Ulm"),
        ("run_app:qa", "native", "Ulm"),
        ("run_app:Shout", None, "ULM"),
        ("run_app:Program", "pool:general", "Ulm"),
    ],
)
def test_what_a_path_leads_to_is_called(
    lm: list[str], capsys: pytest.CaptureFixture[str], target: str, route: str | None, answer: str
) -> None:
    assert main(["run", target, "-i", "question=Ulm", "--timeout", "30", "--json", *lm]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["prediction"]["answer"], shown["route"]) == (answer, route or "")


def test_a_program_is_found_where_the_user_is_by_the_worker_too(lm: list[str], tmp_path: Path) -> None:
    (tmp_path / "here_app.py").write_text(APP)
    command = [sys.executable, "-m", "dspex.cli", "run", "here_app:Program", "-i", "question=Ulm", *lm]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "answer: Ulm\n"), done.stderr


@pytest.mark.usefixtures("app")
def test_a_state_is_what_a_program_was_optimised_to(
    server: ModelServer, lm: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import run_app  # type: ignore[import-not-found]

    run_app.made.answer.demos = [{"question": "grass?", "answer": "green, I think"}]
    run_app.made.save(tmp_path / "made.json")
    state = ["--state", str(tmp_path / "made.json")]
    for target in ("run_app:Program", "run_app:Shout"):
        assert main(["run", target, "-i", "question=Ulm", *state, *lm]) == 0
        assert "green, I think" in str(server.requests[-1].messages)
    assert main(["run", "run_app:cot", "-i", "question=Ulm", *state, *lm]) == 2
    assert "[program-state]" in capsys.readouterr().err


@pytest.mark.usefixtures("app")
def test_without_inputs_it_asks_for_each_until_there_is_no_more(
    server: ModelServer,
    lm: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('Ulm\n["a"]\nBonn\nno list\nKiel\n["b"]\nlast\n'))
    server.faults.push(None, HttpError(500, "no"))
    assert main(["run", "question, context: list[str] -> answer", "--json", *lm]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1  # one line of JSON for the call that went well
    assert json.loads(out)["prediction"].keys() == {"answer"}
    assert err.count("question> ") == 4
    assert "[lm-server]" in err
    assert "`context` is no JSON" in err

    monkeypatch.setattr("sys.stdin", io.StringIO("Ulm\n"))
    for target in ("run_app:Shout", "run_app:Program"):
        monkeypatch.setattr("sys.stdin", io.StringIO("Ulm\n"))
        assert main(["run", target, *lm]) == 0
        out, err = capsys.readouterr()
        assert out.lower() == "answer: ulm\n"
        assert err.startswith("question> ")


@pytest.mark.usefixtures("app")
def test_a_stream_is_told_on_the_way_and_printed_at_the_end(
    lm: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "run_app:Shout", "-i", "question=Ulm", "--stream", "--json", *lm]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["prediction"] == {"answer": "so far"}
    assert err == "answer: so far\n"


MISTAKES: list[tuple[list[str], str]] = [
    (["question"], "missing-arrow"),
    (["question -> answer", "-i", "question"], "input"),
    (["question -> answer", "-i", "=x"], "input"),
    (["question -> answer", "-i", "question:=["], "input"),
    (["q: int -> answer", "-i", "q=many"], "input"),
    (["q: int -> answer", "-i", 'q="many"'], "input-type"),
    (["question -> answer", "-i", "other=x"], "input"),
    (["question -> answer", "-i", "question=x", "--route", "nowhere"], "unknown-route"),
    (["question -> answer", "-i", "question=x", "--timeout", "-1"], "bad-timeout"),
    (["run_app:made", "-i", "question=x"], "bad-target"),
    (["run_app:number", "-i", "question=x"], "bad-target"),
    (["run_app:Needs", "-i", "question=x"], "bad-target"),
    (["no_such_app:RAG", "-i", "question=x"], "bad-target"),
]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(("arguments", "code"), MISTAKES)
def test_a_mistake_is_exit_code_2_and_one_error(
    server: ModelServer, lm: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
) -> None:
    assert main(["run", *arguments, *lm]) == 2
    out, err = capsys.readouterr()
    assert f"[{code}]" in err
    assert (out, server.requests) == ("", [])


def test_an_address_without_a_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "q -> a", "-i", "q=x", "--api-base", "http://127.0.0.1:1/v1"]) == 2
    assert "[no-lm]" in capsys.readouterr().err


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    "target",
    [
        "question, n: int, day: datetime.date, tags: list[str], kind: Literal['a'] -> answer, score: float",
        "run_app:qa",
        "run_app:cot",
    ],
)
def test_a_bench_checks_both_and_prints_their_costs(capsys: pytest.CaptureFixture[str], target: str) -> None:
    assert main(["bench", target, "--calls", "2", "--json", "-i", "question=Where is Ulm?"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["ratio"] == pytest.approx(figures["dspy_ms"] / figures["native_ms"])
    assert figures["signature"].startswith("question")
    assert main(["bench", "question -> answer", "--calls", "1"]) == 0
    assert "same messages and fields" in capsys.readouterr().out


def test_a_bench_times_nothing_where_the_two_differ(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dspy

    monkeypatch.setattr(dspy.Predict, "acall", asked_otherwise)
    assert main(["bench", "question -> answer", "--calls", "1"]) == 1
    out, err = capsys.readouterr()
    assert (out, "nothing was timed" in err) == ("", True)


async def asked_otherwise(self: Any, **inputs: Any) -> Any:
    import dspy

    await dspy.settings.lm.acall("[[ ## answer ## ]] is asked for otherwise")
    return {"answer": "other"}


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run_app:Shout"], "bad-target"),
        (["run_app:Program"], "bad-target"),
        (["question -> answer", "--calls", "0"], "bad-target"),
        (["tool: dspy.Tool -> answer"], "input"),
    ],
)
def test_a_bench_of_what_dspy_has_not_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
) -> None:
    assert main(["bench", *arguments]) == 2
    assert f"[{code}]" in capsys.readouterr().err
