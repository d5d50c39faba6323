"""Which version of DSPy's prompts dspex writes.

DSPy's prompts change between its minor versions. A *dialect*, `"3.3"` or `"3.4"`, names whose bytes are
written and whose reading of replies comes first; what differs stands in one table in the core
(`rust/core/src/dialect.rs`).

The choice, made where a prompt is first needed::

    dialect= is given          -> that dialect
    no DSPy is installed       -> the newest
    a DSPy dspex knows         -> its dialect
    any other DSPy             -> none: real DSPy does the work where there is one (a worker, the methods that
                                  a drop-in replaces), after one warning; elsewhere it is an error

DSPy is not imported for this; its version stands in the metadata of the installed package.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from functools import cache
from typing import Final

from dspex._core import Dialect, dialects
from dspex.errors import ConfigError, DialectWarning

__all__ = [
    "KNOWN",
    "Dialect",
    "check",
    "chosen",
    "dialect_of",
    "installed",
    "required",
    "unknown_dspy",
    "warn_mixed",
    "warn_unknown",
]

KNOWN: Final = tuple(dialects())
"""The dialects there are, the oldest first."""


@cache
def installed() -> str | None:
    """The version of the DSPy in this interpreter, or None if there is none."""
    loaded = getattr(sys.modules.get("dspy"), "__version__", None)
    if isinstance(loaded, str):
        return loaded
    return _version_on_the_path() or _version_by_any_finder()


def _version_on_the_path() -> str | None:
    """The version in the name of DSPy's `dist-info` folder, as `pip` and the others write it.

    To ask `importlib.metadata` imports the whole of `email`, which takes longer than all that a first native
    call needs otherwise.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:  # a zip file, or a folder that is not there
            continue
        for name in names:
            found = re.fullmatch(r"dspy-([^-]+)\.dist-info", name)
            if found:
                return found[1]
    return None


def _version_by_any_finder() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dspy")
    except PackageNotFoundError:
        return None


@cache
def dialect_of(version: str) -> str | None:
    """The dialect of a version of DSPy, or None where dspex has none for it.

    Args:
        version: A whole version, as in `"3.4.1"`.
    """
    numbers = re.match(r"\d+\.\d+", version)
    name = numbers[0] if numbers else None
    return name if name in KNOWN else None


def chosen(forced: str | None = None) -> str | None:
    """The dialect to use, or None where the installed DSPy is one that dspex does not know.

    Args:
        forced: The dialect that somebody asked for by name.

    Raises:
        ConfigError: If there is no such dialect (`unknown-dialect`).
    """
    if forced is not None:
        return check(forced)
    version = installed()
    return KNOWN[-1] if version is None else dialect_of(version)


def check(name: str) -> str:
    """The name, if there is a dialect of that name.

    Raises:
        ConfigError: If there is none (`unknown-dialect`).
    """
    if name not in KNOWN:
        raise ConfigError(
            f"there is no dialect {name!r}", code="unknown-dialect", hint=f"use {_either(KNOWN)}"
        )
    return name


def required(forced: str | None = None) -> str:
    """The dialect to use, where there must be one.

    Args:
        forced: The dialect that somebody asked for by name.

    Raises:
        ConfigError: If there is no such dialect (`unknown-dialect`), or the installed DSPy is one that dspex
            does not know (`unknown-dspy`).
    """
    name = chosen(forced)
    if name is None:
        raise unknown_dspy()
    return name


def unknown_dspy() -> ConfigError:
    """The error where the installed DSPy is one that dspex does not know."""
    return ConfigError(
        f"DSPy {installed()} is installed, and dspex does not know its prompts",
        code="unknown-dspy",
        hint=f"say whose prompts to write with dialect={_either(KNOWN)}, or install {_releases()}",
    )


def warn_mixed(pool: str, theirs: str, ours: str) -> None:
    """Warn, once for each such pair, that the two routes write the prompts of different versions.

    Args:
        pool: The pool's name.
        theirs: The version of the workers' DSPy.
        ours: The dialect of the native side.
    """
    fitting = dialect_of(theirs)
    _warn(
        f"{pool} has DSPy {theirs}, and the native side writes the prompts of {ours}: the same call has "
        "other messages on each route. "
        + (f"Set dialect={fitting!r}, or install" if fitting else "Install")
        + f" DSPy {ours} for the workers."
    )


def warn_unknown(instead: str) -> None:
    """Warn, once in a process, that the installed DSPy is one that dspex does not know.

    Args:
        instead: What happens instead.
    """
    _warn(
        f"DSPy {installed()} is installed, and dspex does not know its prompts; {instead}. "
        f"Install {_releases()}, a dspex that knows it, or say whose prompts to write with "
        f"dialect={_either(KNOWN)}."
    )


@cache
def _warn(message: str) -> None:
    warnings.warn(message, DialectWarning, stacklevel=4)


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(map(repr, names))


def _releases() -> str:
    return "DSPy " + " or ".join(KNOWN)
