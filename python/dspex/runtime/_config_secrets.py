"""Secrets in a configuration: a file names the environment variable that has one, and never the secret.

::

    api_key = { env = "OPENAI_API_KEY" }     a reference: its value is read when the configuration is
    api_key = "sk-..."                       refused, and not shown
    api_base = "https://me:word@host/v1"     refused: there is a password in it

A reference may stand for any text of `[lm]` and of a pool's `env`. Names that say of themselves that they are
secret have to be one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dspex.runtime._config_problems import Problems, inside

__all__ = ["UNREAD", "resolved"]

_SECRET_NAMES: Final = re.compile(
    r"(?:^|[_-])(?:api[_-]?key|key|token|secret|passw(?:or)?d|passphrase|credentials?|auth|authorization|cookie)$",
    re.IGNORECASE,
)
_NO_SECRETS: Final = frozenset({"prompt_cache_key"})
"""Settings of requests that end like a secret and are none."""

_PASSWORD: Final = re.compile(r"://[^/@\s]*:[^/@\s]+@")

UNREAD: Final = "unread"
"""What stands for a secret while a configuration is checked without an environment."""


def resolved(
    value: Any, path: str, problems: Problems, environment: Mapping[str, str] | None, *, name: str = ""
) -> Any:
    """The value with what its references stand for.

    Args:
        value: A setting, or a table of them.
        path: Where it is.
        problems: Where what is wrong is noted.
        environment: The variables; None to leave references unread.
        name: The setting's name.
    """
    if isinstance(value, Mapping):
        if set(value) == {"env"} and name:
            return _variable(value["env"], path, problems, environment)
        return {
            key: resolved(item, inside(path, str(key)), problems, environment, name=str(key))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            resolved(item, f"{path}[{index}]", problems, environment, name=name)
            for index, item in enumerate(value)
        ]
    if isinstance(value, str):
        if _SECRET_NAMES.search(name) and name not in _NO_SECRETS:
            reference = f'{{ env = "{name.upper()}" }}'
            problems.add(path, "a secret may not be written here", f"name its variable: {name} = {reference}")
        elif _PASSWORD.search(value):
            problems.add(path, "there is a password in it", 'name a variable that has it: { env = "NAME" }')
    return value


def _variable(name: Any, path: str, problems: Problems, environment: Mapping[str, str] | None) -> str:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        problems.add(path, "a reference names an environment variable", 'write { env = "NAME" }')
        return UNREAD
    if environment is None:
        return UNREAD
    if not environment.get(name):
        problems.add(path, f"the environment variable {name} is not set")
        return UNREAD
    return environment[name]
