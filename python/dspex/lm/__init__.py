"""Language models: what a call to one looks like, and the client for OpenAI-compatible servers.

`LM` is the client. Anything with the methods of `LanguageModel` can stand in its place, such as
`dspex.testing.ScriptedLM`.
"""

from dspex.lm._client import LM
from dspex.lm._protocol import LanguageModel, LMChoice, LMRequest, LMResponse

__all__ = ["LM", "LMChoice", "LMRequest", "LMResponse", "LanguageModel"]
