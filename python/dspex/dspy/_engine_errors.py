"""What a failure of dspex's is to DSPy: one table.

::

    of dspex                                                    of dspy.lm15            DSPy tries again
    the server's refusal (401, 402, 4xx, 429, 5xx)              what DSPy's own codec makes of that answer
    LMAuthError without an answer: there is no key, or none     NotConfiguredError      no
      that can be sent
    LMRateLimitError: the LM's own `limits` have no turn in     RateLimitError          yes, after retry_after
      time
    LMUnavailable: no deployment of a group takes calls         ServerError             yes, after retry_after
    LMTimeoutError, DeadlineExceeded                            TimeoutError            yes
    LMConnectionError: no connection, or it broke               TransportError          yes
    LMServerError: the server failed in the middle of a stream  ServerError             yes
    LMResponseError: not HTTP, as a broken connection           TransportError          yes
    LMResponseError: too large, a redirect, no chat completion  ProviderError           no
    LMRequestError                                              InvalidRequestError     no
    LMError of a language model of the user's own               ProviderError           no
    RouteError: only DSPy speaks to the provider                ConfigurationError      no
    ConfigError                                                 ConfigurationError      no
    any other error of dspex's                                  ProviderError           no

The error of dspex's is the cause of the one that is raised, so that its code and hint are at hand.
"""

from __future__ import annotations

from typing import Any

from dspex.dspy._engine_lm15 import lm15
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    DspexError,
    LMAuthError,
    LMConnectionError,
    LMError,
    LMRateLimitError,
    LMRequestError,
    LMResponseError,
    LMServerError,
    LMTimeoutError,
    LMUnavailable,
    RouteError,
)

__all__ = ["no_answer", "to_lm15"]

_LOCAL = (ConfigError, RouteError)


def to_lm15(error: DspexError, provider: str | None) -> Exception:
    """DSPy's error for one of ours that has no answer of the server to go by.

    Args:
        error: Ours.
        provider: What DSPy calls the kind of server.
    """
    message = f"{error.message} ({error.code})" + (f"; {error.hint}" if error.hint else "")
    known: dict[str, Any] = {"provider": provider}
    if isinstance(error, LMError):
        known |= {"status": error.status, "retry_after": error.retry_after}
    made: Exception
    match error:
        case LMAuthError():
            names = (error.variable,) if error.variable else ()
            made = lm15.NotConfiguredError(message, env_keys=names, **known)
        case LMRateLimitError():
            made = lm15.RateLimitError(message, **known)
        case LMUnavailable() | LMServerError():
            made = lm15.ServerError(message, **known)
        case LMTimeoutError() | DeadlineExceeded():
            made = lm15.TimeoutError(message, **known)
        case LMConnectionError() | LMResponseError(code="lm-not-http"):
            made = lm15.TransportError(message, **known)
        case LMRequestError():
            made = lm15.InvalidRequestError(message, **known)
        case _ if isinstance(error, _LOCAL):
            made = lm15.ConfigurationError(message, **known)
        case _:
            made = lm15.ProviderError(message, **known)
    return made


def no_answer(error: BaseException, provider: str, what: str = "") -> Exception:
    """DSPy's error for an answer whose contents its codec cannot read, whatever that raised."""
    made: Exception = lm15.ProviderError(
        what or f"the server's answer is malformed: {type(error).__name__}: {error}", provider=provider
    )
    return made
