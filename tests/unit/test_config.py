"""A runtime's configuration as data: what it makes, and that all that is wrong is told, with its path."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dspex
from dspex import pool
from dspex.cli import main
from dspex.errors import ConfigError, from_dict
from dspex.pool import PoolSpec, load_pools
from dspex.router import Breaker, Hedge, Limits, Retry, Shadow
from dspex.runtime._config import VALUES, arguments_of, check_config
from dspex.runtime._config_schema import config_schema

ROOT = Path(__file__).parents[2]

FILE = """
[runtime]
timeout = 30
adapter = "json"
parsing = "dspy"
dialect = "3.4"
strategy = "fastest"

[lm]
model = "openai/gpt-4o-mini"
api_base = "http://127.0.0.1:1/v1"
api_key = { env = "SERVICE_KEY" }
temperature = 0
extra_body = { top_k = 5 }

[[pools]]
name = "cheap"
workers = 3
env = { HF_TOKEN = { env = "SERVICE_TOKEN" }, TOKENIZERS_PARALLELISM = "false" }
limits = { memory = 2_000_000_000 }

[[pools]]
preset = "optimizer"

[pools.timeouts]
call = 3600

[breaker]
failure_rate = 0.2
minimum = 10

[retry]
attempts = 2

[limits."pool:cheap"]
in_flight = 20
wait = 2

[hedge]
after = "p99"

