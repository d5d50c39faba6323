"""Language models: what a call to one looks like, and the client for OpenAI-compatible servers.

`LM` is the client. Anything with the methods of `LanguageModel` can stand in its place, such as
`dspex.testing.ScriptedLM`.
"""

from dspex._lazy import names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dspex._request_settings import RequestSettings
    from dspex.lm._body import assemble
    from dspex.lm._client import LM
    from dspex.lm._given import language_model
    from dspex.lm._prompt import Prompt
    from dspex.lm._protocol import LanguageModel, LMChoice, LMRequest, LMResponse, LMToolCall

__all__ = [
    "LM",
    "LMChoice",
    "LMRequest",
    "LMResponse",
    "LMToolCall",
    "LanguageModel",
    "Prompt",
    "RequestSettings",
    "assemble",
    "language_model",
]

_HOMES = {
    "LM": "dspex.lm._client",
    "LMChoice": "dspex.lm._protocol",
    "LMRequest": "dspex.lm._protocol",
    "LMResponse": "dspex.lm._protocol",
    "LMToolCall": "dspex.lm._protocol",
    "LanguageModel": "dspex.lm._protocol",
    "Prompt": "dspex.lm._prompt",
    "RequestSettings": "dspex._request_settings",
    "assemble": "dspex.lm._body",
    "language_model": "dspex.lm._given",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
