"""A runtime's settings out of a mapping, such as a TOML file has.

::

    [runtime]     timeout, adapter, parsing, dialect, strategy
    [lm]          model, and what else dspex.LM takes; [lm.limits] dspex.lm.RateLimit,
                  [lm.cache] dspex.lm.Cache; or [[lm.deployments]], and what else dspex.LM.group takes
    [[pools]]     preset, and what dspex.PoolSpec takes; or [pool.<name>], as `dspex.pool.load_pools` reads it
    [breaker]     dspex.router.Breaker         `breaker = false` is none; so it is for those below
    [retry]       dspex.router.Retry
    [limits]      dspex.router.Limits of every target, or [limits.<target>] of one
    [hedge]       dspex.router.Hedge
    [shadow]      dspex.router.Shadow
    [sessions]    dspex.sessions.SessionSettings; its store is a file

Nothing is believed and nothing is guessed: each setting is tried alone against the rule of the class that
takes it, so that one error tells all that is wrong, each with its path and that class's own words. Only what
has passed alone is tried together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from dspex import dialects
from dspex._timeouts import check_seconds, shown
from dspex.adapters import Adapter
from dspex.errors import ConfigError, did_you_mean
from dspex.router import Breaker, Hedge, Limits, Retry, Shadow, Strategy
from dspex.runtime._arguments import pool_specs
from dspex.runtime._config_lm import lm_of
from dspex.runtime._config_problems import Problems, inside
from dspex.runtime._config_secrets import resolved
from dspex.runtime._config_values import value_of
from dspex.sessions import SessionSettings

__all__ = ["VALUES", "arguments_of", "check_config"]


def _strategy(value: Any) -> None:
    known = get_args(Strategy)
    if value not in known:
        near = did_you_mean(value, known) if isinstance(value, str) else ""
        raise ConfigError(
            f"there is no strategy {shown(value)}",
            code="bad-config",
            hint=f"{near}use {', '.join(map(repr, known))}",
        )


def _dialect(value: Any) -> None:
    if not isinstance(value, str):  # 3.4 without quotes is a number
        raise ConfigError(
            f"a dialect is a text, not {shown(value)}",
            code="bad-config",
            hint=f'write dialect = "{dialects.KNOWN[-1]}"',
        )
    dialects.check(value)


_RUNTIME: Final[Mapping[str, Callable[[Any], object]]] = {
    "timeout": check_seconds,
    "adapter": Adapter.of,
    "parsing": lambda value: Adapter.of("chat", value),
    "dialect": _dialect,
    "strategy": _strategy,
}
"""The settings of `[runtime]`, each with what refuses a wrong value."""

VALUES: Final[Mapping[str, tuple[type[Any], Mapping[str, Any]]]] = {
    "breaker": (Breaker, {}),
    "retry": (Retry, {}),
    "hedge": (Hedge, {}),
    "shadow": (Shadow, {"share": 0.0}),
    "sessions": (SessionSettings, {}),
}
"""Sections that are one value: its class, and what that cannot be made without."""

_PATHS: Final = frozenset({"shadow.file", "sessions.store"})
"""Settings that are files, which stand beside the configuration."""

_SECTIONS: Final = ("runtime", "lm", "pools", "pool", "limits", *VALUES)


def check_config(config: Mapping[str, Any], directory: Path | None = None, where: str = "") -> None:
    """Look at a configuration without the environment and without making anything of it.

    Raises:
        ConfigError: If anything in it is wrong (`bad-config`); its `problems` has all of that.
    """
    arguments_of(config, directory, None, where=where)


def arguments_of(
    config: Any,
    directory: Path | None,
    environment: Mapping[str, str] | None,
    *,
    where: str = "",
) -> dict[str, Any]:
    """The arguments of a `Runtime` that a configuration says.

    Args:
        config: The sections.
        directory: What paths in it are relative to; None for the working directory.
        environment: The environment variables; None to leave references to them unread.
        where: The file it came from, for the error.

    Raises:
        ConfigError: If anything in it is wrong (`bad-config`); its `problems` has all of that.
    """
    problems = Problems()
    made: dict[str, Any] = {}
    if not isinstance(config, Mapping):
        problems.of_kind("", config, "a table of sections")
        raise problems.error(where)
    for name in config:
        if name not in _SECTIONS:
            problems.unknown("", str(name), _SECTIONS, "section")
    if (section := _table(config, "runtime", problems)) is not None:
        made |= _settings_of_runtime(section, problems)
    section = _table(config, "lm", problems)
    if section is not None:
        made["lm"] = lm_of(resolved(section, "lm", problems, environment), problems, directory)
    elif "lm" not in config:
        problems.add("lm", "a runtime needs a language model", 'write [lm] with model = "openai/<name>"')
    pools = _pools(config, directory, environment, problems)
    if pools is not None:
        made["pools"] = pools
    for name, (kind, needed) in VALUES.items():
        if config.get(name) is False:
            made[name] = None
        elif (section := _table(config, name, problems)) is not None:
            made[name] = value_of(kind, _beside(section, name, directory), name, needed, problems)
    if (limits := _table(config, "limits", problems)) is not None:
        made["limits"] = _limits(limits, made.get("pools"), problems)
    if problems.found:
        raise problems.error(where)
    return made


def _table(config: Mapping[str, Any], name: str, problems: Problems) -> Mapping[str, Any] | None:
    if name not in config:
        return None
    section = config[name]
    if isinstance(section, Mapping):
        return section
    off = ", or false for none" if name in VALUES else ""
    problems.of_kind(name, section, f"a table, [{name}]{off}")
    return None


def _settings_of_runtime(section: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    made = {}
    for name, value in section.items():
        if name not in _RUNTIME:
            problems.unknown("runtime", str(name), _RUNTIME)
            continue
        try:
            _RUNTIME[name](value)
        except ConfigError as error:
            problems.refused(f"runtime.{name}", error)
        else:
            made[name] = value
    return made


def _beside(section: Mapping[str, Any], name: str, directory: Path | None) -> Mapping[str, Any]:
    """The section with its paths as they are beside the configuration."""
    if directory is None:
        return section
    return {
        key: str(directory / value) if f"{name}.{key}" in _PATHS and isinstance(value, str) else value
        for key, value in section.items()
    }


def _limits(section: Mapping[str, Any], pools: Any, problems: Problems) -> Any:
    """Limits of every target, or of some by their names."""
    needed = {"in_flight": 1}
    if not any(isinstance(value, Mapping) for value in section.values()):
        return value_of(Limits, section, "limits", needed, problems)
    specs = pool_specs(pools) if not problems.found else ()
    names = ["native", *(f"pool:{'general' if spec is None else spec.name}" for spec in specs)]
    made = {}
    for name, table in section.items():
        if not isinstance(table, Mapping):
            problems.of_kind(inside("limits", str(name)), table, "a table, as the others in [limits] are")
        elif specs and name not in names:
            problems.unknown("limits", str(name), names, "target")
        else:
            made[name] = value_of(Limits, table, inside("limits", str(name)), needed, problems)
    return made


# --- pools -------------------------------------------------------------------------------------------


def _pools(
    config: Mapping[str, Any],
    directory: Path | None,
    environment: Mapping[str, str] | None,
    problems: Problems,
) -> Any:
    """What `pools=` of the runtime is; None where the configuration has none, and it is left out."""
    tables: list[tuple[str, Any, str | None]] = []  # path, table, name where that is not in the table
    pools = config.get("pools", [])
    if isinstance(pools, int) and not isinstance(pools, bool) and "pool" not in config:
        if pools < 0:
            problems.of_kind("pools", pools, "a number of workers, or tables, [[pools]]")
        return pools
    if isinstance(pools, list | tuple):
        tables += [(f"pools[{index}]", table, None) for index, table in enumerate(pools)]
    else:
        problems.of_kind("pools", pools, "a number of workers, or tables, [[pools]]")
    by_name = _table(config, "pool", problems) or {}
    tables += [(inside("pool", str(name)), table, str(name)) for name, table in by_name.items()]
    if not tables:
        return None if "pools" not in config else []
    made = []
    names: dict[str, str] = {}
    for path, table, name in tables:
        if not isinstance(table, Mapping):
            problems.of_kind(path, table, "a table of settings")
            continue
        spec = _pool(table, path, name, directory, environment, problems)
        if spec is None:
            continue
        if spec.name in names:
            problems.add(inside(path, "name"), f"{names[spec.name]} has the name {spec.name!r} too")
        names.setdefault(spec.name, path)
        made.append(spec)
    return made


def _pool(
    table: Mapping[str, Any],
    path: str,
    name: str | None,
    directory: Path | None,
    environment: Mapping[str, str] | None,
    problems: Problems,
) -> Any:
    from dspex.pool import PoolSpec
    from dspex.pool._toml import PRESETS, beside

    before = len(problems.found)
    settings = dict(table)
    preset = settings.pop("preset", None)
    spec = PoolSpec()
    if preset is not None:
        if isinstance(preset, str) and preset in PRESETS:
            spec = PRESETS[preset]()
        else:
            near = did_you_mean(preset, PRESETS) if isinstance(preset, str) else ""
            problems.of_kind(f"{path}.preset", preset, f"one of {', '.join(map(repr, PRESETS))}; {near}")
    if name is not None:
        if "name" in settings:
            problems.add(f"{path}.name", "a pool under [pool.<name>] has that name", "leave it out")
        settings["name"] = name
    if "env" in settings:
        settings["env"] = resolved(settings["env"], f"{path}.env", problems, environment)
    if directory is not None:
        settings |= beside(directory, settings)
    made = _replaced(spec, settings, path, problems)
    return made if len(problems.found) == before else None


def _replaced(value: Any, settings: Mapping[str, Any], path: str, problems: Problems) -> Any:
    """Settings of a pool, or a group of them, with these in the place of its own."""
    changes = {}
    for name, given in settings.items():
        group = getattr(value, name, None) if name in value.settings() else None
        if isinstance(given, Mapping) and hasattr(type(group), "settings"):
            changes[name] = _replaced(group, given, f"{path}.{name}", problems)
            continue
        try:
            type(value)(**{name: given})
        except ConfigError as error:
            if name not in value.settings():
                problems.add(inside(path, str(name)), "there is no such setting", error.hint)
            else:
                deeper = error.path.partition(f"{name}.")[2]
                message = error.message.removeprefix(f"{error.path}: ")
                place = f"{path}.{name}"
                problems.add(inside(place, deeper) if deeper else place, message, error.hint)
        else:
            changes[name] = given
    try:
        return value.replace(**changes)
    except ConfigError as error:
        problems.add(path, error.message.removeprefix(f"{error.path}: "), error.hint)
        return value