[shadow]
share = 0.01
file = "differences.jsonl"
"""

ENVIRONMENT = {"SERVICE_KEY": "the key of the service", "SERVICE_TOKEN": "the token of the pool"}


def written(tmp_path: Path, text: str, name: str = "dspex.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def problems(config: Any, environment: Any = None) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        arguments_of(config, None, environment)
    assert caught.value.code == "bad-config"
    assert caught.value.path == caught.value.problems[0][0]
    return dict(caught.value.problems)


def test_a_file_has_all_that_a_runtime_takes(tmp_path: Path) -> None:
    made = arguments_of(tomllib.loads(FILE), tmp_path, ENVIRONMENT)
    lm = made.pop("lm")
    assert lm.settings_for_worker()["api_key"] == "the key of the service"
    assert lm.settings == {"temperature": 0, "extra_body": {"top_k": 5}}
    assert made == {
        "timeout": 30,
        "adapter": "json",
        "parsing": "dspy",
        "dialect": "3.4",
        "strategy": "fastest",
        "pools": [
            PoolSpec(
                name="cheap",
                workers=3,
                env={"HF_TOKEN": "the token of the pool", "TOKENIZERS_PARALLELISM": "false"},
                limits=pool.Limits(memory=2_000_000_000),
            ),
            PoolSpec.optimizer().replace(timeouts=PoolSpec.optimizer().timeouts.replace(call=3600)),
        ],
        "breaker": Breaker(failure_rate=0.2, minimum=10),
        "retry": Retry(attempts=2),
        "limits": {"pool:cheap": Limits(in_flight=20, wait=2)},
        "hedge": Hedge(after="p99"),
        "shadow": Shadow(share=0.01, file=str(tmp_path / "differences.jsonl")),
    }


def test_a_runtime_is_made_of_a_file_a_pyproject_or_a_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    plain = dspex.Runtime.from_toml(written(tmp_path, FILE))
    lines = [
        line.replace("[[", "[[tool.dspex.", 1)
        if line.startswith("[[")
        else line.replace("[", "[tool.dspex.", 1)
        if line.startswith("[")
        else line
        for line in FILE.splitlines()
    ]
    project = dspex.Runtime.from_toml(written(tmp_path, "\n".join(lines), "pyproject.toml"))
    data = dspex.Runtime.from_config(tomllib.loads(FILE))
    for runtime in (plain, project, data):
        assert (runtime.timeout, runtime.adapter.layout, runtime.dialect) == (30, "json", "3.4")
        assert [row.name for row in runtime.counts()] == ["native", "pool:cheap", "pool:optimizer"]
        assert "the key" not in repr(runtime)


def test_pools_may_be_a_number_and_tables_by_name_are_those_that_load_pools_reads(tmp_path: Path) -> None:
    lm = {"lm": {"model": "openai/x"}}
    assert arguments_of({**lm, "pools": 2}, None, None)["pools"] == 2
    assert "pools" not in arguments_of(lm, None, None)
    text = '[lm]\nmodel = "openai/x"\n[pool.reports]\npreset = "optimizer"\nworkers = 2\n'
    path = written(tmp_path, text)
    assert arguments_of(tomllib.loads(text), tmp_path, None)["pools"] == list(load_pools(path).values())


def test_deployments_and_rate_limits_may_stand_in_the_file() -> None:
    limits = {"requests_per_minute": 60, "tokens_per_minute": 10_000}
    config = {
        "lm": {
            "deployments": [
                {"model": "openai/a", "api_base": "http://localhost:1/v1", "weight": 3, "limits": limits},
                {
                    "model": "openai/b",
                    "api_base": "http://localhost:2/v1",
                    "concurrency": 4,
                    "name": "second",
                },
            ],
            "strategy": "ordered",
            "wait": True,
            "breaker": {"minimum": 3},
        }
    }
    assert fits(config)
    group = arguments_of(config, None, None)["lm"]
    assert [row.name for row in group.counts()] == ["openai/a@localhost:1", "second"]
    assert arguments_of({"lm": {**config["lm"], "breaker": False}}, None, None)["lm"] is not None
    one = arguments_of({"lm": {"model": "openai/a", "limits": limits}}, None, None)["lm"]
    assert one == dspex.LM("openai/a", limits=dspex.lm.RateLimit(**limits))
    secret = {"lm": {"deployments": [{"model": "openai/x", "api_key": "sk-1"}]}}
    with pytest.raises(ConfigError, match=r"lm.deployments\[0\].api_key"):
        arguments_of(secret, None, None)


@pytest.mark.parametrize("name", ["breaker", "retry", "hedge", "shadow", "sessions"])
def test_what_is_false_is_left_out(name: str) -> None:
    assert arguments_of({"lm": {"model": "openai/x"}, name: False}, None, None)[name] is None


def test_a_setting_that_none_switches_off_is_false_in_data() -> None:
    config = {"lm": {"model": "openai/x"}, "sessions": {"park_after": False}}
    assert fits(config)
    assert arguments_of(config, None, None)["sessions"].park_after is None
    with pytest.raises(ConfigError, match=r"sessions\.park_after"):
        arguments_of({**config, "sessions": {"park_after": True}}, None, None)
    with pytest.raises(ConfigError, match=r"sessions\.lease"):
        arguments_of({**config, "sessions": {"lease": False}}, None, None)


WRONG: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"lm": None}, {"lm": "it must be a table, [lm], not None"}),
    ({}, {"lm": "a runtime needs a language model"}),
    ({"lm": {}}, {"lm.model": "which there must be"}),
    ({"lm": {"model": "nobody"}}, {"lm.model": "nobody"}),
    ({"lm": {"model": "openai/x", "temprature": 1}}, {"lm.temprature": "did you mean 'temperature'?"}),
    (
        {"lm": {"model": "openai/x", "timeout": "5"}},
        {"lm.timeout": "write timeout=5, a number and not a text"},
    ),
    ({"lm": {"model": "openai/x", "callbacks": []}}, {"lm.callbacks": "give it in Python"}),
    ({"lm": {"model": "openai/x", "limits": 5}}, {"lm.limits": "a table, [lm.limits], not 5"}),
    ({"lm": {"model": "openai/x", "limits": {}}}, {"lm.limits": "limit"}),
    (
        {"lm": {"model": "openai/x", "limits": {"requests_per_minut": 5, "burst": 0}}},
        {"lm.limits.requests_per_minut": "did you mean 'requests_per_minute'?", "lm.limits.burst": "burst"},
    ),
    ({"lm": {"deployments": []}}, {"lm.deployments": "[[lm.deployments]]"}),
    (
        {"lm": {"deployments": [1, {"weight": -1, "model": "openai/x"}, {"model": "openai/x", "tmeout": 1}]}},
        {
            "lm.deployments[0]": "it must be a table of settings, not 1",
            "lm.deployments[1].weight": "a number from 0",
            "lm.deployments[2].tmeout": "did you mean 'timeout'?",
        },
    ),
    (
        {
            "lm": {
                "deployments": [{"model": "openai/x"}],
                "model": "openai/y",
                "strategy": "best",
                "breaker": 1,
            }
        },
        {
            "lm.model": "there is no such setting",
            "lm.strategy": "weighted",
            "lm.breaker": "or false for none, not 1",
        },
    ),
    (
        {"lm": {"deployments": [{"model": "openai/x"}], "breaker": {"probes": 0}}},
        {"lm.breaker.probes": "count"},
    ),
    ({"runtim": {}}, {"runtim": "there is no such section; did you mean 'runtime'?"}),
    ({"runtime": {"timeut": 1}}, {"runtime.timeut": "there is no such setting; did you mean 'timeout'?"}),
    ({"runtime": {"timeout": -1}}, {"runtime.timeout": "above 0, not -1"}),
    ({"runtime": {"strategy": "fast"}}, {"runtime.strategy": "did you mean 'fastest'?"}),
    ({"runtime": {"adapter": "yaml"}}, {"runtime.adapter": "'yaml' is not known"}),
    ({"runtime": {"dialect": 3.4}}, {"runtime.dialect": "a dialect is a text, not 3.4"}),
    ({"runtime": 1}, {"runtime": "it must be a table, [runtime], not 1"}),
    ({"pools": -1}, {"pools": "a number of workers, or tables"}),
    ({"pools": [1]}, {"pools[0]": "it must be a table of settings, not 1"}),
    ({"pools": [{}, {"limits": {"memory": 5}}]}, {"pools[1].limits.memory": "memory is a whole number from"}),
    ({"pools": [{"limits": {"memry": 5}}]}, {"pools[0].limits.memry": "did you mean 'memory'?"}),
    ({"pools": [{"wrkers": 5}]}, {"pools[0].wrkers": "did you mean 'workers'?"}),
    ({"pools": [{"memory": 5}]}, {"pools[0].memory": "limits=Limits(memory=...)"}),
    ({"pools": [{"workers": 5, "max_workers": 2}]}, {"pools[0]": "less than workers=5"}),
    ({"pools": [{"env": {"A=B": "x"}}]}, {"pools[0].env.A": "'=' cannot be in a variable's name"}),
    ({"pools": [{"name": "a"}, {"name": "a"}]}, {"pools[1].name": "pools[0] has the name 'a' too"}),
    ({"pools": [{"preset": "optimiser"}]}, {"pools[0].preset": "did you mean 'optimizer'?"}),
    ({"pool": {"a b": {}}}, {"pool.'a b'.name": "a text that matches"}),
    ({"breaker": {"failure_rate": 2}}, {"breaker.failure_rate": "a share above 0, at most 1, not 2"}),
    ({"breaker": True}, {"breaker": "a table, [breaker], or false for none, not True"}),
    ({"retry": {"atempts": 2}}, {"retry.atempts": "did you mean 'attempts'?"}),
    ({"limits": {}}, {"limits.in_flight": "it must be there"}),
    ({"limits": {"in_flight": 0}}, {"limits.in_flight": "a count from 1"}),
    ({"limits": {"in_flight": 1, "queu": 1}}, {"limits.queu": "did you mean 'queue'?"}),
    ({"limits": {"natve": {"in_flight": 1}}}, {"limits.natve": "did you mean 'native'?"}),
    ({"limits": {"native": {"wait": 1}}}, {"limits.native.in_flight": "it must be there"}),
    ({"limits": {"native": {"in_flight": 1}, "wait": 1}}, {"limits.wait": "a table, as the others"}),
    ({"hedge": {"after": "95%"}}, {"hedge.after": 'a quantile such as "p95"'}),
    ({"shadow": {}}, {"shadow.share": "it must be there"}),
    ({"sessions": {"lease": -1}}, {"sessions.lease": "seconds"}),
    ({"sessions": {"store": 7, "classes": "a"}}, {"sessions.store": "path", "sessions.classes": "list"}),
    ({"sessions": {"stores": "a"}}, {"sessions.stores": "store"}),
    ({"shadow": {"share": 2}}, {"shadow.share": "a number from 0 to 1"}),
]


@pytest.mark.parametrize(("config", "expected"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_told_with_its_path_and_what_is_allowed(
    config: Any, expected: dict[str, str]
) -> None:
    if "lm" not in config and config:
        config = {"lm": {"model": "openai/x"}, **config}
    found = problems(config)
    assert found.keys() == expected.keys()
    for path, what in expected.items():
        assert what in found[path]


def test_one_error_tells_all_that_is_wrong_in_the_file(tmp_path: Path) -> None:
    text = (
        '[runtime]\ntimeut = 1\n[lm]\nmodel = "openai/x"\n[[pools]]\nworkers = 0\n[pools.limits]\nnice = 99\n'
    )
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime.from_toml(path)
    error = caught.value
    assert [where for where, _ in error.problems] == [
        "runtime.timeut",
        "pools[0].workers",
        "pools[0].limits.nice",
    ]
    assert str(error).startswith(f"{path}: 3 settings are wrong\n  runtime.timeut: there is no such setting;")
    assert error.file == str(path)
    again = from_dict(error.to_dict())
    assert isinstance(again, ConfigError)
    assert [tuple(pair) for pair in again.problems] == list(error.problems)


def lm(**section: Any) -> dict[str, Any]:
    return {"lm": {"model": "openai/x", **section}}


SECRET = "sk-this-must-not-be-seen"
LITERAL: list[tuple[str, dict[str, Any]]] = [
    ("lm.api_key", {"lm": {"model": "openai/x", "api_key": SECRET}}),
    ("lm.api_base", {"lm": {"model": "openai/x", "api_base": f"https://me:{SECRET}@host/v1"}}),
    ("lm.extra_body.h.Authorization", lm(extra_body={"h": {"Authorization": SECRET}})),
    ("lm.extra_body.keys[0].token", lm(extra_body={"keys": [{"token": SECRET}]})),
    ("pools[0].env.HF_TOKEN", {"pools": [{"env": {"HF_TOKEN": SECRET}}]}),
    ("pools[0].env.HTTPS_PROXY", {"pools": [{"env": {"HTTPS_PROXY": f"http://me:{SECRET}@proxy"}}]}),
    ("pool.a.env.AWS_SECRET_ACCESS_KEY", {"pool": {"a": {"env": {"AWS_SECRET_ACCESS_KEY": SECRET}}}}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "config"), LITERAL, ids=[row[0] for row in LITERAL])
def test_a_secret_in_a_configuration_is_refused_and_not_shown(path: str, config: Any) -> None:
    config = {"lm": {"model": "openai/x"}, **config}
    found = problems(config)
    assert path in found
    assert SECRET not in str(found)


@pytest.mark.parametrize("name", ["", None, 5, "A=B", "A\0"])
def test_a_reference_names_a_variable(name: Any) -> None:
    config = {"lm": {"model": "openai/x", "api_key": {"env": name}}}
    assert problems(config) == {
        "lm.api_key": 'a reference names an environment variable; write { env = "NAME" }'
    }


def test_a_variable_that_is_not_set_is_told_where_it_is_needed() -> None:
    config = {"lm": {"model": "openai/x", "api_key": {"env": "NOT_THERE"}}}
    check_config(config)
    assert problems(config, {}) == {"lm.api_key": "the environment variable NOT_THERE is not set"}


@pytest.mark.parametrize(
    ("text", "code"),
    [(None, "no-settings-file"), ("[lm", "bad-settings-file"), ("tool = 1", "bad-settings-file")],
)
def test_a_file_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path, text: Any, code: str) -> None:
    path = tmp_path / "pyproject.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime.from_toml(path)
    assert caught.value.code == code
    assert main(["config", "check", str(path)]) == 2


def test_the_command_says_all_that_is_wrong_or_that_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, FILE)
    assert main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: it can be used\n"
    assert main(["config", "check", "--env", str(path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: lm.api_key: the environment variable SERVICE_KEY is not set",
        f"{path}: pools[0].env.HF_TOKEN: the environment variable SERVICE_TOKEN is not set",
    ]
    wrong = written(tmp_path, '[lm]\nmodel = "openai/x"\n[retry]\nattempts = 0\n', "wrong.toml")
    assert main(["config", "check", "--json", str(wrong)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in told["problems"]] == ["retry.attempts"]


# -- the schema ---------------------------------------------------------------------------------------


def fits(config: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(config_schema()).is_valid(config))


def test_the_published_schema_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    published = (ROOT / "docs" / "config.schema.json").read_text()
    assert capsys.readouterr().out == published, "run `dspex config schema > docs/config.schema.json`"
    jsonschema.Draft202012Validator.check_schema(json.loads(published))


def test_the_schema_has_each_section_and_each_setting_with_words() -> None:
    schema = config_schema()
    assert fits(tomllib.loads(FILE))
    undescribed = [
        f"{name}.{setting}"
        for name, (kind, _) in VALUES.items()
        for setting in schema["properties"][name]["anyOf"][1]["properties"]
        if "description" not in schema["properties"][name]["anyOf"][1]["properties"][setting]
    ]
    assert undescribed == []
    assert [field.name for field in dataclasses.fields(PoolSpec)] == sorted(
        set(schema["properties"]["pools"]["anyOf"][1]["items"]["properties"]) - {"preset"},
        key=[field.name for field in dataclasses.fields(PoolSpec)].index,
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"lm": {}},
        {"lm": {"model": "openai/x", "api_key": SECRET}},
        {"lm": {"model": "openai/x"}, "runtim": {}},
        {"lm": {"model": "openai/x"}, "runtime": {"strategy": "fast"}},
        {"lm": {"model": "openai/x"}, "pools": [{"limits": {"memry": 5}}]},
        {"lm": {"model": "openai/x"}, "retry": {"attempts": "3"}},
        {"lm": {"model": "openai/x"}, "retry": True},
        {"lm": {"model": "openai/x"}, "shadow": {}},
    ],
)
def test_the_schema_refuses_names_types_and_secrets_that_are_wrong(config: Any) -> None:
    assert not fits(config)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "runtime", "lm", "pools", "pool", "breaker", "retry", "hedge", "shadow", "timeout", "adapter", "parsing",
    "dialect", "strategy", "model", "api_key", "env", "name", "workers", "limits", "memory", "preset",
    "python", "share", "file", "attempts", "failure_rate", "tools", "n", "stop", "max_response_bytes",
    "preload", "self", "cls",
)  # fmt: skip
tables = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)
configs = st.dictionaries(st.sampled_from(NAMES), values | tables | st.lists(tables, max_size=2), max_size=4)


@given(config=configs)
@settings(max_examples=500)
def test_whatever_a_file_says_it_is_used_or_refused_with_paths(config: Any) -> None:
    refused: list[ConfigError] = []
    try:
        arguments_of(config, None, {})
    except ConfigError as error:
        refused.append(error)
    else:
        assert fits(config)
    for each in refused:
        assert (each.code, bool(each.problems)) == ("bad-config", True)
        assert str(each).encode()
