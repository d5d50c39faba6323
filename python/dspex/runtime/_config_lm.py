"""`[lm]`: the language model of a configuration, or the deployments of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dspex._breaker import Breaker
from dspex.errors import ConfigError
from dspex.lm import LM, TLS, Cache, Deployment, LanguageModel, RateLimit
from dspex.runtime._config_problems import Problems, inside
from dspex.runtime._config_secrets import UNREAD
from dspex.runtime._config_values import value_of

__all__ = ["GROUP_SETTINGS", "OF_A_DEPLOYMENT", "lm_of"]

OF_A_DEPLOYMENT: Final = ("weight", "concurrency", "name")
GROUP_SETTINGS: Final = ("deployments", "name", "strategy", "wait", "breaker")

_NO_MODEL: Final = "openai/none"


def lm_of(
    section: Mapping[str, Any], problems: Problems, directory: Path | None = None
) -> LanguageModel | None:
    """The language model of `[lm]`; None where something is wrong with it.

    Args:
        section: The section.
        problems: Where what is wrong is noted.
        directory: What paths in it are relative to; None for the working directory.
    """
    if "deployments" in section:
        return _group(section, problems, directory)
    return _lm(section, "lm", problems, directory)


def _lm(section: Mapping[str, Any], path: str, problems: Problems, directory: Path | None) -> LM | None:
    before = len(problems.found)
    settings = dict(section)
    model, limits = settings.pop("model", None), settings.pop("limits", None)
    if not isinstance(model, str):
        problems.add(f"{path}.model", "it is a text, which there must be", 'write model = "openai/<name>"')
        model = _NO_MODEL
    else:
        try:
            LM(model)
        except ConfigError as error:
            problems.refused(f"{path}.model", error)
            model = _NO_MODEL
    if isinstance(limits, Mapping):
        place = f"{path}.limits"
        settings["limits"] = value_of(RateLimit, limits, place, {}, problems, beside={"concurrency": 1})
    elif limits is not None:
        problems.of_kind(f"{path}.limits", limits, f"a table, [{path}.limits]")
    tls = settings.pop("tls", None)
    if isinstance(tls, Mapping):
        beside = {"cert_file": tls.get("cert_file")}
        settings["tls"] = value_of(TLS, tls, f"{path}.tls", {}, problems, beside=beside)
    elif tls is not None:
        problems.of_kind(f"{path}.tls", tls, f"a table, [{path}.tls]")
    if isinstance(cache := settings.get("cache"), Mapping):
        placed = dict(cache)
        if directory is not None and isinstance(placed.get("directory"), str):
            placed["directory"] = str(directory / placed["directory"])
        settings["cache"] = value_of(Cache, placed, f"{path}.cache", {}, problems)
    for name, value in settings.items():
        if name in ("callbacks", "transport"):
            problems.add(f"{path}.{name}", "it is an object of a program", "give it in Python")
            continue
        if name == "api_key" or value == UNREAD:  # its own rule is the server's
            continue
        try:
            LM(model, **{name: value})
        except ConfigError as error:
            problems.refused(inside(path, name), error)
        except (TypeError, ValueError, AttributeError):
            problems.of_kind(inside(path, name), value, "a value that dspex.LM takes")
    if len(problems.found) > before:
        return None
    try:
        return LM(model, **settings)
    except ConfigError as error:
        problems.refused(path, error)
        return None


def _group(section: Mapping[str, Any], problems: Problems, directory: Path | None) -> LanguageModel | None:
    before = len(problems.found)
    settings: dict[str, Any] = {}
    for name, value in section.items():
        if name not in GROUP_SETTINGS:
            problems.unknown("lm", str(name), GROUP_SETTINGS)
        elif name == "breaker" and isinstance(value, Mapping):
            settings[name] = value_of(Breaker, value, "lm.breaker", {}, problems)
        elif name == "breaker":
            settings[name] = None
            if value is not False:
                problems.of_kind("lm.breaker", value, "a table, [lm.breaker], or false for none")
        elif name != "deployments":
            try:
                LM.group([_NO_MODEL], **{name: value})
            except ConfigError as error:
                problems.refused(f"lm.{name}", error)
            settings[name] = value
    given = section["deployments"]
    if not isinstance(given, list | tuple) or not given:
        problems.of_kind("lm.deployments", given, "tables, [[lm.deployments]]")
        return None
    deployments = [
        _deployment(each, f"lm.deployments[{place}]", problems, directory) for place, each in enumerate(given)
    ]
    if len(problems.found) > before:
        return None
    try:
        return LM.group([each for each in deployments if each is not None], **settings)
    except ConfigError as error:
        problems.refused("lm", error)
        return None


def _deployment(table: Any, path: str, problems: Problems, directory: Path | None) -> Deployment | None:
    if not isinstance(table, Mapping):
        problems.of_kind(path, table, "a table of settings")
        return None
    own = {}
    for name in OF_A_DEPLOYMENT:
        if name in table:
            try:
                Deployment(_NO_MODEL, **{name: table[name]})
            except ConfigError as error:
                problems.refused(f"{path}.{name}", error)
            else:
                own[name] = table[name]
    settings = {name: value for name, value in table.items() if name not in OF_A_DEPLOYMENT}
    lm = _lm(settings, path, problems, directory)
    return None if lm is None else Deployment(lm, **own)
