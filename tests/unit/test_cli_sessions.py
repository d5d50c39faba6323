"""`dspex sessions`: what a store has, as the shell sees it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import dspex
from dspex.cli import main
from dspex.testing import ScriptedLM


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = str(tmp_path / "s.sqlite3")

    async def fill() -> None:
        async with dspex.Runtime(ScriptedLM("x"), sessions=path) as runtime:
            for name, user in (("one", "ada"), ("two", "bob")):
                async with runtime.session(id=name, create=True, user=user) as s:
                    s.state["secret"] = {"key": "xyzzy"}
                    s.history.append({"question": "plugh?"})

    asyncio.run(fill())
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["sessions", *arguments])
    return code, capsys.readouterr().out


def test_sessions_are_listed_by_user_and_as_json(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "list", "--store", store)
    assert (code, len(out.splitlines())) == (0, 3)
    assert out.splitlines()[0].split()[:3] == ["id", "pool", "user"]
    _, out = run(capsys, "list", "--store", store, "--user", "ada", "--json")
    (info,) = json.loads(out)
    assert (info["session_id"], info["user"], info["turns"], info["owner"]) == ("one", "ada", 1, None)
    assert run(capsys, "list", "--store", store, "--pool", "other") == (0, "there are no sessions\n")


def test_a_session_is_shown_without_its_values_unless_they_are_asked_for(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = run(capsys, "show", "one", "--store", store)
    assert code == 0
    assert "secret: version 1" in out
    assert "xyzzy" not in out + run(capsys, "show", "one", "--store", store, "--json")[1]
    assert "plugh" not in out
    _, out = run(capsys, "show", "one", "--store", store, "--values")
    assert "xyzzy" in out
    assert "plugh?" in out
    _, out = run(capsys, "show", "one", "--store", store, "--values", "--json")
    assert json.loads(out)["last_turns"] == [{"question": "plugh?"}]
    code, out = run(capsys, "show", "three", "--store", store)
    assert (code, out) == (1, "there is no session 'three'\n")


def test_a_session_is_dropped_with_all_that_it_has(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "drop", "one", "three", "--store", store)
    assert (code, out.splitlines()) == (1, ["one: dropped", "three: there is no such session"])
    assert run(capsys, "drop", "two", "--store", store, "--json") == (0, '{\n  "two": true\n}\n')
    assert run(capsys, "list", "--store", store) == (0, "there are no sessions\n")


def test_a_store_that_is_none_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken"
    path.write_bytes(b"no database" * 200)
    assert main(["sessions", "list", "--store", str(path)]) == 2
    assert "is no database" in capsys.readouterr().err
    assert main(["sessions", "list", "--store", "ftp://somewhere"]) == 2
    assert "names no store" in capsys.readouterr().err
