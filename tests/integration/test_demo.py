"""The demo, run as a newcomer runs it: what it shows, when it fails, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from dspex.testing import HttpError, ModelServer, Stall

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "docs" / "examples" / "demo.py"
KEY = "sk-of-the-demo-test"
DEADLINE = 30.0

pytestmark = pytest.mark.timeout(120)


def environment(**more: str) -> dict[str, str]:
    ours = ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL")
    return {name: value for name, value in os.environ.items() if name not in ours} | more


def demo(*arguments: str, before: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, with a little code run before it in its process."""
    code = f"import runpy, sys\nsys.argv = {['demo', *arguments]!r}\n{before}\n"
    code += f"runpy.run_path({str(DEMO)!r}, run_name='__main__')\n"
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=90,
        env=environment(**more),
    )


def test_all_ways_agree_a_worker_is_killed_and_ten_lines_say_so() -> None:
    done = demo("--limit", "12")
    assert done.stderr == ""
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) <= 10
    assert "all three sent the model the same prompts, byte for byte, and returned the same fields" in lines
    (killed,) = (line for line in lines if line.startswith("real DSPy in 2 workers"))
    assert "a worker was killed" in killed
    (streamed,) = (line for line in lines if line.startswith("a reply streamed"))
    assert "8,849" in streamed
    assert " | " in streamed


def test_the_result_as_json_says_who_answered_what_and_how_long_it_took() -> None:
    done = demo("--limit", "12", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["questions"] == len(result["answers"]) == 12
    assert result["same_prompts"] is result["same_fields"] is True
    in_process, workers, native = result["ways"].values()
    for found in (in_process, workers, native):
        assert found["read"] == 12
        assert found["as_expected"] > 6
        assert found["seconds"] > 0
        assert found["cpu_ms_per_call"] > 0
    assert workers["died"] > 0 == in_process["died"] == native["died"]
    assert result["streamed"]
    assert "dspex, the Rust core" in done.stderr


def test_details_are_a_line_for_each_question() -> None:
    done = demo("--limit", "3", "--details")
    assert done.returncode == 0, done.stderr
    (line,) = (
        line for line in done.stdout.splitlines() if line.startswith("In which country is Kilimanjaro?")
    )
    assert line.split()[-2:] == ["Tanzania", "Tanzania"]


CHANGED_MESSAGE = """
from dspex.lm import _body as wire
encode = wire.encode
def changed(name, prefix, messages, settings, **more):
    return encode(name, prefix, [{**m, "content": m["content"] + " "} for m in messages], settings, **more)
wire.encode = changed
"""
CHANGED_FIELD = """
from dspex.prediction import Prediction
from dspex.runtime._native_target import NativeCall
finish = NativeCall.finish
def changed(self, answer, seconds):
    prediction = finish(self, answer, seconds)
    return Prediction.from_completions([{**prediction, "confidence": 2.0}], timings=prediction.timings)
NativeCall.finish = changed
"""


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(CHANGED_MESSAGE, "the model DIFFERENT PROMPTS"), (CHANGED_FIELD, "returned DIFFERENT FIELDS for: How")],
    ids=["message", "field"],
)
def test_a_route_that_differs_makes_it_fail(change: str, verdict: str) -> None:
    done = demo("--limit", "2", before=change)
    assert done.returncode == 1, done.stderr
    assert verdict in done.stdout


def test_a_real_model_is_asked_once_for_each_prompt_and_the_key_is_not_shown() -> None:
    with ModelServer() as upstream:
        arguments = ("--lm", "openai/real", "--api-base", upstream.api_base, "--limit", "3")
        done = demo(*arguments, OPENAI_API_KEY=KEY, OPENAI_API_BASE="http://127.0.0.1:9/v1")
        assert done.returncode == 0, done.stderr
        assert len(upstream.requests) == 3
        assert {request.body["model"] for request in upstream.requests} == {"real"}
        assert all(request.headers["authorization"] == "Bearer ***" for request in upstream.requests)
        assert f"the model: openai/real at {upstream.api_base}" in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_a_model_that_refuses_the_key_ends_it_with_what_to_do() -> None:
    with ModelServer(faults=[HttpError(401, f"the key {KEY} is wrong")]) as upstream:
        done = demo("--api-base", upstream.api_base, "--limit", "3", OPENAI_API_KEY=KEY)
    assert done.returncode == 1
    assert "refused the key" in done.stderr
    assert "Traceback" not in done.stderr
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        (["--limit", "0"], "--limit"),
        (["--lm", "gpt-4o"], "write 'openai/gpt-4o'"),
        (["--lm", "openai/x", "--api-base", "nowhere"], "not the address of a server"),
        (["--questions", "/nonexistent.jsonl"], "cannot be read"),
        (["--questions", os.devnull], "holds no questions"),
        (["--questions", str(DEMO)], "line 1: not a question"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(arguments: list[str], mentions: str) -> None:
    done = demo(*arguments)
    assert done.returncode == 2
    assert mentions in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    command = f"{sys.executable} {DEMO} | head -n 1"
    pipes: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(["bash", "-c", command], env=environment(), **pipes)
    assert done.stdout.startswith("80 questions, 50 at once")
    assert done.stderr == ""


@contextmanager
def stuck_demo() -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A demo that waits for its model, and the processes it has started."""
    with ModelServer(faults=[None, *[Stall()] * 80]) as upstream:
        command = [sys.executable, str(DEMO), "--lm", "openai/real", "--api-base", upstream.api_base]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # A session of its own, so that Ctrl-C can be what it is: a signal to everything in it.
        with subprocess.Popen(command, start_new_session=True, env=environment(), **pipes) as process:
            try:
                assert process.stdout is not None
                assert any("all took" in line for line in process.stdout)
                started = psutil.Process(process.pid).children(recursive=True)
                assert started
                yield process, started
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_ends_it_without_a_traceback_and_leaves_no_process() -> None:
    with stuck_demo() as (process, started):
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=DEADLINE)
        assert process.returncode == 130
        assert "interrupted" in stderr
        assert "Traceback" not in stderr
        _, alive = psutil.wait_procs(started, timeout=DEADLINE)
        assert alive == []


def test_nothing_survives_when_it_is_killed() -> None:
    with stuck_demo() as (process, started):
        process.kill()
        process.wait(DEADLINE)
        _, alive = psutil.wait_procs(started, timeout=DEADLINE)
        assert alive == []
