"""A value of a class of settings out of a table, each setting tried alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

from dspex.errors import ConfigError
from dspex.runtime._config_problems import Problems

__all__ = ["may_be_off", "value_of"]


def value_of(
    kind: type[Any],
    section: Mapping[str, Any],
    path: str,
    needed: Mapping[str, Any],
    problems: Problems,
    *,
    beside: Mapping[str, Any] | None = None,
) -> Any:
    """The value of a class of settings, of a section; None where something in it is wrong.

    Args:
        kind: The class.
        section: The settings.
        path: Where they are.
        needed: Settings that must be there, each with a value to try the others with.
        problems: Where what is wrong is noted.
        beside: Other settings to try each one with.
    """
    off = may_be_off(kind)
    section = {name: None if value is False and name in off else value for name, value in section.items()}
    before = len(problems.found)
    known = [field.name for field in dataclasses.fields(kind)]
    for name in needed:
        if name not in section:
            problems.add(f"{path}.{name}", "it must be there")
    for name, value in section.items():
        if name not in known:
            problems.unknown(path, str(name), known)
            continue
        try:
            kind(**{**needed, **(beside or {}), name: value})
        except ConfigError as error:
            problems.refused(f"{path}.{name}", error)
    if len(problems.found) > before:
        return None
    try:
        return kind(**section)
    except ConfigError as error:
        problems.refused(path, error)
        return None


def may_be_off(kind: type[Any]) -> frozenset[str]:
    """Settings of a class that are on unless they are `None`, for which data says `false`."""
    hints = get_type_hints(kind)
    return frozenset(
        field.name
        for field in dataclasses.fields(kind)
        if field.default not in (None, dataclasses.MISSING)
        and NoneType in get_args(hints[field.name])
        and bool not in get_args(hints[field.name])
    )
