from __future__ import annotations

from typing import Any

import pytest

from dspex.errors import ConfigError
from dspex.pool import PoolSpec


@pytest.mark.parametrize(
    ("settings", "path", "says"),
    [
        ({"workers": 0}, "pool.general.workers", "from 1 to 1024"),
        ({"workers": "2"}, "pool.general.workers", "a whole number"),
        ({"name": "gpu", "max_inflight": 10_001}, "pool.gpu.max_inflight", "from 1 to 10000"),
        ({"queue": -1}, "pool.general.queue", "from 0"),
        ({"start_timeout": 0}, "pool.general.start_timeout", "a number of seconds above 0 to"),
        ({"call_timeout": float("nan")}, "pool.general.call_timeout", "above 0"),
        ({"name": "a b"}, "pool.a b.name", "that matches"),
        ({"worker": 3}, "pool.general.worker", "the settings are: name, workers"),
        ({"python": "/no/such/python"}, "pool.general.python", "no executable file"),
        ({"preload": "numpy"}, "pool.general.preload", "a list"),
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


def test_several_mistakes_are_all_named() -> None:
    with pytest.raises(ConfigError, match="also wrong: queue"):
        PoolSpec(workers=0, queue=-1)


def test_a_wrong_environment_variable_does_not_show_its_value() -> None:
    with pytest.raises(ConfigError) as refused:
        PoolSpec(env={"TOKEN": b"hunter2"})  # type: ignore[dict-item]
    assert "hunter2" not in str(refused.value)
    assert refused.value.path == "pool.general.env.TOKEN"


def test_the_environment_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(PoolSpec(env={"TOKEN": "hunter2"}))
    assert "TOKEN" in repr(PoolSpec(env={"TOKEN": "hunter2"}))


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PoolSpec().workers = 5  # type: ignore[misc]


@pytest.mark.parametrize("setting", PoolSpec.model_fields)
def test_every_setting_can_say_what_it_may_be(setting: str) -> None:
    assert PoolSpec.allowed(setting).startswith(f"{setting} is ")


def test_the_most_workers_are_not_fewer_than_the_least() -> None:
    with pytest.raises(ConfigError, match="less than workers=4"):
        PoolSpec(workers=4, max_workers=3)
    assert PoolSpec(workers=4, max_workers=4).max_workers == 4


def test_processors_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="the processors here are"):
        PoolSpec(cpus=[100_000])


@pytest.mark.parametrize("preset", [PoolSpec.general, PoolSpec.optimizer, PoolSpec.neural])
def test_a_preset_is_a_spec_whose_settings_can_be_changed(preset: Any) -> None:
    assert preset().name == preset.__name__
    changed = preset(workers=3, call_timeout=1.0)
    assert (changed.name, changed.workers, changed.call_timeout) == (preset.__name__, 3, 1.0)
