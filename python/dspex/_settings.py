"""Names of settings that nearly are what was meant.

A module and an LM pass on what they do not know, as DSPy does: servers have settings of their own. So
`Predict(adaptor="json")` would be a setting of the request, and the adapter another than was asked for.
What is so near to a name that dspex knows that it must be a slip is refused; all else goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from dspex.errors import ConfigError

__all__ = ["REQUEST_SETTINGS", "check_spelling"]

REQUEST_SETTINGS: Final = frozenset(
    {
        # OpenAI's chat completions
        "audio", "extra_body", "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens",
        "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty",
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
        if name in REQUEST_SETTINGS:
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
