"""Language models: what a call looks like, the client for OpenAI-compatible servers, groups of models.

`LM` is the client, and `LM.group` makes several models one. Anything with the methods of `LanguageModel` can
stand in its place, such as `dspex.testing.ScriptedLM`.
"""

from dspex._lazy import names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dspex._request_settings import RequestSettings
    from dspex.lm._cache import Cache, CacheStats
    from dspex.lm._chunks import assemble
    from dspex.lm._client import LM
    from dspex.lm._deployment import Deployment, DeploymentCounts
    from dspex.lm._given import language_model
    from dspex.lm._group import LMGroup
    from dspex.lm._http.native import NativeTransport
    from dspex.lm._http.through_aiohttp import AiohttpTransport
    from dspex.lm._http.tls import TLS
    from dspex.lm._http.transport import Transport
    from dspex.lm._prompt import Prompt
    from dspex.lm._protocol import LanguageModel, LMChoice, LMRequest, LMResponse, LMToolCall, TextPiece
    from dspex.lm._rate_limit import RateLimit

__all__ = [
    "LM",
    "TLS",
    "AiohttpTransport",
    "Cache",
    "CacheStats",
    "Deployment",
    "DeploymentCounts",
    "LMChoice",
    "LMGroup",
    "LMRequest",
    "LMResponse",
    "LMToolCall",
    "LanguageModel",
    "NativeTransport",
    "Prompt",
    "RateLimit",
    "RequestSettings",
    "TextPiece",
    "Transport",
    "assemble",
    "language_model",
]

_HOMES = {
    "AiohttpTransport": "dspex.lm._http.through_aiohttp",
    "Cache": "dspex.lm._cache",
    "CacheStats": "dspex.lm._cache",
    "Deployment": "dspex.lm._deployment",
    "DeploymentCounts": "dspex.lm._deployment",
    "LM": "dspex.lm._client",
    "LMChoice": "dspex.lm._protocol",
    "LMGroup": "dspex.lm._group",
    "LMRequest": "dspex.lm._protocol",
    "LMResponse": "dspex.lm._protocol",
    "LMToolCall": "dspex.lm._protocol",
    "LanguageModel": "dspex.lm._protocol",
    "NativeTransport": "dspex.lm._http.native",
    "Prompt": "dspex.lm._prompt",
    "RateLimit": "dspex.lm._rate_limit",
    "RequestSettings": "dspex._request_settings",
    "TextPiece": "dspex.lm._protocol",
    "TLS": "dspex.lm._http.tls",
    "Transport": "dspex.lm._http.transport",
    "assemble": "dspex.lm._chunks",
    "language_model": "dspex.lm._given",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
