"""A configuration out of a TOML file, or of `[tool.dspex]` in a `pyproject.toml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dspex.errors import ConfigError
from dspex.pool._toml import toml_of

__all__ = ["config_of"]


def config_of(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Path]:
    """The sections of a file, and the directory that it is in.

    Raises:
        ConfigError: If it cannot be read (`no-settings-file`) or is no TOML (`bad-settings-file`).
    """
    file, content = toml_of(path)
    if file.name == "pyproject.toml":
        for name in ("tool", "dspex"):
            content = content.get(name, {})
            if not isinstance(content, dict):
                raise ConfigError(
                    f"{file}: [tool.dspex] is not a table",
                    code="bad-settings-file",
                    hint="write each section under a header such as [tool.dspex.runtime]",
                    file=str(file),
                )
    return content, file.parent.absolute()
