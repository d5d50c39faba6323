from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from dspex.errors import ConfigError
from dspex.pool import Limits, PoolSpec, Recycling, Restart, Scaling, Timeouts, _spec, load_pools


@pytest.mark.parametrize(
    ("settings", "path", "says"),
    [
        ({"workers": 0}, "pool.general.workers", "from 1 to 1024"),
        ({"workers": "2"}, "pool.general.workers", "a whole number"),
        ({"name": "gpu", "max_inflight": 10_001}, "pool.gpu.max_inflight", "from 1 to 10000"),
        ({"queue": -1}, "pool.general.queue", "from 0"),
        ({"name": "a b"}, "pool.a b.name", "that matches"),
        ({"worker": 3}, "pool.general.worker", "the settings are: name, workers"),
        ({"python": "/no/such/python"}, "pool.general.python", "no executable file"),
        ({"preload": "numpy"}, "pool.general.preload", "a list"),
        ({"timeouts": {"call": 3}}, "pool.general.timeouts", "write timeouts=Timeouts(call=3)"),
        ({"limits": Timeouts()}, "pool.general.limits", "limits is Limits(memory, nice, cpus)"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_path_and_what_is_allowed(
    settings: dict[str, Any], path: str, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        PoolSpec(**settings)

    assert refused.value.path == path
    assert path in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("group", "settings", "path", "says"),
    [
        (Timeouts, {"heartbeat": 0.5}, "timeouts.heartbeat", "above 0.5"),
        (Timeouts, {"start": 0}, "timeouts.start", "a number of seconds above 0 to"),
        (Timeouts, {"call": float("nan")}, "timeouts.call", "above 0"),
        (Timeouts, {"cal": 3}, "timeouts.cal", "did you mean 'call'? the settings are: call, start"),
        (Limits, {"nice": 20, "cpus": [-1]}, "limits.nice", "from 0 to 19 (also wrong: cpus)"),
        (Limits, {"memory": 1}, "limits.memory", "from 67108864"),
        (Recycling, {"requests": 0}, "recycling.requests", "from 1"),
        (Restart, {"max": -1}, "restart.max", "from 0"),
        (Scaling, {"up_after": 0}, "scaling.up_after", "above 0"),
    ],
)
def test_a_wrong_setting_of_a_group_is_refused_where_the_group_is_made(
    group: Any, settings: dict[str, Any], path: str, says: str
) -> None:
    for make in (group, group().replace):
        with pytest.raises(ConfigError) as refused:
            make(**settings)
        assert (refused.value.code, refused.value.path) == ("bad-pool-setting", path)
        assert says in refused.value.hint


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("nice", "write limits=Limits(nice=...);"),
        ("memory", "write limits=Limits(memory=...) or recycling=Recycling(memory=...);"),
        ("call", "write timeouts=Timeouts(call=...);"),
    ],
)
def test_a_setting_of_a_group_given_beside_it_is_refused_with_its_group(setting: str, hint: str) -> None:
    wrong: dict[str, Any] = {setting: 3}
    with pytest.raises(ConfigError) as refused:
        PoolSpec(**wrong)
    assert refused.value.hint.startswith(hint)


def test_several_mistakes_are_all_named() -> None:
    with pytest.raises(ConfigError, match="also wrong: queue"):
        PoolSpec(workers=0, queue=-1)


def test_a_wrong_environment_variable_does_not_show_its_value() -> None:
    wrong: dict[str, Any] = {"env": {"TOKEN": b"hunter2"}}
    with pytest.raises(ConfigError) as refused:
        PoolSpec(**wrong)
    assert "hunter2" not in str(refused.value)
    assert refused.value.path == "pool.general.env.TOKEN"


def test_the_environment_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(PoolSpec(env={"TOKEN": "hunter2"}))
    assert "TOKEN" in repr(PoolSpec(env={"TOKEN": "hunter2"}))


def test_a_spec_cannot_be_changed() -> None:
    for group in (PoolSpec(), Timeouts(), Limits(), Recycling(), Restart(), Scaling()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(group, group.settings()[0], 5)


def test_equal_specs_are_one_key_and_survive_pickle_and_copy() -> None:
    spec = PoolSpec.optimizer(env={"A": "b"}, limits=Limits(cpus=[0]))
    for twin in (pickle.loads(pickle.dumps(spec)), copy.copy(spec), copy.deepcopy(spec)):
        assert {spec: 1}[twin] == 1


def test_what_replace_takes_is_what_a_spec_has() -> None:
    for kind in (PoolSpec, Timeouts, Limits, Recycling, Restart, Scaling):
        changes = inspect.signature(kind.replace).parameters["changes"].annotation
        (name,) = re.findall(r"Unpack\[(\w+)\]", changes)
        typed = getattr(kind, name, None) or getattr(_spec, name)
        assert tuple(typed.__annotations__) == kind.settings()
        assert typed.__annotations__.keys() == kind.__annotations__.keys()


@pytest.mark.parametrize("setting", [*PoolSpec.settings(), "limits.cpus", "timeouts.call"])
def test_every_setting_can_say_what_it_may_be(setting: str) -> None:
    assert PoolSpec.allowed(setting).startswith(f"{setting.rpartition('.')[2]} is ")


def test_the_most_workers_are_not_fewer_than_the_least() -> None:
    with pytest.raises(ConfigError, match="less than workers=4"):
        PoolSpec(workers=4, max_workers=3)
    assert PoolSpec(workers=4, max_workers=4).max_workers == 4


def test_processors_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="the processors here are"):
        Limits(cpus=[100_000])


@pytest.mark.parametrize("preset", [PoolSpec.general, PoolSpec.optimizer, PoolSpec.neural])
def test_a_preset_is_a_spec_whose_settings_can_be_changed(preset: Any) -> None:
    assert preset().name == preset.__name__
    changed = preset(workers=3, timeouts=preset().timeouts.replace(call=1.0))
    assert (changed.name, changed.workers, changed.timeouts.call) == (preset.__name__, 3, 1.0)
    assert changed.timeouts.cancel == preset().timeouts.cancel


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"workers": "4"}, "write workers=4, a number and not a text; workers is a whole number from 1"),
        ({"max_workers": "4"}, "write max_workers=4, a number"),
        ({"workers": "many"}, "workers is a whole number from 1"),
        ({"workers": True}, "workers is a whole number from 1"),
        ({"workers": 2.5}, "workers is a whole number from 1"),
        ({"workers": None}, "workers is a whole number from 1"),
        ({"workers": 10**5000}, "workers is a whole number from 1"),
        ({"queue": 2**63}, "queue is a whole number from 0"),
        ({"env": "A=B"}, 'write env={"NAME": "..."}'),
        ({"env": ["A=B"]}, 'write env={"NAME": "..."}'),
        ({"env": None}, 'write env={"NAME": "..."}'),
        ({"preload": "json"}, "write preload=('json',)"),
        ({"preload": ("no module",)}, "preload is a list"),
        ({"preload": ("json\0",)}, "preload is a list"),
        ({"preload": "json,numpy"}, "preload is a list"),
        ({"preload": None}, "preload is a list"),
        ({"python": Path("/usr/bin/python")}, "write python=str(...)"),
        ({"python": "/usr\0/bin/python"}, "python is a text"),
        ({"python": "/usr/bin"}, "python is a text"),
        ({"name": 3}, "name is a text"),
        ({"name": "\ud800"}, "name is a text"),
        ({"start": "forkserv"}, "did you mean 'forkserver'?; start is one of"),
        ({"start": 3}, "start is one of"),
        ({"self": 3}, "the settings are"),
        ({"\ud800": 3}, "the settings are"),
    ],
)  # fmt: skip
def test_what_is_no_value_of_a_setting_is_one_error_with_what_to_write(
    given: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        PoolSpec(**given)
    assert refused.value.code == "bad-pool-setting"
    assert hint in refused.value.hint
    assert len(str(refused.value).encode()) < 1000


@pytest.mark.parametrize(
    ("group", "given", "hint"),
    [
        (Timeouts, {"call": "2.5"}, "write call=2.5, a number"),
        (Timeouts, {"call": True}, "call is a number of seconds above 0"),
        (Timeouts, {"call": float("inf")}, "call is a number of seconds above 0"),
        (Timeouts, {"heartbeat": "0.2"}, "heartbeat is a number of seconds above 0.5"),
        (Restart, {"max": 2**63}, "max is a whole number from 0"),
        (Limits, {"memory": "1GB"}, "memory is a whole number from"),
        (Limits, {"cpus": "zero"}, "cpus is a list"),
        (Limits, {"cpus": 2.0}, "cpus is a list"),
        (Limits, {"cpus": True}, "cpus is a list"),
        (Limits, {"cpus": [True]}, "cpus is a list"),
        (Limits, {"self": 3}, "the settings are: memory, nice, cpus"),
    ],
)  # fmt: skip
def test_what_is_no_value_of_a_group_s_setting_is_one_error_with_what_to_write(
    group: Any, given: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        group(**given)
    assert refused.value.hint.startswith(hint)


def test_a_processor_given_alone_is_hinted_as_a_list_of_one() -> None:
    processor = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    given: Any = str(processor)
    with pytest.raises(ConfigError) as refused:
        Limits(cpus=given)
    assert f"write cpus=({processor},)" in refused.value.hint


@pytest.mark.parametrize(
    ("env", "path", "says"),
    [
        ({"A=hunter2": "hunter2"}, "pool.general.env.A", "'=' cannot be in a variable's name"),
        ({"": "hunter2"}, "pool.general.env.", "a variable has a name"),
        ({"A\0": "hunter2"}, "pool.general.env.A\\0", "a NUL character cannot be in it"),
        ({"A": "hunter2\0"}, "pool.general.env.A", "a NUL character cannot be in it"),
        ({"A\ud800": "hunter2"}, "pool.general.env.A\\ud800", "half of a surrogate pair"),
        ({"A": "hunter2\udc80"}, "pool.general.env.A", "half of a surrogate pair"),
        ({"A": 3}, "pool.general.env.A", "it is no text"),
        ({3: "hunter2"}, "pool.general.env.3", "it is no text"),
    ],
)
def test_an_environment_that_no_process_can_have_is_refused_by_its_name_without_its_value(
    env: Any, path: str, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        PoolSpec(env=env)
    assert refused.value.path == path
    assert says in refused.value.message
    assert "hunter2" not in str(refused.value.to_dict())


def test_an_environment_in_a_file_is_refused_as_one_in_code_is(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    for line in ['"A=B" = "x"', '"" = "x"', 'A = "x\\u0000"', '"A\\u0000" = "x"']:
        file.write_text(f"[pool.a.env]\n{line}\n")
        with pytest.raises(ConfigError) as refused:
            load_pools(file)
        assert refused.value.path.startswith("pool.a.env.")


def test_replace_makes_another_spec_and_checks_it_as_a_new_one() -> None:
    spec = PoolSpec.optimizer(env={"A": "b"})
    slip: dict[str, Any] = {"wrkers": 3}
    assert spec.replace(workers=3) == PoolSpec.optimizer(env={"A": "b"}, workers=3)
    assert spec.replace() == spec
    assert spec.workers == 1
    with pytest.raises(ConfigError) as refused:
        spec.replace(workers=0)
    assert refused.value.path == "pool.optimizer.workers"
    with pytest.raises(ConfigError, match="did you mean 'workers'"):
        spec.replace(**slip)
    with pytest.raises(ConfigError, match="less than workers=4"):
        PoolSpec(workers=2, max_workers=3).replace(workers=4)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace came with Python 3.13")
def test_a_copy_with_changes_is_checked_as_a_new_spec_is() -> None:
    replace: Any = vars(copy)["replace"]
    assert replace(PoolSpec(), workers=3) == PoolSpec(workers=3)
    for wrong in ({"workers": 0}, {"wrkers": 3}):
        with pytest.raises(ConfigError):
            replace(PoolSpec(), **wrong)


TEXTS = st.text(st.characters(), max_size=8) | st.sampled_from(["A=B", "\0", "\ud800", "1", "nan", "json"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=4)
    | st.sampled_from([10**4000, -(10**400), 2**63, Path("/"), object()]),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@hypothesis.given(st.dictionaries(st.sampled_from([*PoolSpec.settings()]) | TEXTS, VALUES, max_size=4))
def test_settings_make_a_spec_or_a_config_error_that_can_be_printed(given: dict[str, Any]) -> None:
    makers: list[Any] = [PoolSpec, PoolSpec.neural, PoolSpec().replace]
    for make in makers:
        try:
            make(**given)
        except ConfigError as error:
            str(error).encode()
            error.path.encode()


@settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.sampled_from([Timeouts, Limits, Recycling, Restart, Scaling]),
    st.dictionaries(
        st.sampled_from(["call", "memory", "cpus", "nice", "age", "max"]) | TEXTS, VALUES, max_size=4
    ),
)
def test_settings_make_a_group_or_a_config_error_that_can_be_printed(
    kind: Any, given: dict[str, Any]
) -> None:
    try:
        kind(**given)
    except ConfigError as error:
        str(error).encode()
        error.path.encode()


@settings(max_examples=200, deadline=None)
@hypothesis.given(st.dictionaries(TEXTS, TEXTS | VALUES, max_size=3))
def test_an_environment_makes_a_spec_that_a_process_takes_or_a_config_error(env: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        for name, value in PoolSpec(env=env).env.items():
            assert name
            assert "=" not in name
            assert "\0" not in name + value
            (name + value).encode()
