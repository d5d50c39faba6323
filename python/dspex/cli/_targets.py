"""What a command line names by `package.module:attribute`."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from dspex.errors import ConfigError

__all__ = ["imported", "is_path"]

_PATH = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


def is_path(text: str) -> bool:
    """Whether a text looks like `package.module:attribute`, and not like a signature."""
    return _PATH.fullmatch(text) is not None


def imported(path: str) -> Any:
    """The object at `package.module:attribute`, imported as `python -m` would in this directory.

    Raises:
        ConfigError: If it is no such path, or nothing is there (`bad-target`).
    """
    if not is_path(path):
        raise ConfigError(
            f"{path!r} is neither a signature nor a path",
            code="bad-target",
            hint='write "question -> answer" or package.module:attribute',
        )
    module, _, attribute = path.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: the user's modules are where the user is
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{path!r} cannot be imported: {error}",
            code="bad-target",
            hint="run this where the module can be imported, in the environment of the program",
        ) from error
    return found
