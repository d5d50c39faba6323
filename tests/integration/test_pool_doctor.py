from __future__ import annotations

import json
import resource
import shlex
import sys
from pathlib import Path

import pytest

from dspex.cli import main
from dspex.pool import Limits, PoolSpec
from dspex.pool._doctor import examine


def test_a_fit_machine_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()] == [
        "system",
        "descriptors",
        "interpreter",
        "DSPy",
        "start",
        "round",
    ]
    assert "BAD" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--preload", "tests.support.broken_start"], "the model file is missing"),
        (["--preload", "tests.support.threaded_start"], "start='spawn'"),
        (["--python", "/bin/false"], "exited with status 1"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_told_with_what_to_do(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == 1
    out = capsys.readouterr().out
    assert says in out
    assert "->" in out


def test_a_program_that_serves_as_the_worker_is_examined(capsys: pytest.CaptureFixture[str]) -> None:
    program = Path(__file__).parents[1] / "support" / "foreign_worker.py"
    command = shlex.join([sys.executable, "-I", "-S", str(program)])
    assert main(["doctor", "--workers", "1", "--json", "--command", command]) == 0
    findings = {finding["about"]: finding["seen"] for finding in json.loads(capsys.readouterr().out)}
    assert findings["worker"] == "words 1.0"
    assert findings["round trip"] == "not measured: the worker does not serve `echo`"

    assert main(["doctor", "--command", "/bin/false"]) == 1
    assert "exited with status 1" in capsys.readouterr().out
    with pytest.raises(SystemExit) as raised:
        main(["doctor", "--command", "'half a quote"])
    assert raised.value.code == 2


def test_a_wrong_setting_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--workers", "0"]) == 2
    assert "from 1 to 1024" in capsys.readouterr().err


def test_what_is_found_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--workers", "1", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {finding["about"]: finding["good"] for finding in findings}["round trip"]


async def test_limits_that_are_too_low_are_found() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needs_more = PoolSpec(workers=1, max_inflight=10_000, limits=Limits(memory=2**50))
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        findings = {finding.about: finding for finding in await examine(needs_more)}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert findings["descriptors"].good
    assert not findings["descriptors of a worker"].good
    assert "ulimit -n" in findings["descriptors of a worker"].advice
    assert not findings["memory"].good
