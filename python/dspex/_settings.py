"""What the settings of a request may be: one rule for an LM, for a call, and for both routes.

A module and an LM pass on what they do not know, as DSPy does: servers have settings of their own. So
`Predict(adaptor="json")` would be a setting of the request, and the adapter another than was asked for.
What is so near to a name that dspex knows that it must be a slip is refused, and so is what no request has;
all else goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from dspex._timeouts import shown
from dspex.errors import ConfigError

__all__ = [
    "MAX_GENERATIONS",
    "MAX_RESPONSE_BYTES",
    "REQUEST_SETTINGS",
    "check_headers",
    "check_idempotent",
    "check_names",
    "check_spelling",
    "of_call",
]

REQUEST_SETTINGS: Final = frozenset(
    {
        # dspex's own
        "cache",
        # OpenAI's chat completions
        "audio", "extra_body", "extra_headers", "frequency_penalty", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls",
        "prediction", "presence_penalty",
        "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "response_format",
        "safety_identifier", "seed", "service_tier", "stop", "store", "temperature", "tool_choice", "tools",
        "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
        # DSPy's
        "num_generations", "rollout_id",
        # vLLM's, llama.cpp's, OpenRouter's and others'
        "best_of", "chat_template_kwargs", "echo", "guided_choice", "guided_grammar", "guided_json",
        "guided_regex", "ignore_eos", "include_reasoning", "length_penalty", "max_new_tokens", "min_p",
        "min_tokens", "models", "num_ctx", "num_predict", "prompt_logprobs", "reasoning", "repeat_penalty",
        "repetition_penalty", "safe_prompt", "skip_special_tokens", "stop_token_ids", "suffix", "thinking",
        "top_a", "top_k", "transforms", "typical_p", "use_beam_search",
    }
)  # fmt: skip
"""Settings of requests that are known by name: each is what was meant, however near to another it is."""

MAX_GENERATIONS: Final = 128
"""The API's own bound for `n`."""

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
"""What an LM reads of an answer unless it is told: far beyond any real completion, and harmless to hold."""

_OF_THE_LM: Final = "it belongs to the language model: dspex.LM(..., {}=)"
_LEAVE_OUT: Final = "leave it out; see dspex.LM for what there is"
_NOT_SENT: Final = 'DSPy does not send it as it is; write extra_body={{"{}": ...}}'
_TOOLS: Final = (
    "DSPy's adapters take it out of a call; give it to the LM, or let the adapter make native calls: "
    "dspex.ChatAdapter(use_native_function_calling=True)"
)

_REFUSED_EVERYWHERE: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("api_base", "api_key", "connect_timeout", "engine", "max_response_bytes", "model", "model_type"),
        _OF_THE_LM,
    ),
    "base_url": "write api_base=",
    "timeout": "give it to the call, timeout=, or to the language model: dspex.LM(..., timeout=)",
    # A worker's `dspy.LM` may not have these either: dspex decides about retries and caches.
    **dict.fromkeys(
        (
            "async_engine", "callbacks", "messages", "num_retries", "prompt", "request", "stream",
        ),
        _LEAVE_OUT,
    ),
}  # fmt: skip
"""Names that no request has, each with what to do instead."""

_REFUSED: Final[Mapping[str, str]] = {
    **_REFUSED_EVERYWHERE,
    # Keywords of `dspy.LM`, of litellm and of the API that are no settings of a request. One route would drop
    # them without a word, the other send them to a server, which they would only puzzle.
    **dict.fromkeys(
        (
            "allowed_openai_params", "api_version", "custom_llm_provider", "drop_params",
            "finetuning_model", "headers", "launch_kwargs", "organization", "prompt_cache",
            "provider", "stream_options", "train_kwargs", "use_developer_role",
        ),
        _LEAVE_OUT,
    ),
    **dict.fromkeys(("safety_identifier", "thinking", "top_k"), _NOT_SENT),
    "functions": "write tools=",
}  # fmt: skip
"""Those that no request has which both routes can send."""

_REFUSED_IN_A_CALL: Final = dict.fromkeys(
    ("functions", "parallel_tool_calls", "tool_choice", "tools"), _TOOLS
)

_NEAR: Final = 0.85
"""How like a known name a slip is: `adaptor` and `temprature` are, `top_k` is not like `top_p`."""


