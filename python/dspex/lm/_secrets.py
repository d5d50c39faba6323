"""What an LM's settings hold that nobody may see, and how an LM shows and pickles them without it.

A setting that is known by name (`RequestSettings`) holds no secret, whatever it is called, such as
`prompt_cache_key`. All others may: `extra_body` and `extra_headers`, and what only another provider knows. In
them a text is a secret where its name, or one further out, says so: `api_key`, `Authorization`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dspex._settings import REQUEST_SETTINGS

__all__ = ["masked", "secrets_of", "without"]

_OPEN: Final = REQUEST_SETTINGS - {"extra_body", "extra_headers"}


def _private(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _OPEN}


def secrets_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The secrets in the settings, to be taken out of texts."""
    private = _private(settings)
    if not private:
        return ()
    from dspex.protocol.secrets import secrets_in  # most LMs have no such setting

    return secrets_in(private)


def masked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with `"***"` for each secret, as an LM shows them. No header's value is shown."""
    private = _private(settings)
    if not private:
        return dict(settings)
    from dspex.protocol.secrets import is_secret

    def mask(value: Any, *, named: bool) -> Any:
        if isinstance(value, Mapping):
            return {key: mask(inner, named=named or is_secret(str(key))) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [mask(inner, named=named) for inner in value]
        return "***" if named and isinstance(value, str) else value

    hidden = {
        name: mask(value, named=name == "extra_headers" or is_secret(name)) for name, value in private.items()
    }
    return {**settings, **hidden}


def without(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the secrets, as they are pickled."""
    private = _private(settings)
    if not private:
        return dict(settings)
    from dspex.protocol.secrets import is_secret

    def cleaned(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: cleaned(inner) for key, inner in value.items() if not _kept_back(key, inner)}
        return [cleaned(inner) for inner in value] if isinstance(value, list | tuple) else value

    def _kept_back(name: Any, value: Any) -> bool:
        return is_secret(str(name)) and isinstance(value, str | Mapping | list | tuple)

    return {
        name: cleaned(value) if name in private else value
        for name, value in settings.items()
        if name not in private or not _kept_back(name, value)
    }
