"""The language model that a setting names or is, or an error that says what to write instead."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from dspex.errors import ConfigError
from dspex.lm._client import LM
from dspex.lm._protocol import LanguageModel

__all__ = ["language_model"]

_METHODS: Final = ("complete", "stream", "aclose")


def language_model(given: Any) -> LanguageModel:
    """The language model that a setting names or is.

    Raises:
        ConfigError: If it names none or is none (`no-lm`, `lm-model`, `bad-lm`), or is one of DSPy's
            (`lm-of-dspy`).
    """
    if isinstance(given, LM):
        return given
    if isinstance(given, str):
        return LM(given)
    if given is None:
        raise ConfigError(
            "a runtime needs a language model",
            code="no-lm",
            hint='give it lm="openai/<name>" or a dspex.LM',
        )
    if isinstance(given, type):
        raise ConfigError(
            f"lm must be a language model, not the class {given.__name__}",
            code="bad-lm",
            hint=f'make one of it: {given.__name__}("openai/<name>")',
        )
    if any(cls.__module__.partition(".")[0] == "dspy" for cls in type(given).__mro__):
        raise ConfigError(
            f"lm is a {type(given).__name__} of DSPy's, which lives in this process and serves DSPy alone",
            code="lm-of-dspy",
            hint=f"write {_equivalent(given)}, the key by api_key= or from the environment",
        )
    missing = [name for name in _METHODS if not callable(getattr(given, name, None))]
    if missing:
        raise ConfigError(
            f"lm must be a language model, and {type(given).__name__} has no {', '.join(missing)}",
            code="bad-lm",
            hint='give "openai/<name>", a dspex.LM, or an object with the methods of dspex.lm.LanguageModel',
        )
    model: LanguageModel = given
    return model


def _equivalent(given: Any) -> str:
    """How one of DSPy's LMs is written here, without the key and what may hold another secret."""
    model, settings = getattr(given, "model", "openai/<name>"), getattr(given, "kwargs", None)
    shown: dict[str, Any] = {}
    if getattr(given, "model_type", "chat") == "responses":
        shown["model_type"] = "responses"
    for name, value in (settings if isinstance(settings, dict) else {}).items():
        if name == "api_base" and isinstance(value, str):
            address = urlsplit(value)
            if address.scheme and not (address.username or address.password or address.query):
                shown[name] = value
        elif isinstance(value, bool | int | float):  # what is text may be a secret by any name
            shown[name] = value
    return f"dspex.LM({', '.join([repr(model), *(f'{name}={value!r}' for name, value in shown.items())])})"
