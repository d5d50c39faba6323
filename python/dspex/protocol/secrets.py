"""What in settings must be seen by nobody, and how it is kept out of texts that leave a process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

__all__ = ["is_secret", "redacted", "secrets_in"]

_NAMES: Final = re.compile(r"key|token|secret|passw|auth|credential|cookie", re.IGNORECASE)

_SHORTEST: Final = 8
"""Characters of a secret. What is shorter, such as a local server's "none", is in many an honest word."""


def is_secret(name: str) -> bool:
    """Whether a name such as `api_key` or `Authorization` says that what it stands for is a secret."""
    return _NAMES.search(name) is not None


def secrets_in(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts that names such as `api_key`, `aws_session_token` or `Authorization` stand for, at any depth.

    Of `Bearer sk-...` the key alone is one too.
    """
    return tuple(dict.fromkeys(_found(settings, named=False)))


def _found(value: Any, *, named: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _found(inner, named=named or is_secret(str(name)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _found(inner, named=named)
    elif named and isinstance(value, str):
        for text in (value, value.rpartition(" ")[2]):
            if len(text) >= _SHORTEST:
                yield text


def redacted(value: Any, secrets: Iterable[str]) -> Any:
    """The value, plain, without the secrets in any text of it, a mapping's keys included."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, dict):
        return {redacted(key, secrets): redacted(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(item, secrets) for item in value)
    return value
