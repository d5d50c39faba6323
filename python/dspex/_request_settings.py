"""`RequestSettings`: the settings of a request that are known by name, with their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from dspex.lm._cache import Cache

__all__ = ["RequestSettings"]


class RequestSettings(TypedDict, total=False):
    """What an LM, a module or a call may say of a request, besides what only one server knows.

    Editors show these names, and type checkers refuse others. At run time any name goes to the server that is
    not nearly one of these; `extra_body={...}` is for settings of one server's own, and passes both. None
    takes a setting away that was made further out.
    """

    # dspex's own: whether the answer may be one that was kept; no server is told of it
    cache: Literal["off", "memory", "disk"] | Cache | bool | None
    # OpenAI's chat completions
    audio: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str] | None
    frequency_penalty: float | None
    logit_bias: Mapping[str, float] | None
    logprobs: bool | None
    max_completion_tokens: int | None
    max_tokens: int | None
    metadata: Mapping[str, Any] | None
    modalities: Sequence[str] | None
    n: int | None
    parallel_tool_calls: bool | None
    prediction: Mapping[str, Any] | None
    presence_penalty: float | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning_effort: str | None
    response_format: Any
    safety_identifier: str | None
    seed: int | None
    service_tier: str | None
    stop: str | Sequence[str] | None
    store: bool | None
    temperature: float | None
    tool_choice: str | Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    top_logprobs: int | None
    top_p: float | None
    user: str | None
    verbosity: str | None
    web_search_options: Mapping[str, Any] | None
    # DSPy's
    num_generations: int | None
    rollout_id: int | None
    # vLLM's, llama.cpp's, OpenRouter's and others'
    best_of: int | None
    chat_template_kwargs: Mapping[str, Any] | None
    echo: bool | None
    guided_choice: Sequence[str] | None
    guided_grammar: str | None
    guided_json: Any
    guided_regex: str | None
    ignore_eos: bool | None
    include_reasoning: bool | None
    length_penalty: float | None
    max_new_tokens: int | None
    min_p: float | None
    min_tokens: int | None
    models: Sequence[str] | None
    num_ctx: int | None
    num_predict: int | None
    prompt_logprobs: int | None
    reasoning: Mapping[str, Any] | None
    repeat_penalty: float | None
    repetition_penalty: float | None
    safe_prompt: bool | None
    skip_special_tokens: bool | None
    stop_token_ids: Sequence[int] | None
    suffix: str | None
    thinking: Any
    top_a: float | None
    top_k: int | None
    transforms: Sequence[str] | None
    typical_p: float | None
    use_beam_search: bool | None
