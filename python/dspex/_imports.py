"""Import paths, `package.module:name`: how a service names to a worker what both can import."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from dspex.errors import ConfigError

__all__ = ["find", "path_of", "unimportable"]


@functools.cache
def find(path: str) -> Any:
    """What `package.module:name` names; `name` may have dots.

    Raises:
        ConfigError: If it is not such a path, or nothing is there (`bad-import-path`).
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise ConfigError(f"{path!r} is not a path such as 'package.module:name'", code="bad-import-path")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module_name))
    except (ImportError, AttributeError) as err:
        raise ConfigError(
            f"the worker cannot import {path!r}: {err}",
            code="bad-import-path",
            hint="a worker imports what the service can; what is defined in a script's __main__ it cannot",
        ) from err


def path_of(named: Any) -> str:
    """The path that a worker imports a function or a class by; a text is taken for a path.

    Raises:
        ConfigError: If a worker cannot import it (`bad-import-path`).
    """
    if isinstance(named, str):
        return named
    problem = unimportable(named)
    if problem:
        raise ConfigError(
            f"{getattr(named, '__qualname__', named)!r} {problem}, so a worker cannot import it",
            code="bad-import-path",
            hint="define it at the top of a module that both can import, and give it or its path",
        )
    return f"{named.__module__}:{named.__qualname__}"


def unimportable(named: Any) -> str:
    """Why a worker cannot import something by its module and name; empty if it can."""
    module, qualname = getattr(named, "__module__", None), getattr(named, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(qualname, str)):
        return f"is a {type(named).__name__} without a module and a name of its own"
    if "<locals>" in qualname:
        return "is local to a function"
    if module == "__main__":
        return "is defined in the script that was started"
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return "" if found is named else f"is not what {module} has under that name"