def check_spelling(given: Iterable[str], own: Iterable[str], where: str) -> None:
    """Refuse names that can only be a slip of a setting's or of an argument's.

    Args:
        given: The names that would go to the server.
        own: The arguments that whoever was called has himself.
        where: Who that is, for the error.

    Raises:
        ConfigError: If one is such a slip (`unknown-setting`).
    """
    for name in given:
        if name in REQUEST_SETTINGS or name in _REFUSED:  # the latter have words of their own
            continue
        near = _nearest(name, frozenset(own))
        if near is not None:
            raise ConfigError(
                f"{where} has no setting {name!r}",
                code="unknown-setting",
                hint=f"did you mean {near!r}? If the server does have a setting of that name, "
                f"write extra_body={{{name!r}: ...}}",
            )


@lru_cache(maxsize=1024)
def _nearest(name: str, own: frozenset[str]) -> str | None:
    import difflib  # a slip can wait for it, the import of the package cannot

    known = {_plain(other): other for other in sorted(REQUEST_SETTINGS | own)}
    near = difflib.get_close_matches(_plain(name), known, n=1, cutoff=_NEAR)
    return known[near[0]] if near else None


def _plain(name: str) -> str:
    return str(name).lower().replace("_", "").replace("-", "")


def check_names(settings: Mapping[str, Any], *, native: bool = True) -> None:
    """See to it that each name is one that a request may have.

    Args:
        settings: Settings of a language model or of a request.
        native: Whether dspex speaks to the model's server itself; where only DSPy does, more goes on to it.

    Raises:
        ConfigError: If one is not (`lm-setting`).
    """
    _check(settings, _REFUSED if native else _REFUSED_EVERYWHERE)


def of_call(
    config: Mapping[str, Any], *, native: bool = True, tools: bool = False, cache: bool = False
) -> dict[str, Any]:
    """The settings of one call as both routes send them: plain JSON.

    Args:
        config: What a module and its caller gave as `config`.
        native: As for `check_names`.
        tools: Whether the settings of native tool calls may be among them.
        cache: Whether `cache` goes on, which a worker has no use for: nothing is kept there.

    Raises:
        ConfigError: If a name is not a request's, a count or a temperature no number, or a value nothing that
            JSON can carry (`lm-setting`).
    """
    if not config:
        return {}
    if not tools:
        _check(config, _REFUSED_IN_A_CALL)
    check_names(config, native=native)
    given = dict(config)
    own = {"cache": _checked_cache(given.pop("cache"))} if "cache" in given else {}
    try:
        plain: dict[str, Any] = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"the settings of a call cannot be written as JSON: {error}", code="lm-setting"
        ) from error
    if "num_generations" in plain:  # DSPy has both names
        generations = plain.pop("num_generations")
        plain.setdefault("n", generations)
    n, temperature = plain.get("n"), plain.get("temperature")
    if n is not None and (type(n) is not int or not 1 <= n <= MAX_GENERATIONS):
        raise ConfigError(f"n must be a count from 1 to {MAX_GENERATIONS}, not {n!r}", code="lm-setting")
    if temperature is not None and type(temperature) not in (int, float):
        raise ConfigError(f"temperature must be a number, not {temperature!r}", code="lm-setting")
    return {**plain, **own} if cache else plain


def _checked_cache(value: Any) -> Any:
    named = value in ("off", "memory", "disk") if isinstance(value, str) else isinstance(value, bool | None)
    if named or getattr(type(value), "is_cache", False):
        return value
    raise ConfigError(
        f'cache must be "off", "memory", "disk" or a Cache, not {shown(value)}',
        code="bad-cache",
        hint="see dspex.lm.Cache",
    )


def _check(settings: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    for name in settings:
        if not isinstance(name, str):
            raise ConfigError(f"the name of a setting is a str, not {name!r}", code="lm-setting")
        if name in refused:
            raise ConfigError(
                f"{name!r} is not a setting of a request", code="lm-setting", hint=refused[name].format(name)
            )


def check_headers(value: Any) -> None:
    """See to it that a setting's header fields are texts by name. What they may hold, the transport knows.

    Raises:
        ConfigError: If they are not (`lm-setting`). No value is shown: it may be a secret.
    """
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"extra_headers must be a mapping of names to texts, not of type {type(value).__name__}",
            code="lm-setting",
        )
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ConfigError(
                f"extra_headers must be a mapping of names to texts: {shown(name)} is not one of them",
                code="lm-setting",
            )


def check_idempotent(value: Any) -> bool:
    """Whether a call may be run twice, as its caller says it.

    Raises:
        ConfigError: If it is neither True nor False (`bad-call`).
    """
    if isinstance(value, bool):
        return value
    raise ConfigError(f"idempotent must be True or False, not {shown(value)}", code="bad-call")
