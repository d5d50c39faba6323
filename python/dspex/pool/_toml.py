"""Pools out of a TOML file.

::

    [pool.reports]                      # one table per pool; its name is the pool's
    preset = "optimizer"                # general, optimizer or neural; left out: PoolSpec's own defaults
    workers = 2
    python = "venv/bin/python"          # beside the file, unless it is absolute
    env = { CUDA_VISIBLE_DEVICES = "0" }

    [pool.reports.timeouts]             # a group of settings; what it leaves out is the preset's
    call = 3600

In a `pyproject.toml` the tables are `[tool.dspex.pool.reports]`. Whatever else is in the file is others'.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from dspex._timeouts import shown
from dspex.errors import ConfigError, did_you_mean
from dspex.pool._rules import Settings
from dspex.pool._spec import PoolSpec

__all__ = ["PRESETS", "beside", "load_pools", "toml_of"]

PRESETS: Final[Mapping[str, Callable[..., PoolSpec]]] = {
    "general": PoolSpec.general,
    "optimizer": PoolSpec.optimizer,
    "neural": PoolSpec.neural,
}


def load_pools(path: str | os.PathLike[str]) -> dict[str, PoolSpec]:
    """Read the settings of all pools in a TOML file.

    Args:
        path: The file.

    Returns:
        The settings by the pools' names, in the order of the file; none if it has no pool.

    Raises:
        ConfigError: If the file cannot be read, is not TOML, or a setting is unknown or wrong: it names the
            file, the setting's path such as `pool.reports.workers`, and what is allowed.
    """
    file, content = toml_of(path)
    above = ("tool", "dspex", "pool") if file.name == "pyproject.toml" else ("pool",)
    tables: Any = content
    for depth, name in enumerate(above):
        tables = tables.get(name, {})
        if not isinstance(tables, dict):
            raise _not_a_table(file, ".".join(above[: depth + 1]))
    return {name: _read(file, name, table) for name, table in tables.items()}


def toml_of(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """The file of a path, and what it says.

    Raises:
        ConfigError: If it cannot be read (`no-settings-file`) or is not TOML (`bad-settings-file`).
    """
    try:
        file = Path(path)
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError, TypeError) as err:  # a path may be none: no text, or one with a NUL in it
        raise _unusable(path, f"cannot be read: {err}", "no-settings-file") from err
    try:
        return file, tomllib.loads(text)
    except RecursionError as err:
        raise _unusable(file, "is nested too deeply", "bad-settings-file") from err
    except ValueError as err:  # of TOML's, or of a number with more digits than Python reads
        raise _unusable(file, f"is not TOML: {err}", "bad-settings-file") from err


def load_pool(path: str | os.PathLike[str], name: str) -> PoolSpec:
    """The settings of one pool in a TOML file. All of the file is checked.

    Raises:
        ConfigError: As `load_pools`, or if the file has no such pool (`no-such-pool`).
    """
    pools = load_pools(path)
    if name not in pools:
        raise ConfigError(
            f"{path} has no pool {name!r}",
            code="no-such-pool",
            hint=did_you_mean(name, pools) + f"it has: {', '.join(pools) or 'none'}",
            file=str(path),
        )
    return pools[name]


def _read(file: Path, name: str, table: Any) -> PoolSpec:
    if not isinstance(table, dict):
        raise _not_a_table(file, f"pool.{name}")
    settings = dict(table)
    preset = settings.pop("preset", None)
    try:
        if preset is not None and not (isinstance(preset, str) and preset in PRESETS):
            known = f"preset is one of {', '.join(map(repr, PRESETS))}"
            raise ConfigError(
                f"pool.{name}.preset: {shown(preset)} is refused",
                code="bad-pool-setting",
                hint=(did_you_mean(preset, PRESETS) if isinstance(preset, str) else "") + known,
                path=f"pool.{name}.preset",
            )
        if "name" in settings:
            raise ConfigError(
                f"pool.{name}.name: a pool in a file has the name of its table",
                code="bad-pool-setting",
                hint="leave it out",
                path=f"pool.{name}.name",
            )
        settings |= beside(file.parent.absolute(), settings)
        spec = (PoolSpec if preset is None else PRESETS[preset])().replace(name=name)
        return spec.replace(**{**settings, **_groups(spec, settings)})
    except ConfigError as err:
        raise ConfigError.from_other(err, message=f"{file}: {err.message}", file=str(file)) from None


def beside(directory: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The programs that a pool's settings name by a path: a relative one begins at the directory."""
    found: dict[str, Any] = {}
    python, command = settings.get("python"), settings.get("command")
    if isinstance(python, str) and os.sep in python:
        found["python"] = str(directory / python)
    if isinstance(command, list) and command and isinstance(command[0], str) and os.sep in command[0]:
        found["command"] = [str(directory / command[0]), *command[1:]]
    return found


def _groups(spec: PoolSpec, settings: Mapping[str, Any]) -> dict[str, Settings]:
    """The groups that a table has as tables of its own, over those of `spec`."""
    found: dict[str, Settings] = {}
    for name, table in settings.items():
        group: Any = getattr(spec, name, None)
        if not isinstance(table, dict) or not issubclass(type(group), Settings):
            continue
        try:
            found[name] = group.replace(**table)
        except ConfigError as err:
            path = f"pool.{spec.name}.{err.path}"
            message = err.message.replace(err.path, path, 1)
            raise ConfigError.from_other(err, message=message, path=path) from None
    return found


def _unusable(path: Any, why: str, code: str) -> ConfigError:
    # A path may hold bytes that are no text, and then stands for them in a way that no output can write.
    file = str(path).replace("\0", "\\0").encode(errors="backslashreplace").decode()
    return ConfigError(f"{file} {why}", code=code, file=file)


def _not_a_table(file: Path, path: str) -> ConfigError:
    return ConfigError(
        f"{file}: {path} is not a table",
        code="bad-pool-setting",
        hint="write the settings of each pool under a header such as [pool.reports]",
        path=path,
        file=str(file),
    )
