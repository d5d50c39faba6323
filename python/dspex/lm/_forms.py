"""Which of DSPy's two ways to write a request's body is taken.

DSPy 3.4 has two engines that ask a chat server, and for the same call they write two bodies:

                      DSPy's own engine (`lm15`)        LiteLLM
    bound of tokens   `max_completion_tokens`           `max_tokens`, but for OpenAI's reasoning models
    `stop`            always a list                     as given
    settings          those that it knows               any; it adds `extra_body`
    `n` generations   `n` requests                      one request with `n`

Its `auto` takes the first where that can carry the settings, else the second. An LM takes the same by its
`engine`, with one difference: `auto` asks for several generations in one request, however it is written.
The server then reads the prompt once and charges for it once, and with a `seed` the generations differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from dspex._timeouts import shown
from dspex.errors import ConfigError

__all__ = ["Engine", "checked_engine", "form_of", "limits_of"]

Engine = Literal["auto", "lm15", "litellm"]

_KNOWN: Final = frozenset(
    {
        "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "metadata",
        "moderation", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key",
        "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "response_format", "seed",
        "service_tier", "stop", "store", "temperature", "tool_choice", "tools", "top_logprobs", "top_p",
        "user", "verbosity",
    }
)  # fmt: skip
"""Settings that DSPy's own engine carries."""
_OF_OPENAI: Final = frozenset({"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"})
"""Those of them that it carries to OpenAI alone."""
_NOT_SPOKEN: Final = frozenset({"lm_studio", "mistral", "together_ai"})
"""Prefixes that it does not know."""

_REASONING: Final = r"(o[1345](-mini|-nano|-pro)?(-[0-9-]{10})?|gpt-5(?!.*-chat)([.-].*)?)\Z"
"""Compiled, and then kept by `re`, when a call needs it: few do."""


def checked_engine(given: Any) -> Engine:
    """The engine as given.

    Raises:
        ConfigError: If it is none of the three (`lm-setting`).
    """
    if given == "auto" or given == "lm15" or given == "litellm":
        engine: Engine = given
        return engine
    raise ConfigError(
        f"engine must be 'auto', 'lm15' or 'litellm', not {shown(given)}",
        code="lm-setting",
        hint="it says whose request bodies are sent; leave it out for those that DSPy sends",
    )


def form_of(engine: Engine, prefix: str, settings: Mapping[str, Any]) -> Engine:
    """How a body with these settings is written, `lm15` or `litellm`; `n` is not among them.

    Raises:
        ConfigError: If that way cannot carry them (`lm-setting`).
    """
    if engine == "litellm":
        return engine
    if prefix == "openai" and settings.keys() <= _KNOWN and "max_completion_tokens" not in settings:
        return "lm15"  # as nearly always
    reason = None
    if not settings.keys() <= _KNOWN:
        reason = f"the setting {min(settings.keys() - _KNOWN)!r}"
    elif prefix in _NOT_SPOKEN:
        reason = f"the prefix {prefix!r}"
    elif prefix != "openai" and settings.keys() & _OF_OPENAI:
        reason = f"the setting {min(settings.keys() & _OF_OPENAI)!r} to a server of {prefix!r}"
    elif "max_tokens" in settings and settings["max_tokens"] != settings.get(
        "max_completion_tokens", settings["max_tokens"]
    ):
        reason = "max_tokens and max_completion_tokens that differ"
    if reason is None:
        return "lm15"
    if engine == "auto":
        return "litellm"
    raise ConfigError(
        f"DSPy's own engine (engine='lm15') cannot carry {reason}",
        code="lm-setting",
        hint="leave engine= out: 'auto' writes such a request as LiteLLM does",
    )


def limits_of(form: Engine, prefix: str, name: str, older: Any, newer: Any) -> dict[str, Any]:
    """The bound of tokens as it is sent.

    Args:
        form: How the body is written.
        prefix: The model's provider.
        name: The model's name to its server.
        older: `max_tokens`, if it is set.
        newer: `max_completion_tokens`, if it is set.
    """
    if form == "lm15":
        return {
            "max_completion_tokens" if prefix == "openai" else "max_tokens": older if newer is None else newer
        }
    if newer is None and prefix == "openai" and _is_reasoning_model(name):
        return {"max_completion_tokens": older}
    both = {"max_tokens": older, "max_completion_tokens": newer}
    return {key: value for key, value in both.items() if value is not None}


def _is_reasoning_model(name: str) -> bool:
    """Whether it is one of OpenAI's that know only the newer name, as DSPy and LiteLLM have it."""
    return re.match(_REASONING, name.rpartition("/")[2].lower()) is not None
