"""What a model can do, as DSPy's adapters ask an engine.

DSPy takes what an engine does not say for no: its JSON adapter then asks for no schema, and says nothing of
it. So an engine says what DSPy's own would say of the same model, from DSPy's catalogue, or what its owner
has said, who knows a server of his own better. A group can do what each of its deployments can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import dspy

from dspex.dspy import _engine_lm15 as private
from dspex.lm import LMGroup

if TYPE_CHECKING:
    from dspex.lm import LanguageModel

__all__ = ["Can", "can_of"]

_ANY: Final = frozenset(
    {
        *("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "stream", "user"),
        *("logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias"),
    }
)
"""What a server of chat completions takes."""

_PARAMS: Final[Mapping[str, frozenset[str]]] = {
    "function_calling": frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format"}),
    "reasoning": frozenset({"reasoning_effort"}),
    "response_schema": frozenset({"response_format"}),
}


@dataclass(frozen=True)
class Can:
    """What a model can do.

    Attributes:
        function_calling: Whether it takes native calls of tools.
        reasoning: Whether it reasons.
        response_schema: Whether it keeps to a JSON schema.
        params: The settings it takes.
    """

    function_calling: bool = False
    reasoning: bool = False
    response_schema: bool = False
    params: frozenset[str] = _ANY


def can_of(lm: LanguageModel, kind: str, said: Mapping[str, bool]) -> Can:
    """What a language model can do, with what its owner says on top.

    Args:
        lm: It.
        kind: What it is asked by, `"chat"` or `"responses"`.
        said: What its owner says.
    """
    if len(said) == len(_PARAMS):
        can = Can()  # nothing is left to ask the catalogue
    elif isinstance(lm, LMGroup):
        can = _of_group(lm, kind)
    else:
        can = _of_model(getattr(lm, "model", None), kind)
    params = can.params
    for name, value in said.items():
        params = params | _PARAMS[name] if value else params - _PARAMS[name]
    return replace(can, params=params, **said)


def _of_group(group: LMGroup, kind: str) -> Can:
    each = [can_of(lm, kind, {}) for lm in (member.lm for member in group._all())]
    return Can(
        all(can.function_calling for can in each),
        all(can.reasoning for can in each),
        all(can.response_schema for can in each),
        frozenset.intersection(*(can.params for can in each)),
    )


def _of_model(model: Any, kind: str) -> Can:
    if not (isinstance(model, str) and "/" in model):
        return Can()
    try:
        found = private.capabilities(dspy.LM(model, model_type=kind, engine="lm15"))
    except dspy.LMError:  # a provider of which DSPy's own engine knows nothing
        return Can()
    return Can(found.function_calling, found.reasoning, found.response_schema, found.params)
