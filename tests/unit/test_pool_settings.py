from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.errors import ConfigError
from dspex.pool import Limits, PoolSpec, Timeouts, load_pools

EVERYTHING = """
title = "what others keep in the file is theirs"

[pool.answers]
workers = 3
max_workers = 5
preload = ["json", "decimal"]
[pool.answers.timeouts]
start = 20
[pool.answers.env]
TOKENIZERS_PARALLELISM = "false"

[pool.reports]
preset = "optimizer"
timeouts.call = 100.5
limits = { cpus = [0] }

[pool.plain]
"""


def write(folder: Path, text: str, name: str = "service.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_a_file_has_many_pools_and_each_is_what_keyword_arguments_make(tmp_path: Path) -> None:
    file = write(tmp_path, EVERYTHING)
    answers = PoolSpec(
        name="answers",
        workers=3,
        max_workers=5,
        timeouts=Timeouts(start=20),
        preload=("json", "decimal"),
        env={"TOKENIZERS_PARALLELISM": "false"},
    )
    assert load_pools(file) == {
        "answers": answers,
        "reports": PoolSpec.optimizer(
            name="reports",
            timeouts=Timeouts(call=100.5, cancel=30),
            limits=Limits(nice=5, cpus=[0]),
        ),
        "plain": PoolSpec(name="plain"),
    }
    assert list(load_pools(str(file))) == ["answers", "reports", "plain"]
    assert PoolSpec.load(file, "answers") == answers


def test_a_file_without_pools_has_none(tmp_path: Path) -> None:
    assert load_pools(write(tmp_path, "[lm]\nmodel = 'x'\n")) == {}


def test_in_a_pyproject_the_tables_are_the_tools(tmp_path: Path) -> None:
    text = "[pool.not_ours]\nanything = 1\n[tool.dspex.pool.answers]\nworkers = 1\n"
    assert load_pools(write(tmp_path, text, "pyproject.toml")) == {
        "answers": PoolSpec(name="answers", workers=1)
    }


def test_an_interpreter_is_looked_for_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to(sys.executable)
    file = write(tmp_path, '[pool.other]\npython = "venv/python"\n')
    monkeypatch.chdir("/")
    assert PoolSpec.load(file, "other").python == str(tmp_path / "venv" / "python")
    absolute = write(tmp_path, f'[pool.other]\npython = "{sys.executable}"\n')
    assert PoolSpec.load(absolute, "other").python == sys.executable


@pytest.mark.parametrize(
    ("text", "path", "message", "hint"),
    [
        ("[pool.reports]\nworkers = 0", "pool.reports.workers", "0 is refused", "from 1 to 1024"),
        ("[pool.reports]\nworkers = '2'", "pool.reports.workers", "'2' is refused", "a whole number"),
        ("[pool.reports]\nworker = 2", "pool.reports.worker", "no such setting", "did you mean 'workers'?"),
        ("[pool.reports]\nxyzzy = 2", "pool.reports.xyzzy", "no such setting", "the settings are: name"),
        ("[pool.reports]\nstart = 'fork'", "pool.reports.start", "'fork' is refused", "one of 'auto'"),
        ("[pool.reports]\nenv = { A = 1 }", "pool.reports.env.A", "it is no text", "variables are text"),
        ("[pool.reports]\npreset = 'optimise'", "pool.reports.preset", "'optimise'", "did you mean 'optim"),
        ("[pool.reports]\npreset = 3", "pool.reports.preset", "3 is refused", "one of 'general'"),
        ("[pool.reports]\npreset = []", "pool.reports.preset", "[] is refused", "one of 'general'"),
        ("[pool.reports]\nworkers = " + "[" * 80 + "]" * 80, "pool.reports.workers", "a list is", "from 1"),
        ("[pool.reports]\nself = 1", "pool.reports.self", "no such setting", "the settings are"),
        ("[pool.reports]\npreset = 'neural'\ncls = 1", "pool.reports.cls", "no such setting", "the settings"),
        ("[pool.reports]\nname = 'b'", "pool.reports.name", "the name of its table", "leave it out"),
        ("[pool.'a b']\nworkers = 1", "pool.a b.name", "'a b' is refused", "that matches"),
        ("[pool]\nworkers = 1", "pool.workers", "is not a table", "[pool.reports]"),
        ("pool = 3", "pool", "is not a table", "[pool.reports]"),
        ("[pool.b]\n[pool.reports]\nqueue = -1\nstart = 1", "pool.reports.queue", "-1", "also wrong: start"),
        ("[pool.a.limits]\nnice = 20", "pool.a.limits.nice", "20 is refused", "nice is a whole number"),
        ("[pool.a.limits]\nnise = 2", "pool.a.limits.nise", "no such setting", "did you mean 'nice'?"),
        ("[pool.a]\nlimits = 2", "pool.a.limits", "2 is refused", "limits is Limits(memory, nice, cpus)"),
        ("[pool.a.timeouts]\ncall = '2'", "pool.a.timeouts.call", "'2' is refused", "write call=2, a number"),
        ("[pool.a]\nnice = 2", "pool.a.nice", "no such setting", "write limits=Limits(nice=...)"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_with_file_path_and_what_is_allowed(
    tmp_path: Path, text: str, path: str, message: str, hint: str
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load_pools(file)
    error = refused.value
    assert (error.code, error.file, error.path) == ("bad-pool-setting", str(file), path)
    assert error.message.startswith(f"{file}: {path}")
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, "no-settings-file", "No such file"),
        (b"\xff\xfe", "no-settings-file", "utf-8"),
        (b"[pool.a\n", "bad-settings-file", "line 1"),
        (b"[pool.a]\n[pool.a]\n", "bad-settings-file", "twice"),
        (b"x = " + b"[" * 5000, "bad-settings-file", "is nested too deeply"),
        (b"x = " + b"1" * 5001, "bad-settings-file", "digits"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(
    tmp_path: Path, content: bytes | None, code: str, says: str
) -> None:
    file = tmp_path / "service.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_pools(file)
    assert refused.value.code == code
    assert says in refused.value.message


def test_a_pool_that_is_not_there_is_asked_for_by_a_name_that_is(tmp_path: Path) -> None:
    file = write(tmp_path, EVERYTHING)
    with pytest.raises(ConfigError) as refused:
        PoolSpec.load(file, "report")
    assert refused.value.code == "no-such-pool"
    assert refused.value.hint == "did you mean 'reports'? it has: answers, reports, plain"


def test_no_value_of_an_environment_variable_is_in_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "[pool.a]\nenv = { KEY = ['sk-secret'] }\nworkers = 0")
    with pytest.raises(ConfigError) as refused:
        load_pools(file)
    details: dict[str, Any] = refused.value.to_dict()
    assert "sk-secret" not in str(refused.value) + str(details)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", 3, None, b"x"], ids=repr)
def test_a_path_that_is_none_is_a_config_error_that_can_be_printed(path: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        load_pools(path)
    assert refused.value.code == "no-settings-file"
    str(refused.value).encode()


KEYS = st.sampled_from(
    [
        *PoolSpec.settings(),
        "limits.nice",
        "timeouts.call",
        "recycling",
        "preset",
        "self",
        "cls",
        '""',
        '"A=B"',
        "a.b.c",
        '"\\u0000"',
    ]
)
LITERALS = st.sampled_from(
    ["0", "1", "nan", "-inf", "1e400", "true", '""', "'json'", '"\\u0000"', "[]", "[[1], {}]", "{ A = 1 }",
     '{ "A=B" = "x" }', "1979-05-27", "9" * 5001, "[" * 2000 + "]" * 2000, "'optimizer'", "'spawn'",
     '"\\ud800"']
)  # fmt: skip
LINES = st.builds("{} = {}".format, KEYS, LITERALS) | st.sampled_from(
    ["[pool.a]", "[pool.a.env]", "[pool.a.limits]", "pool = 3"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=5).map("\n".join) | st.text(max_size=40))
def test_a_text_of_settings_makes_specs_or_a_config_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "service.toml")
        file.write_bytes(f"[pool.b]\n{text}".encode(errors="surrogatepass"))
        try:
            pools = load_pools(file)
        except ConfigError as error:
            str(error).encode()
        else:
            assert all(isinstance(spec, PoolSpec) for spec in pools.values())
